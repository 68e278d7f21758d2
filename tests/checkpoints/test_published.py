"""Other people's checkpoints as models of ours, and as the start of a training: the recorded numbers come out."""

import argparse
import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import aumcli
from aumcli.checkpoints import import_checkpoint, initialise, read_model, save_model
from aumcli.config import AudioMambaConfig, FrontendConfig, ModelConfig, SpectrogramTransformerConfig
from aumcli.convert import convert
from aumcli.core import build_network
from aumcli.errors import AumError
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
FIVE = ["a", "b", "c", "d", "e"]
TINY = {"width": 32, "depth": 2, "n_classes": 3, "n_mels": 128, "frames": 32}


def config_of(network, labels=None, **changes) -> ModelConfig:
    model = network.config
    return ModelConfig(
        model=model,
        frontend=FrontendConfig(n_mels=model.n_mels, frames=model.frames),
        activation="softmax",
        labels=labels or [f"class {i}" for i in range(model.n_classes)],
        **changes,
    )


def fresh(kind=AudioMambaConfig, seed=1, **changes):
    torch.manual_seed(seed)
    return build_network(kind(**TINY | changes))


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_an_audio_mamba_at_another_length_and_with_other_classes(golden, backend):
    recorded = np.load(golden / "aum" / "interp_128x128_to_128x256.npz", allow_pickle=False)
    path = golden / "aum" / str(recorded["source_checkpoint"])
    imported = import_checkpoint(path, frames=256, labels=FIVE, new_head=True, backend=backend)
    features = imported.network.forward_features(torch.from_numpy(recorded["input"]))
    np.testing.assert_allclose(features.detach(), recorded["features"], atol=1e-4)
    np.testing.assert_allclose(imported.network.pos_embed.pos_embed.detach(), recorded["pos_embed"], atol=1e-6)
    assert "resized the positions from 8 x 8 to 8 x 16 patches" in imported.notes
    assert "new, not trained: head.bias, head.weight" in imported.notes
    network = build_network(imported.config.model)  # the same by way of a training's start
    notes = initialise(network, imported.config, path)
    np.testing.assert_allclose(
        network.forward_features(torch.from_numpy(recorded["input"])).detach(), recorded["features"], atol=1e-4
    )
    assert any(note.startswith("new, not trained: head") for note in notes)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_a_vision_mamba_of_imagenet(golden, tmp_path, backend):
    recorded = np.load(golden / "aum" / "Bi-Bi_mid_from_imagenet.npz", allow_pickle=False)
    (tmp_path / "labels.csv").write_text("index,name\n" + "".join(f"{i},{i}\n" for i in range(7)))
    convert(golden / "aum" / "vim_imagenet_midcls.pth", tmp_path / "model", frames=128, labels=tmp_path / "labels.csv")
    network, config = read_model(tmp_path / "model", backend)
    with torch.inference_mode():
        np.testing.assert_allclose(
            network.forward_features(torch.from_numpy(recorded["input"])), recorded["features"], atol=1e-4
        )
    np.testing.assert_allclose(network.pos_embed.pos_embed.detach(), recorded["pos_embed"], atol=1e-6)
    np.testing.assert_allclose(network.patch_embed.proj.weight.detach(), recorded["patch_weight"], atol=1e-6)
    assert config.provenance["head"] == "new" and config.model.direction == "Bi-Bi"


def test_rotary_tables_are_left_out(golden, tmp_path):
    content = torch.load(golden / "aum" / "vim_imagenet_midcls.pth", weights_only=True)
    content["model"] |= {"rope.freqs_cos": torch.ones(196, 64), "rope.freqs_sin": torch.ones(196, 64)}
    content["args"] = argparse.Namespace(model="vim_small", lr=5e-6, distributed=True)  # as ViM's trainer saves it
    torch.save(content, tmp_path / "vim.pth")
    notes = import_checkpoint(tmp_path / "vim.pth", labels=FIVE).notes
    assert "left out 2 rotary tables" in notes and "averaged the patch embedding over 3 colours" in notes
    with pytest.raises(AumError, match="which classes"):
        import_checkpoint(tmp_path / "vim.pth")


def test_a_transformer_at_another_length(golden):
    recorded = np.load(golden / "ast" / "ast_pretrained_128x128_to_128x256.npz", allow_pickle=False)
    imported = import_checkpoint(
        golden / "ast" / str(recorded["source_checkpoint"]),
        frames=256,
        heads=3,
        frontend=FrontendConfig(),
        activation="softmax",
    )
    with torch.inference_mode():
        np.testing.assert_allclose(imported.network(torch.from_numpy(recorded["input"])), recorded["logits"], atol=1e-4)
    np.testing.assert_allclose(imported.network.v.pos_embed.detach(), recorded["pos_embed"], atol=1e-6)


@pytest.mark.parametrize("distilled, suffix", [(False, ".pth"), (True, ".safetensors")])
def test_a_deit_of_imagenet(tmp_path, distilled, suffix):
    """Names as in timm; colours summed, positions cut from the middle along the mels, the head dropped."""
    pictures = fresh(SpectrogramTransformerConfig, width=64, heads=1, n_mels=224, frames=224, distilled=distilled)
    theirs = {
        name.removeprefix("v."): x.detach().clone()
        for name, x in pictures.state_dict().items()
        if name.startswith("v.")
    }
    colours = torch.randn(64, 3, 16, 16)
    theirs |= {"patch_embed.proj.weight": colours, "head.weight": torch.zeros(1000, 64), "head.bias": torch.zeros(1000)}
    path = tmp_path / f"deit{suffix}"
    save_file(theirs, path) if suffix == ".safetensors" else torch.save({"model": theirs}, path)
    imported = import_checkpoint(path, frames=128, labels=FIVE)
    ours = imported.network.state_dict()
    torch.testing.assert_close(ours["v.patch_embed.proj.weight"], colours.sum(1, keepdim=True))
    prefix = 1 + distilled
    grid = theirs["pos_embed"][:, prefix:].reshape(14, 14, 64)
    torch.testing.assert_close(ours["v.pos_embed"][0, prefix:].reshape(8, 8, 64), grid[3:11, 3:11])
    assert torch.equal(ours["v.pos_embed"][:, :prefix], theirs["pos_embed"][:, :prefix])
    assert (
        torch.equal(ours["v.blocks.1.mlp.fc1.weight"], theirs["blocks.1.mlp.fc1.weight"])
        and len(imported.config.labels) == 5
    )
    assert imported.config.model.distilled is distilled


def test_transformers_asts_there_and_back(golden, tmp_path):
    recorded = np.load(golden / "ast" / "hf" / "io.npz", allow_pickle=False)
    rows = dict(convert(golden / "ast" / "hf", tmp_path / "ours"))
    assert "AST, 2 heads" in rows["model"]
    model = aumcli.load_model(tmp_path / "ours")
    np.testing.assert_allclose(model.logits(torch.from_numpy(recorded["input"])), recorded["logits"], atol=1e-4)
    assert model.labels[0] == "LABEL_0"
    convert(tmp_path / "ours", tmp_path / "theirs", to="transformers")
    before, after = (load_file(folder / "model.safetensors") for folder in (golden / "ast" / "hf", tmp_path / "theirs"))
    assert before.keys() == after.keys() and all(torch.equal(x, after[name]) for name, x in before.items())


def test_transformers_reads_what_we_write(tmp_path):
    import baselines

    baselines.import_torchaudio("functional")  # which transformers imports
    from transformers import ASTFeatureExtractor, ASTForAudioClassification

    network = fresh(
        SpectrogramTransformerConfig,
        width=64,
        heads=2,
        distilled=True,
        overlap=6,
        frames=36,
        norm_eps=1e-12,
        head_norm_eps=1e-12,
    )
    config = config_of(network.eval(), ["dog", "cat", "rain"])
    save_model(tmp_path / "ours", network.state_dict(), config)
    convert(tmp_path / "ours", tmp_path / "theirs", to="transformers")
    theirs = ASTForAudioClassification.from_pretrained(tmp_path / "theirs").eval()
    features = torch.randn(2, 36, 128)
    with torch.inference_mode():
        torch.testing.assert_close(theirs(features).logits, network(features), rtol=1e-5, atol=1e-5)
    assert theirs.config.id2label == {0: "dog", 1: "cat", 2: "rain"}
    assert ASTFeatureExtractor.from_pretrained(tmp_path / "theirs").max_length == 36


def test_transformers_has_no_audio_mamba_and_says_what_it_can_not(tmp_path):
    save_model(tmp_path / "aum", fresh().state_dict(), config_of(fresh()))
    with pytest.raises(AumError, match="transformers has no such model"):
        convert(tmp_path / "aum", tmp_path / "out", to="transformers")
    ast = fresh(SpectrogramTransformerConfig, width=64, heads=1, distilled=True)
    save_model(tmp_path / "ast", ast.state_dict(), config_of(ast))
    assert any("epsilon" in value for _, value in convert(tmp_path / "ast", tmp_path / "out", to="transformers"))
    kitchen = load_recipe("epic_sounds").frontend.model_copy(update={"frames": 32})
    save_model(tmp_path / "epic", ast.state_dict(), config_of(ast).model_copy(update={"frontend": kitchen}))
    with pytest.raises(AumError, match="no such frontend: its kind is epic_sounds"):
        convert(tmp_path / "epic", tmp_path / "out2", to="transformers")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, but 3"),
        ({"max_length": 1024}, "positions"),
        ({"hidden_act": "relu"}, "activation"),
        ({"id2label": {"0": "x"}}, "lacks '1'"),
        ({"patch_size": "x"}, "invalid literal"),
    ],
)
def test_transformers_directories_that_lie(golden, tmp_path, change, words):
    said = json.loads((golden / "ast" / "hf" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(said | change))
    (tmp_path / "model.safetensors").write_bytes((golden / "ast" / "hf" / "model.safetensors").read_bytes())
    with pytest.raises(AumError, match=words):
        import_checkpoint(tmp_path)


def test_a_start_from_a_model_of_ours(tmp_path):
    source, target = fresh(seed=1), fresh(seed=2)
    save_model(tmp_path, source.state_dict(), config_of(source, ["dog", "cat", "rain"]))
    notes = initialise(target, config_of(target, ["dog", "cat", "rain"]), tmp_path)
    assert all(torch.equal(x, source.state_dict()[name]) for name, x in target.state_dict().items()) and len(notes) == 2
    other = fresh(seed=3)
    head = other.head.weight.detach().clone()
    notes = initialise(other, config_of(other, ["dog", "cat", "snow"]), tmp_path)  # as many classes, but other ones
    assert torch.equal(other.head.weight, head) and "new, not trained: head.bias, head.weight" in notes
    assert "the head starts afresh: the model has classes of its own" in notes


def other_norm(network):
    """A trained norm is no longer ones and zeros."""
    with torch.no_grad():
        network.mlp_head[0].weight.fill_(0.7)
        network.mlp_head[0].bias.fill_(0.3)
    return network


@pytest.mark.parametrize("how", ["other number of classes", "other classes"])
def test_a_transformer_with_other_classes_starts_with_a_fresh_norm_too(tmp_path, how):
    """As the authors' load_backbone_only, which all their scripts from AudioSet set."""
    source = other_norm(fresh(SpectrogramTransformerConfig, width=64, heads=1))
    save_model(tmp_path, source.state_dict(), config_of(source, ["dog", "cat", "rain"]))
    classes = ["dog", "cat"] if how == "other number of classes" else ["dog", "cat", "snow"]
    target = fresh(SpectrogramTransformerConfig, seed=2, width=64, heads=1, n_classes=len(classes))
    linear = target.mlp_head[1].weight.detach().clone()
    notes = initialise(target, config_of(target, classes), tmp_path)
    assert (target.mlp_head[0].weight == 1).all() and (target.mlp_head[0].bias == 0).all()
    assert torch.equal(target.mlp_head[1].weight, linear) and torch.equal(target.v.norm.weight, source.v.norm.weight)
    assert "new, not trained: mlp_head.0.bias, mlp_head.0.weight, mlp_head.1.bias, mlp_head.1.weight" in notes
    why = "the checkpoint has 3 classes, the model 2" if len(classes) == 2 else "the model has classes of its own"
    assert f"the head and the norm before it start afresh, as in the authors' scripts: {why}" in notes


def test_a_transformer_with_the_same_classes_goes_on_with_head_and_norm(tmp_path):
    source, target = (fresh(SpectrogramTransformerConfig, seed=seed, width=64, heads=1) for seed in (1, 2))
    torch.save(other_norm(source).state_dict(), tmp_path / "ast.pth")  # which names no classes
    notes = initialise(target, config_of(target), tmp_path / "ast.pth")
    assert all(torch.equal(x, source.state_dict()[name]) for name, x in target.state_dict().items())
    assert not any("afresh" in note for note in notes)


def test_a_new_head_of_a_transformer_has_a_fresh_norm_too(tmp_path):
    torch.save(other_norm(fresh(SpectrogramTransformerConfig, width=64, heads=1)).state_dict(), tmp_path / "ast.pth")
    imported = import_checkpoint(tmp_path / "ast.pth", labels=FIVE, new_head=True)
    assert (imported.network.mlp_head[0].weight == 1).all() and (imported.network.mlp_head[0].bias == 0).all()


def test_a_start_with_smaller_patches_and_another_direction(tmp_path):
    source, target = fresh(), fresh(patch_mels=8, patch_frames=32, direction="Fo-Fo", seed=2)
    save_model(tmp_path, source.state_dict(), config_of(source))
    notes = "\n".join(initialise(target, config_of(target), tmp_path))
    assert (
        "resized the patch embedding from 16 x 16 to 8 x 32" in notes
        and "resized the positions from 8 x 2 to 16 x 1" in notes
    )
    assert "left out: layers.0.mixer.A_b_log, layers.1.mixer.A_b_log" in notes


@pytest.mark.parametrize(
    "changes, words", [({"width": 64}, "width"), ({"depth": 3}, "depth"), ({"state_size": 8}, "A_log has shape")]
)
def test_a_start_from_another_size_is_refused(tmp_path, changes, words):
    source, target = fresh(), fresh(**changes)
    save_model(tmp_path, source.state_dict(), config_of(source))
    before = {name: x.clone() for name, x in target.state_dict().items()}
    with pytest.raises(AumError, match=words):
        initialise(target, config_of(target), tmp_path)
    assert all(torch.equal(x, before[name]) for name, x in target.state_dict().items())
    with pytest.raises(AumError, match="architecture"):
        initialise(fresh(SpectrogramTransformerConfig, heads=2), config_of(source), tmp_path)


def test_between_one_and_two_class_tokens(tmp_path):
    source, target = (
        fresh(SpectrogramTransformerConfig, width=64, heads=1, distilled=two, seed=two) for two in (True, False)
    )
    save_model(tmp_path / "two", source.state_dict(), config_of(source))
    notes = initialise(target, config_of(target), tmp_path / "two")
    assert "left out the distillation token's position" in notes and "left out: v.dist_token" in notes
    assert torch.equal(target.v.pos_embed, source.v.pos_embed[:, [0, *range(2, 18)]])
    save_model(tmp_path / "one", target.state_dict(), config_of(target))
    again = fresh(SpectrogramTransformerConfig, width=64, heads=1, distilled=True, seed=5)
    kept = again.v.pos_embed[:, 1].detach().clone()
    initialise(again, config_of(again), tmp_path / "one")
    assert torch.equal(again.v.pos_embed[:, 1], kept) and torch.equal(
        again.v.pos_embed[:, 2:], target.v.pos_embed[:, 1:]
    )


def test_files_that_would_fill_the_memory_are_refused(tmp_path):
    good = fresh().state_dict()
    torch.save(good | {"norm_f.weight": torch.ones(1).expand(10**12)}, tmp_path / "view.pth")
    with pytest.raises(AumError, match="claims 1,000,000,000,000 values"):
        import_checkpoint(tmp_path / "view.pth")
    torch.save(good | {"norm_f.weight": torch.zeros(10**7)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    with pytest.raises(AumError, match="unpack"):
        import_checkpoint(tmp_path / "bomb.pth")
    (tmp_path / "lies.safetensors").write_bytes((10**15).to_bytes(8, "little") + b"{}")
    with pytest.raises(AumError, match="can't read"):
        import_checkpoint(tmp_path / "lies.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AumError, match="no config.json"):
        import_checkpoint(tmp_path / "empty")


def test_command_makes_a_new_head(tmp_path, aum):
    save_model(tmp_path / "model", fresh().state_dict(), config_of(fresh()))
    (tmp_path / "labels.csv").write_text("index,name\n0,dog\n1,cat\n")
    refused = aum("convert", tmp_path / "model", tmp_path / "out", "--labels", tmp_path / "labels.csv")
    assert refused.code == 2 and "--new-head" in refused.err
    done = aum(
        "convert",
        tmp_path / "model",
        tmp_path / "out",
        "--labels",
        tmp_path / "labels.csv",
        "--new-head",
        "--frames",
        64,
    )
    assert done.code == 0 and "new, not trained" in done.out and "8 x 4 patches" in done.out, done.err
    assert aumcli.load_model(tmp_path / "out").labels == ["dog", "cat"]


def test_packaged_models_are_checkpoints_too(tmp_path, aum):
    done = aum("convert", "digits", tmp_path / "longer", "--frames", 200)
    assert done.code == 0 and "resized the positions" in done.out, done.err
    assert len(aumcli.load_model(tmp_path / "longer").labels) == 10

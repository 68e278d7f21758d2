"""Published checkpoints through `aum convert`: the recorded logits come out, and what is no checkpoint is refused."""

import json
import pickle
import shlex

import numpy as np
import pytest
import torch

import aumcli
from aumcli.checkpoints import UnknownFrontend, import_checkpoint, read_config, read_model
from aumcli.config import AudioMambaConfig, FrontendConfig
from aumcli.convert import convert
from aumcli.core.audio_mamba import AudioMamba
from aumcli.errors import AumError
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
AUM = [
    "Fo-Fo_head",
    "Fo-Fo_mid",
    "Fo-Bi_head",
    "Fo-Bi_mid",
    "Fo-Bi_mid_128x256",
    "Fo-Bi_mid_module_prefix",
    "Bi-Bi_mid",
    "Bi-Bi_end",
]
STATED = {"frontend": FrontendConfig(), "activation": "softmax"}  # what no published checkpoint says


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("name", AUM)
def test_published_audio_mambas(golden, tmp_path, recipe_of, name, backend):
    recorded = np.load(golden / "aum" / f"{name}.npz", allow_pickle=False)
    position = json.loads(str(recorded["config"]))["cls"]
    convert(golden / "aum" / f"{name}.pth", tmp_path / "model", cls_position=position, recipe=recipe_of(7))
    network, _ = read_model(tmp_path / "model", backend)
    with torch.inference_mode():
        np.testing.assert_allclose(network(torch.from_numpy(recorded["input"])).numpy(), recorded["logits"], atol=1e-4)
        np.testing.assert_allclose(
            network.forward_features(torch.from_numpy(recorded["input"])).numpy(), recorded["features"], atol=1e-4
        )


@pytest.mark.parametrize("name", ["ast_128x128", "ast_128x256", "ast_distilled_128x128"])
def test_published_transformers(golden, tmp_path, recipe_of, name):
    recorded = np.load(golden / "ast" / f"{name}.npz", allow_pickle=False)
    heads = json.loads(str(recorded["config"]))["num_heads"]
    convert(golden / "ast" / f"{name}.pth", tmp_path / "model", heads=heads, recipe=recipe_of(7))
    logits = aumcli.load_model(tmp_path / "model").logits(torch.from_numpy(recorded["input"]))
    np.testing.assert_allclose(logits.numpy(), recorded["logits"], atol=1e-4)
    with pytest.raises(AumError, match="heads"):
        import_checkpoint(golden / "ast" / f"{name}.pth")


@pytest.fixture
def checkpoint(tmp_path):
    """A small Audio Mamba's state dict and where it would be saved."""
    torch.manual_seed(0)
    config = AudioMambaConfig(width=32, depth=2, n_classes=3, n_mels=128, frames=32, direction="Bi-Bi", state_size=4)
    return AudioMamba(config).state_dict(), tmp_path / "model.pth"


def test_nothing_changes_on_the_way(checkpoint, tmp_path, recipe_of, aum):
    tensors, path = checkpoint
    torch.save({"model": {f"module.{name}": x for name, x in tensors.items()}}, path)
    (tmp_path / "labels.csv").write_text('index,mid,display_name\n0,/m/1,"Dog, bark"\n1,/m/2,Rain\n2,/m/3,Bell\n')
    result = aum("convert", path, tmp_path / "out", "--labels", tmp_path / "labels.csv", "--recipe", recipe_of(3))
    assert result.code == 0 and "Bi-Bi" in result.out, result.err
    network, config = read_model(tmp_path / "out")
    assert config.labels == ("Dog, bark", "Rain", "Bell") and config.model.frames == 32 and config.model.state_size == 4
    assert all(torch.equal(x, tensors[name]) for name, x in network.state_dict().items())
    again = aum("convert", path, tmp_path / "out")
    assert again.code == 2 and "already holds a model" in again.err


class Harm:
    """Runs a command where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return __import__("os").mkdir, (str(self.path),)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    torch.save({"layers.0.mixer.in_proj.weight": Harm(tmp_path / "harmed")}, tmp_path / "bad.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harm(tmp_path / "harmed")))
    for name in ("bad.pth", "plain.pth"):
        with pytest.raises(AumError, match="not opened"):
            import_checkpoint(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_damaged_and_foreign_files_are_refused(checkpoint, tmp_path):
    tensors, path = checkpoint
    torch.save(tensors, path)
    (tmp_path / "cut.pth").write_bytes(path.read_bytes()[:5000])
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"x": torch.ones(2)}, tmp_path / "foreign.pth")
    torch.save({**tensors, "cls_token": tensors["cls_token"] * float("nan")}, tmp_path / "nan.pth")
    torch.save({k: x for k, x in tensors.items() if k != "head.weight"}, tmp_path / "headless.pth")
    torch.save({k: x for k, x in tensors.items() if k != "norm_f.weight"}, tmp_path / "normless.pth")
    for name, words in (
        ("cut", "cut"),
        ("empty", "empty"),
        ("list", "state dict"),
        ("foreign", "no checkpoint"),
        ("nan", "NaN"),
        ("headless", "head.weight"),
        ("normless", "norm_f.weight"),
        ("missing", "does not exist"),
    ):
        with pytest.raises(AumError, match=words):
            import_checkpoint(tmp_path / f"{name}.pth", **STATED)
    with pytest.raises(AumError, match="2 labels for a head of 3"):
        import_checkpoint(path, labels=["a", "b"], **STATED)
    with pytest.raises(AumError, match="cls_position"):
        import_checkpoint(path, cls_position="middle", **STATED)


# What a checkpoint was trained with: said by the checkpoint, by a recipe, or by 527 classes


@pytest.fixture
def published(tmp_path):
    """`published(309)` -> the path of a checkpoint as the authors save theirs, small, of so many classes."""

    def write(n_classes: int, frames: int = 32):
        config = AudioMambaConfig(width=32, depth=1, n_classes=n_classes, n_mels=128, frames=frames, state_size=4)
        path = tmp_path / f"best {n_classes}.pth"
        torch.save({f"module.{name}": x for name, x in AudioMamba(config).state_dict().items()}, path)
        return path

    return write


def table(path, names, ids: bool = True):
    rows = [f'{i},/m/{i},"{name}"' if ids else f'{i},"{name}","{name}"' for i, name in enumerate(names)]
    path.write_text("\n".join(["index,id,name", *rows]) + "\n")
    return path


CORPORA = {309: "vggsound", 1251: "voxceleb1", 35: "speechcommands", 44: "epic_sounds"}


@pytest.mark.parametrize("n_classes", CORPORA)
def test_a_checkpoint_that_says_nothing_gets_the_frontend_of_a_recipe(published, tmp_path, aum, n_classes):
    path, out = published(n_classes), tmp_path / "out"
    refused = aum("convert", path, out, "--cls-position", "head")
    assert refused.code == 2 and f"its {n_classes} classes are not AudioSet's" in refused.err and not out.exists()
    line = refused.err.split("fix: ")[1].splitlines()[0]
    assert line.endswith(f" --cls-position head --recipe {CORPORA[n_classes]}")
    done = aum(*shlex.split(line)[1:])  # as pasted into a shell
    assert done.code == 0 and f"the recipe {CORPORA[n_classes]}'s" in done.out, done.err
    recipe, config = load_recipe(CORPORA[n_classes]), read_config(out)
    assert config.frontend == recipe.frontend.model_copy(update={"frames": 32})  # the checkpoint's length
    assert config.activation == ("sigmoid" if recipe.train.loss == "bce" else "softmax")
    assert config.views == recipe.data.views and config.provenance["recipe"] == CORPORA[n_classes]
    assert config.model.cls_position == "head"


def test_a_variant_or_a_file_will_do_and_what_is_given_by_hand_wins(published, tmp_path, aum, recipe_of):
    path = published(309)
    rows = dict(convert(path, tmp_path / "variant", recipe="vggsound-small-imagenet"))
    assert rows["frontend"] == "kaldi, 16000 Hz, mean -5.0767093, std 4.4533687" and rows["scores"] == "sigmoid"
    done = aum("convert", path, tmp_path / "hand", "--recipe", "vggsound", "--activation", "softmax", "--frames", 64)
    config = read_config(tmp_path / "hand")
    assert done.code == 0 and "frontend, evaluation views: the recipe vggsound's" in done.out
    assert (config.activation, config.model.frames, config.frontend.frames) == ("softmax", 64, 64)
    convert(path, tmp_path / "file", recipe=recipe_of(309))
    assert read_config(tmp_path / "file").activation == "softmax"


def test_evaluation_views_come_from_the_recipe_and_stay(published, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('extends = "vggsound"\n[data]\nviews = "first"\n')
    rows = dict(convert(published(309), tmp_path / "first", recipe=recipe))
    assert rows["evaluation views"] == "first" and read_config(tmp_path / "first").views == "first"
    convert(tmp_path / "first", tmp_path / "longer", frames=64)
    assert read_config(tmp_path / "longer").views == "first"


def test_audiosets_classes_need_no_recipe(published, tmp_path, aum):
    done = aum("convert", published(527), tmp_path / "out")
    config = read_config(tmp_path / "out")
    assert done.code == 0 and "the frontend is AudioSet's, as for all checkpoints of 527 classes" in done.out
    assert config.frontend == FrontendConfig(frames=32) and config.activation == "sigmoid"
    convert(published(527), tmp_path / "20k", recipe="as20k")
    assert read_config(tmp_path / "20k").frontend == config.frontend


@pytest.mark.parametrize(
    "recipe, words, fix",
    [
        ("voxceleb1", "has 309 classes, the recipe voxceleb1 has 1251", "--recipe vggsound"),
        ("audioset", "has 527", "--recipe vggsound"),
        (
            "quickstart",
            "measures sample_rate, low_hz, high_hz, window, clip_length, and 1 more on the data",
            "recipe.toml",
        ),
        ("vgsound", "no recipe vgsound", "vggsound"),
        ("auto.toml", "train.loss is auto", "--activation sigmoid"),
    ],
)
def test_a_recipe_that_it_was_not_trained_by_is_refused(published, tmp_path, monkeypatch, recipe, words, fix):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "auto.toml").write_text("[model]\nn_classes = 309\n")
    with pytest.raises(AumError, match=words) as caught:
        convert(published(309), tmp_path / "out", recipe=recipe)
    assert fix in caught.value.fix and not (tmp_path / "out").exists()
    if recipe == "auto.toml":
        convert(published(309), tmp_path / "out", recipe=recipe, activation="sigmoid")


def test_classes_that_no_recipe_has(published, tmp_path, aum):
    refused = aum("convert", published(50), tmp_path / "out")
    assert refused.code == 2 and "--recipe mine.toml" in refused.err and "model.n_classes = 50" in refused.err
    with pytest.raises(UnknownFrontend) as caught:
        import_checkpoint(published(50), activation="softmax")
    assert caught.value.n_classes == 50 and "--recipe" in caught.value.fix
    with pytest.raises(UnknownFrontend):
        import_checkpoint(published(50), frontend=FrontendConfig())  # bce or cross-entropy?


def test_a_new_head_is_free_in_its_frontend(published, golden, tmp_path):
    labels = table(tmp_path / "labels.csv", ["no", "yes"])
    rows = convert(published(309), tmp_path / "plain", labels=labels, new_head=True)
    assert ("", "the frontend is AudioSet's, as no recipe was given") in rows
    convert(published(309), tmp_path / "words", labels=labels, new_head=True, recipe="speechcommands")
    words = read_config(tmp_path / "words")
    assert words.frontend.mean == -6.845978 and words.model.frames == 32
    for out, recipe, frames, size, mean in (
        ("p", None, None, 1024, FrontendConfig().mean),
        ("q", "speechcommands", None, 128, -6.845978),
        ("r", "speechcommands", 64, 64, -6.845978),
    ):
        convert(golden / "aum" / "vim_imagenet_midcls.pth", tmp_path / out, labels=labels, recipe=recipe, frames=frames)
        config = read_config(tmp_path / out)
        assert (config.frontend.frames, config.model.frames, config.frontend.mean) == (size, size, mean)


@pytest.mark.parametrize("kind", ["model directory", "run", "transformers"])
def test_a_model_that_says_its_frontend_takes_no_recipe(published, golden, tmp_path, kind, recipe_of):
    if kind == "transformers":
        source = golden / "ast" / "hf"
    else:
        source = tmp_path / "model"
        convert(published(3), source / ("best" if kind == "run" else ""), recipe=recipe_of(3))
    with pytest.raises(AumError, match="says itself which frontend") as caught:
        convert(source, tmp_path / "out", recipe="vggsound")
    assert "leave --recipe out" in caught.value.fix and not (tmp_path / "out").exists()
    with pytest.raises(AumError, match="says itself"):
        convert(source, tmp_path / "out", recipe="vggsound", new_head=True, labels=table(tmp_path / "labels.csv", "ab"))


def test_a_table_that_prepare_sorted_is_not_the_authors(published, shared, tmp_path, aum):
    authors = shared / "data" / "annotations" / "speechcommands_class_labels_indices.csv"
    names = [row.split('"')[1] for row in authors.read_text().splitlines()[1:]]
    prepared = table(tmp_path / "labels.csv", sorted(names), ids=False)
    refused = aum("convert", published(35), tmp_path / "out", "--recipe", "speechcommands", "--labels", prepared)
    assert refused.code == 2 and "another order" in refused.err and "class_labels_indices.csv" in refused.err
    assert not (tmp_path / "out").exists()
    assert aum("convert", published(35), tmp_path / "out", "--recipe", "speechcommands", "--labels", authors).code == 0
    assert read_config(tmp_path / "out").labels == tuple(names)
    own = table(tmp_path / "own.csv", sorted(names))  # with ids, as the authors' code wants it
    assert aum("convert", published(35), tmp_path / "own", "--recipe", "speechcommands", "--labels", own).code == 0
    convert(published(309), tmp_path / "new", recipe="speechcommands", labels=prepared, new_head=True)


def test_a_file_takes_no_recipe(published, tmp_path):
    convert(published(309), tmp_path / "model", recipe="vggsound")
    with pytest.raises(AumError, match="options are for model directories"):
        convert(tmp_path / "model", tmp_path / "model.pt2", recipe="vggsound")


@pytest.mark.parametrize(
    "name, words",
    [
        ("m.tflite", "can't be written as .tflite"),
        ("m.pt", "can't be written as .pt"),
        ("deep/m.safetensors", ".safetensors"),
        ("m.Q8", ".Q8"),
        ("-", "standard output"),
    ],
)
def test_a_name_like_a_file_of_another_kind_is_refused(aum, trained, tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    result = aum("convert", trained, name)
    assert result.code == 2 and words in result.err and "fix: name a " in result.err and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["m.tflite/", "v1.5", "a.10-10-0.4593", "there.pt"])
def test_a_directory_may_be_called_so_where_that_is_said(aum, trained, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.pt").mkdir()
    assert aum("convert", trained, name).code == 0
    read_model(tmp_path / name)


def test_a_suffix_may_be_in_capitals(aum, trained, tmp_path):
    result = aum("convert", trained, tmp_path / "M.PT2")
    assert result.code == 0 and "largest difference" in result.out and (tmp_path / "M.PT2").is_file()

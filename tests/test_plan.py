"""What a training says before it starts, and that its figures are those of the training itself."""

from pathlib import Path

import pytest
import torch
from tiny import CLASSES, RECIPE, sound, tiny

from aumcli.core import build_network
from aumcli.core.frontend import LogMel
from aumcli.data.clips import Clip
from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.plan import activation_bytes, dry_run, infer_frontend
from aumcli.recipe import Recipe, load_recipe
from aumcli.train.trainer import loss_of
from aumcli.utils.memory import kept_bytes

pytest_plugins = ["aum_fixtures"]


@pytest.mark.parametrize(
    "model, train",
    [
        ({}, {}),
        ({}, {"activation_checkpointing": "block"}),
        ({}, {"dtype": "bfloat16"}),
        ({"direction": "Bi-Bi"}, {}),
        ({"depth": 1}, {}),
        ({"architecture": "ast", "heads": 2}, {}),
    ],
    ids=str,
)
def test_activation_bytes_are_those_of_the_whole_model(model, train):
    recipe = Recipe.model_validate(
        {
            "frontend": {"n_mels": 32, "frames": 64},
            "model": {"width": 32, "depth": 5} | model,
            "train": {"batch_size": 3, "loss": "bce"} | train,
        }
    )
    network = build_network(recipe.model).train()
    network.activation_checkpointing = recipe.train.activation_checkpointing
    features, targets = torch.randn(3, recipe.model.frames, recipe.model.n_mels), torch.zeros(3, recipe.model.n_classes)

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.train.dtype == "bfloat16"):
            return loss_of(network(features), targets, recipe.train)

    assert activation_bytes(recipe) == kept_bytes(loss, network.parameters()) > 0


def test_a_dry_run_says_what_the_training_will_say_and_writes_nothing(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = aum("train", "--recipe", RECIPE, "--data", corpus, "--dry-run")
    assert result.code == 0 and not list(tmp_path.iterdir())
    rows = dict(line.split("  ", 1) for line in result.out.splitlines())
    rows = {key.strip(): value.strip() for key, value in rows.items()}
    assert "18 training and 6 validation clips" in rows["data"] and "5 steps each, 20 in all" in rows["length"]
    assert (
        "adamw" in rows["steps"] and "mixup 0.3" in rows["augment"] and rows["best epoch"] == "chosen by the split val"
    )
    assert "MiB" in rows["memory"] and "24 files" in rows["disk"]
    trained = aum("train", "--recipe", RECIPE, "--data", corpus, "--out", "run", "--set", "train.epochs=4")
    assert rows["reported"] == "the split test, 6 clips"
    for what in ("input", "start", "length", "steps", "augment", "best epoch", "reported"):
        assert rows[what] in trained.err, what
    parameters = sum(x.numel() for x in build_network(load_recipe(tmp_path / "run" / "recipe.toml").model).parameters())
    assert f"{parameters:,} parameters" in rows["model"]


def test_a_corpus_that_is_not_prepared(aum, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = dict(dry_run(load_recipe("vggsound"))[0])
    assert "aum prepare vggsound" in rows["data"] and "183,730" in rows["data"]
    clips = 183730 - round(0.02 * 183730)
    assert f"{-(-clips // 12):,} steps each" in rows["length"] and "56.15 GiB" in rows["disk"]
    assert "91,939,893 parameters" in rows["model"] and "GiB" in rows["memory"]
    result = aum("train", "--recipe", "vggsound")
    assert result.code == 2 and "aum prepare vggsound" in result.err
    with pytest.raises(AumError, match="not a prepared corpus"):
        dry_run(load_recipe("vggsound"), tmp_path)
    with pytest.raises(AumError, match="names no corpus"):
        dry_run(load_recipe("quickstart"))


def test_a_recipe_that_starts_from_weights_does_not_start_without(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = (
        "train",
        "--recipe",
        RECIPE,
        "--data",
        corpus,
        "--set",
        "train.pretrained=the weights of X",
        "--set",
        "train.epochs=1",
    )
    result = aum(*wanted, "--out", "run")
    assert result.code == 2 and "the weights of X" in result.err and "--init" in result.err and not Path("run").exists()
    assert "NEEDED, by --init: the weights of X" in aum(*wanted, "--dry-run").out
    assert aum("train", "--recipe", RECIPE, "--data", corpus, "--out", "first", "--set", "train.epochs=1").code == 0
    result = aum(*wanted, "--out", "second", "--init", "first")
    assert result.code == 0 and "initialised from first" in result.err
    assert load_recipe("second/recipe.toml").train.init == "first"
    assert aum(*wanted, "--out", "third", "--init", "nowhere").code == 2
    assert "--init" in aum("train", "--resume", "--out", "second", "--init", "first").err


def test_the_start_is_the_checkpoints(corpus, tmp_path):
    from aumcli.classifier import load_model
    from aumcli.train import train

    train(tiny("train.epochs=1"), tmp_path / "first", corpus, progress=False)
    frozen = ("train.epochs=1", "train.lr=1e-12", "train.weight_decay=0", "train.ema=0")
    for name, settings in (("fresh", ()), ("again", (f"train.init={tmp_path / 'first'}",))):
        train(tiny(*frozen, "seed=5", *settings), tmp_path / name, corpus, progress=False)
    first, fresh, again = (
        load_model(tmp_path / name / "best").network.state_dict() for name in ("first", "fresh", "again")
    )
    name = "layers.0.mixer.in_proj.weight"
    assert torch.allclose(first[name], again[name], atol=1e-6) and not torch.allclose(
        first[name], fresh[name], atol=1e-3
    )


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"test": "dev"}, "nothing: the data lack the split dev"),
        ({"test": "val"}, "the split val, 6 clips, WHICH ALSO CHOOSE THE EPOCH"),
        ({"test": "val", "val_fraction": 0.2}, "the split val, 6 clips"),
        ({"test": "train"}, "the split train, 18 clips, WHICH ALSO TRAIN"),
    ],
)
def test_what_is_wrong_with_the_reported_split_is_said_before_training(corpus, settings, said):
    row = dict(dry_run(tiny(*(f"data.{key}={value}" for key, value in settings.items())), corpus)[0])["reported"]
    assert row.startswith(said) and ("flatter" in row) == ("WHICH" in said)
    assert ("--set data.test=NAME" in row) == (settings != {"test": "val", "val_fraction": 0.2})
    assert ("--set data.val_fraction=0.1" in row) == ("CHOOSE" in said)


def test_the_closing_lines_of_a_training_follow_the_reported_split(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ("train", "--recipe", RECIPE, "--data", corpus, "--set", "train.epochs=1")
    result = aum(*short, "--out", "reported", "--set", "data.test=val", "--set", "data.val_fraction=0.2")
    assert "  aum eval reported\n" in result.out
    result = aum("eval", "reported")
    assert result.code == 0 and "val split" in result.out and Path("reported/eval-val.json").is_file()
    result = aum(*short, "--out", "unreported", "--set", "data.test=dev")
    assert result.code == 0 and "nothing: the data lack the split dev" in result.err
    assert "aum eval unreported" not in result.out and "aum predict CLIP.wav --model unreported" in result.out
    refused = aum("eval", "unreported")
    assert refused.code == 2 and "no split 'dev'; it has" in refused.err


def test_shards_report_on_the_splits_that_they_have(tmp_path):
    from tiny import sounds

    from aumcli.prepare import prepare

    prepare("folder", tmp_path / "data", source=sounds(tmp_path / "sounds", 10), split="60/20/20", shards=True)
    (tmp_path / "sounds").rename(tmp_path / "away")
    pinned = ("data.infer=[]", "frontend.sample_rate_hz=8000", "frontend.frames=48")
    assert dict(dry_run(tiny(*pinned), tmp_path / "data")[0])["reported"] == "the split test, 6 clips"
    assert "lack the split dev" in dict(dry_run(tiny(*pinned, "data.test=dev"), tmp_path / "data")[0])["reported"]


def test_what_is_measured_and_which_band_is_not_used_is_said(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = ("train", "--recipe", RECIPE, "--data", corpus, "--set", "train.epochs=1")
    for arguments in (("--dry-run",), ("--out", "run")):
        result = aum(*wanted, "--set", "frontend.sample_rate_hz=4000", "--set", "frontend.frames=24", *arguments)
        said = result.err + result.out
        assert "4000 Hz, 32 mels x 24 frames" in said and "measured on the clips: normalisation\n" in said
        (line,) = [line for line in said.splitlines() if line.startswith("not used")]
        assert "4 kHz" in line and "2 kHz" in line
    assert load_recipe("run/recipe.toml").frontend.frames == 24
    out = aum(*wanted, "--dry-run").out
    assert "measured on the clips: sample rate, clip length, normalisation\n" in out and "not used" not in out


def test_the_quickstart_recipe_infers_its_frontend(tmp_path):
    clips = [
        Clip(sound(tmp_path / f"{i}.wav", hz, seconds=0.6 + 0.02 * i, rate_hz=11025), labels=(name,))
        for i, (name, hz) in enumerate([*CLASSES.items()] * 6)
    ]
    clips.append(Clip(sound(tmp_path / "rare.wav", 300.0, seconds=0.7, rate_hz=22050), labels=("low",)))
    recipe = infer_frontend(load_recipe("quickstart"), clips, 3, False)
    assert recipe.frontend.sample_rate_hz == 11025  # that of most
    assert 0.85 <= recipe.frontend.clip_s <= 0.9  # three in four of the clips fit in whole
    assert recipe.frontend.frames % 4 == 0  # whole tokens of the stem
    assert (recipe.model.n_classes, recipe.train.loss, recipe.data.infer) == (3, "cross_entropy", ())
    logmel, waveforms = LogMel(recipe.frontend), Waveforms(clips, 11025, 0)
    values = torch.cat(
        [logmel.normalise(logmel.energies(torch.from_numpy(waveforms[i])[None])).flatten() for i in range(len(clips))]
    )
    assert abs(values.mean()) < 1e-3 and values.std() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seconds, clip_s", [(0.1, 0.5), (12.0, 10.0)])
def test_inferred_length_has_limits(tmp_path, seconds, clip_s):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds, seed=i), labels=("low",)) for i in range(2)]
    recipe = infer_frontend(load_recipe("quickstart"), clips, 2, False)
    assert recipe.frontend.clip_s == pytest.approx(clip_s, abs=0.06)


def test_inferred_rate_has_a_limit(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0, rate_hz=48000), labels=("low",))]
    assert infer_frontend(load_recipe("quickstart"), clips, 2, False).frontend.sample_rate_hz == 16000


def test_slices_are_measured_not_files(tmp_path):
    path = sound(tmp_path / "long.wav", 300.0, seconds=20)
    clips = [Clip(path, float(i), i + 1.0, ("low",)) for i in range(20)]
    assert infer_frontend(load_recipe("quickstart"), clips, 2, False).frontend.clip_s == pytest.approx(1.0, abs=0.06)


def test_nothing_is_inferred_unless_asked(corpus):
    recipe = load_recipe("quickstart", ["data.infer=[]"])
    inferred = infer_frontend(recipe, read_manifest(corpus).split("train"), 3, False)
    assert inferred.frontend == recipe.frontend


def test_what_the_user_set_is_kept(tmp_path):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds=0.6, seed=i), labels=("low",)) for i in range(3)]
    wanted = load_recipe("quickstart", ["frontend.sample_rate_hz=250000", "frontend.frames=60"])
    recipe = infer_frontend(wanted, clips, 2, False)
    assert (recipe.frontend.sample_rate_hz, recipe.frontend.frames, recipe.model.frames) == (250000, 60, 60)
    assert recipe.frontend.mean != wanted.frontend.mean  # the rest is measured, at that rate
    wanted = load_recipe("quickstart", ["frontend.mean=-4", "frontend.std=3", "train.loss=bce"])
    recipe = infer_frontend(wanted, clips, 2, False)
    assert (recipe.frontend.mean, recipe.frontend.std, recipe.train.loss) == (-4, 3, "bce")
    assert recipe.frontend.sample_rate_hz == 8000


def test_another_number_of_classes_is_refused(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0), labels=("low",))]
    with pytest.raises(AumError, match="n_classes is 5 .* 2 classes\n.*--set model.n_classes=2"):
        infer_frontend(load_recipe("quickstart", ["model.n_classes=5"]), clips, 2, False)
    assert infer_frontend(load_recipe("quickstart", ["model.n_classes=2"]), clips, 2, False).model.n_classes == 2
    assert infer_frontend(load_recipe("vggsound"), clips, 2, False).model.n_classes == 2  # 309 are the whole corpus'
    with pytest.raises(AumError, match="n_classes is 20 "):
        infer_frontend(load_recipe("vggsound", ["model.n_classes=20"]), clips, 2, False)

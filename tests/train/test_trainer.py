"""aum train: the same bits for the same seed, and what it does with the data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CLASSES, RATE_HZ, sound, sounds, tiny
from training import Stop, assert_same_run, history, problem, quietly, weights

from aumcli.classifier import load_model
from aumcli.config import TrainConfig
from aumcli.data.manifest import Clip, Label, read_manifest, write_manifest
from aumcli.evaluate import evaluate
from aumcli.recipe import load_recipe
from aumcli.train.trainer import loss_of

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


# the same seed, the same bits


def test_same_seed_same_bytes(reference, corpus, tmp_path):
    torch.manual_seed(123)  # what happened before doesn't matter
    np.random.seed(5)
    run = quietly(tiny(), tmp_path / "run", corpus)
    assert_same_run(run, reference)
    reports = [json.loads((each / "report.json").read_text()) for each in (run, reference)]
    for report in reports:
        for row in report["epochs"]:
            del row["seconds"]
    assert reports[0] == reports[1]


def test_another_seed_other_bytes(reference, corpus, tmp_path):
    run = quietly(tiny("seed=1"), tmp_path / "run", corpus)
    assert weights(run)["last"] != weights(reference)["last"]


def test_same_seed_same_bytes_on_several_threads(corpus, tmp_path):
    recipe = tiny("train.epochs=1", "train.batch_size=16", "model.width=32").model_dump_json()
    code = (
        "import sys, torch; from aumcli.recipe import Recipe; from aumcli.train import train\n"
        "torch.set_num_threads(2)\n"
        "for out in sys.argv[3:]: train(Recipe.model_validate_json(sys.argv[1]), out, sys.argv[2])"
    )
    runs = [tmp_path / "one", tmp_path / "two"]
    subprocess.run(
        [sys.executable, "-c", code, recipe, corpus, *runs],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"OMP_WAIT_POLICY": "passive"},
    )  # threads that wait leave the cores to others
    assert weights(runs[0]) == weights(runs[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(reference, corpus, tmp_path, workers):
    run = quietly(tiny(f"train.workers={workers}"), tmp_path / "run", corpus)
    assert weights(run) == weights(reference)
    assert history(run) == history(reference)


def test_the_cache_changes_nothing(reference, corpus, tmp_path):
    run = quietly(tiny("data.cache_mb=0"), tmp_path / "run", corpus)
    assert weights(run) == weights(reference)


def test_it_learns(trained):
    assert float(history(trained)[-1]["val_accuracy"]) == 1.0


# the data


@pytest.fixture
def speakers(tmp_path) -> Path:
    """A prepared folder in which ann, bob and cid each have clips in all three splits."""
    clips = []
    for group in ("ann", "bob", "cid"):
        for name, hz in CLASSES.items():
            for number, split in enumerate(("train", "train", "val", "test")):
                path = sound(tmp_path / group / f"{name}{number}.wav", hz, seed=number + 10 * len(clips))
                clips.append(Clip(path, labels=(name,), split=split, group=group))
    write_manifest(tmp_path / "data", clips, [Label(i, name, name) for i, name in enumerate(CLASSES)], {})
    return tmp_path / "data"


def test_hold_out_never_hears_the_group_and_tests_on_all_of_it(speakers, tmp_path):
    (tmp_path / "bob").rename(tmp_path / "away")  # not one of its files is opened
    said = []
    run = quietly(tiny("data.test_group=bob", "train.epochs=1"), tmp_path / "run", speakers, say=said.append)
    assert "12 training and 6 validation clips" in said[0]
    (tmp_path / "away").rename(tmp_path / "bob")
    assert evaluate(run).metrics.clips == 12
    assert evaluate(run, split="val").metrics.clips == 6


def test_hold_out_of_an_unknown_group(speakers, corpus, tmp_path):
    assert "ann, bob, cid" in problem(quietly, tiny("data.test_group=dan"), tmp_path / "run", speakers).fix
    assert "has no groups" in problem(quietly, tiny("data.test_group=dan"), tmp_path / "run", corpus).fix


@pytest.mark.parametrize("emptied", ["val", "train"])
def test_hold_out_that_leaves_a_split_empty(speakers, tmp_path, emptied):
    manifest = read_manifest(speakers)
    clips = [clip for clip in manifest.clips if clip.split != emptied or clip.group == "bob"]
    write_manifest(speakers, clips, manifest.labels, {})
    assert emptied in problem(quietly, tiny("data.test_group=bob"), tmp_path / "run", speakers).problem


@pytest.fixture(scope="module")
def chords(tmp_path_factory) -> Path:
    """A prepared folder whose clips have one or two labels."""
    root, clips, rng = tmp_path_factory.mktemp("chords"), [], np.random.default_rng(0)
    import soundfile

    t = np.arange(RATE_HZ // 2) / RATE_HZ
    for number in range(30):
        labels = [("low",), ("high",), ("low", "high")][number % 3]
        wave = sum(0.2 * np.sin(2 * np.pi * CLASSES[name] * rng.uniform(0.9, 1.1) * t) for name in labels)
        soundfile.write(root / f"{number}.wav", wave + 0.02 * rng.standard_normal(len(t)), RATE_HZ)
        clips.append(
            Clip(
                root / f"{number}.wav", labels=labels, split=("train", "train", "train", "val", "test")[number // 3 % 5]
            )
        )
    write_manifest(root / "data", clips, [Label(0, "low", "low"), Label(1, "high", "high")], {})
    return root / "data"


def test_several_labels_per_clip(chords, tmp_path):
    run = quietly(tiny("train.epochs=3", "train.lr=0.01", "train.ema=0"), tmp_path / "run", chords)
    assert load_recipe(run / "recipe.toml").train.loss == "bce"
    assert "val_map" in history(run)[0] and "val_accuracy" not in history(run)[0]
    model = load_model(run)
    assert model.config.activation == "sigmoid"
    result = evaluate(run)
    assert result.metrics.accuracy is None and result.metrics.confusion is None and result.metrics.multi_label
    assert 0 <= result.metrics.mean_average_precision <= 1
    both = next(clip for clip in read_manifest(chords).clips if len(clip.labels) == 2)
    assert sum(score for _, score in model.predict(both.path)) > 1  # not forced to share one


def test_the_losses():
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert loss_of(logits, targets, TrainConfig(loss="cross_entropy")) == pytest.approx(
        float(-torch.log_softmax(logits, 1)[0, 0])
    )
    p = torch.sigmoid(logits)
    assert loss_of(logits, targets, TrainConfig(loss="bce")) == pytest.approx(
        float(-(targets * p.log() + (1 - targets) * (1 - p).log()).mean())
    )


def test_a_single_validation_clip(corpus, tmp_path):
    manifest = read_manifest(corpus)
    clips = [*(clip for clip in manifest.clips if clip.split != "val"), *manifest.split("val")[:1]]
    write_manifest(tmp_path / "data", clips, manifest.labels, {})
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", tmp_path / "data")
    assert json.loads((run / "report.json").read_text())["clips"] == 1


def test_three_sample_clips_are_trained_on(tmp_path):
    paths = sorted(
        sounds(tmp_path / "sounds", 4, seconds=3 / RATE_HZ).rglob("*.wav")
    )  # aum prepare would leave them out
    clips = [Clip(path, labels=(path.parent.name,), split="val" if path.stem == "0" else "train") for path in paths]
    write_manifest(tmp_path / "data", clips, [Label(place, name, name) for place, name in enumerate(CLASSES)], {})
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", tmp_path / "data")
    assert np.isfinite(float(history(run)[0]["train_loss"]))


def test_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--data" in problem(quietly, tiny(), tmp_path / "run").fix
    assert "not a prepared corpus" in problem(quietly, tiny("data.corpus=fsdd"), tmp_path / "run").problem
    assert "no split 'dev'" in problem(quietly, tiny("data.val=dev"), tmp_path / "run", _two_splits(tmp_path)).problem


def _two_splits(folder: Path) -> Path:
    clips = [Clip(sound(folder / f"{name}.wav", 300.0), labels=(name,), split="train") for name in "ab"]
    write_manifest(folder / "two", clips, [Label(0, "a", "a"), Label(1, "b", "b")], {})
    return folder / "two"


def test_steps_decay_after_an_epochs_last_step(corpus, tmp_path, monkeypatch):
    """As MultiStepLR, which is asked after each epoch; and the warm-up begins at zero, as published."""
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: seen.append(self.param_groups[0]["lr"]) or step(self))
    quietly(
        tiny(
            "train.optimizer=adam",
            "train.schedule=steps",
            "train.warmup_steps=4",
            "train.decay_start=2",
            "train.lr=0.01",
        ),
        tmp_path / "run",
        corpus,
    )
    assert seen == pytest.approx(
        [0, 0.0025, 0.005, 0.0075, 0.01] + 5 * [0.01] + 5 * [0.005] + 5 * [0.0025]
    )  # 5 steps an epoch


def test_bfloat16_trains_nearly_the_same(reference, corpus, tmp_path):
    run = quietly(tiny("train.dtype=bfloat16"), tmp_path / "run", corpus)
    assert weights(run) != weights(reference)
    assert load_model(run).network.head.weight.dtype == torch.float32
    losses = [[float(row["train_loss"]) for row in history(each)] for each in (run, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


PUBLISHED = (
    "data.val_fraction=0.2",
    "data.sampling=balanced",
    "augment.feature_noise=0.1",
    "augment.roll=3",
    "augment.masking=epic_sounds",
    "train.optimizer=adam",
    "train.weight_decay=5e-7",
    "train.betas=[0.95, 0.999]",
    "train.schedule=steps",
    "train.warmup_steps=3",
    "train.loss=bce",
    "train.clip_grad=0",
    "train.ema=0",
    "train.epochs=2",
)


def test_the_published_pieces_together_resumed(corpus, tmp_path):
    said = []
    whole = quietly(tiny(*PUBLISHED), tmp_path / "whole", corpus, say=said.append)
    assert "14 training and 4 validation clips" in said[0]  # of 18
    assert any("kept out of training" in text for text in said) and any(text.endswith("balanced") for text in said)
    assert json.loads((whole / "report.json").read_text())["clips"] == 4
    with pytest.raises(Stop):

        def say(text):
            if text.startswith("epoch   1/"):
                raise Stop

        quietly(tiny(*PUBLISHED), tmp_path / "run", corpus, say=say)
    quietly(tiny(), tmp_path / "run", corpus, resume=True)
    assert_same_run(tmp_path / "run", whole)

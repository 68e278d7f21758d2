"""The published recipes on miniatures.

The same training however a batch is cut, and the published parts of long clips.
"""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from tiny import CLASSES
from training import problem, quietly, train_in_team

from aumcli.data.manifest import Clip, Label, read_manifest, write_manifest
from aumcli.evaluate import as_json, evaluate
from aumcli.recipe import load_recipe
from aumcli.train import trainer
from aumcli.train.optim import learning_rate

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
SMALL = [
    "model.size=nano",
    "model.width=32",
    "model.depth=2",
    "train.epochs=1",
    "train.warmup_steps=0",
    "train.warmup_epochs=0",
    "train.warmup_every=1",
    "data.val_fraction=0",
    "model.drop_path=0.3",
]


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """24 training and 3 validation clips at 24 kHz, of 1 to 13 s, in slices of three videos."""
    folder, rng, clips = tmp_path_factory.mktemp("kitchen"), np.random.default_rng(0), []
    for video, (name, hz) in enumerate(CLASSES.items()):
        t = np.arange(120 * 24000) / 24000
        wave = 0.1 * rng.standard_normal(len(t)) + (0.3 * np.sin(2 * np.pi * hz * t) if hz else 0)
        soundfile.write(folder / f"P{video:02}_01.wav", wave, 24000)
        for i in range(9):
            start_s, length_s = 13.0 * i, (1.0, 6.0, 13.0)[i % 3]
            clips.append(
                Clip(
                    folder / f"P{video:02}_01.wav",
                    start_s,
                    start_s + length_s,
                    (name,),
                    "val" if i == 8 else "train",
                    str(video),
                )
            )
    write_manifest(folder / "data", clips, [Label(i, name, name) for i, name in enumerate(CLASSES)], {})
    return folder / "data"


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """24 training clips of a second at 16 kHz, 3 to validate."""
    folder, rng, clips = tmp_path_factory.mktemp("commands"), np.random.default_rng(0), []
    for name, hz in CLASSES.items():
        for i in range(9):
            wave = 0.1 * rng.standard_normal(16000 - 500 * i)
            wave += 0.3 * np.sin(2 * np.pi * hz * np.arange(len(wave)) / 16000) if hz else 0
            soundfile.write(folder / f"{name}{i}.wav", wave, 16000)
            clips.append(Clip(folder / f"{name}{i}.wav", labels=(name,), split="val" if i == 8 else "train"))
    write_manifest(folder / "data", clips, [Label(i, name, name) for i, name in enumerate(CLASSES)], {})
    return folder / "data"


def weights_after(run):
    return load_file(run / "last" / "model.safetensors")


@pytest.mark.parametrize("recipe", ["epic_sounds", "speechcommands"])
def test_two_steps_are_the_same_in_1_2_and_12_parts(recipe, request, tmp_path):
    """EPIC-SOUNDS: random parts, time warp, pairs of masks.

    Speech Commands: partners of the corpus, masks, noise, roll.
    """
    data = request.getfixturevalue({"epic_sounds": "kitchen", "speechcommands": "commands"}[recipe])
    settings = [*SMALL, "train.batch_size=12", "train.lr=1e-3"]
    runs = {
        parts: quietly(
            load_recipe(recipe, [*settings, f"train.gradient_accumulation_steps={parts}"]), tmp_path / str(parts), data
        )
        for parts in (1, 2, 12)
    }
    assert train_in_team(2, load_recipe(recipe, settings), tmp_path / "team", data) == ["", ""]
    whole = weights_after(runs[1])
    for run in (runs[2], runs[12], tmp_path / "team"):
        for name, x in weights_after(run).items():
            # Adam divides by the gradient's size: where a gradient is rounding alone, so is the direction of its step
            apart = (x - whole[name]).abs()
            assert float(apart.quantile(0.99) if apart.numel() > 1 else apart) < 2e-5, (run.name, name)
            assert float(apart.max()) <= 2.1 * 2 * 1e-3, (run.name, name)
    report = [json.loads((run / "report.json").read_text())["epochs"][0]["train_loss"] for run in runs.values()]
    assert report == pytest.approx([report[0]] * 3, abs=1e-5)


def test_a_partner_of_the_corpus_that_cannot_be_read_costs_its_mixture(commands, tmp_path, monkeypatch):
    recipe = load_recipe(
        "speechcommands", [*SMALL, "train.batch_size=12", "augment.mixup=1", "data.max_unreadable_clips=0"]
    )
    manifest = read_manifest(commands)
    clips = [*manifest.clips, Clip(tmp_path / "bad.wav", labels=("low",), split="train")]
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    write_manifest(tmp_path / "data", clips, manifest.labels, {})
    assert "bad.wav" in problem(quietly, recipe, tmp_path / "run", tmp_path / "data").problem
    said = []
    quietly(recipe.with_values(data={"max_unreadable_clips": 1}), tmp_path / "run2", tmp_path / "data", say=said.append)
    assert sum("bad.wav" in line for line in said) == 1


def test_shards_have_no_partners_of_the_corpus(tmp_path, commands):
    pytest.importorskip("webdataset")
    from aumcli.data.datasets.stream import index_of_shards, shard_streams
    from aumcli.prepare import prepare

    rows = "".join(f"{clip.path},{clip.labels[0]},{clip.split}\n" for clip in read_manifest(commands).clips)
    (tmp_path / "t.csv").write_text("path,label,split\n" + rows)
    prepare("csv", tmp_path / "data", source=tmp_path / "t.csv", shards=True)
    for path in list((tmp_path / "data").glob("*.wav")):
        path.unlink()
    manifest = read_manifest(tmp_path / "data")
    from aumcli.data.datasets.shards import read_index

    index = read_index(tmp_path / "data")
    for_corpus = load_recipe("speechcommands")
    for_batch = load_recipe("speechcommands", ["augment.mixup_partners=batch"])
    found = problem(shard_streams, manifest, index, for_corpus.data, for_corpus.augment, 16000)
    assert "augment.mixup_partners=batch" in found.fix
    shard_streams(manifest, index, for_batch.data, for_batch.augment, 16000)
    assert index_of_shards(manifest) is None  # the sound files are there


def test_the_views_of_an_evaluation(kitchen, tmp_path):
    """One view of a clip, the published one, or all windows: said in the result, and each what it says."""
    scores = {}
    for views in ("first", "all", "epic_sounds"):
        run = quietly(
            load_recipe("epic_sounds", [*SMALL, f"data.views={views}", "train.batch_size=12"]),
            tmp_path / views,
            kitchen,
        )
        result = evaluate(run, kitchen, "train")
        assert as_json(result)["views"] == views
        scores[views] = result.scores
    lengths = np.array([clip.stop_s - clip.start_s for clip in read_manifest(kitchen).split("train")])
    short, medium, long = lengths < 5.1, (lengths > 5.2) & (lengths < 10), lengths > 10
    same = {kind: np.isclose(scores[kind], scores["first"], atol=1e-6).all(1) for kind in ("all", "epic_sounds")}
    assert same["all"][short].all() and not same["all"][medium | long].any()
    assert same["epic_sounds"][short | medium].all() and not same["epic_sounds"][long].all()


def test_warm_ups_as_published():
    epic, others = load_recipe("epic_sounds").train, load_recipe("vggsound").train
    steps = 100
    assert [learning_rate(epic, step / steps, steps) for step in (0, 50, 199, 200)] == pytest.approx(
        [1e-5 * share for share in (0.01, 0.01 + 0.99 * 50 / 200, 0.01 + 0.99 * 199 / 200, 1)]
    )
    rates = [learning_rate(others, step / 7000, 7000) for step in (0, 49, 50, 99, 951, 999, 1000)]
    assert rates == pytest.approx([1e-5 * step / 1000 for step in (0, 0, 50, 50, 950, 950, 1000)])


def test_the_last_short_batch_of_an_epoch(kitchen, tmp_path, monkeypatch):
    sizes = []
    step = trainer.train_step
    monkeypatch.setattr(
        trainer,
        "train_step",
        lambda run, number, batch, *rest: sizes.append(len(batch)) or step(run, number, batch, *rest),
    )
    quietly(load_recipe("epic_sounds", [*SMALL, "train.batch_size=10"]), tmp_path / "run", kitchen)
    assert sizes == [10, 10]
    quietly(
        load_recipe("epic_sounds", [*SMALL, "train.batch_size=10", "train.drop_last=false"]),
        tmp_path / "whole",
        kitchen,
    )
    assert sizes[2:] == [10, 10, 4]
    assert torch.isfinite(torch.tensor([x.abs().max() for x in weights_after(tmp_path / "run").values()])).all()

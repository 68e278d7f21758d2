"""Sounds of no class: prepared, trained against, answered with nothing."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import CLASSES, RATE_HZ, sound, sounds, tiny
from training import assert_same_run, crash, problem, quietly

from aumcli.classifier import load_model
from aumcli.config import AugmentConfig
from aumcli.core.frontend import build_frontend
from aumcli.data.augmentation.augment import ClipRandom, lay_into_noise, replace_by_background
from aumcli.data.clips import Clip
from aumcli.data.datasets.batch import draw_epoch, make_batch
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import read_manifest, write_manifest
from aumcli.data.sources.background import with_splits
from aumcli.evaluate import read_scores, score_clips
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
OFF = ("speed", "noise", "shift_s", "mixup", "freq_mask", "time_mask")


def rumble(path, seconds: float, seed: int = 0, level: float = 0.1):
    """Noise unlike that of the class hiss: brown."""
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)).cumsum()
    wave = steps - np.convolve(steps, np.ones(801) / 801, "same")
    soundfile.write(path, (level * wave / np.abs(wave).max()).astype(np.float32), RATE_HZ)
    return path


@pytest.fixture(scope="module")
def answering(tmp_path_factory):
    """A run that was trained with sounds of no class, and its data."""
    root = tmp_path_factory.mktemp("background")
    sounds(root / "sounds", 10)
    rumble(root / "sounds" / "_background" / "long.wav", 105)
    prepare("folder", root / "data", source=root / "sounds", split="60/20/20")
    settings = [f"augment.{name}=0" for name in OFF]
    recipe = tiny(
        *settings, "train.epochs=25", "train.lr=0.01", "train.ema=0", "model.drop_path=0", "train.calibrate=true"
    )
    return quietly(recipe, root / "run", root / "data"), root / "data"


def test_a_folder_of_no_class_is_no_class(answering):
    manifest = read_manifest(answering[1])
    assert manifest.label_names == sorted(CLASSES)
    others = [clip for clip in manifest.clips if not clip.labels]
    slices = [(clip.start_s, clip.stop_s) for clip in others]
    assert slices == [(10.0 * i, 10.0 * (i + 1)) for i in range(9)] + [(90.0, None)]
    assert [clip.split for clip in others] == ["train"] * 6 + ["val"] * 2 + ["test"] * 2  # 60/20/20
    report = json.loads((answering[1] / "report.json").read_text())
    assert "10 clips of no class, of 1 file" in report["notes"] and report["splits"]["train"]["clips"] == 24
    assert not manifest.targets(others).any()


def test_other_folders_and_other_corpora(tmp_path):
    sounds(tmp_path / "sounds", 4)
    for number in range(12):
        sound(tmp_path / "more" / "deep" / f"{number}.wav", None, seed=100 + number)
    report = prepare(
        "folder", tmp_path / "data", source=tmp_path / "sounds", split="100/0/0", background=[tmp_path / "more"]
    )
    assert "12 clips of no class, of 12 files" in report.notes and [*report.splits] == ["train"]
    prepare("folder", tmp_path / "data", source=tmp_path / "sounds", background=[tmp_path / "more"])
    before = {clip.path: clip.split for clip in read_manifest(tmp_path / "data").clips if not clip.labels}
    for number in range(12, 40):
        sound(tmp_path / "more" / "deep" / f"{number}.wav", None, seed=100 + number)
    prepare("folder", tmp_path / "data", source=tmp_path / "sounds", background=[tmp_path / "more"])
    after = {clip.path: clip.split for clip in read_manifest(tmp_path / "data").clips if not clip.labels}
    assert {path: after[path] for path in before} == before
    assert set(after.values()) == {"train", "val", "test"} and 20 < [*after.values()].count("train") < 40
    (tmp_path / "empty").mkdir()
    error = problem(prepare, "folder", tmp_path / "data", source=tmp_path / "sounds", background=[tmp_path / "empty"])
    assert "no sounds of no class" in error.problem
    assert with_splits([], ["train"], None) == []


def test_a_table_orders_the_classes_of_a_folder(tmp_path):
    sounds(tmp_path / "sounds", 4)
    names = ["low", "high", "hiss"]
    rows = "".join(f"{i},{name},{name}\n" for i, name in enumerate(names))
    (tmp_path / "sounds" / "class_labels_indices.csv").write_text("index,mid,display_name\n" + rows)
    report = prepare("folder", tmp_path / "data", source=tmp_path / "sounds")
    assert read_manifest(tmp_path / "data").label_names == names and not report.skipped
    (tmp_path / "sounds" / "class_labels_indices.csv").write_text("index,mid,display_name\n0,low,low\n")
    assert "lacks 2 classes" in problem(prepare, "folder", tmp_path / "other", source=tmp_path / "sounds").problem


def test_split_folders_have_their_own(tmp_path):
    for split, each in (("train", 4), ("val", 2), ("test", 2)):
        sounds(tmp_path / "sounds" / split, each)
    rumble(tmp_path / "sounds" / "train" / "_background" / "a.wav", 30)
    rumble(tmp_path / "sounds" / "test" / "_background" / "b.wav", 30)
    prepare("folder", tmp_path / "data", source=tmp_path / "sounds")
    found = {(clip.path.name, clip.split) for clip in read_manifest(tmp_path / "data").clips if not clip.labels}
    assert found == {("a.wav", "train"), ("b.wav", "test")}


def test_sounds_of_no_class_to_test_with_are_never_trained_on(tmp_path):
    for split in ("train", "val", "test"):
        sounds(tmp_path / "sounds" / split, 2)
    rumble(tmp_path / "sounds" / "test" / "_background" / "b.wav", 30)
    prepare("folder", tmp_path / "data", source=tmp_path / "sounds")
    assert {clip.split for clip in read_manifest(tmp_path / "data").clips if not clip.labels} == {"test"}


def test_a_model_that_cant_answer_nothing_is_wrong_about_clips_of_no_class(tmp_path):
    scores, targets = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32), np.array([-1, 0])
    np.savez(tmp_path / "s.npz", clips=["a", "b"], scores=scores, targets=targets, background=np.array(False))
    _, read, _ = read_scores(tmp_path / "s.npz")
    assert read.argmax(1).tolist() == [1, 0] and read.shape == (2, 3)
    np.savez(tmp_path / "s.npz", clips=["a", "b"], scores=scores / 4, targets=targets, background=np.array(True))
    assert read_scores(tmp_path / "s.npz")[1].argmax(1).tolist() == [2, 2]


def test_noise_that_isnt_there(corpus, tmp_path):
    error = problem(quietly, tiny("augment.background_noise=0.5"), tmp_path / "run", corpus)
    assert "has none to train on" in error.problem and "--background DIR" in error.fix


def test_clips_lie_in_sounds_of_no_class():
    """Twice as loud as it, anywhere within it; shorter ones lie at the beginning."""
    clips, noises = torch.zeros(3, 100), torch.zeros(3, 100)
    clips[:, :20], noises[0], noises[1, :10], noises[2, :50] = 1.0, 0.5, 0.5, 0.0
    lengths, noise_lengths = torch.full((3,), 20), torch.tensor([100, 10, 50])
    level = torch.full((3,), 20 * np.log10(2))
    mixed, longer = lay_into_noise(clips, lengths, noises, noise_lengths, level, torch.tensor([0.5, 0.9, 0.999]))
    assert longer.tolist() == [100, 20, 50]
    torch.testing.assert_close(mixed[0], torch.full((100,), 0.5) + (torch.arange(100) // 20 == 2))
    torch.testing.assert_close(mixed[1], clips[1] + 0.5 * (torch.arange(100) < 10))
    torch.testing.assert_close(mixed[2], ((torch.arange(100) >= 29) & (torch.arange(100) < 49)).float())


def test_draws_of_noise_take_clips_of_no_class_of_the_same_batch():
    has_labels = np.array([True] * 20 + [False] * 4)
    batches = [[*range(10), 20, 21], [*range(10, 20), 22], [23]]
    plain = draw_epoch(batches, 24, AugmentConfig(), 0, 0, has_labels)
    draws = draw_epoch(batches, 24, AugmentConfig(background_noise=1.0), 0, 0, has_labels)
    assert (plain.partners == -1).all() and np.array_equal(plain.places, draws.places)
    assert set(draws.partners[:10]) <= {20, 21} and (draws.partners[10:12] == -1).all()
    assert (draws.partners[12:22] == 22).all() and draws.partners[22] == draws.partners[23] == -1
    assert np.isnan(draws.ratios[:10]).all() and draws.noise[0].min() >= 0 and draws.noise[0].max() <= 30


def test_clips_of_no_class_survive_every_form(answering, tmp_path):
    manifest = read_manifest(answering[1])
    write_manifest(tmp_path, manifest.clips, manifest.labels, {})
    fast = read_manifest(tmp_path).clips
    for path in tmp_path.glob("*.parquet"):
        path.unlink()
    assert read_manifest(tmp_path).clips == fast == manifest.clips
    assert fast.has_labels().tolist() == [bool(clip.labels) for clip in manifest.clips]


def test_shards_of_no_class(tmp_path):
    sounds(tmp_path / "sounds", 6)
    rumble(tmp_path / "sounds" / "_background" / "long.wav", 40)
    prepare("folder", tmp_path / "data", source=tmp_path / "sounds", split="50/25/25", shards=True)
    shutil.rmtree(tmp_path / "sounds")
    run = quietly(
        tiny("train.epochs=1", "data.infer=[]", "frontend.sample_rate_hz=8000", "frontend.frames=48"),
        tmp_path / "run",
        tmp_path / "data",
    )
    assert load_model(run).config.activation == "softmax_background"


def test_it_answers_nothing(answering, tmp_path, aum):
    run, data = answering
    model = load_model(run)
    assert model.has_background and model.config.provenance["temperature"] > 0
    rumble(tmp_path / "wind.wav", 3, seed=9)
    sound(tmp_path / "low.wav", CLASSES["low"], seed=99)
    shown = aum("predict", tmp_path / "wind.wav", tmp_path / "low.wav", "--model", run, "--top", 1)
    assert re.search(r"wind\.wav.*\(nothing\)", shown.out) and re.search(r"low\.wav.*low", shown.out)
    result = aum(
        "predict", tmp_path / "wind.wav", "--model", run, "--format", "json", "--scores", tmp_path / "s.parquet"
    )
    [wind] = json.loads(result.out)["clips"]
    assert wind["nothing"] > 0.5 and wind["nothing"] + sum(x["score"] for x in wind["labels"]) == pytest.approx(
        1, abs=1e-4
    )
    assert wind["events"] == []
    again = aum("predict", "--from-scores", tmp_path / "s.parquet", "--format", "json")
    assert json.loads(again.out)["clips"] == [wind]
    rows = aum("predict", tmp_path / "wind.wav", "--model", run, "--format", "csv").out.splitlines()
    assert "(nothing)" in rows[1] and len(rows) == 5
    assert model.predict(tmp_path / "wind.wav")[0] == ("(nothing)", pytest.approx(wind["nothing"], abs=1e-5))
    assert model.predict(tmp_path / "low.wav")[0][0] == "low"


def test_any_model_rejects_what_reaches_no_threshold(trained, clips, tmp_path, aum):
    """On request, by its own thresholds or those that are given; labels stay as they are."""
    plain, strict = (
        json.loads(aum("predict", clips, "--model", trained, "--format", "json", *more).out)
        for more in ((), ("--reject", "--threshold", "1"))
    )
    assert "reject" not in plain and "nothing" not in plain["clips"][0]
    assert strict["reject"] is True and strict["threshold"] == 1
    count = len(plain["clips"])
    for before, after in zip(plain["clips"], strict["clips"]):
        assert after["labels"] == before["labels"] and after["rejected"] is True
        assert after["nothing"] == pytest.approx(1 - before["labels"][0]["score"], abs=1e-6)
    rejecting, scores = ("--reject", "--threshold"), tmp_path / "s.parquet"
    kept = aum("predict", clips, "--model", trained, *rejecting, "0", "--scores", scores, "--format", "csv")
    assert "(nothing)" not in kept.out
    again = ("predict", "--from-scores", scores, *rejecting, "1")
    assert aum(*again, "--format", "csv").out.count(",(nothing),") == count
    assert aum(*again).out.count("(nothing)") == count
    assert "reject" not in json.loads(aum("predict", "--from-scores", scores, "--format", "json").out)
    page = tmp_path / "page.html"
    assert aum("predict", clips, "--model", trained, *rejecting, "1", "--html", page).code == 0
    assert page.read_text(encoding="utf-8").count('"label":"(nothing)"') == count


def test_answers_become_labels(answering, tmp_path, aum, monkeypatch):
    """A clip that is answered with nothing is one of no class."""
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        rumble(tmp_path / "new" / f"wind{i}.wav", 2, seed=50 + i)
        sound(tmp_path / "new" / f"low{i}.wav", CLASSES["low"], seed=50 + i)
    assert aum("predict", "new", "--model", answering[0], "--top", "1", "--threshold", "1", "--out", "g.csv").code == 0
    result = aum("prepare", "csv", "g.csv", "--out", "data")
    assert result.code == 0, result.err
    manifest = read_manifest("data")
    rows = [line.split(",") for line in (tmp_path / "g.csv").read_text().splitlines()[1:]]
    assert {clip.path.name: clip.labels for clip in manifest.clips} == {
        Path(row[0]).name: () if row[4] == "(nothing)" else (row[4],) for row in rows
    }
    assert any(not clip.labels for clip in manifest.clips) and "low" in manifest.label_names
    assert "(nothing)" not in manifest.label_names


def test_eval_counts_what_is_answered_with_nothing(answering, tmp_path, aum):
    run, data = answering
    result = aum("eval", run, "--data", data, "--out", tmp_path / "out", "--json", tmp_path / "e.json")
    assert re.search(r"nothing, of no class +100.00 % of 2 clips", result.out) and "nothing, of a class" in result.out
    assert {"reliability-test.png", "confusion-test.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["metrics"]["background"] == {"clips": 2, "rejected": 1.0, "missed": 0.0}
    assert 0 <= found["calibration_error"] < 0.5 and sum(n for _, _, n in found["reliability"]) == 8


@pytest.mark.parametrize("settings", [(), ("train.freeze=backbone",)], ids=["trained", "frozen"])
def test_thresholds_heed_every_window_of_no_class(answering, tmp_path, monkeypatch, settings):
    """One of its windows is an event, however low the mean of a long clip is."""
    given = []
    monkeypatch.setattr(
        "aumcli.train.trainer.best_thresholds", lambda scores, _: given.append(scores) or (0.5,) * len(CLASSES)
    )
    recipe = tiny("train.epochs=1", "augment.policy=none", *(f"augment.{name}=0" for name in OFF), *settings)
    model = load_model(quietly(recipe, tmp_path / "run", answering[1]))
    clips = read_manifest(answering[1]).split("val")
    scores = np.concatenate([*score_clips(model, clips)])
    others = [i for i, clip in enumerate(clips) if not clip.labels]
    for i in others:
        windows = model.windows(load_audio(clips[i].path, RATE_HZ, clips[i].start_s, clips[i].stop_s)[0])
        highest = np.max([model.score_windows([window])[0] for window in windows], axis=0)
        assert (highest > scores[i] + 1e-4).any()
        scores[i] = highest
    assert others and given[0] == pytest.approx(scores, abs=1e-5)


def test_false_alarms_and_thresholds(answering, trained, tmp_path, aum):
    run, data = answering
    for number in range(2):
        rumble(tmp_path / "wind" / f"{number}.wav", 60, seed=20 + number)
    counts = {}
    for model in (trained, run):
        out = tmp_path / model.parent.name
        result = aum(
            "eval", model, "--data", data, "--split", "val", "--background", tmp_path / "wind", "--precision", "0.9",
            "--out", out, "--json", out / "e.json",
        )  # fmt: skip
        assert result.code == 0, result.err
        assert "false alarms in 0.03 hours of 2 recordings" in result.out and "thresholds for a precision" in result.out
        counts[model] = json.loads((out / "e.json").read_text())["false_alarms"]
        assert (out / "false-alarms-val.png").stat().st_size > 5000
    at = counts[run]["thresholds"].index(0.5)
    assert counts[run]["time"][at] < 0.05 < 0.5 < counts[trained]["time"][at]
    assert (
        counts[trained]["own_thresholds"]["time"] < 0.5 and counts[trained]["own_thresholds"]["recall"] > 0.8
    )  # its thresholds are cautious
    file = tmp_path / answering[0].parent.name / "thresholds-val.csv"
    assert file.read_text().startswith("label,threshold,precision,recall,clips\n")
    wind = tmp_path / "wind" / "0.wav"
    used = json.loads(aum("predict", wind, "--model", run, "--thresholds", file, "--format", "json").out)["threshold"]
    rows = [line.split(",") for line in file.read_text().splitlines()[1:]]
    expected = {row[0]: pytest.approx(float(row[1]), abs=1e-5) for row in rows}
    assert used == expected or used == next(iter(expected.values()))
    file.write_text("label,threshold\nlow,0.25\n")
    used = json.loads(aum("predict", wind, "--model", run, "--thresholds", file, "--format", "json").out)["threshold"]
    own = dict(zip(load_model(run).labels, load_model(run).thresholds.tolist()))
    assert used == {**{name: pytest.approx(value, abs=1e-5) for name, value in own.items()}, "low": 0.25}
    assert "flatter" in aum("eval", run, "--data", data, "--precision", "0.9", "--out", tmp_path / "t").err
    (tmp_path / "empty").mkdir()
    assert "no recordings" in aum("eval", run, "--data", data, "--background", tmp_path / "empty").err


@pytest.mark.parametrize(
    "text, words",
    [
        ("label,threshold\nlow,high\n", "row 2 has no number"),
        ("label,threshold\nlow,1.5\n", "1.5"),
        ("label,threshold\nlow,nan\n", "nan"),
        ("label,threshold\nlow,0.5\nlow,0.4\n", "again"),
        ("label,threshold\nlaw,0.5\n", "did you mean low"),
        ("label,score\nlow,0.5\n", "threshold"),
    ],
)
def test_wrong_thresholds(trained, clips, tmp_path, aum, text, words):
    (tmp_path / "t.csv").write_text(text)
    result = aum("predict", clips, "--model", trained, "--thresholds", tmp_path / "t.csv")
    assert result.code and words in result.err


def test_two_kinds_of_threshold(trained, clips, tmp_path, aum):
    (tmp_path / "t.csv").write_text("label,threshold\nlow,0.5\n")
    result = aum("predict", clips, "--model", trained, "--thresholds", tmp_path / "t.csv", "--threshold", "0.3")
    assert result.code == 2 and "leave one of them out" in result.err


def test_a_share_of_clips_becomes_background():
    rng = np.random.default_rng(0)
    waveforms = torch.from_numpy(rng.standard_normal((400, 2000)).astype(np.float32))
    lengths, targets = torch.full((400,), 1500), torch.ones(400, 3) / 3
    waveforms[:, 1500:] = 0
    made, after = replace_by_background(waveforms, lengths, targets, 0.25, 8000, ClipRandom(1, range(400), 400))
    replaced = after.sum(1) == 0
    assert 70 < replaced.sum() < 130 and torch.equal(made[~replaced], waveforms[~replaced])
    assert not made[:, 1500:].any() and torch.equal(after[~replaced], targets[~replaced])
    silent = (made[replaced] == 0).all(1).float().mean()
    assert 0.02 < silent < 0.25
    levels = 20 * made[replaced][(made[replaced] != 0).any(1)][:, :1500].square().mean(1).sqrt().log10()
    assert levels.min() < -60 and levels.max() > -25
    some, again = replace_by_background(
        waveforms[100:200], lengths[100:200], targets[100:200], 0.25, 8000, ClipRandom(1, range(100, 200), 400)
    )
    torch.testing.assert_close(some, made[100:200]) and torch.equal(again, after[100:200])


def test_other_augmentation_stays_as_it_was():
    """Clips that are not replaced are augmented as without it."""
    frontend = build_frontend(tiny().frontend.model_copy(update={"sample_rate_hz": RATE_HZ, "frames": 48}))
    clips = [np.random.default_rng(i).standard_normal(3000).astype(np.float32) for i in range(8)]
    settings = {"shift_s": 0.05, "noise": 0.2, "speed": 0.1, "freq_mask": 4}
    plain, _ = make_batch(frontend, clips, torch.ones(8, 1), AugmentConfig(**settings), 5)
    features, targets = make_batch(frontend, clips, torch.ones(8, 1), AugmentConfig(**settings, background=0.5), 5)
    kept = targets[:, 0] == 1
    assert 0 < kept.sum() < 8
    torch.testing.assert_close(features[kept], plain[kept])
    assert not torch.isclose(features[~kept], plain[~kept]).all()


def test_background_by_augmentation_alone(corpus, tmp_path):
    run = quietly(tiny("augment.background=0.3", "train.epochs=2"), tmp_path / "run", corpus)
    assert load_model(run).has_background
    multi = read_manifest(corpus)
    clips = [
        Clip(clip.path, labels=("high", "low") if i % 2 else clip.labels, split=clip.split)
        for i, clip in enumerate(multi.clips)
    ]
    write_manifest(tmp_path / "multi", clips, multi.labels, {})
    run = quietly(tiny("augment.background=0.3", "train.epochs=1"), tmp_path / "sigmoid", tmp_path / "multi")
    assert load_model(run).config.activation == "sigmoid"


@pytest.mark.parametrize("moment", range(1, 5))
def test_a_crash_while_the_calibrated_model_is_written(corpus, tmp_path, moment):
    """Die at the moment-th rename after the last epoch; the temperature goes into the weights once."""
    recipe = tiny("train.calibrate=true", "train.epochs=2")
    quietly(recipe, tmp_path / "whole", corpus)
    crash(recipe, tmp_path / "run", corpus, "epoch   2/", moment)
    quietly(recipe, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
    first, second = ((tmp_path / name / "best" / "config.json").read_text() for name in ("run", "whole"))
    assert first == second


def test_calibration_is_said_and_lowers_the_error(corpus, tmp_path):
    said = []
    quietly(tiny("train.calibrate=true", "train.epochs=8"), tmp_path / "run", corpus, say=said.append)
    [line] = [text for text in said if "calibrated" in text]
    before, after = (float(value) for value in re.findall(r"([\d.]+) % (?:before|after)", line))
    assert after <= before + 5

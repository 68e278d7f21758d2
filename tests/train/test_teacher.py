"""Another model's scores as targets."""

import json
import shutil

import numpy as np
import pytest
import torch
from tiny import CLASSES, tiny
from training import Stop, assert_same_run, problem, quietly, weights

from aumcli.classifier import load_model
from aumcli.data.manifest import read_manifest
from aumcli.evaluate import clip_name, score_clips
from aumcli.train.teacher import read_teacher

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
NAMES = sorted(CLASSES)
OFF = ("speed", "noise", "shift_s", "mixup", "freq_mask", "time_mask")


def write(path, manifest, scores, labels=NAMES, clips=None):
    """Scores of the training clips, as aum eval writes them."""
    names = [clip_name(clip, manifest.folder) for clip in manifest.split("train")]
    np.savez(path, clips=np.array(names if clips is None else clips), labels=np.array(labels), scores=scores)
    return path


@pytest.fixture(scope="module")
def manifest(corpus):
    return read_manifest(corpus)


def drawn(manifest, classes=3, total=1.0):
    scores = np.random.default_rng(0).random((len(manifest.split("train")), classes)).astype(np.float32)
    return total * scores / scores.sum(axis=1, keepdims=True)


def read(path, manifest, share=0.5, activation="softmax"):
    return read_teacher(path, share, manifest.split("train"), manifest, activation)


def test_scores_are_found_by_clip_and_class(manifest, tmp_path):
    scores, order = drawn(manifest, 4), np.random.default_rng(1).permutation(len(manifest.split("train")))
    names = np.array([clip_name(clip, manifest.folder) for clip in manifest.split("train")])
    labels = [NAMES[2], "other", NAMES[0], NAMES[1]]
    path = write(tmp_path / "s.npz", manifest, scores[order], labels, names[order])
    expected = scores[:, [2, 3, 0]] / scores[:, [2, 3, 0]].sum(axis=1, keepdims=True)
    assert read(path, manifest).scores == pytest.approx(expected, abs=1e-6)
    assert read(path, manifest, activation="sigmoid").scores == pytest.approx(scores[:, [2, 3, 0]])
    targets = torch.eye(3)[:2]
    mixed = read(path, manifest, 0.25).mix(targets, [5, 3])
    assert mixed.numpy() == pytest.approx(0.75 * targets.numpy() + 0.25 * expected[[5, 3]], abs=1e-6)


def test_what_a_teacher_leaves_is_for_nothing(manifest, tmp_path):
    scores = drawn(manifest, total=0.4)
    kept = read(write(tmp_path / "a.npz", manifest, scores), manifest, activation="softmax_background")
    assert kept.scores == pytest.approx(scores)
    several = read(write(tmp_path / "b.npz", manifest, 5 * scores), manifest, activation="softmax_background")
    assert several.scores.sum(axis=1) == pytest.approx(1, abs=1e-6)  # independent scores, which add up to 2
    none = read(write(tmp_path / "c.npz", manifest, 0 * scores), manifest)
    assert np.isfinite(none.scores).all()


def test_labels_for_a_teacher_change_nothing(manifest, corpus, reference, tmp_path):
    path = write(tmp_path / "labels.npz", manifest, manifest.targets(manifest.split("train")))
    run = quietly(tiny(f"train.teacher={path}", "train.teacher_share=0.7"), tmp_path / "run", corpus)
    assert weights(run) == weights(reference)


def test_a_model_learns_what_its_teacher_says(manifest, corpus, tmp_path):
    """With all targets of the teacher's, labels are of no account: here it calls each class by the next one's name."""
    path = write(tmp_path / "next.npz", manifest, np.roll(manifest.targets(manifest.split("train")), 1, axis=1))
    recipe = tiny(
        f"train.teacher={path}", "train.teacher_share=1", "train.epochs=25", "train.lr=0.01", "train.ema=0",
        "model.drop_path=0", "augment.policy=none", *(f"augment.{name}=0" for name in OFF),
    )  # fmt: skip
    run = quietly(recipe, tmp_path / "run", corpus)
    clips = manifest.split("train")
    answers = np.concatenate([*score_clips(load_model(run / "last"), clips)]).argmax(axis=1)
    labels = manifest.targets(clips).argmax(axis=1)
    assert ((labels + 1) % 3 == answers).mean() > 0.8


def test_a_head_learns_from_a_teacher_too(manifest, corpus, tmp_path):
    path = write(tmp_path / "s.npz", manifest, drawn(manifest))
    plain = (*(f"augment.{name}=0" for name in OFF), "augment.policy=none", "train.freeze=backbone", "train.ema=0")
    runs = [
        quietly(tiny(*plain, *more), tmp_path / str(len(more)), corpus) for more in ((), (f"train.teacher={path}",))
    ]
    assert weights(runs[0])["last"] != weights(runs[1])["last"]


def test_stop_and_resume(manifest, corpus, tmp_path):
    path = write(tmp_path / "s.npz", manifest, drawn(manifest))
    recipe = tiny(f"train.teacher={path}")
    whole = quietly(recipe, tmp_path / "whole", corpus)

    def say(text):
        if text.startswith("epoch   2/"):
            raise Stop

    with pytest.raises(Stop):
        quietly(recipe, tmp_path / "run", corpus, say=say)
    shutil.move(path, tmp_path / "away.npz")
    assert "can't read" in problem(quietly, recipe, tmp_path / "run", resume=True).problem
    write(path, manifest, drawn(manifest)[::-1])
    error = problem(quietly, recipe, tmp_path / "run", resume=True)
    assert "has other scores than those" in error.problem
    shutil.move(tmp_path / "away.npz", path)
    assert_same_run(quietly(recipe, tmp_path / "run", resume=True), whole)
    assert json.loads((whole / "report.json").read_text())["teacher_sha256"] == read(path, manifest).sha256


def test_from_eval_to_training(corpus, reference, tmp_path, aum):
    scored = aum("eval", reference, "--data", corpus, "--split", "train", "--out", tmp_path / "teacher")
    assert scored.code == 0, scored.err
    run = tmp_path / "run"
    settings = [f"train.teacher={tmp_path / 'teacher' / 'scores-train.npz'}", "train.epochs=1"]
    recipe = tmp_path / "tiny.toml"
    shutil.copy(reference / "recipe.toml", recipe)
    done = aum("train", "--recipe", recipe, "--data", corpus, "--out", run, "--set", settings[0], "--set", settings[1])
    assert done.code == 0, done.err
    assert "50 % scores of" in done.err + done.out and "50 % labels" in done.err + done.out


def test_what_is_missing_is_said(manifest, tmp_path):
    clips = len(manifest.split("train"))
    fewer = write(tmp_path / "a.npz", manifest, drawn(manifest, 2), NAMES[:2])
    assert f"no scores of 1 class: {NAMES[2]!r}" in problem(read, fewer, manifest).problem
    others = write(tmp_path / "b.npz", manifest, drawn(manifest), clips=[f"{i}.wav" for i in range(clips)])
    error = problem(read, others, manifest)
    assert f"no scores of {clips} training clips" in error.problem and "--split train" in error.fix
    (tmp_path / "c.npz").write_text("no archive")
    for path in (tmp_path / "c.npz", tmp_path / "d.npz"):
        assert "can't read" in problem(read, path, manifest).problem

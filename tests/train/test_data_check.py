"""Going on with the data that the run began with, or not at all; and one training at a time in a folder."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, sound, tiny
from training import Stop, history, problem, quietly, started, train_in_team, wait_for, weights

from aumcli.data.manifest import Clip, Label, read_manifest, write_manifest
from aumcli.train import trainer
from aumcli.utils import lock

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture
def broken_off(corpus, tmp_path) -> Path:
    """A run that ended after its first epoch."""

    def say(text):
        if text.startswith("epoch   1/"):
            raise Stop

    with pytest.raises(Stop):
        quietly(tiny(), tmp_path / "run", corpus, say=say)
    return tmp_path / "run"


@pytest.fixture
def copied(corpus, tmp_path) -> Path:
    """The data, to be changed."""
    return shutil.copytree(corpus, tmp_path / "data")


def reorder_classes(data: Path) -> None:
    manifest = read_manifest(data)
    write_manifest(
        data, manifest.clips, [Label(i, each.id, each.name) for i, each in enumerate(reversed(manifest.labels))], {}
    )


def add_a_class(data: Path) -> None:
    manifest = read_manifest(data)
    clip = Clip(sound(data / "new.wav", 900.0), labels=("new",), split="train")
    write_manifest(data, [*manifest.clips, clip], [*manifest.labels, Label(3, "new", "new")], {})


def remove_a_class(data: Path) -> None:
    manifest = read_manifest(data)
    write_manifest(data, [clip for clip in manifest.clips if clip.labels != ("low",)], manifest.labels[:2], {})


def rename_a_class(data: Path) -> None:
    manifest = read_manifest(data)
    write_manifest(data, manifest.clips, [*manifest.labels[:2], Label(2, "low", "deep")], {})


def move_a_clip(data: Path) -> None:
    manifest = read_manifest(data)
    clips = [*manifest.clips]
    place = next(i for i, clip in enumerate(clips) if clip.split == "train")
    clips[place] = Clip(clips[place].path, labels=clips[place].labels, split="val")
    write_manifest(data, clips, manifest.labels, {})


def relabel_a_clip(data: Path) -> None:
    manifest = read_manifest(data)
    first = manifest.clips[0]
    other = "low" if first.labels != ("low",) else "high"
    write_manifest(
        data, [Clip(first.path, labels=(other,), split=first.split), *manifest.clips[1:]], manifest.labels, {}
    )


def reorder_clips(data: Path) -> None:
    manifest = read_manifest(data)
    write_manifest(data, [*manifest.clips][::-1], manifest.labels, {})


CHANGES = [
    (reorder_classes, "in another order: number 0 was 'high' and is 'low'"),
    (add_a_class, "'new' is new among its classes"),
    (remove_a_class, "'low' is gone"),
    (rename_a_class, "'deep' is new among its classes; 'low' is gone"),
    (move_a_clip, "train has 17 clips and had 18, val has 7 clips and had 6"),
    (relabel_a_clip, "or with other labels"),
    (reorder_clips, "in another order"),
]


@pytest.mark.parametrize("change, words", CHANGES)
def test_other_data_is_refused_and_the_call_that_starts_anew_works(broken_off, copied, monkeypatch, change, words):
    change(copied)
    before = weights(broken_off), history(broken_off)
    error = problem(quietly, tiny(), broken_off, copied, resume=True)
    assert (
        error.exit_code == 2
        and words in error.problem
        and f"not the data that {broken_off} was trained on" in error.problem
    )
    assert (weights(broken_off), history(broken_off)) == before
    call = shlex.split(error.fix[error.fix.index("aum train") :])
    assert call[:2] == ["aum", "train"] and call[-2:] == ["--out", f"{broken_off}-2"]
    if change in (reorder_classes, add_a_class):  # with a head of the same classes, and of others
        done = subprocess.run(
            [sys.executable, "-m", "aumcli", *call[1:], "--set", "train.epochs=1"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert (Path(f"{broken_off}-2") / "report.json").exists()


def test_the_same_data_elsewhere_is_the_same(broken_off, reference, copied):
    manifest = read_manifest(copied)
    write_manifest(copied, manifest.clips, manifest.labels, {"prepared": "again"})
    quietly(tiny(), broken_off, copied, resume=True)
    assert weights(broken_off) == weights(reference) and history(broken_off) == history(reference)


def test_a_team_refuses_other_data_in_all_its_processes(broken_off, copied):
    add_a_class(copied)
    assert all("'new' is new" in text for text in train_in_team(2, tiny(), broken_off, copied, resume=True))


@pytest.mark.parametrize("settings", [(), ("train.early_stopping_patience=1", "train.lr=1e-9", "train.ema=0")])
def test_a_finished_run_is_said_to_be_finished(corpus, tmp_path, settings):
    run, said = quietly(tiny(*settings), tmp_path / "run", corpus), []
    epochs, before = len(history(run)), weights(run)
    quietly(tiny(), run, resume=True, say=said.append)
    assert any(str(run) in text and f"epoch {epochs} of 4" in text for text in said)
    assert not any("resuming" in text or text.startswith("epoch ") for text in said) and weights(run) == before


# two at once


def test_a_second_training_into_the_folder_is_refused(corpus, tmp_path, monkeypatch):
    """While the first one is at it, new and to be gone on with, from this process and another; then it is free."""
    run, found = tmp_path / "run", []

    def step(*arguments):
        if not found:
            found.append(problem(quietly, tiny(), run, corpus))
            found.append(problem(quietly, tiny(), run, corpus, resume=True))
            found.append(
                subprocess.run(
                    [sys.executable, "-m", "aumcli", "train", "--recipe", RECIPE, "--data", corpus, "--out", run],
                    capture_output=True,
                    text=True,
                )
            )
        loop_step(*arguments)

    loop_step = trainer.train_step
    monkeypatch.setattr(trainer, "train_step", step)
    quietly(tiny(), run, corpus)
    for error in found[:2]:
        assert (
            error.exit_code == 2
            and f"another training writes to {run}: process {os.getpid()} on " in error.problem
            and "--out" in error.fix
        )
    assert found[2].returncode == 2 and "another training writes to" in found[2].stderr and found[2].stdout == ""
    assert not list(run.rglob(lock.NAME)) and not list(run.rglob("*.part"))
    quietly(tiny(), run, resume=True)


def test_the_folder_of_a_training_that_was_killed_is_free(corpus, tmp_path):
    run = tmp_path / "run"
    with started("train", "--recipe", RECIPE, "--data", corpus, "--out", run, "--set", "train.epochs=50") as process:
        wait_for((run / "last" / "state.pt").exists, process)
        assert "another training" in problem(quietly, tiny(), run, resume=True).problem
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (run / lock.NAME).exists()
    state = torch.load(run / "last" / "state.pt", weights_only=True)
    state["recipe"]["train"]["epochs"] = len(state["history"]) + 1
    torch.save(state, run / "last" / "state.pt")
    quietly(tiny(), run, resume=True)
    assert not (run / lock.NAME).exists()


def test_a_team_is_one_training(corpus, tmp_path):
    """Only its first process locks; another team, and one alone, are refused in all their processes."""
    assert train_in_team(2, tiny("train.epochs=1"), tmp_path / "run", corpus) == ["", ""]
    with lock.locked(tmp_path / "other", "training"):
        texts = train_in_team(2, tiny("train.epochs=1"), tmp_path / "other", corpus)
    assert all("another training writes to" in text for text in texts) and len(texts) == 2


def test_what_fails_at_once_leaves_no_folder(corpus, tmp_path, copied):
    assert problem(quietly, tiny(), tmp_path / "a" / "run", corpus, resume=True)
    (copied / "manifest.csv").write_text("nothing")
    assert problem(quietly, tiny(), tmp_path / "a" / "run", copied)
    assert not (tmp_path / "a").exists()


def test_a_network_folder_without_locks_is_said_to_be_one(corpus, tmp_path, monkeypatch):
    if sys.platform == "win32":
        pytest.skip("Windows locks otherwise")

    def refuse(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    said = []
    quietly(tiny("train.epochs=1"), tmp_path / "run", corpus, say=said.append)
    assert any("can't be locked (No locks available): nothing keeps a second training" in text for text in said)

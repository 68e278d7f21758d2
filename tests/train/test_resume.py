"""Stopping a run anywhere, and going on to the same bits."""

import errno
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from tiny import RECIPE, tiny
from training import Stop, assert_same_run, crash, history, problem, quietly, started, wait_for, weights

from aumcli.train import trainer
from aumcli.utils.files import temporary_path

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def stop_after(epochs: int):
    def say(text):
        if text.startswith(f"epoch {epochs:>3}/"):
            raise Stop

    return say


@pytest.mark.parametrize("epochs", [1, 3])
def test_stop_between_epochs_and_resume(reference, corpus, tmp_path, epochs):
    with pytest.raises(Stop):
        quietly(tiny(), tmp_path / "run", corpus, say=stop_after(epochs))
    assert len(history(tmp_path / "run")) == epochs
    said = []
    quietly(tiny("seed=7"), tmp_path / "run", None, resume=True, say=said.append)  # the run's own recipe counts
    assert any(f"epoch {epochs} of 4" in text for text in said)
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("moment", range(1, 7))
def test_crash_between_any_two_files_of_an_epoch(reference, corpus, tmp_path, moment):
    """Die at the moment-th rename of the second epoch: metrics.csv, best/ (where better), last/, last/state.pt."""
    crash(tiny(), tmp_path / "run", corpus, "epoch   1/", moment)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", reference)
    assert not list((tmp_path / "run").rglob("*.part"))


def test_resuming_a_finished_run_changes_nothing(reference, tmp_path):
    run = shutil.copytree(reference, tmp_path / "run")
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


def test_an_existing_run_is_never_overwritten(reference, corpus):
    before = weights(reference)
    error = problem(quietly, tiny(), reference, corpus)
    assert error.exit_code == 2 and "already holds a run" in error.problem and "--resume" in error.fix
    assert weights(reference) == before


def test_resume_without_a_run(corpus, tmp_path):
    error = problem(quietly, tiny(), tmp_path / "run", corpus, resume=True)
    assert error.exit_code == 2 and "no run to resume" in error.problem
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", [lambda data: data[:-50], lambda data: b"", lambda data: b"text"])
def test_resume_from_a_damaged_state(reference, tmp_path, spoil):
    run = shutil.copytree(reference, tmp_path / "run")
    state = run / "last" / "state.pt"
    state.write_bytes(spoil(state.read_bytes()))
    assert "state.pt" in problem(quietly, tiny(), run, resume=True).problem
    assert weights(run) == weights(reference)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["metrics.csv", "last/model.safetensors", "last/config.json", "last/state.pt"])
def test_a_full_disk_loses_no_epoch(reference, corpus, tmp_path, name):
    run = tmp_path / "run"

    def say(text):
        if text.startswith("epoch   1/"):
            path = run / name
            temporary_path(path).symlink_to("/dev/full")
            kept.update({path: path.read_bytes()})

    kept = {}
    error = problem(quietly, tiny(), run, corpus, say=say)
    assert (
        error.exit_code == 1 and "no space left" in error.problem and name in error.problem and "--resume" in error.fix
    )
    assert all(path.read_bytes() == data for path, data in kept.items()) and kept
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


# within an epoch

EVERY_STEP = "train.checkpoint_every_minutes=1e-9"


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("train.gradient_accumulation_steps=3",),
        ("train.ema=0", "train.optimizer=adam", "data.sampling=balanced"),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 13, 20])
def test_dying_after_any_step_loses_nothing(corpus, tmp_path, monkeypatch, settings, step):
    """The state is saved after every step; the step after it never happened."""
    if settings not in WHOLE:
        WHOLE[settings] = quietly(tiny(EVERY_STEP, *settings), tmp_path / "whole", corpus)
    saves = []

    def save(run):
        save_checkpoint(run)
        saves.append(run)
        if len(saves) == step:
            raise Stop

    save_checkpoint = trainer.save_checkpoint
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(trainer, "save_checkpoint", save)
        quietly(tiny(EVERY_STEP, *settings), tmp_path / "run", corpus)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", WHOLE[settings])


WHOLE: dict[tuple[str, ...], Path] = {}


def test_killed_twice_by_sigkill(corpus, tmp_path):
    """A real process, at random moments, in epochs and between them.

    A rest of what it was writing is removed in the end.
    """
    settings = ("train.batch_size=1", "train.epochs=8", EVERY_STEP)
    whole, run = quietly(tiny(*settings), tmp_path / "whole", corpus), tmp_path / "run"
    moments = []
    for _ in range(2):
        resume = (run / "last" / "state.pt").exists()
        with started(
            "train",
            "--out",
            run,
            *(
                ("--resume",)
                if resume
                else ("--recipe", RECIPE, "--data", corpus, *(w for v in settings for w in ("--set", v)))
            ),
        ) as process:
            before = changed(run)
            wait_for(lambda: changed(run) > before, process)
            moments.append(random.uniform(0, 0.3))
            time.sleep(moments[-1])
            process.kill()
    (run / "last" / ".state.pt.123.part").write_bytes(b"rest")
    quietly(tiny(), run, resume=True)
    assert weights(run) == weights(whole) and history(run) == history(whole), moments
    assert not list(run.rglob("*.part"))


def changed(run: Path) -> int:
    path = run / "last" / "state.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_within_an_epoch(reference, corpus, tmp_path, monkeypatch):
    run, saves, kept = tmp_path / "run", [], {}

    def save(state):
        if len(saves) == 6:
            temporary_path(run / "last" / "state.pt").symlink_to("/dev/full")
            kept.update({path: path.read_bytes() for path in (run / "last").glob("state*.pt")})
        saves.append(1)
        save_checkpoint(state)

    save_checkpoint = trainer.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_checkpoint", save)
        error = problem(quietly, tiny(EVERY_STEP), run, corpus)
    assert (
        error.exit_code == 1
        and "no space left" in error.problem
        and str(run / "last" / "state.pt") in error.problem
        and "--resume" in error.fix
    )
    assert {path: path.read_bytes() for path in (run / "last").glob("state*.pt")} == kept and len(kept) == 1
    quietly(tiny(), run, resume=True)
    assert weights(run) == weights(reference) and history(run) == history(reference)


def test_output_that_became_read_only(reference, corpus, tmp_path, monkeypatch):
    """As a file system does it that was mounted again after a fault: every open for writing is refused."""
    run, saves = tmp_path / "run", []
    write_bytes = Path.write_bytes

    def refused(path, data):
        saves.append(1)
        if len(saves) == 8:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", refused)
        error = problem(quietly, tiny(EVERY_STEP), run, corpus)
    assert "Read-only file system" in error.problem and str(run / "last" / "state.pt") in error.problem
    quietly(tiny(), run, resume=True)
    assert weights(run) == weights(reference) and history(run) == history(reference)


def test_a_damaged_checkpoint_leaves_the_weights(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    (tmp_path / "run" / "last" / "state.pt").write_bytes(b"damaged")
    error = problem(quietly, tiny(), tmp_path / "run", resume=True)
    assert error.exit_code == 1 and "state.pt" in error.problem and "--init" in error.fix


def test_states_are_saved_by_the_clock(corpus, tmp_path, monkeypatch):
    """Every 10 minutes: with steps that take 4, after the third, sixth ... step of an epoch of 18."""
    clock, saved = [time.monotonic()], []

    def step(*args):
        clock[0] += 240
        return loop_step(*args)

    def save(run):
        saved.append((len(run.history), run.epoch.step))
        save_checkpoint(run)

    loop_step, save_checkpoint = trainer.train_step, trainer.save_checkpoint
    monkeypatch.setattr(trainer, "train_step", step)
    monkeypatch.setattr(trainer, "save_checkpoint", save)
    monkeypatch.setattr(trainer.time, "monotonic", lambda: clock[0])
    quietly(tiny("train.epochs=1", "train.batch_size=1"), tmp_path / "run", corpus)
    assert saved == [(0, number) for number in range(3, 19, 3)]


def test_a_finished_run_takes_more_epochs(corpus, tmp_path):
    constant = ("train.schedule=constant", "train.epochs=")
    for out, epochs in (("long", 4), ("short", 2)):
        quietly(tiny(constant[0], f"{constant[1]}{epochs}"), tmp_path / out, corpus)
    said = []
    quietly(tiny(), tmp_path / "short", resume=True, epochs=4, say=said.append)
    assert any("epoch 2 of 4" in text for text in said)
    assert_same_run(tmp_path / "short", tmp_path / "long")
    assert "3 epochs" not in problem(quietly, tiny(), tmp_path / "short", resume=True, epochs=3).fix


def test_a_cosine_can_not_be_prolonged(reference, tmp_path):
    shutil.copytree(reference, tmp_path / "run")
    error = problem(quietly, tiny(), tmp_path / "run", resume=True, epochs=6)
    assert "cosine" in error.problem and "--init" in error.fix and "train.epochs=2" in error.fix
    quietly(tiny(), tmp_path / "run", resume=True, epochs=4)  # as many as it had


def test_the_command_takes_epochs_and_nothing_else_with_resume(aum, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    assert aum("train", "--resume", "--out", tmp_path / "run", "--set", "train.epochs=12").code == 0
    result = aum("train", "--resume", "--out", tmp_path / "run", "--set", "train.epochs=20")
    assert result.code == 2 and "cosine" in result.err
    result = aum("train", "--resume", "--out", tmp_path / "run", "--set", "train.lr=1", "--set", "train.epochs=20")
    assert result.code == 2 and "train.epochs" in result.err

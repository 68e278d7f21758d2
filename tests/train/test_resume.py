"""Stopping a run anywhere, and going on to the same bits."""

import os
import random
import shutil
import subprocess
import sys
import time

import pytest
from tiny import RECIPE, tiny
from training import Stop, assert_same_run, history, problem, quietly, weights

from aumcli.classifier import load_model

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
    quietly(tiny("seed=7"), tmp_path / "run", None, resume=True, say=said.append)      # the run's own recipe counts
    assert any(f"going on after epoch {epochs} of 4" in text for text in said)
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("moment", range(1, 7))
def test_crash_between_any_two_files_of_an_epoch(reference, corpus, tmp_path, monkeypatch, moment):
    """Die at the moment-th rename of the second epoch: metrics.csv, best/ (where better), last/, last/state.pt."""
    replace, left = os.replace, [None]

    def say(text):
        if text.startswith("epoch   1/"):
            left[0] = moment

    def crash(source, target):
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                raise Stop
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("aumcli.files.os.replace", crash)
        quietly(tiny(), tmp_path / "run", corpus, say=say)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", reference)
    assert not list((tmp_path / "run").rglob("*.part"))


def test_killed_in_the_middle_of_an_epoch_and_resumed(reference, corpus, tmp_path):
    """SIGKILL a real process at a random moment after its first epoch."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "aumcli", "train", "--recipe", RECIPE, "--data", corpus, "--out", run]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}        # as here: threads decide in which parts a sum is taken
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not (run / "last" / "state.pt").exists() and process.poll() is None:
            time.sleep(0.002)
        delay_s = random.uniform(0, 0.3)
        time.sleep(delay_s)
        process.kill()
        message = process.stderr.read().decode()
    assert (run / "last" / "state.pt").exists(), message
    load_model(run)
    load_model(run / "last")
    quietly(tiny(), run, resume=True)
    assert weights(run) == weights(reference), f"killed {delay_s} s after the first epoch"
    assert history(run) == history(reference)


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
            path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")
            kept.update({path: path.read_bytes()})

    kept = {}
    error = problem(quietly, tiny(), run, corpus, say=say)
    assert error.exit_code == 1 and "no space left" in error.problem and name in error.problem and "--resume" in error.fix
    assert all(path.read_bytes() == data for path, data in kept.items()) and kept
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)

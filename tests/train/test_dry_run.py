"""`aum train --dry-run` on prepared data: it stops with what the training would stop with, and times real steps."""

import builtins
import re

import pytest
import torch
from tiny import RECIPE, tiny
from training import problem

from aumcli.train import dry_run
from aumcli.train.distributed import ProcessGroup
from aumcli.train.dry_run import DryRun, dry_run_training

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def tree(folder) -> list:
    return sorted(path for path in folder.rglob("*"))


def test_it_times_steps_and_writes_nothing(corpus, tmp_path):
    before = tree(corpus)
    rows = dict(dry_run_training(tiny(), tmp_path / "run", corpus).rows())
    numbers = re.fullmatch(
        r"([\d.e-]+) s a step, ([\d.]+) s an epoch, ([\d.]+) s in all; measured on cpu, 1 threads?", rows["time"]
    )
    step_s, epoch_s, whole_s = map(float, numbers.groups())
    assert 5 * step_s < epoch_s < whole_s == pytest.approx(4 * epoch_s, rel=0.02)
    assert tree(corpus) == before and not (tmp_path / "run").exists()


def test_long_steps_are_tried_with_fewer_clips(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(dry_run, "_timed_step", lambda run, batch: 4.0 * len(batch))
    rows = dict(dry_run_training(tiny(), tmp_path / "run", corpus).rows())
    assert rows["time"].startswith("16 s a step") and "in steps of 2 of the 4 clips" in rows["time"]


def test_the_weights_to_start_from_are_tried(corpus, trained, tmp_path, aum):
    notes = dry_run_training(tiny(f"train.init={trained}"), tmp_path / "run", corpus).notes
    assert any("loaded" in note and "parameters" in note for note in notes)
    error = problem(dry_run_training, tiny(f"train.init={trained}", "model.width=24"), tmp_path / "run", corpus)
    assert "another width" in error.problem
    result = aum(
        "train", "--recipe", RECIPE, "--data", corpus, "--init", trained, "--set", "model.width=24", "--dry-run"
    )
    assert result.code == 2 and "another width" in result.err


def test_so_are_packages_and_the_folder(corpus, trained, tmp_path, monkeypatch):
    assert "already holds a run" in problem(dry_run_training, tiny(), trained, corpus).problem
    real = builtins.__import__
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: (_ for _ in ()).throw(ImportError(name)) if "tensorboard" in name else real(name, *rest),
    )
    assert (
        "aumcli[tensorboard]" in problem(dry_run_training, tiny("train.tensorboard=true"), tmp_path / "run", corpus).fix
    )


@pytest.mark.parametrize(
    "seconds, words", [(0.01234, "0.0123 s"), (119, "119 s"), (150, "2.5 min"), (7300, "2.0 h"), (260000, "3.0 days")]
)
def test_durations(seconds, words):
    assert dry_run.duration(seconds) == words


def test_the_clips_are_measured_once(corpus, aum, monkeypatch):
    from aumcli import plan

    measured, measure = [], plan.measure_normalisation
    monkeypatch.setattr(plan, "measure_normalisation", lambda *args: measured.append(1) or measure(*args))
    assert aum("train", "--recipe", RECIPE, "--data", corpus, "--dry-run").code == 0
    assert len(measured) == 1


@pytest.mark.parametrize("policy, fitting", [("none", 9), ("auto", 3)])  # auto: 4 policies of 3 epochs each, and 3
def test_the_epochs_that_fit_into_a_time(corpus, monkeypatch, policy, fitting):
    measured = DryRun((), 1.0, 6.0, 40, "")
    monkeypatch.setattr(dry_run, "dry_run_training", lambda *args: measured)
    recipe = tiny(f"augment.policy={policy}", "train.epochs=40", "train.warmup_epochs=4.0")
    minutes = 1.0 if policy == "none" else 1.6
    fitted = dry_run.fit_epochs(recipe, corpus, minutes, torch.device("cpu"), ProcessGroup())
    assert fitted.train.epochs == fitting and fitted.train.warmup_epochs == fitting / 4
    assert fitted.augment == recipe.augment
    assert dry_run.fit_epochs(recipe, corpus, 1e3, torch.device("cpu"), ProcessGroup()).train.epochs == 40
    assert dry_run.fit_epochs(recipe, corpus, 1e-3, torch.device("cpu"), ProcessGroup()).train.epochs == 1


def test_a_training_of_a_given_time(corpus, tmp_path, aum):
    out = tmp_path / "run"
    arguments = ("train", "--recipe", RECIPE, "--data", corpus, "--minutes", "0.1", "--out", out)
    result = aum(*arguments, "--set", "train.epochs=1000")
    assert result.code == 0 and re.search(r"(\d+) epochs of 1000 fit into 0.1 min", result.err)
    epochs = int(re.search(r"(\d+) epochs of 1000", result.err)[1])
    assert len((out / "metrics.csv").read_text().splitlines()) == 1 + epochs < 1000
    assert f"\nepochs = {epochs}\n" in (out / "recipe.toml").read_text()
    result = aum("train", "--resume", "--out", out, "--minutes", "1")
    assert result.code == 2 and "--minutes" in result.err

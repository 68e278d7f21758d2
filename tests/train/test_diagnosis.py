"""Losses and gradients that are no numbers: never applied, and explained."""

import pytest
from tiny import tiny
from training import assert_same_run, history, problem, quietly

from aumcli.classifier import load_model
from aumcli.train import loop
from aumcli.train.loop import loss_of

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_a_diverging_run_says_where(corpus, tmp_path):
    error = problem(quietly, tiny("train.lr=1e30", "train.warmup_epochs=0"), tmp_path / "run", corpus)
    assert error.exit_code == 1 and "train.lr" in error.fix
    for expected in ("epoch 1, step 2", "learning rate 9", ".wav"):
        assert expected in error.problem


def test_the_last_good_epoch_is_kept(reference, corpus, tmp_path, monkeypatch):
    run, steps = tmp_path / "run", []

    def diverge(*args):
        steps.append(1)
        return loss_of(*args) * (float("nan") if len(steps) == 8 else 1.0)      # of 5 steps per epoch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loss_of", diverge)
        error = problem(quietly, tiny(), run, corpus)
    assert "epoch 2, step 3" in error.problem and "last" in error.fix
    assert len(history(run)) == 1 and load_model(run / "last").config.provenance["epoch"] == 1
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


def test_weights_that_diverge_in_an_epochs_last_step_are_not_kept(corpus, tmp_path):
    error = problem(quietly, tiny("train.lr=1e30", "train.warmup_epochs=0", "train.batch_size=64"), tmp_path / "run", corpus)
    assert error.exit_code == 1 and "train.lr" in error.fix
    assert not (tmp_path / "run" / "best").exists() and not (tmp_path / "run" / "last").exists()

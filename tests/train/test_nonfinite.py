"""Losses and gradients that are no numbers: never applied, and explained."""

import os
import signal

import pytest
import torch
from tiny import tiny
from training import assert_same_run, history, problem, quietly, train_in_team

from aumcli.classifier import load_model
from aumcli.data.datasets.batch import make_batch
from aumcli.data.datasets.waveforms import epoch_batches
from aumcli.data.manifest import read_manifest
from aumcli.train import microbatches, trainer
from aumcli.train.trainer import loss_of

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
        return loss_of(*args) * (float("nan") if len(steps) == 8 else 1.0)  # of 5 steps per epoch

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "loss_of", diverge)
        error = problem(quietly, tiny(), run, corpus)
    assert "epoch 2, step 3" in error.problem and "last" in error.fix
    assert len(history(run)) == 1 and load_model(run / "last").config.provenance["epoch"] == 1
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


def test_weights_that_diverge_in_an_epochs_last_step_are_not_kept(corpus, tmp_path):
    error = problem(
        quietly, tiny("train.lr=1e30", "train.warmup_epochs=0", "train.batch_size=64"), tmp_path / "run", corpus
    )
    assert error.exit_code == 1 and "train.lr" in error.fix
    assert not (tmp_path / "run" / "best").exists() and not (tmp_path / "run" / "last").exists()


# where it came from


def plant_in_features(monkeypatch, at: int, value: float = float("nan")):
    """The at-th batch, from 1, gets a value that is no number in its features."""
    calls = []

    def make(*args):
        features, targets = make_batch(*args)
        calls.append(1)
        if len(calls) == at:
            features[0, 3, 3] = value
        return features, targets

    monkeypatch.setattr(microbatches, "make_batch", make)


def network_in(monkeypatch, change) -> list:
    """`change(network)` is called when the network to train has been built, which is given back in a list."""
    built = []

    def build(*args, **kwargs):
        run, *said = loop_build(*args, **kwargs)
        built.append(run.network)
        change(run.network)
        return run, *said

    loop_build = trainer.build
    monkeypatch.setattr(trainer, "build", build)
    return built


def test_features(corpus, tmp_path, monkeypatch):
    plant_in_features(monkeypatch, 3)
    error = problem(quietly, tiny(), tmp_path / "run", corpus)
    assert "epoch 1, step 3" in error.problem and "the features" in error.problem
    assert "learning rate 0.003" in error.problem  # 3 of 5 steps of the warm-up to 0.005
    batch = epoch_batches(18, 4, 0, 0)[2]
    clips = read_manifest(corpus).split("train")
    for index in range(18):  # the batch's files, and no other
        assert (f"{clips[index].path}"[-10:] in error.problem) == (index in batch)


def test_features_of_an_earlier_part_of_the_batch(corpus, tmp_path, monkeypatch):
    plant_in_features(monkeypatch, 1)
    assert (
        "the features"
        in problem(quietly, tiny("train.gradient_accumulation_steps=2"), tmp_path / "run", corpus).problem
    )


def test_a_weight(corpus, tmp_path, monkeypatch):
    def plant(network):
        with torch.no_grad():
            network.layers[1].mixer.out_proj.weight[0, 0] = float("nan")

    network_in(monkeypatch, plant)
    assert "the weights layers.1.mixer.out_proj.weight" in problem(quietly, tiny(), tmp_path / "run", corpus).problem


@pytest.mark.parametrize("settings", [(), ("train.activation_checkpointing=block",), ("train.dtype=bfloat16",)])
def test_a_layers_output(corpus, tmp_path, monkeypatch, settings):
    network_in(
        monkeypatch,
        lambda network: network.layers[1].register_forward_hook(
            lambda block, args, out: (out[0] * float("inf"), out[1])
        ),
    )
    assert "not finite is layers.1;" in problem(quietly, tiny(*settings), tmp_path / "run", corpus).problem


@pytest.mark.parametrize("clip_grad", [0.0, 1.0])
def test_a_gradient_only(corpus, tmp_path, monkeypatch, clip_grad):
    def plant(network):
        network.layers[0].norm.weight.register_hook(lambda grad: grad * float("nan"))

    network_in(monkeypatch, plant)
    error = problem(quietly, tiny(f"train.clip_grad={clip_grad}"), tmp_path / "run", corpus)
    assert (
        "gradients of 1 tensor" in error.problem
        and "layers.0.norm.weight" in error.problem
        and "gradient norm nan" in error.problem
    )


def test_a_gradient_too_large_to_be_squared(corpus, tmp_path, monkeypatch):
    network_in(monkeypatch, lambda network: network.head.weight.register_hook(lambda grad: torch.full_like(grad, 1e30)))
    assert "squares" in problem(quietly, tiny(), tmp_path / "run", corpus).problem


def test_in_a_team_the_process_that_knows_speaks(corpus, tmp_path, monkeypatch):
    """Only process 1 meets it, in its part of the third batch; both end with its diagnosis."""
    calls = []

    def make(*args):
        features, targets = make_batch(*args)
        calls.append(1)
        return (features * float("nan") if len(calls) == 3 and os.environ["RANK"] == "1" else features), targets

    monkeypatch.setattr(microbatches, "make_batch", make)
    ends = train_in_team(2, tiny(), tmp_path / "run", corpus)
    assert all(end.startswith("AumError") and "step 3" in end and "the features" in end for end in ends), ends


# patience


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bad_steps_within_the_patience_are_left_out_and_counted(corpus, tmp_path, monkeypatch, dtype):
    """Two in the first epoch, not in a row, one in the second: each is said, none moves a weight."""
    before, moved, said, steps = {}, [], [], []

    def diverge(*args):
        steps.append(1)
        network = built[0]
        if len(steps) - 1 in (2, 4, 8):
            moved.append(any(not torch.equal(x, before[name]) for name, x in network.named_parameters()))
        if len(steps) in (2, 4, 8):
            before.update({name: x.detach().clone() for name, x in network.named_parameters()})
            return loss_of(*args) * float("nan")
        return loss_of(*args)

    built = network_in(monkeypatch, lambda network: None)
    monkeypatch.setattr(trainer, "loss_of", diverge)
    run = quietly(
        tiny("train.max_nonfinite_steps=1", "train.epochs=2", f"train.dtype={dtype}"),
        tmp_path / "run",
        corpus,
        say=said.append,
    )
    assert [row["skipped_steps"] for row in history(run)] == ["2", "1"] and moved == [False] * 3
    assert sum("1 in a row of at most 1 (train.max_nonfinite_steps)" in text and ".wav" in text for text in said) == 3
    assert all(0.3 < float(row["train_loss"]) < 2 for row in history(run))  # a mean over the steps that have a loss
    model = load_model(run / "last")
    assert all(torch.isfinite(x).all() for x in model.network.state_dict().values())
    assert "skipped steps" in (run / "report.md").read_text()


def test_as_many_in_a_row_as_the_recipe_bears_and_one_more(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "loss_of", lambda *args: loss_of(*args) * float("nan"))
    said = []
    error = problem(quietly, tiny("train.max_nonfinite_steps=6"), tmp_path / "run", corpus, say=said.append)
    assert "epoch 2, step 2" in error.problem and error.exit_code == 1  # the seventh, of 5 steps per epoch
    assert sum("max_nonfinite_steps" in text for text in said) == 6


def test_patience_is_not_renewed_by_resuming(corpus, tmp_path, monkeypatch):
    """Saved after every step: two bad ones before the stop and one after it are three in a row."""
    monkeypatch.setattr(trainer, "loss_of", lambda *args: loss_of(*args) * float("nan"))

    def say(text):
        if "1 in a row" in text:  # noted during the first step, acted on after the second
            signal.raise_signal(signal.SIGTERM)

    recipe = tiny("train.max_nonfinite_steps=2")
    assert problem(quietly, recipe, tmp_path / "run", corpus, say=say).exit_code == 143
    assert "step 3" in problem(quietly, recipe, tmp_path / "run", resume=True).problem


def test_float16_scaling_down_is_no_failure(corpus, tmp_path, monkeypatch):
    """Gradients that overflow at the first scales: the scaler halves them and the steps are not counted as bad."""
    scales, said = [], []

    def change(network):
        network.head.weight.register_hook(
            lambda grad: grad * float("inf") if len(scales) < 3 and not scales.append(1) else grad
        )

    network_in(monkeypatch, change)
    run = quietly(tiny("train.dtype=float16", "train.epochs=2"), tmp_path / "run", corpus, say=said.append)
    assert [row["skipped_steps"] for row in history(run)] == ["0", "0"] and not any(
        "max_nonfinite_steps" in text for text in said
    )
    state = torch.load(run / "last" / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] == 65536 / 2**3
    assert state["optimizer"]["state"][0]["step"] == 10 - 3  # the overflowing steps moved nothing


def test_float16_that_overflows_at_every_scale_stops(corpus, tmp_path, monkeypatch):
    network_in(monkeypatch, lambda network: network.head.weight.register_hook(lambda grad: grad * float("inf")))
    error = problem(quietly, tiny("train.dtype=float16", "train.epochs=9"), tmp_path / "run", corpus)
    assert "epoch 4, step 2" in error.problem and "head.weight" in error.problem  # after 16 halvings of 65536


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_mixed_precision_trains_keeps_float32_and_resumes_to_the_same_bits(corpus, tmp_path, dtype):
    recipe = tiny(f"train.dtype={dtype}", "train.epochs=3", "train.lr=0.01")
    run = quietly(recipe, tmp_path / "run", corpus)
    assert float(history(run)[2]["train_loss"]) < float(history(run)[0]["train_loss"])
    state = torch.load(run / "last" / "state.pt", weights_only=True)
    assert {x.dtype for x in state["network"].values()} == {torch.float32}

    def say(text):
        if text.startswith("epoch   1/"):
            signal.raise_signal(signal.SIGINT)

    assert problem(quietly, recipe, tmp_path / "stopped", corpus, say=say).exit_code == 130
    quietly(recipe, tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "stopped", run)

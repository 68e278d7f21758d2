"""The learning rate's schedule, the optimizer's groups, averages of weights."""

import numpy as np
import pytest
import torch
from tiny import tiny
from training import history

from aumcli.config import TrainConfig
from aumcli.recipe import load_recipe
from aumcli.train.optim import learning_rate, make_optimizer

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def rates(points, **settings) -> list[float]:
    return [learning_rate(TrainConfig(lr=1.0, epochs=10, **settings), point) for point in points]


def test_warm_up_rises_in_a_line_from_zero():
    assert rates([0.0, 0.5, 1.0, 1.5, 2.0], warmup_epochs=2, schedule="constant") == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_constant():
    assert rates([0.1, 3, 9.9], warmup_epochs=0, schedule="constant") == [1, 1, 1]


def test_cosine_falls_to_zero_at_the_end():
    points = np.linspace(2, 10, 33)
    values = rates(points, warmup_epochs=2, schedule="cosine")
    assert values[0] == 1 and values[-1] == pytest.approx(0, abs=1e-12) and values[16] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)


def test_steps():
    points = [0.5, 1.99, 2.0, 2.5, 3.0, 5.99, 6.0]
    assert rates(points, warmup_epochs=0, schedule="steps") == [1, 1, 0.5, 0.5, 0.25, 0.0625, 0.03125]
    assert rates([4.9, 5, 7.9, 8], warmup_epochs=0, schedule="steps", decay_start=5, decay_every=3, decay_factor=0.1) == \
        pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 10, 25])
def test_any_warm_up_goes_with_any_schedule(schedule, warmup_epochs):
    values = rates(np.linspace(0.01, 10, 50), schedule=schedule, warmup_epochs=warmup_epochs)
    assert all(0 <= value <= 1 for value in values)


def test_the_schedule_is_what_the_optimizer_gets(reference):
    settings = load_recipe(reference / "recipe.toml").train
    assert [float(row["lr"]) for row in history(reference)] == [learning_rate(settings, epoch) for epoch in (1.0, 2.0, 3.0, 4.0)]
    state = torch.load(reference / "last" / "state.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == learning_rate(settings, 4.0)


@pytest.mark.parametrize("optimizer, spared", [("adamw", True), ("adam", False)])
def test_decay_spares_gains_and_biases_for_adamw_only(optimizer, spared):
    from aumcli.core.audio_mamba import AudioMamba

    network = AudioMamba(tiny().model)
    groups = make_optimizer(network, TrainConfig(optimizer=optimizer)).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    decayed = {id(tensor) for group in groups if group["weight_decay"] for tensor in group["params"]}
    for name, tensor in network.named_parameters():
        is_spared = spared and (tensor.ndim < 2 or "A_" in name or name in ("cls_token", "pos_embed.pos_embed"))
        assert (id(tensor) not in decayed) == is_spared, name

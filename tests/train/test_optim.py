"""The learning rate's schedule, the optimizer's groups, averages of weights."""

import math

import numpy as np
import pytest
import torch
from tiny import RECIPE, tiny
from training import history, quietly

from aumcli.classifier import load_model
from aumcli.config import AudioMambaConfig, SpectrogramTransformerConfig, TrainConfig
from aumcli.core import build_network
from aumcli.data.datasets.waveforms import stream_seed
from aumcli.data.manifest import Clip, read_manifest, write_manifest
from aumcli.recipe import load_recipe
from aumcli.train import trainer
from aumcli.train.optim import learning_rate, make_optimizer, set_learning_rate
from aumcli.train.setup import WEIGHTS_PURPOSE, build

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def rates(points, **settings) -> list[float]:
    return [learning_rate(TrainConfig(lr=1.0, epochs=10, **settings), point) for point in points]


def test_warm_up_rises_in_a_line_from_zero():
    assert rates([0.0, 0.5, 1.0, 1.5, 2.0], warmup_epochs=2, schedule="constant") == pytest.approx(
        [0, 0.25, 0.5, 0.75, 1]
    )


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
    assert rates(
        [4.9, 5, 7.9, 8], warmup_epochs=0, schedule="steps", decay_start=5, decay_every=3, decay_factor=0.1
    ) == pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 10, 25])
def test_any_warm_up_goes_with_any_schedule(schedule, warmup_epochs):
    values = rates(np.linspace(0.01, 10, 50), schedule=schedule, warmup_epochs=warmup_epochs)
    assert all(0 <= value <= 1 for value in values)


def test_the_schedule_is_what_the_optimizer_gets(reference):
    settings = load_recipe(reference / "recipe.toml").train
    assert [float(row["lr"]) for row in history(reference)] == [
        learning_rate(settings, epoch) for epoch in (1.0, 2.0, 3.0, 4.0)
    ]
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


NETWORKS = {
    "aum": AudioMambaConfig(
        width=16, depth=3, state_size=4, n_mels=32, frames=48, patch_mels=32, patch_frames=4, n_classes=3
    ),
    "ast": SpectrogramTransformerConfig(
        width=16, depth=3, heads=2, n_mels=32, frames=48, patch_mels=32, patch_frames=4, n_classes=3
    ),
}


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("name", NETWORKS)
def test_layer_decay_by_hand(name, optimizer):
    """Half per block: of depth 3, the head learns at 1, blocks at 1/2, 1/4, 1/8, what makes tokens at 1/16."""
    network = build_network(NETWORKS[name])
    made = make_optimizer(network, TrainConfig(optimizer=optimizer, layer_decay=0.5))
    set_learning_rate(made, 0.8)
    rates = {id(x): group["lr"] for group in made.param_groups for x in group["params"]}
    by_prefix = {
        "cls_token": 0.05,
        "pos_embed": 0.05,
        "dist_token": 0.05,
        "patch_embed": 0.05,
        "0": 0.1,
        "1": 0.2,
        "2": 0.4,
    }
    for full, x in network.named_parameters():
        words = full.removeprefix("v.").split(".")
        key = words[1] if words[0] in ("layers", "blocks") else words[0]
        assert rates[id(x)] == pytest.approx(by_prefix.get(key, 0.8)), full
    assert sum(rate == pytest.approx(0.8) for rate in rates.values()) >= 3  # the last norm and the head
    assert len(rates) == len(list(network.parameters()))


@pytest.mark.parametrize(
    "architecture, settings",
    [
        ("aum", ("train.activation_checkpointing=cheap",)),
        ("aum", ("train.activation_checkpointing=block",)),
        ("aum", ("train.gradient_accumulation_steps=2",)),
        ("ast", ("train.activation_checkpointing=cheap",)),
        ("ast", ("train.activation_checkpointing=block",)),
    ],
)
def test_a_frozen_backbone_stays_and_the_head_moves(corpus, tmp_path, architecture, settings):
    file, said = tmp_path / "recipe.toml", []
    text = RECIPE.read_text()
    file.write_text(
        text if architecture == "aum" else text.replace("state_size = 4\n", 'architecture = "ast"\nheads = 2\n')
    )
    recipe = load_recipe(
        file,
        [*settings, "train.freeze=backbone", "train.ema=0", "train.epochs=2", "train.weight_decay=0.1"]
        + [f"augment.{name}=0" for name in tiny().augment.active],
    )
    assert recipe.model.architecture == architecture
    one = quietly(recipe.with_values(train={"epochs": 1}), tmp_path / "one", corpus, say=said.append)
    two = quietly(recipe, tmp_path / "two", corpus)
    first, second = (load_model(run / "last").network.state_dict() for run in (one, two))
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved and moved == {name for name in first if name.startswith(("head.", "mlp_head."))}
    assert f"{sum(first[name].numel() for name in moved):,} trained" in said[0]


def step_by_step(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The trained weights after each step, as a training goes on."""
    seen = []

    def update(run, *args):
        trainer_update(run, *args)
        seen.append({name: x.detach().clone() for name, x in run.network.named_parameters()})

    trainer_update = trainer._update
    monkeypatch.setattr(trainer, "_update", update)
    return seen


def test_averaged_weights_follow_the_trained_ones(corpus, tmp_path, monkeypatch):
    """Decay 0.9, but (1 + step) / (10 + step) where that is less.

    The definition, computed again from every step's weights.
    """
    seen = step_by_step(monkeypatch)
    start = []
    monkeypatch.setattr(
        trainer,
        "build",
        lambda *args, **kwargs: (
            lambda built: (
                start.append({n: x.clone() for n, x in built[0].classifier.network.state_dict().items()}),
                built,
            )[1]
        )(build(*args, **kwargs)),
    )
    run = quietly(tiny("train.epochs=25"), tmp_path / "run", corpus)
    expected = {name: start[0][name].double() for name in seen[0]}
    for step, after in enumerate(seen):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = {name: decay * x + (1 - decay) * after[name].double() for name, x in expected.items()}
    last = load_model(run / "last").network.state_dict()
    assert len(seen) == 125
    for name, x in expected.items():
        assert torch.allclose(last[name].double(), x, atol=1e-5), name


@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_gradients_are_clipped_to_the_norm(corpus, tmp_path, monkeypatch, limit):
    norms = []

    def step(scaler, optimizer):
        norms.append(
            math.sqrt(
                sum(float(x.grad.double().square().sum()) for group in optimizer.param_groups for x in group["params"])
            )
        )
        return scaler_step(scaler, optimizer)

    scaler_step = torch.amp.GradScaler.step
    monkeypatch.setattr(torch.amp.GradScaler, "step", step)
    quietly(tiny(f"train.clip_grad={limit}", "train.epochs=2"), tmp_path / "run", corpus)
    assert len(norms) == 10
    assert max(norms) == pytest.approx(limit, rel=1e-3) if limit else min(norms) > 0.02


def test_the_run_ends_when_the_score_no_longer_rises(corpus, tmp_path, monkeypatch):
    """Scores 1 2 2 0 1, patience 3: after the fifth epoch, three after the best, the second."""
    scores = iter([0.1, 0.2, 0.2, 0.0, 0.1, 0.9, 0.9])
    monkeypatch.setattr(
        trainer, "validate", lambda run: {"val_loss": 1.0, "val_map": 0.5, "val_accuracy": next(scores)}
    )
    said = []
    run = quietly(tiny("train.epochs=7", "train.early_stopping_patience=3"), tmp_path / "run", corpus, say=said.append)
    assert len(history(run)) == 5 and any("early stopping" in text and "3 epochs" in text for text in said)
    assert load_model(run).config.provenance["epoch"] == 2
    quietly(tiny(), run, resume=True)  # which goes no further
    assert len(history(run)) == 5


def test_the_test_split_is_never_opened(corpus, tmp_path):
    """Best epoch, early stopping and report without a single file of it."""
    manifest = read_manifest(corpus)
    gone = [
        Clip(tmp_path / "gone" / f"{i}.wav", labels=clip.labels, split="test")
        for i, clip in enumerate(manifest.split("test"))
    ]
    write_manifest(tmp_path / "data", [*manifest.split("train"), *manifest.split("val"), *gone], manifest.labels, {})
    recipe = tiny("train.early_stopping_patience=1")
    run, other = quietly(recipe, tmp_path / "run", tmp_path / "data"), quietly(recipe, tmp_path / "other", corpus)
    assert history(run) == history(other) and len(gone) == 6


def test_a_rate_that_rises_by_steps_and_decays_by_layers_reaches_the_weights(corpus, tmp_path):
    """Adam's first step moves every weight that has a gradient by its learning rate: seen on the weights themselves."""
    recipe = tiny(
        "train.optimizer=adam",
        "train.weight_decay=0",
        "train.layer_decay=0.5",
        "train.warmup_steps=10",
        "train.ema=0",
        "train.epochs=1",
        "train.batch_size=18",
        "train.clip_grad=0",
        "model.drop_path=0",
    )
    run = quietly(recipe, tmp_path / "run", corpus)
    torch.manual_seed(stream_seed(0, WEIGHTS_PURPOSE))
    fresh = build_network(load_recipe(run / "recipe.toml").model).state_dict()
    after = load_model(run / "last").network.state_dict()
    for name, share in {
        "head.weight": 1,
        "layers.1.mixer.in_proj.weight": 0.5,
        "layers.0.mixer.in_proj.weight": 0.25,
        "patch_embed.proj.weight": 0.125,
    }.items():
        moved = (after[name] - fresh[name]).abs().flatten().median()
        assert float(moved) == pytest.approx(0.005 / 10 * share, rel=0.01), name


def test_a_warm_up_in_steps_counts_instead_of_one_in_epochs():
    settings = TrainConfig(lr=1.0, epochs=10, warmup_steps=30, warmup_epochs=7, schedule="constant")
    assert [learning_rate(settings, epochs, 20) for epochs in (0.05, 0.75, 1.5, 2, 9)] == pytest.approx(
        [1 / 30, 0.5, 1, 1, 1]
    )

"""Blocks that compute again what they didn't keep: the same gradients from less memory."""

import pytest
import torch

from aumcli.config import AudioMambaConfig, Direction, SpectrogramTransformerConfig
from aumcli.core import build_network
from aumcli.core.audio_mamba import AudioMamba

SMALL = {"width": 64, "depth": 3, "n_mels": 32, "frames": 64, "n_classes": 5}


def gradients(
    model, features, backend="auto", activation_checkpointing="cheap", autocast=False
) -> dict[str, torch.Tensor]:
    model.activation_checkpointing = activation_checkpointing
    for block in model.layers:
        block.norm.backend = block.mixer.backend = backend
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(features).square().sum()
    loss.backward()
    return {name: x.grad.clone() for name, x in model.named_parameters()}


def error(ours, theirs) -> float:
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm()) for name in theirs)


def kept_bytes(model, features) -> int:
    """What autograd keeps of a forward pass, without the weights."""
    weights = {x.untyped_storage().data_ptr() for x in model.parameters()}
    kept: dict[int, int] = {}

    def keep(x):
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = model(features).sum()
    total = sum(kept.values())
    loss.backward()
    return total


@pytest.fixture(params=list(Direction))
def model(request) -> AudioMamba:
    torch.manual_seed(0)
    return AudioMamba(AudioMambaConfig(**SMALL, direction=request.param, published_gate_gradient=False)).train()


@pytest.mark.parametrize("activation_checkpointing", ["cheap", "block"])
def test_gradients_are_those_of_plain_autograd(model, activation_checkpointing, needs_cpu):
    features = torch.randn(2, 64, 32)
    ours = gradients(model, features, activation_checkpointing=activation_checkpointing)
    assert error(ours, gradients(model, features, "torch")) < 5e-6


def test_gradients_with_the_published_gate(needs_cpu):
    torch.manual_seed(0)
    model, features = AudioMamba(AudioMambaConfig(**SMALL, published_gate_gradient=True)), torch.randn(2, 64, 32)
    assert error(gradients(model, features), gradients(model, features, "torch")) < 5e-6


def test_other_backends_recompute_blocks_too(model):
    features = torch.randn(2, 64, 32)
    plain, again = (gradients(model, features, "torch", kept) for kept in ("cheap", "block"))
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_autocast_is_as_near_as_that_of_plain_autograd(model, needs_cpu):
    features = torch.randn(2, 64, 32)
    exact = gradients(model, features, "torch")
    ours, theirs = (error(gradients(model, features, backend, autocast=True), exact) for backend in ("cpu", "torch"))
    assert ours < 1.5 * theirs < 0.06  # bfloat16 has 8 bits: 2^-9 for each of a dozen roundings
    cheap, block = (
        gradients(model, features, activation_checkpointing=activation_checkpointing, autocast=True)
        for activation_checkpointing in ("cheap", "block")
    )
    assert all(torch.equal(cheap[name], block[name]) for name in cheap)


def test_only_stream_and_projection_are_kept(needs_cpu):
    width, tokens = 192, 65
    model = AudioMamba(AudioMambaConfig(size="tiny", depth=8, n_mels=128, frames=128)).train()
    features = torch.randn(1, 128, 128)
    for kept, each in (("cheap", 5 * width), ("block", width)):  # stream, and inputs and gates of two widths each
        model.activation_checkpointing = kept
        least = 4 * tokens * each * 8
        assert least <= kept_bytes(model, features) < least + 4 * tokens * (4 * width + 256)  # patches, last norm, head


def test_far_less_is_kept_than_a_transformer_keeps(needs_cpu):
    features = torch.randn(1, 128, 128)
    models = [
        build_network(kind(size="tiny", frames=128)).train()
        for kind in (AudioMambaConfig, SpectrogramTransformerConfig)
    ]
    aum, ast = (kept_bytes(model, features) for model in models)
    assert aum / ast < 0.65
    models[0].activation_checkpointing = "block"
    assert kept_bytes(models[0], features) / ast < 0.2


def test_transformer_recomputes_blocks():
    torch.manual_seed(0)
    model, features = (
        build_network(SpectrogramTransformerConfig(size="nano", n_mels=32, frames=64)),
        torch.randn(2, 64, 32),
    )
    grads = []
    for activation_checkpointing in ("cheap", "block"):
        model.activation_checkpointing = activation_checkpointing
        model.zero_grad()
        model(features).square().sum().backward()
        grads.append([x.grad.clone() for x in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads))
    least = kept_bytes(model, features)
    model.activation_checkpointing = "cheap"
    assert least < kept_bytes(model, features) / 3


def test_gradients_are_the_same_bits_for_any_number_of_threads(threads, needs_cpu):
    generator, again = torch.Generator().manual_seed(1), []
    u, delta, z = (torch.randn(2, 513, 96, generator=generator) for _ in range(3))
    B, C = (torch.randn(2, 513, 16, generator=generator) for _ in range(2))
    A = -torch.rand(96, 16, generator=generator)
    for count in (1, 2, 3):
        threads(count)
        again.append(
            torch.ops.aumcli.scan_backward(
                z, u, delta, A, A, B, C, A[:, 0].contiguous(), z, A[:, 1].contiguous(), True, False, False
            )
        )
    for other in again[1:]:
        assert all(torch.equal(a, b) for a, b in zip(again[0], other))

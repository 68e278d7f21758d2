"""The model against the published one: outputs, gradients, names, initial values, stochastic depth."""

import math
import re

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from aumcli.config import AudioMambaConfig, ClsPosition, Direction
from aumcli.core.audio_mamba import AudioMamba
from aumcli.core.kernels import add_rms_norm

VARIANTS = [
    "Fo-Fo_head",
    "Fo-Fo_mid",
    "Fo-Bi_head",
    "Fo-Bi_mid",
    "Bi-Bi_mid",
    "Bi-Bi_end",
    "Fo-Bi_mid_128x256",
    "Fo-Bi_mid_module_prefix",
]
TOLERANCE = (
    1e-4  # over the largest value: float32 beside float64; a sequential float32 run is 8e-6 off (golden/README.md)
)
SMALL = dict(width=16, depth=3, n_mels=32, frames=32, n_classes=3)  # 4 patches


def _worst(got, want) -> float:
    """Largest difference over the largest value."""
    want = torch.as_tensor(want)
    worst, largest = (got.detach() - want).abs().max(), want.abs().max()
    return float(worst / largest if largest else worst)


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_are_the_published_ones(golden_model, backend, name):
    model, recorded = golden_model(name, backend)
    with torch.no_grad():
        features = model.forward_features(torch.from_numpy(recorded["input"]))
        logits = model(torch.from_numpy(recorded["input"]))
    assert _worst(features, recorded["features"]) <= TOLERANCE
    assert _worst(logits, recorded["logits"]) <= TOLERANCE


@pytest.mark.parametrize("name", ["Fo-Fo_mid", "Fo-Bi_mid", "Bi-Bi_end"])
def test_outputs_in_float64(golden_model, name):
    model, recorded = golden_model(name)
    with torch.no_grad():
        logits = model.double()(torch.from_numpy(recorded["input"]).double())
    assert _worst(logits, recorded["logits"]) <= 1e-6  # recorded as float32


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_have_the_published_names_and_shapes(golden, golden_model, name):
    model, _ = golden_model(name)  # loads strictly
    published = torch.load(golden / "aum" / f"{name}.pth", weights_only=True)
    published = {k.removeprefix("module."): x.shape for k, x in published.items()}
    assert {k: x.shape for k, x in model.state_dict().items()} == published
    assert {k for k, _ in model.named_parameters()} == published.keys()


def _backward(model: AudioMamba, recorded: dict, targets) -> tuple[float, dict]:
    logits = model(torch.from_numpy(recorded["input"]).to(next(model.parameters()).dtype))
    loss = F.cross_entropy(logits, torch.as_tensor(np.array(targets)).long())
    loss.backward()
    return loss.item(), {k: p.grad for k, p in model.named_parameters()}


@pytest.fixture
def recorded_gradients(golden):
    def read(name: str) -> dict:
        with np.load(golden / "gradients" / f"{name}.npz", allow_pickle=False) as arrays:
            return {k: arrays[k] for k in arrays.files}

    return read


@pytest.mark.parametrize("name", ["Fo-Fo_mid", "Fo-Bi_mid"])
def test_gradients_are_the_true_ones(golden_model, recorded_gradients, backend, name):
    want = recorded_gradients(f"{name}_grads")
    model, recorded = golden_model(name, backend)
    loss, grads = _backward(model, recorded, want["targets"])
    assert loss == pytest.approx(float(want["loss"]), rel=1e-5)
    assert grads.keys() == want.keys() - {"loss", "targets"}
    errors = {k: _worst(g, want[k]) for k, g in grads.items()}
    assert all(e <= 1e-4 for e in errors.values()), errors  # golden/README.md: float32 code, measured 3e-6


def test_gradients_in_float64(golden_model, recorded_gradients):
    want = recorded_gradients("Fo-Bi_mid_grads")
    model, recorded = golden_model("Fo-Bi_mid", "torch")
    _, grads = _backward(model.double(), recorded, want["targets"])
    assert max(_worst(g, want[k]) for k, g in grads.items()) <= 1e-5  # stored with 16 mantissa bits


def _distance(a, b) -> float:
    a, b = (torch.as_tensor(x).double() for x in (a, b))
    return float((a - b).norm() / b.norm())


def test_the_published_backward_can_be_had(golden_model, recorded_gradients, backend):
    want, targets = (
        recorded_gradients("Fo-Bi_mid_grads_published_backward"),
        recorded_gradients("Fo-Bi_mid_grads")["targets"],
    )
    model, recorded = golden_model("Fo-Bi_mid", backend, published_gate_gradient=True)
    loss, grads = _backward(model, recorded, targets)
    assert loss == pytest.approx(float(want["loss"]), rel=1e-5)  # the forward pass is the same
    stored = [k for k in grads if k in want]
    assert len(stored) > 20 and "layers.2.mixer.in_proj.weight" in stored
    errors = {k: _worst(grads[k], want[k]) for k in stored}
    assert all(e <= 1e-4 for e in errors.values()), errors
    for name, grad in grads.items():  # the large arrays: by their norms alone
        assert float(grad.double().norm()) == pytest.approx(float(want[f"norm/{name}"]), rel=1e-4, abs=1e-12)


def test_the_true_gradient_is_another_than_the_published_one(golden_model, recorded_gradients, backend):
    # semantics 1: the last block's in_proj and norm and everything before them are off by 14 to 101 %
    want, targets = (
        recorded_gradients("Fo-Bi_mid_grads_published_backward"),
        recorded_gradients("Fo-Bi_mid_grads")["targets"],
    )
    true, published = (
        {k: g.clone() for k, g in _backward(model, recorded, targets)[1].items()}
        for model, recorded in (
            golden_model("Fo-Bi_mid", backend, published_gate_gradient=flag) for flag in (False, True)
        )
    )
    last = {k for k in true if k.startswith(("layers.2.mixer.", "norm_f.", "head.")) and "in_proj" not in k}
    for name in true:
        distance = _distance(published[name], true[name])
        assert distance == pytest.approx(float(want[f"reldiff/{name}"]), abs=1e-4)
        assert distance < 1e-5 if name in last else 0.135 < distance < 1.015, name


BIG = dict(width=64, depth=6, n_mels=64, frames=64, n_classes=50)  # enough draws for statistics: e = 128, dt_rank = 4


@pytest.fixture(scope="module", params=Direction, ids=str)
def fresh(request) -> AudioMamba:
    torch.manual_seed(0)
    return AudioMamba(AudioMambaConfig(**BIG, direction=request.param))


def _published_values(name: str, config: AudioMambaConfig):
    """What a parameter starts from (semantics 22 to 25): a distribution, or the values themselves."""

    def uniform(bound: float):
        return scipy.stats.uniform(-bound, 2 * bound)

    kind = name.split(".", 2)[2] if name.startswith("layers.") else name
    if kind in ("cls_token", "pos_embed.pos_embed", "head.weight"):
        return scipy.stats.norm(0, 0.02)
    if kind == "patch_embed.proj.weight":
        # timm 0.4.12: LeCun's normal, widened for a cut at two deviations that never comes
        inputs = config.patch_mels * config.patch_frames
        return scipy.stats.norm(0, inputs**-0.5 / scipy.stats.truncnorm(-2, 2).std())
    constants = {
        "head.bias": 0.0,
        "patch_embed.proj.bias": 0.0,
        "norm.weight": 1.0,
        "norm_f.weight": 1.0,
        "mixer.D": 1.0,
        "mixer.D_b": 1.0,
        "mixer.dt_proj_b.bias": 0.0,
    }  # the last: semantics 23
    if kind in constants:
        return torch.tensor(constants[kind])
    if kind in ("mixer.A_log", "mixer.A_b_log"):
        return torch.log(torch.arange(1.0, config.state_size + 1))
    if kind == "mixer.dt_proj.bias":  # of the logarithm of its softplus
        return scipy.stats.uniform(math.log(1e-3), math.log(100))
    width, inner = config.width, config.inner_width
    # 24: PyTorch's, but for out_proj and dt_proj
    bounds = {
        "in_proj.weight": width**-0.5,
        "out_proj.weight": inner**-0.5 / math.sqrt(config.depth),
        "x_proj.weight": inner**-0.5,
        "dt_proj.weight": config.dt_rank**-0.5,
        "conv1d.weight": 0.5,
        "conv1d.bias": 0.5,
    }
    return uniform(bounds[kind.removeprefix("mixer.").replace("_b.", ".")])


def _by_kind(model: AudioMamba) -> dict[str, list[torch.Tensor]]:
    """Parameters by name, those of all blocks together under the first one's."""
    kinds: dict[str, list[torch.Tensor]] = {}
    for name, x in model.named_parameters():
        kinds.setdefault(re.sub(r"^layers\.\d+", "layers.0", name), []).append(x.detach())
    return kinds


def test_every_parameter_starts_from_the_published_values(fresh, follows):
    kinds = _by_kind(fresh)
    branches = {"Bi-Bi": 2}.get(fresh.config.direction, 1)
    assert sum(name.startswith("layers.0.") for name in kinds) == 3 + 7 * branches + (fresh.config.direction == "Fo-Bi")
    for name, tensors in kinds.items():
        assert len(tensors) == (BIG["depth"] if name.startswith("layers.") else 1)
        want = _published_values(name, fresh.config)
        if isinstance(want, torch.Tensor):
            for x in tensors:
                torch.testing.assert_close(x, want.expand_as(x), rtol=1e-6, atol=0)
            continue
        assert len({x.flatten()[0].item() for x in tensors}) == len(tensors), name  # each block has draws of its own
        x = torch.cat([x.flatten() for x in tensors]).double()
        follows(F.softplus(x).log() if name.endswith("dt_proj.bias") else x, want, name)


def test_the_patch_embedding_is_wider_than_lecun_meant(follows):
    """0.0711 for 256 inputs, as published: neither the 1 / sqrt(256) that was meant nor a cut at two deviations."""
    torch.manual_seed(0)
    values = AudioMamba(AudioMambaConfig(**SMALL | {"width": 768})).patch_embed.proj.weight
    std = 0.0625 / 0.87962566103423978
    follows(values, scipy.stats.norm(0, std))
    assert std == pytest.approx(0.0711, abs=5e-5)
    assert (values.abs() > 2 * std).float().mean() == pytest.approx(0.0455, abs=0.003)  # six standard errors
    for other in (scipy.stats.norm(0, 0.0625), scipy.stats.truncnorm(-2, 2, scale=std)):
        with pytest.raises(AssertionError):
            follows(values, other)


def test_equal_seeds_give_equal_weights():
    def draw():
        torch.manual_seed(3)
        return AudioMamba(AudioMambaConfig(**SMALL)).state_dict()

    first, second = draw(), draw()
    assert all(torch.equal(first[k], second[k]) for k in first)


def test_without_drop_path_training_is_evaluation():
    model, features = AudioMamba(AudioMambaConfig(**SMALL)), torch.randn(4, 32, 32)
    assert torch.equal(model.train()(features), model.eval()(features))
    dropping = AudioMamba(AudioMambaConfig(**SMALL, drop_path=0.5))
    assert torch.equal(dropping.eval()(features), dropping(features))


def test_drop_path_is_shifted_by_one():
    # semantics 10: linspace(0, p, depth); block i drops its input, block i - 1's output, at rate max(i - 1, 0); p is
    # for the last output. Seen from outside: what goes in over what came out is 0 or 1 / (1 - rate) for each clip.
    torch.manual_seed(0)
    clips, p = 600, 0.5
    model = AudioMamba(AudioMambaConfig(**SMALL, drop_path=p, cls_position="end")).train()
    entered, left = [], []
    for block in model.layers:
        block.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
        block.register_forward_hook(lambda module, args, output: left.append(output[0]))
    model.norm_f.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    with torch.no_grad():
        model(torch.randn(clips, 32, 32))
    for before, after, rate in zip(left, entered[1:], (0.0, p / 2, p), strict=True):
        before = before[:, -after.shape[1] :]
        factor = (after * before).sum((1, 2)) / before.square().sum((1, 2))  # (b)
        kept = factor > 0
        assert torch.allclose(factor, kept / (1 - rate), atol=1e-4)
        assert float((~kept).float().mean()) == pytest.approx(rate, abs=0.08)  # four standard deviations of 600 draws


@pytest.mark.parametrize(
    "shape", [(2, 128, 64), (2, 135, 128), (2, 112, 128), (2, 1, 64, 128), (64, 128), (2, 64, 127)]
)
def test_another_input_shape_is_refused(shape):
    model = AudioMamba(AudioMambaConfig(**SMALL | {"n_mels": 128, "frames": 64}))
    with pytest.raises(ValueError, match="64 frames, 128 mels"):
        model(torch.zeros(shape))


def test_a_causal_model_hears_only_what_comes_before_its_token():
    # semantics 13: tokens are frequency-major, so Fo-Fo with a middle token hears the lower half of the spectrum
    torch.manual_seed(0)
    features = torch.randn(2, 32, 32)
    low, high = features.clone(), features.clone()
    low[..., :16] += 1.0
    high[..., 16:] += 1.0

    def changes(direction: str, position: str) -> tuple[bool, bool]:
        model = AudioMamba(AudioMambaConfig(**SMALL, direction=direction, cls_position=position)).eval()
        with torch.no_grad():
            want = model(features)
            return tuple(not torch.allclose(model(x), want, rtol=0, atol=1e-7) for x in (low, high))

    assert changes("Fo-Fo", "head") == (False, False)  # the input is ignored
    assert changes("Fo-Fo", "mid") == (True, False)
    assert changes("Fo-Fo", "end") == (True, True)
    for direction in ("Fo-Bi", "Bi-Bi"):
        assert changes(direction, "head") == changes(direction, "mid") == changes(direction, "end") == (True, True)


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("position", ClsPosition)
def test_backends_agree(backend, direction, position, error):
    torch.manual_seed(0)
    config = AudioMambaConfig(**SMALL, direction=direction, cls_position=position)
    truth, model = AudioMamba(config, "reference").double(), AudioMamba(config, backend)
    truth.load_state_dict(model.state_dict())
    features = torch.randn(3, 32, 32)
    want, got = truth(features.double()), model(features)
    assert error(got, want) < 1e-5  # three blocks of float32
    want.square().sum().backward()
    got.square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), truth.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            # a head token's model never uses some branches' gradients: they are zero in both
            assert float((p.grad - q.grad).norm()) <= 5e-5 * float(q.grad.norm()) + 1e-9, name


def test_an_unknown_backend_is_named_on_the_first_call():
    from aumcli.errors import AumError

    with pytest.raises(AumError, match="backend 'fast'"):
        AudioMamba(AudioMambaConfig(**SMALL), "fast")(torch.zeros(1, 32, 32))


def test_half_precision_follows_full_precision(backend):
    # semantics 11: under autocast the stream and the recurrence stay float32; 2 % is a few bfloat16 roundings of 2^-9
    torch.manual_seed(0)
    model, features = AudioMamba(AudioMambaConfig(**SMALL), backend).eval(), torch.randn(4, 32, 32)
    with torch.no_grad():
        want = model.forward_features(features)
        with torch.autocast("cpu", torch.bfloat16):
            got = model.forward_features(features)
        whole = model.bfloat16().forward_features(features.bfloat16())
    assert got.isfinite().all() and whole.dtype == torch.bfloat16
    assert _distance(got, want) < 0.02 and _distance(whole, want) < 0.03  # the latter with rounded weights


def test_rms_norm_has_its_epsilon_inside_the_root(backend):
    x = torch.full((1, 1, 4), 1e-3)
    out, _ = add_rms_norm(x, None, torch.ones(4), 1e-5, backend=backend)
    torch.testing.assert_close(out, x / math.sqrt(1e-6 + 1e-5))

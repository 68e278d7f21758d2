"""Helpers that several tests of the core share, as fixtures: drawn inputs, gradients by name, golden models."""

import json

import numpy as np
import pytest
import scipy.stats
import torch

from aumcli.config import AudioMambaConfig
from aumcli.core.audio_mamba import AudioMamba
from aumcli.core.kernels import available_backends

SCAN_TENSORS = ("u", "delta", "A", "A_b", "B", "C", "D", "z", "delta_bias")


# with TRITON_INTERPRET=1 (see test_triton.py) the Triton kernels run on the CPU, in place of those in C
OPERATORS = "cpu" if available_backends()["triton"] else "triton"


@pytest.fixture(params=["torch", OPERATORS])
def backend(request) -> str:
    """Each backend that is tested against the reference; skipped with its own reason where it can't run."""
    if reason := available_backends()[request.param]:
        pytest.skip(f"{request.param}: {reason}")
    return request.param


@pytest.fixture
def needs_cpu():
    """Skip a test of the C kernels where they can't run."""
    if reason := available_backends()["cpu"]:
        pytest.skip(reason)


@pytest.fixture
def threads():
    """Set torch's number of threads; it is put back after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def draw_scan():
    """Draw the scan's inputs as the model makes them: chunks and splits of wider tensors, so rows are strided."""

    def draw(b: int, l: int, e: int, n: int, dtype=torch.float32, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64).float().to(dtype)

        u, z = normal(b, l, 2 * e).chunk(2, dim=-1)  # (b, l, e) each, row stride 2e
        _, B, C = normal(b, l, 3 + 2 * n).split([3, n, n], dim=-1)  # (b, l, n) each, row stride 3 + 2n
        delta = (normal(b, 2 * l, e) - 2.0)[:, ::2]  # (b, l, e), row stride 2e; steps of 0.02 to 2
        wide = torch.float64 if dtype == torch.float64 else torch.float32  # the model keeps these in float32
        rates = torch.arange(1.0, n + 1, dtype=torch.float64).float().to(wide)
        A, A_b = (-rates * torch.exp(0.3 * normal(e, n).to(wide)) for _ in range(2))
        D, delta_bias = normal(e).to(wide), normal(e).to(wide)
        return {name: value for name, value in locals().items() if name in SCAN_TENSORS}

    return draw


@pytest.fixture(scope="session")
def gradients():
    """Run a function of named tensors and return its outputs and every input's gradient, by name."""

    def run(function, tensors: dict, seed: int = 1) -> tuple[tuple[torch.Tensor, ...], dict]:
        leaves = {k: x if x is None else x.detach().requires_grad_() for k, x in tensors.items()}  # strides are kept
        outputs = function(**leaves)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        generator = torch.Generator().manual_seed(seed)
        # the cotangents are bfloat16 values, so that they are the same in every type
        cotangents = [torch.randn(x.shape, generator=generator).bfloat16().to(x.dtype) for x in outputs]
        named = {k: x for k, x in leaves.items() if x is not None}
        grads = torch.autograd.grad(outputs, list(named.values()), cotangents)
        return tuple(x.detach() for x in outputs), dict(zip(named, grads))

    return run


@pytest.fixture(scope="session")
def error():
    """The distance from a result to the truth over the truth's norm, in float64 (0 / 0 counts as 0)."""

    def relative(got: torch.Tensor, truth: torch.Tensor) -> float:
        assert got.shape == truth.shape
        distance, size = (got.detach().double() - truth.detach().double()).norm(), truth.detach().double().norm()
        return float(distance / size if size else distance)

    return relative


@pytest.fixture(scope="session")
def follows():
    """Assert that values were drawn from a distribution of scipy's: bounds, mean, spread and the whole shape."""

    def check(x: torch.Tensor, distribution, what: str = "") -> None:
        x = x.detach().flatten().double().numpy()
        mean, variance, excess = distribution.stats("mvk")
        low, high = distribution.support()
        assert np.nextafter(np.float32(low), np.float32(-np.inf)) <= x.min(), what
        assert x.max() <= np.nextafter(np.float32(high), np.float32(np.inf)), what
        # five standard errors, met by 1 draw in 2e6; that of a deviation follows from the distribution's fourth moment
        assert abs(x.mean() - mean) <= 5 * np.sqrt(variance / len(x)), what
        assert abs(x.std() / np.sqrt(variance) - 1) <= 5 * np.sqrt((excess + 2) / 4 / len(x)), what
        # Kolmogorov and Smirnov's distance, beyond which lies 1 draw in 1e6
        assert scipy.stats.kstest(x, distribution.cdf).statistic <= np.sqrt(-np.log(5e-7) / 2 / len(x)), what
        # normal and cut nowhere: of 8000 values one lies beyond three deviations but in 4 draws of 1e10
        assert np.isfinite(high) or len(x) < 8000 or abs(x - mean).max() > 3 * np.sqrt(variance), what

    return check


@pytest.fixture(scope="session")
def golden_model(golden):
    """Build a model from golden/aum with the authors' weights; returns it and the recorded arrays."""

    def build(name: str, backend: str = "auto", **changes) -> tuple[AudioMamba, dict]:
        with np.load(golden / "aum" / f"{name}.npz", allow_pickle=False) as arrays:
            recorded = {k: arrays[k] for k in arrays.files}
        c = json.loads(str(recorded["config"]))
        config = dict(
            width=c["embed_dim"],
            depth=c["depth"],
            direction=c["variant"],
            cls_position=c["cls"],
            n_classes=c["num_classes"],
            n_mels=c["mel_bins"],
            frames=c["frames"],
            patch_mels=c["patch"],
            patch_frames=c["patch"],
            state_size=c["d_state"],
            conv_kernel=c["d_conv"],
            expand=c["expand"],
            norm_eps=c["norm_eps"],
        )
        weights = torch.load(golden / "aum" / f"{name}.pth", weights_only=True)
        weights = {k.removeprefix("module."): x for k, x in weights.items()}
        model = AudioMamba(AudioMambaConfig(**config | changes), backend)
        model.load_state_dict(weights)  # strict: the parameters' names are the published ones
        return model.eval(), recorded

    return build

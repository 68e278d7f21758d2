"""benchmarks/kernel_backends.py: each backend is compared with the reference, and one that can't run is named."""

import kernel_backends
import pytest
from kernel_backends import KernelConfig, measure_kernels, table_rows, timed_kernel

from aumcli.bench import BenchConfig, Sweep
from aumcli.core.kernels import available_backends
from aumcli.errors import AumError

INPUTS = {"u", "delta", "A", "A_b", "B", "C", "D", "z", "delta_bias", "x", "weight", "bias", "residual"}


def test_backends_are_compared_with_the_reference_and_refusals_named(monkeypatch, run_interleaved_here):
    monkeypatch.setattr(kernel_backends, "run_interleaved", run_interleaved_here)
    kernels = list(measure_kernels(Sweep(["ast-nano", "aum-nano"], 8, 8)))
    assert [each[0].config.kernel for each in kernels] == list(kernel_backends.KERNELS)
    for measurements in kernels:
        by_backend = {each.config.backend: each for each in measurements}
        assert set(by_backend) == set(available_backends()) and "GPU" in by_backend["triton"].failure
        for name in ("reference", "torch"):
            found = by_backend[name]
            assert found.median_ms("forward") > 0 and found.median_ms("backward") > 0
            assert 0 < max(found.differences.values()) < 1e-5 and found.worst_gradient in INPUTS
        assert {len(row) for row in table_rows(measurements)} == {len(kernel_backends.COLUMNS)}
    with pytest.raises(AumError, match="AuM"):
        next(measure_kernels(Sweep(["ast-nano"], 8, 8)))


def test_a_wrong_kernel_shows_as_a_difference(monkeypatch):
    right = kernel_backends.implementations.causal_conv1d
    monkeypatch.setattr(
        kernel_backends.implementations,
        "causal_conv1d",
        lambda *x, backend: right(*x, backend=backend) * (1.01 if backend == "torch" else 1.0),
    )
    config = BenchConfig("aum-nano", 8, "inference", "float32", "cpu", 1, 1)
    _, facts = next(timed_kernel(KernelConfig("causal convolution", "torch", config)))
    assert facts["differences"]["forward"] == pytest.approx(0.01, rel=0.01)

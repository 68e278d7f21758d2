"""The scan against numbers recorded from the published code (golden/scan)."""

import numpy as np
import pytest
import torch

from aumcli.core.kernels import available_backends, bidirectional_scan, selective_scan

# over the largest absolute value, as golden/README.md allows: float64 code 1e-6 (the numbers are stored as float32),
# float32 code 1e-5; gradients of the long case, stored with 16 mantissa bits: 1e-4 and 1e-5
FILES = ["large_delta", "l1", "b1_d40_l513", "bf16_inputs"]
LONG = "b1_d40_l513"


@pytest.fixture(params=["torch", "cpu", "reference-float64", "torch-float64"])
def case(request) -> tuple[str, torch.dtype]:
    backend, _, wide = request.param.partition("-")
    if reason := available_backends()[backend]:
        pytest.skip(reason)
    return backend, torch.float64 if wide else torch.float32


@pytest.fixture(params=FILES)
def recorded(request, golden) -> tuple[str, dict]:
    """A file's arrays, sequences turned from (b, e, l) to (b, l, e)."""
    with np.load(golden / "scan" / f"{request.param}.npz", allow_pickle=False) as arrays:
        tensors = {k: torch.from_numpy(arrays[k]) for k in arrays.files if arrays[k].dtype.kind == "f"}
    return request.param, {
        k: x.transpose(1, 2) if x.ndim == 3 and not k.startswith("last_") else x for k, x in tensors.items()
    }


def _worst(got: torch.Tensor, want: torch.Tensor) -> float:
    worst, largest = (got.detach() - want).abs().max(), want.abs().max()
    return float(worst / largest if largest else worst)  # one token has no past: its gradient for A is exactly zero


def _inputs(recorded: dict, dtype: torch.dtype) -> dict:
    names = ("u", "delta", "A", "A_b", "B", "C", "D", "z", "delta_bias")
    return {k: recorded[k].to(dtype).detach().requires_grad_() for k in names}


def _check_gradients(y, inputs: dict, recorded: dict, prefix: str, tolerance: float) -> None:
    grads = torch.autograd.grad(y, list(inputs.values()), recorded["cotangent"].to(y.dtype))
    known = [k for k in inputs if f"{prefix}_{k}" in recorded]
    assert known, "the file holds no gradients under these names"
    errors = {k: _worst(g, recorded[f"{prefix}_{k}"]) for k, g in zip(inputs, grads) if k in known}
    assert all(e <= tolerance for e in errors.values()), errors


def test_each_direction(case, recorded):
    (backend, dtype), (_, arrays) = case, recorded
    tolerance = 1e-6 if dtype == torch.float64 else 1e-5
    inputs = _inputs(arrays, dtype)
    A_b = inputs.pop("A_b")
    has_gradients = any(k.startswith("gradfwd_") for k in arrays)
    with torch.set_grad_enabled(has_gradients):
        forward = selective_scan(**inputs, backend=backend)
    if has_gradients:
        _check_gradients(forward, inputs, arrays, "gradfwd", tolerance)
    inputs = {k: x.detach() for k, x in inputs.items()}
    assert _worst(forward, arrays["out_fwd"]) <= tolerance
    assert (
        _worst(selective_scan(**inputs | {"A": A_b.detach()}, reverse=True, backend=backend), arrays["out_bwd"])
        <= tolerance
    )
    if "state_fwd" in arrays:
        bare = {k: x for k, x in inputs.items() if k not in ("D", "z")}
        assert _worst(selective_scan(**bare, backend=backend), arrays["state_fwd"]) <= tolerance
        assert (
            _worst(selective_scan(**bare | {"A": A_b.detach()}, reverse=True, backend=backend), arrays["state_bwd"])
            <= tolerance
        )


def test_both_directions(case, recorded):
    (backend, dtype), (name, arrays) = case, recorded
    if backend == "reference" and name == LONG:
        return  # plain loops take seconds for its gradients, and every backend is held to these numbers by itself
    wide = dtype == torch.float64
    inputs = _inputs(arrays, dtype)
    both = bidirectional_scan(**inputs, backend=backend)
    assert _worst(both, arrays["out_fwd"] + arrays["out_bwd"]) <= (1e-6 if wide else 1e-5)
    # 16 mantissa bits hold a value to 8e-6
    gradient = {True: 1e-5 if name == LONG else 1e-6, False: 1e-4 if name == LONG else 1e-5}[wide]
    _check_gradients(both, inputs, arrays, "grad", gradient)


@pytest.mark.parametrize("direction", ["fwd", "bwd"])
def test_bfloat16_results_are_rounded_once(backend, golden, direction):
    with np.load(golden / "scan" / "bf16_inputs.npz", allow_pickle=False) as arrays:
        tensors = {k: torch.from_numpy(arrays[k]) for k in arrays.files if arrays[k].dtype.kind == "f"}
    sequences = {k: tensors[k].transpose(1, 2).bfloat16() for k in ("u", "delta", "B", "C", "z")}
    A = tensors["A" if direction == "fwd" else "A_b"]
    y = selective_scan(
        **sequences, A=A, D=tensors["D"], delta_bias=tensors["delta_bias"], reverse=direction == "bwd", backend=backend
    )
    want = tensors[f"out_{direction}_bf16"].transpose(1, 2)
    assert y.dtype == torch.bfloat16
    # 2^-8: values within float32's rounding of a tie may be rounded to the other neighbour
    torch.testing.assert_close(y.float(), want, rtol=2**-7 * 1.001, atol=1e-6)
    assert (y.float() == want).float().mean() > 0.99

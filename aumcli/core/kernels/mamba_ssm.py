"""Adapter to the optional CUDA packages mamba-ssm and causal-conv1d, whose kernels want (b, e, l) and run forward only."""

import functools
import importlib.util

import torch
from torch import Tensor

from aumcli.core.kernels import torch_ops


@functools.cache
def why_not() -> str:
    """Why the packages can't run here; empty where they can."""
    missing = [name for name in ("mamba_ssm", "causal_conv1d") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(name.replace('_', '-') for name in missing)} not installed; they need nvcc: pip install 'aumcli[cuda]'"
    return ""


def _turned(x: Tensor | None, reverse: bool) -> Tensor | None:
    """(b, l, .) to the packages' (b, ., l), in the order of the scan."""
    return None if x is None else (x.flip(1) if reverse else x).transpose(1, 2).contiguous()


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    delta_bias: Tensor | None, delta_softplus: bool, reverse: bool,
) -> Tensor:
    """See `aumcli.core.kernels.selective_scan`; the reversed direction flips every operand and the result."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, B, C, z = (_turned(x, reverse) for x in (u, delta, B, C, z))
    y = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus).transpose(1, 2)
    return y.flip(1) if reverse else y


def bidirectional_scan(
    u: Tensor, delta: Tensor, A: Tensor, A_b: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor,
    delta_bias: Tensor, published_gate_gradient: bool,
) -> Tensor:
    """See `aumcli.core.kernels.bidirectional_scan`: two causal scans."""
    z_b = z.detach() if published_gate_gradient else z
    return (selective_scan(u, delta, A, B, C, D, z, delta_bias, True, False)
            + selective_scan(u, delta, A_b, B, C, D, z_b, delta_bias, True, True))


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """See `aumcli.core.kernels.causal_conv1d`."""
    from causal_conv1d import causal_conv1d_fn

    y = causal_conv1d_fn(_turned(x, reverse), weight.contiguous(), bias, activation="silu").transpose(1, 2)
    return y.flip(1) if reverse else y


add_rms_norm = torch_ops.add_rms_norm  # no kernel of theirs adds and normalises without its own module

"""Plain loops: the definition that every other backend is tested against.

One sentence of mathematics per line, any dtype, differentiated by autograd, as slow as that is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """Run h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t, y_t = C_t h_t + D u_t, gated by silu(z).

    Args and Returns: see `aumcli.core.kernels.selective_scan`. Source: Gu and Dao 2023, section 3;
    the input term is delta * B * u, as the published kernels have it.
    """
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = F.softplus(delta)  # (b, l, e); linear above 20
    state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])  # (b, e, n)
    outputs: list[Tensor] = [u] * u.shape[1]
    order = range(u.shape[1] - 1, -1, -1) if reverse else range(u.shape[1])
    for t in order:
        decay = torch.exp(delta[:, t, :, None] * A)  # (b, e, n)
        state = decay * state + (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        outputs[t] = (state * C[:, t, None, :]).sum(-1)  # (b, e)
    y = torch.stack(outputs, dim=1)  # (b, l, e)
    if D is not None:
        y = y + D * u
    return y if z is None else y * F.silu(z)


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    A_b: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    published_gate_gradient: bool,
) -> Tensor:
    """Add a forward and a reversed scan that differ in A only: the Fo-Bi block's pair (D u counts twice).

    Source: `bimamba_inner_fn` of the authors' vendored mamba_ssm, whose backward leaves the reversed
    direction out of z's gradient; `published_gate_gradient` repeats that.
    """
    z_b = z.detach() if published_gate_gradient else z
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, True, False) + selective_scan(
        u, delta, A_b, B, C, D, z_b, delta_bias, True, True
    )


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """Convolve each channel with its own taps over the past (reverse: the future), then SiLU."""
    taps = weight.shape[1]
    order = range(taps) if not reverse else range(taps - 1, -1, -1)
    padded = F.pad(x, (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))  # (b, l + taps - 1, e)
    y = torch.zeros_like(x) if bias is None else bias.expand_as(x)
    for offset, k in enumerate(order):
        y = y + padded[:, offset : offset + x.shape[1]] * weight[:, k]
    return F.silu(y)


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream and normalise the sum by its root mean square."""
    residual = x if residual is None else residual + x
    scale = torch.rsqrt(residual.square().mean(-1, keepdim=True) + eps)  # (b, l, 1)
    return residual * scale * weight, residual

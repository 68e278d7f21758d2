"""Activation checkpointing within a block: the backward pass recomputes what is cheap.

Kept are the residual stream and, unless asked otherwise, the input projection: 768 + 3072 floats per token of a base
block, where autograd would keep 9300. Convolution, small projections and scan are cheap to recompute; the scan's
backward kernel does it anyway and returns its output as a by-product.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from aumcli.core.audio_mamba import Block
    from aumcli.core.mixer import Mixer


def run_block(block: "Block", x: Tensor, residual: Tensor | None, keep_projection: bool) -> tuple[Tensor, Tensor]:
    """Run a block (norm, mixer) so that its backward pass recomputes what it can.

    Args:
        block: has `norm` and `mixer`, whose kernels are operators (see `aumcli.core.kernels.operators`).
        x, residual: the last block's output and the residual stream, (b, l, d).
        keep_projection: keep the input projection's output; else it is recomputed too.

    Returns:
        The mixer's output and the residual stream, (b, l, d) each, as block(x, residual) gives them.
    """
    pair: tuple[Tensor, Tensor] = _Block.apply(block, keep_projection, x, residual, *block.parameters())
    return pair


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, block: "Block", keep_projection: bool, x: Tensor, residual: Tensor | None, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens, total = block.norm(x, residual)
        projected = block.mixer.in_proj(tokens)
        ctx.save_for_backward(total, projected if keep_projection else None)
        ctx.block, ctx.has_residual, ctx.x_dtype = block, residual is not None, x.dtype
        kind = x.device.type
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        ctx.set_materialize_grads(False)
        return block.mixer.mix(projected), total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_total: Tensor | None) -> tuple[Tensor | None, ...]:
        total, projected = ctx.saved_tensors
        norm, mixer = ctx.block.norm, ctx.block.mixer
        if grad is None:  # the mixer's output was not used: only the residual stream carries a gradient
            return (
                None,
                None,
                grad_total,
                grad_total if ctx.has_residual else None,
                *(None for _ in ctx.block.parameters()),
            )
        with torch.autocast(**ctx.autocast):
            tokens, _ = torch.ops.aumcli.norm(total, None, norm.weight, norm.eps)
            if projected is None:
                projected = mixer.in_proj(tokens)
            grads, grad_projected, y = _unmix(mixer, projected, grad @ mixer.out_proj.weight)
            grads["out_proj.weight"] = _outer(grad, y)
            grads["in_proj.weight"] = _outer(grad_projected, tokens)
            grad_tokens = (grad_projected @ mixer.in_proj.weight).float()
        grads = {f"mixer.{name}": value for name, value in grads.items()}
        grad_x, grads["norm.weight"] = torch.ops.aumcli.norm_backward(
            grad_tokens, grad_total, total, norm.weight, norm.eps
        )
        weights = [grads[name].to(x.dtype) for name, x in ctx.block.named_parameters()]
        return None, None, grad_x.to(ctx.x_dtype), grad_x if ctx.has_residual else None, *weights


def _unmix(mixer: "Mixer", projected: Tensor, grad_y: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Gradients of a mixer between its two projections.

    By parameter name, and of `projected`; and y, computed again.
    """
    x, z = projected.chunk(2, dim=-1)
    grads: dict[str, Tensor] = {}
    share = 1 / len(mixer.branches)  # the branches' outputs are averaged
    grad_x, grad_z, y = [], [], []
    for suffix, reverse in mixer.branches:
        conv, x_proj, dt_proj = (getattr(mixer, f"{name}{suffix}") for name in ("conv1d", "x_proj", "dt_proj"))
        u = mixer.convolve(x, suffix, reverse)
        dt, delta, B, C = mixer.project(u, suffix)
        A, A_b, D, bias = mixer.ssm_parameters(suffix)
        du, ddelta, dA, dA_b, dB, dC, dD, dz, dbias, out = torch.ops.aumcli.scan_backward(
            grad_y if share == 1 else grad_y * share,
            u,
            delta,
            A,
            A_b,
            B,
            C,
            D,
            z,
            bias,
            True,
            reverse,
            mixer.published_gate_gradient,
        )
        grads[f"dt_proj{suffix}.weight"], grads[f"dt_proj{suffix}.bias"] = _outer(ddelta, dt), dbias
        grads["A_b_log" if suffix else "A_log"] = dA * A  # A = -exp(A_log) is its own derivative
        if A_b is not None:
            grads["A_b_log"] = dA_b * A_b
        grads[f"D{suffix}"] = dD
        small = torch.cat([ddelta @ dt_proj.weight, dB, dC], dim=-1)  # (b, l, r + 2 n)
        grads[f"x_proj{suffix}.weight"] = _outer(small, u)
        du.flatten(0, 1).addmm_(small.flatten(0, 1).to(du.dtype), x_proj.weight.to(du.dtype))
        dx, weight, grads[f"conv1d{suffix}.bias"] = torch.ops.aumcli.conv_backward(
            du, x, conv.weight[:, 0], conv.bias, reverse
        )
        grads[f"conv1d{suffix}.weight"] = weight[:, None]
        grad_x.append(dx)
        grad_z.append(dz)
        y.append(out)
    sums = [each[0] if share == 1 else each[0] + each[1] for each in (grad_x, grad_z, y)]
    return grads, torch.cat(sums[:2], dim=-1), sums[2] if share == 1 else sums[2] * share


def _outer(grad: Tensor, x: Tensor) -> Tensor:
    """A linear layer's weight gradient: grad (b, l, out), x (b, l, in) -> (out, in)."""
    return grad.flatten(0, 1).t() @ x.flatten(0, 1)

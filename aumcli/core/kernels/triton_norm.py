"""Add and RMS norm as Triton kernels: one program for a row forward, for some rows backward."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aumcli.core.kernels.triton_common import OPTIONS, any_of, flat, on_device

ROWS = 16  # of a program in the backward pass: each leaves one part of the weight's gradient


@triton.jit
def _forward(x, residual, weight, out, total, d, eps, has_residual: tl.constexpr, D: tl.constexpr):
    columns = tl.arange(0, D)
    inside, row = columns < d, tl.program_id(0).to(tl.int64) * d
    value = tl.load(x + row + columns, mask=inside, other=0.0).to(tl.float32)
    if has_residual:
        value += tl.load(residual + row + columns, mask=inside, other=0.0)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / d + eps)
    normed = value * scale * tl.load(weight + columns, mask=inside, other=0.0)
    tl.store(total + row + columns, value, mask=inside)
    tl.store(out + row + columns, normed.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    grad,
    grad_sum,
    total,
    weight,
    dx,
    dweight,
    rows,
    d,
    eps,
    has_grad_sum: tl.constexpr,
    R: tl.constexpr,
    D: tl.constexpr,
):
    columns, program = tl.arange(0, D), tl.program_id(0)
    inside = columns < d
    factor = tl.load(weight + columns, mask=inside, other=0.0)
    part = tl.zeros((D,), tl.float32)
    for i in range(R):
        number = program * R + i
        here, row = columns < tl.where(number < rows, d, 0), number.to(tl.int64) * d
        value = tl.load(total + row + columns, mask=here, other=0.0)
        upper = tl.load(grad + row + columns, mask=here, other=0.0).to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=0) / d + eps)
        part += upper * value * scale
        upper *= factor
        along = tl.sum(upper * value, axis=0) / d * scale * scale
        back = (upper - value * along) * scale
        if has_grad_sum:
            back += tl.load(grad_sum + row + columns, mask=here, other=0.0)
        tl.store(dx + row + columns, back, mask=here)
    tl.store(dweight + program.to(tl.int64) * d + columns, part, mask=inside)


def _warps(d: int) -> int:
    return min(max(triton.next_power_of_2(d) // 256, 1), 16)


def norm(x, residual, weight, eps) -> tuple[Tensor, Tensor]:
    """The operator `norm` (see `aumcli.core.kernels.operators`)."""
    d = x.shape[-1]
    half = weight.dtype if weight.dtype == torch.bfloat16 else torch.float32
    out, total = (torch.empty(x.shape, dtype=dtype, device=x.device) for dtype in (half, torch.float32))
    if x.numel():
        with on_device(x):
            x, residual = x.contiguous(), flat(residual)
            _forward[(x.numel() // d,)](
                x,
                any_of(residual, x),
                flat(weight),
                out,
                total,
                d,
                eps,
                has_residual=residual is not None,
                D=triton.next_power_of_2(d),
                num_warps=_warps(d),
                **OPTIONS,
            )
    return out, total


def norm_backward(grad, grad_sum, total, weight, eps) -> tuple[Tensor, Tensor]:
    """The operator `norm_backward`."""
    d = total.shape[-1]
    rows = total.numel() // max(d, 1)
    parts = triton.cdiv(rows, ROWS)
    dx = torch.empty(total.shape, dtype=torch.float32, device=total.device)
    dweight = torch.empty((parts, d), dtype=torch.float32, device=total.device)
    if total.numel():
        with on_device(total):
            grad, grad_sum, total = grad.contiguous(), flat(grad_sum), total.contiguous()
            _backward[(parts,)](
                grad,
                any_of(grad_sum, total),
                total,
                flat(weight),
                dx,
                dweight,
                rows,
                d,
                eps,
                has_grad_sum=grad_sum is not None,
                R=ROWS,
                D=triton.next_power_of_2(d),
                num_warps=_warps(d),
                **OPTIONS,
            )
    return dx, dweight.sum(0).to(weight.dtype)

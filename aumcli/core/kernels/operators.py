"""The kernels as torch operators: one schema each, so that autograd, torch.compile and autocast see one call.

cpu.py and triton_*.py implement each, forward and backward, under its name; `aumcli.core.kernels` registers them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

NAMES = ("scan", "scan_backward", "conv", "conv_backward", "norm", "norm_backward")
_library = torch.library.Library("aumcli", "DEF")
_library.define(
    "scan(Tensor u, Tensor delta, Tensor A, Tensor? A_b, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias,"
    " bool softplus, bool reverse, bool published_gate) -> Tensor"
)
_library.define(
    "scan_backward(Tensor grad, Tensor u, Tensor delta, Tensor A, Tensor? A_b, Tensor B, Tensor C, Tensor? D,"
    " Tensor? z, Tensor? delta_bias, bool softplus, bool reverse, bool published_gate)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)  # the last: y, a by-product
_library.define("conv(Tensor x, Tensor weight, Tensor? bias, bool reverse) -> Tensor")
_library.define(
    "conv_backward(Tensor grad, Tensor x, Tensor weight, Tensor? bias, bool reverse) -> (Tensor, Tensor, Tensor)"
)
_library.define("norm(Tensor x, Tensor? residual, Tensor weight, float eps) -> (Tensor, Tensor)")
_library.define(
    "norm_backward(Tensor grad, Tensor? grad_sum, Tensor sum, Tensor weight, float eps) -> (Tensor, Tensor)"
)


def implement(name: str, device: str, function: Callable[..., Any]) -> None:
    """Register `function` as operator `aumcli::name` on a device type ("CPU", "CUDA")."""
    _library.impl(name, function, device)


def _like(x: Tensor) -> Tensor:
    """An uninitialised contiguous tensor of x's shape and dtype."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _like_or_none(x: Tensor | None, like: Tensor) -> Tensor:
    return like.new_empty(0, dtype=torch.float32) if x is None else _like(x)


class ScanInputs(NamedTuple):
    """The tensors of `scan`, in its order; shapes as in `aumcli.core.kernels.bidirectional_scan`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    A_b: Tensor | None  # of the reversed direction; None: there is one direction
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None


@torch.library.register_fake("aumcli::scan")
def _(u: Tensor, *others: object) -> Tensor:
    return _like(u)


@torch.library.register_fake("aumcli::scan_backward")
def _(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    inputs = ScanInputs(*arguments[:9])
    return *(_like_or_none(x, inputs.u) for x in inputs), _like(inputs.u)


@torch.library.register_fake("aumcli::conv")
def _(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    return _like(x)


@torch.library.register_fake("aumcli::conv_backward")
def _(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    return _like(x), _like(weight), _like_or_none(bias, x)


@torch.library.register_fake("aumcli::norm")
def _(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, ...]:
    half = weight.dtype if weight.dtype == torch.bfloat16 else torch.float32
    return tuple(torch.empty(x.shape, dtype=dtype, device=x.device) for dtype in (half, torch.float32))


@torch.library.register_fake("aumcli::norm_backward")
def _(grad: Tensor, grad_sum: Tensor | None, sum: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return _like(sum), _like(weight)


def _scan_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.flags = inputs[9:]


def _scan_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    *grads, _ = torch.ops.aumcli.scan_backward(grad, *inputs, *ctx.flags)
    return *(None if x is None else g for x, g in zip(inputs, grads)), None, None, None


def _conv_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.reverse = inputs[3]


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    dx, dweight, dbias = torch.ops.aumcli.conv_backward(grad, x, weight, bias, ctx.reverse)
    return dx, dweight, None if bias is None else dbias, None


def _norm_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(output[1], inputs[2])
    ctx.eps, ctx.has_residual = inputs[3], inputs[1] is not None
    ctx.set_materialize_grads(False)


def _norm_backward(ctx: Any, grad: Tensor | None, grad_sum: Tensor | None) -> tuple[Tensor | None, ...]:
    sum, weight = ctx.saved_tensors
    if grad is None:  # the normalised output was not used: only the residual stream carries a gradient
        return grad_sum, grad_sum if ctx.has_residual else None, None, None
    dx, dweight = torch.ops.aumcli.norm_backward(grad, grad_sum, sum, weight, ctx.eps)
    return dx, dx if ctx.has_residual else None, dweight, None


def _no_second_derivative(ctx: Any, *grads: Tensor) -> NoReturn:
    raise RuntimeError("the kernels have no second derivatives; use backend='reference' for them")


for _name in ("scan_backward", "conv_backward", "norm_backward"):
    torch.library.register_autograd(f"aumcli::{_name}", _no_second_derivative)
torch.library.register_autograd("aumcli::scan", _scan_backward, setup_context=_scan_context)
torch.library.register_autograd("aumcli::conv", _conv_backward, setup_context=_conv_context)
torch.library.register_autograd("aumcli::norm", _norm_backward, setup_context=_norm_context)


def scan(inputs: ScanInputs, softplus: bool, reverse: bool, published_gate: bool) -> Tensor:
    """The scan operator (see `aumcli.core.kernels`)."""
    y: Tensor = torch.ops.aumcli.scan(*inputs, softplus, reverse, published_gate)
    return y


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """The causal convolution operator with SiLU."""
    y: Tensor = torch.ops.aumcli.conv(x, weight, bias, reverse)
    return y


def norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The add and RMS norm operator: (normalised, sum)."""
    pair: tuple[Tensor, Tensor] = torch.ops.aumcli.norm(x, residual, weight, eps)
    return pair

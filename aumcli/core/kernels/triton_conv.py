"""The causal depthwise convolution with SiLU as Triton kernels, (b, l, e) in and out, in either direction."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aumcli.core.kernels.triton_common import OPTIONS, any_of, flat, on_device, strided

TILE, WIDTH = 16, 64  # tokens and channels of a program


@triton.jit
def _load(x, batch, stride_b, stride_t, ts, es, l, e):
    """A (t, e) tile as float32, zero before the first token and after the last."""
    inside = ((ts >= 0) & (ts < l))[:, None] & (es < e)[None, :]
    at = x + batch.to(tl.int64) * stride_b + ts.to(tl.int64)[:, None] * stride_t + es[None, :]
    return tl.load(at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _convolve(x, weight, shift, batch, x_b, x_t, ts, es, l, e, back: tl.constexpr, K: tl.constexpr):
    """bias + the sum over taps, before SiLU; `back` is -1 where the taps look at past tokens, 1 at future ones."""
    inside = es < e
    value = shift[None, :] + tl.zeros((ts.shape[0], es.shape[0]), tl.float32)
    for j in tl.static_range(K):
        tap = tl.load(weight + es * K + j, mask=inside, other=0.0)
        value += tap[None, :] * _load(x, batch, x_b, x_t, ts + back * (K - 1 - j), es, l, e)
    return value


@triton.jit
def _forward(
    x,
    weight,
    bias,
    out,
    l,
    e,
    x_b,
    x_t,
    tiles,
    strips,
    reverse: tl.constexpr,
    has_bias: tl.constexpr,
    K: tl.constexpr,
    T: tl.constexpr,
    E: tl.constexpr,
):
    program = tl.program_id(0)
    strip, tile, batch = program % strips, program // strips % tiles, program // strips // tiles
    es, ts = strip * E + tl.arange(0, E), tile * T + tl.arange(0, T)
    shift = tl.load(bias + es, mask=es < e, other=0.0) if has_bias else tl.zeros((E,), tl.float32)
    value = _convolve(x, weight, shift, batch, x_b, x_t, ts, es, l, e, 1 if reverse else -1, K)
    value *= 1.0 / (1.0 + tl.exp(-value))
    at = out + (batch.to(tl.int64) * l + ts.to(tl.int64))[:, None] * e + es[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=(ts < l)[:, None] & (es < e)[None, :])


@triton.jit
def _backward(
    grad,
    x,
    weight,
    bias,
    dx,
    dweight,
    dbias,
    l,
    e,
    x_b,
    x_t,
    grad_b,
    grad_t,
    tiles,
    strips,
    reverse: tl.constexpr,
    has_bias: tl.constexpr,
    K: tl.constexpr,
    T: tl.constexpr,
    E: tl.constexpr,
):
    """dx of a tile, and the tile's part of the weight's and the bias's gradient."""
    program = tl.program_id(0)
    strip, tile, batch = program % strips, program // strips % tiles, program // strips // tiles
    es, ts = strip * E + tl.arange(0, E), tile * T + tl.arange(0, T)
    inside = es < e
    back: tl.constexpr = 1 if reverse else -1
    shift = tl.load(bias + es, mask=inside, other=0.0) if has_bias else tl.zeros((E,), tl.float32)
    total = tl.zeros((T, E), tl.float32)
    part = (batch * tiles + tile).to(tl.int64)
    for ahead in tl.static_range(K):  # a token reaches the outputs of itself and the K - 1 tokens after it
        reached = ts - back * ahead
        value = _convolve(x, weight, shift, batch, x_b, x_t, reached, es, l, e, back, K)
        sigmoid = 1.0 / (1.0 + tl.exp(-value))
        slope = sigmoid * (1.0 + value * (1.0 - sigmoid)) * _load(grad, batch, grad_b, grad_t, reached, es, l, e)
        total += tl.load(weight + es * K + K - 1 - ahead, mask=inside, other=0.0)[None, :] * slope
        if ahead == 0:
            if has_bias:
                tl.store(dbias + part * e + es, tl.sum(slope, axis=0), mask=inside)
            for j in tl.static_range(K):
                seen = _load(x, batch, x_b, x_t, ts + back * (K - 1 - j), es, l, e)
                tl.store(dweight + (part * e + es) * K + j, tl.sum(slope * seen, axis=0), mask=inside)
    at = dx + (batch.to(tl.int64) * l + ts.to(tl.int64))[:, None] * e + es[None, :]
    tl.store(at, total.to(dx.dtype.element_ty), mask=(ts < l)[:, None] & inside[None, :])


def conv(x, weight, bias, reverse) -> Tensor:
    """The operator `conv` (see `aumcli.core.kernels.operators`)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel():
        with on_device(x):
            (b, l, e), x = x.shape, strided(x)
            tiles, strips = triton.cdiv(l, TILE), triton.cdiv(e, WIDTH)
            _forward[(strips * tiles * b,)](
                x,
                flat(weight),
                any_of(flat(bias), x),
                out,
                l,
                e,
                *x.stride()[:2],
                tiles,
                strips,
                reverse=reverse,
                has_bias=bias is not None,
                K=weight.shape[1],
                T=TILE,
                E=WIDTH,
                **OPTIONS,
            )
    return out


def conv_backward(grad, x, weight, bias, reverse) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `conv_backward`."""
    (b, l, e), k = x.shape, weight.shape[1]
    tiles, strips = triton.cdiv(l, TILE), triton.cdiv(e, WIDTH)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dweight = torch.empty((b * tiles, e, k), dtype=torch.float32, device=x.device)
    dbias = dweight.new_empty(0) if bias is None else dweight.new_empty((b * tiles, e))
    if x.numel():
        with on_device(x):
            x, grad = strided(x), strided(grad)
            _backward[(strips * tiles * b,)](
                grad,
                x,
                flat(weight),
                any_of(flat(bias), x),
                dx,
                dweight,
                dbias,
                l,
                e,
                *x.stride()[:2],
                *grad.stride()[:2],
                tiles,
                strips,
                reverse=reverse,
                has_bias=bias is not None,
                K=k,
                T=TILE,
                E=WIDTH,
                **OPTIONS,
            )
    return dx, dweight.sum(0).to(weight.dtype), dbias if bias is None else dbias.sum(0).to(bias.dtype)

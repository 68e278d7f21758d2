"""The scan as Triton kernels, forward and backward, one or both directions in one launch.

The sequence is cut into chunks so that one long clip fills a GPU too. `_ends` runs every chunk from a zero state,
`_carry` hands the states from chunk to chunk, and `_outputs` or `_gradients` runs every chunk again from its right
state. Nothing is flipped, and nothing as large as u is transposed: a program takes a strip of channels and walks over
tokens in either direction. Sums over channels and chunks are written in parts and added in a fixed order: the same
input, the same bits.

Tiles are (n, e) in the kernels that walk token by token: a thread owns a channel and holds all of its states, and a sum
over states stays within the thread. Where every state of a chunk is needed at once, in `_gradients`, they are (t, e),
state after state, with the recurrence solved by an associative scan. The state is float32 whatever the inputs are.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from aumcli.core.kernels.triton_common import OPTIONS, any_of, flat, on_device, strided

LOG2_E = tl.constexpr(1.4426950408889634)
WIDTH = 64  # channels of a program that walks tokens: two warps, one channel a thread
TILE_WIDTH = 16  # channels of a program that holds a tile of tokens: one warp, without a barrier
TILE = 16  # tokens of a chunk in the backward pass: what fits into a warp's registers
FILL = 1024  # programs that fill a large GPU: a sequence is cut until there are that many
SHORTEST = 80  # tokens of a chunk in the forward pass: below, carrying states costs more than it gives


@triton.jit
def _step_size(raw, bias, softplus: tl.constexpr):
    """delta from its raw value: softplus (linear above 20) of raw + bias."""
    raw = raw + bias
    if softplus:
        # log1p(x) = 2 atanh(x / (2 + x)): its series where x is small and log would round it away
        power = tl.exp2(tl.where(raw > 20.0, 20.0, raw) * LOG2_E)  # tl.minimum would drop a NaN
        s = power / (2.0 + power)
        s2 = s * s
        series = 2.0 * s * (1.0 + s2 * (0.3333333333 + s2 * (0.2 + s2 * (0.1428571429 + s2 * 0.1111111111))))
        log1p = tl.where(power < 0.25, series, tl.log(1.0 + power))
        raw = tl.where(raw > 20.0, raw, log1p)
    return raw


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def _row(pointer, batch, stride_b, stride_t, t):
    """The address of token t's row."""
    return pointer + batch.to(tl.int64) * stride_b + tl.cast(t, tl.int64) * stride_t


@triton.jit
def _ends(
    u,
    delta,
    z,
    B,
    C,
    grad,
    A,
    A_b,
    bias,
    ends,
    totals,
    l,
    e,
    n,
    u_b,
    u_t,
    delta_b,
    delta_t,
    z_b,
    z_t,
    B_b,
    B_t,
    C_b,
    C_t,
    grad_b,
    grad_t,
    chunks,
    length,
    strips,
    both: tl.constexpr,
    reverse: tl.constexpr,
    adjoint: tl.constexpr,
    has_bias: tl.constexpr,
    has_z: tl.constexpr,
    softplus: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
):
    """Run one chunk of `length` tokens from zero, in one direction: the state it hands on, and its sum of delta.

    The adjoint runs against the direction: it takes C dy for B delta u, and hands on its value times the token's decay.
    """
    program = tl.program_id(0)
    strip, chunk = program % strips, program // strips % chunks
    batch, way = program // strips // chunks, tl.program_id(1)
    es, ns = strip * E + tl.arange(0, E), tl.arange(0, N)
    inside = es < e
    both_inside = inside[None, :] & (ns < n)[:, None]
    flipped = (way == 1) | reverse
    backwards = flipped != adjoint
    rates = A
    if both:
        rates = A if way == 0 else A_b
    rate = tl.load(rates + ns[:, None] * e + es[None, :], mask=both_inside, other=0.0) * LOG2_E
    shift = tl.load(bias + es, mask=inside, other=0.0) if has_bias else tl.zeros((E,), tl.float32)
    state, total = tl.zeros((N, E), tl.float32), tl.zeros((E,), tl.float32)
    first = chunk * length
    for i in range(length):
        t = first + (length - 1 - i if backwards else i)
        here, states = es < tl.where(t < l, e, 0), ns < tl.where(t < l, n, 0)
        step = tl.load(_row(delta, batch, delta_b, delta_t, t) + es, mask=here, other=0.0).to(tl.float32)
        step = tl.where(here, _step_size(step, shift, softplus), 0.0)
        decay = tl.exp2(rate * step[None, :])
        if adjoint:
            value = tl.load(_row(grad, batch, grad_b, grad_t, t) + es, mask=here, other=0.0).to(tl.float32)
            if has_z:
                gate = tl.load(_row(z, batch, z_b, z_t, t) + es, mask=here, other=0.0).to(tl.float32)
                value *= gate * _sigmoid(gate)
            weight = tl.load(_row(C, batch, C_b, C_t, t) + ns, mask=states, other=0.0).to(tl.float32)
            state = decay * (state + weight[:, None] * value[None, :])
        else:
            value = step * tl.load(_row(u, batch, u_b, u_t, t) + es, mask=here, other=0.0).to(tl.float32)
            weight = tl.load(_row(B, batch, B_b, B_t, t) + ns, mask=states, other=0.0).to(tl.float32)
            state = decay * state + weight[:, None] * value[None, :]
        total += step
    place = (way * tl.num_programs(0) // strips + batch * chunks + chunk).to(tl.int64)
    tl.store(ends + (place * n + ns[:, None]) * e + es[None, :], state, mask=both_inside)
    if not adjoint:
        tl.store(totals + place * e + es, total, mask=inside)


@triton.jit
def _carry(
    ends,
    totals,
    A,
    A_b,
    e,
    n,
    chunks,
    batches,
    strips,
    both: tl.constexpr,
    reverse: tl.constexpr,
    adjoint: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
):
    """Turn the states that chunks hand on from zero into those they start from, in place, chunk after chunk."""
    strip, batch, way = tl.program_id(0) % strips, tl.program_id(0) // strips, tl.program_id(1)
    es, ns = strip * E + tl.arange(0, E), tl.arange(0, N)
    inside = es < e
    both_inside = inside[None, :] & (ns < n)[:, None]
    backwards = ((way == 1) | reverse) != adjoint
    rates = A
    if both:
        rates = A if way == 0 else A_b
    rate = tl.load(rates + ns[:, None] * e + es[None, :], mask=both_inside, other=0.0) * LOG2_E
    state = tl.zeros((N, E), tl.float32)
    for i in range(chunks):
        chunk = chunks - 1 - i if backwards else i
        place = ((way * batches + batch) * chunks + chunk).to(tl.int64)
        address = ends + (place * n + ns[:, None]) * e + es[None, :]
        end = tl.load(address, mask=both_inside, other=0.0)
        total = tl.load(totals + place * e + es, mask=inside, other=0.0)
        tl.store(address, state, mask=both_inside)
        state = tl.exp2(rate * total[None, :]) * state + end


@triton.jit
def _outputs(
    u,
    delta,
    z,
    B,
    C,
    A,
    A_b,
    D,
    bias,
    starts,
    partial,
    out,
    l,
    e,
    n,
    u_b,
    u_t,
    delta_b,
    delta_t,
    z_b,
    z_t,
    B_b,
    B_t,
    C_b,
    C_t,
    chunks,
    length,
    strips,
    both: tl.constexpr,
    reverse: tl.constexpr,
    has_start: tl.constexpr,
    has_D: tl.constexpr,
    has_bias: tl.constexpr,
    has_z: tl.constexpr,
    softplus: tl.constexpr,
    N: tl.constexpr,
    E: tl.constexpr,
):
    """Run one chunk from its start in every direction, add the outputs and the skip, and gate."""
    program = tl.program_id(0)
    strip, chunk, batch = program % strips, program // strips % chunks, program // strips // chunks
    es, ns = strip * E + tl.arange(0, E), tl.arange(0, N)
    inside = es < e
    both_inside = inside[None, :] & (ns < n)[:, None]
    shift = tl.load(bias + es, mask=inside, other=0.0) if has_bias else tl.zeros((E,), tl.float32)
    skip = tl.load(D + es, mask=inside, other=0.0) if has_D else tl.zeros((E,), tl.float32)
    if both:
        skip *= 2.0
    first, places = chunk * length, tl.num_programs(0) // strips
    for way in tl.static_range(2 if both else 1):
        rates = A if way == 0 else A_b
        rate = tl.load(rates + ns[:, None] * e + es[None, :], mask=both_inside, other=0.0) * LOG2_E
        if has_start:
            place = (way * places + batch * chunks + chunk).to(tl.int64)
            state = tl.load(starts + (place * n + ns[:, None]) * e + es[None, :], mask=both_inside, other=0.0)
        else:
            state = tl.zeros((N, E), tl.float32)
        for i in range(length):
            t = first + (length - 1 - i if reverse or way == 1 else i)
            here, states = es < tl.where(t < l, e, 0), ns < tl.where(t < l, n, 0)
            step = tl.load(_row(delta, batch, delta_b, delta_t, t) + es, mask=here, other=0.0).to(tl.float32)
            step = tl.where(here, _step_size(step, shift, softplus), 0.0)
            value = tl.load(_row(u, batch, u_b, u_t, t) + es, mask=here, other=0.0).to(tl.float32)
            enter = tl.load(_row(B, batch, B_b, B_t, t) + ns, mask=states, other=0.0).to(tl.float32)
            leave = tl.load(_row(C, batch, C_b, C_t, t) + ns, mask=states, other=0.0).to(tl.float32)
            state = tl.exp2(rate * step[None, :]) * state + enter[:, None] * (step * value)[None, :]
            y = tl.sum(state * leave[:, None], axis=0)
            at = _row(partial, batch, l * e, e, t) + es
            if both and way == 0:
                tl.store(at, y, mask=here)
            else:
                if both:
                    y += tl.load(at, mask=here, other=0.0)
                y += skip * value
                if has_z:
                    gate = tl.load(_row(z, batch, z_b, z_t, t) + es, mask=here, other=0.0).to(tl.float32)
                    y *= gate * _sigmoid(gate)
                tl.store(_row(out, batch, l * e, e, t) + es, y.to(out.dtype.element_ty), mask=here)
        tl.debug_barrier()  # the second direction reads what the first one wrote


@triton.jit
def _compose(a1, b1, a2, b2):
    """x -> a1 x + b1, then x -> a2 x + b2."""
    return a1 * a2, a2 * b1 + b2


@triton.jit
def _tile(pointer, batch, stride_b, stride_t, ts, es, mask):
    """Load a (t, e) tile as float32, zero outside."""
    at = pointer + batch.to(tl.int64) * stride_b + ts.to(tl.int64)[:, None] * stride_t + es[None, :]
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _direction(
    x,
    step,
    x_before,
    step_after,
    dy,
    y,
    dx,
    dstep,
    rates,
    B,
    C,
    states,
    adjoints,
    dA,
    dB,
    dC,
    batch,
    place,
    parts,
    first,
    l,
    e,
    n,
    es,
    strip,
    way,
    ways,
    backwards: tl.constexpr,
    T: tl.constexpr,
):
    """One direction's share of a tile's gradients;
    x is delta u, before and after mean the direction's own order of tokens.
    """
    rows = tl.arange(0, T)
    inside, held_rows = es < e, l - first
    start = rows == (T - 1 if backwards else 0)  # where the state enters; tokens beyond the end have no step
    final = rows == (0 if backwards else T - 1)  # where the adjoint enters
    before: tl.constexpr = 1 if backwards else -1
    known_before = (rows + before < held_rows) & (rows + before + first >= 0)
    for i in range(n):
        rate = tl.load(rates + i * e + es, mask=inside, other=0.0)  # (e)
        state = tl.load(states + (place * n + i) * e + es, mask=inside, other=0.0)
        adjoint = tl.load(adjoints + (place * n + i) * e + es, mask=inside, other=0.0)
        line = (batch * n + i).to(tl.int64) * l + first  # a scalar: rows are then constants in the addresses
        enter = tl.load(B + line + rows, mask=rows < held_rows, other=0.0).to(tl.float32)  # (t)
        entered = tl.load(B + line + before + rows, mask=known_before, other=0.0).to(tl.float32)
        leave = tl.load(C + line + rows, mask=rows < held_rows, other=0.0).to(tl.float32)
        decay = tl.exp2((rate * LOG2_E)[None, :] * step)  # (t, e)
        # what the state brings to each token, decayed, apart from what the token adds: no difference of large numbers
        brought = decay * tl.where(start[:, None], state[None, :], entered[:, None] * x_before)
        _, brought = tl.associative_scan((decay, brought), 0, _compose, reverse=backwards)
        held = brought + enter[:, None] * x
        # the adjoint of `held`: from its own output, and from the token after through that one's decay
        after = tl.where(final[:, None], 0.0, tl.exp2((rate * LOG2_E)[None, :] * step_after))
        wanted = leave[:, None] * dy + tl.where(final[:, None], adjoint[None, :], 0.0)
        _, wanted = tl.associative_scan((after, wanted), 0, _compose, reverse=not backwards)
        y += leave[:, None] * held
        dx += enter[:, None] * wanted
        flow = wanted * brought
        dstep += rate[None, :] * flow
        tl.store(dA + (place * n + i) * e + es, tl.sum(flow * step, axis=0), mask=inside)
        part = (strip * ways + way).to(tl.int64) * parts + line
        tl.store(dB + part + rows, tl.sum(wanted * x, axis=1), mask=rows < held_rows)
        tl.store(dC + part + rows, tl.sum(held * dy, axis=1), mask=rows < held_rows)
    return y, dx, dstep


@triton.jit
def _gradients(
    u,
    delta,
    z,
    B,
    C,
    grad,
    A,
    A_b,
    D,
    bias,
    states,
    adjoints,
    du,
    ddelta,
    dz,
    out,
    dA,
    dB,
    dC,
    dD,
    l,
    e,
    n,
    u_b,
    u_t,
    delta_b,
    delta_t,
    z_b,
    z_t,
    grad_b,
    grad_t,
    chunks,
    strips,
    batches,
    both: tl.constexpr,
    reverse: tl.constexpr,
    published: tl.constexpr,
    has_D: tl.constexpr,
    has_bias: tl.constexpr,
    has_z: tl.constexpr,
    softplus: tl.constexpr,
    T: tl.constexpr,
    E: tl.constexpr,
):
    """All gradients of a tile of T tokens, from the states and adjoints that enter it;
    and the output, computed again.
    """
    program = tl.program_id(0)
    strip, chunk, batch = program % strips, program // strips % chunks, program // strips // chunks
    es, rows = strip * E + tl.arange(0, E), tl.arange(0, T)
    first = chunk * T
    ts, inside = first + rows, es < e
    here = (ts < l)[:, None] & inside[None, :]
    past = (ts > 0)[:, None] & (ts - 1 < l)[:, None] & inside[None, :]
    future = (ts + 1 < l)[:, None] & inside[None, :]
    shift = tl.load(bias + es, mask=inside, other=0.0) if has_bias else tl.zeros((E,), tl.float32)
    skip = tl.load(D + es, mask=inside, other=0.0) if has_D else tl.zeros((E,), tl.float32)

    value = _tile(u, batch, u_b, u_t, ts, es, here)
    raw = _tile(delta, batch, delta_b, delta_t, ts, es, here)
    step = tl.where(here, _step_size(raw, shift[None, :], softplus), 0.0)
    earlier = tl.where(
        past, _step_size(_tile(delta, batch, delta_b, delta_t, ts - 1, es, past), shift[None, :], softplus), 0.0
    )
    later = tl.where(
        future, _step_size(_tile(delta, batch, delta_b, delta_t, ts + 1, es, future), shift[None, :], softplus), 0.0
    )
    upper = _tile(grad, batch, grad_b, grad_t, ts, es, here)
    dy = upper
    if has_z:
        gate = _tile(z, batch, z_b, z_t, ts, es, here)
        dy = upper * gate * _sigmoid(gate)
    y, dx, dstep = tl.zeros((T, E), tl.float32), tl.zeros((T, E), tl.float32), tl.zeros((T, E), tl.float32)
    places, parts = tl.cast(batches, tl.int64) * chunks, tl.cast(batches, tl.int64) * n * l
    place = (batch * chunks + chunk).to(tl.int64)
    ways = 2 if both else 1
    if both or not reverse:
        y, dx, dstep = _direction(
            step * value,
            step,
            earlier * _tile(u, batch, u_b, u_t, ts - 1, es, past),
            later,
            dy,
            y,
            dx,
            dstep,
            A,
            B,
            C,
            states,
            adjoints,
            dA,
            dB,
            dC,
            batch,
            place,
            parts,
            first,
            l,
            e,
            n,
            es,
            strip,
            0,
            ways,
            False,
            T,
        )
    gated = y  # what z's gradient sees
    if both or reverse:
        way = 1 if both else 0
        y, dx, dstep = _direction(
            step * value,
            step,
            later * _tile(u, batch, u_b, u_t, ts + 1, es, future),
            earlier,
            dy,
            y,
            dx,
            dstep,
            A_b if both else A,
            B,
            C,
            states,
            adjoints,
            dA,
            dB,
            dC,
            batch,
            place + way * places,
            parts,
            first,
            l,
            e,
            n,
            es,
            strip,
            way,
            ways,
            True,
            T,
        )
        if not published:
            gated = y
    skipped = skip[None, :] * value
    y += ways * skipped
    gated += (1 if published else ways) * skipped
    at = (batch.to(tl.int64) * l + ts.to(tl.int64))[:, None] * e + es[None, :]
    tl.store(du + at, (dx * step + ways * skip[None, :] * dy).to(du.dtype.element_ty), mask=here)
    dstep += dx * value
    if softplus:
        raw += shift[None, :]
        dstep *= tl.where(raw > 20.0, 1.0, _sigmoid(raw))
    tl.store(ddelta + at, dstep, mask=here)
    if has_D:
        tl.store(dD + place * e + es, ways * tl.sum(dy * value, axis=0), mask=inside)
    if has_z:
        sigmoid = _sigmoid(gate)
        slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
        tl.store(dz + at, (upper * gated * slope).to(dz.dtype.element_ty), mask=here)
        y *= gate * sigmoid
    tl.store(out + at, y.to(out.dtype.element_ty), mask=here)


def chunk_length(b: int, l: int, e: int) -> int:
    """Tokens of a chunk in the forward pass: the whole sequence where batch and width fill a GPU without cutting."""
    rows = b * triton.cdiv(e, WIDTH)
    chunks = min(l // SHORTEST, triton.cdiv(FILL, rows))
    return triton.cdiv(l, chunks) if chunks > 1 else l


class _Launch:
    """A scan's tensors with their strides, as the kernels take them."""

    def __init__(self, u, delta, A, A_b, B, C, D, z, bias, softplus, reverse):
        self.b, self.l, self.e = u.shape
        self.n, self.ways = A.shape[1], 1 if A_b is None else 2
        self.u, self.delta, self.B, self.C = (strided(x) for x in (u, delta, B, C))
        self.z, self.D, self.bias = strided(z), flat(D), flat(bias)
        self.A, self.A_b = (
            None if x is None else flat(x.t()) for x in (A, A_b)
        )  # (n, e): neighbouring threads, neighbouring channels
        self.sizes = (self.l, self.e, self.n)
        self.flags = dict(both=A_b is not None, reverse=reverse)
        self.has = dict(has_bias=bias is not None, has_z=z is not None, softplus=softplus)
        self.N = triton.next_power_of_2(self.n)

    def strides(self, *tensors: Tensor | None) -> list[int]:
        return [
            stride
            for x in (self.u, self.delta, self.z, *tensors)
            for stride in (x.stride()[:2] if x is not None else (0, 0))
        ]

    def starts(self, length: int, grad: Tensor | None = None, totals: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The state that enters each chunk (ways, b, chunks, n, e), or with `grad` the adjoint;
        and the chunks' sums of delta.
        """
        chunks, strips = triton.cdiv(self.l, length), triton.cdiv(self.e, WIDTH)
        ends = self.u.new_empty((self.ways, self.b, chunks, self.n, self.e), dtype=torch.float32)
        if totals is None:
            totals = self.u.new_empty((self.ways, self.b, chunks, self.e), dtype=torch.float32)
        adjoint = grad is not None
        some = self.u  # stands for what a launch doesn't read
        _ends[(strips * chunks * self.b, self.ways)](
            self.u,
            self.delta,
            any_of(self.z, some),
            self.B,
            self.C,
            any_of(grad, some),
            self.A,
            any_of(self.A_b, some),
            any_of(self.bias, some),
            ends,
            totals,
            *self.sizes,
            *self.strides(self.B, self.C, grad),
            chunks,
            length,
            strips,
            **self.flags,
            adjoint=adjoint,
            **self.has,
            N=self.N,
            E=WIDTH,
            num_warps=2,
            **OPTIONS,
        )
        _carry[(strips * self.b, self.ways)](
            ends,
            totals,
            self.A,
            any_of(self.A_b, some),
            self.e,
            self.n,
            chunks,
            self.b,
            strips,
            **self.flags,
            adjoint=adjoint,
            N=self.N,
            E=WIDTH,
            num_warps=2,
            **OPTIONS,
        )
        return ends, totals


def scan(u, delta, A, A_b, B, C, D, z, bias, softplus, reverse, published_gate) -> Tensor:
    """The operator `scan` (see `aumcli.core.kernels.operators`)."""
    out = torch.empty_like(u, memory_format=torch.contiguous_format)
    if not u.numel():
        return out
    with on_device(u):
        launch = _Launch(u, delta, A, A_b, B, C, D, z, bias, softplus, reverse)
        b, l, e = u.shape
        length = chunk_length(b, l, e)
        chunks, strips, some = triton.cdiv(l, length), triton.cdiv(e, WIDTH), launch.u
        starts = launch.starts(length)[0] if chunks > 1 else None
        # the first direction's output waits here for the second's; in float32, so that it is rounded once
        partial = out if out.dtype == torch.float32 or A_b is None else torch.empty_like(out, dtype=torch.float32)
        _outputs[(strips * chunks * b,)](
            launch.u,
            launch.delta,
            any_of(launch.z, some),
            launch.B,
            launch.C,
            launch.A,
            any_of(launch.A_b, some),
            any_of(launch.D, some),
            any_of(launch.bias, some),
            any_of(starts, some),
            partial,
            out,
            *launch.sizes,
            *launch.strides(launch.B, launch.C),
            chunks,
            length,
            strips,
            **launch.flags,
            has_start=starts is not None,
            has_D=D is not None,
            **launch.has,
            N=launch.N,
            E=WIDTH,
            num_warps=2,
            **OPTIONS,
        )
    return out


def scan_backward(grad, u, delta, A, A_b, B, C, D, z, bias, softplus, reverse, published_gate) -> tuple[Tensor, ...]:
    """The operator `scan_backward`."""
    b, l, e = u.shape
    n, ways = A.shape[1], 1 if A_b is None else 2

    def turned(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()  # (b, l, n) to (b, n, l), and back

    def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=u.device)

    du, out, ddelta = new(b, l, e, dtype=u.dtype), new(b, l, e, dtype=u.dtype), new(b, l, e)
    dz = new(0) if z is None else new(b, l, e, dtype=z.dtype)
    chunks, strips = triton.cdiv(l, TILE), triton.cdiv(e, TILE_WIDTH)
    dA, dB, dC = new(ways, b * chunks, n, e), new(strips * ways, b, n, l), new(strips * ways, b, n, l)
    dD = new(0) if D is None else new(b * chunks, e)
    if u.numel():
        with on_device(u):
            launch = _Launch(u, delta, A, A_b, B, C, D, z, bias, softplus, reverse)
            grad, some = strided(grad), launch.u
            B, C = turned(B), turned(C)  # small beside u, and a tile of one state is then one line of memory
            states, totals = launch.starts(TILE)
            adjoints, _ = launch.starts(TILE, grad, totals)
            _gradients[(strips * chunks * b,)](
                launch.u,
                launch.delta,
                any_of(launch.z, some),
                B,
                C,
                grad,
                launch.A,
                any_of(launch.A_b, some),
                any_of(launch.D, some),
                any_of(launch.bias, some),
                states,
                adjoints,
                du,
                ddelta,
                dz,
                out,
                dA,
                dB,
                dC,
                dD,
                *launch.sizes,
                *launch.strides(grad),
                chunks,
                strips,
                b,
                **launch.flags,
                published=published_gate,
                has_D=D is not None,
                **launch.has,
                T=TILE,
                E=TILE_WIDTH,
                num_warps=1,
                **OPTIONS,
            )
    dbias = new(0) if bias is None else ddelta.sum((0, 1)).to(bias.dtype)
    rates = [x.sum(0).t().to(A.dtype) for x in dA]
    # A's gradient lies (e, n) in memory, as every operator's result does
    return (
        du,
        ddelta.to(delta.dtype),
        rates[0].contiguous(),
        rates[1].contiguous() if ways == 2 else new(0),
        turned(dB.sum(0)).to(B.dtype),
        turned(dC.sum(0)).to(C.dtype),
        new(0) if D is None else dD.sum(0).to(D.dtype),
        dz,
        dbias,
        out,
    )

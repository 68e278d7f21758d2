"""The scan in plain tensor operations: any device, no compiler, memory linear in the length.

The sequence is cut into chunks. Inside one, the recurrence is solved for all tokens at once by doubling
(Hillis and Steele 1986), which multiplies decays in 0..1 and so cannot overflow, unlike the usual
cumulative-sum form. Only the state at each chunk's start is kept; the backward pass solves a chunk again.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_TOGETHER = (
    8,
    1024,
)  # clips, and frames, per pass on a processor: more leave the caches, and take memory that malloc fetches anew
CHUNK = 32  # tokens solved together: fewer cost more launches, more cost memory and log2 more work


def _solve_chunk(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Scan one chunk: u, delta (b, t, e); B, C (b, t, n); state (b, e, n) -> y (b, t, e), next state."""
    decay = torch.exp(delta[..., None] * A)  # (b, t, e, n)
    h = (delta * u)[..., None] * B[:, :, None, :]  # (b, t, e, n)
    step = 1
    while step < h.shape[1]:
        h = torch.cat([h[:, :step], h[:, step:] + decay[:, step:] * h[:, :-step]], dim=1)
        decay = torch.cat([decay[:, :step], decay[:, step:] * decay[:, :-step]], dim=1)
        step *= 2
    h = h + decay * state[:, None]
    return torch.einsum("bten,btn->bte", h, C), h[:, -1]


class _ChunkedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> Tensor:
        state = u.new_zeros(u.shape[0], u.shape[2], A.shape[1])  # (b, e, n)
        starts, outputs = [], []
        for pieces in zip(*(x.split(chunk, dim=1) for x in (u, delta, B, C))):
            starts.append(state)
            y, state = _solve_chunk(pieces[0], pieces[1], A, pieces[2], pieces[3], state)
            outputs.append(y)
        ctx.save_for_backward(u, delta, A, B, C, torch.stack(starts))
        ctx.chunk = chunk
        return torch.cat(outputs, dim=1)  # (b, l, e)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, starts = ctx.saved_tensors
        grad_A, grad_state = torch.zeros_like(A), torch.zeros_like(starts[0])
        grads: list[tuple[Tensor, ...]] = []
        split = [x.split(ctx.chunk, dim=1) for x in (u, delta, B, C, grad_y)]
        for i in range(len(starts) - 1, -1, -1):
            inputs = [
                x.detach().requires_grad_() for x in (split[0][i], split[1][i], A, split[2][i], split[3][i], starts[i])
            ]
            with torch.enable_grad():
                y, state = _solve_chunk(*inputs)
            du, ddelta, dA, dB, dC, grad_state = torch.autograd.grad((y, state), inputs, (split[4][i], grad_state))
            grad_A = grad_A + dA
            grads.append((du, ddelta, dB, dC))
        du, ddelta, dB, dC = (torch.cat(x[::-1], dim=1) for x in zip(*grads))
        return du, ddelta, grad_A, dB, dC, None


def _exported_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The scan as one control flow operator that steps through the tokens, for `torch.export` and ONNX (`Scan`).

    A program's size must not grow with the length, as it would with the loop over chunks. The state is (b, n, e) here:
    its last axis is long and B and C broadcast over whole rows of it.
    """
    from torch._higher_order_ops import scan

    A_t = A.T.contiguous()  # (n, e)

    def step(h: Tensor, token: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        delta, inputs, B, C = token  # (b, 1, e) twice, (b, n, 1), (b, 1, n)
        h = torch.exp(delta * A_t) * h + B * inputs  # (b, n, e)
        return h, C @ h

    tokens = (delta[:, :, None], (delta * u)[:, :, None], B[..., None], C[:, :, None])
    _, y = scan(step, u.new_zeros(u.shape[0], *A_t.shape), tuple(x.transpose(0, 1) for x in tokens))
    outputs: Tensor = y  # (l, b, 1, e)
    return outputs[:, :, 0].transpose(0, 1)  # (b, l, e)


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, reverse: bool) -> Tensor:
    if reverse:
        u, delta, B, C = (x.flip(1) for x in (u, delta, B, C))
    y = (
        _exported_scan(u, delta, A, B, C)
        if torch.compiler.is_exporting()
        else _ChunkedScan.apply(u, delta, A, B, C, CHUNK)
    )
    return y.flip(1) if reverse else y


def _step_size(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    delta = delta if delta_bias is None else delta + delta_bias
    return F.softplus(delta) if delta_softplus else delta


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
    """See `aumcli.core.kernels.selective_scan`."""
    y = _scan(u, _step_size(delta, delta_bias, delta_softplus), A, B, C, reverse)
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
    """See `aumcli.core.kernels.bidirectional_scan`."""
    delta = _step_size(delta, delta_bias, True)
    skip = D * u
    y, y_b = _scan(u, delta, A, B, C, False) + skip, _scan(u, delta, A_b, B, C, True) + skip
    if published_gate_gradient:
        return y * F.silu(z) + y_b * F.silu(z.detach())
    return (y + y_b) * F.silu(z)


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """See `aumcli.core.kernels.causal_conv1d`."""
    taps = weight.shape[1]
    kernel = weight.flip(1) if reverse else weight
    padded = F.pad(x.transpose(1, 2), (0, taps - 1) if reverse else (taps - 1, 0))  # (b, e, l + taps - 1)
    return F.silu(F.conv1d(padded, kernel[:, None], bias, groups=x.shape[2]).transpose(1, 2))


def add_rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """See `aumcli.core.kernels.add_rms_norm`."""
    residual = x if residual is None else residual + x
    return F.rms_norm(residual, weight.shape, weight, eps), residual


@dataclass(frozen=True)
class MelOptions:
    """How frames are cut and what is done to them on the way to log-mel energies.

    hop: samples from one frame to the next; start: the first sample of the first frame, negative where that begins
    before the clip. remove_means: of the clip, then of each frame. pre_emphasis: the share of the sample before that is
    subtracted. magnitude: filter |spectrum|, not |spectrum|^2. The result is log(max(energy, floor) + offset), so that
    floor + offset has to be above 0.
    """

    fft_points: int
    hop: int
    floor: float
    start: int = 0
    remove_means: bool = False
    pre_emphasis: float = 0.0
    magnitude: bool = False
    offset: float = 0.0


def log_mel(
    waveforms: Tensor,
    lengths: Tensor,
    n_frames: Tensor,
    frames: int,
    window: Tensor,
    filters: Tensor,
    options: MelOptions,
    shift: float,
    scale: float,
) -> Tensor:
    """See `aumcli.core.kernels.log_mel`."""
    out = waveforms.new_zeros(len(waveforms), frames, filters.shape[1])
    if not out.numel():
        return out
    on_cpu = waveforms.device.type == "cpu"
    count = int(n_frames.max()) if on_cpu else frames  # asking a GPU means waiting for it
    together = max(1, min(_TOGETHER[0], _TOGETHER[1] // count)) if on_cpu else len(waveforms)
    for i in range(0, len(waveforms), together):
        some = slice(i, i + together)
        out[some, :count] = _log_mel(waveforms[some], lengths[some], count, window, filters, options)
    ended = torch.arange(frames, device=out.device) >= n_frames[:, None]  # (b, frames)
    return out.masked_fill_(ended[..., None], 0.0).sub_(shift).div_(scale)


def _log_mel(
    waveforms: Tensor, lengths: Tensor, n_frames: int, window: Tensor, filters: Tensor, options: MelOptions
) -> Tensor:
    """The first n_frames log-mel energies of a few waveforms, (b, n_frames, mels)."""
    size, before = len(window), 1 - options.start
    inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]  # (b, samples)
    waveforms = torch.where(inside, waveforms, 0.0)
    if options.remove_means:  # first, so that padding is silence
        waveforms = torch.where(inside, waveforms - waveforms.sum(1, keepdim=True) / lengths[:, None].clamp(min=1), 0.0)
    end = (n_frames - 1) * options.hop + options.start + size
    waveforms = F.pad(waveforms, (before, max(0, end - waveforms.shape[1])))  # a sample before the first frame
    frames = waveforms.unfold(1, size + 1, options.hop)[:, :n_frames]  # (b, t, 1 + size)
    if options.remove_means:
        frames = frames - frames[..., 1:].mean(-1, keepdim=True)
    if options.pre_emphasis:
        frames = (frames[..., :-1] * -options.pre_emphasis).add_(frames[..., 1:])  # (b, t, size)
    else:
        frames = frames[..., 1:]
    spectrum = torch.fft.rfft(frames * window, options.fft_points)[..., : len(filters)]  # (b, t, bins)
    energies = spectrum.abs() if options.magnitude else spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    mels: Tensor = energies @ filters  # (b, t, mels)
    return mels.clamp_(min=options.floor).add_(options.offset).log_()

"""The C kernels (cpu.c) as torch operators for float32 tensors on the CPU; other dtypes are converted and back."""

import ctypes
import functools
import sys
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from aumcli.core.kernels.operators import ScanInputs
from aumcli.core.kernels.torch_ops import MelOptions

_int, _pointer = ctypes.c_int64, ctypes.c_void_p
_SLOTS = 16  # groups of channels with their own dB and dC over a batch: bounds memory, still feeds many threads
_ROWS = 64  # ROWS of cpu.c
_BLOCK = 16  # BLOCK of cpu.c
MOST_STATES, MOST_TAPS = 256, 16  # as in cpu.c


def _fields(kind: type, names: str) -> list[tuple[str, type]]:
    return [(name, kind) for name in names.split()]


class _View(ctypes.Structure):
    _fields_ = [("data", _pointer), *_fields(_int, "batch row half")]


class _ScanProblem(ctypes.Structure):
    _fields_ = [
        *_fields(_int, "b l e n slots threads softplus reverse published_gate"),
        *_fields(_View, "u delta z B C grad"),
        *_fields(_pointer, "A A_b D bias out partial"),
        ("half_out", _int),
        *_fields(_pointer, "du ddelta dz dB dC dA dA_b dD dbias"),
    ]


class _ConvProblem(ctypes.Structure):
    _fields_ = [
        *_fields(_int, "b l e k threads reverse"),
        *_fields(_View, "x grad"),
        *_fields(_pointer, "weight bias out dx dweight dbias"),
    ]


class _NormProblem(ctypes.Structure):
    _fields_ = [
        *_fields(_int, "rows d width threads blocks"),
        ("eps", ctypes.c_float),
        *_fields(_int, "half_x half_out"),
        *_fields(_pointer, "x residual weight grad grad_sum out sum dx dweight"),
    ]


class _MelProblem(ctypes.Structure):
    _fields_ = [
        *_fields(_int, "b samples frames size hop start fft bins mels threads remove_means magnitude"),
        *_fields(ctypes.c_float, "pre_emphasis floor offset shift scale"),
        *_fields(_pointer, "waveforms lengths n_frames window roots halves places filters first end out"),
    ]


def _load() -> ctypes.CDLL | None:
    path = Path(__file__).with_name("_cpu.dll" if sys.platform == "win32" else "_cpu.so")
    return ctypes.CDLL(str(path)) if path.exists() else None  # after torch: its OpenMP threads serve us too


library = _load()


def _loaded() -> ctypes.CDLL:
    assert library is not None, why_not()
    return library


def why_not() -> str:
    """Why the C kernels can't run here; empty where they can."""
    if library is None:
        return (
            "the C kernel was not compiled when aumcli was installed; install a C compiler (gcc or clang) and "
            "install aumcli again: in its checkout, pip install --force-reinstall --no-deps ."
        )
    return ""


def instruction_set() -> str:
    """The instruction set that the kernels chose on this processor."""
    return ("baseline", "AVX2", "AVX-512")[_loaded().aum_isa()]


def has_threads() -> bool:
    """Whether the kernels were compiled with OpenMP."""
    return bool(_loaded().aum_has_threads())


def _run(function: str, problem: ctypes.Structure) -> None:
    code = getattr(_loaded(), function)(ctypes.byref(problem))
    if code == 1:
        raise MemoryError("no memory for a kernel's scratch space")
    if code == 2:
        raise ValueError(
            "the cpu scan needs decays, A <= 0 and delta >= 0 after its bias and softplus, and A without NaN; "
            "backend='torch' takes other values"
        )


@overload
def _rows(x: Tensor, half: bool = False) -> Tensor: ...
@overload
def _rows(x: None, half: bool = False) -> None: ...
@overload
def _rows(x: Tensor | None, half: bool = False) -> Tensor | None: ...
def _rows(x: Tensor | None, half: bool = False) -> Tensor | None:
    """x as float32, or as bfloat16 if it is that and may be, with unit channel stride; copied only where need be."""
    if x is None:
        return None
    x = x if half and x.dtype == torch.bfloat16 else x.float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


@overload
def _flat(x: Tensor) -> Tensor: ...
@overload
def _flat(x: None) -> None: ...
@overload
def _flat(x: Tensor | None) -> Tensor | None: ...
def _flat(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.float().contiguous()


def _view(x: Tensor | None) -> _View:
    return _View() if x is None else _View(x.data_ptr(), x.stride(0), x.stride(1), x.dtype == torch.bfloat16)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _empty(like: Tensor, *shape: int, half: bool = False) -> Tensor:
    return torch.empty(shape or like.shape, dtype=torch.bfloat16 if half else torch.float32)


def _scan_problem(inputs: ScanInputs, softplus: bool, reverse: bool, published_gate: bool) -> _ScanProblem:
    u, delta, A, A_b, B, C, D, z, bias = inputs
    b, l, e = u.shape
    if A.shape[1] > MOST_STATES:
        raise ValueError(f"the cpu scan holds at most {MOST_STATES} states per channel, not {A.shape[1]}")
    return _ScanProblem(
        b=b,
        l=l,
        e=e,
        n=A.shape[1],
        threads=torch.get_num_threads(),
        softplus=softplus,
        reverse=reverse,
        published_gate=published_gate,
        u=_view(u),
        delta=_view(delta),
        z=_view(z),
        B=_view(B),
        C=_view(C),
        A=_address(A),
        A_b=_address(A_b),
        D=_address(D),
        bias=_address(bias),
    )


def _prepare(inputs: ScanInputs) -> ScanInputs:
    u, delta, A, A_b, B, C, D, z, bias = inputs
    return ScanInputs(
        _rows(u, True),
        _rows(delta, True),
        _flat(A),
        _flat(A_b),
        _rows(B),
        _rows(C),
        _flat(D),
        _rows(z, True),
        _flat(bias),
    )


def scan(*arguments: Any) -> Tensor:
    """The operator `scan` (see `aumcli.core.kernels.operators`)."""
    inputs = ScanInputs(*arguments[:9])
    tensors = _prepare(inputs)  # held while the problem points into them
    problem = _scan_problem(tensors, *arguments[9:])
    u, A_b = inputs.u, inputs.A_b
    half = u.dtype == torch.bfloat16
    out = _empty(u, half=half)
    partial = _empty(u) if half and A_b is not None else out  # rounded once, not once for each direction
    problem.out, problem.partial, problem.half_out = out.data_ptr(), partial.data_ptr(), half
    if u.numel():
        _run("aum_scan", problem)
    return out.to(u.dtype)


def scan_backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """The operator `scan_backward`."""
    inputs = ScanInputs(*arguments[:9])
    tensors = _prepare(inputs)  # held while the problem points into them
    problem = _scan_problem(tensors, *arguments[9:])
    u, _, A, A_b, _, _, D, z, bias = inputs
    grad = _rows(grad)
    b, l, e = u.shape
    n, blocks = A.shape[1], -(-e // _BLOCK)
    problem.grad, problem.slots = _view(grad), min(blocks, max(1, _SLOTS // b))
    out, du, ddelta = _empty(u), _empty(u), _empty(u)
    dz = _empty(u, 0) if z is None else _empty(u)
    dB, dC = (torch.zeros(b, problem.slots, l, n) for _ in range(2))
    dA, dA_b = _empty(u, b, e, n), _empty(u, b, e, n) if A_b is not None else _empty(u, b, 0)
    dD, dbias = (_empty(u, b, 0) if x is None else _empty(u, b, e) for x in (D, bias))
    for name, x in dict(
        out=out, du=du, ddelta=ddelta, dz=dz, dB=dB, dC=dC, dA=dA, dA_b=dA_b, dD=dD, dbias=dbias
    ).items():
        setattr(problem, name, x.data_ptr())
    problem.partial = problem.out
    if u.numel():
        _run("aum_scan_backward", problem)
    grads = (du, ddelta, dA.sum(0), dA_b.sum(0), dB.sum(1), dC.sum(1), dD.sum(0), dz, dbias.sum(0))
    return *(g if x is None else g.to(x.dtype) for g, x in zip(grads, inputs)), out.to(u.dtype)


def _padded(x: Tensor | None, width: int) -> Tensor | None:
    """x with its last axis padded with zeros to `width`; the conv and norm kernels want whole vectors."""
    if x is None or x.shape[-1] == width:
        return x
    return torch.nn.functional.pad(x, (0, width - x.shape[-1]))


def _whole(width: int) -> int:
    return -(-width // _BLOCK) * _BLOCK


def _conv_problem(
    x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool, half: bool = False
) -> tuple[_ConvProblem, list[Tensor | None]]:
    b, l, e = x.shape
    if weight.shape[1] > MOST_TAPS:
        raise ValueError(f"the cpu convolution has at most {MOST_TAPS} taps, not {weight.shape[1]}")
    wide = _whole(e)
    held = [_padded(_rows(x, half), wide), _padded(_flat(weight.t()), wide), _padded(_flat(bias), wide)]
    problem = _ConvProblem(
        b=b,
        l=l,
        e=wide,
        k=weight.shape[1],
        threads=torch.get_num_threads(),
        reverse=reverse,
        x=_view(held[0]),
        weight=_address(held[1]),
        bias=_address(held[2]),
    )
    return problem, held


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """The operator `conv`."""
    half = x.dtype == torch.bfloat16
    problem, held = _conv_problem(x, weight, bias, reverse, half)
    out = _empty(x, problem.b, problem.l, problem.e, half=half)
    problem.out = out.data_ptr()
    if x.numel():
        _run("aum_conv", problem)
    return out[..., : x.shape[2]].to(x.dtype).contiguous()


def conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `conv_backward`."""
    problem, held = _conv_problem(x, weight, bias, reverse)
    b, l, e = x.shape
    padded = _padded(_rows(grad), problem.e)
    dx, dweight, dbias = _empty(x, b, l, problem.e), _empty(x, b, problem.k, problem.e), _empty(x, b, problem.e)
    problem.grad = _view(padded)
    problem.dx, problem.dweight, problem.dbias = dx.data_ptr(), dweight.data_ptr(), dbias.data_ptr()
    if x.numel():
        _run("aum_conv_backward", problem)
    dbias = dbias.sum(0)[:e].to(bias.dtype) if bias is not None else dbias.new_empty(0)
    return dx[..., :e].to(x.dtype).contiguous(), dweight.sum(0)[:, :e].t().to(weight.dtype).contiguous(), dbias


def norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The operator `norm`."""
    width, wide = x.shape[-1], _whole(x.shape[-1])
    half_x, half_out = x.dtype == torch.bfloat16, weight.dtype == torch.bfloat16
    held = [_padded(t, wide) for t in (x.contiguous() if half_x else _flat(x), _flat(residual), _flat(weight))]
    out, total = (_empty(x, *x.shape[:-1], wide, half=half) for half in (half_out, False))
    rows = x.numel() // width
    problem = _NormProblem(
        rows=rows,
        d=wide,
        width=width,
        threads=torch.get_num_threads(),
        blocks=-(-rows // _ROWS),
        eps=eps,
        half_x=half_x,
        half_out=half_out,
        x=_address(held[0]),
        residual=_address(held[1]),
        weight=_address(held[2]),
        out=out.data_ptr(),
        sum=total.data_ptr(),
    )
    _run("aum_norm", problem)
    return out[..., :width].contiguous(), total[..., :width].contiguous()


def norm_backward(
    grad: Tensor, grad_sum: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The operator `norm_backward`."""
    width, wide = total.shape[-1], _whole(total.shape[-1])
    held = [_padded(_flat(t), wide) for t in (grad, grad_sum, total, weight)]
    rows = total.numel() // width
    blocks = -(-rows // _ROWS)
    dx, dweight = _empty(total, *total.shape[:-1], wide), _empty(total, blocks, wide)
    problem = _NormProblem(
        rows=rows,
        d=wide,
        width=width,
        threads=torch.get_num_threads(),
        blocks=blocks,
        eps=eps,
        grad=_address(held[0]),
        grad_sum=_address(held[1]),
        x=_address(held[2]),
        weight=_address(held[3]),
        dx=dx.data_ptr(),
        dweight=dweight.data_ptr(),
    )
    _run("aum_norm_backward", problem)
    return dx[..., :width].contiguous(), dweight.sum(0)[:width].to(weight.dtype)


_by_mel = WeakTensorKeyDictionary()  # filters -> their transpose and ranges of bins: the same for every batch


def _filter_rows(filters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Filters (bins, mels) as rows (mels, bins), with the first bin of each that counts and the one after the last."""
    if filters not in _by_mel:
        rows = _flat(filters.t())
        used = torch.ne(rows, 0).to(torch.uint8)
        _by_mel[filters] = (
            rows,
            used.argmax(1),
            torch.where(used.any(1).bool(), len(filters) - used.flip(1).argmax(1), 0),
        )
    found: tuple[Tensor, Tensor, Tensor] = _by_mel[filters]
    return found


def _roots(angles: Tensor) -> Tensor:
    """exp(-2 pi i a) as (.., 2) float32, from float64."""
    return torch.stack([torch.cos(2 * torch.pi * angles), -torch.sin(2 * torch.pi * angles)], -1).float()


@functools.cache
def _fft_tables(points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Roots of unity for each step of a real FFT, those that untangle its halves, and where it leaves each bin."""
    n = points // 2
    steps, places, length, stride = [], torch.zeros(n, dtype=torch.int64), n, 1
    while length > 1:
        radix = min(4, length)
        places += torch.arange(n) // stride % radix * (length // radix)
        if radix == 4:
            steps.append(_roots(torch.arange(length // 4)[:, None] * torch.arange(1, 4).double() / length).flatten())
        length, stride = length // radix, stride * radix
    return torch.cat(steps), _roots(torch.arange(n // 2 + 1).double() / points), places


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
    waveforms = _rows(waveforms)  # (b, samples)
    waveforms = waveforms if waveforms.stride(0) >= waveforms.shape[1] else waveforms.contiguous()
    rows, first, end = _filter_rows(filters)
    held = [
        *(x.to(torch.int64).contiguous() for x in (lengths, n_frames)),
        _flat(window),
        *_fft_tables(options.fft_points),
        rows,
        first,
        end,
        _empty(waveforms, len(waveforms), frames, len(rows)),
    ]
    problem = _MelProblem(
        len(waveforms),
        waveforms.stride(0),
        frames,
        len(window),
        options.hop,
        options.start,
        options.fft_points,
        rows.shape[1],
        len(rows),
        torch.get_num_threads(),
        options.remove_means,
        options.magnitude,
        options.pre_emphasis,
        options.floor,
        options.offset,
        shift,
        scale,
        _address(waveforms),
        *map(_address, held),
    )
    _run("aum_log_mel", problem)
    return held[-1]

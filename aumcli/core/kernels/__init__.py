"""The one door to the kernels: choose a backend, say which, and compute the same with each.

Backends: `reference` (plain loops), `torch` (tensor operations, any device), `cpu` (C), and for GPUs `triton` and
`mamba_ssm`. `auto` takes the fastest that can run and is proven equal; a named one runs or raises with the reason.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from aumcli.core.kernels import cpu, mamba_ssm, operators, reference, torch_ops
from aumcli.core.kernels.torch_ops import MelOptions
from aumcli.errors import AumError

BACKENDS = ("reference", "torch", "cpu", "triton", "mamba_ssm")
OPERATORS = ("cpu", "triton")  # the backends that implement `operators`, each on its device
# whoever imports Triton with its interpreter on, before this, has the Triton kernels run on CPU tensors, to test them
_INTERPRETED = bool(sys.modules.get("triton")) and sys.modules["triton"].knobs.runtime.interpret


def available_backends(device: str = "cpu") -> dict[str, str]:
    """Tell for each backend why it can't run on a device ("cpu", "cuda", "mps"); an empty reason means that it can."""
    return {name: _why_not(name, device) for name in BACKENDS}


def _why_not(backend: str, device: str) -> str:
    """Why a backend can't run on a device; asked with every call of a kernel, so it has to be quick."""
    if backend == "cpu":
        if device != "cpu":
            return f"the C kernels run on the CPU, not on {device}"
        return "Triton's interpreter has taken its place" if _INTERPRETED else cpu.why_not()
    if backend == "triton" and not (_INTERPRETED and device == "cpu"):
        return _why_not_triton() if device == "cuda" else f"it runs on a GPU, not on {device}"
    if backend == "mamba_ssm":
        return mamba_ssm.why_not() if device == "cuda" else f"it runs on a GPU, not on {device}"
    return ""


@functools.cache
def _why_not_triton() -> str:
    return "" if importlib.util.find_spec("triton") else "Triton is not installed; for Linux: pip install triton"


def choose_backend(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Name the backend that a call with such tensors runs.

    Raises:
        AumError: an unknown backend, or a named one that can't run here.
    """
    if backend == "auto":
        # float64 asks for more precision than the operators hold, so they are no equal there
        operator = {"cpu": "cpu", "cuda": "triton"}.get(device.type)
        return "torch" if operator is None or dtype == torch.float64 or _why_not(operator, device.type) else operator
    if backend not in BACKENDS:
        raise AumError(f"there is no kernel backend {backend!r}", fix=f"choose one of: auto, {', '.join(BACKENDS)}")
    reason = _why_not(backend, device.type)
    if not reason and backend in (*OPERATORS, "mamba_ssm") and dtype == torch.float64:
        reason = "it computes in float32 and would lose float64's precision"
    if reason:
        raise AumError(f"the kernel backend {backend!r} can't run here: {reason}", fix="use backend 'auto' or 'torch'")
    return backend


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Scan a sequence with an input-dependent linear recurrence (paper, equation 2; Gu and Dao 2023).

    h_t = exp(delta_t A) h_(t-1) + delta_t B_t u_t and y_t = C_t h_t + D u_t, times silu(z_t).

    Args:
        u, delta, z: input, raw step size and gate, (b, l, e); rows may have any stride.
        A: negative rates, (e, n).
        B, C: input and output maps, (b, l, n).
        D, delta_bias: skip weight and the bias added to delta, (e).
        delta_softplus: pass delta + delta_bias through softplus (linear above 20).
        reverse: run from the last token to the first, without flipping anything.
        backend: see the module.

    Returns:
        y, (b, l, e), in u's dtype; the state is float32 or wider.

    Raises:
        AumError: the backend is unknown or can't run here.
    """
    _check_scan(u, delta, A, B, C, D, z, delta_bias)
    chosen = _fitting(backend, u, A.shape[1] <= cpu.MOST_STATES)
    if chosen in OPERATORS:
        inputs = operators.ScanInputs(u, delta, A, None, B, C, D, z, delta_bias)
        return operators.scan(inputs, delta_softplus, reverse, published_gate=False)
    with _full_precision(u):
        y: Tensor = _MODULES[chosen].selective_scan(
            *_wide(u, delta, A, B, C, D, z, delta_bias), delta_softplus, reverse
        )
    return y.to(u.dtype)


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
    backend: str = "auto",
    published_gate_gradient: bool = False,
) -> Tensor:
    """Scan in both directions and add: the Fo-Bi block's pair, which shares all but A (paper, figure 1 b).

    Args:
        A, A_b: rates of the forward and the reversed direction, (e, n).
        published_gate_gradient: leave the reversed direction out of z's gradient, as the published code does.

    The rest as in `selective_scan`; D u counts twice, once for each direction.
    """
    _check_scan(u, delta, A, B, C, D, z, delta_bias)
    _check_shape("A_b", A_b, A.shape)
    chosen = _fitting(backend, u, A.shape[1] <= cpu.MOST_STATES)
    if chosen in OPERATORS:
        inputs = operators.ScanInputs(u, delta, A, A_b, B, C, D, z, delta_bias)
        return operators.scan(inputs, softplus=True, reverse=False, published_gate=published_gate_gradient)
    with _full_precision(u):
        y: Tensor = _MODULES[chosen].bidirectional_scan(
            *_wide(u, delta, A, A_b, B, C, D, z, delta_bias), published_gate_gradient
        )
    return y.to(u.dtype)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Convolve each channel causally with its own taps, then SiLU.

    Args:
        x: (b, l, e).
        weight: (e, k); the last tap meets the token itself.
        bias: (e).
        reverse: look at the k - 1 next tokens instead of the past ones.
        backend: see the module.

    Returns:
        (b, l, e), in x's dtype.
    """
    _check_shape("x", x, (None, None, None))
    _check_shape("weight", weight, (x.shape[2], None))
    _check_shape("bias", bias, x.shape[2:])
    chosen = _fitting(backend, x, weight.shape[1] <= cpu.MOST_TAPS)
    if chosen in OPERATORS:
        return operators.conv(x, weight, bias, reverse)
    with _full_precision(x):
        y: Tensor = _MODULES[chosen].causal_conv1d(*_wide(x, weight, bias), reverse)
    return y.to(x.dtype)


def add_rms_norm(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    eps: float,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Add to the residual stream and normalise: the stream stays float32 whatever x's dtype.

    Args:
        x: the last block's output, (b, l, d).
        residual: the stream so far, (b, l, d), float32; None: x starts it.
        weight: (d).
        eps: added to the mean square, inside the root.

    Returns:
        (normalised, stream): (b, l, d) each, both at least float32.
    """
    _check_shape("residual", residual, x.shape)
    _check_shape("weight", weight, x.shape[-1:])
    chosen = choose_backend(backend, x.device, x.dtype)
    if chosen in OPERATORS:
        return operators.norm(x, residual, weight, eps)
    with _full_precision(x):
        pair: tuple[Tensor, Tensor] = _MODULES[chosen].add_rms_norm(*_wide(x, residual, weight), eps)
    return pair


def log_mel(
    waveforms: Tensor,
    lengths: Tensor,
    n_frames: Tensor,
    frames: int,
    window: Tensor,
    filters: Tensor,
    options: MelOptions,
    shift: float = 0.0,
    scale: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Turn waveforms into log-mel energies, (energy - shift) / scale.

    Beyond a clip's frames stands (0 - shift) / scale.

    Beside a loud tone the quiet bins of a spectrum hold little but rounding errors, so every backend rounds in Kaldi's
    order up to the FFT. A frame's first sample, which Kaldi pre-emphasises against itself, has to meet a window's zero.

    Args:
        waveforms: (b, samples), float32.
        lengths: samples that belong to each clip, (b,), integers; beyond them is silence.
        n_frames: frames of each clip, (b,), integers, one at least; no more than `frames` are computed.
        frames: length of the result.
        window: (size), with a zero at its beginning if `options.pre_emphasis` is not 0.
        filters: (bins, mels), of the first bins of the spectrum.
        options: how frames are cut, and what is done to them.
        backend: see the module; where a gradient is wanted, or for an FFT whose size is no power of 2, `auto` takes
            torch.

    Returns:
        (b, frames, mels).

    Raises:
        AumError: the backend is unknown or can't run here.
    """
    points = options.fft_points
    _check_shape("waveforms", waveforms, (None, None))
    for name, x in (("lengths", lengths), ("n_frames", n_frames)):
        _check_shape(name, x, waveforms.shape[:1])
    if len(window) > points or len(filters) > points // 2 + 1:
        raise ValueError(
            f"a window of {len(window)} samples and {len(filters)} bins don't fit an FFT of {points} points"
        )
    # a GPU would have to be waited for, and its tensor operations read nothing beyond their tensors
    if (
        waveforms.device.type == "cpu"
        and len(waveforms)
        and not 0 <= lengths.min() <= lengths.max() <= waveforms.shape[1]
    ):
        raise ValueError(f"lengths of {lengths.tolist()} samples in {waveforms.shape[1]}")
    fits = points & (points - 1) == 0 and points >= 16
    wants_gradient = waveforms.requires_grad and torch.is_grad_enabled()
    if backend == "auto" and (wants_gradient or waveforms.dtype != torch.float32 or not fits or not frames):
        backend = "torch"
    chosen = choose_backend(backend, waveforms.device, torch.float32)
    if chosen == "cpu" and not fits:
        raise AumError(
            f"the cpu kernel's FFT has a power of 2 of points from 16 on, not {points}",
            fix="use backend 'auto' or 'torch'",
        )
    function = cpu.log_mel if chosen == "cpu" else torch_ops.log_mel
    return function(waveforms, lengths, n_frames.clamp(1, frames), frames, window, filters, options, shift, scale)


_MODULES = {"reference": reference, "torch": torch_ops, "mamba_ssm": mamba_ssm}


def _late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is imported at its first call, since Triton is slow to import."""
    return lambda *args: getattr(importlib.import_module(module), name)(*args)


for _name in operators.NAMES:
    operators.implement(
        _name,
        "CPU" if _INTERPRETED else "CUDA",
        _late(f"aumcli.core.kernels.triton_{_name.removesuffix('_backward')}", _name),
    )
    if cpu.library is not None and not _INTERPRETED:
        operators.implement(_name, "CPU", getattr(cpu, _name))


def _fitting(backend: str, x: Tensor, fits_operators: bool) -> str:
    """The backend to run; `auto` passes over the operators where a size is beyond them."""
    chosen = choose_backend(backend, x.device, x.dtype)
    return "torch" if backend == "auto" and chosen in OPERATORS and not fits_operators else chosen


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Autocast would round inside the tensor operations; the state stays float32 in every backend."""
    # an exported program with a region of autocast can't be saved
    return torch.autocast(x.device.type, enabled=False) if torch.is_autocast_enabled(x.device.type) else nullcontext()


def _check_shape(name: str, x: Tensor | None, shape: Sequence[int | None]) -> None:
    """Refuse a tensor whose shape differs (None: any size): a kernel would read beyond its end."""
    if x is None or x.shape == shape:  # the quick answer: this is asked a dozen times in every block
        return
    if x.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, x.shape)):
        raise ValueError(
            f"{name} has shape {tuple(x.shape)}, not {tuple('any' if want is None else want for want in shape)}"
        )


def _check_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    _check_shape("u", u, (None, None, None))
    _check_shape("A", A, (u.shape[2], None))
    if u.shape[1] == 0:
        raise ValueError("u has no tokens")
    for name, x in (("delta", delta), ("z", z)):
        _check_shape(name, x, u.shape)
    for name, x in (("B", B), ("C", C)):
        _check_shape(name, x, (*u.shape[:2], A.shape[1]))
    for name, x in (("D", D), ("delta_bias", delta_bias)):
        _check_shape(name, x, u.shape[2:])


def _wide(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """float16 and bfloat16 tensors as float32: no backend keeps its state narrower."""
    return tuple(x.float() if x is not None and x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors)

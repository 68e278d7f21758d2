"""The one door to the kernels: choose a backend, say which, and compute the same with each.

Backends: `reference` (plain loops), `torch` (tensor operations, any device), `cpu` (C), and for GPUs `triton` and
`mamba_ssm`. `auto` takes the fastest that can run and is proven equal; a named one runs or raises with the reason.
"""

import torch
from torch import Tensor

from aumcli.core.kernels import cpu, operators, reference, torch_ops
from aumcli.errors import AumError

BACKENDS = ("reference", "torch", "cpu", "triton", "mamba_ssm")


def available_backends(device: str = "cpu") -> dict[str, str]:
    """Tell for each backend why it can't run on a device ("cpu", "cuda", "mps"); an empty reason means that it can."""
    not_yet = "not part of this version: GPUs run the torch backend"
    return {"reference": "", "torch": "",
            "cpu": cpu.why_not() if device == "cpu" else f"the C kernels run on the CPU, not on {device}",
            "triton": not_yet, "mamba_ssm": not_yet}


def choose_backend(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """Name the backend that a call with such tensors runs.

    Raises:
        AumError: an unknown backend, or a named one that can't run here.
    """
    if backend == "auto":
        # float64 asks for more precision than the C kernels hold, so they are no equal there
        return "cpu" if device.type == "cpu" and dtype != torch.float64 and cpu.library is not None else "torch"
    if backend not in BACKENDS:
        raise AumError(f"there is no kernel backend {backend!r}", fix=f"choose one of: auto, {', '.join(BACKENDS)}")
    reason = available_backends(device.type)[backend]
    if not reason and backend == "cpu" and dtype == torch.float64:
        reason = "the C kernels compute in float32 and would lose float64's precision"
    if reason:
        raise AumError(f"the kernel backend {backend!r} can't run here: {reason}", fix="use backend 'auto' or 'torch'")
    return backend


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = None, z: Tensor | None = None,
    delta_bias: Tensor | None = None, delta_softplus: bool = True, reverse: bool = False, backend: str = "auto",
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
    chosen = choose_backend(backend, u.device, u.dtype)
    if chosen == "cpu":
        return operators.scan(u, delta, A, None, B, C, D, z, delta_bias, delta_softplus, reverse, False)
    module = reference if chosen == "reference" else torch_ops
    return module.selective_scan(*_wide(u, delta, A, B, C, D, z, delta_bias), delta_softplus, reverse).to(u.dtype)


def bidirectional_scan(
    u: Tensor, delta: Tensor, A: Tensor, A_b: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor,
    backend: str = "auto", published_gate_gradient: bool = False,
) -> Tensor:
    """Scan in both directions and add: the Fo-Bi block's pair, which shares all but A (paper, figure 1 b).

    Args:
        A, A_b: rates of the forward and the reversed direction, (e, n).
        published_gate_gradient: leave the reversed direction out of z's gradient, as the published code does.

    The rest as in `selective_scan`; D u counts twice, once for each direction.
    """
    chosen = choose_backend(backend, u.device, u.dtype)
    if chosen == "cpu":
        return operators.scan(u, delta, A, A_b, B, C, D, z, delta_bias, True, False, published_gate_gradient)
    module = reference if chosen == "reference" else torch_ops
    return module.bidirectional_scan(*_wide(u, delta, A, A_b, B, C, D, z, delta_bias), published_gate_gradient).to(u.dtype)


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, reverse: bool = False, backend: str = "auto",
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
    chosen = choose_backend(backend, x.device, x.dtype)
    if chosen == "cpu":
        return operators.conv(x, weight, bias, reverse)
    module = reference if chosen == "reference" else torch_ops
    return module.causal_conv1d(*_wide(x, weight, bias), reverse).to(x.dtype)


def add_rms_norm(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, backend: str = "auto",
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
    chosen = choose_backend(backend, x.device, x.dtype)
    if chosen == "cpu":
        return operators.norm(x, residual, weight, eps)
    module = reference if chosen == "reference" else torch_ops
    return module.add_rms_norm(*_wide(x, residual, weight), eps)


def _wide(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """float16 and bfloat16 tensors as float32: no backend keeps its state narrower."""
    return tuple(x.float() if x is not None and x.dtype in (torch.float16, torch.bfloat16) else x for x in tensors)

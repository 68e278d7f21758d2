"""Adapter to the optional CUDA packages mamba-ssm and causal-conv1d, whose kernels want (b, e, l)
and run forward only.
"""

import functools
import importlib
import importlib.util

from torch import Tensor

from aumcli.core.kernels import torch_ops

# package -> its CUDA module, the module that we call, its function
PARTS = {
    "mamba-ssm": ("selective_scan_cuda", "mamba_ssm.ops.selective_scan_interface", "selective_scan_fn"),
    "causal-conv1d": ("causal_conv1d_cuda", "causal_conv1d", "causal_conv1d_fn"),
}
# Without the variable mamba-ssm comes without the scan of Mamba-1 from the release after 2.3.2.post1 on, though it can
# be imported; in an isolated environment pip would build both for another torch than the one that is here.
INSTALL = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation"
BUILD_TOOLS = "pip install ninja packaging setuptools wheel"
# pip's cache may hold the very build that doesn't do
UPGRADE, ANEW = "--upgrade", "--force-reinstall --no-deps --no-cache-dir"


@functools.cache
def why_not() -> str:
    """Why the packages can't run here, and the command that mends it; empty where they can."""
    absent = [package for package in PARTS if importlib.util.find_spec(package.replace("-", "_")) is None]
    if absent:
        return (
            f"{' and '.join(absent)} not installed; where no prebuilt wheel fits your torch they need nvcc: "
            f"{BUILD_TOOLS} && {INSTALL} 'aumcli[cuda]'"
        )
    found = {package: problem for package in PARTS if (problem := _problem(package))}
    if not found:
        return ""
    how = ANEW if ANEW in (how for _, how in found.values()) else UPGRADE
    return f"{'; '.join(problem for problem, _ in found.values())}: {INSTALL} {how} {' '.join(found)}"


def _problem(package: str) -> tuple[str, str] | None:
    """What keeps one of the packages from running, and how pip mends it; None if it runs."""
    extension, module, function = PARTS[package]
    if importlib.util.find_spec(extension) is None:
        return f"{package} was installed without its CUDA module {extension}", ANEW
    try:
        importlib.import_module(extension)
    except (ImportError, OSError) as error:
        what = f"{extension} can't be loaded ({_brief(error)})"
        return f"{what}, as where {package} was built for another torch or CUDA", ANEW
    try:
        getattr(importlib.import_module(module), function)
    except Exception as error:  # of a package's own imports, which may raise anything
        return f"{package} can't be imported ({type(error).__name__}: {_brief(error)})", UPGRADE
    return None


def _brief(error: Exception) -> str:
    """The first line of a message, cut: a linker's may go on for pages."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


def _turned(x: Tensor, reverse: bool) -> Tensor:
    """(b, l, .) to the packages' (b, ., l), in the order of the scan."""
    return (x.flip(1) if reverse else x).transpose(1, 2).contiguous()


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
    """See `aumcli.core.kernels.selective_scan`; the reversed direction flips every operand and the result."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, B, C = (_turned(x, reverse) for x in (u, delta, B, C))
    z = None if z is None else _turned(z, reverse)
    y: Tensor = selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus).transpose(1, 2)
    return y.flip(1) if reverse else y


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
    """See `aumcli.core.kernels.bidirectional_scan`: two causal scans."""
    z_b = z.detach() if published_gate_gradient else z
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, True, False) + selective_scan(
        u, delta, A_b, B, C, D, z_b, delta_bias, True, True
    )


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor | None, reverse: bool) -> Tensor:
    """See `aumcli.core.kernels.causal_conv1d`."""
    from causal_conv1d import causal_conv1d_fn

    y: Tensor = causal_conv1d_fn(_turned(x, reverse), weight.contiguous(), bias, activation="silu").transpose(1, 2)
    return y.flip(1) if reverse else y


add_rms_norm = torch_ops.add_rms_norm  # no kernel of theirs adds and normalises without its own module

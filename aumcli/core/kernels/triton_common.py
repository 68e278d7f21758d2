"""What the Triton kernels' launchers share."""

import contextlib

import torch
from torch import Tensor

OPTIONS = {
    "enable_fp_fusion": True
}  # of every launch: multiply and add in one instruction, the default until Triton 3.10


def on_device(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Launch on the tensor's own GPU, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def strided(x: Tensor | None) -> Tensor | None:
    """x with unit stride over channels; copied only where need be."""
    return x if x is None or x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def flat(x: Tensor | None) -> Tensor | None:
    """A parameter as the kernels read it: contiguous float32."""
    return None if x is None else x.float().contiguous()


def any_of(x: Tensor | None, other: Tensor) -> Tensor:
    """x, or a tensor that stands in its place and is never read: a kernel's pointers can't be missing."""
    return other if x is None else x

"""The process's memory: kept instead of being given back and fetched anew; and what a training step keeps of it."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_memory() -> None:
    """Have malloc keep what is freed for the next tensor, until the process ends.

    glibc gives large blocks back at once, and each page of a fresh one costs a fault: a fourth of the time of a base
    model at 8192 tokens. For commands, not for a library that lives in someone's process. Elsewhere than on glibc
    nothing is done.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def physical_bytes() -> float:
    """The machine's memory in bytes; infinity where it doesn't say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # AttributeError: Windows
        return math.inf


def kept_bytes(compute: "Callable[[], Tensor]", weights: "Iterable[Tensor]") -> int:
    """Count what autograd keeps for the backward pass of a computation, each storage once.

    Args:
        compute: runs forward; its result is dropped.
        weights: are there anyway and don't count.
    """
    import torch

    known = {x.untyped_storage().data_ptr() for x in weights}
    kept: dict[int, int] = {}

    def keep(x: "Tensor") -> "Tensor":
        storage = x.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = compute()
    total = sum(kept.values())
    del result
    return total

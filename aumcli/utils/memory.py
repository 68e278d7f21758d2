"""The process's memory: its size, how it is kept for reuse, and what a training step keeps of it."""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
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


def peak_bytes() -> int:
    """The most memory that this process ever held; not on Windows."""
    if sys.platform == "linux":  # getrusage would count the parent's, from before the program was loaded
        return _status_bytes("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_bytes() -> int:
    """The memory that this process holds now, or held at most where the system doesn't report it; not on Windows."""
    return _status_bytes("VmRSS") if sys.platform == "linux" else peak_bytes()


def _status_bytes(key: str) -> int:
    """A size from Linux's table about this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")


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

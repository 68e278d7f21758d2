"""The process's memory: kept instead of being given back and fetched anew."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4       # glibc's malloc.h


def keep_memory() -> None:
    """Have malloc keep what is freed for the next tensor, until the process ends.

    glibc gives large blocks back at once, and each page of a fresh one costs a fault: a fourth of the time of a base model
    at 8192 tokens. For commands, not for a library that lives in someone's process. Elsewhere than on glibc nothing is done.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)

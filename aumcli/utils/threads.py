"""Threads: how many compute and decode, and mapping over them."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


SPINS = "2000"  # about 50 microseconds; benchmarks/busy.py measures it


def spin_shortly() -> None:
    """Let OpenMP's threads sleep soon when they wait, unless the user said how: GNU's spin for milliseconds.

    Between small operations that wait is quick on an idle machine. Where another process takes a core, the threads that
    work wait for a slice of it while the others spin, thousands of times an epoch. libgomp reads its variables when
    torch loads it.
    """
    if "torch" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


@contextmanager
def compute_threads(count: int | None) -> Iterator[None]:
    """Limit torch to `count` threads inside the block; None changes nothing.

    Small operations are fastest on one thread: distributing them takes as long as computing them.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """Threads that decode sounds unless the caller says how many: half the cores, at most 4.

    More would wait for Python's lock.
    """
    return min(4, max(1, (os.cpu_count() or 1) // 2))


def map_in_parts(
    threads: ThreadPoolExecutor, parts: int, function: Callable[[T], R], items: Sequence[T]
) -> Iterator[R]:
    """Map in threads that get `parts` pieces of the list, not single items: a short clip decodes as fast as a thread
    receives it. All pieces are submitted at once, before the result is iterated over.
    """
    size = -(-len(items) // parts) or 1
    pieces = [items[i : i + size] for i in range(0, len(items), size)]
    return chain.from_iterable(threads.map(lambda piece: [function(item) for item in piece], pieces))

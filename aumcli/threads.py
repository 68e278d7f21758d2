"""Work shared out to threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")


def decoders() -> int:
    """Threads that decode sounds, where nobody says how many: half the cores, 4 at most; more would wait for Python's lock."""
    return min(4, max(1, (os.cpu_count() or 1) // 2))


def map_in_parts(threads: ThreadPoolExecutor, parts: int, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Map in threads, each of which gets one piece of the list: for short clips, handing over one by one takes as long as decoding."""
    size = -(-len(items) // parts) or 1
    pieces = [items[i : i + size] for i in range(0, len(items), size)]
    return chain.from_iterable(threads.map(lambda piece: [function(item) for item in piece], pieces))

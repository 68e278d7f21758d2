"""Cutting sounds of any length into the windows that a model scores."""

from collections.abc import Iterable, Iterator

import numpy as np

LONG_CLIP_S = 30.0  # longer clips are never completely in memory


def cut_windows(blocks: Iterable[np.ndarray], size: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut a sound that comes in blocks into windows; at most a block and two windows are held.

    A sound of at most `size` samples is one window. A longer one is covered by windows that start every `hop` samples;
    the last ends with the sound, so that nothing is left out.

    Args:
        blocks: (samples,) float32 each, one after another.
        size: samples per window.
        hop: samples from one window's start to the next, at most `size`.

    Yields:
        First sample and samples of each window.
    """
    rest, origin, start, last = np.empty(0, dtype=np.float32), 0, 0, None  # rest[0] is sample `origin`
    for block in blocks:
        rest = np.concatenate([rest, block]) if len(rest) else block
        end = origin + len(rest)
        while start + size <= end:
            yield start, rest[start - origin : start - origin + size]
            start, last = start + hop, start
        needed = max(0, min(start, end - size) - origin)  # the last window may reach back
        rest, origin = rest[needed:], origin + needed
    end = origin + len(rest)
    if last is None:
        yield 0, rest
    elif last + size < end:
        yield end - size, rest[len(rest) - size :]

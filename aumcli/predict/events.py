"""From scores of windows to what is said of a clip: mean scores, events, and curves for a picture."""

from collections import deque
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

CURVE_POINTS = 2048  # a curve has at most so many; neighbours are joined by their maximum


@dataclass(frozen=True, slots=True)
class Event:
    """A stretch of time, in seconds from the clip's beginning, in which every window reaches a class's threshold."""

    start_s: float
    stop_s: float
    label: str
    score: float  # the highest of its windows


class Events:
    """Finds events while windows come in, one after another.

    Windows that reach the threshold and overlap or touch, or have a gap of at most `max_gap` between them, are one
    event: from the first sample of the first of them to the last of the last. So events of a class never overlap, and a
    window counts once.

    Args:
        thresholds: least score of each class, (classes,).
        smooth: odd number of neighbouring windows whose mean is compared with it; fewer at the ends.
        max_gap: samples.
    """

    def __init__(self, thresholds: np.ndarray, smooth: int, max_gap: int = 0):
        self.thresholds, self.half, self.max_gap = thresholds, smooth // 2, max_gap
        self.found: list[tuple[int, int, int, float]] = []  # start, stop, class, score
        self._open: dict[int, tuple[int, int, float]] = {}  # class -> start, stop, score
        self._rows: deque[tuple[int, int, np.ndarray]] = deque(maxlen=smooth)
        self._ahead = 0  # windows in `_rows` whose mean was not compared yet

    def add(self, start: int, stop: int, scores: np.ndarray, reached: list[int] | None = None) -> None:
        """Add the next window.

        It is given as its first sample, the one after its last, its scores (classes,), and where it is known which of
        them reach their threshold.
        """
        if self.half == 0:
            return self._apply_threshold(start, stop, scores, reached)
        self._rows.append((start, stop, scores))
        self._ahead += 1
        if self._ahead > self.half:
            self._apply_to_smoothed()

    def finish(self) -> list[tuple[int, int, int, float]]:
        """All events as (first sample, the one after the last, class, score), by time."""
        while self._ahead:
            if len(self._rows) > self.half + self._ahead:  # the oldest is no neighbour of the next any more
                self._rows.popleft()
            self._apply_to_smoothed()
        self.found += [(start, stop, label, score) for label, (start, stop, score) in self._open.items()]
        self._open = {}
        return sorted(self.found, key=lambda event: event[:3])

    def _apply_to_smoothed(self) -> None:
        start, stop, _ = self._rows[-self._ahead]
        self._apply_threshold(start, stop, np.mean([scores for _, _, scores in self._rows], axis=0))
        self._ahead -= 1

    def _apply_threshold(self, start: int, stop: int, scores: np.ndarray, reached: list[int] | None = None) -> None:
        for label in np.flatnonzero(scores >= self.thresholds).tolist() if reached is None else reached:
            score, before = float(scores[label]), self._open.get(label)
            if before is not None and start <= before[1] + self.max_gap:
                self._open[label] = before[0], stop, max(before[2], score)
                continue
            if before is not None:
                self.found.append((before[0], before[1], label, before[2]))
            self._open[label] = start, stop, score


class Curves:
    """Scores over time in bounded memory: when there are too many points, each two become their maximum."""

    def __init__(self) -> None:
        self._points: list[np.ndarray] = []  # (classes,) each
        self._per_point, self._in_last = 1, 0  # windows

    def add(self, scores: np.ndarray) -> None:
        """Add the next window's scores, (classes,)."""
        if self._points and self._in_last < self._per_point:
            self._points[-1], self._in_last = np.maximum(self._points[-1], scores), self._in_last + 1
            return
        if len(self._points) == CURVE_POINTS:
            self._points = [np.maximum(*pair) for pair in zip(self._points[::2], self._points[1::2])]
            self._per_point *= 2
        self._points.append(scores)
        self._in_last = 1

    def of(self, labels: list[int]) -> tuple[int, list[list[float]]]:
        """Windows per point, and the points of each of some classes, four decimals."""
        table = np.round(np.stack(self._points).astype(np.float64), 4)  # (points, classes)
        return self._per_point, [table[:, label].tolist() for label in labels]


class ClipScores:
    """All that is kept of a clip while its windows are scored.

    Args:
        thresholds, smooth, max_gap: see `Events`.
        curves: keep scores over time too.
    """

    def __init__(self, thresholds: np.ndarray, smooth: int, curves: bool, max_gap: int = 0):
        self.windows, self.total, self.embedded = 0, 0.0, 0.0  # the latter two: sums over windows
        self.first_window = -1  # where the first is in a `WindowStore`
        self.events = Events(thresholds, smooth, max_gap)
        self.curves = Curves() if curves else None

    @property
    def mean(self) -> np.ndarray:
        """Mean scores of the windows, (classes,) float32."""
        return (self.total / self.windows).astype(np.float32)

    @property
    def embedding(self) -> np.ndarray | None:
        """Mean embedding of the windows, (d,) float32; None where none were given."""
        return (self.embedded / self.windows).astype(np.float32) if isinstance(self.embedded, np.ndarray) else None


def add_batch(
    clips: list[tuple[ClipScores, list[tuple[int, int]]]], scores: np.ndarray, embeddings: np.ndarray | None
) -> None:
    """Give the scores (n, classes) and embeddings (n, d) of a batch of windows to their clips.

    The windows stand clip behind clip, with the spans (first sample, the one after the last) that stand beside each.
    What is computed of scores is computed of all at once: one by one, each operation would wait for a thread that
    decodes to let go of Python's lock.
    """
    counts = [len(spans) for _, spans in clips]
    starts, clip_of = [0, *accumulate(counts)], np.repeat(np.arange(len(clips)), counts)
    totals = _added([clip.total for clip, _ in clips], clip_of, scores)  # (clips, classes)
    sums = None if embeddings is None else _added([clip.embedded for clip, _ in clips], clip_of, embeddings)
    reached: list[list[int]] = [[] for _ in range(len(scores))]
    for row, label in np.argwhere(scores >= clips[0][0].events.thresholds).tolist():
        reached[row].append(label)
    for i, (clip, spans) in enumerate(clips):
        clip.windows += len(spans)
        clip.total = totals[i]
        if sums is not None:
            clip.embedded = sums[i]
        for row, (start, stop) in enumerate(spans, starts[i]):
            clip.events.add(start, stop, scores[row], reached[row])
            if clip.curves is not None:
                clip.curves.add(scores[row])


def _added(sums: list[np.ndarray | float], clip_of: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The sums of clips, (d,) each, with the values (n, d) of their windows added, (clips, d) float64.

    One window after another: a pairwise sum would round by where batches begin, and scores that are read from a file
    come in other batches.
    """
    totals = np.stack([np.broadcast_to(each, values.shape[1:]) for each in sums]).astype(np.float64)
    np.add.at(totals, clip_of, values)
    return totals

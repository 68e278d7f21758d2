"""How many annotated events a model finds in recordings, and how many of its own are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aumcli.data.clips import Clips
from aumcli.false_alarms import ScoredRecording


class ClassEvents(NamedTuple):
    """Events of a class: annotated, of these found, reported by the model, of these right."""

    label: str
    annotated: int
    found: int
    reported: int
    right: int

    @property
    def recall(self) -> float:
        """Share of the annotated events that are found; NaN without any."""
        return self.found / self.annotated if self.annotated else float("nan")

    @property
    def precision(self) -> float:
        """Share of the reported events that are right; NaN without any."""
        return self.right / self.reported if self.reported else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where nothing is found or right, NaN without annotated events."""
        if not self.annotated:
            return float("nan")
        return 2 * self.precision * self.recall / (self.precision + self.recall) if self.found and self.right else 0.0


@dataclass(frozen=True)
class EventScores:
    """Events in the recordings of a split, at the model's thresholds.

    An event is right where it overlaps an annotated one of its class, or is at most `tolerance_s` away; that one is
    then found. Reported events where a row of the annotation is in doubt count neither as right nor as wrong.
    """

    recordings: int
    hours: float
    tolerance_s: float
    classes: tuple[ClassEvents, ...]

    @property
    def total(self) -> ClassEvents:
        """Of all classes together."""
        counts = zip(*((row.annotated, row.found, row.reported, row.right) for row in self.classes))
        return ClassEvents("all", *([*map(sum, counts)] or [0] * 4))

    @property
    def false_alarms_per_hour(self) -> float:
        """Reported events that are wrong."""
        return (self.total.reported - self.total.right) / self.hours

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold them: None where a figure is undefined."""

        def row(each: ClassEvents) -> dict[str, object]:
            rates = {"precision": each.precision, "recall": each.recall, "f1": each.f1}
            return each._asdict() | {name: None if np.isnan(value) else value for name, value in rates.items()}

        return {
            "recordings": self.recordings,
            "hours": self.hours,
            "tolerance_s": self.tolerance_s,
            "false_alarms_per_hour": self.false_alarms_per_hour,
            "all": row(self.total),
            "classes": [row(each) for each in self.classes],
        }


ROUNDING_S = 1e-6
Spans = dict[str, list[tuple[float, float, int]]]  # recording -> start and stop in s, and class, -1 for one in doubt


def annotated_spans(events: Clips, clips: Clips, index: Mapping[str, int]) -> Spans:
    """The annotated events in the recordings that some clips are of.

    Args:
        events: see `aumcli.data.manifest.read_events`; recordings that they don't name were not annotated.
        clips: for example of a split.
        index: label id -> the model's index of the class.
    """
    recordings, spans = {*clips.paths()}, Spans()
    for event in events:
        path = str(event.path)
        if path not in recordings:
            continue
        own = spans.setdefault(path, [])
        if event.start_s is not None and event.stop_s is not None:
            own += [(event.start_s, event.stop_s, index[label]) for label in event.labels if label in index]
            own += [] if event.labels else [(event.start_s, event.stop_s, -1)]
    return spans


def score_events(
    recordings: Mapping[str, ScoredRecording],
    annotated: Spans,
    thresholds: np.ndarray,
    labels: Sequence[str],
    rate_hz: int,
    hours: float,
    tolerance_s: float = 0.0,
) -> EventScores:
    """Compare a model's events with annotated ones.

    Args:
        recordings: path -> scores of its windows.
        annotated: see `annotated_spans`.
        thresholds: least score of an event, (classes,).
        labels: names of the classes.
        rate_hz: of the samples that windows are counted in.
        hours: of all recordings.
        tolerance_s: see `EventScores`.
    """
    counts = np.zeros((len(labels), 4), dtype=np.int64)
    for path, recording in recordings.items():
        reported: list[list[tuple[float, float]]] = [[] for _ in labels]
        for place, start, stop in recording.events(thresholds):
            reported[place].append((start / rate_hz, stop / rate_hz))
        doubtful = [(start, stop) for start, stop, label in annotated[path] if label < 0]
        for i, own in enumerate(reported):
            truth = [(start, stop) for start, stop, label in annotated[path] if label == i]
            right = _touching(own, truth, tolerance_s)
            ignored = ~right & _touching(own, doubtful, tolerance_s)
            found = int(_touching(truth, own, tolerance_s).sum())
            counts[i] += [len(truth), found, len(own) - int(ignored.sum()), int(right.sum())]
    rows = (ClassEvents(label, *map(int, row)) for label, row in zip(labels, counts) if row.any())
    return EventScores(len(recordings), hours, tolerance_s, tuple(rows))


def _touching(
    spans: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]], tolerance_s: float
) -> np.ndarray:
    """Which spans overlap one of the others, or are at most so far from it: (spans,) bool."""
    if not spans or not others:
        return np.zeros(len(spans), dtype=bool)
    starts, stops = np.array(spans, dtype=float).T
    begins, ends = np.array(sorted(others), dtype=float).T
    near = tolerance_s + ROUNDING_S if tolerance_s else -ROUNDING_S  # what only touches doesn't overlap
    latest_end = np.maximum.accumulate(ends)
    begun = np.searchsorted(begins, stops + near, side="right")  # of the others, those that begin early enough
    return np.asarray((begun > 0) & (latest_end[np.maximum(begun, 1) - 1] >= starts - near))

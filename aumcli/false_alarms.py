"""How often a model reports an event in recordings that hold none of its classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aumcli.classifier import BATCH_WINDOWS, Classifier
from aumcli.data.decoding.audio import open_audio
from aumcli.data.decoding.windows import cut_windows
from aumcli.utils.progress import progress

GRID = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.999)


class Rates(NamedTuple):
    """At some thresholds: see `FalseAlarms`."""

    per_hour: float
    time: float
    recall: float


@dataclass(frozen=True)
class FalseAlarms:
    """Events in recordings of no class, and what share of the clips of a class is found, by threshold.

    Attributes:
        files: recordings.
        hours: of them.
        windows: scored in them, half overlapping.
        thresholds: of all classes.
        per_hour: events at each of these, of all classes together.
        time: share of the windows in which any class reaches it: an event may last for an hour.
        recall: share of the clips whose own class reaches it; NaN without clips.
        own_thresholds: the same at the model's own.
        classes: events per hour of each class that has any there, most first.
    """

    files: int
    hours: float
    windows: int
    thresholds: tuple[float, ...]
    per_hour: tuple[float, ...]
    time: tuple[float, ...]
    recall: tuple[float, ...]
    own_thresholds: Rates
    classes: dict[str, float]


@dataclass(frozen=True)
class ScoredRecording:
    """The windows of a recording: first sample and the one after the last of each, (n,), and scores, (n, classes)."""

    starts: np.ndarray
    stops: np.ndarray
    scores: np.ndarray

    def events(self, thresholds: np.ndarray) -> list[tuple[int, int, int]]:
        """Events, joined as `aumcli.predict.events.Events` does: class, first sample and the one after the last.

        Args:
            thresholds: least score, (classes,).
        """
        reached, found = self.scores >= thresholds, []
        for label in np.flatnonzero(reached.any(axis=0)):
            rows = np.flatnonzero(reached[:, label])
            firsts = np.flatnonzero(np.append(True, self.starts[rows[1:]] > self.stops[rows[:-1]]))
            lasts = np.append(firsts[1:], len(rows)) - 1
            spans = zip(self.starts[rows[firsts]].tolist(), self.stops[rows[lasts]].tolist())
            found += [(int(label), start, stop) for start, stop in spans]
        return found


def score_recordings(classifier: Classifier, paths: Sequence[Path]) -> tuple[list[ScoredRecording], float]:
    """Score the windows of recordings, as `aum predict` does, and say how many hours they are.

    Raises:
        AumError: one can't be read.
    """
    rate_hz, recordings, seconds = classifier.config.frontend.sample_rate_hz, [], 0.0
    for path in progress(paths, "scoring", len(paths), "recording"):
        with open_audio(path, rate_hz) as (info, blocks):
            windows = cut_windows(blocks, *classifier.window_samples)
            spans, rows = [], []
            while batch := list(islice(windows, BATCH_WINDOWS)):
                spans += [(start, start + len(window)) for start, window in batch]
                rows.append(classifier.score_windows([window for _, window in batch]))
            starts, stops = np.array(spans).T
            recordings.append(ScoredRecording(starts, stops, np.concatenate(rows)))
            seconds += info.duration_s
    return recordings, seconds / 3600


def count_false_alarms(
    recordings: Sequence[ScoredRecording],
    hours: float,
    scores: np.ndarray,
    positive: np.ndarray,
    own: np.ndarray,
    labels: Sequence[str],
) -> FalseAlarms:
    """Count events of recordings of no class: windows that reach a threshold and touch or overlap are one.

    Args:
        recordings: of no class.
        hours: of all of them.
        scores: of clips of known classes, (clips, classes).
        positive: their classes, (clips, classes) bool.
        own: the model's thresholds, (classes,).
        labels: names of the classes.
    """

    def events(at: np.ndarray) -> np.ndarray:
        labelled = [label for each in recordings for label, _, _ in each.events(at)]
        return np.bincount(labelled, minlength=len(at))

    def time(at: np.ndarray) -> float:
        return float(np.concatenate([(each.scores >= at).any(axis=1) for each in recordings]).mean())

    at_own = events(own)
    classes = {labels[i]: round(float(at_own[i] / hours), 4) for i in np.argsort(-at_own) if at_own[i]}
    per_hour = [events(np.full(len(own), t)).sum() / hours for t in GRID]
    return FalseAlarms(
        len(recordings),
        hours,
        sum(len(each.scores) for each in recordings),
        GRID,
        tuple(map(float, per_hour)),
        tuple(time(np.full(len(own), t)) for t in GRID),
        tuple(_recall(scores, positive, np.full(len(own), t)) for t in GRID),
        Rates(float(at_own.sum() / hours), time(own), _recall(scores, positive, own)),
        classes,
    )


def _recall(scores: np.ndarray, positive: np.ndarray, thresholds: np.ndarray) -> float:
    return float((scores >= thresholds)[positive].mean()) if positive.any() else float("nan")

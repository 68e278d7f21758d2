"""How often a model reports an event in recordings that hold none of its classes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from aumcli.classifier import BATCH_WINDOWS, Classifier
from aumcli.data.decoding.audio import open_audio
from aumcli.data.decoding.windows import cut_windows
from aumcli.utils.progress import progress

GRID = (*(round(0.05 * i, 2) for i in range(1, 20)), 0.97, 0.98, 0.99, 0.995, 0.999)


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
        own: events per hour, share of the windows and recall at the model's own thresholds.
        classes: events per hour of each class that has any there, most first.
    """

    files: int
    hours: float
    windows: int
    thresholds: tuple[float, ...]
    per_hour: tuple[float, ...]
    time: tuple[float, ...]
    recall: tuple[float, ...]
    own: tuple[float, float, float]
    classes: dict[str, float]


def score_recordings(classifier: Classifier, paths: Iterable[Path | str]) -> tuple[list[np.ndarray], float]:
    """Score the windows of recordings, as `aum predict` does: (windows, classes) float32 of each, and their hours.

    Raises:
        AumError: one can't be read.
    """
    rate_hz, scores, seconds = classifier.config.frontend.sample_rate_hz, [], 0.0
    for path in progress(paths, "scoring", None):
        with open_audio(path, rate_hz) as (info, blocks):
            windows = (window for _, window in cut_windows(blocks, *classifier.window_samples))
            rows = []
            while batch := list(islice(windows, BATCH_WINDOWS)):
                rows.append(classifier.score_windows(batch))
            scores.append(np.concatenate(rows))
            seconds += info.duration_s
    return scores, seconds / 3600


def count_false_alarms(
    recordings: Sequence[np.ndarray],
    hours: float,
    scores: np.ndarray,
    positive: np.ndarray,
    own: np.ndarray,
    labels: Sequence[str],
) -> FalseAlarms:
    """Count events of recordings of no class: windows that follow each other and reach a threshold are one.

    Args:
        recordings: scores of the windows of each, (windows, classes).
        hours: of all of them.
        scores: of clips of known classes, (clips, classes).
        positive: their classes, (clips, classes) bool.
        own: the model's thresholds, (classes,).
        labels: names of the classes.
    """

    def events(at: np.ndarray) -> np.ndarray:
        return np.sum([_events(each, at) for each in recordings], axis=0)

    def time(at: np.ndarray) -> float:
        return float(np.concatenate([(each >= at).any(axis=1) for each in recordings]).mean())

    at_own = events(own)
    classes = {labels[i]: round(float(at_own[i] / hours), 4) for i in np.argsort(-at_own) if at_own[i]}
    per_hour = [events(np.full(len(own), t)).sum() / hours for t in GRID]
    return FalseAlarms(
        len(recordings),
        hours,
        sum(map(len, recordings)),
        GRID,
        tuple(map(float, per_hour)),
        tuple(time(np.full(len(own), t)) for t in GRID),
        tuple(_recall(scores, positive, np.full(len(own), t)) for t in GRID),
        (float(at_own.sum() / hours), time(own), _recall(scores, positive, own)),
        classes,
    )


def _events(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Events of each class, (classes,), in the windows of a recording, (windows, classes)."""
    reached = scores >= thresholds
    begun = reached.copy()
    begun[1:] &= ~reached[:-1]
    return begun.sum(axis=0)


def _recall(scores: np.ndarray, positive: np.ndarray, thresholds: np.ndarray) -> float:
    return float((scores >= thresholds)[positive].mean()) if positive.any() else float("nan")

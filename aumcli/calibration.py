"""Whether scores mean what they say: calibration error, a temperature that lowers it, thresholds for a precision."""

import math
from collections.abc import Sequence

import numpy as np

from aumcli.metrics import answers

BINS = 15
NEVER = "never"  # stands for the threshold of a class that has none of the wanted precision
TEMPERATURES = (0.1, 10.0)  # the range in which one is looked for
STEPS = 60  # of the search, each of which leaves 0.62 of the range


def reliability(scores: np.ndarray, targets: np.ndarray, background: bool = False) -> list[tuple[float, float, int]]:
    """How often clips are answered rightly, by the score of the answer.

    Args:
        scores: (clips, classes) in 0..1.
        targets: class index of each clip, -1 for none, (clips,).
        background: the rest of a clip's scores to 1 is that of a background class, whose answer is -1.

    Returns:
        For each of BINS equal ranges of the score that has clips: mean score, share of right answers, clips.
    """
    confidence = scores.max(axis=1)  # (clips,)
    if background:
        confidence = np.maximum(confidence, 1 - scores.sum(axis=1))
    right = answers(scores, background) == targets
    places = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    return [
        (float(confidence[places == i].mean()), float(right[places == i].mean()), int((places == i).sum()))
        for i in range(BINS)
        if (places == i).any()
    ]


def calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error: the mean distance of score and share of right answers, each bin by its clips.

    Source: Guo et al. 2017.
    """
    clips = sum(count for _, _, count in bins)
    return sum(abs(score - share) * count for score, share, count in bins) / clips if clips else math.nan


def fit_temperature(scores: np.ndarray, targets: np.ndarray, activation: str) -> float:
    """The temperature of the lowest cross entropy: logits divided by it give better calibrated scores.

    Args:
        scores: (clips, classes) in 0..1, at a temperature of 1.
        targets: (clips, classes) of 0 and 1; a clip of no class has none.
        activation: of the scores, see `ModelConfig.activation`.

    Returns:
        A number within TEMPERATURES; 1.0 without clips.

    Source: Guo et al. 2017; the targets are smoothed as by Platt 1999, since a model that makes no mistake in a few
        clips makes some in more: without it the temperature would go to its lower end.
    """
    if not len(scores):
        return 1.0
    scores = np.clip(scores.astype(np.float64), 1e-12, 1 - 1e-12)
    if activation == "sigmoid":
        logits = np.stack([np.log1p(-scores), np.log(scores)], axis=-1).reshape(-1, 2)  # of no and yes
        truth = np.stack([1 - targets, targets], axis=-1).reshape(-1, 2).astype(np.float64)
    else:
        truth = targets.astype(np.float64)
        if activation == "softmax_background":
            rest = np.clip(1 - scores.sum(axis=1, keepdims=True), 1e-12, 1)
            scores, truth = np.hstack([scores, rest]), np.hstack([truth, 1 - truth.sum(axis=1, keepdims=True)])
        logits = np.log(scores)
    share = 1 / (len(scores) + 2)
    truth = truth * (1 - share) + (1 - truth) * share / (truth.shape[1] - 1)

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
        return float(-(truth * (scaled - log_sum)).sum(axis=1).mean())

    low, high = map(math.log, TEMPERATURES)
    ratio = (math.sqrt(5) - 1) / 2  # golden section: the loss has one minimum
    for _ in range(STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return round(math.exp((low + high) / 2), 4)


def thresholds_for_precision(scores: np.ndarray, positive: np.ndarray, precision: float) -> list[float | None]:
    """For each class the lowest score from which on a share of at least `precision` of what has it is of the class.

    Args:
        scores: (n, classes) in 0..1.
        positive: (n, classes) bool, what is of the class.
        precision: the wanted share.

    Returns:
        For each class a score between the lowest that has the precision and the next lower one, where they differ by
        more than rounding to four decimals; None where none has that precision.
    """
    return [_threshold(column, truth, precision) for column, truth in zip(scores.T, positive.T)]


def _threshold(scores: np.ndarray, positive: np.ndarray, precision: float) -> float | None:
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(positive[order])
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))  # equal scores are one threshold
    good = ends[(hits[ends] >= precision * (ends + 1)) & (hits[ends] > 0)]
    if not len(good):
        return None
    lowest, last = float(ranked[good[-1]]), good[-1] + 1
    below = float(ranked[last]) if last < len(ranked) else 0.0
    return math.ceil(1e4 * (lowest + below) / 2) / 1e4 if lowest - below > 2e-4 else lowest

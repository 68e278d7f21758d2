"""Is a difference between two variants more than chance? Over seeds, and over the clips of the reported split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aumcli.utils.text import counted

DRAWS = 1000  # of the bootstrap
LEVEL = 0.05

Scores = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # of two variants, by seed, (clips, classes) each
# right in the first alone and in the second alone, p, and the bootstrap's differences (draws,)
OverClips = tuple[int | None, int | None, float, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """The first variant against the second, over the seeds that both have; differences are first minus second.

    Figures over seeds speak of other seeds of the same training; figures over clips of these trained models on other
    clips.
    """

    first: str
    second: str
    metric: str
    seeds: tuple[int, ...]
    difference: float  # mean over the seeds
    t: float | None  # paired t-test over seeds; None where it isn't defined
    p_seeds: float | None
    interval_seeds: tuple[float, float] | None  # 95 %
    clips: int
    only_first: int | None  # right in the first alone, over clips and seeds; None for several labels
    only_second: int | None
    p_clips: float
    interval_clips: tuple[float, float]  # 95 %, bootstrap

    def sentences(self) -> list[str]:
        """What the figures say, in words."""
        points = f"{100 * self.difference:+.2f} points"
        seeds = counted(len(self.seeds), "paired seed")
        lines = [f"{self.metric}, {self.first} minus {self.second}: {points}, mean over {seeds}.", self._over_seeds()]
        low, high = (100 * x for x in self.interval_clips)
        if self.only_first is None:
            test = f"paired bootstrap, {_p(self.p_clips)}"
        else:
            test = (
                f"{self.only_first} times right in {self.first} alone, "
                f"{self.only_second} times in {self.second} alone; "
                f"exact McNemar test on each clip's sum over the seeds, {_p(self.p_clips)}"
            )
        lines.append(
            f"Over {counted(self.clips, 'clip')}, these trained models taken as they are: {test}; "
            f"bootstrap 95 % interval {low:+.2f} to {high:+.2f}."
        )
        return lines

    def _over_seeds(self) -> str:
        if self.t is None or self.p_seeds is None or self.interval_seeds is None:
            return "Over seeds: no test is possible with one seed, or where all seeds differ alike."
        low, high = (100 * x for x in self.interval_seeds)
        return (
            f"Over seeds: paired t({len(self.seeds) - 1}) = {self.t:.2f}, {_p(self.p_seeds)}, 95 % interval "
            f"{low:+.2f} to {high:+.2f}."
        )


def compare(
    first: str,
    second: str,
    metric: str,
    seeds: Sequence[int],
    scores: Scores,
    targets: np.ndarray,
    values: tuple[Sequence[float], Sequence[float]],
) -> Comparison:
    """Compare two variants that were trained with the same seeds and tested on the same clips.

    Args:
        first, second: their names.
        metric: "accuracy" or "mAP".
        seeds: n of them.
        scores: of both, on the reported clips.
        targets: (clips,) classes, or (clips, classes) zeros and ones.
        values: each variant's metric by seed.

    Source: McNemar 1947 for one seed; for several, the same test of flipped signs on each clip's sum of differences,
    exact.
    """
    differences = np.subtract(*values)
    t, p_seeds, interval = _over_seeds(differences)
    even = np.full(len(targets), 1 / len(targets))
    weights = np.random.default_rng(0).multinomial(len(targets), even, size=DRAWS)  # (draws, clips)
    over_clips = _over_clips if targets.ndim == 1 else _over_multi_label_clips
    only_first, only_second, p_clips, drawn = over_clips(scores, targets, weights)
    low, high = np.quantile(drawn, (LEVEL / 2, 1 - LEVEL / 2))
    return Comparison(
        first,
        second,
        metric,
        tuple(seeds),
        float(differences.mean()),
        t,
        p_seeds,
        interval,
        len(targets),
        only_first,
        only_second,
        p_clips,
        (float(low), float(high)),
    )


def _over_clips(scores: Scores, targets: np.ndarray, weights: np.ndarray) -> OverClips:
    """Of clips with one label each: an exact test, and the bootstrap; the answer to clips of no class is nothing."""
    wanted = [np.where(targets < 0, each.shape[1] - 1, targets) for each in (one[0] for one in scores)]
    right = [
        np.stack([each.argmax(1) == truth for each in one]).astype(int) for one, truth in zip(scores, wanted)
    ]  # (n, clips) each
    by_clip = (right[0] - right[1]).sum(0)  # (clips)
    only_first, only_second = (int((right[i] > right[1 - i]).sum()) for i in (0, 1))
    drawn = weights @ by_clip / (len(targets) * len(right[0]))  # (draws)
    return only_first, only_second, sign_flip_p(by_clip), drawn


def _over_multi_label_clips(scores: Scores, targets: np.ndarray, weights: np.ndarray) -> OverClips:
    """Of clips with several labels: the bootstrap alone."""
    drawn = np.mean(
        [weighted_map(a, targets, weights) - weighted_map(b, targets, weights) for a, b in zip(*scores)], axis=0
    )  # (draws)
    drawn = drawn[np.isfinite(drawn)]  # of few clips a draw can have none of any class
    p = min(1.0, 2 * (1 + min((drawn <= 0).sum(), (drawn >= 0).sum())) / (1 + len(drawn)))
    return None, None, float(p), drawn


def _over_seeds(differences: np.ndarray) -> tuple[float | None, float | None, tuple[float, float] | None]:
    """t, p and 95 % interval of a paired t-test; None where there is none."""
    from scipy.stats import ttest_1samp

    n = len(differences)
    if n < 2 or np.ptp(differences) < 1e-12:
        return None, None, None
    result = ttest_1samp(differences, 0.0)
    low, high = result.confidence_interval(1 - LEVEL)
    return float(result.statistic), float(result.pvalue), (float(low), float(high))


def sign_flip_p(differences: np.ndarray) -> float:
    """How likely a sum at least as far from zero is, if each clip's difference had either sign alike: exact, two-sided.

    Args:
        differences: integers; 1, 0 and -1 make it McNemar's exact test.
    """
    from scipy.stats import binom

    chances = np.ones(1)  # of each sum, from the lowest to the highest
    for size in range(1, int(np.abs(differences).max(initial=0)) + 1):
        n = int((np.abs(differences) == size).sum())
        steps = np.zeros(2 * size * n + 1)
        steps[:: 2 * size] = binom.pmf(np.arange(n + 1), n, 0.5)
        chances = np.convolve(chances, steps)
    sums = np.arange(len(chances)) - len(chances) // 2
    return min(1.0, float(chances[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def weighted_map(scores: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean average precision for each of many weightings of the clips.

    Args:
        scores, targets: (clips, classes).
        weights: (draws, clips); how often each clip was drawn.

    Returns:
        (draws), over the classes that a draw has positive clips of, NaN where it has none; equal scores count as one
        threshold.
    """
    from scipy.sparse import csr_array

    by_clip = np.ascontiguousarray(weights.T, dtype=np.float32)  # (clips, draws): integers
    precisions: list[np.ndarray] = []  # of each class, (draws)
    for column, positive in zip(scores.T, targets.T):
        order = np.argsort(-column, kind="stable")
        ordered, hits = -column[order], np.flatnonzero(positive[order] > 0)  # (positives)
        if len(hits) in (0, len(order)):
            continue
        # precision counts at the positives alone: at how many clips each threshold stands, equal scores together
        bounds, at = np.unique(np.searchsorted(ordered, ordered[hits], side="right"), return_inverse=True)
        above = order[: bounds[-1]]
        ones = np.ones(len(above), np.float32)
        steps = csr_array((ones, above, [0, *bounds]), (len(bounds), len(order)))  # (thresholds, clips)
        drawn = (steps @ by_clip).cumsum(0, dtype=float)  # (thresholds, draws)
        right = by_clip[order[hits]]  # (positives, draws)
        found = right.cumsum(0, dtype=float)[np.searchsorted(hits, bounds) - 1]  # (thresholds, draws)
        with np.errstate(invalid="ignore"):
            precisions.append((right * (found / np.maximum(drawn, 1))[at]).sum(0) / right.sum(0, dtype=float))
    by_class = np.array(precisions).reshape(-1, len(weights))  # (classes, draws)
    known = np.isfinite(by_class)
    with np.errstate(invalid="ignore"):
        return np.where(known, by_class, 0.0).sum(0) / known.sum(0)


def _p(p: float) -> str:
    return f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.1e}"

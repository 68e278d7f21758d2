"""How good scores are: accuracy, mAP, AUC, d-prime, and precision, recall and F1 of every class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from aumcli.config import NOTHING
from aumcli.errors import AumError
from aumcli.utils.text import counted, plural

KEPT = 0.95  # of the clips of known classes
Z95 = 1.959963984540054  # of a normal distribution, 95 % lie within this many standard deviations


@dataclass(frozen=True)
class ClassMetrics:
    """One class against all others; NaN where a figure is not defined (no clip of the class, none predicted)."""

    label: str
    support: int  # clips that have this label
    predicted: int  # clips that were given it
    precision: float
    recall: float
    f1: float
    average_precision: float
    roc_auc: float


@dataclass(frozen=True)
class BackgroundMetrics:
    """What a model with a background class answers with nothing."""

    clips: int  # of no class
    rejected: float  # share of these that are answered with nothing; NaN without any
    missed: float  # share of the clips of a class that are


@dataclass(frozen=True)
class Metrics:
    """What `evaluate_scores` found; None where a figure is not defined for this kind of data.

    Clips of no class count in `background` and as negatives of every class, and in nothing else.
    """

    clips: int
    classes: int
    multi_label: bool
    accuracy: float | None  # None for multi-label data
    top5_accuracy: float | None  # None for multi-label data and for five classes or fewer
    macro_f1: float  # over the classes that some clip has
    mean_average_precision: float
    mean_auc: float
    d_prime: float  # infinite where mean_auc is 1
    ranked_classes: int  # classes behind the last three: those with both a positive and a negative clip
    left_out_classes: int  # the other classes
    per_class: tuple[ClassMetrics, ...]
    # (true class, predicted class) int64 clips; None for multi-label data; where something is of no class or answered
    # with nothing, that stands behind the classes
    confusion: np.ndarray | None
    # 95 % confidence intervals, low and high: Wilson's of accuracies, a bootstrap over the clips of mAP; None unless
    # asked for
    accuracy_ci95: tuple[float, float] | None = None
    top5_accuracy_ci95: tuple[float, float] | None = None
    mean_average_precision_ci95: tuple[float, float] | None = None
    background: BackgroundMetrics | None = None  # None for a model without one, on data that have a class each

    @property
    def confusion_labels(self) -> list[str]:
        """Names of the rows and columns of `confusion`."""
        labels = [row.label for row in self.per_class]
        return labels if self.confusion is None or len(self.confusion) == len(labels) else [*labels, NOTHING]

    def to_dict(self) -> dict[str, object]:
        """Give the metrics as JSON can hold them.

        Returns:
            A dictionary of plain values. NaN and infinity become None: a d_prime of None beside a mean_auc of 1.0 is
            infinite, beside a mean_auc of None it is undefined. `confusion` becomes, for each true label, the
            predicted labels with their clips, zeros left away; most frequent first.
        """
        values = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        values["per_class"] = [{f.name: plain(getattr(row, f.name)) for f in fields(row)} for row in self.per_class]
        if self.background is None:
            del values["background"]
        else:
            values["background"] = {f.name: plain(getattr(self.background, f.name)) for f in fields(self.background)}
        if self.confusion is not None:
            labels = self.confusion_labels
            values["confusion"] = {
                label: {labels[j]: int(row[j]) for j in np.argsort(-row, kind="stable") if row[j]}
                for label, row in zip(labels, self.confusion, strict=True)
            }
        return values


def evaluate_scores(
    scores: np.ndarray,
    targets: np.ndarray,
    label_names: Sequence[str],
    threshold: float = 0.5,
    intervals: bool = False,
    background: bool = False,
) -> Metrics:
    """Compare scores with the truth.

    Args:
        scores: one score per clip and class, higher is likelier, (clips, classes) float: logits or probabilities.
        targets: class index of each clip, -1 for a clip of no class, (clips,) int; or, for multi-label data, (clips,
            classes) of 0 and 1. The shape decides, so that a split whose clips happen to have one label each is
            evaluated like the others.
        label_names: the classes' names, all different.
        threshold: multi-label data only: a label counts as predicted from this score on. It moves precision, recall
            and F1 and nothing else; pass 0.0 for logits.
        intervals: say how far accuracies and mAP may be off, too; on 20,000 clips of 500 classes that takes half a
            minute.
        background: what the scores of a clip lack of 1 is that of a background class: where it is the highest, the
            clip is answered with nothing.

    Returns:
        The metrics. Equal highest scores count as the class with the lowest index.

    Raises:
        AumError: no clips, shapes that don't fit, targets that are no classes, or a score that is not finite.

    Source: d-prime is sqrt(2) times the normal quantile of the mean AUC, as in the AST and AuM code (d_prime in
        utilities/stats.py).
    """
    scores, targets = np.asarray(scores), np.asarray(targets)
    _check(scores, targets, label_names)
    clips, classes = scores.shape
    multi_label = targets.ndim == 2
    if multi_label:
        positive, predicted = targets.astype(bool), scores >= threshold  # (clips, classes) bool
    else:
        predicted_index = answers(scores, background)  # (clips,)
        targets, index = targets.astype(np.int64), np.arange(classes)  # small types overflow below
        labelled = targets >= 0
        positive, predicted = targets[:, None] == index, predicted_index[:, None] == index
    average_precision, auc = _ranking(scores, positive)
    per_class = _per_class(label_names, positive, predicted, average_precision, auc)
    ranked = int(np.isfinite(auc).sum())
    mean_auc = _mean(auc)
    confusion = found = accuracy = top5_accuracy = None
    if not multi_label:
        nothing = background or not labelled.all()
        size = classes + nothing
        # -1, of no class, is the last row or column
        confusion = np.bincount(targets % size * size + predicted_index % size, minlength=size**2).reshape(size, size)
        if nothing:
            rejected, missed = (_mean((predicted_index[some] < 0).astype(float)) for some in (~labelled, labelled))
            found = BackgroundMetrics(int((~labelled).sum()), rejected, missed)
        if labelled.any():
            accuracy = float((predicted_index == targets)[labelled].mean())
            top5_accuracy = None if classes <= 5 else _top_accuracy(scores[labelled], targets[labelled], 5)
    between = {}
    if intervals:
        between = {
            "accuracy_ci95": wilson_interval(accuracy, int(positive.sum())),
            "top5_accuracy_ci95": wilson_interval(top5_accuracy, int(positive.sum())),
            "mean_average_precision_ci95": bootstrap_interval(scores, positive),
        }
    return Metrics(
        clips=clips,
        classes=classes,
        multi_label=multi_label,
        accuracy=accuracy,
        top5_accuracy=top5_accuracy,
        macro_f1=_mean(np.array([row.f1 for row in per_class if row.support])),
        mean_average_precision=_mean(average_precision),
        mean_auc=mean_auc,
        d_prime=d_prime(mean_auc),
        ranked_classes=ranked,
        left_out_classes=classes - ranked,
        per_class=per_class,
        confusion=confusion,
        background=found,
        **between,
    )


def answers(scores: np.ndarray, background: bool) -> np.ndarray:
    """The class that each clip is given, (clips,) int64, by its scores (clips, classes).

    With a background class -1, nothing, where what the scores lack of 1 is more than any of them.
    """
    best = scores.argmax(axis=1)
    return np.where(1 - scores.sum(axis=1) > scores.max(axis=1), -1, best) if background else best


def class_indices(targets: np.ndarray) -> np.ndarray:
    """Targets (clips, classes) of clips with one label at most as class indices, (clips,) int64; -1 for none."""
    return np.where(targets.any(axis=1), targets.argmax(axis=1), -1)


def wilson_interval(share: float | None, clips: int) -> tuple[float, float] | None:
    """Between which shares the true one lies with 95 % confidence.

    `share` was seen in `clips` clips; None for None.

    Source: Wilson 1927; unlike the normal approximation it holds for few clips and for shares near 0 and 1.
    """
    if share is None:
        return None
    centre, wide = share + Z95**2 / (2 * clips), Z95 * math.sqrt(share * (1 - share) / clips + Z95**2 / (4 * clips**2))
    low, high = ((centre + sign * wide) / (1 + Z95**2 / clips) for sign in (-1, 1))
    return max(0.0, min(low, share)), min(1.0, max(high, share))


def bootstrap_interval(scores: np.ndarray, positive: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """Between which values mAP lies in 95 % of the samples of the clips, drawn with replacement.

    Args:
        scores: (clips, classes).
        positive: (clips, classes) bool.
        seed: of the samples, of which there are 1,000, fewer where clips times classes are more than 2 million; 100 at
            least.

    Returns:
        The 2.5 and 97.5 percentiles; None where no class has both a positive and a negative clip.
    """
    clips, classes = scores.shape
    samples, at_once = int(min(1000, max(100, 2e9 // (clips * classes)))), max(1, 4_000_000 // clips)
    random = np.random.default_rng(seed)
    parts = [min(at_once, samples - start) for start in range(0, samples, at_once)]
    means = np.concatenate(
        [_sampled_map(scores, positive, random.multinomial(clips, np.full(clips, 1 / clips), part)) for part in parts]
    )
    means = means[np.isfinite(means)]
    return (float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5))) if len(means) else None


def _sampled_map(scores: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """mAP of samples of the clips, (samples,), by how often each clip was drawn, (samples, clips).

    NaN where no class was.
    """
    total, ranked = np.zeros(len(counts)), np.zeros(len(counts))
    for score, truth in zip(-scores.T, positive.T):
        if not 0 < truth.sum() < len(truth):
            continue
        order = np.argsort(score, kind="stable")
        score, drawn, places = score[order], counts[:, order], np.flatnonzero(truth[order])
        last = np.searchsorted(score, score[places], side="right") - 1  # equal scores are one threshold
        hits, given = np.cumsum(drawn[:, places], axis=1), np.cumsum(drawn, axis=1)[:, last]  # (samples, positives)
        hits_here = hits[:, np.searchsorted(places, last, side="right") - 1]
        some = hits[:, -1] > 0
        precision = drawn[:, places] * hits_here / np.maximum(given, 1)
        total[some] += precision[some].sum(axis=1) / hits[some, -1]
        ranked += some
    return np.divide(total, ranked, out=np.full(len(counts), np.nan), where=ranked > 0)


def d_prime(auc: float) -> float:
    """Give the distance between two unit normal distributions that would have this AUC.

    Args:
        auc: area under the ROC curve, 0..1.

    Returns:
        sqrt(2) * ppf(auc): 0 at 0.5, infinite at 1, NaN for NaN.
    """
    from scipy.special import ndtri

    return float(math.sqrt(2) * ndtri(auc))


def _check(scores: np.ndarray, targets: np.ndarray, label_names: Sequence[str]) -> None:
    """Refuse what can't be evaluated, naming the first offender."""
    if scores.ndim != 2 or not scores.size:
        raise AumError(
            f"scores have the shape {scores.shape}; (clips, classes) with at least one clip is needed",
            fix="check that the split has clips: see report.json beside the manifest",
        )
    clips, classes = scores.shape
    if len(label_names) != classes or len(set(label_names)) != classes:
        raise AumError(
            f"{counted(len(set(label_names)), 'different label name')} for {counted(classes, 'class')}",
            fix="give labels.csv one name per class, all different",
        )
    if targets.shape not in ((clips,), (clips, classes)):
        raise AumError(
            f"targets have the shape {targets.shape}, scores {scores.shape}",
            fix=f"pass ({clips},) class indices or ({clips}, {classes}) zeros and ones",
        )
    integers = np.issubdtype(targets.dtype, np.integer)
    if targets.ndim == 1 and not (integers and np.all((targets >= -1) & (targets < classes))):
        raise AumError(
            f"targets are not class indices 0..{classes - 1}, or -1 for a clip of no class",
            fix="pass integers; for several labels per clip, zeros and ones",
        )
    if targets.ndim == 2 and not np.isin(targets, (0, 1)).all():
        raise AumError(
            "multi-label targets hold something other than 0 and 1", fix="evaluate without mixup or smoothing"
        )
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise AumError(
            f"{len(bad):,} of {counted(clips, 'clip')} {plural(len(bad), 'has', 'have')} scores that are not finite, "
            f"the first is clip {bad[0]}",
            fix="the model diverged: lower train.lr, or set train.clip_grad, and train again",
            exit_code=1,
        )


def _ranking(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and ROC AUC of each class, (classes,) each; NaN without both a positive and a negative clip."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    support = positive.sum(axis=0)
    precision, auc = np.full(len(support), np.nan), np.full(len(support), np.nan)
    for i in np.flatnonzero((support > 0) & (support < len(scores))):
        precision[i] = average_precision_score(positive[:, i], scores[:, i])
        auc[i] = roc_auc_score(positive[:, i], scores[:, i])
    return precision, auc


def _per_class(
    label_names: Sequence[str],
    positive: np.ndarray,
    predicted: np.ndarray,
    average_precision: np.ndarray,
    auc: np.ndarray,
) -> tuple[ClassMetrics, ...]:
    """Count hits of each class; (clips, classes) bool in, one row per class out."""
    hits, support, given = (each.sum(axis=0) for each in (positive & predicted, positive, predicted))
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: not defined
        columns = (hits / given, hits / support, 2 * hits / (support + given), average_precision, auc)
    return tuple(
        ClassMetrics(str(label), int(support[i]), int(given[i]), *(float(column[i]) for column in columns))
        for i, label in enumerate(label_names)
    )


def best_thresholds(scores: np.ndarray, targets: np.ndarray) -> tuple[float, ...]:
    """Choose for each class the score from which on it counts as present: the best F1.

    Where no clip has several classes, all classes have one threshold, since a class may have few clips: the best F1 of
    all pairs of clip and class. Where every clip has just one class, nothing tells how other sounds score, and low
    thresholds seem as good as high ones; it is then what KEPT of the clips reach with their own class.

    Args:
        scores: (clips, classes), 0..1.
        targets: (clips, classes), 1 where the clip has the class.

    Returns:
        A threshold per class, in the middle between two neighbouring scores, four decimals; of equally good ones the
        one nearest to 0.5, and 0.5 for a class that no clip has.
    """
    present = targets > 0
    if len(scores) and (present.sum(axis=1) == 1).all():
        common = math.floor(1e4 * float(np.quantile(scores[present], 1 - KEPT, method="lower"))) / 1e4
        return (common,) * scores.shape[1]
    if len(scores) and (present.sum(axis=1) <= 1).all():
        return (_best_threshold(scores.ravel().astype(np.float64), present.ravel()),) * scores.shape[1]
    return tuple(_best_threshold(column.astype(np.float64), truth) for column, truth in zip(scores.T, present.T))


def _best_threshold(scores: np.ndarray, present: np.ndarray) -> float:
    if not present.any():
        return 0.5
    levels = np.concatenate([[0.0], np.unique(scores), [1.0]])
    candidates = np.unique(np.append(np.round((levels[:-1] + levels[1:]) / 2, 4), 0.5))  # ascending
    order = np.argsort(scores)
    hits = np.concatenate([np.cumsum(present[order][::-1])[::-1], [0]])  # with at least this rank's score
    first = np.searchsorted(scores[order], candidates)  # rank from which on it is given
    f1 = 2 * hits[first] / (present.sum() + len(scores) - first)
    best = candidates[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def best_row(scores: Sequence[float], losses: Sequence[float]) -> int | None:
    """Index of the best of several epochs: the highest score, of equals the lowest loss, of these the first.

    NaN is worse than any number; None where there is no score at all.
    """
    ranks = [
        (math.isfinite(score), score, -loss if math.isfinite(loss) else -math.inf)
        for score, loss in zip(scores, losses)
    ]
    best = max(
        range(len(ranks)), key=lambda i: (ranks[i][0], ranks[i][1] if ranks[i][0] else 0.0, ranks[i][2]), default=None
    )
    return best if best is not None and ranks[best][0] else None


def _top_accuracy(scores: np.ndarray, targets: np.ndarray, top: int) -> float:
    """Share of clips whose true class is among the `top` best; ties are ordered by index, as argmax does."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)  # (clips, 1)
    earlier = np.arange(scores.shape[1]) < targets[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float((rank < top).mean())


def _mean(values: np.ndarray) -> float:
    """Mean of the defined values; NaN when there are none."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan


def plain(value: object) -> object:
    """A value that JSON can hold: None for NaN and infinity."""
    if isinstance(value, tuple):
        return [*map(plain, value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""Metrics against values worked out by hand and against scikit-learn's own averages."""

import json
import math

import numpy as np
import pytest

from aumcli.errors import AumError
from aumcli.metrics import best_row, best_thresholds, bootstrap_interval, d_prime, evaluate_scores, wilson_interval

LABELS = ["one", "two", "three"]


def one_hot_scores(predicted, classes=3):
    return np.eye(classes)[predicted]


def test_accuracy_and_confusion_by_hand():
    targets = np.array([0, 0, 0, 1, 1, 2])
    metrics = evaluate_scores(one_hot_scores([0, 0, 1, 1, 1, 0]), targets, LABELS)
    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    one, two, three = metrics.per_class
    assert (one.precision, one.recall, one.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (two.precision, two.recall, two.f1) == pytest.approx((2 / 3, 1.0, 0.8))
    assert (three.support, three.predicted, three.recall, three.f1) == (1, 0, 0.0, 0.0)
    assert math.isnan(three.precision)  # never predicted: 0 / 0
    assert metrics.macro_f1 == pytest.approx((2 / 3 + 0.8 + 0) / 3)


def test_small_integer_types_do_not_overflow():
    targets = np.arange(100, dtype=np.uint8)
    metrics = evaluate_scores(np.eye(100), targets, [str(i) for i in range(100)])
    assert np.array_equal(metrics.confusion, np.eye(100))


def test_rankings_agree_with_sklearn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    targets = (rng.random((200, 6)) < 0.2).astype(np.int64)
    scores = rng.normal(size=(200, 6)) + targets
    metrics = evaluate_scores(scores, targets, list("abcdef"))
    assert metrics.mean_average_precision == pytest.approx(average_precision_score(targets, scores, average="macro"))
    assert metrics.mean_auc == pytest.approx(roc_auc_score(targets, scores, average="macro"))
    assert metrics.accuracy is None and metrics.top5_accuracy is None and metrics.confusion is None


def test_average_precision_by_hand():
    # ranks of the positives of class a: 1 and 3, so AP = (1/1 + 2/3) / 2; of 2 x 2 pairs 3 are in order
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    metrics = evaluate_scores(scores, np.array([0, 1, 0, 1]), ["a", "b"])
    assert metrics.per_class[0].average_precision == pytest.approx(5 / 6)
    assert metrics.per_class[0].roc_auc == pytest.approx(3 / 4)


def test_classes_without_both_kinds_of_clip_are_left_out_and_counted():
    targets = np.array([[1, 1, 0], [1, 0, 0]])  # the first has no negative, the last no positive clip
    metrics = evaluate_scores(np.array([[0.9, 0.8, 0.1], [0.9, 0.2, 0.7]]), targets, LABELS)
    assert (metrics.ranked_classes, metrics.left_out_classes) == (1, 2)
    assert metrics.mean_average_precision == metrics.mean_auc == 1.0
    assert [math.isnan(row.roc_auc) for row in metrics.per_class] == [True, False, True]
    assert metrics.macro_f1 == pytest.approx(1.0)  # "three" has no clip and does not count


def test_one_class_only_leaves_nothing_to_rank():
    metrics = evaluate_scores(one_hot_scores([0, 0]), np.array([0, 0]), LABELS)
    assert metrics.accuracy == 1.0 and metrics.ranked_classes == 0
    assert metrics.to_dict()["mean_average_precision"] is None and metrics.to_dict()["d_prime"] is None


def test_top5_orders_ties_like_argmax():
    scores = np.zeros((7, 7))  # all equal: the first five classes are the top five
    metrics = evaluate_scores(scores, np.arange(7), list("abcdefg"))
    assert metrics.accuracy == pytest.approx(1 / 7)
    assert metrics.top5_accuracy == pytest.approx(5 / 7)
    assert evaluate_scores(np.zeros((5, 5)), np.arange(5), list("abcde")).top5_accuracy is None


def test_d_prime():
    assert d_prime(0.5) == 0.0
    assert d_prime(0.9) == pytest.approx(1.8124, abs=1e-4)  # sqrt(2) * 1.28155
    assert d_prime(1.0) == math.inf and math.isnan(d_prime(math.nan))


def test_the_threshold_moves_precision_and_not_the_ranking():
    targets = np.array([[1, 0], [0, 1], [1, 1]])
    logits = np.array([[2.0, -1.0], [-1.0, 0.2], [0.3, 1.0]])
    low, high = (evaluate_scores(logits, targets, ["a", "b"], threshold=t) for t in (0.0, 0.5))
    assert (low.per_class[0].recall, high.per_class[0].recall) == (1.0, 0.5)
    assert low.mean_auc == high.mean_auc == 1.0


def test_dictionary_is_strict_json_and_says_infinity_with_care():
    metrics = evaluate_scores(one_hot_scores([0, 1, 2, 1]), np.array([0, 1, 2, 1]), LABELS)
    assert metrics.d_prime == math.inf
    values = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert values["mean_auc"] == 1.0 and values["d_prime"] is None
    assert values["clips"] == 4 and values["multi_label"] is False
    assert values["confusion"] == {"one": {"one": 1}, "two": {"two": 2}, "three": {"three": 1}}
    assert values["per_class"][1] == {
        "label": "two",
        "support": 2,
        "predicted": 2,
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "average_precision": 1.0,
        "roc_auc": 1.0,
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(value):
    scores = one_hot_scores([0, 1, 2])
    scores[1, 2] = value
    with pytest.raises(AumError, match="1 of 3 clips .* clip 1"):
        evaluate_scores(scores, np.array([0, 1, 2]), LABELS)


@pytest.mark.parametrize(
    ("scores", "targets", "labels", "problem"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), LABELS, "at least one clip"),
        (np.zeros(3), np.zeros(3, int), LABELS, "shape"),
        (np.zeros((2, 3)), np.zeros(3, int), LABELS, "targets have the shape"),
        (np.zeros((2, 3)), np.array([0, 3]), LABELS, "not class indices"),
        (np.zeros((2, 3)), np.array([0, -2]), LABELS, "not class indices"),
        (np.zeros((2, 3)), np.array([0.0, 1.0]), LABELS, "not class indices"),
        (np.zeros((2, 3)), np.full((2, 3), 0.5), LABELS, "other than 0 and 1"),
        (np.zeros((2, 3)), np.array([0, 1]), ["a", "b"], "label names"),
        (np.zeros((2, 3)), np.array([0, 1]), ["a", "b", "a"], "2 different label names"),
    ],
)
def test_what_does_not_fit_is_refused(scores, targets, labels, problem):
    with pytest.raises(AumError, match=problem):
        evaluate_scores(scores, targets, labels)


def test_best_thresholds_are_those_of_a_search():
    rng = np.random.default_rng(3)
    targets = (rng.random((40, 4)) < [0.3, 0.5, 0.1, 0.0]).astype(np.float32)
    scores = np.clip(0.4 * targets + 0.6 * rng.random((40, 4)), 0, 1).astype(np.float32)

    def f1(threshold, label):
        given = scores[:, label] >= threshold
        return 2 * (given & (targets[:, label] > 0)).sum() / (given.sum() + targets[:, label].sum())

    got = best_thresholds(scores, targets)
    for label in range(3):
        best = max(f1(threshold, label) for threshold in np.linspace(0, 1, 5001))
        assert f1(got[label], label) == pytest.approx(best) and 0 < got[label] < 1
    assert got[3] == 0.5  # a class that no clip has


def test_where_every_clip_has_one_class_nearly_all_are_kept():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 100)
    scores = rng.uniform(0, 0.3, (100, 3))
    scores[range(100), truth] = np.linspace(0.5, 0.995, 100)
    thresholds = best_thresholds(scores, np.eye(3)[truth])
    assert thresholds == (pytest.approx(0.52, abs=0.003),) * 3
    assert (scores[range(100), truth] >= thresholds[0]).sum() == 96


def test_classes_that_exclude_each_other_have_one_threshold():
    """Also where some clips are of none of them; a class of few clips would have any."""
    random = np.random.default_rng(0)
    targets = np.eye(4)[random.integers(0, 4, 60)][:, :3]  # a quarter is of no class
    scores = random.random((60, 3)) * 0.8 + 0.2 * targets
    thresholds = best_thresholds(scores, targets)
    assert len({*thresholds}) == 1

    def f1(threshold):
        given = scores >= threshold
        return 2 * (given & (targets > 0)).sum() / (given.sum() + targets.sum())

    assert f1(thresholds[0]) == pytest.approx(max(f1(value) for value in np.unique(scores)))


def test_best_thresholds_of_clean_classes_lie_in_the_gap_nearest_to_a_half():
    targets = np.array([[1], [1], [0], [0]], dtype=np.float32)
    assert best_thresholds(np.array([[0.9], [0.8], [0.2], [0.1]]), targets) == (0.5,)
    assert best_thresholds(np.array([[0.9], [0.8], [0.7], [0.1]]), targets) == (0.75,)
    assert best_thresholds(np.array([[0.3], [0.2], [0.1], [0.0]]), targets) == (0.15,)


def test_the_best_of_several_epochs():
    nan = float("nan")
    assert best_row([0.5, 1.0, 0.9, 1.0, 1.0], [1.0, 0.34, 0.1, 0.228, 0.3]) == 3  # of equals the lowest loss
    assert best_row([0.5, 0.5], [0.3, 0.3]) == 0 and best_row([], []) is None
    assert best_row([nan, 0.1, nan], [0.1, nan, 0.1]) == 1 and best_row([nan, nan], [0.1, 0.2]) is None
    assert best_row([0.7, 0.7], [nan, 2.0]) == 1


@pytest.mark.parametrize("hits, clips", [(0, 1), (7, 9), (72, 81), (81, 81), (1987, 2000)])
def test_intervals_of_accuracy_agree_with_scipy(hits, clips):
    from scipy.stats import binomtest

    theirs = binomtest(hits, clips).proportion_ci(0.95, "wilson")
    assert wilson_interval(hits / clips, clips) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_interval_of_map_is_that_of_samples_repeated_clip_by_clip():
    from sklearn.metrics import average_precision_score

    random = np.random.default_rng(3)
    positive = random.random((60, 4)) < [0.5, 0.1, 0.3, 0.0]  # the last class has no clip
    scores = np.round(random.random((60, 4)) + 0.5 * positive, 1)  # and equal scores
    means = []
    for counts in np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), 1000):
        drawn = np.repeat(np.arange(60), counts)
        kept = [i for i in range(3) if positive[drawn, i].any()]
        means.append(np.mean([average_precision_score(positive[drawn, i], scores[drawn, i]) for i in kept]))
    low, high = bootstrap_interval(scores, positive)
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=1e-9)
    assert low < evaluate_scores(scores, positive.astype(int), list("abcd")).mean_average_precision < high


def test_intervals_are_there_when_asked_for():
    scores = np.eye(3)[[0, 1, 2, 0, 1, 1]]
    asked, not_asked = (
        evaluate_scores(scores, np.array([0, 1, 2, 0, 1, 2]), list("abc"), intervals=each) for each in (True, False)
    )
    assert asked.accuracy_ci95 == wilson_interval(5 / 6, 6) and asked.top5_accuracy_ci95 is None
    assert asked.to_dict()["accuracy_ci95"] == [*asked.accuracy_ci95]
    assert not_asked.accuracy_ci95 is not_asked.mean_average_precision_ci95 is None
    assert bootstrap_interval(np.ones((4, 1)), np.ones((4, 1), dtype=bool)) is None

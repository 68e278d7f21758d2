"""Calibration error, temperature, thresholds for a precision, false alarms: against definitions and by brute force."""

import numpy as np
import pytest
import torch

from aumcli.calibration import calibration_error, fit_temperature, reliability, thresholds_for_precision
from aumcli.classifier import activate, with_background
from aumcli.config import NOTHING, AudioMambaConfig, SpectrogramTransformerConfig, TrainConfig
from aumcli.core import build_network
from aumcli.core.network import SpectrogramNetwork
from aumcli.false_alarms import GRID, ScoredRecording, count_false_alarms
from aumcli.metrics import answers, class_indices, evaluate_scores
from aumcli.predict.events import Events
from aumcli.train.trainer import loss_of


def drawn(clips: int = 20_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and classes that are drawn with just the probabilities that these give."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (clips, classes))
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, (scores.cumsum(1) < rng.random((clips, 1))).sum(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoilt_scores_is_found(temperature):
    logits, truth = drawn()
    scores = activate(torch.from_numpy(logits / temperature), "softmax").numpy()
    assert fit_temperature(scores, np.eye(4)[truth], "softmax") == pytest.approx(1 / temperature, rel=0.05)


def test_also_with_a_background_class_and_of_sigmoids():
    logits, truth = drawn(classes=5)
    rest = logits[:, :4] - logits[:, 4:]  # the last class is the background, of logit 0
    targets = np.eye(5)[truth][:, :4]
    scores = activate(torch.from_numpy(2 * rest), "softmax_background").numpy()
    assert fit_temperature(scores, targets, "softmax_background") == pytest.approx(2, rel=0.05)
    rng = np.random.default_rng(1)
    single = rng.normal(0, 2, (20_000, 3))
    targets = (rng.random(single.shape) < 1 / (1 + np.exp(-single))).astype(float)
    assert fit_temperature(1 / (1 + np.exp(-3 * single)), targets, "sigmoid") == pytest.approx(3, rel=0.05)


def test_no_mistake_in_a_few_clips_is_no_certainty():
    scores = np.full((20, 4), 0.1)
    scores[:, 0] = 0.7
    temperature = fit_temperature(scores, np.eye(4)[np.zeros(20, int)], "softmax")
    sharpened = scores ** (1 / temperature)
    assert 0.9 < (sharpened[0] / sharpened[0].sum())[0] < 0.99  # one mistake in some twenty
    assert fit_temperature(np.empty((0, 4)), np.empty((0, 4)), "softmax") == 1.0


def test_calibration_error_of_what_is_known():
    """Half the clips at 0.9, of which 70 % are right, half at 0.6, all right: 0.2 and 0.4 off."""
    scores = np.zeros((200, 2))
    scores[:100] = 0.9, 0.1
    scores[100:] = 0.6, 0.4
    targets = np.array([0] * 70 + [1] * 30 + [0] * 100)
    bins = reliability(scores, targets)
    assert [(round(a, 6), round(b, 6), n) for a, b, n in bins] == [(0.6, 1.0, 100), (0.9, 0.7, 100)]
    assert calibration_error(bins) == pytest.approx(0.3)
    logits, truth = drawn()
    assert calibration_error(reliability(activate(torch.from_numpy(logits), "softmax").numpy(), truth)) < 0.015


def test_the_answer_of_a_background_class_counts_too():
    scores = np.array([[0.1, 0.2], [0.1, 0.2], [0.6, 0.1]])
    bins = reliability(scores, np.array([-1, 1, 0]), background=True)
    assert sorted(bins) == [(pytest.approx(0.6), 1.0, 1), (pytest.approx(0.7), 0.5, 2)]


@pytest.mark.parametrize("precision", [0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_thresholds_reach_the_precision_with_the_most_recall(precision, seed):
    rng = np.random.default_rng(seed)
    positive = rng.random((300, 6)) < 0.3
    scores = np.round(np.clip(rng.normal(0.3 + 0.25 * positive, 0.15), 0, 1), 2)  # with ties
    for column, truth, found in zip(scores.T, positive.T, thresholds_for_precision(scores, positive, precision)):
        candidates = [
            t for t in np.unique(column) if truth[column >= t].mean() >= precision and truth[column >= t].any()
        ]
        if found is None:
            assert not candidates
            continue
        assert ((column >= found) == (column >= min(candidates))).all()


def test_a_class_without_clips_has_no_threshold():
    assert thresholds_for_precision(np.array([[0.9], [0.1]]), np.zeros((2, 1), bool), 0.5) == [None]


def test_false_alarms_are_counted_as_events():
    """Windows that touch are one event, as in aum predict; 0.5 h in all."""

    def recording(scores, hop=4, size=8):
        starts = hop * np.arange(len(scores))
        return ScoredRecording(starts, starts + size, scores)

    first = np.array([[0.0, 0.9], [0.6, 0.9], [0.6, 0.0], [0.0, 0.0], [0.0, 0.9], [0.6, 0.0], [0.0, 0.9]])
    second = np.array([[0.6, 0.0], [0.6, 0.0]])
    scores, positive = np.array([[0.7, 0.1], [0.2, 0.8]]), np.array([[True, False], [False, True]])
    found = count_false_alarms(
        [recording(first), recording(second)], 0.5, scores, positive, np.array([0.5, 0.95]), ["a", "b"]
    )
    assert found.own_thresholds == (6.0, pytest.approx(5 / 9), 0.5) and found.classes == {"a": 6.0}
    assert found.files == 2 and found.windows == 9
    at = dict(zip(GRID, zip(found.per_hour, found.time, found.recall)))
    assert at[0.5][0] == 10.0 and at[0.65] == (4.0, pytest.approx(4 / 9), 1.0)
    assert at[0.75] == (4.0, pytest.approx(4 / 9), 0.5) and at[0.95] == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("size, hop", [(8, 4), (9, 4), (8, 8), (8, 3)])
def test_they_are_the_events_of_predict(size, hop):
    rng = np.random.default_rng(size + hop)
    scores, own = rng.random((200, 3)), np.array([0.5, 0.8, 0.95])
    starts = hop * np.arange(200)
    starts[-1] -= 2  # the last window ends with the recording
    events = Events(own, 1)
    for start, row in zip(starts.tolist(), scores):
        events.add(start, start + size, row)
    recording = ScoredRecording(starts, starts + size, scores)
    found = count_false_alarms([recording], 1.0, scores, scores > 2, own, ["a", "b", "c"])
    expected = events.finish()
    assert found.own_thresholds.per_hour == len(expected)
    assert sorted(recording.events(own)) == sorted((label, start, stop) for start, stop, label, _ in expected)


def test_softmax_with_a_background_class():
    logits = torch.randn(5, 3)
    scores = activate(logits, "softmax_background")
    torch.testing.assert_close(scores, torch.cat([logits, torch.zeros(5, 1)], 1).softmax(1)[:, :3])
    assert (scores.sum(1) < 1).all() and with_background(logits).shape == (5, 4)
    targets = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0.5, 0], [0, 0, 1], [0.25, 0.75, 0]])
    loss = loss_of(logits, targets, TrainConfig(loss="cross_entropy"), background=True)
    rest = 1 - scores.sum(1)
    by_hand = -(targets * scores.log()).sum(1) - (1 - targets.sum(1)) * rest.log()
    torch.testing.assert_close(loss, by_hand.mean())


def test_figures_with_clips_of_no_class():
    scores = np.array([[0.8, 0.1], [0.2, 0.1], [0.1, 0.6], [0.1, 0.1], [0.1, 0.5]])
    targets = np.array([0, 0, 1, -1, -1])
    metrics = evaluate_scores(scores, targets, ["a", "b"], intervals=True, background=True)
    assert answers(scores, True).tolist() == [0, -1, 1, -1, 1]
    assert metrics.accuracy == pytest.approx(2 / 3) and metrics.clips == 5
    assert metrics.background.clips == 2 and metrics.background.rejected == 0.5
    assert metrics.background.missed == pytest.approx(1 / 3)
    assert metrics.confusion.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert metrics.confusion_labels == ["a", "b", NOTHING]
    a, b = metrics.per_class
    assert (a.precision, a.recall, b.precision, b.recall) == (1.0, 0.5, 0.5, 1.0)
    assert b.average_precision == pytest.approx(1.0) and metrics.to_dict()["background"]["missed"] == pytest.approx(
        1 / 3
    )
    plain = evaluate_scores(scores[:3], targets[:3], ["a", "b"])
    assert plain.background is None and "background" not in plain.to_dict() and plain.accuracy == 1.0
    none = evaluate_scores(scores[3:], targets[3:], ["a", "b"], intervals=True, background=True)
    assert none.accuracy is None and none.accuracy_ci95 is None
    assert class_indices(np.array([[0, 0], [0, 1]])).tolist() == [-1, 1]


@pytest.mark.parametrize(
    "config",
    [
        AudioMambaConfig(width=16, depth=1, n_classes=3, n_mels=16, frames=16),
        SpectrogramTransformerConfig(width=16, depth=1, heads=2, n_classes=3, n_mels=16, frames=16),
    ],
)
def test_logits_are_scaled_through_the_weights(config):
    network: SpectrogramNetwork = build_network(config).eval()
    features = torch.randn(2, 16, 16)
    with torch.no_grad():
        before = network(features)
        network.scale_logits(0.25)
        torch.testing.assert_close(network(features), before / 4)

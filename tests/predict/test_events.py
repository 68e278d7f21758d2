"""Events from scores: which windows they span, smoothing, and curves in bounded memory."""

import numpy as np
import pytest

from aumcli.predict.events import CURVE_POINTS, ClipScores, Curves, Events, add_batch


def events_of(scores, size=10, hop=5, threshold=0.5, smooth=1):
    """Events of one class, for windows at 0, hop, 2 hop, ..."""
    events = Events(np.array([threshold], dtype=np.float32), smooth)
    for i, score in enumerate(scores):
        events.add(i * hop, i * hop + size, np.array([score], dtype=np.float32))
    return [(start, stop, pytest.approx(score)) for start, stop, _, score in events.finish()]


def test_consecutive_windows_are_one_event_and_its_score_is_the_highest():
    assert events_of([0.1, 0.6, 0.9, 0.7, 0.2]) == [(5, 25, 0.9)]


def test_the_threshold_itself_counts():
    assert events_of([0.5]) == [(0, 10, 0.5)] and events_of([0.499]) == []


def test_touching_windows_are_one_event_and_separate_ones_two():
    assert events_of([0.9, 0.1, 0.8]) == [(0, 20, 0.9)]
    assert events_of([0.9, 0.1, 0.1, 0.8]) == [(0, 10, 0.9), (15, 25, 0.8)]


def test_a_last_window_that_reaches_back_joins_its_neighbour():
    events = Events(np.array([0.5], dtype=np.float32), 1)
    for start in (0, 5, 7):
        events.add(start, start + 10, np.array([0.9], dtype=np.float32))
    assert [event[:2] for event in events.finish()] == [(0, 17)]


def test_events_of_a_class_never_overlap_and_cover_just_the_windows_above():
    rng = np.random.default_rng(0)
    for size, hop in ((10, 5), (10, 3), (10, 10), (9, 4)):
        scores = rng.random((200, 4)).astype(np.float32)
        thresholds = np.array([0.3, 0.5, 0.9, 2.0], dtype=np.float32)
        events = Events(thresholds, 1)
        covered = np.zeros((4, 200 * hop + size), dtype=bool)
        for i, row in enumerate(scores):
            events.add(i * hop, i * hop + size, row)
            covered[row >= thresholds, i * hop : i * hop + size] = True
        marked = np.zeros_like(covered)
        for start, stop, label, _ in events.finish():
            assert not marked[label, start:stop].any()
            marked[label, start:stop] = True
        assert np.array_equal(marked, covered)


@pytest.mark.parametrize("smooth", [3, 5, 7])
@pytest.mark.parametrize("windows", [1, 2, 3, 4, 9, 30])
def test_smoothing_is_the_mean_of_the_neighbours_there_are(smooth, windows):
    scores = np.random.default_rng(windows).random(windows)
    half = smooth // 2
    means = [np.mean(scores[max(0, i - half) : i + half + 1]) for i in range(windows)]
    assert events_of(scores, smooth=smooth, threshold=0.45) == events_of(means, threshold=0.45)


def test_smoothing_bridges_a_short_gap_and_drops_a_short_spike():
    assert events_of([0.9, 0.9, 0.0, 0.9, 0.9], size=5, smooth=3) == [(0, 25, 0.9)]
    assert events_of([0.0, 0.0, 0.9, 0.0, 0.0], size=5, smooth=3) == []


def test_mean_and_embedding_do_not_depend_on_the_parts():
    rng = np.random.default_rng(1)
    scores, embeddings = (rng.random((50, n)).astype(np.float32) for n in (3, 7))
    thresholds = np.full(3, 0.5, dtype=np.float32)
    whole, parts = ClipScores(thresholds, 1, False), ClipScores(thresholds, 1, False)
    spans = [(i, i + 2) for i in range(50)]
    add_batch([(whole, spans)], scores, embeddings)
    for part in (slice(0, 1), slice(1, 30), slice(30, 50)):
        add_batch([(parts, spans[part])], scores[part], embeddings[part])
    assert np.allclose(whole.mean, scores.mean(0), atol=1e-6) and np.array_equal(whole.total, parts.total)
    assert np.allclose(whole.embedding, embeddings.mean(0), atol=1e-6) and np.allclose(
        parts.embedding, whole.embedding, atol=1e-7
    )


def test_curves_keep_the_peaks_in_bounded_memory():
    curves = Curves()
    scores = np.random.default_rng(2).random((5 * CURVE_POINTS + 3, 2)).astype(np.float32)
    for row in scores:
        curves.add(row)
    per_point, (second,) = curves.of([1])
    assert per_point == 8 and len(second) <= CURVE_POINTS
    assert second == [round(float(scores[i : i + 8, 1].max()), 4) for i in range(0, len(scores), 8)]

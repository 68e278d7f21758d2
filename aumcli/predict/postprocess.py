"""From a clip's scores to its prediction: labels, events, curves.

The same code serves while clips are scored and for scores that a file has.
"""

from collections.abc import Sequence

import numpy as np

from aumcli.config import PredictConfig
from aumcli.predict.decoding import DecodeResult
from aumcli.predict.events import ClipScores, Event
from aumcli.predict.inputs import Source
from aumcli.predict.prediction import DECIMALS, Prediction

CANCELS = (
    "{}: its channels cancel each other, and their mean, which is labelled, is next to silent: "
    "take one with --channel left"
)
CURVES, MOST_CURVES = 5, 12  # classes whose scores over time are kept: at least, and at most where more have events


class PendingClip:
    """A sound whose windows are being scored."""

    __slots__ = ("decoded", "scores", "source")

    def __init__(self, source: Source, scores: ClipScores):
        self.source, self.scores, self.decoded = source, scores, DecodeResult()


class PostProcessor:
    """Turns scores of windows into predictions.

    Args:
        labels: names of the classes, by index.
        rate_hz: of the samples that windows are counted in.
        thresholds: least score of an event, (classes,) float32.
        config: how; of it `top`, `reject`, `smooth`, `max_gap_s` and `min_duration_s`.
        curves: keep scores over time.
        background: the model has a background class, whose score is what the others' lack of 1.
    """

    def __init__(
        self,
        labels: Sequence[str],
        rate_hz: int,
        thresholds: np.ndarray,
        config: PredictConfig,
        curves: bool,
        background: bool = False,
    ):
        self.labels, self.rate_hz, self.thresholds, self.config = labels, rate_hz, thresholds, config
        self.curves, self.background = curves, background

    def begin(self, source: Source) -> PendingClip:
        """A clip that no window was scored of yet."""
        max_gap = round(self.config.max_gap_s * self.rate_hz)
        return PendingClip(source, ClipScores(self.thresholds, self.config.smooth, self.curves, max_gap))

    def predictions(self, clips: Sequence[PendingClip]) -> list[Prediction]:
        """Predictions for clips whose windows are all scored."""
        scored = [clip.scores.mean for clip in clips if not clip.decoded.problem]
        # all at once: sorted one by one, each would wait for a thread that decodes to let go of Python's lock
        ranked = zip(scored, np.argsort(-np.stack(scored), axis=1, kind="stable").tolist() if scored else [])
        return [
            Prediction(
                clip.source.path,
                problem=clip.decoded.problem,
                fix=clip.decoded.fix,
                fingerprint=clip.decoded.fingerprint,
            )
            if clip.decoded.problem
            else self._prediction(clip, *next(ranked))
            for clip in clips
        ]

    def _prediction(self, clip: PendingClip, mean: np.ndarray, order: list[int]) -> Prediction:
        """The prediction for a clip with these mean scores, (classes,), and classes in this order."""
        decoded, scores, names = clip.decoded, clip.scores, self.labels
        found = self._events(scores, decoded.duration_s)
        rejected = self.config.reject and not (mean >= self.thresholds).any()
        nothing = 1 - float(mean.sum() if self.background else mean[order[0]])
        prediction = Prediction(
            clip.source.path,
            decoded.duration_s,
            scores.windows,
            tuple((names[i], float(mean[i])) for i in order[: self.config.top]),
            tuple(event for _, event in found),
            embedding=scores.embedding,
            fingerprint=decoded.fingerprint,
            warning=CANCELS.format(clip.source.path) if decoded.cancels else "",
            first_window=scores.first_window,
            nothing=max(0.0, nothing) if self.background or rejected else None,
            recorded=decoded.recorded,
            rejected=rejected,
        )
        if scores.curves is None:
            return prediction
        highest: dict[int, float] = {}
        for i, event in found:
            highest[i] = max(event.score, highest.get(i, 0.0))
        seen = sorted(highest, key=lambda i: -highest[i])
        shown = list(dict.fromkeys([*seen[:MOST_CURVES], *order[:CURVES]]))[: max(CURVES, min(len(seen), MOST_CURVES))]
        per_point, curves = scores.curves.of(shown)
        named = sorted({*shown, *seen, *order[: self.config.top]})
        return prediction.with_curves(
            per_point, {names[i]: curve for i, curve in zip(shown, curves)}, {names[i]: i for i in named}
        )

    def _events(self, scores: ClipScores, duration_s: float) -> list[tuple[int, Event]]:
        """A clip's events with the indices of their classes; the written times tell how long they last."""
        found = [
            (i, Event(start / self.rate_hz, min(stop / self.rate_hz, duration_s), self.labels[i], score))
            for start, stop, i, score in scores.events.finish()
        ]
        if self.config.min_duration_s == 0:
            return found
        return [
            (i, event)
            for i, event in found
            if round(round(event.stop_s, DECIMALS) - round(event.start_s, DECIMALS), DECIMALS)
            >= self.config.min_duration_s
        ]

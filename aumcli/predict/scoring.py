"""Windows of many files scored in batches, and put together again file by file."""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from aumcli.classifier import Classifier
from aumcli.config import PredictConfig
from aumcli.errors import AumError
from aumcli.predict.decoding import Decoder, End, Window
from aumcli.predict.events import ClipScores, Event
from aumcli.predict.inputs import Source
from aumcli.predict.prediction import Prediction

DEFAULT_THRESHOLD = 0.5
GROUP_BATCHES = 8           # results of so many batches are given out together at the latest
CURVES = 5                  # classes whose scores over time are kept


def window_samples(classifier: Classifier, config: PredictConfig) -> tuple[int | None, int]:
    """Samples of a window (None: the whole clip), and from one window to the next.

    Raises:
        AumError: the windows would leave samples out, or are shorter than one.
    """
    rate_hz, (size, hop) = classifier.config.frontend.sample_rate_hz, classifier.window_samples
    if config.whole:
        return None, 1
    if config.window_s is not None:
        size = round(config.window_s * rate_hz)
        hop = max(1, size // 2)
    if config.hop_s is not None:
        hop = round(config.hop_s * rate_hz)
    if not 1 <= hop <= size:
        raise AumError(f"windows of {size / rate_hz:.4g} s every {hop / rate_hz:.4g} s leave samples out",
                       fix="make the hop at least a sample and at most the window")
    return size, hop


def thresholds(classifier: Classifier, config: PredictConfig) -> np.ndarray:
    """Least score of an event, (classes,) float32: as asked for, else the model's own, else 0.5."""
    if config.threshold is not None:
        return np.full(len(classifier.labels), config.threshold, dtype=np.float32)
    return np.array(classifier.config.thresholds or [DEFAULT_THRESHOLD] * len(classifier.labels), dtype=np.float32)


def predict_groups(classifier: Classifier, sources: Iterable[Source], config: PredictConfig, embed: bool = False,
                   curves: bool = False) -> Iterator[list[Prediction]]:
    """Label files in order, some at a time.

    Which files form a group, and so which windows share a batch, depends on the files alone: scores of a list that is
    taken up again after a group are the same to the last bit.

    Args:
        classifier: see `aumcli.load_model`.
        sources: the files.
        config: how.
        embed, curves: keep each clip's embedding, its scores over time.
    """
    size, hop = window_samples(classifier, config)
    if size is not None:
        classifier = classifier.at_length(size)
    batch = 1 if config.whole else config.batch_size
    scorer = _Scorer(classifier, config, embed, curves)
    group: list[Prediction | _Clip] = []
    windows = 0
    clip: _Clip | None = None
    with Decoder(sources, classifier.config.frontend.sample_rate_hz, size, hop, config.workers) as decoder:
        for source, part in decoder:
            clip = clip or _Clip(source, scorer.clip_scores())
            if not isinstance(part, End):
                windows += len(part)
                for window in part:
                    scorer.waiting.append((clip, window))
                    if len(scorer.waiting) == batch:
                        scorer.score()
                continue
            clip.end = clip.end if clip.end.problem else part
            group.append(clip)
            clip = None
            if not scorer.waiting or windows >= GROUP_BATCHES * batch:
                scorer.score()
                yield [scorer.prediction(each) for each in group]
                group, windows = [], 0
    scorer.score()
    if group:
        yield [scorer.prediction(each) for each in group]


class _Clip:
    """A file whose windows are being scored."""

    __slots__ = ("source", "scores", "end")

    def __init__(self, source: Source, scores: ClipScores):
        self.source, self.scores, self.end = source, scores, End()


class _Scorer:
    """Scores waiting windows together."""

    def __init__(self, classifier: Classifier, config: PredictConfig, embed: bool, curves: bool):
        self.classifier, self.config, self.embed, self.curves = classifier, config, embed, curves
        self.thresholds = thresholds(classifier, config)
        self.waiting: list[tuple[_Clip, Window]] = []

    def clip_scores(self) -> ClipScores:
        """For another clip."""
        return ClipScores(self.thresholds, self.config.smooth, self.curves)

    def score(self) -> None:
        """Score all waiting windows as one batch; one that is too long for the memory is that clip's problem."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        windows = [samples for _, (_, samples) in waiting]
        classifier = self.classifier.at_length(len(windows[0])) if self.config.whole else self.classifier
        try:
            scores, embeddings = classifier.encode_windows(windows) if self.embed else (classifier.score_windows(windows), None)
        except (MemoryError, RuntimeError) as error:
            if not self.config.whole or "memory" not in f"{type(error).__name__} {error}".lower():
                raise
            clip = waiting[0][0]
            clip.end = End(problem=f"{clip.source.path} is too long for the memory in one pass", fix="leave out --whole")
            return
        row = 0
        for clip, items in groupby(waiting, key=lambda item: item[0]):
            spans = [(start, start + len(samples)) for _, (start, samples) in items]
            rows = slice(row, row + len(spans))
            clip.scores.add(spans, scores[rows], None if embeddings is None else embeddings[rows])
            row += len(spans)

    def prediction(self, clip: _Clip) -> Prediction:
        """What is said of a clip whose windows are all scored."""
        path, end = clip.source.path, clip.end
        if end.problem:
            return Prediction(path, problem=end.problem, fix=end.fix)
        rate_hz, names = self.classifier.config.frontend.sample_rate_hz, self.classifier.config.labels
        scores, mean = clip.scores, clip.scores.mean
        events = tuple(Event(start / rate_hz, min(stop / rate_hz, end.duration_s), names[label], score)
                       for start, stop, label, score in scores.events.finish())
        prediction = Prediction(path, end.duration_s, scores.windows, tuple(self.classifier.best(mean, self.config.top)), events,
                                embedding=scores.embedding)
        if scores.curves is None:
            return prediction
        order = np.argsort(-mean, kind="stable")[:CURVES].tolist()
        seen = {names.index(event.label): event.score for event in events}
        order = sorted(dict.fromkeys([*sorted(seen, key=lambda label: -seen[label])[:CURVES], *order]), key=lambda i: -mean[i])[:CURVES]
        per_point, curves = scores.curves.of(order)
        return prediction.with_curves(per_point, {names[label]: curve for label, curve in zip(order, curves)})

"""Windows of many files scored in batches, and put together again file by file."""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, repeat

import numpy as np
import torch

from aumcli.classifier import Classifier
from aumcli.config import PredictConfig
from aumcli.data.decoding.audio import LONGEST_S
from aumcli.data.decoding.channels import with_channel
from aumcli.errors import AumError
from aumcli.predict.decoding import Decoder, DecodeResult, Window
from aumcli.predict.events import add_batch
from aumcli.predict.inputs import Source
from aumcli.predict.postprocess import PendingClip, PostProcessor
from aumcli.predict.prediction import Prediction
from aumcli.predict.thresholds import class_thresholds
from aumcli.predict.window_store import WindowStore
from aumcli.utils.logging import get_logger
from aumcli.utils.memory import physical_bytes
from aumcli.utils.text import counted
from aumcli.utils.threads import default_workers

logger = get_logger(__name__)

GROUP_BATCHES = 8  # most batches whose results are yielded together
FEW_TOKENS = 48  # with fewer the automatic batch is larger
POOLED = 16  # windows of a batch that is one of these
AT_ONCE = 4  # most batches scored in parallel
POSITION_BYTES = 12  # for each of a token's values: its position before and after it is resized, and a copy
LONG_S = 60.0  # from there on a file's own progress is shown


def window_samples(classifier: Classifier, config: PredictConfig) -> tuple[int | None, int]:
    """Samples of a window (None: the whole clip), and from one window to the next.

    Raises:
        AumError: the windows would skip samples, or are shorter than one.
    """
    rate_hz, (size, hop) = classifier.config.frontend.sample_rate_hz, classifier.window_samples
    if config.whole:
        return None, 1
    if config.window_s is not None:
        size = round(config.window_s * rate_hz)
        hop = max(1, size // 2)
    if config.hop_s is not None:
        hop = round(config.hop_s * rate_hz)
    if size > LONGEST_S * rate_hz:
        raise AumError(
            f"windows of {size / rate_hz:g} s are longer than any sound that can be read",
            fix="give a shorter --window, or --whole",
        )
    if not 1 <= hop <= size:
        raise AumError(
            f"windows of {size / rate_hz:.4g} s can't start every {hop / rate_hz:.4g} s: samples would be skipped, or "
            "it is less than a sample",
            fix="make the hop at least a sample and at most the window",
        )
    return size, hop


def _for_windows(classifier: Classifier, size: int) -> Classifier:
    """The model for windows of `size` samples, or the AumError of windows too long for the memory."""
    model, window_s = classifier.config.model, size / classifier.config.frontend.sample_rate_hz
    error = AumError(
        f"windows of {window_s:g} s are too long for the memory",
        fix="give a shorter --window, or leave it out",
        exit_code=1,
    )
    tokens = model.n_patches * size / classifier.config.frontend.clip_samples
    if tokens * model.width * POSITION_BYTES > physical_bytes():
        raise error
    try:
        return classifier.at_length(size)
    except (MemoryError, RuntimeError) as problem:
        if "memory" in f"{type(problem).__name__} {problem}".lower():
            raise error from problem
        raise


def batch_windows(classifier: Classifier, config: PredictConfig) -> int:
    """Windows in one go, for a model of their length.

    There are more of short ones, whose operations are over before Python starts the next.
    """
    if config.whole:
        return 1
    return config.batch_size or (128 if classifier.config.model.n_patches < FEW_TOKENS else 64)


def thresholds(classifier: Classifier, config: PredictConfig) -> np.ndarray:
    """Least score of an event, (classes,) float32: as asked for, else the model's own, else 0.5."""
    return class_thresholds(classifier.labels, classifier.thresholds, config)


def predict_groups(
    classifier: Classifier,
    sources: Iterable[Source],
    config: PredictConfig,
    embed: bool = False,
    curves: bool = False,
    store: WindowStore | None = None,
    at: Callable[[str], None] = lambda place: None,
    blocks: Iterable[int] | None = None,
) -> Iterator[list[Prediction]]:
    """Label files in order, some at a time.

    Which files form a group, and so which windows share a batch, depends on the files and their blocks alone: scores of
    a list that is continued after a group are the same to the last bit.

    Args:
        classifier: see `aumcli.load_model`.
        sources: the files.
        config: how.
        embed, curves: keep each clip's embedding, its scores over time.
        store: is given the scores of all windows.
        at: is told how far a long file is decoded.
        blocks: a number for each source: files of different ones share no batch. None: there is one.
    """
    size, hop = window_samples(classifier, config)
    if size is not None:
        classifier = _for_windows(classifier, size)
    scorer = _Scorer(classifier, config, embed, curves, store)
    clip: PendingClip | None = None
    sources = (replace(source, file=with_channel(source.file, config.channel)) for source in sources)
    workers = config.workers or default_workers()
    logger.debug(f"decoding in {counted(workers, 'thread')}, windows of {size or 'all'} samples")
    rate_hz = classifier.config.frontend.sample_rate_hz
    numbers = iter(repeat(0) if blocks is None else blocks)
    block = None
    with Decoder(sources, rate_hz, size, hop, workers, config.recorded) as decoder:
        for source, part in decoder:
            if clip is None:
                last, block = block, next(numbers)
                if last != block:
                    scorer.close_group()
                clip = scorer.post.begin(source)
            if isinstance(part, DecodeResult):
                scorer.end(clip, part)
                clip = None
            else:
                scorer.add(clip, part)
                if part and part[-1][0] > LONG_S * classifier.config.frontend.sample_rate_hz:
                    at(f"{clock(part[-1][0] / classifier.config.frontend.sample_rate_hz)} of {source.name}")
            yield from scorer.finished()
    yield from scorer.finished(all=True)


def clock(seconds: float) -> str:
    """A place in a recording as 1:02:03 or 2:03."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


@functools.cache
def _pool(threads: int, each: int) -> ThreadPoolExecutor:
    """Threads that score, kept for the whole process since the kernels keep memory for each.

    Torch uses `each` within one.
    """
    return ThreadPoolExecutor(threads, "aum-score", torch.set_num_threads, (each,))


Encoded = tuple[
    np.ndarray, np.ndarray | None
]  # scores (windows, classes) and, where asked for, embeddings (windows, d)


@dataclass(frozen=True)
class _Batch:
    """Windows that are scored together, each with its clip; `scores` waits for what comes of them."""

    scores: Callable[[], Encoded]
    windows: list[tuple[PendingClip, Window]]


class _Scorer:
    """Puts windows into batches, has them scored, and gives clips back in groups, all in order.

    On a processor several full batches are scored at once, each by few threads, which keeps its cores busier than one
    batch by all of them.
    """

    def __init__(
        self, classifier: Classifier, config: PredictConfig, embed: bool, curves: bool, store: WindowStore | None
    ):
        self.classifier, self.config, self.embed, self.store = classifier, config, embed, store
        rate_hz = classifier.config.frontend.sample_rate_hz
        self.post = PostProcessor(
            classifier.labels, rate_hz, thresholds(classifier, config), config, curves, classifier.has_background
        )
        self.batch = batch_windows(classifier, config)
        threads = torch.get_num_threads() if classifier.device.type == "cpu" and not config.whole else 1
        self.at_once = min(threads, AT_ONCE)
        self.pool = _pool(self.at_once, threads // self.at_once) if self.at_once > 1 else None
        self._waiting: list[tuple[PendingClip, Window]] = []
        self._work: deque[_Batch | list[PendingClip]] = deque()  # batches, and groups behind theirs
        self._group: list[PendingClip] = []
        self._batches = self._windows = 0  # in work; of the group

    def add(self, clip: PendingClip, windows: list[Window]) -> None:
        """Add windows of the current clip."""
        self._windows += len(windows)
        for window in windows:
            self._waiting.append((clip, window))
            if len(self._waiting) == self.batch:
                self._start()

    def end(self, clip: PendingClip, decoded: DecodeResult) -> None:
        """Close the current clip, and the group where it comes to full batches or is large."""
        if clip.decoded.problem:
            clip.decoded.fingerprint = decoded.fingerprint
        else:
            clip.decoded = decoded
        self._group.append(clip)
        if not self._waiting or self._windows >= GROUP_BATCHES * self.batch:
            self.close_group()

    def finished(self, all: bool = False) -> Iterator[list[Prediction]]:
        """Groups whose windows are scored; as many batches stay in work as can be at once, or none."""
        if all:
            self.close_group()
        while self._work:
            first = self._work[0]
            if not isinstance(first, list) and not all and self._batches <= (self.at_once if self.pool else 0):
                return
            self._work.popleft()
            if isinstance(first, list):
                yield self.post.predictions(first)
            else:
                self._take(first)

    def close_group(self) -> None:
        """Have what waits scored, and give the group back when it is."""
        if self._waiting:
            self._start()
        if self._group:
            self._work.append(self._group)
        self._group, self._windows = [], 0

    def _start(self) -> None:
        """Have the waiting windows scored as one batch.

        One of few windows is scored here, by all threads, when it is its turn.
        """
        waiting, self._waiting = self._waiting, []
        windows = [samples for _, (_, samples) in waiting]
        if self.pool is not None and len(waiting) >= min(self.batch, POOLED):
            scores: Callable[[], Encoded] = self.pool.submit(self._encode, windows).result
        else:
            scores = functools.partial(self._encode, windows)
        self._work.append(_Batch(scores, waiting))
        self._batches += 1

    def _encode(self, windows: list[np.ndarray]) -> Encoded:
        classifier = self.classifier.at_length(len(windows[0])) if self.config.whole else self.classifier
        return classifier.encode_windows(windows) if self.embed else (classifier.score_windows(windows), None)

    def _take(self, batch: _Batch) -> None:
        """Wait for a batch's scores and give them to its clips.

        A window too long for the memory is its clip's problem.
        """
        self._batches -= 1
        try:
            scores, embeddings = batch.scores()
        except (MemoryError, RuntimeError) as error:
            if "memory" not in f"{type(error).__name__} {error}".lower():
                raise
            if not self.config.whole:
                windows = counted(len(batch.windows), "window at a time is", "windows at a time are")
                raise AumError(
                    f"{windows} too much for the memory",
                    fix="give a smaller --batch, or a shorter --window",
                    exit_code=1,
                ) from error
            clip = batch.windows[0][0]
            clip.decoded = DecodeResult(
                problem=f"{clip.source.path} is too long for the memory in one pass",
                fix="leave out --whole",
                fingerprint=clip.decoded.fingerprint,
            )
            return
        clips = [
            (clip.scores, [(start, start + len(samples)) for _, (start, samples) in items])
            for clip, items in groupby(batch.windows, key=lambda item: item[0])
        ]
        if self.store is not None:
            spans = [span for _, of_clip in clips for span in of_clip]
            row = self.store.append(spans, scores, embeddings)
            for clip, of_clip in clips:
                if clip.windows == 0:
                    clip.first_window = row
                row += len(of_clip)
        add_batch(clips, scores, embeddings)

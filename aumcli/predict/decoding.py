"""Sounds decoded and cut into windows by threads, in order and in bounded memory."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from aumcli.data.audio import open_audio
from aumcli.data.windows import cut_windows
from aumcli.errors import AumError
from aumcli.predict.inputs import Source

PART_SAMPLES = 2**20             # windows are handed over when they come to so many samples,
WAITING_SAMPLES = 2**24          # and threads pause while so many wait
AHEAD = 256                      # files begun before the first of them is done

Window = tuple[int, np.ndarray]  # first sample, samples


@dataclass(slots=True)
class End:
    """How a file ended: its length, or what is wrong with it."""

    duration_s: float = 0.0
    problem: str = ""
    fix: str = ""


@dataclass(slots=True)
class _Job:
    """A file in work: parts that wait to be taken."""

    source: Source | None
    parts: deque = field(default_factory=deque)          # lists of windows, then an End; or what was raised


def decode(source: Source, rate_hz: int, size: int | None, hop: int) -> Iterator[list[Window] | End]:
    """Decode a file to windows of `size` samples (None: one window) at `rate_hz`, a list at a time, and at last an End."""
    try:
        with open_audio(source.file, rate_hz) as (info, blocks):
            part: list[Window] = []
            waiting = end = 0
            for start, window in cut_windows(blocks, size or int(info.duration_s * rate_hz) + 2, hop):
                part.append((start, window))
                waiting, end = waiting + len(window), start + len(window)
                if waiting >= PART_SAMPLES:
                    yield part
                    part, waiting = [], 0
            yield part
            yield End(min(info.duration_s, end / rate_hz))          # an MP3 may be shorter than its header says
    except AumError as error:
        yield End(problem=error.problem.replace(source.file, source.path), fix=error.fix)


class Decoder:
    """Decodes many files at once; use as a context, and iterate.

    Args:
        sources: taken one by one, shortly before they are needed.
        rate_hz, size, hop: see `decode`.
        workers: threads.

    Yields:
        (source, windows or how it ended): for each file, in order, lists of windows and then an `End`.
    """

    def __init__(self, sources: Iterable[Source], rate_hz: int, size: int | None, hop: int, workers: int):
        self._sources, self._how = iter(sources), (rate_hz, size, hop)
        self._jobs: deque[_Job] = deque()
        self._waiting, self._exhausted, self._stopped = 0, False, False
        lock = threading.Lock()
        self._room, self._ready = threading.Condition(lock), threading.Condition(lock)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]

    def __enter__(self) -> "Decoder":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._room:
            self._stopped = True
            self._room.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[tuple[Source, list[Window] | End]]:
        while True:
            with self._ready:
                while not (self._jobs[0].parts if self._jobs else self._exhausted):
                    self._ready.wait()
                if not self._jobs:
                    return
                job = self._jobs[0]
                part = job.parts.popleft()
                if isinstance(part, BaseException):     # not a bad file: a mistake in the program or the list
                    raise part
                if isinstance(part, End):
                    self._jobs.popleft()
                else:
                    self._waiting -= _samples(part)
                self._room.notify_all()
            yield job.source, part

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            try:
                for part in decode(job.source, *self._how):
                    if not self._hand_over(job, part):
                        return
            except BaseException as error:  # raised again where the files are asked for
                self._hand_over(job, error)

    def _next_job(self) -> _Job | None:
        with self._room:
            while not self._stopped and not self._exhausted and len(self._jobs) >= AHEAD:
                self._room.wait()
            if self._stopped or self._exhausted:
                return None
            try:
                job = _Job(next(self._sources))
            except BaseException as error:
                self._exhausted = True
                if not isinstance(error, StopIteration):
                    self._jobs.append(_Job(None, deque([error])))
                self._ready.notify_all()
                self._room.notify_all()
                return None
            self._jobs.append(job)
            return job

    def _hand_over(self, job: _Job, part: list[Window] | End | BaseException) -> bool:
        """Leave a part for the reader, when there is room or the reader waits for just this; False: nobody reads any more."""
        with self._room:
            while not self._stopped and self._waiting >= WAITING_SAMPLES and (job is not self._jobs[0] or job.parts):
                self._room.wait()
            job.parts.append(part)
            if isinstance(part, list):
                self._waiting += _samples(part)
            if job is self._jobs[0]:
                self._ready.notify_all()
            return not self._stopped


def _samples(part: list[Window]) -> int:
    return sum(len(window) for _, window in part)

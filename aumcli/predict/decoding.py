"""Sounds decoded and cut into windows by threads, in order and in bounded memory."""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from aumcli.data.decoding.audio import open_audio
from aumcli.data.decoding.channels import Balance, split_channel
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.decoding.windows import cut_windows
from aumcli.data.recorded import Recorded, when_recorded
from aumcli.errors import AumError
from aumcli.predict.inputs import PIPED, Source

PART_SAMPLES = 2**20  # windows are handed over when they have this many samples,
WAITING_SAMPLES = 2**24  # and threads pause while this many wait
RUN_FILES, RUN_BYTES = (
    16,
    2**20,
)  # short files are decoded in runs: handing each over alone takes as long as decoding it
AHEAD = 16  # runs of files begun before the first of them is done

Window = tuple[int, np.ndarray]  # first sample, samples


@dataclass(slots=True)
class DecodeResult:
    """What decoding a file found: its length, or what is wrong with it; its `fingerprint` when it was begun."""

    duration_s: float = 0.0
    cancels: bool = False  # whether its channels' mean is next to nothing (see `Balance`)
    recorded: Recorded = field(default_factory=Recorded)
    problem: str = ""
    fix: str = ""
    fingerprint: tuple[int, int] = (-1, -1)


Part = tuple[Source, list[Window] | DecodeResult]


@dataclass(slots=True)
class _Run:
    """Files that a thread decodes one after the other, with their fingerprints, and parts that wait to be taken."""

    sources: list[tuple[Source, tuple[int, int]]] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    done: bool = False
    error: BaseException | None = None  # not a bad file: a mistake in the program or the list


def fingerprint(source: Source) -> tuple[int, int]:
    """A file's size in bytes and its time in ns, by which it is known to be unchanged.

    (-1, -1) for one that isn't there.
    """
    try:
        status = os.stat(split_dataset(source.file)[0])  # of the whole HDF5 file where a sound lies in one
    except (OSError, ValueError):  # ValueError: NUL in the name
        return -1, -1
    return status.st_size, status.st_mtime_ns


def decode(
    source: Source, rate_hz: int, size: int | None, hop: int, pattern: str = ""
) -> Iterator[list[Window] | DecodeResult]:
    """Decode a file to lists of windows of `size` samples (None: one window) at `rate_hz`, then a DecodeResult.

    `pattern` is how names say when they were recorded, see `when_recorded`.
    """
    if source.problem:
        yield DecodeResult(problem=source.problem, fix=source.fix)
        return
    try:
        balance = Balance()
        with open_audio(source.file, rate_hz, balance=balance) as (info, blocks):
            part: list[Window] = []
            waiting = 0
            for start, window in cut_windows(blocks, size or int(info.duration_s * rate_hz) + 2, hop):
                part.append((start, window))
                waiting += len(window)
                if waiting >= PART_SAMPLES:
                    yield part
                    part, waiting = [], 0
            yield part
            yield DecodeResult(info.duration_s, balance.cancels, when_recorded(source.path, source.file, pattern))
    except AumError as error:
        fix = error.fix
        if (
            source.is_copy and split_channel(source.file)[0] in fix
        ):  # which goes when the program ends: commands must not name it
            fix = PIPED
        yield DecodeResult(problem=error.problem.replace(source.file, source.path), fix=fix)


class Decoder:
    """Decodes many files at once; use as a context, and iterate.

    Args:
        sources: taken one by one, shortly before they are needed.
        rate_hz, size, hop, pattern: see `decode`.
        workers: threads.

    Yields:
        (source, windows or result): for each file, in order, lists of windows and then a `DecodeResult`.

    Raises:
        BaseException: whatever the list of sources raised, behind the files before it.
    """

    def __init__(
        self, sources: Iterable[Source], rate_hz: int, size: int | None, hop: int, workers: int, pattern: str = ""
    ):
        self._sources, self._how = iter(sources), (rate_hz, size, hop, pattern)
        self._runs: deque[_Run] = deque()
        self._waiting, self._exhausted, self._stopped = 0, False, False
        lock = threading.Lock()
        self._room, self._ready = threading.Condition(lock), threading.Condition(lock)
        self._taking = threading.Lock()  # of sources: it may block, and nothing else waits for this lock
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

    def __iter__(self) -> Iterator[Part]:
        while True:
            with self._ready:
                while not (self._exhausted if not self._runs else self._runs[0].parts or self._runs[0].done):
                    self._ready.wait()
                if not self._runs:
                    return
                run = self._runs[0]
                parts, run.parts = run.parts, []
                error = run.error if run.done else None
                if run.done:
                    self._runs.popleft()
                self._waiting -= _samples(parts)
                self._room.notify_all()
            yield from parts
            if error is not None:
                raise error

    def _work(self) -> None:
        while (run := self._next_run()) is not None:
            parts: list[Part] = []
            waiting, error = 0, run.error
            try:
                for source, read in run.sources:
                    for part in decode(source, *self._how):
                        if isinstance(part, DecodeResult):
                            part.fingerprint = read
                        parts.append((source, part))
                        waiting += _samples(parts[-1:])
                        if waiting >= PART_SAMPLES:
                            if not self._hand_over(run, parts):
                                return
                            parts, waiting = [], 0
            except BaseException as problem:  # raised again where the files are asked for
                error = problem
            if not self._hand_over(run, parts, done=True, error=error):
                return

    def _next_run(self) -> _Run | None:
        with self._taking:
            with self._room:
                while not self._stopped and not self._exhausted and len(self._runs) >= AHEAD:
                    self._room.wait()
                if self._stopped or self._exhausted:
                    return None
            run, size, exhausted = _Run(), 0, False
            try:
                while len(run.sources) < RUN_FILES and size < RUN_BYTES:
                    source = next(self._sources)
                    run.sources.append((source, fingerprint(source)))
                    size += run.sources[-1][1][0]
            except StopIteration:
                exhausted = True
            except BaseException as error:
                exhausted, run.error = True, error
            with self._room:
                self._exhausted = exhausted
                if exhausted:
                    self._ready.notify_all()
                    self._room.notify_all()
                    if not run.sources and run.error is None:
                        return None
                self._runs.append(run)
                return run

    def _hand_over(self, run: _Run, parts: list[Part], done: bool = False, error: BaseException | None = None) -> bool:
        """Leave parts for the reader, when there is room or the reader waits for just these.

        False: the reader has stopped.
        """
        with self._room:
            while not self._stopped and self._waiting >= WAITING_SAMPLES and (run is not self._runs[0] or run.parts):
                self._room.wait()
            run.parts += parts
            run.done, run.error = done, error
            self._waiting += _samples(parts)
            if run is self._runs[0]:
                self._ready.notify_all()
            return not self._stopped


def _samples(parts: list[Part]) -> int:
    return sum(len(window) for _, part in parts if isinstance(part, list) for _, window in part)

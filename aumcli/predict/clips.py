"""Events cut out of their recordings: a sound file for each, in a folder for each class."""

import hashlib
import heapq
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from aumcli.data.decoding.audio import load_channels
from aumcli.errors import AumError
from aumcli.predict.prediction import Record
from aumcli.utils.files import check_writable, disk_error, temporary_path
from aumcli.utils.logging import get_logger
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, one_line

EACH, PAD_S = 100, 0.5
STEM = 120  # bytes of a recording's name that a clip's keeps
# encoding of a file -> of its clips
EXACT = {"PCM_S8": "PCM_16", "PCM_U8": "PCM_16", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}

logger = get_logger(__name__)


@dataclass(frozen=True)
class ClipFolder:
    """Where events are cut out to, and which of them.

    Attributes:
        folder: gets a folder for each class; must not exist, or be empty.
        each: at most so many of a class, those with the highest scores.
        pad_s: seconds kept on either side.
        spread: instead of the highest, one for each of `each` equal steps of score, where there is one.
    """

    folder: Path
    each: int = EACH
    pad_s: float = PAD_S
    spread: bool = False

    def check(self) -> None:
        """Raise the AumError of a folder that can't be written."""
        if os.path.lexists(self.folder) and not (self.folder.is_dir() and not any(self.folder.iterdir())):
            raise AumError(f"{self.folder} exists already", fix="name another folder with --clips, or remove this one")
        check_writable(temporary_path(self.folder))


class _Cut(NamedTuple):
    """An event that is cut out; they are ordered by score, then by place among all events."""

    score: float
    place: int
    path: str
    label: str
    start_s: float
    stop_s: float
    duration_s: float  # of the recording


def write_event_clips(wanted: ClipFolder, records: Callable[[], Iterator[Record]], files: Mapping[str, str]) -> None:
    """Cut events out, as they were recorded: rate, channels and, where it is PCM of at most 24 bits, every sample.

    The folder appears when all are written. A clip's name has its rank by score, its score, and the recording's name
    and second; its metadata the label as title, and path, time and score as comment.

    Recordings that can't be read any more are named, and the others' events written.

    Args:
        wanted: which, and where to.
        records: gives the results, again and again.
        files: where those recordings are that have no path of their own.

    Raises:
        AumError: the folder can't be written.
    """
    counts = Counter(cut.label for cut in _cuts(records))
    chosen = (_spread if wanted.spread else _best)(records, wanted.each)
    made = temporary_path(wanted.folder)
    jobs = [
        (cut, rank, made / folder)
        for (label, cuts), folder in zip(chosen.items(), _folder_names(list(chosen)))
        for rank, cut in enumerate(cuts, 1)
    ]
    jobs.sort(key=lambda job: (job[0].path, job[0].start_s))
    lost: dict[str, str] = {}
    written = 0
    try:
        made.mkdir(parents=True)
        for cut, rank, folder in progress(jobs, "cutting", len(jobs), "event"):
            try:
                sound = _decoded(cut, wanted.pad_s, files.get(cut.path, cut.path))
            except AumError as error:
                lost.setdefault(cut.path, error.problem)
                continue
            folder.mkdir(exist_ok=True)
            _write(cut, rank, folder, *sound)
            written += 1
        if wanted.folder.is_dir():
            wanted.folder.rmdir()
        os.replace(made, wanted.folder)
    except (OSError, soundfile.SoundFileError) as error:
        raise disk_error(wanted.folder, error if isinstance(error, OSError) else OSError(str(error))) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    for path, problem in lost.items():
        logger.warning(f"events of {one_line(path)} are not cut out: {problem}")
    left = {label: count for label, count in counts.items() if count > len(chosen[label])}
    logger.info(
        f"wrote {counted(written, 'event')} of {counted(len(chosen), 'class')} to {wanted.folder}"
        + (f"; of {counted(len(left), 'class')} not all {sum(left.values()):,}, but {wanted.each} each" if left else "")
    )


def _cuts(records: Callable[[], Iterator[Record]]) -> Iterator[_Cut]:
    """All events."""
    place = 0
    for record in records():
        for event in record.get("events", ()):
            yield _Cut(
                event["score"],
                -place,
                record["path"],
                event["label"],
                event["start_s"],
                event["stop_s"],
                record["duration_s"],
            )
            place += 1


def _best(records: Callable[[], Iterator[Record]], each: int) -> dict[str, list[_Cut]]:
    """The events of each class with the highest scores, best first."""
    heaps: dict[str, list[_Cut]] = defaultdict(list)
    for cut in _cuts(records):
        heap = heaps[cut.label]
        if len(heap) < each:
            heapq.heappush(heap, cut)
        else:
            heapq.heappushpop(heap, cut)
    return {label: sorted(heap, reverse=True) for label, heap in sorted(heaps.items())}


def _spread(records: Callable[[], Iterator[Record]], each: int) -> dict[str, list[_Cut]]:
    """One event of each class for each of `each` equal steps of score, best first; which one, is decided by a hash."""
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    for cut in _cuts(records):
        lowest[cut.label] = min(cut.score, lowest.get(cut.label, 1.0))
        highest[cut.label] = max(cut.score, highest.get(cut.label, 0.0))
    steps: dict[str, dict[int, tuple[bytes, _Cut]]] = defaultdict(dict)
    for cut in _cuts(records):
        low, high = lowest[cut.label], highest[cut.label]
        step = min(each - 1, int(each * (cut.score - low) / (high - low))) if high > low else 0
        drawn = hashlib.sha256(f"{cut.path} {cut.start_s} {cut.label}".encode("utf-8", "surrogateescape")).digest()
        steps[cut.label][step] = min((drawn, cut), steps[cut.label].get(step, (drawn, cut)))
    return {label: sorted((cut for _, cut in of.values()), reverse=True) for label, of in sorted(steps.items())}


def sample_events(records: Callable[[], Iterator[Record]], most: int) -> Iterator[Record]:
    """The results with some of the events: of each class as many, spread over its scores.

    Args:
        records: gives the results, again and again.
        most: events in all, or one of each class where there are more classes.

    Yields:
        Results that still have events, the times of those left out as `others`, [[start_s, stop_s], ...].
    """
    classes = len({cut.label for cut in _cuts(records)})
    chosen = {-cut.place for cuts in _spread(records, max(1, most // max(1, classes))).values() for cut in cuts}
    place = 0
    for record in records():
        events = record.get("events", [])
        is_kept = [place + i in chosen for i in range(len(events))]
        place += len(events)
        if any(is_kept):
            others = [[event["start_s"], event["stop_s"]] for event, kept in zip(events, is_kept) if not kept]
            yield {**record, "events": [event for event, kept in zip(events, is_kept) if kept], "others": others}


def _plain(text: str) -> str:
    """A part of a file's name that every system takes."""
    plain = re.sub(r"[^\w .()+=-]", "_", one_line(text)).strip(" .")
    return plain.encode()[:STEM].decode("utf-8", "ignore") or "_"


def _folder_names(labels: list[str]) -> list[str]:
    """A folder's name for each label: its own, unless that can't be one or another label has it."""
    names: list[str] = []
    taken: set[str] = set()
    for label in labels:
        name = plain = _plain(label)
        number = 2
        while name.casefold() in taken:
            name, number = f"{plain} {number}", number + 1
        taken.add(name.casefold())
        names.append(name)
    return names


def _decoded(cut: _Cut, pad_s: float, file: str) -> tuple[np.ndarray, int, str]:
    """An event with what is around it, see `load_channels`."""
    return load_channels(file, max(0.0, cut.start_s - pad_s), min(cut.duration_s, cut.stop_s + pad_s))


def _write(cut: _Cut, rank: int, folder: Path, samples: np.ndarray, rate_hz: int, encoding: str) -> None:
    """Write one event."""
    stem = _plain(os.path.splitext(os.path.basename(cut.path))[0])
    path = folder / f"{rank:05}_{cut.score:.3f}_{stem}_{cut.start_s:.3f}s.wav"
    kept = EXACT.get(encoding, "FLOAT")
    with soundfile.SoundFile(os.fspath(path), "w", rate_hz, samples.shape[1], kept, format="WAV") as clip:
        clip.title = one_line(cut.label)
        clip.comment = f"{one_line(cut.path)}, {cut.start_s:.6f} s to {cut.stop_s:.6f} s, score {cut.score:.6f}"
        # libsndfile would scale floats by 32767, and read them back by 32768
        clip.write(samples if kept == "FLOAT" else np.round(samples.astype(np.float64) * 2**31).astype(np.int32))

"""Clips of YouTube videos: the usual names of their files, and which of a corpus's rows each one is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, walk_files
from aumcli.data.sources import SkippedClip
from aumcli.utils.csv import listed
from aumcli.utils.text import counted

# A video's id has 11 characters, among them _ and -. Y in front keeps a name from beginning with -. Times are in
# seconds or milliseconds, with leading zeros or without, of the start or of both ends. No name can be read in two ways.
NAME = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
SAME_START_S = 0.5  # tables have 30.000 where file names have 30
LONGEST_S = 15.0  # of a corpus whose clips last 10 s: a longer file is the complete video


@dataclass(frozen=True, slots=True)
class Segment:
    """A row of a corpus's table: part of a video, its labels and its split."""

    video: str
    start_s: float
    labels: tuple[str, ...]
    split: str


def parse_name(stem: str) -> tuple[str, float | None] | None:
    """Read a file's name without its suffix.

    Args:
        stem: `YTID`, `YYTID`, `YTID_START` or `YTID_START_STOP`, where YTID is a video's id.

    Returns:
        The video's id and the number that tells the start, None if the name has none; None for any other name.
    """
    match = NAME.fullmatch(stem)
    return match and (match[1], None if match[2] is None else float(match[2]))


def find_clips(folder: Path, segments: Iterable[Segment]) -> tuple[Clips, Clips, list[SkippedClip], list[str]]:
    """Find the files of segments.

    Args:
        folder: searched with all its sub-folders.
        segments: the rows wanted.

    Returns:
        In the order of the segments: clips that have a file, and those that have none (the path is the video's id);
        files with another start than the table's; and warnings.
    """
    table = Clips()  # a row per segment; its path is the video
    rows: dict[str, int | tuple[int, ...]] = {}  # video -> its row, or its rows
    for row, segment in enumerate(segments):
        table.append(segment.video, segment.start_s, None, segment.labels, segment.split, segment.video)
        rows[segment.video] = row if segment.video not in rows else (*_all(rows[segment.video]), row)
    files: dict[int, str] = {}  # row -> file
    skipped: list[SkippedClip] = []
    doubled: list[str] = []
    foreign = 0
    for path in walk_files(folder):
        stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
        if f"{dot}{suffix}".lower() not in AUDIO_SUFFIXES:
            continue
        video, time = parse_name(stem) or ("", None)
        if video not in rows:
            foreign += 1
            continue
        own_row = _row(table, _all(rows[video]), time)
        if own_row is None:
            skipped.append(
                SkippedClip(path, "begins at another time than the table says", "cut the clip at the time in the table")
            )
        elif own_row in files:
            doubled.append(path)
        else:
            files[own_row] = path
    found = np.array(sorted(files), dtype=np.int64)
    clips = Clips()
    for row, clip in zip(found.tolist(), table.take(found)):
        clips.append(files[row], None, None, clip.labels, clip.split, clip.group)
    missing = table.take(np.setdiff1d(np.arange(len(table)), found, assume_unique=True))
    warnings = [f"{counted(foreign, 'sound belongs', 'sounds belong')} to no row of the tables"] if foreign else []
    if doubled:
        warnings.append(
            f"{counted(len(doubled), 'sound occurs', 'sounds occur')} twice, the first of each was taken; "
            f"the others: {listed(doubled, 3)}"
        )
    return clips, missing, skipped, warnings


def _all(rows: int | tuple[int, ...]) -> tuple[int, ...]:
    return rows if isinstance(rows, tuple) else (rows,)


def _row(table: Clips, rows: tuple[int, ...], time: float | None) -> int | None:
    """Which of a video's rows a file is: the only one if its name tells no time, else the one that starts then."""
    if time is None:
        return rows[0] if len(rows) == 1 else None
    times = (time, time / 1000) if time >= 1000 else (time,)  # no table has starts in ms below 1000
    starts_s = {row: table[row].start_s or 0.0 for row in rows}
    near = [row for row in rows if min(abs(starts_s[row] - start_s) for start_s in times) < SAME_START_S]
    return near[0] if len(near) == 1 else None

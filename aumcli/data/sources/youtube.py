"""Clips of YouTube videos as people have them: the names they give the files, and which of a corpus's rows each one is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aumcli.data.audio import AUDIO_SUFFIXES, walk_files
from aumcli.data.clips import Clips
from aumcli.data.sources import LeftOut
from aumcli.data.tables import listed

# A video's id has 11 characters, among them _ and -. Y in front keeps a name from beginning with -. Times are in seconds or
# milliseconds, with leading zeros or without, of the start or of both ends. No name can be read in two ways.
NAME = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?)?", re.ASCII)
SAME_START_S = 0.5                      # tables have 30.000 where file names have 30
LONGEST_S = 15.0                        # of a corpus whose clips last 10 s: what is longer is the whole video


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


def find_clips(folder: Path, segments: Iterable[Segment]) -> tuple[Clips, Clips, list[LeftOut], list[str]]:
    """Find the files of segments.

    Args:
        folder: searched with all its sub-folders.
        segments: the rows wanted.

    Returns:
        In the order of the segments: clips that have a file, and those that have none (the path is the video's id); files
        with another start than the table's; and warnings.
    """
    wanted: dict[str, list[Segment]] = {}
    for segment in segments:
        wanted.setdefault(segment.video, []).append(segment)
    files: dict[tuple[str, float], str] = {}
    left_out, doubled, foreign = [], [], 0
    for path in walk_files(folder):
        stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
        parsed = parse_name(stem) if f"{dot}{suffix}".lower() in AUDIO_SUFFIXES else None
        if parsed is None or parsed[0] not in wanted:
            foreign += f"{dot}{suffix}".lower() in AUDIO_SUFFIXES
            continue
        segment = _segment(wanted[parsed[0]], parsed[1])
        if segment is None:
            left_out.append(LeftOut(path, f"begins at another time than the table says ({wanted[parsed[0]][0].start_s:g} s)",
                                    "cut the clip at that time"))
        elif (segment.video, segment.start_s) in files:
            doubled.append(path)
        else:
            files[segment.video, segment.start_s] = path
    clips, missing = Clips(), Clips()
    for segment in (each for rows in wanted.values() for each in rows):
        path = files.get((segment.video, segment.start_s))
        if path is None:
            missing.append(segment.video, segment.start_s, None, segment.labels, segment.split, segment.video)
        else:
            clips.append(path, None, None, segment.labels, segment.split, segment.video)
    warnings = [f"{foreign} sounds belong to no row of the tables"] if foreign else []
    if doubled:
        warnings.append(f"{len(doubled)} sounds occur twice, the first of each was taken; the others: {listed(doubled, 3)}")
    return clips, missing, left_out, warnings


def _segment(segments: list[Segment], time: float | None) -> Segment | None:
    """Which of a video's segments a file is: the only one if its name tells no time, else the one that starts then."""
    if time is None:
        return segments[0] if len(segments) == 1 else None
    times = (time, time / 1000) if time >= 1000 else (time,)    # nobody writes 30 ms
    near = [each for each in segments if min(abs(each.start_s - start_s) for start_s in times) < SAME_START_S]
    return near[0] if len(near) == 1 else None

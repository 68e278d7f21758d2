"""Sounds that occur more than once: under another name, through a link, as a copy."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aumcli.data.clips import Clip, Clips
from aumcli.data.decoding.audio import check_clip
from aumcli.data.decoding.channels import SEPARATOR
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.decoding.integrity import implausible
from aumcli.utils.csv import listed
from aumcli.utils.files import file_sha256
from aumcli.utils.progress import progress
from aumcli.utils.text import counted

HEAD_BYTES = 2**16  # files of one size whose beginnings differ are not read beyond


def content_digest(path: Path | str) -> str:
    """SHA-256 of a file's content; the path itself where it can't be read any more."""
    try:
        return file_sha256(path)
    except OSError:
        return str(path)


def same_files(paths: Iterable[str]) -> dict[str, str]:
    """Find paths of equal content without reading what can't be equal.

    Args:
        paths: of sound files, or of data sets in HDF5 files.

    Returns:
        Each path, and the first of those with its content.
    """
    files: dict[str, str] = {}  # file -> the first with its content
    groups: dict[object, list[str]] = defaultdict(list)
    inodes: dict[object, str] = {}
    paths = dict.fromkeys(paths)
    for file in dict.fromkeys(os.fspath(split_dataset(path)[0]) for path in paths):
        try:
            status = os.stat(file)
        except OSError:  # deleted meanwhile: opening it raises the error
            files[file] = file
            continue
        inode = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(file)  # links, soft and hard
        files[file] = inodes.setdefault(inode, file)
        if files[file] is file:
            groups[status.st_size].append(file)
    for what in (_head, content_digest):
        finer: dict[object, list[str]] = defaultdict(list)
        alike = [(key, file) for key, group in groups.items() if len(group) > 1 for file in group]
        for key, file in progress(alike, "comparing", len(alike)):
            finer[key, what(file)].append(file)
        groups = finer
    first = {file: group[0] for group in groups.values() for file in group}
    files = {file: first.get(found, found) for file, found in files.items()}
    named = ((path, *split_dataset(path)) for path in paths)
    return {path: files[os.fspath(file)] + (SEPARATOR + name if name else "") for path, file, name in named}


def _head(path: str) -> bytes | str:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(HEAD_BYTES)).digest()
    except OSError:
        return path


def distinguish_silent(content: dict[str, str]) -> dict[str, str]:
    """Tell equal silent files apart: that one silence equals another does not make it a copy.

    Args:
        content: path -> what files of equal content share.
    """
    groups = defaultdict(list)
    for path, key in content.items():
        groups[key].append(path)
    apart = dict(content)
    for key, paths in groups.items():
        if len(paths) > 1 and "silent" in implausible(check_clip(paths[0], silent=True)):
            apart |= {path: f"{key} {number}" for number, path in enumerate(sorted(paths))}
    return apart


def duplicate_warnings(clips: Sequence[Clip], keys: Iterable[object], several: str = "") -> list[str]:
    """Warn about clips that are the same sound: doubled, under several classes, or in several splits.

    Args:
        clips: with their splits.
        keys: for each clip, what clips of the same sound share.
        several: advice for a sound with several classes, added to that warning.
    """
    places: dict[object, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        places[key].append(place)
    same = [[clips[place] for place in group] for group in places.values() if len(group) > 1]
    warnings = []
    for what, doubled in (
        (
            "in one class and split, where they count more than once",
            [group for group in same if len({(clip.labels, clip.split) for clip in group}) == 1],
        ),
        ("under different classes" + several, [group for group in same if len({clip.labels for clip in group}) > 1]),
        (
            "in different splits, so the figures of one tell less",
            [group for group in same if len({clip.split for clip in group}) > 1],
        ),
    ):
        if doubled:
            warnings.append(
                f"{counted(len(doubled), 'sound occurs', 'sounds occur')} several times {what}: "
                + listed((" = ".join(map(_name, group)) for group in doubled), 3)
            )
    return warnings


def duplicate_file_warnings(clips: Sequence[Clip], silent: bool, several: str = "") -> list[str]:
    """Warn about clips whose files, and times where they are slices, are the same (see `duplicate_warnings`).

    Args:
        clips: with their splits.
        silent: whether silent clips are kept, which are not copies of each other.
        several: see `duplicate_warnings`.
    """
    return duplicate_warnings(clips, clip_keys(clips, files_of(clips, silent)), several)


def files_of(clips: Sequence[Clip], silent: bool) -> dict[str, str]:
    """Path of each clip -> what files of its content share; silent files are apart where `silent` clips are kept."""
    files = same_files(Clips.of(clips).paths())
    return distinguish_silent(files) if silent else files


def clip_keys(clips: Sequence[Clip], files: Mapping[str, str]) -> Iterator[object]:
    """For each clip, what others of the same content and times share."""
    columns = Clips.of(clips).columns()
    return zip((files[path] for path in columns["path"]), columns["start_s"], columns["stop_s"])


def _name(clip: Clip) -> str:
    """The clip's path, with its times where it is a slice."""
    if clip.start_s is None and clip.stop_s is None:
        return str(clip.path)
    return f"{clip.path} from {clip.start_s or 0:g} s to {'its end' if clip.stop_s is None else f'{clip.stop_s:g} s'}"

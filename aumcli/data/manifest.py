"""A prepared corpus on disk: manifest.csv (one row per clip), labels.csv (one row per class) and report.json."""

import csv
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from aumcli.errors import AumError
from aumcli.files import atomic_path, write_json

CLIP_COLUMNS = ("path", "start_s", "stop_s", "labels", "split", "group")
REQUIRED_COLUMNS = CLIP_COLUMNS[:-1]            # group is optional
LABEL_COLUMNS = ("index", "id", "name")
SHOWN = 5                                       # so many problems are written out, the rest counted


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound: a file or a slice of it, its label ids, its split, and who was recorded ("" when unknown)."""

    path: Path
    start_s: float | None = None
    stop_s: float | None = None
    labels: tuple[str, ...] = ()
    split: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its place in the model's output, its id in the manifest, and the name people read."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Manifest:
    """A prepared corpus, as `read_manifest` gives it: clips in the manifest's order, labels by index."""

    folder: Path
    clips: list[Clip]
    labels: list[Label]

    @cached_property
    def multi_label(self) -> bool:
        """Whether any clip has more than one label."""
        return any(len(clip.labels) > 1 for clip in self.clips)

    @cached_property
    def split_names(self) -> list[str]:
        """The splits that have clips, in the order in which they first occur."""
        return list(dict.fromkeys(clip.split for clip in self.clips))

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by index."""
        return [label.name for label in self.labels]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label.id: label.index for label in self.labels}

    def split(self, name: str) -> list[Clip]:
        """Give the clips of one split.

        Args:
            name: train, val, test or whatever the corpus has.

        Returns:
            Its clips, in the manifest's order; at least one.

        Raises:
            AumError: no clip belongs to that split.
        """
        clips = [clip for clip in self.clips if clip.split == name]
        if not clips:
            raise AumError(f"{self.folder} has no split {name!r}; it has {', '.join(self.split_names)}",
                           fix="name one of those, or prepare the corpus again with that split")
        return clips

    def targets(self, clips: Sequence[Clip]) -> np.ndarray:
        """Say which classes each clip has.

        Args:
            clips: n clips of this manifest.

        Returns:
            (n, classes) float32, 1 where the clip has the label, else 0.
        """
        targets = np.zeros((len(clips), len(self.labels)), dtype=np.float32)            # (n, classes)
        for row, clip in zip(targets, clips):
            row[[self._index[label] for label in clip.labels]] = 1
        return targets

    def check_files(self, clips: Iterable[Clip]) -> None:
        """Look whether the clips' files still exist, without opening them.

        Args:
            clips: clips of this manifest.

        Raises:
            AumError: some are missing; it names the first few with their rows in manifest.csv and counts all.
        """
        paths = dict.fromkeys(clip.path for clip in clips)
        missing = {path for path in paths if not path.exists()}
        if missing:
            rows = {}
            for row, clip in enumerate(self.clips, start=2):    # row 1 is the header
                if clip.path in missing:
                    rows.setdefault(clip.path, row)
            listed = [f"{path} (row {row})" for path, row in rows.items()]
            raise AumError(f"{len(missing)} of {len(paths)} sound files of {self.folder / 'manifest.csv'} are missing: "
                           + _shown(listed, ", "), fix="put them back, or run aum prepare again", exit_code=1)


def read_manifest(folder: Path | str) -> Manifest:
    """Read a prepared corpus; its sound files are not looked at.

    Args:
        folder: holds manifest.csv and labels.csv.

    Returns:
        The corpus; clip paths are absolute.

    Raises:
        AumError: a file is missing or wrong; all wrong rows are counted, the first few named.
    """
    folder = Path(os.path.abspath(folder))
    labels = _read_labels(folder / "labels.csv")
    clips = _read_clips(folder / "manifest.csv", {label.id for label in labels})
    return Manifest(folder, clips, labels)


def write_manifest(folder: Path | str, clips: Sequence[Clip], labels: Sequence[Label], report: dict) -> None:
    """Write a prepared corpus; each file appears whole or not at all, manifest.csv last.

    Args:
        folder: is made; clips below it are written with relative paths, others with absolute ones.
        clips: at least one.
        labels: every label id that the clips use; index 0, 1, ...
        report: what report.json shall hold.

    Raises:
        AumError: the labels contradict each other, a clip has an unknown label or no split, or there is no clip.
    """
    folder = Path(os.path.abspath(folder))
    problems = _label_problems(labels)
    known = {label.id for label in labels}
    for clip in clips:
        problems += [f"{clip.path}: {problem}" for problem in _clip_problems(clip, known)]
    _raise_problems(folder / "manifest.csv", problems or ([] if clips else ["there are no clips"]),
                    fix="correct the corpus; nothing was written")
    with _csv_writer(folder / "labels.csv", LABEL_COLUMNS) as writer:
        writer.writerows((label.index, label.id, label.name) for label in labels)
    write_json(folder / "report.json", report)
    with _csv_writer(folder / "manifest.csv", CLIP_COLUMNS) as writer:
        writer.writerows(_clip_row(clip, folder) for clip in clips)


def _clip_row(clip: Clip, folder: Path) -> tuple[str, ...]:
    path = Path(os.path.abspath(clip.path))
    path = path.relative_to(folder) if path.is_relative_to(folder) else path
    seconds = ("" if value is None else repr(float(value)) for value in (clip.start_s, clip.stop_s))
    return (path.as_posix(), *seconds, ";".join(clip.labels), clip.split, clip.group)


@contextmanager
def _csv_writer(path: Path, columns: Sequence[str]):
    """A CSV writer that has written `columns`; the file appears when all went well."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        yield writer


@contextmanager
def _csv_reader(path: Path, required: Sequence[str]):
    """A CSV reader behind the header, and the header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:              # -sig: spreadsheets add a mark
            reader = csv.reader(file)
            header = next(reader, [])
            lacking = [column for column in required if column not in header]
            if lacking:
                raise AumError(f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
                               fix=f"its first line must be {','.join(required)}, or run aum prepare again")
            yield reader, header
    except FileNotFoundError as error:
        raise AumError(f"{path} doesn't exist: {path.parent} is not a prepared corpus",
                       fix="run aum prepare, or name a prepared folder with --data") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise AumError(f"{path} is not a CSV file in UTF-8: {error}", fix="save it as such, or run aum prepare again"
                       ) from error


def _read_labels(path: Path) -> list[Label]:
    labels, problems = [], []
    with _csv_reader(path, LABEL_COLUMNS) as (reader, header):
        places = [header.index(column) for column in LABEL_COLUMNS]
        for row in reader:
            if not row:
                continue
            try:
                index, label, name = (row[place] for place in places)
                labels.append(Label(int(index), label, name))
            except (ValueError, IndexError):
                problems.append(f"row {reader.line_num}: {','.join(row)!r} is not index, id and name")
    _raise_problems(path, problems or _label_problems(labels))
    return labels


def _label_problems(labels: Sequence[Label]) -> list[str]:
    """What is wrong with a list of labels: order, empty or doubled ids and names, the separator within an id."""
    problems = [] if labels else ["there are no labels"]
    ids, names = set(), set()
    for place, label in enumerate(labels):
        if label.index != place:
            problems.append(f"label {label.id!r} has index {label.index}, its place is {place}")
        if not label.id.strip() or ";" in label.id:
            problems.append(f"label id {label.id!r} is empty or contains ';', which separates labels")
        if label.id in ids or label.name in names:
            problems.append(f"label {label.id!r}, {label.name!r} occurs twice")
        ids.add(label.id)
        names.add(label.name)
    return problems


def _clip_problems(clip: Clip, known: set[str]) -> list[str]:
    problems = [f"unknown label {label!r}" for label in clip.labels if label not in known]
    if not clip.labels:
        problems.append("no label")
    if len(set(clip.labels)) < len(clip.labels):
        problems.append(f"a label occurs twice in {';'.join(clip.labels)!r}")
    if not clip.split:
        problems.append("no split")
    return problems


def _read_clips(path: Path, known: set[str]) -> list[Clip]:
    """Read manifest.csv; what rows have in common (labels, splits) is checked and stored once: AudioSet has 2e6."""
    clips: list[Clip] = []
    problems: list[str] = []
    seen: dict[tuple[str, str], tuple[tuple[str, ...], str, list[str]]] = {}
    with _csv_reader(path, REQUIRED_COLUMNS) as (reader, header):
        places = [header.index(column) for column in REQUIRED_COLUMNS]
        group_place = header.index("group") if "group" in header else None
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                problems.append(f"row {reader.line_num}: {len(row)} values for {len(header)} columns")
                continue
            name, start, stop, labels, split = [row[place] for place in places]
            if (labels, split) not in seen:
                ids = tuple(labels.split(";")) if labels else ()
                example = Clip(path, labels=ids, split=split)
                seen[labels, split] = ids, sys.intern(split), _clip_problems(example, known)
            ids, split, wrong = seen[labels, split]
            start_s, stop_s, wrong_slice = _slice(start, stop) if start or stop else (None, None, [])
            if wrong or wrong_slice or not name:
                wrong = [*wrong, *wrong_slice, *([] if name else ["no path"])]
                problems.append(f"row {reader.line_num}: {', '.join(wrong)}")
                continue
            group = "" if group_place is None else sys.intern(row[group_place])
            clips.append(Clip(path.parent / name, start_s, stop_s, ids, split, group))
    _raise_problems(path, problems or ([] if clips else ["it lists no clips"]))
    return clips


def _slice(start: str, stop: str) -> tuple[float | None, float | None, list[str]]:
    """Two times in seconds, either of which may be empty, and what is wrong with them."""
    try:
        start_s, stop_s = (float(value) if value else None for value in (start, stop))
    except ValueError:
        return None, None, [f"start_s {start!r}, stop_s {stop!r}: not a number"]
    if not 0 <= (start_s or 0) < (float("inf") if stop_s is None else stop_s) or stop_s == float("inf"):
        return None, None, [f"start_s {start!r}, stop_s {stop!r}: not a stretch of time"]
    return start_s, stop_s, []


def _raise_problems(path: Path, problems: list[str], fix: str = "correct it, or run aum prepare again") -> None:
    if problems:
        raise AumError(f"{path}: {_shown(problems, '; ')}", fix=fix)


def _shown(problems: list[str], separator: str) -> str:
    more = len(problems) - SHOWN
    return separator.join(problems[:SHOWN]) + (f"{separator}and {more} more" if more > 0 else "")

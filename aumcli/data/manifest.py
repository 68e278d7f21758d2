"""A prepared corpus on disk: manifest.csv (one row per clip), labels.csv (one row per class) and report.json.

A path in manifest.csv is relative to its folder or absolute; bytes that are not UTF-8 are written as `\\xNN`
(see `aumcli.utils.text.escaped`). `EPIC_audio.hdf5::P01_11` is the data set P01_11 of an HDF5 file (see
`aumcli.data.decoding.hdf5`), `call.wav::left` one channel of a sound (see `aumcli.data.decoding.channels`). start_s and
stop_s are empty for all of the file; several label ids are joined by `;`. manifest.parquet, if there is one, holds the
same rows (see `aumcli.data.parquet`); missing.csv, those that the corpus's tables list and that have no file.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aumcli.data.clips import Clip, Clips
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.labels import LABEL_COLUMNS, Label, label_problems, read_labels
from aumcli.data.parquet import read_parquet, write_parquet
from aumcli.errors import AumError
from aumcli.utils.csv import csv_reader, csv_rows, csv_writer, listed, raise_problems
from aumcli.utils.files import file_sha256, write_json
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, escaped, plural, unescaped

logger = get_logger(__name__)

# of annotated recordings, in the form of manifest.csv: without labels where something unknown is, and without times for
# the recording itself
EVENTS = "annotated_events.csv"
CLIP_COLUMNS = ("path", "start_s", "stop_s", "labels", "split", "group")
TEXTS = ("path", "group")  # columns that may hold names of files
REQUIRED_COLUMNS = CLIP_COLUMNS[:-1]  # group is optional
AGAIN = "correct it, or run aum prepare again"


@dataclass(frozen=True)
class Manifest:
    """A prepared corpus, as `read_manifest` gives it: clips in the manifest's order, labels by index."""

    folder: Path
    clips: Clips
    labels: list[Label]

    @cached_property
    def multi_label(self) -> bool:
        """Whether any clip has more than one label."""
        return any(len(labels) > 1 for labels in self.clips.label_sets)

    @cached_property
    def split_names(self) -> list[str]:
        """The splits that have clips, in the order in which they first occur."""
        return self.clips.splits

    @cached_property
    def sample_rates_hz(self) -> dict[int, int]:
        """Clips by the sample rate of their files, from report.json; {} where it doesn't have them."""
        try:
            return {int(rate): int(clips) for rate, clips in self._report["sample_rates_hz"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}  # the manifest is of another origin

    @cached_property
    def band_hz(self) -> tuple[float, float] | None:
        """Where the annotated events of train are, from report.json; None where nobody noted it."""
        try:
            low_hz, high_hz = map(float, self._report["band_hz"])
            return (low_hz, high_hz) if 0 <= low_hz < high_hz else None
        except (ValueError, TypeError, KeyError):
            return None

    @cached_property
    def _report(self) -> Any:
        try:
            return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by index."""
        return [label.name for label in self.labels]

    @cached_property
    def _index(self) -> dict[str, int]:
        return {label.id: label.index for label in self.labels}

    def split(self, name: str) -> Clips:
        """Give the clips of one split.

        Args:
            name: train, val, test or whatever the corpus has.

        Returns:
            Its clips, in the manifest's order; at least one.

        Raises:
            AumError: no clip belongs to that split.
        """
        clips = self.clips.of_split(name)
        if not clips:
            raise AumError(
                f"{self.folder} has no split {name!r}; it has {', '.join(self.split_names)}",
                fix="name one of those, or prepare the corpus again with --split 80/10/10"
                + ("; or --set data.val_fraction=0.1 takes a share of the training clips" if name == "val" else ""),
            )
        return clips

    def targets(self, clips: Sequence[Clip]) -> np.ndarray:
        """One-hot or multi-hot targets.

        Args:
            clips: n clips of this manifest.

        Returns:
            (n, classes) float32, 1 where the clip has the label, else 0.
        """
        targets = np.zeros((len(clips), len(self.labels)), dtype=np.float32)  # (n, classes)
        for row, own in enumerate(Clips.of(clips).labels()):
            for label in own:
                targets[row, self._index[label]] = 1
        return targets

    def check_files(self, clips: Iterable[Clip]) -> None:
        """Look whether the clips' files still exist, without opening them.

        Args:
            clips: clips of this manifest.

        Raises:
            AumError: some are missing; it names the first few with their rows in manifest.csv and counts all.
        """
        paths = dict.fromkeys(Clips.of(clips).paths())
        missing = {path for path in paths if not os.path.exists(split_dataset(path)[0])}
        if missing:
            rows: dict[str, int] = {}
            for row, path in enumerate(self.clips.paths(), start=2):  # row 1 is the header
                if path in missing:
                    rows.setdefault(path, row)
            places = [f"{path} (row {row})" for path, row in rows.items()]
            raise AumError(
                f"{len(missing):,} of {counted(len(paths), 'sound file')} of {self.folder / 'manifest.csv'} "
                f"{plural(len(missing), 'is', 'are')} missing: " + listed(places),
                fix="put them back, or run aum prepare again",
                exit_code=1,
            )


def read_manifest(folder: Path | str) -> Manifest:
    """Read a prepared corpus; its sound files are not opened.

    Args:
        folder: holds manifest.csv and labels.csv.

    Returns:
        The corpus; clip paths are absolute.

    Raises:
        AumError: a file is missing or wrong; all wrong rows are counted, the first few named.
    """
    folder = Path(os.path.abspath(folder))
    if not (folder / "manifest.csv").exists():
        raise AumError(
            f"{folder / 'manifest.csv'} doesn't exist: {folder} is not a prepared corpus",
            fix="run aum prepare, or name a prepared folder with --data",
        )
    labels = read_labels(folder / "labels.csv", AGAIN)
    clips, known = read_parquet(folder / "manifest.csv"), {label.id for label in labels}
    if clips is None or any(_label_set_problems(ids, "any", known) for ids in clips.label_sets):
        clips = _read_clips(folder / "manifest.csv", known)  # which names the row
    logger.debug(f"read {len(clips):,} clips and {len(labels):,} classes from {folder}")
    return Manifest(folder, clips, labels)


def data_digest(folder: Path) -> str:
    """SHA-256 over those of labels.csv and manifest.csv: a fingerprint of clips, slices, labels and splits."""
    digests = (bytes.fromhex(file_sha256(folder / name)) for name in ("labels.csv", "manifest.csv"))
    return hashlib.sha256(b"".join(digests)).hexdigest()


def write_manifest(
    folder: Path | str, clips: Sequence[Clip], labels: Sequence[Label], report: Mapping[str, object]
) -> None:
    """Write a prepared corpus, each file atomically, manifest.csv last.

    Args:
        folder: is made; clips below it are written with relative paths, others with absolute ones.
        clips: at least one.
        labels: every label id that the clips use; index 0, 1, ...
        report: the content of report.json.

    Raises:
        AumError: the labels contradict each other, a clip has an unknown label or no split, or there is no clip.
    """
    folder = Path(os.path.abspath(folder))
    problems, clips = label_problems(labels), Clips.of(clips)
    known = {label.id for label in labels}
    splits = clips.splits
    wrong = {(ids, split): _label_set_problems(ids, split, known) for ids in clips.label_sets for split in splits}
    if any(wrong.values()):
        problems += [f"{clip.path}: {problem}" for clip in clips for problem in wrong[clip.labels, clip.split]]
    raise_problems(
        folder / "manifest.csv",
        problems or ([] if clips else ["there are no clips"]),
        fix="correct the corpus; nothing was written",
    )
    with csv_writer(folder / "labels.csv", LABEL_COLUMNS) as writer:
        writer.writerows((label.index, label.id, label.name) for label in labels)
    write_json(folder / "report.json", report)
    columns = _written(clips, folder)
    write_clips(folder / "manifest.csv", columns)
    write_parquet(folder / "manifest.csv", columns)


def write_events(folder: Path, events: Clips) -> None:
    """Write the labelled stretches of annotated recordings; of none there is no file."""
    folder = Path(os.path.abspath(folder))
    if events:
        write_clips(folder / EVENTS, _written(events, folder))
    else:
        (folder / EVENTS).unlink(missing_ok=True)  # of an earlier call


def read_events(manifest: Manifest) -> Clips | None:
    """The labelled stretches that `write_events` wrote; None where the data are not of annotated recordings.

    Raises:
        AumError: the file is damaged.
    """
    path = manifest.folder / EVENTS
    if not path.exists():
        return None
    events = Clips(manifest.folder)
    for row in csv_rows(path, CLIP_COLUMNS, AGAIN):
        try:
            start_s, stop_s = (float(row[name]) if row[name] else None for name in ("start_s", "stop_s"))
        except ValueError as error:
            raise AumError(f"{path}: {error}", fix=AGAIN) from error
        labels = tuple(filter(None, unescaped(row["labels"]).split(";")))
        events.append(unescaped(row["path"]), start_s, stop_s, labels, row["split"], unescaped(row["group"]))
    return events


def _written(clips: Clips, folder: Path) -> dict[str, list[Any]]:
    """The columns of clips as files have them: paths below the folder relative, names that are not UTF-8 escaped."""
    columns = clips.columns()
    below = os.path.join(folder, "")
    columns["path"] = [path.removeprefix(below) for path in map(os.path.abspath, columns["path"])]
    return {name: [*map(escaped, values)] if name in TEXTS else values for name, values in columns.items()}


def write_clips(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write clips, given as `Clips.columns` does, as a CSV file in the manifest's form."""
    with csv_writer(path, CLIP_COLUMNS) as writer:
        writer.writerows(zip(*(columns[name] for name in CLIP_COLUMNS)))


def _label_set_problems(labels: tuple[str, ...], split: str, known: set[str]) -> list[str]:
    problems = [f"unknown label {label!r}" for label in labels if label not in known]
    if len(set(labels)) < len(labels):
        problems.append(f"a label occurs twice in {';'.join(labels)!r}")
    if not split:
        problems.append("no split")
    return problems


def _read_clips(path: Path, known: set[str]) -> Clips:
    """Read manifest.csv; what rows have in common (labels, splits) is checked and stored once: AudioSet has 2e6."""
    clips, problems = Clips(path.parent), []
    seen: dict[tuple[str, str], tuple[tuple[str, ...], list[str]]] = {}
    with csv_reader(path, REQUIRED_COLUMNS, AGAIN) as (reader, header):
        places = [header.index(column) for column in REQUIRED_COLUMNS]
        group_place = header.index("group") if "group" in header else None
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                problems.append(
                    f"row {reader.line_num}: {counted(len(row), 'value')} for {counted(len(header), 'column')}"
                )
                continue
            name, start, stop, labels, split = [row[place] for place in places]
            if (labels, split) not in seen:
                ids = tuple(labels.split(";")) if labels else ()
                seen[labels, split] = ids, _label_set_problems(ids, split, known)
            ids, wrong = seen[labels, split]
            start_s, stop_s, wrong_slice = _slice(start, stop) if start or stop else (None, None, [])
            if wrong or wrong_slice or not name or "\0" in name:
                wrong = [
                    *wrong,
                    *wrong_slice,
                    *([] if name else ["no path"]),
                    *(["NUL in the path"] if "\0" in name else []),
                ]
                problems.append(f"row {reader.line_num}: {', '.join(wrong)}")
                continue
            clips.append(
                unescaped(name), start_s, stop_s, ids, split, "" if group_place is None else unescaped(row[group_place])
            )
    raise_problems(path, problems or ([] if clips else ["it lists no clips"]), AGAIN)
    return clips


def _slice(start: str, stop: str) -> tuple[float | None, float | None, list[str]]:
    """Two times in seconds, either of which may be empty, and what is wrong with them."""
    try:
        start_s, stop_s = (float(value) if value else None for value in (start, stop))
    except ValueError:
        return None, None, [f"start_s {start!r}, stop_s {stop!r}: not a number"]
    if not 0 <= (start_s or 0) < (float("inf") if stop_s is None else stop_s) or stop_s == float("inf"):
        return None, None, [f"start_s {start!r}, stop_s {stop!r}: not a time interval"]
    return start_s, stop_s, []

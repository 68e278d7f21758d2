"""Clips, and long lists of them kept by column: AudioSet's 2 million would take gigabytes as objects."""

import os
from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np

from aumcli.data.decoding.channels import with_channel
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.utils.text import escaped


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound: a file or a slice of it, its label ids, its split, and who was recorded ("" when unknown)."""

    path: Path
    start_s: float | None = None
    stop_s: float | None = None
    labels: tuple[str, ...] = ()
    split: str = ""
    group: str = ""


T = TypeVar("T", bound=Hashable)


class _Categories(Generic[T]):
    """A column of few different values, each of which is stored once."""

    def __init__(self, values: Iterable[T] = (), codes: bytes = b""):
        self.values, self.codes = list(values), array("i", codes)  # codes: which value each row has
        self._code_of = {value: code for code, value in enumerate(self.values)}

    def append(self, value: T) -> None:
        """Add a row."""
        code = self._code_of.setdefault(value, len(self.values))
        if code == len(self.values):
            self.values.append(value)
        self.codes.append(code)

    def __getitem__(self, row: int) -> T:
        return self.values[self.codes[row]]


class Clips(Sequence[Clip]):
    """A list of clips, stored by column; equal to any list of equal clips.

    Args:
        folder: relative paths are below it.
    """

    def __init__(self, folder: Path | str = ""):
        self._folder = os.fspath(folder)
        self._paths: list[str] = []
        self._groups: list[str] = []
        self._starts, self._stops = array("d"), array("d")  # s; NaN for none
        self._label_sets: _Categories[tuple[str, ...]] = _Categories()
        self._splits: _Categories[str] = _Categories()
        self._rows: np.ndarray | None = None  # of a selection: its rows in the columns

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "Clips":
        """Make one from clips; itself, if it is one already."""
        if isinstance(clips, cls):
            return clips
        made = cls()
        for clip in clips:
            made.append(os.fspath(clip.path), clip.start_s, clip.stop_s, clip.labels, clip.split, clip.group)
        return made

    @classmethod
    def of_columns(
        cls,
        folder: Path,
        paths: list[str],
        start_s: np.ndarray,
        stop_s: np.ndarray,
        groups: list[str],
        label_sets: tuple[np.ndarray, Iterable[tuple[str, ...]]],
        splits: tuple[np.ndarray, Iterable[str]],
    ) -> "Clips":
        """Make one from columns.

        Args:
            folder: relative paths are below it.
            paths: n paths.
            start_s: (n,) float64, NaN for none; so is stop_s.
            stop_s: (n,).
            groups: n groups.
            label_sets: for each clip the index of its labels, (n,) int32, in a list of label sets; and that list.
            splits: the same for the splits.
        """
        made = cls(folder)
        made._paths, made._groups = paths, groups
        made._starts, made._stops = array("d", start_s.tobytes()), array("d", stop_s.tobytes())
        made._label_sets = _Categories(label_sets[1], label_sets[0].tobytes())
        made._splits = _Categories(splits[1], splits[0].tobytes())
        return made

    def append(
        self, path: str, start_s: float | None, stop_s: float | None, labels: tuple[str, ...], split: str, group: str
    ) -> None:
        """Add a clip at the end; not to a selection."""
        self._paths.append(path)
        self._starts.append(np.nan if start_s is None else start_s)
        self._stops.append(np.nan if stop_s is None else stop_s)
        self._label_sets.append(labels)
        self._splits.append(split)
        self._groups.append(group)

    def __len__(self) -> int:
        return len(self._paths) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "Clips": ...
    def __getitem__(self, index: int | slice) -> "Clip | Clips":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self._at(range(len(self))[index] if self._rows is None else int(self._rows[index]))

    def __iter__(self) -> Iterator[Clip]:
        return map(self._at, self._own_rows())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    def take(self, indices: Sequence[int] | np.ndarray) -> "Clips":
        """Select the clips at some indices, in that order; the columns are shared."""
        selection = copy(self)
        rows = np.asarray(indices, dtype=np.int64)
        selection._rows = rows if self._rows is None else self._rows[rows]
        return selection

    def with_channel(self, channel: str) -> "Clips":
        """The same clips with a channel in their paths (see `aumcli.data.decoding.channels`)."""
        made = copy(self)
        made._paths = [with_channel(path, channel) for path in self._paths]
        return made

    def of_split(self, name: str) -> "Clips":
        """Select the clips of a split."""
        return self.take(np.flatnonzero(self.is_of_split(name)))

    def is_of_split(self, name: str) -> np.ndarray:
        """Which clips belong to a split: (clips,) bool."""
        code = self._splits.values.index(name) if name in self._splits.values else -1
        belongs: np.ndarray = self._codes(self._splits) == code
        return belongs

    def has_labels(self) -> np.ndarray:
        """Which clips are of some class: (clips,) bool."""
        labelled = np.array([bool(labels) for labels in self._label_sets.values], dtype=bool)
        return np.asarray(labelled[self._codes(self._label_sets)])

    @property
    def splits(self) -> list[str]:
        """The splits that occur, in the order in which they first do."""
        return self._occurring(self._splits)

    @property
    def label_sets(self) -> list[tuple[str, ...]]:
        """The combinations of label ids that occur, each once."""
        return self._occurring(self._label_sets)

    def slice_at(self, index: int) -> tuple[str, float | None, float | None]:
        """Path as text, start and stop in s of one clip: what decoding needs, several times faster than the clip."""
        row = index if self._rows is None else self._rows[index]
        return os.path.join(self._folder, self._paths[row]), _second(self._starts[row]), _second(self._stops[row])

    def labels(self) -> Iterator[tuple[str, ...]]:
        """The label ids of each clip."""
        return map(self._label_sets.__getitem__, self._own_rows())

    def paths(self) -> Iterator[str]:
        """The path of each clip, as text."""
        return (os.path.join(self._folder, self._paths[row]) for row in self._own_rows())

    def columns(self) -> dict[str, list[Any]]:
        """All as columns: path (as text), start_s, stop_s, labels (ids joined by ";"), split and group."""
        joined = [";".join(labels) for labels in self._label_sets.values]
        return {
            "path": [*self.paths()],
            "start_s": [_second(self._starts[row]) for row in self._own_rows()],
            "stop_s": [_second(self._stops[row]) for row in self._own_rows()],
            "labels": [joined[code] for code in self._codes(self._label_sets).tolist()],
            "split": [self._splits[row] for row in self._own_rows()],
            "group": [self._groups[row] for row in self._own_rows()],
        }

    def _own_rows(self) -> Sequence[int]:
        return range(len(self._paths)) if self._rows is None else self._rows.tolist()

    def _codes(self, column: _Categories[T]) -> np.ndarray:
        """The codes of the clips in a column: (clips,) int32."""
        codes = np.array(column.codes, dtype=np.int32)
        return codes if self._rows is None else codes[self._rows]

    def _occurring(self, column: _Categories[T]) -> list[T]:
        codes, first = np.unique(self._codes(column), return_index=True)
        return [column.values[code] for code in codes[np.argsort(first)]]

    def _at(self, row: int) -> Clip:
        path = Path(self._folder, self._paths[row]) if self._folder else Path(self._paths[row])
        start_s, stop_s = _second(self._starts[row]), _second(self._stops[row])
        return Clip(path, start_s, stop_s, self._label_sets[row], self._splits[row], self._groups[row])


def _second(value: float) -> float | None:
    return None if value != value else float(value)


def clip_key(clip: Clip) -> str:
    """What decoding a clip depends on: path, size and modification time of its file, and the slice."""
    try:
        status = os.stat(split_dataset(clip.path)[0])
        file = f"{status.st_size}|{status.st_mtime_ns}"
    except (OSError, ValueError):  # ValueError: NUL in the path
        file = "none"
    return f"{file}|{clip.start_s}|{clip.stop_s}|{escaped(str(clip.path))}"

"""Clips, and long lists of them kept by column: AudioSet's 2 million would take gigabytes as objects."""

import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aumcli.data.decoding.channels import with_channel
from aumcli.data.decoding.hdf5 import container
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


class Clips(Sequence):
    """A list of clips that makes each one when it is asked for; equal to any list of equal clips.

    Args:
        folder: relative paths are below it.
    """

    def __init__(self, folder: Path | str = ""):
        self._folder = os.fspath(folder)
        self._paths: list[str] = []
        self._groups: list[str] = []
        self._starts, self._stops = array("d"), array("d")  # s; NaN for none
        self._codes: tuple[array, array] = (array("i"), array("i"))  # of the label set, of the split
        self._values: tuple[list, list] = ([], [])  # label sets and splits by code
        self._known: tuple[dict, dict] = ({}, {})  # and back
        self._rows: np.ndarray | None = None  # of a part: places in the columns

    @classmethod
    def of(cls, clips: Iterable[Clip]) -> "Clips":
        """Make one from clips; itself, if it is one already."""
        if isinstance(clips, cls):
            return clips
        made = cls()
        for clip in clips:
            made.append(os.fspath(clip.path), clip.start_s, clip.stop_s, clip.labels, clip.split, clip.group)
        return made

    def append(
        self, path: str, start_s: float | None, stop_s: float | None, labels: tuple[str, ...], split: str, group: str
    ) -> None:
        """Add a clip at the end; not to a part."""
        self._paths.append(path)
        self._starts.append(np.nan if start_s is None else start_s)
        self._stops.append(np.nan if stop_s is None else stop_s)
        for codes, known, values, value in zip(self._codes, self._known, self._values, (labels, split)):
            if value not in known:
                known[value] = len(values)
                values.append(value)
            codes.append(known[value])
        self._groups.append(group)

    def __len__(self) -> int:
        return len(self._paths) if self._rows is None else len(self._rows)

    def __getitem__(self, place):
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return self._at(range(len(self))[place] if self._rows is None else int(self._rows[place]))

    def __iter__(self) -> Iterator[Clip]:
        return map(self._at, range(len(self._paths)) if self._rows is None else self._rows.tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None

    def take(self, places: Sequence[int] | np.ndarray) -> "Clips":
        """A part: the clips at some places, in that order. The columns are shared."""
        part = Clips(self._folder)
        part.__dict__ |= self.__dict__
        places = np.asarray(places, dtype=np.int64)
        part._rows = places if self._rows is None else self._rows[places]
        return part

    def heard(self, channel: str) -> "Clips":
        """The same clips with a channel in their paths (see `aumcli.data.decoding.channels`). All other columns are shared."""
        part = Clips(self._folder)
        part.__dict__ |= self.__dict__
        part._paths = [with_channel(path, channel) for path in self._paths]
        return part

    def of_split(self, name: str) -> "Clips":
        """The part that belongs to a split."""
        return self.take(np.flatnonzero(self.is_of_split(name)))

    def is_of_split(self, name: str) -> np.ndarray:
        """Which clips belong to a split: (clips,) bool."""
        code = self._values[1].index(name) if name in self._values[1] else -1
        return self._column(1) == code

    @property
    def splits(self) -> list[str]:
        """The splits that occur, in the order in which they first do."""
        return self._occurring(1)

    @property
    def label_sets(self) -> list[tuple[str, ...]]:
        """The combinations of label ids that occur, each once."""
        return self._occurring(0)

    def place(self, index: int) -> tuple[str, float | None, float | None]:
        """Path as text, start and stop in s of one clip.

        What decoding needs, several times as quickly as the clip itself.
        """
        row = index if self._rows is None else self._rows[index]
        return os.path.join(self._folder, self._paths[row]), _second(self._starts[row]), _second(self._stops[row])

    def labels(self) -> Iterator[tuple[str, ...]]:
        """The label ids of each clip."""
        rows = range(len(self._paths)) if self._rows is None else self._rows.tolist()
        return (self._values[0][self._codes[0][row]] for row in rows)

    def paths(self) -> Iterator[str]:
        """The path of each clip, as text."""
        rows = range(len(self._paths)) if self._rows is None else self._rows.tolist()
        return (os.path.join(self._folder, self._paths[row]) for row in rows)

    def columns(self) -> dict[str, list]:
        """All as columns: path (as text), start_s, stop_s, labels (ids joined by ";"), split and group."""
        rows = range(len(self._paths)) if self._rows is None else self._rows.tolist()
        codes, joined = (
            [self._column(which).tolist() for which in (0, 1)],
            [";".join(labels) for labels in self._values[0]],
        )
        return {
            "path": [*self.paths()],
            "start_s": [_second(self._starts[row]) for row in rows],
            "stop_s": [_second(self._stops[row]) for row in rows],
            "labels": [joined[code] for code in codes[0]],
            "split": [self._values[1][code] for code in codes[1]],
            "group": [self._groups[row] for row in rows],
        }

    @classmethod
    def of_columns(
        cls,
        folder: Path,
        path: list[str],
        start_s: np.ndarray,
        stop_s: np.ndarray,
        group: list[str],
        codes: Sequence[np.ndarray],
        values: tuple[list[tuple[str, ...]], list[str]],
    ) -> "Clips":
        """Make one from whole columns.

        Args:
            folder: relative paths are below it.
            path: n paths.
            start_s: (n,) float64, NaN for none; so is stop_s.
            stop_s: (n,).
            group: n groups.
            codes: (n,) int32 twice: places of the clips' label set and split in `values`.
            values: the label sets and the splits.
        """
        made = cls(folder)
        made._paths, made._starts, made._stops, made._groups = path, start_s, stop_s, group
        made._codes, made._values = tuple(codes), values
        return made

    def _column(self, which: int) -> np.ndarray:
        """Codes of the clips' label sets (0) or splits (1): (clips,) int32."""
        codes = np.array(self._codes[which], dtype=np.int32)
        return codes if self._rows is None else codes[self._rows]

    def _occurring(self, which: int) -> list:
        codes, first = np.unique(self._column(which), return_index=True)
        return [self._values[which][code] for code in codes[np.argsort(first)]]

    def _at(self, row: int) -> Clip:
        labels, split = (values[codes[row]] for values, codes in zip(self._values, self._codes))
        path = Path(self._folder, self._paths[row]) if self._folder else Path(self._paths[row])
        return Clip(path, _second(self._starts[row]), _second(self._stops[row]), labels, split, self._groups[row])


def _second(value: float) -> float | None:
    return None if value != value else float(value)


def clip_key(clip: Clip) -> str:
    """What a clip's result depends on: path, size and time of change of its file, and the slice."""
    try:
        status = os.stat(container(clip.path)[0])
        file = f"{status.st_size}|{status.st_mtime_ns}"
    except (OSError, ValueError):  # ValueError: NUL in the path
        file = "none"
    return f"{file}|{clip.start_s}|{clip.stop_s}|{escaped(str(clip.path))}"

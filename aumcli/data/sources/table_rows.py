"""Rows of a user's table as clips."""

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path

from aumcli.config import NOTHING
from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import audio_info
from aumcli.data.sources import SPLIT_NAMES, SkippedClip
from aumcli.data.sources.audio_finder import AudioFinder
from aumcli.data.sources.columns import FREQUENCIES, TIMES, Columns
from aumcli.data.sources.label_values import FORBIDDEN, separator_setting, split_labels
from aumcli.utils.text import counted

EMPTY = ("", "na", "nan")  # a time that isn't there, as R and pandas write it
FOLD = "fold "  # prefix of a fold in the place of a split, until folds are assigned to splits
NEAR_S = 0.01  # on either side of a point in time
TIME_FIX = "correct the row; another column: --set start=COLUMN; complete files: --set start="


@dataclass
class Rows:
    """Clips of the rows of tables, and notes on how they were read."""

    clips: Clips = field(default_factory=Clips)  # split: "", or FOLD and a fold, where the table has none
    names: list[str] = field(default_factory=list)  # of their sounds, as written
    numbers: "array[int]" = field(default_factory=lambda: array("Q"))  # of the rows in their tables, from 1
    skipped: list[SkippedClip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sounds: dict[str, str] = field(default_factory=dict)  # table without paths -> the sound of its name
    grouped: bool = False
    sliced: bool = False
    unlabelled: Clips | None = None  # gets rows without a label, skipped otherwise, and what wrong ones may be of
    seen: dict[bytes, int] = field(default_factory=dict)  # digests of rows -> their clips
    repeated: int = 0
    bands_hz: list[tuple[int, float, float]] = field(default_factory=list)  # clip, lowest and highest frequency
    no_bands: list[str] = field(default_factory=list)  # rows whose frequencies are none


@dataclass
class RowReader:
    """How the rows of one table become clips.

    Args:
        table: its path.
        columns: what its columns are.
        finder: where the sounds are.
        sound: the one that all rows belong to, where no column names it.
        separator: between several labels.
        decimal_comma: whether a comma may be a decimal point.
        follow_folds: whether folds become splits where there is no column for the split.
    """

    table: Path
    columns: Columns
    finder: AudioFinder
    sound: str | None
    separator: str
    decimal_comma: bool
    follow_folds: bool

    def __post_init__(self) -> None:
        self._units = {role: self.columns.unit(role) for role in (*TIMES, "origin") if role in self.columns.places}
        self._needed = [place for role, place in self.columns.places.items() if role not in FREQUENCIES]
        self._labels = cache(self._labels_in)  # the same few values in all rows
        self._rate_hz = cache(lambda path: audio_info(path).sample_rate_hz)

    def add(self, row: Sequence[str], number: int, rows: Rows) -> None:
        """Add the clip of a row, or why there is none.

        Args:
            row: its values.
            number: of the row, for errors.
            rows: gets the clip.

        Raises:
            ValueError: the row is wrong: how, and what mends it if it isn't to be corrected.
            AumError: the sound can't be read.
        """
        places, width = self.columns.places, len(self.columns.header)
        if len(row) <= max(self._needed) or any(row[width:]):
            self._doubt(row, rows)
            raise ValueError(f"{counted(len(row), 'value')} for {counted(width, 'column')}")
        values = {role: row[place].strip() for role, place in places.items() if place < len(row)}
        name = values.get("path", self.sound)
        if not name or "\0" in name:
            raise ValueError("the path contains NUL" if name else "no path")
        path = self.finder.path(name) if "path" in values else name
        try:
            start_s, stop_s = self._span(values, path)
        except ValueError:
            if rows.unlabelled is not None:
                rows.unlabelled.append(path, *self._touched(values, path), (), "", "")
            raise
        labels = self._labels(values["label"])
        if labels == (NOTHING,):  # as `aum predict` answers
            labels = ()
        elif not labels and rows.unlabelled is not None:
            rows.unlabelled.append(path, start_s, stop_s, (), "", "")
            return
        elif not labels:
            reason = f"row {number} of {self.table.name} gives it no label"
            rows.skipped.append(SkippedClip(path, reason, "label it, or remove the row"))
            return
        split, group = self._split_and_group(values)
        clip = (path, start_s, stop_s, labels, split, group)
        digest = blake2b(repr(clip).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        place = rows.seen.setdefault(digest, len(rows.clips))
        if set(FREQUENCIES) <= places.keys():
            cells = [values.get(role, "") for role in FREQUENCIES]
            self._add_band(cells, [self.columns.hertz(role) or 1.0 for role in FREQUENCIES], place, number, rows)
        if place < len(rows.clips):  # Raven writes a row for each view of a sound
            rows.repeated += 1
            return
        rows.clips.append(*clip)
        rows.names.append(name)
        rows.numbers.append(number)
        rows.grouped |= bool(group)
        rows.sliced |= start_s is not None or stop_s is not None

    def add_band(self, cells: Sequence[str], number: int, rows: Rows) -> None:
        """Add the frequencies of the clip that row `number` gave, if it gave one: lowest and highest, in Hz."""
        if rows.numbers and rows.numbers[-1] == number:
            self._add_band(cells[:2], (1.0, 1.0), len(rows.clips) - 1, number, rows)

    def _doubt(self, row: Sequence[str], rows: Rows) -> None:
        """Note the sound that a row without all values is of, if it says it, as one of which nothing more is known."""
        place = self.columns.places.get("path", len(row))
        name = self.sound if "path" not in self.columns.places else row[place].strip() if place < len(row) else ""
        if rows.unlabelled is not None and name and "\0" not in name:
            path = name if name == self.sound else self.finder.path(name)
            rows.unlabelled.append(path, 0.0, None, (), "", "")

    def _add_band(self, cells: Sequence[str], hertz: Sequence[float], place: int, number: int, rows: Rows) -> None:
        if all(text.strip().lower() in EMPTY for text in cells):
            return
        try:
            low, high = (
                float(text.replace(",", ".") if self.decimal_comma else text) * unit for text, unit in zip(cells, hertz)
            )
        except ValueError:
            low = high = math.nan
        if 0 <= low < high < math.inf:
            rows.bands_hz.append((place, low, high))
        else:
            rows.no_bands.append(f"{self.table}: row {number} ({' to '.join(cells)})")

    def _labels_in(self, text: str) -> tuple[str, ...]:
        labels = split_labels(text, self.separator)
        wrong = [label for label in labels if FORBIDDEN in label or "\0" in label]
        if wrong:
            raise ValueError(
                f"the label {wrong[0]!r} contains ; or NUL",
                f"{separator_setting(FORBIDDEN)} takes it apart; else write it otherwise",
            )
        return labels

    def _split_and_group(self, values: Mapping[str, str]) -> tuple[str, str]:
        split, fold, group = values.get("split"), values.get("fold", ""), values.get("group", "")
        if split == "":
            raise ValueError("no split")
        if split is not None:
            return SPLIT_NAMES.get(split.lower(), split), group
        return FOLD + fold if fold and self.follow_folds else "", group or fold

    def _span(self, values: Mapping[str, str], path: str) -> tuple[float | None, float | None]:
        """Start and stop in s; None for the file's."""
        times = {role: self._seconds(role, values[role], path) for role in self._units}
        start_s, stop_s, duration_s = times.get("start"), times.get("stop"), times.get("duration")
        if "origin" in times and stop_s is not None:
            stop_s = round((start_s or 0.0) + stop_s - (times["origin"] or 0.0), 6)
        elif duration_s is not None:
            start_s = start_s or 0.0
            stop_s = round(start_s + duration_s, 6)
        first_s = start_s or 0.0
        if first_s < 0 or stop_s is not None and stop_s <= first_s:
            end = "" if stop_s is None else f" to {stop_s:g} s"
            what = "a point in time, not an interval" if stop_s == first_s else "not a time interval"
            raise ValueError(f"from {first_s:g} s{end} is {what}", TIME_FIX)
        return start_s, stop_s

    def _touched(self, values: Mapping[str, str], path: str) -> tuple[float, float | None]:
        """What a row with wrong times may be of, in s: from the lower time to the higher, or all of the sound."""
        try:
            times = {role: self._seconds(role, values[role], path) for role in self._units if role != "origin"}
        except ValueError:
            return 0.0, None
        if times.get("duration") is not None:
            times["duration"] = (times["duration"] or 0.0) + (times.get("start") or 0.0)
        known = [time for time in times.values() if time is not None]
        if not known:
            return 0.0, None
        near = NEAR_S if min(known) == max(known) else 0.0
        return max(0.0, min(known) - near), max(0.0, max(known)) + near

    def _seconds(self, role: str, text: str, path: str) -> float | None:
        """A time as it is written: a number in the column's unit, h:m:s or m:s; None for an empty one."""
        if text.lower() in EMPTY:
            return None
        plain = text.replace(",", ".") if self.decimal_comma or ":" in text else text
        try:
            parts = [float(part) for part in plain.split(":")]
        except ValueError:
            parts = []
        is_time = 1 <= len(parts) <= 3 and all(map(math.isfinite, parts)) and all(0 <= part < 60 for part in parts[1:])
        if not is_time:
            raise ValueError(f"could not convert the {role} {text!r} to seconds", TIME_FIX)
        value = parts[0]
        for part in parts[1:]:
            value = 60 * value + part
        unit = self._units[role]
        return round(value / self._rate_hz(path) if unit is None else value * unit, 9)

"""Which role each column of a user's table has, by its name and its values."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aumcli.data.decoding.audio import AUDIO_SUFFIXES
from aumcli.data.sources.column_names import (
    HERTZ,
    NAMES,
    SURE,
    UNCLEAR,
    known_columns,
    looks_like_time,
    time_role,
    unit,
    words,
)
from aumcli.errors import AumError

TIMES = ("start", "stop", "duration")
FREQUENCIES = ("low", "high")
# --set ROLE=COLUMN names each, --set ROLE= means none
ROLES = ("path", "label", *TIMES, *FREQUENCIES, "split", "fold", "group")
NO_TIMES = "or none, for complete files: --set start="


@dataclass(frozen=True)
class Columns:
    """The role of each column of a table.

    Args:
        header: the columns' names; 1, 2, ... where the table has none.
        places: role -> place of its column. Besides ROLES, `origin` is a start in the count of time that `stop` has,
            where `start` has another.
        notes: further sentences about the choice.
    """

    header: list[str]
    places: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def unit(self, role: str) -> float | None:
        """Seconds per unit of a column of times; None for samples."""
        return unit(self.header[self.places[role]])

    def hertz(self, role: str) -> float | None:
        """Hz per unit of a column of frequencies; None where its name has no unit."""
        return next((HERTZ[word] for word in words(self.header[self.places[role]]) if word in HERTZ), None)

    def describe(self) -> str:
        """All columns in one line."""
        names = {role: self.header[place] for role, place in self.places.items() if role != "origin"}
        if "origin" in self.places:
            names["stop"] = f"{names['start']} + {names['stop']} - {self.header[self.places['origin']]}"
        used = set(self.places.values())
        unused = [name or "(no name)" for place, name in enumerate(self.header) if place not in used]
        text = ", ".join(f"{role} = {name}" for role, name in names.items())
        return "; ".join([text, *([f"not used: {', '.join(unused)}"] if unused else []), *self.notes])


def find_columns(
    table: Path,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    settings: Mapping[str, str],
    splits: Collection[str],
) -> Columns:
    """Choose the columns of a table.

    Args:
        table: for errors.
        header: the names; empty for a table without a header.
        rows: its first rows, to see what columns hold.
        settings: role -> the name of a column, "" for none; a role that is not in it is recognised by name.
        splits: values of a column of splits.

    Returns:
        The choice; `path` is missing where nothing could be the path.

    Raises:
        AumError: a column that the caller names is missing, nothing could be the label, or several could be the times.
    """
    if header:
        return _ByName(table, header, rows, settings).choose(splits)
    return _by_content(table, rows, settings)


def is_headerless(first: Sequence[str]) -> bool:
    """Whether a table's first row is no header: it has a sound's name in it, or numbers and no name that is known."""
    return any(map(_is_sound, first)) or any(map(looks_like_time, first)) and not known_columns(first)


def _is_sound(value: str) -> bool:
    return "." + value.strip().lower().rpartition(".")[2] in AUDIO_SUFFIXES


def _setting(role: str, name: str) -> str:
    """The setting that names a column, as it is typed into a shell."""
    return "--set " + shlex.quote(f"{role}={name}")


def _named(table: Path, header: Sequence[str], settings: Mapping[str, str]) -> dict[str, int]:
    """Places of the columns that the caller names."""
    folded = [name.strip().casefold() for name in header]
    places: dict[str, int] = {}
    absent: list[str] = []
    for role in ROLES:
        name = (settings.get(role) or "").strip()
        if not settings.get(role):
            continue
        if name in header:
            places[role] = list(header).index(name)
        elif name.casefold() in folded:
            places[role] = folded.index(name.casefold())
        else:
            absent.append(name)
    if absent:
        mends = " ".join(f"--set {role}=COLUMN" for role in ROLES if settings.get(role) in absent)
        raise AumError(f"{table} has no column {', '.join(absent)}; it has {', '.join(header)}", fix=f"correct {mends}")
    return places


class _ByName:
    """The choice among the columns of a table with a header."""

    def __init__(self, table: Path, header: Sequence[str], rows: Sequence[Sequence[str]], settings: Mapping[str, str]):
        self.table, self.header, self.rows = table, list(header), rows
        self.words = [words(name) for name in header]
        self.places = _named(table, header, settings)
        self.open = {role for role in ROLES if settings.get(role) is None}  # roles that the caller doesn't set
        self.whole_files = settings.get("start") == "" and not settings.get("stop")
        self.notes: list[str] = []

    def choose(self, splits: Collection[str]) -> Columns:
        """All columns; see `find_columns`."""
        for role in ("path", "label"):
            self._take(role, {place for other, place in self.places.items() if other in ("path", "label", *TIMES)})
        for role in (*FREQUENCIES, "split", "fold", "group"):
            taken = set(self.places.values())
            if role == "group" and "recorded_at" in self.header and "site" in self.header:
                taken.add(self.header.index("site"))  # of `aum predict`: all that one recorder heard is no group
            self._take(role, taken, splits if role == "split" else None)
        others = self._fitting("label", set(self.places.values())) if "label" in self.open else []
        if others and "label" in self.places:
            names = [self.header[place] for place in others]
            self.notes.append(f"the label could also be {', '.join(names)}: {_setting('label', names[0])}")
        if self.open >= set(TIMES) and "path" in self.places and self.words[self.places["path"]][0] == "slice":
            self.notes.append("times are those of the recordings that the slices were cut from")  # UrbanSound8K
        elif not self.whole_files:
            self._choose_times()
        if "label" not in self.places:
            lacking = "label" if "path" in self.places else "path or the label"
            raise AumError(
                f"{self.table} has no column that could be the {lacking}; it has {', '.join(self.header)}",
                fix="name it: --set path=COLUMN --set label=COLUMN",
            )
        order = {role: self.places[role] for role in (*ROLES, "origin") if role in self.places}
        return Columns(self.header, order, self.notes)

    def _fitting(self, role: str, taken: set[int]) -> list[int]:
        """Places of the columns that could have a role, the best first."""
        names = ["_".join(each) for each in self.words]
        return [place for name in NAMES[role] for place, own in enumerate(names) if own == name and place not in taken]

    def _take(self, role: str, taken: set[int], values: Collection[str] | None = None) -> None:
        """Give a role to the best column, one that holds some of `values` if they are given."""
        fitting = self._fitting(role, taken) if role in self.open else []
        for place in fitting:
            held = {value.lower() for value in self._values(place)}
            if values is None or not held or held & set(values):
                self.places[role] = place
                return

    def _choose_times(self) -> None:
        """Add start, stop, duration and origin."""
        every = {word for name in self.words for word in name}
        renamed = {"t1": "t0", "t2": "t1"} if "t2" in every and "t0" not in every else {}
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self.words):
            role = time_role(name, renamed)
            if role and place not in self.places.values() and (SURE & set(name) or self._holds_times(place)):
                found.setdefault(role, []).append(place)
        begin, end = (
            self._only(role, found[role]) if role in self.open and role in found else None for role in ("start", "stop")
        )
        if "file offset" in found and "start" in self.open:  # Raven's begin and end count through several files
            self.places["start"] = found["file offset"][0]
            if begin is not None and end is not None:
                self.places["origin"] = begin
        elif begin is not None:
            self.places["start"] = begin
        if end is not None:
            self.places["stop"] = end
        if "offset" in found:
            self._place_offset(self._only("offset", found["offset"]), "duration" in found)
        if "start" in self.places and "stop" not in self.places and "duration" in found and "duration" in self.open:
            self.places["duration"] = self._only("duration", found["duration"])
        if not {"start", "stop"} & self.places.keys() and "start" in self.open:
            self._nothing_overlooked()

    def _only(self, role: str, fitting: Sequence[int]) -> int:
        """The column among several that is in seconds, if only one is."""
        ranks = [{1.0: 0, None: 2}.get(unit(self.header[place]), 1) for place in fitting]
        best = [self.header[place] for place, rank in zip(fitting, ranks) if rank == min(ranks)]
        if len(best) > 1:
            role = "start" if role == "offset" else role
            raise AumError(
                f"{self.table}: several columns could be the {role}: {', '.join(best)}",
                fix=f"name one: {_setting(role, best[0])}; {NO_TIMES}",
            )
        return fitting[ranks.index(min(ranks))]

    def _place_offset(self, place: int, has_duration: bool) -> None:
        """An `offset` is a start beside a duration or a stop, and a stop beside an `onset`."""
        if "start" not in self.places:
            if "start" not in self.open:
                return
            if has_duration or "stop" in self.places:
                self.places["start"] = place
                return
        elif "stop" in self.places or has_duration or "stop" not in self.open:
            return
        elif "onset" in self.words[self.places["start"]]:
            self.places["stop"] = place
            return
        name = self.header[place]
        raise AumError(
            f"{self.table}: the column {name} could be a start or an end",
            fix=f"say which: {_setting('start', name)} or {_setting('stop', name)}; {NO_TIMES}",
        )

    def _nothing_overlooked(self) -> None:
        """Refuse to use complete files where a column looks like a time in an unknown unit."""
        like = [
            self.header[place]
            for place, name in enumerate(self.words)
            if SURE & set(name) and UNCLEAR & set(name) and self._holds_times(place)
        ]
        if like:
            raise AumError(
                f"{self.table}: {', '.join(like)} look like times, in an unknown unit",
                fix="name a column in seconds or h:m:s with --set start=COLUMN, or let its name end in _ms "
                f"or _samples; {NO_TIMES}",
            )

    def _values(self, place: int) -> list[str]:
        return [row[place].strip() for row in self.rows if len(row) > place and row[place].strip()]

    def _holds_times(self, place: int) -> bool:
        """Whether the values of a column can be times; True for an empty one."""
        values = self._values(place)
        return not values or sum(map(looks_like_time, values)) > len(values) / 2


def _by_content(table: Path, rows: Sequence[Sequence[str]], settings: Mapping[str, str]) -> Columns:
    """Columns of a table without a header, such as Audacity's labels: start, stop, text."""
    width = max(map(len, rows), default=0)
    header = [str(number + 1) for number in range(width)]
    places = _named(table, header, settings)
    held = {
        place: [row[place].strip() for row in rows if len(row) > place and row[place].strip()]
        for place in range(width)
        if place not in places.values()
    }
    sounds = [place for place, values in held.items() if values and all(map(_is_sound, values))]
    numbers = [place for place, values in held.items() if values and all(map(looks_like_time, values))]
    texts = [place for place, values in held.items() if values and place not in sounds and place not in numbers]
    if sounds and settings.get("path") is None:
        places["path"] = sounds[0]
    if len(texts) == 1 and settings.get("label") is None:
        places["label"] = texts[0]
    if len(numbers) == 2 and numbers[1] == numbers[0] + 1 and all(settings.get(role) is None for role in TIMES):
        begin, end = numbers
        if any(_number(one) > _number(two) for one, two in zip(held[begin], held[end])):
            raise AumError(
                f"{table} has no header, and its columns {begin + 1} and {end + 1} are not start and stop",
                fix=f"say what they are: --set start={begin + 1} --set duration={end + 1}; {NO_TIMES}",
            )
        places |= {"start": begin, "stop": end}
    unclear = numbers and not set(TIMES) & places.keys() and settings.get("start") != ""
    if "label" not in places or unclear:
        first = ", ".join(rows[0]) if rows else ""
        raise AumError(
            f"{table} has no header, and its first row doesn't tell what its {width} columns are: {first}",
            fix=f"columns are counted: --set path=1 --set label=2 --set start=3 --set stop=4; {NO_TIMES}",
        )
    order = {role: places[role] for role in ROLES if role in places}
    return Columns(header, order, ["the table has no header: columns are counted"])


def _number(text: str) -> float:
    return float(text.replace(",", ".")) if ":" not in text else 0.0

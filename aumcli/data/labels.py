"""The table of classes that every corpus has: index, id and name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli.errors import AumError
from aumcli.utils.csv import csv_reader, raise_problems

LABEL_COLUMNS = ("index", "id", "name")
ID_COLUMNS = ("id", "mid")  # AudioSet calls a class's id mid, for machine id
NAME_COLUMNS = ("name", "display_name")
EPIC_COLUMNS = ("class_id", "class", "class")  # index, id and name in EPIC-SOUNDS' annotations, its only table
_SPEAKER = re.compile(r"/m/voxclb(\d{4})", re.ASCII)  # id10001 to id11251, in their order


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its index in the model's output, its id in the manifest, and its name."""

    index: int
    id: str
    name: str


def read_labels(path: Path | str, fix: str = "correct the table") -> list[Label]:
    """Read a table of classes: labels.csv, AudioSet's class_labels_indices.csv and its like, EPIC-SOUNDS' annotations.

    Args:
        path: a CSV file with the columns index, name (or display_name) and, unless names serve as ids, id (or mid); or
            one with a clip per row and the columns class_id and class. VoxCeleb's table as published with AuM numbers
            its speakers: those get the names that VoxCeleb gives them.
        fix: what mends it.

    Returns:
        The classes, by index.

    Raises:
        AumError: the file can't be read or lacks a column, or the indices aren't 0, 1, 2, ... each once.
    """
    path = Path(path)
    labels, problems = [], []
    with csv_reader(path, (), fix=fix) as (reader, header):
        of_clips = "index" not in header and all(column in header for column in EPIC_COLUMNS)
        columns = EPIC_COLUMNS if of_clips else _label_columns(path, header, fix)
        places = [header.index(column) for column in columns]
        for row in filter(None, reader):
            try:
                number, label, name = (row[place] for place in places)
                labels.append(Label(int(number), label, _speaker(label, name)))
            except (ValueError, IndexError):
                problems.append(f"row {reader.line_num}: {','.join(row)!r} is not {columns[0]}, id and name")
    labels = sorted(set(labels) if of_clips else labels, key=lambda label: label.index)
    raise_problems(path, problems or label_problems(labels), fix)
    return labels


def _label_columns(path: Path, header: Sequence[str], fix: str) -> tuple[str, str, str]:
    """The columns of a table of classes that hold index, id and name."""
    names = next((column for column in NAME_COLUMNS if column in header), None)
    if "index" not in header:
        raise AumError(f"{path} lacks the column index", fix=f"its first line must name index; {fix}")
    if names is None:
        raise AumError(f"{path} has none of the columns {' and '.join(NAME_COLUMNS)}", fix=fix)
    return "index", next((column for column in ID_COLUMNS if column in header), names), names


def _speaker(label: str, name: str) -> str:
    """The name of a class; of a speaker who has only a number, VoxCeleb's: /m/voxclb0003, 2 is id10003."""
    speaker = _SPEAKER.fullmatch(label)
    return f"id1{speaker[1]}" if speaker and name.isdigit() else name


def label_problems(labels: Sequence[Label]) -> list[str]:
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

"""CSV tables with a header, read and written one way; and the tables of classes that all corpora have."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from aumcli.errors import AumError
from aumcli.files import atomic_path
from aumcli.names import ESCAPE

LABEL_COLUMNS = ("index", "id", "name")
ID_COLUMNS = ("id", "mid")                      # AudioSet calls a class's id mid, for machine id
NAME_COLUMNS = ("name", "display_name")
SHOWN = 5                                       # so many problems are written out, the rest counted
FIELD_BYTES = 2**20                             # a longer field is no field: a quote was never closed


@dataclass(frozen=True, slots=True)
class Label:
    """A class: its place in the model's output, its id in the manifest, and the name people read."""

    index: int
    id: str
    name: str


class _Lines:
    """Takes rows that end in CR LF and ends them in LF: only so does csv quote a CR within a value."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row[:-2] + "\n")


def csv_lines(file: TextIO):
    """A CSV writer into an open file; what it writes comes back, whatever is in it."""
    return csv.writer(_Lines(file), lineterminator="\r\n")


@contextmanager
def csv_writer(path: Path, columns: Sequence[str]):
    """A CSV writer that has written `columns`; the file appears when all went well."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors=ESCAPE, newline="") as file:
        writer = csv_lines(file)
        writer.writerow(columns)
        yield writer


@contextmanager
def csv_reader(path: Path, required: Sequence[str] | None, fix: str = "correct it", skip: int = 0, spaces: bool = False,
               any_bytes: bool = False):
    """A CSV reader behind the header, and the header.

    Args:
        path: a file in UTF-8.
        required: columns that the header must have, in any order; None for a table without a header.
        fix: what mends a file that is wrong.
        skip: lines before the header, or before the rows where there is none.
        spaces: whether a space behind a comma belongs to the separator.
        any_bytes: whether values may have bytes that are not UTF-8, as names of files have (see `aumcli.names`).

    Yields:
        The reader, and the header ([] where there is none).

    Raises:
        AumError: no such file, not a CSV file, or it lacks a column.
    """
    csv.field_size_limit(FIELD_BYTES)
    try:
        with open(path, encoding="utf-8-sig", newline="", errors="surrogateescape" if any_bytes else "strict") as file:   # -sig: spreadsheets add a mark
            for _ in range(skip):
                file.readline()
            reader = csv.reader(file, skipinitialspace=spaces)
            header = [] if required is None else next(reader, [])
            if "".join(header)[:2] in ("\udcff\udcfe", "\udcfe\udcff"):
                raise csv.Error("it is UTF-16")
            lacking = [column for column in required or () if column not in header]
            if lacking:
                raise AumError(f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
                               fix=f"its first line must name {', '.join(required)}; {fix}")
            yield reader, header
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AumError(f"{path} doesn't exist", fix=fix) from error
    except OSError as error:
        raise AumError(f"can't read {path}: {error.strerror or error}", fix="check its permissions and the disk",
                       exit_code=1) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise AumError(f"{path} is not a CSV file in UTF-8: {error}", fix=f"save it as such; {fix}") from error


def csv_rows(path: Path, required: Sequence[str], **how) -> Iterator[dict[str, str]]:
    """Rows of a table with a header as dictionaries, empty ones passed over.

    Args:
        path: the table.
        required: columns that it must have; it may have others.
        how: see `csv_reader`.

    Raises:
        AumError: see `csv_reader`; or a row has more or fewer values than the header.
    """
    with csv_reader(path, required, **how) as (reader, header):
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise AumError(f"{path}: row {reader.line_num}: {len(row)} values for {len(header)} columns",
                               fix=how.get("fix", "correct it"))
            yield dict(zip(header, row))


def read_labels(path: Path | str, fix: str = "correct the table") -> list[Label]:
    """Read a table of classes: `labels.csv`, or AudioSet's `class_labels_indices.csv` and its like.

    Args:
        path: a CSV file with the columns index, name (or display_name) and, unless names serve as ids, id (or mid).
        fix: what mends it.

    Returns:
        The classes, by index.

    Raises:
        AumError: the file can't be read or lacks a column, or the indices aren't 0, 1, 2, ... each once.
    """
    path = Path(path)
    labels, problems = [], []
    with csv_reader(path, ("index",), fix=fix) as (reader, header):
        names = next((column for column in NAME_COLUMNS if column in header), None)
        if names is None:
            raise AumError(f"{path} has none of the columns {' and '.join(NAME_COLUMNS)}", fix=fix)
        ids = next((column for column in ID_COLUMNS if column in header), names)
        places = [header.index(column) for column in ("index", ids, names)]
        for row in filter(None, reader):
            try:
                index, label, name = (row[place] for place in places)
                labels.append(Label(int(index), label, name))
            except (ValueError, IndexError):
                problems.append(f"row {reader.line_num}: {','.join(row)!r} is not index, id and name")
    labels.sort(key=lambda label: label.index)
    raise_problems(path, problems or label_problems(labels), fix)
    return labels


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


def raise_problems(path: Path, problems: Sequence[str], fix: str) -> None:
    """Raise an AumError that shows the first few problems and counts all, where there are any."""
    if problems:
        raise AumError(f"{path}: {listed(problems, separator='; ')}", fix=fix)


def listed(items: Iterable[object], most: int = SHOWN, separator: str = ", ") -> str:
    """The first few of many things, and how many more there are."""
    items = [str(item) for item in items]
    more = len(items) - most
    return separator.join(items[:most]) + (f"{separator}and {more} more" if more > 0 else "")

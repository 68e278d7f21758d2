"""CSV tables with a header, read and written one way."""

import csv
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aumcli.errors import AumError
from aumcli.utils.files import atomic_path
from aumcli.utils.text import ESCAPE, counted

if TYPE_CHECKING:
    from _csv import Reader, Writer

DELIMITERS = (",", "\t", ";", "|")  # of others' tables
SNIFFED = 200  # lines of such a table that are examined
SHOWN = 5  # problems that are written out; the rest is counted
FIELD_BYTES = 2**20  # a longer field means that a quote was never closed


class _Lines:
    """Takes rows that end in CR LF and ends them in LF: only so does csv quote a CR within a value."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, row: str) -> int:
        return self._file.write(row[:-2] + "\n")


def csv_lines(file: TextIO) -> "Writer":
    """A CSV writer into an open file; what it writes comes back, whatever is in it."""
    return csv.writer(_Lines(file), lineterminator="\r\n")


@dataclass(frozen=True)
class Dialect:
    """How the text of a table is laid out: encoding, what stands between values, and lines before the header."""

    encoding: str = "utf-8-sig"  # -sig: spreadsheets add a mark
    delimiter: str = ","
    skip: int = 0


@contextmanager
def csv_writer(path: Path, columns: Sequence[str]) -> "Iterator[Writer]":
    """A CSV writer that has written `columns`; the file appears when all went well."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors=ESCAPE, newline="") as file:
        writer = csv_lines(file)
        writer.writerow(columns)
        yield writer


def write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a CSV file of rows with the same columns, None as an empty cell."""
    with csv_writer(path, tuple(rows[0])) as writer:
        writer.writerows(["" if value is None else value for value in row.values()] for row in rows)


@contextmanager
def csv_reader(
    path: Path,
    required: Sequence[str] | None,
    fix: str = "correct it",
    skip: int = 0,
    spaces: bool = False,
    dialect: Dialect = Dialect(),
) -> "Iterator[tuple[Reader, list[str]]]":
    """A CSV reader behind the header, and the header.

    Args:
        path: a file in UTF-8.
        required: columns that the header must have, in any order; None for a table without a header.
        fix: what mends a file that is wrong.
        skip: lines before the header, or before the rows where there is none.
        spaces: whether a space behind a comma belongs to the separator.
        dialect: of a table from another program; its `skip` is added to `skip`.

    Yields:
        The reader, and the header ([] where there is none).

    Raises:
        AumError: no such file, not a CSV file, or it lacks a column.
    """
    csv.field_size_limit(FIELD_BYTES)
    try:
        with open(path, encoding=dialect.encoding, newline="") as file:
            for _ in range(skip + dialect.skip):
                file.readline()
            reader = csv.reader(file, delimiter=dialect.delimiter, skipinitialspace=spaces)
            header = [] if required is None else next(reader, [])
            if "".join(header)[:2] in ("\udcff\udcfe", "\udcfe\udcff"):
                raise csv.Error("it is UTF-16")
            lacking = [column for column in required or () if column not in header]
            if lacking:
                raise AumError(
                    f"{path} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}",
                    fix=f"its first line must name {', '.join(required or ())}; {fix}",
                )
            yield reader, header
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AumError(f"{path} doesn't exist", fix=fix) from error
    except OSError as error:
        raise AumError(
            f"can't read {path}: {error.strerror or error}", fix="check its permissions and the disk", exit_code=1
        ) from error
    except (UnicodeError, csv.Error) as error:
        mend = "save it as such"
        if isinstance(error, UnicodeError):
            mend += f", as iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(str(path))} > utf8.csv does"
        raise AumError(f"{path} is not a CSV file in UTF-8: {error}", fix=f"{mend}; {fix}") from error


def sniff(path: Path, known: Callable[[list[str]], int]) -> Dialect:
    """Find out how a table is laid out, from its first lines.

    Args:
        path: a text file: values between commas, tabs, semicolons or bars, as UTF-8 or with a mark as UTF-16. A line
            `sep=;` and lines that begin with # may stand before the header.
        known: how many of a header's columns make sense.

    Raises:
        AumError: it can't be read, or isn't text.
    """
    csv.field_size_limit(FIELD_BYTES)
    with csv_reader(path, None), open(path, "rb") as file:  # the first says why a file can't be opened
        start = file.read(4)
    if start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise AumError(f"{path} is a workbook, not a text", fix="save the sheet as CSV (UTF-8), and name that")
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        with open(path, encoding=encoding, newline="") as file:
            lines = [line for line in (file.readline(FIELD_BYTES) for _ in range(SNIFFED)) if line]
    except UnicodeError:
        return Dialect()  # reading it raises the error, with the place
    named = re.fullmatch(r"sep=(.)", lines[0].strip()) if lines else None
    if named:
        return Dialect(encoding, named[1], 1)
    comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    found = []
    for skip in sorted({max(0, comments - 1), comments}):  # the last comment may be the header
        for delimiter in DELIMITERS:
            with suppress(csv.Error):
                rows = [row for row in csv.reader(lines[skip:], delimiter=delimiter, skipinitialspace=True) if row]
                if rows and len(rows[0]) > 1:
                    alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
                    found.append(((known(rows[0]), alike, len(rows[0])), Dialect(encoding, delimiter, skip)))
    return max(found, key=lambda item: item[0])[1] if found else Dialect(encoding, skip=comments)


def csv_rows(path: Path, required: Sequence[str], fix: str = "correct it") -> Iterator[dict[str, str]]:
    """Rows of a table with a header as dictionaries, empty ones skipped.

    Args:
        path: the table.
        required: columns that it must have; it may have others.
        fix: what mends a file that is wrong.

    Raises:
        AumError: see `csv_reader`; or a row has more or fewer values than the header.
    """
    with csv_reader(path, required, fix) as (reader, header):
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise AumError(
                    f"{path}: row {reader.line_num}: {counted(len(row), 'value')} for {counted(len(header), 'column')}",
                    fix=fix,
                )
            yield dict(zip(header, row))


def raise_problems(path: Path, problems: Sequence[str], fix: str) -> None:
    """Raise an AumError that shows the first few problems and counts all, where there are any."""
    if problems:
        raise AumError(f"{path}: {listed(problems, separator='; ')}", fix=fix)


def listed(items: Iterable[object], most: int = SHOWN, separator: str = ", ") -> str:
    """The first few of many things, and how many more there are."""
    texts = [str(item) for item in items]
    more = len(texts) - most
    return separator.join(texts[:most]) + (f"{separator}and {more} more" if more > 0 else "")

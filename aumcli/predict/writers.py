"""Results as files that other programs read.

Each format is a function from records to pieces of text, one after another.

A record is what `Prediction.to_dict` gives (schema 1): path, duration_s, windows, labels [{label, score}] best first
and events [{start_s, stop_s, label, score}] by time, and a warning where there is one; or path, problem and fix.
Further keys are no part of the schema.
"""

import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aumcli.errors import AumError
from aumcli.predict.parquet import METADATA, import_pyarrow, parquet_writer
from aumcli.predict.prediction import Record, answers, embedding_of
from aumcli.report.tables import PredictionRow, print_predictions
from aumcli.utils.csv import csv_lines
from aumcli.utils.files import atomic_path, write_json
from aumcli.utils.text import ESCAPE, one_line, shown, to_json

Row = tuple[str | float | None, ...]  # of COLUMNS
KEYS = (
    "path",
    "duration_s",
    "windows",
    "recorded_at",
    "site",
    "nothing",
    "rejected",
    "labels",
    "events",
    "warning",
    "problem",
    "fix",
)
COLUMNS = (
    "path",
    "kind",
    "start_s",
    "stop_s",
    "label",
    "score",
    "problem",
    "fix",
    "recorded_at",
    "site",
)  # kind: clip, event or failed
ROWS_TOGETHER = 10_000
TABLE_ROWS = 500  # rows that a table's columns are fitted to


class Format(StrEnum):
    """What results can be written as."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    AUDACITY = "audacity"
    RAVEN = "raven"

    @classmethod
    def named(cls, name: str | None) -> "Format | None":
        """The format of a name; raises AumError where there is none."""
        if name is not None and name not in set(cls):
            raise AumError(f"there is no format {name}", fix=f"choose one of {', '.join(cls)}")
        return None if name is None else cls(name)

    @property
    def suffix(self) -> str:
        """Of a file in this format."""
        return {"table": ".txt", "audacity": ".txt", "raven": ".selections.txt"}.get(self.value, f".{self.value}")

    @classmethod
    def of(cls, out: Path | str) -> "Format":
        """The format that a file's name asks for; JSON for a folder's files.

        Raises:
            AumError: its suffix is no format's own.
        """
        if is_folder(out):
            return cls.JSON
        name = Path(out).suffix.lower().removeprefix(".")
        if name in ("json", "jsonl", "csv", "parquet"):
            return cls(name)
        raise AumError(
            f"the name {out} doesn't say which format is meant",
            fix="end it in .json, .jsonl, .csv or .parquet, or name a --format",
        )


def is_folder(out: Path | str) -> bool:
    """Whether an output is a folder: it is one, or its name ends in a slash, which a Path forgets."""
    return str(out).endswith(("/", "\\")) or os.path.isdir(out)


def _plain(record: Record) -> Record:
    return {key: record[key] for key in KEYS if key in record}


def _json(header: Record, records: Iterable[Record]) -> Iterator[str]:
    """One document: the header, `clips` and `failed`."""
    failed: list[Record] = []
    text = to_json(header, indent=2)
    yield text[:-2] + ',\n  "clips": ['
    separator = "\n"
    for record in map(_plain, records):
        if "problem" in record:
            failed.append(record)
            continue
        yield separator + "    " + to_json(record)
        separator = ",\n"
    yield '\n  ],\n  "failed": [' + ",".join("\n    " + to_json(record) for record in failed) + "\n  ]\n}\n"


def _jsonl(header: Record, records: Iterable[Record]) -> Iterator[str]:
    """A record a line, each with the schema's version."""
    for record in records:
        yield to_json({"schema": header["schema"], **_plain(record)}) + "\n"


def rows_of(record: Record) -> Iterator[Row]:
    """A record as rows of COLUMNS: one for each label of the clip and for each event, or one for its problem."""
    path = record["path"]
    if "problem" in record:
        yield path, "failed", None, None, None, None, record["problem"], record["fix"], None, None
        return
    at, site = record.get("recorded_at"), record.get("site")
    for label, score in answers(record):
        yield path, "clip", 0.0, record["duration_s"], label, score, None, None, at, site
    for event in record["events"]:
        at = event.get("recorded_at")
        yield path, "event", event["start_s"], event["stop_s"], event["label"], event["score"], None, None, at, site


def _table_rows(record: Record) -> Iterator[PredictionRow]:
    """A record as rows of `print_predictions`: its labels, then its events.

    Of a clip scored in one window an event is the clip itself: the same class, score and length. Such a clip is one
    row: with times where its best label is an event, and with * before the further classes that are.
    """
    path, labels = record["path"], answers(record)
    if record["windows"] != 1:
        yield path, None, None, labels
        for event in record["events"]:
            yield path, event["start_s"], event["stop_s"], [(event["label"], event["score"])]
        return
    events = {event["label"]: event for event in record["events"]}
    own = events.get(labels[0][0])
    further = dict(labels[1:]) | {name: event["score"] for name, event in events.items() if event is not own}
    times = (own["start_s"], own["stop_s"]) if own else (None, None)
    yield path, *times, labels[:1] + [("*" * (name in events) + name, score) for name, score in further.items()]


def _csv(header: Record, records: Iterable[Record]) -> Iterator[str]:
    """A table with the columns COLUMNS."""
    yield _csv_lines([COLUMNS])
    for record in records:
        yield _csv_lines(rows_of(record))


def _csv_lines(rows: Iterable[Row]) -> str:
    text = io.StringIO()
    csv_lines(text).writerows(rows)
    return text.getvalue()


def _table(header: Record, records: Iterable[Record], width: int | None = None) -> Iterator[str]:
    """For people: a row with the labels of each clip, and its events (see `_table_rows`); as wide as the terminal."""
    rows: list[PredictionRow] = []
    heading = True

    def block() -> str:
        text = io.StringIO()
        print_predictions(rows, text, heading, width)
        return text.getvalue()

    for record in records:
        if "problem" in record:
            continue
        rows += _table_rows(record)
        if len(rows) >= TABLE_ROWS:
            yield block()
            rows, heading = [], False
    if rows:
        yield block()


def _audacity(header: Record, records: Iterable[Record]) -> Iterator[str]:
    """Labels of one recording: start, end and text, separated by tabs."""
    for record in records:
        for event in record.get("events", ()):
            yield f"{event['start_s']:.6f}\t{event['stop_s']:.6f}\t{one_line(event['label'])} {event['score']:.3f}\n"


RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin Path",
    "File Offset (s)",
    "Label",
    "Score",
)


def _raven(header: Record, records: Iterable[Record]) -> Iterator[str]:
    """A selection table; times run through the files in their order, as Raven opens them."""
    yield "\t".join(RAVEN_COLUMNS) + "\n"
    number, offset_s = 0, 0.0
    for record in records:
        for event in record.get("events", ()):
            number += 1
            yield (
                "\t".join(
                    (
                        str(number),
                        "Spectrogram 1",
                        "1",
                        f"{offset_s + event['start_s']:.6f}",
                        f"{offset_s + event['stop_s']:.6f}",
                        "0.000",  # as Raven writes them; readers expect a fraction
                        f"{header['sample_rate_hz'] / 2:.3f}",
                        one_line(record["path"]),
                        f"{event['start_s']:.6f}",
                        one_line(event["label"]),
                        f"{event['score']:.6f}",
                    )
                )
                + "\n"
            )
        offset_s += record.get("duration_s", 0.0)


WITHOUT_FAILURES = (Format.TABLE, Format.AUDACITY, Format.RAVEN)
TEXT: dict[Format, Callable[[Record, Iterable[Record]], Iterator[str]]] = {
    Format.TABLE: _table,
    Format.JSON: _json,
    Format.JSONL: _jsonl,
    Format.CSV: _csv,
    Format.AUDACITY: _audacity,
    Format.RAVEN: _raven,
}


def printed(format: Format, header: Record, records: Iterable[Record]) -> Iterator[str]:
    """The text for standard output: as in a file, but that a table fits the terminal."""
    if format is Format.TABLE and sys.stdout is not None and sys.stdout.isatty():
        return _table(header, records, shutil.get_terminal_size().columns)
    return TEXT[format](header, records)


def write(path: Path, format: Format, header: Record, records: Iterable[Record]) -> None:
    """Write records to a file, which appears when it is complete."""
    if format is Format.PARQUET:
        return _write_parquet(path, header, records)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", errors=ESCAPE, newline="") as file:
        file.writelines(TEXT[format](header, records))


def check_format(format: Format, out: Path | str | None, inputs: int) -> None:
    """Refuse an output that can't be: no package for it, no file for it, or recordings whose times would be mixed.

    Raises:
        AumError: for one of these reasons.
    """
    if format is Format.PARQUET:
        import_pyarrow()
        if out is None:
            raise AumError("parquet is no text that could be printed", fix="name a file with --out")
    if format is Format.AUDACITY and inputs > 1 and not (out and is_folder(out)):
        raise AumError(
            f"Audacity's labels belong to one recording, and there are {inputs}", fix="name a folder: --out labels/"
        )


def _write_parquet(path: Path, header: Record, records: Iterable[Record]) -> None:
    """The rows of `rows_of`; the header stands in the file's metadata."""
    pa = import_pyarrow()
    types = [pa.float64() if name in ("start_s", "stop_s", "score") else pa.string() for name in COLUMNS]
    schema = pa.schema(list(zip(COLUMNS, types)), metadata={METADATA: json.dumps(header)})
    rows = (
        [shown(value) if isinstance(value, str) else value for value in row]
        for record in records
        for row in rows_of(record)
    )
    with parquet_writer(path, schema) as writer:
        while some := list(islice(rows, ROWS_TOGETHER)):
            writer.write_table(pa.table([list(column) for column in zip(*some)], schema=schema))


def check_embeddings(path: Path) -> None:
    """Raise the AumError of a file that can't hold embeddings."""
    if path.suffix.lower() == ".parquet":
        import_pyarrow()
    elif path.suffix.lower() != ".npy":
        raise AumError(f"embeddings can't be written as {path.name}", fix="name a .npy or .parquet file")


def embeddings_index(path: Path) -> Path | None:
    """The file that names the rows of an .npy."""
    return path.with_suffix(".json") if path.suffix.lower() == ".npy" else None


def write_embeddings(path: Path, header: Record, records: Iterable[Record]) -> None:
    """Write embeddings with their files' names: FILE.parquet, or FILE.npy with FILE.json beside it.

    Args:
        path: its suffix says which.
        header: how they were made.
        records: those with an embedding, (d,), are written.
    """
    records = iter(record for record in records if "embedding" in record)
    first = list(islice(records, 1))
    width = len(embedding_of(first[0])) if first else 0
    records = chain(first, records)
    if path.suffix.lower() == ".parquet":
        return _parquet_embeddings(path, header, records, width)
    paths = []
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        _npy_header(file, 0, width)
        for record in records:
            file.write(embedding_of(record).tobytes())
            paths.append(record["path"])
        file.seek(0)
        _npy_header(file, len(paths), width)
    write_json(path.with_suffix(".json"), {**header, "paths": paths})


def _npy_header(file: BinaryIO, count: int, width: int) -> None:
    """Write NumPy's header of (count, width) float32.

    NumPy leaves room in it for larger counts, so its length is the same.
    """
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, width)})


def _parquet_embeddings(path: Path, header: Record, records: Iterable[Record], width: int) -> None:
    pa = import_pyarrow()
    schema = pa.schema(
        [("path", pa.string()), ("embedding", pa.list_(pa.float32(), width))], metadata={METADATA: json.dumps(header)}
    )
    with parquet_writer(path, schema) as writer:
        while some := list(islice(records, ROWS_TOGETHER)):
            vectors = pa.FixedSizeListArray.from_arrays(
                pa.array(np.concatenate([embedding_of(record) for record in some])), width
            )
            writer.write_table(pa.table([pa.array([shown(record["path"]) for record in some]), vectors], schema=schema))

"""Scores and embeddings of windows as Parquet, a row for each window; and scores from there back to clips."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from aumcli.data.recorded import when_recorded
from aumcli.errors import AumError
from aumcli.predict.decoding import DecodeResult
from aumcli.predict.events import add_batch
from aumcli.predict.inputs import Source
from aumcli.predict.parquet import METADATA, import_pyarrow, parquet_writer
from aumcli.predict.postprocess import PendingClip, PostProcessor
from aumcli.predict.prediction import DECIMALS, Prediction, Record
from aumcli.predict.window_store import WindowStore
from aumcli.utils.text import shown

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

T = TypeVar("T")
Columns = list[Any]  # of some rows: lists, arrays and arrow's own
COLUMNS = ("path", "name", "start_s", "stop_s", "duration_s", "channels_cancel")  # then one for each class
GROUP_VALUES, GROUP_ROWS = 2**21, 10_000  # most scores and rows of a row group


def class_columns(labels: Sequence[str]) -> list[str]:
    """The columns of the classes: their names, with underscores behind one that another column has already."""
    taken, columns = {*COLUMNS}, []
    for label in map(shown, labels):
        while label in taken:
            label += "_"
        taken.add(label)
        columns.append(label)
    return columns


def _rows(record: Record, store: WindowStore, rate_hz: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The windows of a clip: starts and stops in s, (n,) float64, and what the store has of them."""
    for rows in store.read(record["first_window"], record["windows"]):
        yield rows["start"] / rate_hz, np.minimum(rows["stop"] / rate_hz, record["duration_s"]), rows


def write_scores(
    path: Path, facts: Record, records: Callable[[], Iterable[Record]], sources: Sequence[Source], store: WindowStore
) -> None:
    """Write the scores of all windows, in memory that depends on neither their number nor their clips' length.

    Args:
        path: a .parquet file.
        facts: what stands in the schema's metadata: how they were made, `labels` and `model_threshold` of each.
        records: gives results with their windows' place (see `Prediction.to_record`), in the order of `sources`.
        sources: the sounds.
        store: has the scores.
    """
    pa = import_pyarrow()
    rate_hz, labels, columns = facts["sample_rate_hz"], facts["labels"], class_columns(facts["labels"])
    failed = [
        {
            "place": i,
            "path": shown(source.path),
            "name": shown(source.name),
            "problem": record["problem"],
            "fix": record["fix"],
            "is_sound": not source.problem,
        }
        for i, (source, record) in enumerate(zip(sources, records()))
        if "problem" in record
    ]
    types = (pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.bool_())
    schema = pa.schema(
        [*zip(COLUMNS, types), *((name, pa.float32()) for name in columns)],
        metadata={METADATA: json.dumps({**facts, "columns": columns, "failed": failed})},
    )

    def blocks() -> Iterator[Columns]:
        for source, record in zip(sources, records()):
            if "problem" in record:
                continue
            for start_s, stop_s, rows in _rows(record, store, rate_hz):
                n = len(rows)
                yield [
                    [shown(source.path)] * n,
                    [shown(source.name)] * n,
                    start_s,
                    stop_s,
                    np.full(n, record["duration_s"]),
                    np.full(n, "warning" in record),
                    *rows["scores"].T,
                ]

    _write(path, schema, blocks(), max(1, min(GROUP_ROWS, GROUP_VALUES // len(labels))))


def write_window_embeddings(path: Path, header: Record, records: Iterable[Record], store: WindowStore) -> None:
    """Write the embeddings of all windows; for the arguments see `write_scores`."""
    pa = import_pyarrow()
    schema = pa.schema(
        [
            ("path", pa.string()),
            ("start_s", pa.float64()),
            ("stop_s", pa.float64()),
            ("embedding", pa.list_(pa.float32(), store.width)),
        ],
        metadata={METADATA: json.dumps(header)},
    )

    def blocks() -> Iterator[Columns]:
        for record in records:
            if "problem" not in record:
                for start_s, stop_s, rows in _rows(record, store, header["sample_rate_hz"]):
                    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows["embedding"].ravel()), store.width)
                    yield [[shown(record["path"])] * len(rows), start_s, stop_s, vectors]

    _write(path, schema, blocks(), max(1, min(GROUP_ROWS, GROUP_VALUES // store.width)))


def _write(path: Path, schema: "Schema", blocks: Iterable[Columns], group_rows: int) -> None:
    """Write blocks of columns; those of short clips come together in one row group, those of long ones are cut."""
    pa = import_pyarrow()
    with parquet_writer(path, schema) as writer:
        waiting, rows = [], 0
        for block in blocks:
            waiting.append(pa.record_batch([pa.array(column) for column in block], schema=schema))
            rows += waiting[-1].num_rows
            if rows >= group_rows:
                writer.write_table(pa.Table.from_batches(waiting), row_group_size=group_rows)
                waiting, rows = [], 0
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=group_rows)


class ScoresFile:
    """A file that `write_scores` wrote.

    Args:
        path: the file.

    Raises:
        AumError: it is no such file, or pyarrow is missing.
    """

    def __init__(self, path: Path):
        self.path, self._pa = path, import_pyarrow()
        try:
            with open(path, "rb") as file:
                metadata = self._pa.parquet.read_schema(file).metadata or {}
            facts = json.loads(metadata.get(METADATA.encode(), b"{}"))
            self.failed, self.columns, self.labels = facts.pop("failed"), facts.pop("columns"), facts.pop("labels")
            self.model_thresholds = np.array(facts.pop("model_threshold"), dtype=np.float32)
            self.header = facts  # how the scores were made
        except OSError as error:
            raise AumError(
                f"can't read {path}: {error.strerror or error}", fix="name a file that aum predict --scores wrote"
            ) from error
        except (self._pa.ArrowException, ValueError, KeyError) as error:
            raise AumError(
                f"{path} holds no scores of windows",
                fix="write such a file: aum predict recordings/ --scores FILE.parquet",
            ) from error

    @property
    def rate_hz(self) -> int:
        """Of the samples that the windows were cut from."""
        return self.header["sample_rate_hz"]

    def _batches(self, columns: Sequence[str]) -> Iterator["RecordBatch"]:
        """Columns of some rows at a time."""
        try:
            with open(self.path, "rb") as file, self._pa.parquet.ParquetFile(file) as parquet:
                yield from parquet.iter_batches(
                    batch_size=max(1, min(GROUP_ROWS, GROUP_VALUES // len(self.labels))), columns=[*columns]
                )
        except (self._pa.ArrowException, OSError, KeyError) as error:
            raise AumError(
                f"{self.path} is damaged: {str(error).splitlines()[0]}",
                fix="write it again with aum predict --scores",
                exit_code=1,
            ) from error

    def sources(self) -> list[Source]:
        """The sounds that were scored, and those that could not be, in the order of that call."""
        found: list[Source] = []
        for batch in self._batches(("path", "name", "start_s")):
            starts = np.flatnonzero(
                batch.column("start_s").to_numpy() == 0.0
            )  # only the first window of a clip starts there
            paths, names = (
                batch.column(column).take(self._pa.array(starts)).to_pylist() for column in ("path", "name")
            )
            found += [Source(path, name, path) for path, name in zip(paths, names)]
        failed = [
            Source(each["path"], each["name"], each["path"], "" if each["is_sound"] else each["problem"], each["fix"])
            for each in self.failed
        ]
        return list(self._with_failed(found, failed))

    def predictions(self, post: PostProcessor) -> Iterator[Prediction]:
        """A prediction for each of `sources`, in memory that doesn't depend on their number and length."""
        return self._with_failed(
            self._scored(post),
            [Prediction(each["path"], problem=each["problem"], fix=each["fix"]) for each in self.failed],
        )

    def _with_failed(self, scored: Iterable[T], failed: list[T]) -> Iterator[T]:
        """Insert what stands for sounds that failed."""
        waiting, place = list(zip([each["place"] for each in self.failed], failed))[::-1], 0
        for each in scored:
            while waiting and waiting[-1][0] == place:
                yield waiting.pop()[1]
                place += 1
            yield each
            place += 1
        yield from (each for _, each in waiting[::-1])

    def _scored(self, post: PostProcessor) -> Iterator[Prediction]:
        clip: PendingClip | None = None
        for batch in self._batches([*COLUMNS, *self.columns]):
            scores = np.stack([batch.column(name).to_numpy() for name in self.columns], axis=1)  # (rows, classes)
            starts_s, stops_s = (batch.column(name).to_numpy() for name in ("start_s", "stop_s"))
            spans = list(zip(self._samples(starts_s).tolist(), self._samples(stops_s).tolist()))
            begins = np.flatnonzero(starts_s == 0.0).tolist()
            cuts = [*([] if begins[:1] == [0] else [0]), *begins, len(spans)]  # the first rows may continue a clip
            for first, stop in pairwise(cuts):
                if starts_s[first] == 0.0:  # the first window of a clip
                    if clip is not None:
                        yield from post.predictions([clip])
                    path, name, duration_s, cancels = (
                        batch.column(column)[first].as_py()
                        for column in ("path", "name", "duration_s", "channels_cancel")
                    )
                    clip = post.begin(Source(path, name, path))
                    clip.decoded = DecodeResult(duration_s, cancels, when_recorded(path, path, post.config.recorded))
                if clip is None:
                    raise AumError(
                        f"{self.path} is damaged: a clip's first window is missing",
                        fix="write it again with aum predict --scores",
                        exit_code=1,
                    )
                add_batch([(clip.scores, spans[first:stop])], scores[first:stop], None)
        if clip is not None:
            yield from post.predictions([clip])

    def _samples(self, seconds: np.ndarray) -> np.ndarray:
        """Seconds as samples, (n,): those they were made of; of a stop that the clip's end cuts, the one after it."""
        samples = np.floor(seconds * self.rate_hz + 10.0**-DECIMALS).astype(np.int64)
        return samples + (samples / self.rate_hz < seconds)

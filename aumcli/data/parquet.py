"""manifest.parquet: the same rows as manifest.csv, in a format that two million rows are read from in a second.

It is written where pyarrow is installed, holds the SHA-256 of the manifest.csv it was made from, and is ignored once
manifest.csv has been edited.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aumcli.data.clips import Clips
from aumcli.utils.files import atomic_path, file_sha256
from aumcli.utils.text import unescaped

if TYPE_CHECKING:
    import pyarrow

DIGEST = b"manifest.csv sha256"


def write_parquet(csv_path: Path, columns: Mapping[str, Sequence[object]]) -> bool:
    """Write manifest.parquet beside a finished manifest.csv; where pyarrow is missing, remove an older one.

    Args:
        csv_path: manifest.csv.
        columns: what is in it, as `Clips.columns` gives it, paths as they stand there.

    Returns:
        Whether it was written.
    """
    path = csv_path.with_suffix(".parquet")
    if not _has_pyarrow():
        path.unlink(missing_ok=True)
        return False
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table(
        dict(columns),
        schema=pyarrow.schema(
            [
                ("path", pyarrow.string()),
                ("start_s", pyarrow.float64()),
                ("stop_s", pyarrow.float64()),
                ("labels", pyarrow.string()),
                ("split", pyarrow.string()),
                ("group", pyarrow.string()),
            ],
            metadata={DIGEST: file_sha256(csv_path).encode()},
        ),
    )
    with atomic_path(path) as temporary, open(temporary, "wb") as file:  # pyarrow itself wants names in UTF-8
        parquet.write_table(table, file)
    return True


def read_parquet(csv_path: Path) -> Clips | None:
    """Read manifest.parquet.

    Args:
        csv_path: the manifest.csv beside it, which must exist.

    Returns:
        The clips; None where there is no manifest.parquet or no pyarrow, or manifest.csv is not the one it was made
        from.
    """
    path = csv_path.with_suffix(".parquet")
    if not path.exists() or not _has_pyarrow():
        return None
    import pyarrow
    from pyarrow import parquet

    try:
        with open(path, "rb") as opened, parquet.ParquetFile(opened) as file:
            if (file.schema_arrow.metadata or {}).get(DIGEST) != file_sha256(csv_path).encode():
                return None

            def column(name: str) -> "pyarrow.ChunkedArray":  # one at a time: arrow's copy of it is dropped again
                return file.read(columns=[name]).column(name)

            label_codes, joined = _coded(column("labels"))
            splits = _coded(column("split"))
            start_s, stop_s = (column(name).fill_null(float("nan")).to_numpy() for name in ("start_s", "stop_s"))
            paths, groups = ([*map(unescaped, column(name).to_pylist())] for name in ("path", "group"))
    except (pyarrow.ArrowException, OSError, KeyError):
        return None  # manifest.csv, which people can read, has the same rows
    label_sets = [tuple(ids.split(";")) if ids else () for ids in joined]
    return Clips.of_columns(csv_path.parent, paths, start_s, stop_s, groups, (label_codes, label_sets), splits)


def _coded(column: "pyarrow.ChunkedArray") -> tuple[np.ndarray, list[str]]:
    """A column of few different strings as (clips,) int32 and the strings."""
    coded = column.dictionary_encode().combine_chunks()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int32), coded.dictionary.to_pylist()


def _has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True

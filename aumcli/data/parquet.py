"""manifest.parquet: the same rows as manifest.csv, in a format that two million rows are read from in a second.

It is written where pyarrow is installed, names the SHA-256 of the manifest.csv it was made from, and is believed only
as long as that fits: whoever edits manifest.csv gets what he wrote.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clips
from aumcli.utils.files import atomic_path
from aumcli.utils.text import unescaped

DIGEST = b"manifest.csv sha256"


def write_parquet(csv_path: Path, columns: Mapping[str, Sequence]) -> bool:
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
            metadata={DIGEST: _digest(csv_path)},
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
            if (file.schema_arrow.metadata or {}).get(DIGEST) != _digest(csv_path):
                return None

            def column(name):  # one at a time: arrow's copy of it is dropped again
                return file.read(columns=[name]).column(name)

            codes, values = zip(*(_coded(column(name)) for name in ("labels", "split")))
            seconds = [column(name).fill_null(float("nan")).to_numpy() for name in ("start_s", "stop_s")]
            names, groups = ([*map(unescaped, column(name).to_pylist())] for name in ("path", "group"))
    except (pyarrow.ArrowException, OSError, KeyError):
        return None  # manifest.csv, which people can read, has the same rows
    sets = [tuple(text.split(";")) if text else () for text in values[0]]
    return Clips.of_columns(csv_path.parent, names, *seconds, groups, codes, (sets, values[1]))


def _coded(column) -> tuple[np.ndarray, list[str]]:
    """A column of few different strings as (clips,) int32 and the strings."""
    coded = column.dictionary_encode().combine_chunks()
    return coded.indices.to_numpy(zero_copy_only=False).astype(np.int32), coded.dictionary.to_pylist()


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def _has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True

"""Parquet files of results; pyarrow is imported where one is written or read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from aumcli.errors import AumError
from aumcli.utils.files import atomic_path

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.parquet import ParquetWriter

METADATA = "aumcli"  # the key of a schema's metadata under which stands how the results were made


def import_pyarrow() -> ModuleType:
    """The package pyarrow with its Parquet, or the AumError of its absence."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise AumError("parquet needs the package pyarrow", fix="pip install 'aumcli[data]', or write csv") from error
    return pyarrow


def check_parquet(path: Path, what: str) -> None:
    """Raise the AumError of a file that can't hold a row for each window."""
    if path.suffix.lower() != ".parquet":
        raise AumError(f"{what} can't be written as {path.name}", fix="name a .parquet file")
    import_pyarrow()


@contextmanager
def parquet_writer(path: Path, schema: "Schema") -> Iterator["ParquetWriter"]:
    """A writer of tables with this schema; the file appears when all went well."""
    with (
        atomic_path(path) as temporary,
        open(temporary, "wb") as file,  # pyarrow itself wants names in UTF-8
        import_pyarrow().parquet.ParquetWriter(file, schema) as writer,
    ):
        yield writer

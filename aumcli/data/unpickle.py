"""Tables that others have pickled, read without running anything:
only the names that a pandas table needs are let through.
"""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

from aumcli.errors import AumError

_RECONSTRUCT = {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
_BUFFER = {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}
# DataFrame and its indexes by their names in pandas 1 to 3. Not Arrow's arrays: those trust the lengths they are told.
ALLOWED = (
    _RECONSTRUCT
    | _BUFFER
    | {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("builtins", "slice"),
        ("pandas", "DataFrame"),
        ("pandas.core.frame", "DataFrame"),
        ("pandas.core.internals.managers", "BlockManager"),
        ("pandas._libs.internals", "_unpickle_block"),
        ("pandas.core.indexes.base", "_new_Index"),
        ("pandas", "CorpusIndex"),
        ("pandas.core.indexes.base", "CorpusIndex"),
        ("pandas", "RangeIndex"),
        ("pandas.core.indexes.range", "RangeIndex"),
        ("pandas.core.indexes.numeric", "Int64Index"),
    }
)
MOVED = {("pandas.core.indexes.numeric", "Int64Index"): ("pandas.core.indexes.base", "CorpusIndex")}


class _TableUnpickler(pickle.Unpickler):
    """Refuses every name that isn't listed: a pickle runs what it names."""

    def find_class(self, module: str, name: str):
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no table needs")
        return super().find_class(*MOVED.get((module, name), (module, name)))


def read_frame(path: Path, columns: Sequence[str], fix: str) -> list[Mapping[str, str]]:
    """Read a pickled pandas table.

    Args:
        path: the pickle.
        columns: those wanted; the index may be one of them.
        fix: where to take the right file from.

    Returns:
        A dictionary per row, all values as text.

    Raises:
        AumError: pandas isn't installed, or the file is no pickle, one of something else, or lacks a column.
    """
    try:
        import pandas
    except ImportError as error:
        raise AumError(
            f"reading {path} needs the package pandas", fix="pip install 'aumcli[data]', or take the .csv"
        ) from error
    try:
        with open(path, "rb") as file:
            frame = _TableUnpickler(file).load()
    except OSError as error:
        raise AumError(
            f"can't read {path}: {error.strerror or error}", fix="check its permissions and the disk", exit_code=1
        ) from error
    except Exception as error:  # a damaged pickle can raise anything
        raise AumError(f"{path} is no pickled table that can be trusted: {error}", fix=fix, exit_code=1) from error
    if not isinstance(frame, pandas.DataFrame):
        raise AumError(f"{path} is the pickle of a {type(frame).__name__}, not of a table", fix=fix)
    frame = frame.reset_index() if frame.index.name else frame
    lacking = [column for column in columns if column not in frame.columns]
    if lacking:
        raise AumError(f"{path} lacks the columns {', '.join(lacking)}", fix=fix)
    return frame[list(columns)].astype(str).to_dict("records")

"""Scores and embeddings of windows on disk while a call runs: beside the journal, kept through interruptions too."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aumcli.errors import AumError
from aumcli.utils.files import disk_error
from aumcli.utils.text import shell_quoted

READ_BYTES = 2**22  # at a time


class WindowStore:
    """An array of windows that only grows: the first sample, the one after the last, scores, embedding.

    Args:
        path: the file, which `keep` opens.
        classes: scores of a window; 0: none are kept.
        width: values of an embedding; 0: none are kept.
    """

    def __init__(self, path: Path, classes: int, width: int):
        self.path, self.classes, self.width = path, classes, width
        self.row = np.dtype(
            [("start", "<i8"), ("stop", "<i8"), ("scores", "<f4", (classes,)), ("embedding", "<f4", (width,))]
        )
        self.windows = (
            path.stat().st_size // self.row.itemsize if path.exists() else 0
        )  # complete ones that an earlier call left
        self._file: BinaryIO | None = None

    def __enter__(self) -> "WindowStore":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def _opened(self) -> BinaryIO:
        assert self._file is not None  # by `keep`
        return self._file

    def keep(self, windows: int) -> None:
        """Append after the first `windows` windows of the file, and drop the others.

        Raises:
            AumError: the file can't be written.
        """
        try:
            self._file = open(self.path, "ab+")  # noqa: SIM115  closed by `__exit__`
            self._file.truncate(windows * self.row.itemsize)
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.windows = windows

    def append(self, spans: Sequence[tuple[int, int]], scores: np.ndarray, embeddings: np.ndarray | None) -> int:
        """Add windows with their spans, scores (n, classes) and embeddings (n, d); the place of the first."""
        rows = np.zeros(len(spans), dtype=self.row)
        rows["start"], rows["stop"] = np.array(spans).T
        if self.classes:
            rows["scores"] = scores
        if self.width:
            rows["embedding"] = embeddings
        first = self.windows
        try:
            self._opened.write(rows.tobytes())
            self._opened.flush()
        except OSError as error:
            raise disk_error(self.path, error) from error
        self.windows += len(spans)
        return first

    def read(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Windows from a place on, some at a time, as rows of `self.row`.

        Raises:
            AumError: a loss of power has left zeros.
        """
        at_once = max(1, READ_BYTES // self.row.itemsize)
        for place in range(first, first + count, at_once):
            self._opened.seek(place * self.row.itemsize)
            wanted = min(at_once, first + count - place)
            rows = np.frombuffer(self._opened.read(wanted * self.row.itemsize), dtype=self.row)
            if len(rows) < wanted or not (rows["stop"] > rows["start"]).all():
                raise AumError(
                    f"{self.path} is damaged",
                    fix=f"remove it and the .journal beside it, and start again: rm {shell_quoted(self.path)}",
                    exit_code=1,
                )
            yield rows

    def remove(self) -> None:
        """Everything is written elsewhere: close the file and remove it."""
        self._opened.close()
        self.path.unlink(missing_ok=True)

"""The journal beside an output: every result as it comes, so that a break loses nothing and --resume goes on.

Its first line says how the results were made; each further line is one file's record with the file's size and time. Lines
are written a group of files at a time, the group's last marked "end": what stands behind the last mark is dropped when a
journal is taken up, and computed again in the same batches.
"""

import glob
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from aumcli.errors import AumError
from aumcli.files import atomic_path, disk_error
from aumcli.predict.decoding import stamp
from aumcli.predict.inputs import Source

Record = dict[str, object]


class Journal:
    """Results on disk, in any order; given back in the order of the sources.

    Args:
        path: the journal.
        header: how results are made.
        sources: what shall be labelled.
        resume: take up an earlier journal.

    Raises:
        AumError: there is a journal already and `resume` is False, or it was made in another way.
    """

    def __init__(self, path: Path, header: Record, sources: Sequence[Source], resume: bool):
        self.path, self.sources = path, sources
        self._places = array("q", [-1]) * len(sources)              # of each source's line
        if path.exists() and not resume:
            raise AumError(f"{path} holds results of a call that was broken off, or that shall be gone on with",
                           fix="go on with --resume, or remove that file to start again")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "rb+" if path.exists() else "wb+")
            if self._file.seek(0, os.SEEK_END) == 0:
                self._write([header])
            else:
                self._take_up(header)
        except OSError as error:
            raise disk_error(path, error) from error

    def _take_up(self, header: Record) -> None:
        self._file.seek(0)
        try:
            before = json.loads(self._file.readline())
        except ValueError:
            before = {}
        different = [name for name in {**header, **before} if before.get(name) != header.get(name)]
        if different:
            raise AumError(f"{self.path} holds results of another call: {', '.join(different)} differ",
                           fix=f"repeat the call as it was, with --resume and --model {before.get('model')}, or remove that file to start again")
        index = {source.path: i for i, source in enumerate(self.sources)}
        place = kept = self._file.tell()
        group: list[tuple[int, int]] = []
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            record = json.loads(line)
            i = index.get(record["path"])
            if i is not None and stamp(self.sources[i]) == (record["size"], record["mtime_ns"]):
                group.append((i, place))
            place += len(line)
            if record["end"]:
                for i, where in group:
                    self._places[i] = where
                group, kept = [], place
        self._file.truncate(kept)

    def missing(self) -> list[int]:
        """Places of the sources that have no result yet."""
        return [i for i, place in enumerate(self._places) if place < 0]

    def append(self, records: Sequence[Record], places: Sequence[int], stamps: Sequence[tuple[int, int]]) -> None:
        """Add the results of a group of sources, which stand at these places in the list and had these stamps when they were read."""
        stamped = [{**record, "size": size, "mtime_ns": mtime_ns, "end": i == places[-1]}
                   for record, i, (size, mtime_ns) in zip(records, places, stamps, strict=True)]
        try:
            for i, line in zip(places, self._write(stamped)):
                self._places[i] = line
        except OSError as error:
            raise disk_error(self.path, error) from error

    def _write(self, records: Sequence[Record]) -> list[int]:
        """Append lines in one go; where each of them starts."""
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n" for record in records]
        place = self._file.seek(0, os.SEEK_END)
        places = [place := place + len(before) for before in [b"", *lines[:-1]]]
        self._file.write(b"".join(lines))
        self._file.flush()
        return places

    def records(self) -> Iterator[Record]:
        """The results of the sources, in their order."""
        for place in self._places:
            self._file.seek(place)
            record = json.loads(self._file.readline())
            del record["size"], record["mtime_ns"], record["end"]
            yield record

    def close(self, remove: bool) -> None:
        """Close it, and remove it where everything is written elsewhere."""
        self._file.close()
        if remove:
            self.path.unlink()


def part_path(out: Path, rank: int, processes: int) -> Path:
    """Where a process of several leaves its part of the results."""
    return out.with_name(f"{out.name}.part-{rank + 1}-of-{processes}")


def write_part(path: Path, header: Record, records: Iterator[Record]) -> None:
    """Write a process's part: the header and then a record a line; it appears when it is complete."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for record in chain([header], records):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_parts(out: Path) -> tuple[Record, Callable[[], Iterator[Record]], list[Path]]:
    """Join the parts of an output.

    Args:
        out: the output that the processes were given.

    Returns:
        The header, a function that gives the records in the order of the whole list, and the parts.

    Raises:
        AumError: there are no parts, some are missing, or they come from different calls.
    """
    found = list(out.parent.glob(f"{glob.escape(out.name)}.part-*-of-*"))
    counts = {int(path.name.rpartition("-")[2]) for path in found}
    if len(counts) != 1:
        raise AumError(f"there are {'parts of different calls' if counts else 'no parts'} beside {out}",
                       fix="name the --out of the torchrun call" + (", and remove what is left of others" if counts else ""))
    processes = counts.pop()
    paths = [part_path(out, rank, processes) for rank in range(processes)]
    for path in paths:
        if not path.exists():
            raise AumError(f"{path} is missing: that process has not finished",
                           fix="run the same torchrun command with --resume", exit_code=1)
    headers = [json.loads(open(path, encoding="utf-8").readline()) for path in paths]
    if any(header != headers[0] for header in headers):
        raise AumError(f"the parts of {out} were made in different ways", fix="run the same torchrun command for all of them")
    return headers[0], lambda: _interleave(paths), paths


def _interleave(paths: Sequence[Path]) -> Iterator[Record]:
    files = [open(path, encoding="utf-8") for path in paths]
    try:
        for file in files:
            file.readline()
        while True:
            for file in files:
                line = file.readline()
                if not line:
                    return
                yield json.loads(line)
    finally:
        for file in files:
            file.close()


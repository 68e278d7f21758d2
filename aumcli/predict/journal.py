"""The journal beside an output: every result as it comes, so that a break loses nothing and --resume goes on.

Its first line says how the results were made; each further line is one file's record with the file's size and time.
Lines are written a group of files at a time, the group's last marked "end": what stands behind the last mark is dropped
when a journal is taken up, and computed again in the same batches.
"""

import glob
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path

from aumcli.errors import AumError
from aumcli.predict.decoding import stamp
from aumcli.predict.inputs import Source
from aumcli.utils.files import atomic_path, beside, disk_error
from aumcli.utils.lock import LockTaken, open_locked, remove_locked
from aumcli.utils.text import shell_quoted

Record = dict[str, object]
OPTIONS = {
    "model": "--model",
    "device": "--device",
    "window_s": "--window",
    "hop_s": "--hop",
    "smooth": "--smooth",
    "top": "--top",
    "threshold": "--threshold",
    "max_gap_s": "--max-gap",
    "min_duration_s": "--min-duration",
    "batch_size": "--batch",
}  # what the header calls what options say
PART = ".part-{}-of-{}"
LONGEST, LONGEST_JOURNAL = ".part-99999-of-99999", ".journal-99999-of-99999"


class Journal:
    """Results on disk, in any order; given back in the order of the sources.

    Args:
        path: the journal.
        header: how results are made.
        sources: what shall be labelled.
        resume: take up an earlier journal.
        stored: so many windows are in the `WindowStore` beside it, where there is one: results of further ones are done
            again.

    Raises:
        AumError: there is a journal already and `resume` is False, or it was made in another way.
    """

    def __init__(self, path: Path, header: Record, sources: Sequence[Source], resume: bool, stored: int = 0):
        self.path, self.sources, self.notes = path, sources, []  # notes: sentences for the user
        self.windows, self._stored = 0, stored  # windows in the store that earlier results have
        self._places = array("q", [-1]) * len(sources)  # of each source's line
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            number, problem = open_locked(path)
        except LockTaken as error:
            raise AumError(
                f"another call is writing {path}", fix="wait until it has ended, or name another output"
            ) from error
        except OSError as error:
            raise disk_error(path, error) from error
        if problem:
            self.notes.append(f"{path} can't be locked ({problem}): nothing keeps a second call from writing there")
        self._file = os.fdopen(number, "rb+")
        try:
            self._begin(header, resume)
        except OSError as error:
            self.__exit__()
            raise disk_error(path, error) from error
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):  # what a full disk didn't take was told, and is done again
            self._file.close()

    def _begin(self, header: Record, resume: bool) -> None:
        if self._file.seek(0, os.SEEK_END) == 0:
            self._write([header])
        elif resume:
            self._take_up(header)
        else:
            raise AumError(
                f"{self.path} holds results of a call that was broken off, or that shall be gone on with",
                fix=f"go on with --resume; or start again: rm {shell_quoted(self.path)}",
            )

    def _take_up(self, header: Record) -> None:
        self._file.seek(0)
        try:
            before = json.loads(self._file.readline())
            different = [name for name in {**header, **before} if before.get(name) != header.get(name)]
        except (ValueError, TypeError) as error:
            raise AumError(
                f"{self.path} is damaged at its beginning, so nobody knows how its results were made",
                fix=f"start again: rm {shell_quoted(self.path)}",
            ) from error
        if different:
            raise AumError(
                f"{self.path} was made {_difference(different, before, header)}",
                fix=f"repeat the call as it was, with --resume; or start again: rm {shell_quoted(self.path)}",
            )
        index = {source.path: i for i, source in enumerate(self.sources)}
        place = kept = self._file.tell()
        group: list[tuple[int, int]] = []
        windows = 0
        for line in self._file:
            try:
                record = json.loads(line)
                path, stamped, last = record["path"], (record["size"], record["mtime_ns"]), record["end"]
                windows = max(windows, record["first_window"] + record["windows"] if "first_window" in record else 0)
            except (ValueError, TypeError, KeyError):  # cut off; or, after a loss of power, zeros
                if line.endswith(b"\n") or b"\0" in line:
                    self.notes.append(f"{self.path} is damaged from byte {place:,} on: what stood there is done again")
                break
            if not line.endswith(b"\n"):
                break
            if windows > self._stored:
                self.notes.append("the scores of some windows were lost: they are scored again")
                break
            i = index.get(path)
            if i is not None and stamp(self.sources[i]) == stamped:
                group.append((i, place))
            place += len(line)
            if last:
                for i, where in group:
                    self._places[i] = where
                group, kept, self.windows = [], place, windows
        self._file.truncate(kept)

    def missing(self) -> list[int]:
        """Places of the sources that have no result yet."""
        return [i for i, place in enumerate(self._places) if place < 0]

    def append(self, records: Sequence[Record], places: Sequence[int], stamps: Sequence[tuple[int, int]]) -> None:
        """Add the results of a group of sources.

        They stand at these places in the list and had these stamps when they were read.
        """
        stamped = [
            {**record, "size": size, "mtime_ns": mtime_ns, "end": i == places[-1]}
            for record, i, (size, mtime_ns) in zip(records, places, stamps, strict=True)
        ]
        try:
            for i, line in zip(places, self._write(stamped)):
                self._places[i] = line
        except OSError as error:
            raise disk_error(self.path, error) from error

    def _write(self, records: Sequence[Record]) -> list[int]:
        """Append lines in one go; where each of them starts."""
        lines = [_line(record) for record in records]
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

    def remove(self) -> None:
        """Everything is written elsewhere: close the file and remove it."""
        remove_locked(self.path, self._file.close)


def _line(record: Record) -> bytes:
    """A record as a line of JSON; names come back as they are, bytes that aren't UTF-8 included."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def _difference(names: Sequence[str], before: Record, now: Record) -> str:
    """How another call was made, and this one: "with --top 3, this call says 5"."""
    if "weights" in names and "model" not in names:  # by which its windows and thresholds may differ too
        return f"when {before.get('model')} had other weights"
    whole = [values.get("window_s") is None for values in (before, now)]
    if whole[0] != whole[1]:  # then there are other windows, or none
        return f"with{'' if whole[0] else 'out'} --whole"
    said = [
        f"with {OPTIONS[name]} {_value(before[name])}, this call says {_value(now[name])}"
        for name in OPTIONS
        if name in names and name in before and name in now
    ]
    said += [
        f"with{'' if before.get(name) else 'out'} --{name}"
        for name in ("embed", "embed-windows", "scores", "html")
        if name in names
    ]
    if "folder" in names:
        said.append(
            "for {}, this call for {}".format(
                *(f"a folder of {each}" if each else "one file" for each in (before.get("folder"), now.get("folder")))
            )
        )
    return "; ".join(said) or f"under other conditions: {', '.join(names)} differ"  # else these follow from the others


def _value(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, dict):  # for each class
        return "as the model has it"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else shell_quoted(value)


def part_path(out: Path, rank: int, processes: int) -> Path:
    """Where a process of several leaves its part of the results."""
    return beside(out, PART.format(rank + 1, processes), LONGEST)


def journal_path(out: Path, rank: int, processes: int) -> Path:
    """Where the results are while they come, of one process or of one of several."""
    return beside(out, ".journal" + (f"-{rank + 1}-of-{processes}" if processes > 1 else ""), LONGEST_JOURNAL)


def write_part(path: Path, header: Record, records: Iterator[Record]) -> None:
    """Write a process's part: the header and then a record a line; it appears when it is complete."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.writelines(map(_line, chain([header], records)))


def read_parts(out: Path) -> tuple[Record, Callable[[], Iterator[Record]], list[Path]]:
    """Join the parts of an output.

    Args:
        out: the output that the processes were given.

    Returns:
        The header, a function that gives the records in the order of the whole list, and the parts.

    Raises:
        AumError: there are no parts, some are missing, or they come from different calls.
    """
    found = list(out.parent.glob(glob.escape(beside(out, "", LONGEST).name) + PART.format("*", "*")))
    counts = {int(path.name.rpartition("-")[2]) for path in found}
    if len(counts) != 1:
        raise AumError(
            f"there are {'parts of different calls' if counts else 'no parts'} beside {out}",
            fix="name the --out of the torchrun call" + (", and remove what is left of others" if counts else ""),
        )
    processes = counts.pop()
    paths = [part_path(out, rank, processes) for rank in range(processes)]
    for path in paths:
        if not path.exists():
            raise AumError(
                f"{path} is missing: that process has not finished",
                fix="run the same torchrun command with --resume",
                exit_code=1,
            )
    headers = []
    for path in paths:
        with open(path, "rb") as file:
            headers.append(_parsed(path, file.readline()))
    if any(header != headers[0] for header in headers):
        raise AumError(
            f"the parts of {out} were made in different ways", fix="run the same torchrun command for all of them"
        )
    return headers[0], lambda: _interleave(paths), paths


def _parsed(path: Path, line: bytes) -> Record:
    """A line of a part."""
    try:
        return {**json.loads(line)}
    except (ValueError, TypeError) as error:
        raise AumError(
            f"{path} is damaged",
            fix=f"remove it, and run the same torchrun command again: rm {shell_quoted(path)}",
            exit_code=1,
        ) from error


def _interleave(paths: Sequence[Path]) -> Iterator[Record]:
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        for file in files:
            file.readline()
        while True:
            for path, file in zip(paths, files):
                line = file.readline()
                if not line:
                    return
                yield _parsed(path, line)

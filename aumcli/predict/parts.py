"""Parts of an output: what each of several processes leaves of its share of the sounds, and what joins them.

A part is a line that says how and of which list it was made and which blocks of that it has (see
`aumcli.predict.inputs.Share`), and then a result a line, all as JSON. It appears when it is complete.
"""

import glob
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, groupby
from pathlib import Path

from aumcli.errors import AumError
from aumcli.predict.prediction import Record
from aumcli.utils.files import atomic_path, beside
from aumcli.utils.text import shell_quoted

PART = ".part-{}-of-{}"
LONGEST = PART.format(99999, 99999)


def part_path(out: Path, rank: int, processes: int) -> Path:
    """Where a process of several leaves its part of the results."""
    return beside(out, PART.format(rank + 1, processes), LONGEST)


def write_part(path: Path, made: Record, blocks: Sequence[int], records: Iterator[Record]) -> None:
    """Write a process's part.

    Args:
        path: see `part_path`.
        made: how the results were made, and of which list; the same in all parts.
        blocks: the block of each result.
        records: the results.
    """
    sizes = [[block, sum(1 for _ in each)] for block, each in groupby(blocks)]
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.writelines(map(_line, chain([{**made, "blocks": sizes}], records)))


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
            fix="name the --out of the processes" + (", and remove what is left of others" if counts else ""),
        )
    processes = counts.pop()
    paths = [part_path(out, rank, processes) for rank in range(processes)]
    for path in paths:
        if not path.exists():
            raise AumError(
                f"{path} is missing: that process has not finished",
                fix="run that process again, with --resume",
                exit_code=1,
            )
    heads = []
    for path in paths:
        with open(path, "rb") as file:
            heads.append(_parsed(path, file.readline(), ("header", "list", "blocks")))
    if any((head["header"], head["list"]) != (heads[0]["header"], heads[0]["list"]) for head in heads):
        raise AumError(
            f"the parts of {out} were made in different ways, or of different lists of sounds",
            fix="run the same command for all of them",
        )
    order = sorted((block, size, i) for i, head in enumerate(heads) for block, size in head["blocks"])
    return heads[0]["header"], lambda: _in_order(paths, order), paths


def _parsed(path: Path, line: bytes, keys: Sequence[str] = ()) -> Record:
    """A line of a part, which has some keys."""
    try:
        record: Record = {**json.loads(line)}
        _ = [record[key] for key in keys]
        return record
    except (ValueError, TypeError, KeyError) as error:
        raise AumError(
            f"{path} is damaged",
            fix=f"remove it, and run that process again: rm {shell_quoted(path)}",
            exit_code=1,
        ) from error


def _in_order(paths: Sequence[Path], order: Sequence[tuple[int, int, int]]) -> Iterator[Record]:
    """The results of all parts, in the order of the list: of each block its number, its size and which part has it."""
    with ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        for file in files:
            file.readline()
        for _, size, i in order:
            for _ in range(size):
                yield _parsed(paths[i], files[i].readline())


def _line(record: Record) -> bytes:
    """A record as a line of JSON; names come back as they are, bytes that aren't UTF-8 included."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"

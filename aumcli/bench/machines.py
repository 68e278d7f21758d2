"""Results of several machines, joined and compared."""

from collections.abc import Sequence
from pathlib import Path

from aumcli.bench.output import write_results
from aumcli.bench.results import RESULTS, Result, read_results
from aumcli.errors import AumError


def compare(paths: Sequence[Path | str], out: Path | str | None = None) -> list[Result]:
    """Join results of `aum bench --out`.

    Args:
        paths: bench.json files, or folders that hold one.
        out: folder for the joined bench.json, bench.csv, bench.md and bench.png; None: nothing is written.

    Returns:
        A result for each machine.

    Raises:
        AumError: fewer than two results, one can't be read, or `out` is where one of them lies.
    """
    results = [result for path in paths for result in read_results(path)]
    if len(results) < 2:
        raise AumError(
            "there is one result, and nothing to compare it with" if results else "--compare needs files to compare",
            fix="name two files of aum bench --out, or more",
        )
    if out is not None:
        if (Path(out) / RESULTS).exists():
            raise AumError(
                f"{Path(out) / RESULTS} exists: joined results must not replace a machine's own",
                fix="choose another --out",
            )
        write_results(out, results)
    return results

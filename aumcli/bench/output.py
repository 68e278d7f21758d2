"""The files of a benchmark: bench.json, and the table, the page and the picture that are made from it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import Measurement
from aumcli.bench.plot import plot_results
from aumcli.bench.results import RESULTS, Result, as_json, read_results, write_csv
from aumcli.bench.tables import markdown
from aumcli.errors import AumError
from aumcli.report.plots import drawn
from aumcli.utils.files import check_writable, write_json, write_text
from aumcli.utils.logging import get_logger

logger = get_logger(__name__)


def update_results(
    out: Path | str, machine: dict[str, Any], rule: StoppingRule, measurements: Sequence[Measurement]
) -> None:
    """Add measurements to the results in a folder, in the place of older ones of the same configurations.

    All files are written again; with no measurements the folder is only checked.

    Raises:
        AumError: the folder can't be written, or holds results of another machine or version.
    """
    path = Path(out) / RESULTS
    check_writable(path)
    old = read_results(path) if path.is_file() else []
    if any(each.environment != machine for each in old):
        raise AumError(
            f"{path} was measured on another machine, with another version or other threads",
            fix="choose another --out; `aum bench --compare A B` shows both",
        )
    new = {measurement.config for measurement in measurements}
    kept = [each for result in old for each in result.measurements if each.config not in new]
    if measurements:
        write_results(out, [Result(machine, rule, [*kept, *measurements])])


def write_results(out: Path | str, results: Sequence[Result]) -> None:
    """Write bench.json, bench.csv, bench.md and bench.png."""
    out = Path(out)
    write_json(out / RESULTS, as_json(results))
    write_csv(out / "bench.csv", results)
    write_text(out / "bench.md", markdown(results))
    if problem := drawn(plot_results, results, out / "bench.png"):
        logger.warning(problem)


def join_results(paths: Sequence[Path | str], out: Path | str | None = None) -> list[Result]:
    """Join results of several machines.

    Args:
        paths: bench.json files of `aum bench --out`, or folders that hold one.
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

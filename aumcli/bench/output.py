"""The files of a benchmark: bench.json, and the table, the page and the picture that are made from it."""

import logging
from collections.abc import Sequence
from pathlib import Path

from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import Measurement
from aumcli.bench.plot import plot_results
from aumcli.bench.results import RESULTS, Result, as_csv, as_json, read_results
from aumcli.bench.tables import markdown
from aumcli.errors import AumError
from aumcli.report.plots import drawn
from aumcli.utils.files import check_writable, write_json, write_text

logger = logging.getLogger(__name__)


def update(
    out: Path | str | None, machine: dict[str, object], rules: StoppingRule, points: Sequence[Measurement]
) -> None:
    """Add points to the results in a folder, in the place of older ones of the same settings,
    and draw everything again.

    Raises:
        AumError: the folder can't be written, or holds results of another machine or version.
    """
    if out is None:
        return
    path = Path(out) / RESULTS
    check_writable(path)
    old = read_results(path) if path.is_file() else []
    if any(each.environment != machine for each in old):
        raise AumError(
            f"{path} was measured on another machine, with another version or other threads",
            fix="choose another --out; `aum bench --compare A B` shows both",
        )
    new = {point.setting for point in points}
    kept = [point for each in old for point in each.points if point.setting not in new]
    if points:
        write_results(out, [Result(machine, rules, [*kept, *points])])


def write_results(out: Path | str, results: Sequence[Result]) -> None:
    """Write bench.json, bench.csv, bench.md and bench.png."""
    out = Path(out)
    write_json(out / RESULTS, as_json(results))
    write_text(out / "bench.csv", as_csv(results))
    write_text(out / "bench.md", markdown(results))
    if problem := drawn(plot_results, results, out / "bench.png"):
        logger.warning(problem)

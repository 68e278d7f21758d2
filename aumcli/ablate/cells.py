"""The result of an ablation: its cells, and which are best."""

import statistics
from dataclasses import dataclass, field
from pathlib import Path

from aumcli.ablate.grid import value_of
from aumcli.ablate.significance import Comparison
from aumcli.paper import Published


@dataclass(frozen=True)
class Cell:
    """A variant: its overrides, and its score for each seed.

    There are fewer scores than seeds where a run failed or is still to come.
    """

    overrides: tuple[str, ...]
    scores: dict[int, float]
    failures: dict[int, str]
    parameters: int | None = None
    published: Published | None = None  # what the paper reports of it

    @property
    def name(self) -> str:
        """Its values, for people."""
        return ", ".join(map(value_of, self.overrides))

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1 in the denominator); none for a single one."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None


@dataclass
class Ablation:
    """The result of a grid."""

    recipe: str
    overrides: tuple[str, ...]
    axes: list[list[str]]  # "section.key=value" each
    seeds: int
    cells: list[Cell]  # in the grid's order: the last axis runs fastest
    metric: str = ""  # accuracy or mAP; "" before the first result
    machines: list[str] = field(default_factory=list)
    comparison: Comparison | None = None
    split: str = "test"  # that is reported; "reported" where the cells have different ones
    starts: list[str] = field(default_factory=list)  # from which checkpoint each architecture's runs started
    leaks: list[str] = field(default_factory=list)  # what else the reported clips are used for, see `DataConfig.leak`
    table: int = 0  # of the paper, of which this is a corpus; 0: none

    @property
    def failed(self) -> bool:
        """Whether any run failed."""
        return any(cell.failures for cell in self.cells)

    @property
    def has_heat_map(self) -> bool:
        """Whether the cells are drawn: with two axes."""
        return len(self.axes) == 2

    @property
    def score_name(self) -> str:
        """What a score is, such as "test accuracy"."""
        return f"{self.split} {self.metric or 'score'}"

    def published(self, cell: Cell) -> Published | None:
        """What the paper reports of a cell, if it is of the same metric."""
        return cell.published if cell.published and self.metric in ("", cell.published.metric) else None

    @property
    def keys(self) -> list[str]:
        """What each axis changes, without its section."""
        return [axis[0].partition("=")[0].rpartition(".")[2] for axis in self.axes]

    def rows(self) -> list[list[Cell]]:
        """Cells that differ in the last axis alone, together."""
        width = len(self.axes[-1])
        return [self.cells[i : i + width] for i in range(0, len(self.cells), width)]

    def by_first_axis(self) -> list[list[Cell]]:
        """Cells that share their value on the first axis, together."""
        width = len(self.cells) // len(self.axes[0])
        return [self.cells[i : i + width] for i in range(0, len(self.cells), width)]

    def rank(self, cell: Cell) -> int:
        """2 for the best of all cells, 1 for the best of a row, else 0; equals share a rank, a single cell has none."""

        def best(cells: list[Cell]) -> bool:
            means = [each.mean for each in cells if each.mean is not None]
            return len(means) > 1 and cell.mean == max(means)

        row = next(row for row in self.rows() if any(each is cell for each in row))
        return 2 if best(self.cells) else 1 if best(row) else 0


@dataclass
class PaperTable:
    """The result of one of the paper's tables: an ablation for each corpus, with the same rows."""

    number: int
    results: list[Ablation]
    folder: Path  # of its files

    @property
    def failed(self) -> bool:
        """Whether any run failed."""
        return any(result.failed for result in self.results)

    @property
    def has_heat_map(self) -> bool:
        """Whether the cells are drawn."""
        return any(result.has_heat_map for result in self.results)

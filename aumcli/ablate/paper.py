"""The paper's Tables 1 to 4 (Erol et al. 2024, arXiv 2406.03344): their cells as recipes, and what it reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aumcli.config import AudioMambaConfig, NetworkConfig
from aumcli.errors import AumError, did_you_mean

# the columns, in the paper's order
CORPORA = ("audioset", "as20k", "vggsound", "voxceleb1", "speechcommands", "epic_sounds")
WITH_MAP = ("audioset", "as20k")  # the others have accuracies
Figures = tuple[float, float]  # mean and standard deviation, in percent


@dataclass(frozen=True)
class Published:
    """A cell of the paper's tables: mean and standard deviation over three seeds, as shares, of a metric."""

    mean: float
    std: float
    metric: str


@dataclass(frozen=True)
class Row:
    """A row of Table 1, 3 or 4: a corpus' recipe is its name with `variant` behind it."""

    name: str
    variant: str
    figures: Mapping[str, Figures]      # by corpus


def _figures(text: str) -> tuple[Figures, ...]:
    """The figures in "29.10 ± 0.07, 10.41 ± 0.32"."""
    return tuple((float(mean), float(std)) for mean, _, std in (each.split() for each in text.split(",")))


def _row(name: str, variant: str, text: str) -> Row:
    """A row whose last figure is that of the last corpus."""
    figures = _figures(text)
    return Row(name, variant, dict(zip(CORPORA[-len(figures) :], figures)))


TABLES: dict[int, tuple[Row, ...]] = {
    1: (
        _row("AST-B/16", "-ast", "29.10 ± 0.07, 10.41 ± 0.32, 37.25 ± 0.31, 22.44 ± 0.19, 85.27 ± 1.07, 44.76 ± 0.20"),
        _row("AuM-B/16", "", "32.43 ± 0.31, 13.28 ± 1.07, 42.58 ± 0.28, 28.34 ± 3.38, 91.58 ± 3.17, 44.17 ± 0.58"),
    ),
    3: (
        _row(
            "AST-S", "-ast-small-imagenet",
            "40.32 ± 0.08, 29.20 ± 0.11, 49.51 ± 0.06, 39.70 ± 1.83, 97.38 ± 0.07, 52.42 ± 0.11",
        ),
        _row(
            "AuM-S (c)", "-small-imagenet",
            "39.68 ± 0.06, 28.89 ± 0.20, 49.43 ± 0.18, 40.58 ± 1.11, 97.51 ± 0.08, 52.90 ± 0.40",
        ),
    ),
    4: (
        _row("AST-B/16", "-ast-from-audioset", "44.17 ± 0.14, 46.25 ± 1.08, 90.37 ± 0.06, 46.62 ± 0.04"),
        _row("AuM-B/16", "-from-audioset", "46.61 ± 0.18, 40.72 ± 1.11, 94.78 ± 0.04, 48.18 ± 0.13"),
    ),
}

GRID, DIRECTION, POSITION = 2, "model.direction", "model.cls_position"  # Table 2 and its two axes
POSITIONS = ("head", "mid", "end")
TABLE_2: dict[str, dict[str, tuple[Figures, ...]]] = {  # corpus, direction, a figure for each position
    "as20k": {
        "Fo-Fo": _figures("0.48 ± 0.00, 11.73 ± 0.47, 11.90 ± 1.05"),
        "Fo-Bi": _figures("13.57 ± 0.09, 13.81 ± 0.32, 12.35 ± 0.33"),
        "Bi-Bi": _figures("4.97 ± 0.13, 9.69 ± 0.43, 11.11 ± 0.66"),
    },
    "vggsound": {
        "Fo-Fo": _figures("0.33 ± 0.00, 35.05 ± 0.80, 39.09 ± 0.56"),
        "Fo-Bi": _figures("40.91 ± 0.47, 42.58 ± 0.28, 40.41 ± 0.15"),
        "Bi-Bi": _figures("34.22 ± 0.26, 36.48 ± 0.46, 41.09 ± 0.16"),
    },
}


def corpora_of(number: int) -> tuple[str, ...]:
    """The corpora of a table, in its order."""
    return tuple(TABLE_2) if number == GRID else tuple(TABLES[number][0].figures)


def rows_of(number: int) -> tuple[str, ...]:
    """The names of a table's rows, in its order."""
    return tuple(TABLE_2["as20k"]) if number == GRID else tuple(row.name for row in TABLES[number])


def published_row(row: Row, corpus: str) -> Published:
    """What the paper reports of a row of Table 1, 3 or 4 on a corpus."""
    return _published(row.figures[corpus], corpus)


def published_cell(recipe: str, variant: Sequence[str], model: NetworkConfig) -> Published | None:
    """What the paper's Table 2 reports of a cell of a grid; None where it isn't one of its cells.

    Args:
        recipe: the recipe of the whole grid.
        variant: what the grid changes, "section.key=value" each.
        model: the cell's.
    """
    changed = {text.partition("=")[0] for text in variant}
    if recipe not in TABLE_2 or not changed <= {DIRECTION, POSITION} or not isinstance(model, AudioMambaConfig):
        return None
    return _published(TABLE_2[recipe][model.direction][POSITIONS.index(model.cls_position)], recipe)


def chosen(option: str, names: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """The given ones of the known names, in the latters' order; all where none is given.

    Raises:
        AumError: one is not known.
    """
    for name in names:
        if name not in known:
            raise AumError(
                f"{option}: {where} has no {name!r}", fix=f"{did_you_mean(name, known)}it has: {', '.join(known)}"
            )
    return tuple(name for name in known if not names or name in names)


def _published(figures: Figures, corpus: str) -> Published:
    mean, std = (round(value / 100, 4) for value in figures)
    return Published(mean, std, "mAP" if corpus in WITH_MAP else "accuracy")

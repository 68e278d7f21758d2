"""The paper's tables and figure (Erol et al. 2024, arXiv 2406.03344): their cells as recipes, and its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aumcli.config import AudioMambaConfig, NetworkConfig
from aumcli.errors import AumError, did_you_mean

# the columns, in the paper's order
CORPORA = ("audioset", "as20k", "vggsound", "voxceleb1", "speechcommands", "epic_sounds")
WITH_MAP = ("audioset", "as20k")  # the others have accuracies
Figures = tuple[float, float]  # mean and standard deviation, in percent
TITLES = {
    "table1": "AST and AuM base models from scratch",
    "table2": "directions of convolution and scan, by the place of the class token",
    "table3": "AST and AuM small models from ImageNet",
    "table4": "AST and AuM base models from AudioSet",
    "table5": "how all of these are trained",
    "figure2": "time and memory of AST and AuM, by number of tokens",
}


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
    figures: Mapping[str, Figures]  # by corpus


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
            "AST-S",
            "-ast-small-imagenet",
            "40.32 ± 0.08, 29.20 ± 0.11, 49.51 ± 0.06, 39.70 ± 1.83, 97.38 ± 0.07, 52.42 ± 0.11",
        ),
        _row(
            "AuM-S (c)",
            "-small-imagenet",
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

INITS = {  # table, architecture: what its runs start from, as docs/paper.md calls the files
    3: {"aum": "vim_s_midclstok_80p5acc.pth", "ast": "deit_small_patch16_224.safetensors"},
    4: {"aum": "ablations/table-1/audioset/seed-0", "ast": "ablations/table-1/audioset-ast/seed-0"},
}


def _expand(text: str) -> tuple[str, ...]:
    """The cells of a row of Table 5, each of which may stand for several columns: "12 x6"."""
    cells = [cell.strip().partition(" x") for cell in text.split(",")]
    return tuple(value for value, _, times in cells for _ in range(int(times or 1)))


TABLE_5: dict[str, tuple[str, ...]] = {  # what the paper says, by corpus
    "batch size": _expand("12 x6"),
    "loss": _expand("BCE x3, CE x3"),
    "balanced sampling": _expand("Yes, No x5"),
    "warm-up": _expand("1000 steps x5, 2 Epochs"),
    "spectrogram": _expand("128x1024 x3, 128x128 x2, 128x1024"),
    "SpecAug": _expand("48 / 192 x3, 48 / 48 x2, 48 / 192"),
    "mixup": _expand("0.5 x2, 0 x2, 0.6 x2"),
    "epochs": _expand("5, 25, 20 x2, 30 x2"),
    "decay": _expand("2 / 1 / 0.5, 10 / 5 / 0.5, 5 / 2 / 0.75 x2, 5 / 1 / 0.85, LambdaLR*"),
    "mean": _expand("-4.268 x2, 5.077, -3.761, -6.846,"),
    "std": _expand("4.569 x2, 4.453, 4.201, 5.565,"),
    "rate": _expand("1e-5, 5e-5, 1e-5 x2, 2.5e-4 x2"),
}
FIGURE_2 = (  # what the text says of it (section 3.3); the figure has no numbers
    "in training, AuM-B at 1024 tokens (20 s) takes as little memory as AST-S",
    "in training, AuM-B goes up to 80 s; AST-B is out of memory at 20 s, on an A6000",
    "in inference, AuM is 1.6 times as fast as AST at 4096 tokens",
)


@dataclass(frozen=True)
class PaperCell:
    """A cell of Tables 1 to 4: the recipe that reproduces it, the overrides on top, and what the paper reports."""

    row: str
    corpus: str
    recipe: str
    overrides: tuple[str, ...]
    published: Published


def cells_of(number: int) -> list[PaperCell]:
    """The cells of one of Tables 1 to 4, row by row."""
    if number == GRID:
        return [
            PaperCell(
                row, corpus, corpus, (f"{DIRECTION}={row}", f"{POSITION}={position}"), _published(figures, corpus)
            )
            for corpus, rows in TABLE_2.items()
            for row, cells in rows.items()
            for position, figures in zip(POSITIONS, cells)
        ]
    return [
        PaperCell(row.name, corpus, f"{corpus}{row.variant}", (), published_row(row, corpus))
        for row in TABLES[number]
        for corpus in row.figures
    ]


def architecture_of(number: int, row: str) -> str:
    """The architecture of a table's row: aum or ast."""
    variants = {each.name: each.variant for each in TABLES.get(number, ())}
    return "ast" if variants.get(row, "").startswith("-ast") else "aum"


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
        recipe: of the grid.
        variant: what the grid changes, "section.key=value" each.
        model: the cell's.
    """
    changed = {text.partition("=")[0] for text in variant}
    if recipe not in TABLE_2 or not changed <= {DIRECTION, POSITION} or not isinstance(model, AudioMambaConfig):
        return None
    return _published(TABLE_2[recipe][model.direction][POSITIONS.index(model.cls_position)], recipe)


def chosen(option: str, names: Sequence[str], known: Sequence[str], where: str) -> tuple[str, ...]:
    """Those of the known names that are given, in the order of the known ones; all where none is given.

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

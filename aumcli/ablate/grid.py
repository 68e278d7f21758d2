"""What to train: the runs of a grid, of architectures with equally many parameters, and of the paper's tables."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli import paper
from aumcli.config import ARCHITECTURES
from aumcli.core import count_parameters
from aumcli.errors import AumError
from aumcli.paper import Published
from aumcli.recipe import Recipe, load_recipe

TABLE_2 = (f"{paper.DIRECTION}=Fo-Fo,Fo-Bi,Bi-Bi", f"{paper.POSITION}=head,mid,end")  # the paper's
ARCHITECTURE, MLP_WIDTH = "model.architecture", "model.mlp_width"


@dataclass(frozen=True)
class Run:
    """A variant with a seed."""

    variant: tuple[str, ...]  # its value on each axis, "key=value" each
    seed: int
    recipe: Recipe
    folder: Path
    data: Path | None  # prepared; None: the recipe's corpus
    published: Published | None  # what the paper reports of it

    @property
    def name(self) -> str:
        """Variant and seed, for people."""
        return f"{', '.join(map(value_of, self.variant))}, seed {self.seed}"


@dataclass(frozen=True)
class Grid:
    """The runs of an ablation: every combination of the axes' values, with every seed."""

    recipe: str
    overrides: tuple[str, ...]  # of all variants
    axes: list[list[str]]  # "key=value" each
    seeds: int
    variants: list[list[Run]]  # the runs of each variant; the last axis runs fastest
    folder: Path  # of the results
    table: int = 0  # of the paper, of which this is a corpus; 0: none

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for variant in self.variants for run in variant]

    @property
    def prefix(self) -> str:
        """The corpus, in front of a variant's name, where the grid is one of several."""
        return f"{self.recipe}, " if self.table else ""


@dataclass(frozen=True)
class Shared:
    """What all runs of an ablation have in common.

    Args:
        seeds: runs per variant, with the seeds 0, 1, ...
        overrides: "section.key=value" for all.
        init: the checkpoint that each architecture's runs start from.
    """

    seeds: int
    overrides: tuple[str, ...] = ()
    init: Mapping[str, str] | None = None


def value_of(override: str) -> str:
    """The value in "section.key=value"."""
    return override.partition("=")[2]


def parse_axes(grid: Sequence[str], models: Sequence[str] = ()) -> list[list[str]]:
    """The overrides on each axis, "section.key=value" each; the architectures, where they are compared, come first.

    Raises:
        AumError: an axis is not key=value,value.
    """
    return [_parse_axis(text) for text in ([f"{ARCHITECTURE}={','.join(models)}"] if models else []) + list(grid)]


def _parse_axis(text: str) -> list[str]:
    key, equals, values = text.partition("=")
    if not equals or not all(value.strip() for value in values.split(",")):
        raise AumError(
            f"--grid {text} is not key=value,value", fix="write for example --grid model.cls_position=head,mid,end"
        )
    return [f"{key.strip()}={value.strip()}" for value in values.split(",")]


def parse_init(init: Sequence[str]) -> dict[str, str]:
    """The checkpoint that each architecture's runs start from.

    Args:
        init: "aum=PATH" or "ast=PATH" each.

    Raises:
        AumError: one is neither, or not there.
    """
    from aumcli.checkpoints.lookup import checkpoint_path

    checkpoints = {}
    for text in init:
        architecture, equals, path = text.partition("=")
        if not equals or architecture not in ARCHITECTURES:
            raise AumError(
                f"--init {text} is not ARCHITECTURE=PATH", fix="write for example --init aum=PATH --init ast=PATH"
            )
        if not Path(checkpoint_path(path)).exists():
            raise AumError(f"--init {text}: there is no such file or folder", fix="name a checkpoint, a run or a model")
        checkpoints[architecture] = path
    return checkpoints


def make_grid(
    recipe: str,
    folder: Path,
    data: Path | None,
    axes: list[list[str]],
    shared: Shared,
    match_parameters: bool = False,
    table: int = 0,
) -> Grid:
    """The runs of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        folder: a variant's runs go to folder/<its values joined by _>/seed-N.
        data: prepared data; None: the recipe's corpus.
        axes: see `parse_axes`.
        shared: seeds, overrides and checkpoints of all runs.
        match_parameters: give an AST's MLP the width at which it has as many parameters as the AuM in its place.
        table: of the paper; 0: none.

    Raises:
        AumError: a mistake in the grid or the recipe.
    """
    variants = []
    for variant in itertools.product(*axes):
        overrides = [*shared.overrides, *variant]
        has_width = any(text.startswith(f"{MLP_WIDTH}=") for text in overrides)
        if match_parameters and f"{ARCHITECTURE}=ast" in variant and not has_width:
            overrides.append(f"{MLP_WIDTH}={matched_mlp_width(recipe, overrides)}")
        runs_folder = folder / "_".join(map(value_of, variant)).replace("/", "-")  # a value can be a path
        published = paper.published_cell(recipe, variant, load_recipe(recipe, overrides).model)
        variants.append(_runs(variant, recipe, overrides, runs_folder, data, shared, published))
    return Grid(recipe, shared.overrides, axes, shared.seeds, variants, folder, table)


def table_grids(
    number: int, folder: Path, data: Path, corpora: Sequence[str], rows: Sequence[str], shared: Shared
) -> list[Grid]:
    """The runs of one of the paper's tables, a grid for each corpus.

    Args:
        number: 1 to 4.
        folder: the runs go to folder/<recipe>/seed-N, of Table 2 to folder/<corpus>/<direction>_<position>/seed-N.
        data: the folder that holds the prepared corpora.
        corpora, rows: those wanted.
        shared: seeds, overrides and checkpoints of all runs.

    Raises:
        AumError: a mistake in an override.
    """
    if number == paper.GRID:
        axes = parse_axes([f"{paper.DIRECTION}={','.join(rows)}", TABLE_2[1]])
        return [make_grid(corpus, folder / corpus, data / corpus, axes, shared, table=number) for corpus in corpora]
    wanted = [row for row in paper.TABLES[number] if row.name in rows]
    axes = [[f"model={row.name}" for row in wanted]]
    grids = []
    for corpus in corpora:
        variants = []
        for row in wanted:
            recipe, published = corpus + row.variant, paper.published_row(row, corpus)
            variant = (f"model={row.name}",)
            variants.append(_runs(variant, recipe, shared.overrides, folder / recipe, data / corpus, shared, published))
        grids.append(Grid(corpus, shared.overrides, axes, shared.seeds, variants, folder, number))
    return grids


def _runs(
    variant: tuple[str, ...],
    recipe: str,
    overrides: Sequence[str],
    folder: Path,
    data: Path | None,
    shared: Shared,
    published: Published | None,
) -> list[Run]:
    """A variant's runs."""
    checkpoint = (shared.init or {}).get(load_recipe(recipe, [*overrides]).model.architecture)
    texts = [*overrides, *([f"train.init={json.dumps(checkpoint)}"] if checkpoint else [])]
    return [
        Run(variant, seed, load_recipe(recipe, [*texts, f"seed={seed}"]), folder / f"seed-{seed}", data, published)
        for seed in range(shared.seeds)
    ]


def matched_mlp_width(recipe: str, overrides: Sequence[str]) -> int:
    """The width of an AST's MLP at which it has as many parameters as the AuM of the same recipe, or nearly so.

    Classes and length, which only the data determine, count the same in both.
    """
    as_aum = [f"{ARCHITECTURE}=aum" if text == f"{ARCHITECTURE}=ast" else text for text in overrides]
    wanted = count_parameters(load_recipe(recipe, as_aum).model)
    one, two = (count_parameters(load_recipe(recipe, [*overrides, f"{MLP_WIDTH}={width}"]).model) for width in (1, 2))
    return 1 + round((wanted - one) / (two - one))

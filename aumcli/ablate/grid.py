"""What to train: the variants of a grid, architectures of equal parameters, and the cells of the paper's tables."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aumcli import paper
from aumcli.config import ARCHITECTURES, NetworkConfig
from aumcli.errors import AumError
from aumcli.paper import Published
from aumcli.recipe import Recipe, load_recipe

TABLE_2 = (f"{paper.DIRECTION}=Fo-Fo,Fo-Bi,Bi-Bi", f"{paper.POSITION}=head,mid,end")  # the paper's
ARCHITECTURE, WIDTH = "model.architecture", "model.mlp_width"


@dataclass(frozen=True)
class Plan:
    """One run: a variant with a seed."""

    variant: tuple[str, ...]  # its value on each axis, "key=value" each
    seed: int
    recipe: Recipe
    folder: Path
    data: Path | None  # prepared; None: the recipe's corpus
    published: Published | None  # what the paper reports of it

    @property
    def name(self) -> str:
        """The variant and the seed, for people."""
        return f"{', '.join(map(value_of, self.variant))}, seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """What an ablation is to train."""

    recipe: str
    overrides: tuple[str, ...]  # of all cells
    axes: list[list[str]]  # "key=value" each
    seeds: int
    plans: list[list[Plan]]  # the runs of each variant, in the grid's order
    table: int = 0  # of the paper; 0: none

    @property
    def runs(self) -> list[Plan]:
        """All runs."""
        return [plan for variant in self.plans for plan in variant]


def value_of(override: str) -> str:
    """The value in "section.key=value"."""
    return override.partition("=")[2]


def axes_of(grid: Sequence[str], models: Sequence[str] = ()) -> list[list[str]]:
    """The overrides on each axis, "section.key=value" each; the architectures, where they are compared, come first."""
    return [_axis(text) for text in ([f"{ARCHITECTURE}={','.join(models)}"] if models else []) + list(grid)]


def starts_of(init: Sequence[str]) -> dict[str, str]:
    """The checkpoint that each architecture's runs start from.

    Args:
        init: "aum=PATH" or "ast=PATH" each.

    Raises:
        AumError: one is neither, or not there.
    """
    from aumcli.checkpoints.lookup import checkpoint_path

    starts = {}
    for text in init:
        architecture, equals, path = text.partition("=")
        if not equals or architecture not in ARCHITECTURES:
            raise AumError(
                f"--init {text} is not ARCHITECTURE=PATH", fix="write for example --init aum=PATH --init ast=PATH"
            )
        if not Path(checkpoint_path(path)).exists():
            raise AumError(f"--init {text}: there is no such file or folder", fix="name a checkpoint, a run or a model")
        starts[architecture] = path
    return starts


def grid_study(
    recipe: str,
    out: Path,
    data: Path | None,
    axes: list[list[str]],
    seeds: int,
    overrides: Sequence[str],
    equal: bool,
    starts: Mapping[str, str],
    table: int = 0,
) -> Study:
    """The runs of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        out: a variant's runs go to out/<its values joined by _>/seed-N.
        data: prepared data; None: the recipe's corpus.
        axes: see `axes_of`.
        seeds: runs per variant, with the seeds 0, 1, ...
        overrides: "section.key=value" for all.
        equal: give an AST's perceptron the width at which it has as many parameters as the AuM in its place.
        starts: see `starts_of`.
        table: of the paper; 0: none.

    Raises:
        AumError: a mistake in the grid or the recipe.
    """
    plans = []
    for variant in itertools.product(*axes):
        texts = [*overrides, *variant]
        if equal and f"{ARCHITECTURE}=ast" in variant and not any(text.startswith(f"{WIDTH}=") for text in texts):
            texts.append(f"{WIDTH}={equal_width(recipe, texts)}")
        folder = out / "_".join(map(value_of, variant)).replace("/", "-")  # a value can be a path
        published = paper.published_cell(recipe, variant, load_recipe(recipe, texts).model)
        plans.append(_runs(variant, recipe, texts, folder, data, seeds, starts, published))
    return Study(recipe, tuple(overrides), axes, seeds, plans, table)


def table_studies(
    number: int,
    out: Path,
    data: Path,
    corpora: Sequence[str],
    rows: Sequence[str],
    seeds: int,
    overrides: Sequence[str],
    starts: Mapping[str, str],
) -> list[Study]:
    """The runs of one of the paper's tables, a study for each corpus.

    Args:
        number: 1 to 4.
        out: the runs go to out/<recipe>/seed-N, those of Table 2 to out/<corpus>/<direction>_<position>/seed-N.
        data: the folder that holds the prepared corpora.
        corpora, rows: those wanted.
        seeds, overrides, starts: see `grid_study`.

    Raises:
        AumError: a mistake in an override.
    """
    if number == paper.GRID:
        axes = axes_of([f"{paper.DIRECTION}={','.join(rows)}", TABLE_2[1]])
        return [
            grid_study(corpus, out / corpus, data / corpus, axes, seeds, overrides, False, starts, number)
            for corpus in corpora
        ]
    studies, wanted = [], [row for row in paper.TABLES[number] if row.name in rows]
    for corpus in corpora:
        plans = []
        for row in wanted:
            recipe = corpus + row.variant
            published = paper.published_row(row, corpus)
            plans.append(
                _runs((f"model={row.name}",), recipe, overrides, out / recipe, data / corpus, seeds, starts, published)
            )
        studies.append(Study(corpus, tuple(overrides), [[f"model={row.name}" for row in wanted]], seeds, plans, number))
    return studies


def _runs(
    variant: tuple[str, ...],
    recipe: str,
    overrides: Sequence[str],
    folder: Path,
    data: Path | None,
    seeds: int,
    starts: Mapping[str, str],
    published: Published | None,
) -> list[Plan]:
    """A variant's runs."""
    start = starts.get(load_recipe(recipe, [*overrides]).model.architecture)
    texts = [*overrides, *([f"train.init={json.dumps(start)}"] if start else [])]
    return [
        Plan(variant, seed, load_recipe(recipe, [*texts, f"seed={seed}"]), folder / f"seed-{seed}", data, published)
        for seed in range(seeds)
    ]


def equal_width(recipe: str, overrides: Sequence[str]) -> int:
    """Width of an AST's perceptron with which it has as many parameters as the AuM of the same recipe,
    as nearly as can be.

    Classes and length, which only the data tell, count alike in both.
    """
    aum = load_recipe(
        recipe, [f"{ARCHITECTURE}=aum" if text == f"{ARCHITECTURE}=ast" else text for text in overrides]
    ).model
    one, two = (load_recipe(recipe, [*overrides, f"{WIDTH}={width}"]).model for width in (1, 2))
    least = count_parameters(one)
    return 1 + round((count_parameters(aum) - least) / (count_parameters(two) - least))


@cache
def count_parameters(config: NetworkConfig) -> int:
    """Parameters of the network that a configuration describes."""
    import torch

    from aumcli.core import build_network

    with torch.device("meta"):  # shapes without numbers
        return sum(x.numel() for x in build_network(config).parameters())


def _axis(text: str) -> list[str]:
    key, equals, values = text.partition("=")
    if not equals or not all(value.strip() for value in values.split(",")):
        raise AumError(
            f"--grid {text} is not key=value,value", fix="write for example --grid model.cls_position=head,mid,end"
        )
    return [f"{key.strip()}={value.strip()}" for value in values.split(",")]

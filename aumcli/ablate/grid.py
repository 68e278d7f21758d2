"""What to train: the variants of a grid, and architectures made equal in parameters."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli.config import NetworkConfig
from aumcli.errors import AumError
from aumcli.recipe import Recipe, load_recipe

TABLE_2 = ("model.direction=Fo-Fo,Fo-Bi,Bi-Bi", "model.cls_position=head,mid,end")  # the paper's
ARCHITECTURE, WIDTH = "model.architecture", "model.mlp_width"


@dataclass(frozen=True)
class Plan:
    """One run: a variant with a seed."""

    variant: tuple[str, ...]     # "section.key=value" on each axis
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        """The variant and the seed, for people."""
        return f"{', '.join(value_of(text) for text in self.variant)}, seed {self.seed}"


def value_of(override: str) -> str:
    """The value in "section.key=value"."""
    return override.partition("=")[2]


def axes_of(grid: Sequence[str], models: Sequence[str] = ()) -> list[list[str]]:
    """The overrides on each axis, "section.key=value" each; the architectures, where they are compared, come first."""
    return [_axis(text) for text in ([f"{ARCHITECTURE}={','.join(models)}"] if models else []) + list(grid)]


def make_plans(recipe: str, out: Path, axes: Sequence[Sequence[str]], seeds: int, overrides: Sequence[str], equal: bool) -> list[list[Plan]]:
    """The runs of each variant, in the grid's order.

    Args:
        recipe: a recipe's name or .toml file.
        out: a variant's runs go to out/<its values joined by _>/seed-N.
        axes: see `axes_of`.
        seeds: runs per variant, with the seeds 0, 1, ...
        overrides: "section.key=value" for all.
        equal: give an AST's perceptron the width at which it has as many parameters as the AuM in its place.

    Raises:
        AumError: a mistake in the grid or the recipe.
    """
    plans = []
    for variant in itertools.product(*axes):
        texts = [*overrides, *variant]
        if equal and f"{ARCHITECTURE}=ast" in variant and not any(text.startswith(f"{WIDTH}=") for text in texts):
            texts.append(f"{WIDTH}={equal_width(recipe, texts)}")
        folder = out / "_".join(map(value_of, variant))
        plans.append([Plan(variant, seed, load_recipe(recipe, [*texts, f"seed={seed}"]), folder / f"seed-{seed}") for seed in range(seeds)])
    return plans


def equal_width(recipe: str, overrides: Sequence[str]) -> int:
    """Width of an AST's perceptron with which it has as many parameters as the AuM of the same recipe, as nearly as can be.

    Classes and length, which only the data tell, count alike in both.
    """
    aum = load_recipe(recipe, [f"{ARCHITECTURE}=aum" if text == f"{ARCHITECTURE}=ast" else text for text in overrides]).model
    one, two = (load_recipe(recipe, [*overrides, f"{WIDTH}={width}"]).model for width in (1, 2))
    least = count_parameters(one)
    return 1 + round((count_parameters(aum) - least) / (count_parameters(two) - least))


def count_parameters(config: NetworkConfig) -> int:
    """Parameters of the network that a configuration describes."""
    import torch

    from aumcli.core import build_network

    with torch.device("meta"):      # shapes without numbers
        return sum(x.numel() for x in build_network(config).parameters())


def _axis(text: str) -> list[str]:
    key, equals, values = text.partition("=")
    if not equals or not all(value.strip() for value in values.split(",")):
        raise AumError(f"--grid {text} is not key=value,value", fix="write for example --grid model.cls_position=head,mid,end")
    return [f"{key.strip()}={value.strip()}" for value in values.split(",")]

"""aum ablate: a grid of variants and seeds under one recipe, each cell an ordinary run folder."""

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.files import write_json, write_text
from aumcli.recipe import dump_recipe, load_recipe
from aumcli.report import markdown_table
from aumcli.train import train

TABLE_2 = ("model.direction=Fo-Fo,Fo-Bi,Bi-Bi", "model.cls_position=head,mid,end")  # the paper's
RESULT = "ablation.json"


@dataclass(frozen=True)
class Cell:
    """One variant: its overrides, and its score for each seed (fewer than asked for where a run failed)."""

    overrides: tuple[str, ...]
    scores: dict[int, float]
    failures: dict[int, str]

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1 in the denominator); none for a single one."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None


def ablate(recipe: str, out: Path | str, data: Path | str | None = None, grid: Sequence[str] = TABLE_2, seeds: int = 3,
           overrides: Sequence[str] = (), device: str = "cpu", say=print) -> list[Cell]:
    """Train and test every variant of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        out: folder for a run per cell and seed, ablation.json and ablation.md. Finished runs in it are kept, begun
            ones are resumed, failed ones are tried again.
        data: prepared data; None: the recipe's corpus.
        grid: "section.key=value,value" for each axis.
        seeds: runs per cell, with the seeds 0, 1, ...
        overrides: "section.key=value" for all cells.
        device: where to compute.
        say: is given lines of text.

    Returns:
        The cells in the grid's order. A score is the accuracy on the test split, or the mAP of data with several labels.

    Raises:
        AumError: a mistake in the grid or the recipe, before anything is trained; or `out` holds runs of another recipe.
    """
    out, cells = Path(out), []
    variants = list(itertools.product(*map(_axis, grid)))
    plans = [[load_recipe(recipe, [*overrides, *variant, f"seed={seed}"]) for seed in range(seeds)] for variant in variants]
    for number, (variant, plan) in enumerate(zip(variants, plans)):
        scores: dict[int, float] = {}
        failures: dict[int, str] = {}
        for seed, loaded in enumerate(plan):
            folder = out / "_".join(text.partition("=")[2] for text in variant) / f"seed-{seed}"
            say(f"cell {number + 1} of {len(variants)}, seed {seed}: {', '.join(variant)}")
            try:
                scores[seed] = _score(folder, loaded, data, device, say)
            except AumError as error:
                failures[seed] = error.problem
                say(f"failed: {error.problem}")
        cells.append(Cell(variant, scores, failures))
        write_json(out / RESULT, {"schema": 1, "recipe": recipe, "overrides": list(overrides), "grid": list(grid), "seeds": seeds,
                                  "cells": [_as_json(cell) for cell in cells]})
        write_text(out / "ablation.md", markdown_table(*table(cells)))
    return cells


def table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a row per cell, mean and standard deviation over the seeds in percent."""
    best = max((cell.mean for cell in cells if cell.mean is not None), default=None)
    keys = [text.partition("=")[0].rpartition(".")[2] for text in cells[0].overrides]
    rows = []
    for cell in cells:
        score = "-" if cell.mean is None else f"{100 * cell.mean:.2f}" + ("" if cell.std is None else f" ± {100 * cell.std:.2f}")
        rows.append([*(text.partition("=")[2] for text in cell.overrides), f"{score} *" if cell.mean == best else score,
                     str(len(cell.scores)), "; ".join(sorted(set(cell.failures.values()))) or "-"])
    return [*keys, "test score (%), * best", "seeds", "failed"], rows


def _axis(text: str) -> list[str]:
    key, equals, values = text.partition("=")
    if not equals or not all(value.strip() for value in values.split(",")):
        raise AumError(f"--grid {text} is not key=value,value", fix="write for example --grid model.cls_position=head,mid,end")
    return [f"{key.strip()}={value.strip()}" for value in values.split(",")]


def _score(folder: Path, recipe, data: Path | str | None, device: str, say) -> float:
    """The test score of one run: read where it is finished, else trained or resumed first."""
    planned, asked = folder / "planned.toml", dump_recipe(recipe)      # before it is fitted to the data
    if planned.is_file() and planned.read_text(encoding="utf-8") != asked:
        raise AumError(f"{folder} holds a run of another recipe", fix="choose another --out, or remove that folder")
    result = folder / "eval-test.json"
    if not result.is_file():
        write_text(planned, asked)
        if not (folder / "report.json").is_file():
            train(recipe, folder, data, resume=(folder / "last" / "state.pt").is_file(), device=device, say=say)
        evaluate(folder, data, "test", folder, device)
    figures = json.loads(result.read_text(encoding="utf-8"))["metrics"]
    return figures["mean_average_precision" if figures["multi_label"] else "accuracy"]


def _as_json(cell: Cell) -> dict[str, object]:
    return {"overrides": list(cell.overrides), "scores": {str(seed): score for seed, score in cell.scores.items()},
            "mean": cell.mean, "std": cell.std, "failures": {str(seed): text for seed, text in cell.failures.items()}}

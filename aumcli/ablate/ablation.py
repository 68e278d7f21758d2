"""The ablation: plan the runs, do what isn't done, and write what is known after each."""

from collections.abc import Sequence
from pathlib import Path

from aumcli.ablate.cells import Ablation, Cell
from aumcli.ablate.grid import TABLE_2, Plan, axes_of, count_parameters, make_plans, value_of
from aumcli.ablate.runs import jobs_for, read_score, run_plans
from aumcli.ablate.significance import compare
from aumcli.ablate.tables import write_ablation
from aumcli.config import ARCHITECTURES
from aumcli.data.splits import open_corpus
from aumcli.errors import AumError
from aumcli.evaluate import SCORES, read_scores
from aumcli.files import read_json
from aumcli.weights import read_config


def ablate(recipe: str, out: Path | str, data: Path | str | None = None, grid: Sequence[str] = TABLE_2, seeds: int = 3,
           overrides: Sequence[str] = (), device: str = "cpu", models: Sequence[str] = (), jobs: int | None = None,
           threads: int = 1, say=print) -> Ablation:
    """Train and test every variant of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        out: folder for a run per cell and seed, and for ablation.md, .json, .csv, .tex and, with two axes, .png. Finished
            runs in it are kept, begun ones are resumed, failed ones are tried again.
        data: prepared data; None: the recipe's corpus.
        grid: "section.key=value,value" for each axis.
        seeds: runs per cell, with the seeds 0, 1, ...
        overrides: "section.key=value" for all cells.
        device: where to compute.
        models: architectures to compare with equal parameters, as a first axis: "aum", "ast".
        jobs: runs at a time; None: what keeps the processors busy, on a GPU one.
        threads: of each run, however many run at a time, so that `jobs` changes no result.
        say: is given lines of text.

    Returns:
        The cells in the grid's order, with a comparison where there is one axis of two values. A score is the accuracy on
        the test split, or the mAP of data with several labels.

    Raises:
        AumError: a mistake in the grid or the recipe, before anything is trained.
    """
    if unknown := [each for each in models if each not in ARCHITECTURES]:
        raise AumError(f"--models: there is no architecture {unknown[0]!r}", fix=f"choose among: {', '.join(ARCHITECTURES)}")
    out, axes = Path(out), axes_of(grid, models)
    plans = make_plans(recipe, out, axes, seeds, overrides, equal=len(models) > 1)
    flat = [plan for variant in plans for plan in variant]
    for loaded in {plan.recipe.data.corpus: plan.recipe for plan in flat}.values():
        open_corpus(loaded, data)   # a mistake that all runs share is said once, before any
    failures: dict[Path, str] = {}
    done = 0
    for plan, failure in run_plans(flat, data, device, jobs or jobs_for(device, threads, len(flat)), threads, say):
        done += 1
        failures[plan.folder] = failure
        result = _collect(recipe, overrides, axes, seeds, plans, failures)
        write_ablation(result, out)
        say(f"{done} of {len(flat)}: {plan.name}: " + (f"failed: {failure}" if failure else f"{100 * read_score(plan.folder)[1]:.2f} %"))
    return result


def _collect(recipe: str, overrides: Sequence[str], axes: list[list[str]], seeds: int, plans: list[list[Plan]],
             failures: dict[Path, str]) -> Ablation:
    """What is known by now."""
    cells, metric, machines = [], "", {}
    for variant in plans:
        ended = [plan for plan in variant if failures.get(plan.folder) == ""]
        scores = {}
        for plan in ended:
            metric, scores[plan.seed] = read_score(plan.folder)
            machines[_machine(plan.folder)] = None
        failed = {plan.seed: failures[plan.folder] for plan in variant if failures.get(plan.folder)}
        cells.append(Cell(variant[0].variant, scores, failed,
                          count_parameters(read_config(ended[0].folder / "best").model) if ended else None))
    result = Ablation(recipe, tuple(overrides), axes, seeds, cells, metric, list(machines))
    if len(cells) == 2 and all(failures.get(plan.folder) is not None for variant in plans for plan in variant):
        result.comparison = _compare(result, plans)
    return result


def _compare(result: Ablation, plans: list[list[Plan]]):
    """The two cells' comparison over the seeds that both have; None where there is none."""
    first, second = result.cells
    seeds = sorted(set(first.scores) & set(second.scores))
    if not seeds:
        return None
    kept = [[read_scores(variant[seed].folder / SCORES.format("test")) for seed in seeds] for variant in plans]
    clips, _, targets = kept[0][0]
    if any(each[0] != clips or (each[2] != targets).any() for one in kept for each in one):
        raise AumError(f"the runs of {first.name} and {second.name} were not tested on the same clips",
                       fix=f"remove their {SCORES.format('test')} and run the same command again")
    return compare(value_of(first.overrides[-1]) if len(first.overrides) == 1 else first.name,
                   value_of(second.overrides[-1]) if len(second.overrides) == 1 else second.name, result.metric, seeds,
                   tuple([each[1] for each in one] for one in kept), targets,
                   tuple([cell.scores[seed] for seed in seeds] for cell in (first, second)))


def _machine(folder: Path) -> str:
    """What trained a run, in words."""
    report = read_json(folder / "report.json")
    place = report["environment"]
    return (f"{report['device']} ({place['cpu']}), {report['backend']} backend, {place['threads']} thread{'s' if place['threads'] > 1 else ''}, "
            f"torch {place['torch']}, aumcli {place['aumcli']}")

"""The ablation: do the runs that aren't done, and write what is known after each."""

from collections.abc import Iterator, Sequence

from aumcli.ablate.cells import Ablation, Cell, PaperTable
from aumcli.ablate.grid import Grid, value_of
from aumcli.ablate.plan import TablePlan
from aumcli.ablate.runs import complete, default_jobs, machine_of, read_score, scores_file
from aumcli.ablate.significance import Comparison, compare
from aumcli.ablate.tables import write_ablation, write_table
from aumcli.checkpoints import read_config
from aumcli.core import count_parameters
from aumcli.errors import AumError
from aumcli.evaluate import read_scores
from aumcli.utils.logging import get_logger

logger = get_logger(__name__)

Outcomes = dict[int, str]  # of runs that have ended, by their places in `Grid.runs`: why they failed, "" if they didn't


def ablate(grid: Grid, device: str = "cpu", jobs: int | None = None, threads: int = 1) -> Ablation:
    """Train and test every variant of a grid.

    Finished runs in its folder are kept, begun ones are resumed, failed ones are tried again. After each run the
    results are written there: ablation.md, .json, .csv, .tex and, with two axes, .png.

    Args:
        grid: see `aumcli.ablate.plan_ablation`.
        device: where to compute.
        jobs: runs at a time; None: as many as keep the processors busy, on a GPU one.
        threads: of each run, however many run at a time, so that `jobs` changes no result.

    Returns:
        The cells in the grid's order, with a comparison where there is one axis of two values. A score is the accuracy
        on the reported split (`data.test`), or the mAP of data with several labels.
    """
    results: list[Ablation] = []
    for results in _complete([grid], device, jobs, threads):
        write_ablation(results[0], grid.folder)
    return results[0]


def ablate_table(plan: TablePlan, device: str = "cpu", jobs: int | None = None, threads: int = 1) -> PaperTable:
    """Train and test the cells of one of the paper's tables, as `ablate` does; the paper's scores stand beside ours.

    Args:
        plan: see `aumcli.ablate.plan_table`.
        device, jobs, threads: see `ablate`.

    Returns:
        An ablation for each corpus.
    """
    results: list[Ablation] = []
    for results in _complete(plan.grids, device, jobs, threads):
        write_table(PaperTable(plan.number, results, plan.folder))
    return PaperTable(plan.number, results, plan.folder)


def _complete(grids: Sequence[Grid], device: str, jobs: int | None, threads: int) -> Iterator[list[Ablation]]:
    """Do what isn't done; after each run, what is known by then of every grid."""
    runs = {run.folder: (number, place) for number, grid in enumerate(grids) for place, run in enumerate(grid.runs)}
    outcomes: list[Outcomes] = [{} for _ in grids]
    results = [_collect(grid, {}) for grid in grids]
    every = [run for grid in grids for run in grid.runs]
    for run, failure in complete(every, device, jobs or default_jobs(device, threads, len(every)), threads):
        number, place = runs[run.folder]
        outcomes[number][place] = failure
        results[number] = _collect(grids[number], outcomes[number])
        yield results
        name = f"{sum(map(len, outcomes))} of {len(every)}: {grids[number].prefix}{run.name}"
        if failure:
            logger.warning(f"{name}: failed: {failure}")
        else:
            logger.info(f"{name}: {100 * read_score(run)[1]:.2f} %")


def _collect(grid: Grid, outcomes: Outcomes) -> Ablation:
    """What is known by now."""
    done = [run for place, run in enumerate(grid.runs) if outcomes.get(place) == ""]
    failures = {grid.runs[place].folder: failure for place, failure in outcomes.items() if failure}
    metrics = {run.folder: read_score(run) for run in done}
    cells = []
    for variant in grid.variants:
        scores = {run.seed: metrics[run.folder][1] for run in variant if run.folder in metrics}
        failed = {run.seed: failures[run.folder] for run in variant if run.folder in failures}
        trained = next((run for run in variant if run.folder in metrics), None)
        parameters = count_parameters(read_config(trained.folder / "best").model) if trained else None
        cells.append(Cell(variant[0].variant, scores, failed, parameters, variant[0].published))
    splits = {run.recipe.data.reported for run in grid.runs}
    checkpoints = {(run.recipe.model.architecture, run.recipe.train.init) for run in grid.runs if run.recipe.train.init}
    result = Ablation(
        grid.recipe,
        grid.overrides,
        grid.axes,
        grid.seeds,
        cells,
        metric=next((metric for metric, _ in metrics.values()), ""),
        machines=list(dict.fromkeys(map(machine_of, done))),
        starts=sorted(f"{architecture} runs start from {path}" for architecture, path in checkpoints),
        split=splits.pop() if len(splits) == 1 else "reported",
        leaks=sorted({run.recipe.data.leak for run in grid.runs} - {""}),
        table=grid.table,
    )
    if len(cells) == 2 and len(outcomes) == len(grid.runs):
        result.comparison = _compare(result, grid)
    return result


def _compare(result: Ablation, grid: Grid) -> Comparison | None:
    """The two cells' comparison over the seeds that both have; None for none, or where they report on other clips."""
    pairs = list(zip(result.cells, grid.variants))
    if result.table:
        pairs.reverse()  # the paper's tables have the rival first
    (first, ours), (second, theirs) = pairs
    seeds = sorted(set(first.scores) & set(second.scores))
    data, other_data = ours[0].recipe.data, theirs[0].recipe.data
    if not seeds or (data.reported, data.test_group) != (other_data.reported, other_data.test_group):
        return None
    kept = [[read_scores(scores_file(runs[seed])) for seed in seeds] for runs in (ours, theirs)]
    clips, _, targets = kept[0][0]
    if any(each[0] != clips or (each[2] != targets).any() for runs in kept for each in runs):
        raise AumError(
            f"the runs of {first.name} and {second.name} were not tested on the same clips",
            fix=f"remove their {scores_file(ours[0]).name} and run the same command again",
        )
    return compare(
        _short_name(first),
        _short_name(second),
        result.metric,
        seeds,
        ([each[1] for each in kept[0]], [each[1] for each in kept[1]]),
        targets,
        ([first.scores[seed] for seed in seeds], [second.scores[seed] for seed in seeds]),
    )


def _short_name(cell: Cell) -> str:
    return value_of(cell.overrides[-1]) if len(cell.overrides) == 1 else cell.name

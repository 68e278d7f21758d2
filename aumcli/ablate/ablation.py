"""The ablation: plan the runs, do what isn't done, and write what is known after each."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from aumcli import paper
from aumcli.ablate.cells import Ablation, Cell, Table
from aumcli.ablate.grid import (
    TABLE_2,
    Plan,
    Study,
    axes_of,
    count_parameters,
    grid_study,
    starts_of,
    table_studies,
    value_of,
)
from aumcli.ablate.runs import is_done, jobs_for, read_score, run_plans, scores_of
from aumcli.ablate.significance import compare
from aumcli.ablate.tables import write_ablation, write_table
from aumcli.checkpoints import read_config
from aumcli.config import ARCHITECTURES
from aumcli.data.corpus import open_corpus
from aumcli.data.datasets.stream import index_of_shards
from aumcli.data.splits import reported_clips, training_splits
from aumcli.errors import AumError
from aumcli.evaluate import read_scores
from aumcli.train.dry_run import dry_run_training, duration
from aumcli.utils.files import read_json
from aumcli.utils.text import counted
from aumcli.utils.threads import compute_threads

DATA = Path("data")  # where aum prepare puts the corpora


def ablate(
    recipe: str,
    out: Path | str,
    data: Path | str | None = None,
    grid: Sequence[str] = TABLE_2,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    models: Sequence[str] = (),
    jobs: int | None = None,
    threads: int = 1,
    init: Sequence[str] = (),
    say=print,
) -> Ablation:
    """Train and test every variant of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        out: folder for a run per cell and seed, and for ablation.md, .json, .csv, .tex and, with two axes, .png.
            Finished runs in it are kept, begun ones are resumed, failed ones are tried again.
        data: prepared data; None: the recipe's corpus.
        grid: "section.key=value,value" for each axis.
        seeds: runs per cell, with the seeds 0, 1, ...
        overrides: "section.key=value" for all cells.
        device: where to compute.
        models: architectures to compare with equal parameters, as a first axis: "aum", "ast".
        jobs: runs at a time; None: what keeps the processors busy, on a GPU one.
        threads: of each run, however many run at a time, so that `jobs` changes no result.
        init: "aum=PATH" or "ast=PATH", the checkpoint that each architecture's runs start from.
        say: is given lines of text.

    Returns:
        The cells in the grid's order, with a comparison where there is one axis of two values. A score is the accuracy
        on the reported split (`data.test`), or the mAP of data with several labels.

    Raises:
        AumError: a mistake in the grid, the recipe or the data, before anything is trained.
    """
    for (result,) in _run(
        [plan_ablation(recipe, out, data, grid, seeds, overrides, models, init)], device, jobs, threads, say
    ):
        write_ablation(result, Path(out))
    return result


def plan_ablation(
    recipe: str,
    out: Path | str,
    data: Path | str | None = None,
    grid: Sequence[str] = TABLE_2,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    models: Sequence[str] = (),
    init: Sequence[str] = (),
) -> Study:
    """The runs of `ablate`, which see; nothing is trained."""
    if unknown := [each for each in models if each not in ARCHITECTURES]:
        raise AumError(
            f"--models: there is no architecture {unknown[0]!r}", fix=f"choose among: {', '.join(ARCHITECTURES)}"
        )
    data = None if data is None else Path(data)
    return grid_study(
        recipe, Path(out), data, axes_of(grid, models), seeds, overrides, len(models) > 1, starts_of(init)
    )


def ablate_table(
    number: int,
    out: Path | str,
    data: Path | str = DATA,
    corpora: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: int = 3,
    overrides: Sequence[str] = (),
    device: str = "cpu",
    jobs: int | None = None,
    threads: int = 1,
    init: Sequence[str] = (),
    say=print,
) -> Table:
    """Train and test the cells of one of the paper's tables, by the published recipes.

    Args:
        number: 1 to 4.
        out: folder for a run per cell and seed, and for ablation.md, .json, .csv, .tex, the paper's figures beside
            ours; those of a part of the table go to out/only-<its corpora and rows>.
        data: the folder that holds the prepared corpora.
        corpora, rows: those wanted, by the names of recipes and of the paper; none: all of the table.
        seeds, overrides, device, jobs, threads, init, say: see `ablate`.

    Returns:
        An ablation for each corpus.

    Raises:
        AumError: there is no such table, corpus or row, a corpus isn't prepared, a recipe starts from weights that were
            not given, or there is a mistake in the data, before anything is trained.
    """
    studies, folder = plan_table(number, out, data, corpora, rows, seeds, overrides, init)
    for results in _run(studies, device, jobs, threads, say):
        table = Table(number, results, folder)
        write_table(table)
    return table


def plan_table(
    number: int,
    out: Path | str,
    data: Path | str = DATA,
    corpora: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: int = 3,
    overrides: Sequence[str] = (),
    init: Sequence[str] = (),
) -> tuple[list[Study], Path]:
    """The runs of `ablate_table`, which see, and the folder of its results; nothing is trained."""
    out, data = Path(out), Path(data)
    if number not in (paper.GRID, *paper.TABLES):
        raise AumError(f"--table {number}: no such table can be trained", fix="choose 1, 2, 3 or 4")
    where, known = f"the paper's Table {number}", (paper.corpora_of(number), paper.rows_of(number))
    corpora, rows = paper.chosen("--corpora", corpora, known[0], where), paper.chosen("--rows", rows, known[1], where)
    part = [name for names, all_names in zip((corpora, rows), known) if names != all_names for name in names]
    folder = out / re.sub(r"[^\w-]+", "-", "only " + "_".join(part)).strip("-") if part else out
    studies = table_studies(number, out, data, corpora, rows, seeds, overrides, starts_of(init))
    _check_prepared(number, data, corpora)
    return studies, folder


def dry_run(studies: Sequence[Study], device: str = "cpu", jobs: int | None = None, threads: int = 1) -> Iterator[str]:
    """Say which runs an ablation will do and how long they take, by steps of one run of each variant.

    Nothing is written.

    Args:
        studies: see `plan_ablation` and `plan_table`.
        device, jobs, threads: see `ablate`.

    Yields:
        A line for each variant as soon as it is measured, and one for all.

    Raises:
        AumError: a run would stop with it.
    """
    plans = [plan for study in studies for plan in study.runs]
    _check(plans)
    jobs, left_s, done = jobs or jobs_for(device, threads, len(plans)), [], 0
    with compute_threads(threads):
        for study in studies:
            for variant in study.plans:
                waiting = [plan for plan in variant if not is_done(plan)]
                done += len(variant) - len(waiting)
                name = (f"{study.recipe}, " if study.table else "") + variant[0].name.rpartition(", ")[0]
                if not waiting:
                    yield f"{name}: done"
                    continue
                run_s = dry_run_training(waiting[0].recipe, None, waiting[0].data, device).whole_s
                left_s += [run_s] * len(waiting)
                yield f"{name}: {len(waiting)} of {len(variant)} seeds to do, {duration(run_s)} each"
    at_once = max(1, min(jobs, len(left_s)))
    yield (
        f"{len(plans)} runs, {done} done, {len(left_s)} to do, "
        f"{at_once} at a time with {counted(threads, 'thread')} each: "
        f"about {duration(sum(left_s) / at_once)}, tests and what they cost each other aside"
    )


def _run(studies: list[Study], device: str, jobs: int | None, threads: int, say) -> Iterator[list[Ablation]]:
    """Do what isn't done; after each run, what is known by then of every study."""
    plans = [plan for study in studies for plan in study.runs]
    owners = {plan.folder: i for i, study in enumerate(studies) for plan in study.runs}
    _check(plans)
    failures: dict[Path, str] = {}
    results = [_collect(study, failures) for study in studies]
    for plan, failure in run_plans(plans, device, jobs or jobs_for(device, threads, len(plans)), threads, say):
        failures[plan.folder] = failure
        i = owners[plan.folder]
        results[i] = _collect(studies[i], failures)
        yield results
        corpus = f"{studies[i].recipe}, " if studies[i].table else ""
        said = f"failed: {failure}" if failure else f"{100 * read_score(plan)[1]:.2f} %"
        say(f"{len(failures)} of {len(plans)}: {corpus}{plan.name}: {said}")


def _check_prepared(number: int, data: Path, corpora: Sequence[str]) -> None:
    """Refuse a table some corpora of which aren't there, with the commands that prepare them."""
    missing = [corpus for corpus in corpora if not (data / corpus / "manifest.csv").exists()]
    if missing:
        there = [corpus for corpus in corpora if corpus not in missing]
        commands = [f"aum prepare {corpus}" + ("" if data == DATA else f" --out {data / corpus}") for corpus in missing]
        raise AumError(
            f"Table {number} needs corpora that are not prepared: {', '.join(str(data / name) for name in missing)}",
            fix="; ".join(commands) + (f"; or make it of those that are: --corpora {','.join(there)}" if there else ""),
        )


def _check(plans: Sequence[Plan]) -> None:
    """Find the mistakes that many runs would share before any: weights that aren't given, missing data and splits."""
    unstarted = {
        plan.recipe.model.architecture: plan.recipe.train.pretrained
        for plan in plans
        if plan.recipe.train.pretrained and not plan.recipe.train.init
    }
    if unstarted:
        raise AumError(
            "these runs start from weights that were not given: "
            + "; ".join(f"{architecture} from {source}" for architecture, source in unstarted.items()),
            fix=" ".join(f"--init {architecture}=PATH" for architecture in unstarted),
        )
    manifests = {}
    for plan in {(plan.data, plan.recipe.data): plan for plan in plans}.values():
        place, config = plan.data or plan.recipe.data.corpus, plan.recipe.data
        if place not in manifests:
            manifests[place] = open_corpus(plan.recipe.data, plan.data)
        manifest = manifests[place]
        index = index_of_shards(manifest)
        if index is None:
            training_splits(manifest, config)
        if not reported_clips(manifest, config, index):
            has = manifest.split_names if index is None else list(index.splits)
            raise AumError(
                f"{manifest.folder} has no split {config.test!r} to report results on; it has {', '.join(has)}",
                fix=f"name another with --set data.test=NAME; --set data.test={config.val} --set data.val_fraction=0.1 "
                f"reports on {config.val} and keeps clips of {config.train} back to choose the epoch on",
            )


def _collect(study: Study, failures: dict[Path, str]) -> Ablation:
    """What is known by now."""
    cells, metric, machines, runs = [], "", {}, study.runs
    for variant in study.plans:
        ended = [plan for plan in variant if failures.get(plan.folder) == ""]
        scores = {}
        for plan in ended:
            metric, scores[plan.seed] = read_score(plan)
            machines[_machine(plan.folder)] = None
        failed = {plan.seed: failures[plan.folder] for plan in variant if failures.get(plan.folder)}
        cells.append(
            Cell(
                variant[0].variant,
                scores,
                failed,
                count_parameters(read_config(ended[0].folder / "best").model) if ended else None,
                variant[0].published,
            )
        )
    splits = {plan.recipe.data.reported for plan in runs}
    result = Ablation(
        study.recipe,
        study.overrides,
        study.axes,
        study.seeds,
        cells,
        metric,
        list(machines),
        starts=sorted(
            {
                f"{plan.recipe.model.architecture} runs start from {plan.recipe.train.init}"
                for plan in runs
                if plan.recipe.train.init
            }
        ),
        split=splits.pop() if len(splits) == 1 else "reported",
        leaks=sorted({plan.recipe.data.leak for plan in runs} - {""}),
        table=study.table,
    )
    if len(cells) == 2 and all(failures.get(plan.folder) is not None for plan in runs):
        result.comparison = _compare(result, study.plans)
    return result


def _compare(result: Ablation, plans: list[list[Plan]]):
    """The two cells' comparison over the seeds that both have; None for none, or where they report on other clips."""
    pairs = list(zip(result.cells, plans))
    if result.table:
        pairs.reverse()  # the paper's tables have the rival first
    (first, _), (second, _) = pairs
    seeds = sorted(set(first.scores) & set(second.scores))
    reported = {(runs[0].recipe.data.reported, runs[0].recipe.data.test_group) for _, runs in pairs}
    if not seeds or len(reported) > 1:
        return None
    kept = [[read_scores(scores_of(runs[seed])) for seed in seeds] for _, runs in pairs]
    clips, _, targets = kept[0][0]
    if any(each[0] != clips or (each[2] != targets).any() for one in kept for each in one):
        raise AumError(
            f"the runs of {first.name} and {second.name} were not tested on the same clips",
            fix=f"remove their {scores_of(plans[0][0]).name} and run the same command again",
        )
    return compare(
        value_of(first.overrides[-1]) if len(first.overrides) == 1 else first.name,
        value_of(second.overrides[-1]) if len(second.overrides) == 1 else second.name,
        result.metric,
        seeds,
        tuple([each[1] for each in one] for one in kept),
        targets,
        tuple([cell.scores[seed] for seed in seeds] for cell in (first, second)),
    )


def _machine(folder: Path) -> str:
    """What trained a run, in words."""
    report = read_json(folder / "report.json")
    place = report["environment"]
    return (
        f"{report['device']} ({place['cpu']}), {report['backend']} backend, "
        f"{place['threads']} thread{'s' if place['threads'] > 1 else ''}, "
        f"torch {place['torch']}, aumcli {place['aumcli']}"
    )

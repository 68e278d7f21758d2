"""Which runs an ablation consists of, checked before anything is trained, and how long they take."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli import paper
from aumcli.ablate.grid import TABLE_2, Grid, Run, Shared, make_grid, parse_axes, parse_init, table_grids
from aumcli.ablate.runs import default_jobs, is_done
from aumcli.config import ARCHITECTURES, DataConfig
from aumcli.data.corpus import open_corpus
from aumcli.data.datasets.stream import index_of_shards
from aumcli.data.manifest import Manifest
from aumcli.data.splits import reported_clips, training_splits
from aumcli.errors import AumError
from aumcli.train.dry_run import dry_run_training
from aumcli.utils.text import counted, duration
from aumcli.utils.threads import compute_threads

DATA = Path("data")  # where aum prepare writes the corpora


@dataclass(frozen=True)
class TablePlan:
    """The runs of one of the paper's tables."""

    number: int
    grids: list[Grid]
    folder: Path  # of the results


def plan_ablation(
    recipe: str,
    out: Path | str,
    data: Path | str | None = None,
    grid: Sequence[str] = TABLE_2,
    seeds: int = 3,
    overrides: Sequence[str] = (),
    models: Sequence[str] = (),
    init: Sequence[str] = (),
) -> Grid:
    """The runs of every variant of a grid.

    Args:
        recipe: a recipe's name or .toml file.
        out: folder for a run per variant and seed, and for the results.
        data: prepared data; None: the recipe's corpus.
        grid: "section.key=value,value" for each axis.
        seeds: runs per variant, with the seeds 0, 1, ...
        overrides: "section.key=value" for all variants.
        models: architectures to compare with equally many parameters, as a first axis: "aum", "ast".
        init: "aum=PATH" or "ast=PATH", the checkpoint that each architecture's runs start from.

    Raises:
        AumError: a mistake in the grid, the recipe or the data.
    """
    if unknown := [each for each in models if each not in ARCHITECTURES]:
        raise AumError(
            f"--models: there is no architecture {unknown[0]!r}", fix=f"choose among: {', '.join(ARCHITECTURES)}"
        )
    shared, axes = Shared(seeds, tuple(overrides), parse_init(init)), parse_axes(grid, models)
    planned = make_grid(recipe, Path(out), None if data is None else Path(data), axes, shared, len(models) > 1)
    _check(planned.runs)
    return planned


def plan_table(
    number: int,
    out: Path | str,
    data: Path | str = DATA,
    corpora: Sequence[str] = (),
    rows: Sequence[str] = (),
    seeds: int = 3,
    overrides: Sequence[str] = (),
    init: Sequence[str] = (),
) -> TablePlan:
    """The runs of one of the paper's tables, by the published recipes.

    Args:
        number: 1 to 4.
        out: folder for a run per cell and seed, and for the results; those of a selection of corpora or rows go to
            out/only-<their names>.
        data: the folder that holds the prepared corpora.
        corpora, rows: those wanted, by the names of recipes and of the paper; none: all of the table.
        seeds, overrides, init: see `plan_ablation`.

    Raises:
        AumError: there is no such table, corpus or row, a corpus isn't prepared, a recipe starts from weights that were
            not given, or there is a mistake in the data.
    """
    out, data = Path(out), Path(data)
    if number not in (paper.GRID, *paper.TABLES):
        raise AumError(f"--table {number}: no such table can be trained", fix="choose 1, 2, 3 or 4")
    where, known = f"the paper's Table {number}", (paper.corpora_of(number), paper.rows_of(number))
    corpora, rows = paper.chosen("--corpora", corpora, known[0], where), paper.chosen("--rows", rows, known[1], where)
    selected = [name for names, all_names in zip((corpora, rows), known) if names != all_names for name in names]
    folder = out / re.sub(r"[^\w-]+", "-", "only " + "_".join(selected)).strip("-") if selected else out
    shared = Shared(seeds, tuple(overrides), parse_init(init))
    plan = TablePlan(number, table_grids(number, out, data, corpora, rows, shared), folder)
    _check_prepared(number, data, corpora)
    _check([run for grid in plan.grids for run in grid.runs])
    return plan


def _check_prepared(number: int, data: Path, corpora: Sequence[str]) -> None:
    """Refuse a table some corpora of which aren't there, with the commands that prepare them."""
    missing = [corpus for corpus in corpora if not (data / corpus / "manifest.csv").exists()]
    if missing:
        there = [corpus for corpus in corpora if corpus not in missing]
        commands = [f"aum prepare {corpus}" + ("" if data == DATA else f" --out {data / corpus}") for corpus in missing]
        raise AumError(
            f"Table {number} needs corpora that are not prepared: {', '.join(str(data / name) for name in missing)}",
            fix="; ".join(commands) + (f"; or train on those that are: --corpora {','.join(there)}" if there else ""),
        )


def _check(runs: Sequence[Run]) -> None:
    """Find the mistakes that many runs would have in common: weights that aren't given, missing data and splits."""
    for run in runs:
        if run.recipe.model.pooling == "mean" and any(value.startswith(f"{paper.POSITION}=") for value in run.variant):
            raise AumError(
                "the grid varies the place of the class token, and these models have none (model.pooling is mean)",
                fix="--set model.pooling=cls; of the recipe fsdd, fsdd-patches has patches and a class token",
            )
    missing = {
        run.recipe.model.architecture: run.recipe.train.pretrained
        for run in runs
        if run.recipe.train.pretrained and not run.recipe.train.init
    }
    if missing:
        raise AumError(
            "these runs start from weights that were not given: "
            + "; ".join(f"{architecture} from {source}" for architecture, source in missing.items()),
            fix=" ".join(f"--init {architecture}=PATH" for architecture in missing),
        )
    manifests: dict[Path | str | None, Manifest] = {}
    for run in {(run.data, run.recipe.data): run for run in runs}.values():
        place = run.data or run.recipe.data.corpus
        if place not in manifests:
            manifests[place] = open_corpus(run.recipe.data, run.data)
        _check_splits(manifests[place], run.recipe.data)


def _check_splits(manifest: Manifest, config: DataConfig) -> None:
    """Refuse data without the splits to train on and to report."""
    index = index_of_shards(manifest)
    if index is None:
        training_splits(manifest, config)
    if not reported_clips(manifest, config, index):
        has = manifest.split_names if index is None else list(index.splits)
        raise AumError(
            f"{manifest.folder} has no split {config.test!r} to report results on; it has {', '.join(has)}",
            fix=f"name another with --set data.test=NAME; --set data.test={config.val} --set data.val_fraction=0.1 "
            f"reports on {config.val} and holds out clips of {config.train} to choose the epoch on",
        )


def dry_run(grids: Sequence[Grid], device: str = "cpu", jobs: int | None = None, threads: int = 1) -> Iterator[str]:
    """Say which runs an ablation will do and how long they take, by steps of one run of each variant.

    Nothing is written.

    Args:
        grids: see `plan_ablation` and `plan_table`.
        device: where to compute.
        jobs: runs at a time; None: as many as keep the processors busy, on a GPU one.
        threads: of each run.

    Yields:
        A line for each variant as soon as it is measured, and one for all.

    Raises:
        AumError: a run would stop with it.
    """
    total = sum(len(grid.runs) for grid in grids)
    seconds: list[float] = []  # of each run that is not done
    with compute_threads(threads):
        for grid in grids:
            for variant in grid.variants:
                waiting = [run for run in variant if not is_done(run)]
                name = grid.prefix + variant[0].name.rpartition(", ")[0]
                if not waiting:
                    yield f"{name}: done"
                    continue
                run_s = dry_run_training(waiting[0].recipe, None, waiting[0].data, device).whole_s
                seconds += [run_s] * len(waiting)
                yield f"{name}: {len(waiting)} of {len(variant)} seeds to do, {duration(run_s)} each"
    at_once = max(1, min(jobs or default_jobs(device, threads, total), len(seconds)))
    yield (
        f"{total} runs, {total - len(seconds)} done, {len(seconds)} to do, "
        f"{at_once} at a time with {counted(threads, 'thread')} each: "
        f"about {duration(sum(seconds) / at_once)}, without tests and what runs at the same time cost each other"
    )

"""The runs: each an ordinary run folder, trained or taken as it is, several at a time."""

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from aumcli.ablate.grid import Plan
from aumcli.errors import AumError
from aumcli.evaluate import SCORES, evaluate
from aumcli.recipe import MEASURED, dump_recipe, load_recipe
from aumcli.train import train
from aumcli.utils.files import read_json, write_text
from aumcli.utils.subprocesses import Worker
from aumcli.utils.text import counted
from aumcli.utils.threads import compute_threads

logger = logging.getLogger(__name__)

PLANNED = "planned.toml"  # a run's recipe before it was fitted to the data
REPORT, RESULT = "report.json", "eval-{}.json"  # of a finished run; the latter of the split that is reported
FITTED = {"model": ("n_classes",), "data": ("infer",), "train": ("loss",)}


def run_plans(plans: Sequence[Plan], device: str, jobs: int, threads: int) -> Iterator[tuple[Plan, str]]:
    """Train and test what isn't finished.

    Args:
        plans: the runs.
        device: where to compute.
        jobs: runs at a time, each in a process of its own where there are several.
        threads: of each run, whatever `jobs` is: their number decides how sums are rounded.

    Yields:
        Each run as it ends, and why it failed, "" where it didn't.
    """
    waiting = []
    for plan in plans:
        try:
            _check_recipe(plan)
        except AumError as error:
            yield plan, error.problem
            continue
        if is_done(plan):
            yield plan, ""
        else:
            waiting.append(plan)
    jobs = min(jobs, len(waiting))
    yield from (_at_once(waiting, device, jobs, threads) if jobs > 1 else _one_by_one(waiting, device, threads))


def is_done(plan: Plan) -> bool:
    """Whether a run is trained and tested."""
    return all((plan.folder / name).is_file() for name in (REPORT, *_results(plan)))


def _at_once(plans: Sequence[Plan], device: str, jobs: int, threads: int) -> Iterator[tuple[Plan, str]]:
    workers: list[Worker] = []

    def run(plan: Plan) -> str:
        workers.append(Worker(_work, plan, device, threads))
        try:
            return workers[-1].ask()
        except AumError as error:
            return error.problem

    logger.info(f"{counted(len(plans), 'run')} to do, {jobs} at a time, {counted(threads, 'thread')} each")
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(run, plan): plan for plan in plans}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


def _one_by_one(plans: Sequence[Plan], device: str, threads: int) -> Iterator[tuple[Plan, str]]:
    with compute_threads(threads):
        for plan in plans:
            try:
                finish(plan, device)
            except AumError as error:
                if error.exit_code >= 128:  # the user's wish to stop is no failure
                    raise
                yield plan, error.problem
            else:
                yield plan, ""


def _work(plan: Plan, device: str, threads: int) -> Iterator[str]:
    """What a worker's process does: one run, without a progress bar."""
    import torch

    torch.set_num_threads(threads)
    finish(plan, device, progress=False)
    yield ""


def finish(plan: Plan, device: str, progress: bool = True) -> None:
    """Train a run unless that is done, and test it unless that is done and each clip's scores were kept.

    Raises:
        AumError: the folder holds a run of another recipe, or training or testing failed.
    """
    folder = plan.folder
    if not (folder / PLANNED).is_file():
        write_text(folder / PLANNED, dump_recipe(plan.recipe))
    if not (folder / REPORT).is_file():
        logger.info(plan.name)
        train(
            plan.recipe,
            folder,
            plan.data,
            resume=(folder / "last" / "state.pt").is_file(),
            device=device,
            progress=progress,
        )
    if not all((folder / name).is_file() for name in _results(plan)):
        evaluate(folder, plan.data, plan.recipe.data.reported, folder, device)


def _results(plan: Plan) -> tuple[str, str]:
    """The files of an evaluation on the split that is reported."""
    split = plan.recipe.data.reported
    return RESULT.format(split), SCORES.format(split)


def _check_recipe(plan: Plan) -> None:
    """Refuse a folder with a run of another recipe.

    A run made by `aum train` has only the recipe that was fitted to its data.
    """
    planned, fitted = plan.folder / PLANNED, plan.folder / "recipe.toml"
    if planned.is_file():
        same = load_recipe(planned) == plan.recipe
    elif fitted.is_file():
        values, asked = load_recipe(fitted).model_dump(), plan.recipe.model_dump()
        measured = [key for item in plan.recipe.data.infer for key in MEASURED[item]]
        for section, keys in {**FITTED, "frontend": measured}.items():
            for key in keys:
                asked[section][key] = values[section][key]
        asked["model"]["frames"] = asked["frontend"]["frames"]
        same = values == asked
    else:
        same = True
    if not same:
        raise AumError(
            f"{plan.folder} holds a run of another recipe", fix="choose another --out, or remove that folder"
        )


def scores_of(plan: Plan) -> Path:
    """Where a finished run keeps each clip's scores on the split that is reported."""
    return plan.folder / _results(plan)[1]


def read_score(plan: Plan) -> tuple[str, float]:
    """A finished run's metric on the reported split, and its value: accuracy, or mAP of data with several labels."""
    figures = read_json(plan.folder / _results(plan)[0])["metrics"]
    return ("mAP", figures["mean_average_precision"]) if figures["multi_label"] else ("accuracy", figures["accuracy"])


def jobs_for(device: str, threads: int, runs: int) -> int:
    """How many runs at a time keep the processors busy; on a GPU, one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(runs, cpus // threads)) if device == "cpu" else 1

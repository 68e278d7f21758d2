"""The runs: each an ordinary run folder, trained or taken as it is, several at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from aumcli.ablate.grid import Run
from aumcli.errors import AumError
from aumcli.evaluate import SCORES, evaluate
from aumcli.recipe import MEASURED, dump_recipe, load_recipe
from aumcli.train import train
from aumcli.utils.files import read_json, write_text
from aumcli.utils.logging import get_logger
from aumcli.utils.subprocesses import Worker
from aumcli.utils.text import counted
from aumcli.utils.threads import available_cpus, compute_threads

logger = get_logger(__name__)

PLANNED = "planned.toml"  # a run's recipe before it was fitted to the data
REPORT, RESULT = "report.json", "eval-{}.json"  # of a finished run; the latter of the split that is reported
INFERRED = {"model": ("n_classes",), "data": ("infer",), "train": ("loss",)}  # keys that fitting a recipe changes


def complete(runs: Sequence[Run], device: str, jobs: int, threads: int) -> Iterator[tuple[Run, str]]:
    """Train and test what isn't finished.

    Args:
        runs: all of them.
        device: where to compute.
        jobs: runs at a time, each in a process of its own where there are several.
        threads: of each run, whatever `jobs` is: their number decides how sums are rounded.

    Yields:
        Each run as it ends, and why it failed, "" where it didn't.
    """
    waiting = []
    for run in runs:
        try:
            _check_recipe(run)
        except AumError as error:
            yield run, error.problem
            continue
        if is_done(run):
            yield run, ""
        else:
            waiting.append(run)
    jobs = min(jobs, len(waiting))
    if jobs > 1:
        yield from _in_parallel(waiting, device, jobs, threads)
    else:
        yield from _sequentially(waiting, device, threads)


def is_done(run: Run) -> bool:
    """Whether a run is trained and tested."""
    return all((run.folder / name).is_file() for name in (REPORT, *_result_files(run)))


def _in_parallel(runs: Sequence[Run], device: str, jobs: int, threads: int) -> Iterator[tuple[Run, str]]:
    workers: list[Worker] = []

    def work(run: Run) -> str:
        workers.append(Worker(_steps, run, device, threads))
        try:
            workers[-1].ask()
        except AumError as error:
            return error.problem
        return ""

    logger.info(f"{counted(len(runs), 'run')} to do, {jobs} at a time, {counted(threads, 'thread')} each")
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, run): run for run in runs}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()


def _sequentially(runs: Sequence[Run], device: str, threads: int) -> Iterator[tuple[Run, str]]:
    with compute_threads(threads):
        for run in runs:
            try:
                train_and_evaluate(run, device)
            except AumError as error:
                if error.exit_code >= 128:  # the user stops it, which is no failure
                    raise
                yield run, error.problem
            else:
                yield run, ""


def _steps(run: Run, device: str, threads: int) -> Iterator[None]:
    """What a worker's process does, in one step: a run."""
    import torch

    torch.set_num_threads(threads)
    train_and_evaluate(run, device, progress=False)
    yield


def train_and_evaluate(run: Run, device: str, progress: bool = True) -> None:
    """Train a run unless that is done, and test it unless that is done and each clip's scores were kept.

    Raises:
        AumError: the folder holds a run of another recipe, or training or testing failed.
    """
    folder = run.folder
    if not (folder / PLANNED).is_file():
        write_text(folder / PLANNED, dump_recipe(run.recipe))
    if not (folder / REPORT).is_file():
        logger.info(run.name)
        resume = (folder / "last" / "state.pt").is_file()
        train(run.recipe, folder, run.data, resume=resume, device=device, progress=progress)
    if not all((folder / name).is_file() for name in _result_files(run)):
        evaluate(folder, run.data, run.recipe.data.reported, folder, device)


def _result_files(run: Run) -> tuple[str, str]:
    """The files of an evaluation on the split that is reported."""
    split = run.recipe.data.reported
    return RESULT.format(split), SCORES.format(split)


def _check_recipe(run: Run) -> None:
    """Refuse a folder with a run of another recipe.

    A run made by `aum train` has only the recipe that was fitted to its data.
    """
    planned, fitted = run.folder / PLANNED, run.folder / "recipe.toml"
    if planned.is_file():
        same = load_recipe(planned) == run.recipe
    elif fitted.is_file():
        values, asked = load_recipe(fitted).model_dump(), run.recipe.model_dump()
        measured = tuple(key for item in run.recipe.data.infer for key in MEASURED[item])
        for section, keys in {**INFERRED, "frontend": measured}.items():
            for key in keys:
                asked[section][key] = values[section][key]
        asked["model"]["frames"] = asked["frontend"]["frames"]
        same = values == asked
    else:
        same = True
    if not same:
        raise AumError(f"{run.folder} holds a run of another recipe", fix="choose another --out, or remove that folder")


def scores_file(run: Run) -> Path:
    """Where a finished run keeps each clip's scores on the split that is reported."""
    return run.folder / _result_files(run)[1]


def read_score(run: Run) -> tuple[str, float]:
    """A finished run's metric on the reported split, and its value: accuracy, or mAP of data with several labels."""
    figures = read_json(run.folder / _result_files(run)[0])["metrics"]
    return ("mAP", figures["mean_average_precision"]) if figures["multi_label"] else ("accuracy", figures["accuracy"])


def machine_of(run: Run) -> str:
    """What trained a run, in words."""
    report = read_json(run.folder / REPORT)
    place = report["environment"]
    return (
        f"{report['device']} ({place['cpu']}), {report['backend']} backend, {counted(place['threads'], 'thread')}, "
        f"torch {place['torch']}, aumcli {place['aumcli']}"
    )


def default_jobs(device: str, threads: int, runs: int) -> int:
    """How many runs at a time keep the processors busy; on a GPU, one."""
    return max(1, min(runs, available_cpus() // threads)) if device == "cpu" else 1

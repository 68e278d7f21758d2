"""What a run keeps on disk: models, the state that --resume goes on from, metrics; each file whole or not at all."""

import csv
import io
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from aumcli.checkpoints import read_model, save_model
from aumcli.errors import AumError
from aumcli.train.data_check import identity
from aumcli.train.distributed import Team, launch_id
from aumcli.train.setup import Epoch, Run
from aumcli.utils.files import atomic_path, check_writable, no_empty_folders
from aumcli.utils.lock import locked

STATE = "state.pt"


def save_epoch(run: Run) -> None:
    """Write metrics.csv, last/, and best/ where the epoch that just ended is the best so far; the state comes last."""
    row = run.history[-1]
    with atomic_path(run.out / "metrics.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(run.history)
    config = with_figures(run, epoch=row["epoch"], **{run.metric: row[run.metric]})
    folders = [run.out / "last"] + ([run.out / "best"] if run.best == row["epoch"] else [])
    if run.recipe.train.average_last:
        folders.append(_epoch_folder(run, row["epoch"]))
        _remove(_epoch_folder(run, row["epoch"] - run.recipe.train.average_last))
    for folder in reversed(folders):
        save_model(folder, run.classifier.network.state_dict(), config)
    save_state(run)  # last: --resume believes that all before it was written


def with_figures(run: Run, **figures):
    """The model's configuration with figures in its provenance."""
    return run.classifier.config.model_copy(update={"provenance": run.classifier.config.provenance | figures})


def save_state(run: Run) -> None:
    """Write last/state.pt; the one before is kept beside it where the recipe asks for more than one."""
    state = {
        "recipe": run.recipe.model_dump(mode="json"),
        "data": str(run.data),
        **identity(run.manifest, run.data_sha256),
        "launch": launch_id(),
        "history": run.history,
        "epoch": asdict(run.epoch),
        "bad_files": sorted(run.bad_files),
        "bad_in_a_row": run.bad_in_a_row,
        "network": run.network.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "averaged": run.classifier.network.state_dict() if run.recipe.train.ema else None,
    }
    buffer = io.BytesIO()  # torch.save hides a full disk behind a RuntimeError
    torch.save(state, buffer)
    path = run.out / "last" / STATE
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        if run.recipe.train.keep > 1 and path.exists():
            os.link(path, path.with_name(f"state-{time.time_ns()}.pt"))
    older = sorted(path.parent.glob("state-*.pt"))
    for old in older[: max(0, len(older) + 1 - run.recipe.train.keep)]:
        old.unlink()
    run.saved_at = time.monotonic()


@contextmanager
def kept_folder(out: Path, team: Team) -> Iterator[list[str]]:
    """Keep a run's folder for this training; where that fails, folders that were made for it are removed again.

    Args:
        out: the run's folder.
        team: the processes of this training, of which the one that writes locks the folder.

    Yields:
        What there is to say: nothing, or that the folder can't be locked.

    Raises:
        AumError: another training writes there, or nothing can be written; in all processes.
    """
    with ExitStack() as stack:
        problem, note = None, ""
        if team.leads:
            stack.enter_context(no_empty_folders(out))
            try:
                check_writable(out / "recipe.toml")
                note = stack.enter_context(locked(out, "training"))
            except AumError as error:
                problem = error
        if problem := team.gather(problem)[0]:
            raise problem
        yield [note] if note else []


def read_state(out: Path, resume: bool) -> dict | None:
    """The state to go on from, or None for a new run.

    Args:
        out: the run's folder.
        resume: whether the user wants to go on; processes that torchrun starts again go on with what they have begun
            themselves.

    Raises:
        AumError: there is a run though none shall be resumed, or none though one shall, or it is damaged.
    """
    path = out / "last" / STATE
    if not path.exists():
        if resume:
            raise AumError(f"there is no run to resume in {out}", fix="leave --resume out to start one")
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        older = sorted(path.parent.glob("state-*.pt"))
        raise AumError(
            f"can't read {path}: {error}",
            exit_code=1,
            fix=f"copy {older[-1]} over it and resume again" if older else "start again in another folder",
        ) from error
    if not resume and (launch_id() is None or state["launch"] != launch_id()):
        raise AumError(
            f"{out} already holds a run",
            fix="go on with it by --resume, choose another folder with --out, or remove it",
        )
    return state


def restore(run: Run, state: dict) -> None:
    """Put a run into a saved state."""
    run.network.load_state_dict(state["network"])
    if run.recipe.train.ema:
        run.classifier.network.load_state_dict(state["averaged"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scaler.load_state_dict(state["scaler"])
    run.history.extend(state["history"])
    run.epoch, run.bad_files, run.bad_in_a_row = Epoch(**state["epoch"]), set(state["bad_files"]), state["bad_in_a_row"]


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process had begun to write."""
    for path in out.rglob(".*.part"):
        path.unlink()


def average_epochs(run: Run) -> dict[str, Tensor]:
    """The mean of the weights of the last epochs, as many as the recipe says."""
    last = run.history[-1]["epoch"]
    states = [
        read_model(_epoch_folder(run, epoch))[0].state_dict()
        for epoch in range(max(1, last + 1 - run.recipe.train.average_last), last + 1)
    ]
    return {name: torch.stack([state[name].double() for state in states]).mean(0).float() for name in states[0]}


def _epoch_folder(run: Run, epoch: int) -> Path:
    return run.out / "epochs" / f"{epoch:04}"


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

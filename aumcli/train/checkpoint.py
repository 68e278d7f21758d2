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
from aumcli.train.distributed import ProcessGroup, launch_id
from aumcli.train.setup import Epoch, TrainState
from aumcli.utils.files import atomic_path, check_writable, no_empty_folders
from aumcli.utils.lock import locked

STATE = "state.pt"


def save_epoch(state: TrainState) -> None:
    """Write metrics.csv, last/, and best/ where the epoch that just ended is the best so far; the state comes last."""
    row = state.history[-1]
    with (
        atomic_path(state.out / "metrics.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(state.history)
    config = with_figures(state, epoch=row["epoch"], **{state.metric: row[state.metric]})
    folders = [state.out / "last"] + ([state.out / "best"] if state.best == row["epoch"] else [])
    if state.recipe.train.average_last:
        folders.append(_epoch_folder(state, row["epoch"]))
        _remove(_epoch_folder(state, row["epoch"] - state.recipe.train.average_last))
    for folder in reversed(folders):
        save_model(folder, state.classifier.network.state_dict(), config)
    save_checkpoint(state)  # last: --resume believes that all before it was written


def with_figures(state: TrainState, **figures):
    """The model's configuration with figures in its provenance."""
    return state.classifier.config.model_copy(update={"provenance": state.classifier.config.provenance | figures})


def save_checkpoint(state: TrainState) -> None:
    """Write last/state.pt; the one before is kept beside it where the recipe asks for more than one."""
    saved = {
        "recipe": state.recipe.model_dump(mode="json"),
        "data": str(state.data),
        **identity(state.manifest, state.data_sha256),
        "launch": launch_id(),
        "history": state.history,
        "epoch": asdict(state.epoch),
        "unreadable_clips": sorted(state.unreadable_clips),
        "nonfinite_in_a_row": state.nonfinite_in_a_row,
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "averaged": state.classifier.network.state_dict() if state.recipe.train.ema else None,
    }
    buffer = io.BytesIO()  # torch.save hides a full disk behind a RuntimeError
    torch.save(saved, buffer)
    path = state.out / "last" / STATE
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
        if state.recipe.train.keep > 1 and path.exists():
            os.link(path, path.with_name(f"state-{time.time_ns()}.pt"))
    older = sorted(path.parent.glob("state-*.pt"))
    for old in older[: max(0, len(older) + 1 - state.recipe.train.keep)]:
        old.unlink()
    state.saved_at = time.monotonic()


@contextmanager
def locked_run_folder(out: Path, process_group: ProcessGroup) -> Iterator[list[str]]:
    """Keep a run's folder for this training; where that fails, folders that were made for it are removed again.

    Args:
        out: the run's folder.
        process_group: the processes of this training, of which the one that writes locks the folder.

    Yields:
        What there is to say: nothing, or that the folder can't be locked.

    Raises:
        AumError: another training writes there, or nothing can be written; in all processes.
    """
    with ExitStack() as stack:
        problem, note = None, ""
        if process_group.is_rank_zero:
            stack.enter_context(no_empty_folders(out))
            try:
                check_writable(out / "recipe.toml")
                note = stack.enter_context(locked(out, "training"))
            except AumError as error:
                problem = error
        if problem := process_group.gather(problem)[0]:
            raise problem
        yield [note] if note else []


def read_checkpoint(out: Path, resume: bool) -> dict | None:
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
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        older = sorted(path.parent.glob("state-*.pt"))
        raise AumError(
            f"can't read {path}: {error}",
            exit_code=1,
            fix=f"copy {older[-1]} over it and resume again" if older else "start again in another folder",
        ) from error
    if not resume and (launch_id() is None or saved["launch"] != launch_id()):
        raise AumError(
            f"{out} already holds a run",
            fix="go on with it by --resume, choose another folder with --out, or remove it",
        )
    return saved


def restore(state: TrainState, saved: dict) -> None:
    """Put a run into a saved state."""
    state.network.load_state_dict(saved["network"])
    if state.recipe.train.ema:
        state.classifier.network.load_state_dict(saved["averaged"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.scaler.load_state_dict(saved["scaler"])
    state.history.extend(saved["history"])
    state.epoch, state.unreadable_clips, state.nonfinite_in_a_row = (
        Epoch(**saved["epoch"]),
        set(saved["unreadable_clips"]),
        saved["nonfinite_in_a_row"],
    )


def remove_leftovers(out: Path) -> None:
    """Remove what a killed process had begun to write."""
    for path in out.rglob(".*.part"):
        path.unlink()


def average_epochs(state: TrainState) -> dict[str, Tensor]:
    """The mean of the weights of the last epochs, as many as the recipe says."""
    last = state.history[-1]["epoch"]
    states = [
        read_model(_epoch_folder(state, epoch))[0].state_dict()
        for epoch in range(max(1, last + 1 - state.recipe.train.average_last), last + 1)
    ]
    return {name: torch.stack([state[name].double() for state in states]).mean(0).float() for name in states[0]}


def _epoch_folder(state: TrainState, epoch: int) -> Path:
    return state.out / "epochs" / f"{epoch:04}"


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

"""What a run keeps on disk: models, metrics, the checkpoint that --resume continues from; each complete or absent."""

import csv
import io
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aumcli.checkpoints import save_model
from aumcli.errors import AumError
from aumcli.train.data_check import data_identity
from aumcli.train.distributed import ProcessGroup, launch_id
from aumcli.train.setup import EpochProgress, TrainState
from aumcli.utils.files import atomic_path, check_writable, no_empty_folders
from aumcli.utils.lock import locked
from aumcli.utils.logging import get_logger

CHECKPOINT = "state.pt"

logger = get_logger(__name__)


def save_epoch(state: TrainState) -> None:
    """Write metrics.csv, last/, and best/ where the epoch that just ended is the best; the checkpoint comes last."""
    row = state.history[-1]
    path = state.out / "metrics.csv"
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(state.history)
    weights = state.classifier.network.state_dict()
    if state.best_weights is not None or state.best == row["epoch"]:
        _save(state, "best", state.history[state.best - 1], weights | (state.best_weights or {}))
        state.best_weights = None
    _save(state, "last", row, weights)
    save_checkpoint(state)  # last: --resume trusts that everything before it was written


def _save(state: TrainState, name: str, row: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Write the model directory of the epoch that `row` is of."""
    config = state.classifier.config
    provenance = config.provenance | {"epoch": row["epoch"], state.metric: row[state.metric]}
    save_model(state.out / name, weights, config.model_copy(update={"provenance": provenance}))


def save_checkpoint(state: TrainState) -> None:
    """Write last/state.pt."""
    saved = {
        "recipe": state.recipe.model_dump(mode="json"),
        "data": str(state.data),
        **data_identity(state.manifest, state.data_sha256),
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
    with atomic_path(state.out / "last" / CHECKPOINT) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    state.saved_at = time.monotonic()
    logger.debug(f"checkpoint after epoch {len(state.history)} and {state.epoch.step} steps")


@contextmanager
def locked_run_folder(out: Path, process_group: ProcessGroup) -> Iterator[None]:
    """Lock a run's folder for this training; on failure, folders that were made for it are removed again.

    Args:
        out: the run's folder.
        process_group: the processes of this training, of which rank zero locks the folder.

    Raises:
        AumError: another training writes there, or nothing can be written; in all processes.
    """
    with ExitStack() as stack:
        problem = None
        if process_group.is_rank_zero:
            stack.enter_context(no_empty_folders(out))
            try:
                check_writable(out / "recipe.toml")
                if note := stack.enter_context(locked(out, "training")):
                    logger.warning(note)
            except AumError as error:
                problem = error
        if problem := process_group.gather(problem)[0]:
            raise problem
        yield


def read_checkpoint(out: Path, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to continue from, or None for a new run.

    Args:
        out: the run's folder.
        resume: whether the user wants to continue; processes that torchrun restarts continue what they began anyway.

    Raises:
        AumError: there is a run and `resume` is false, there is none and it is true, or the checkpoint is damaged.
    """
    path = out / "last" / CHECKPOINT
    if not path.exists():
        if resume:
            raise AumError(f"there is no run to resume in {out}", fix="leave --resume out to start one")
        return None
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise AumError(
            f"can't read {path}: {error}",
            exit_code=1,
            fix=f"start a new run from the weights, which are intact: --init {out}"
            if (out / "best").is_dir()
            else "start again in another folder",
        ) from error
    if not resume and (launch_id() is None or saved["launch"] != launch_id()):
        raise AumError(
            f"{out} already holds a run",
            fix="continue it with --resume, choose another folder with --out, or remove it",
        )
    return saved


def restore(state: TrainState, saved: dict[str, Any]) -> None:
    """Put a training into the state of a checkpoint."""
    state.network.load_state_dict(saved["network"])
    if state.recipe.train.ema:
        state.classifier.network.load_state_dict(saved["averaged"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.scaler.load_state_dict(saved["scaler"])
    state.history.extend(saved["history"])
    state.epoch = EpochProgress(**saved["epoch"])
    state.unreadable_clips = set(saved["unreadable_clips"])
    state.nonfinite_in_a_row = saved["nonfinite_in_a_row"]


def remove_partial_files(out: Path) -> None:
    """Remove what a killed process had begun to write."""
    for path in out.rglob(".*.part"):
        path.unlink()

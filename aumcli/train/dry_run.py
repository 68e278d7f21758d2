"""aum train --dry-run: every check that a training makes before it starts, and how long its steps take."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from aumcli.classifier import pick_device
from aumcli.config import POLICIES
from aumcli.data.datasets.batch import draw_epoch
from aumcli.data.datasets.stream import ShardStream
from aumcli.evaluate import score_clips
from aumcli.recipe import Recipe
from aumcli.train.checkpoint import read_checkpoint
from aumcli.train.distributed import ProcessGroup, local_device
from aumcli.train.embeddings import check_frozen
from aumcli.train.loggers import summary_writer
from aumcli.train.microbatches import load_batches
from aumcli.train.policy import short_epochs
from aumcli.train.setup import EpochProgress, TrainState, build
from aumcli.train.signals import StopSignal
from aumcli.train.trainer import train_step
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, duration

LONGEST_S = 10.0  # a step that is likely to take longer isn't tried
REPEATS_S = 1.0  # steps of a whole batch are repeated for this long,
REPEATS = 5  # and this often at most
SAFETY = 0.95  # share of the time that is asked for that is planned

logger = get_logger(__name__)


@dataclass(frozen=True)
class DryRun:
    """What was checked and measured.

    Attributes:
        notes: on the weights that the training starts from.
        step_s, epoch_s: seconds of a step, and of an epoch with validation; of a frozen network 0, and those of
            encoding all clips.
        epochs: how many there would be; of a frozen network 1.
        measured: how these were measured.
    """

    notes: tuple[str, ...]
    step_s: float
    epoch_s: float
    epochs: int
    measured: str

    @property
    def whole_s(self) -> float:
        """Seconds of all epochs."""
        return self.epoch_s * self.epochs

    def rows(self) -> list[tuple[str, str]]:
        """As (what, value)."""
        time = (
            f"{duration(self.step_s)} a step, {duration(self.epoch_s)} an epoch, {duration(self.whole_s)} in all"
            if self.step_s
            else f"{duration(self.whole_s)} to encode all clips that are not kept yet, then seconds for the head"
        )
        return [*(("note", note) for note in self.notes), ("time", f"{time}; {self.measured}")]


def dry_run_training(recipe: Recipe, out: Path | None, data: Path | str | None = None, device: str = "cpu") -> DryRun:
    """Check what a training checks (data, weights to start from, packages, the folder), and time its steps.

    Args:
        recipe, data, device: see `aumcli.train.train`.
        out: the run's folder, which must not hold a run; None: that is not checked.

    Raises:
        AumError: the one that the training would stop with.
    """
    if out is not None:
        read_checkpoint(out, resume=False)
    if recipe.train.tensorboard:
        summary_writer()
    check_frozen(recipe)
    if recipe.train.pretrained and not recipe.train.init:  # which the plan says
        recipe = recipe.with_values(train={"pretrained": ""})
    state, notes, _ = build(
        recipe, out or Path("dry-run"), data, pick_device(local_device(device)), ProcessGroup(), False
    )
    if state.recipe.train.freeze == "backbone":
        views = (1 + state.recipe.train.augmented_views) * len(state.train) + len(state.val)
        encode_s = _validation_seconds(state) * views / len(state.val)
        return DryRun(tuple(notes[1:]), 0.0, encode_s, 1, "measured on some validation clips")
    size, seconds = _step_seconds(state)
    batch, train = min(state.recipe.train.batch_size, len(state.train)), state.recipe.train
    step_s = seconds * batch / size
    epoch_s = step_s * state.steps_per_epoch + _validation_seconds(state)
    place = str(state.classifier.device) + (
        f", {torch.get_num_threads()} threads" if state.classifier.device.type == "cpu" else ""
    )
    measured = f"measured in steps of {size} of the {batch} clips" if size < batch else "measured"
    aside = ", validation aside" if isinstance(state.val, ShardStream) else ""
    return DryRun(tuple(notes[1:]), step_s, epoch_s, train.epochs, f"{measured} on {place}{aside}")


def fit_epochs(
    recipe: Recipe, data: Path | str | None, minutes: float, device: torch.device, group: ProcessGroup
) -> Recipe:
    """The recipe with as many of its epochs as are likely to fit into a time, from a few measured steps.

    Args:
        recipe, data: see `aumcli.train.train`.
        minutes: for everything: this measurement, the choice of a policy, and the training.
        device: where to compute.
        group: the processes of the training. Rank zero measures, alone, so several take less time than was asked for.
    """
    started, auto = time.monotonic(), recipe.augment.policy == "auto"
    epochs, most, epoch_s = 0, 0, 0.0
    if group.is_rank_zero:
        # of the policies, speech takes longest
        tried = recipe.with_values(augment={"policy": "speech"}) if auto else recipe
        measured = dry_run_training(tried, None, data, str(device))
        most, epoch_s = measured.epochs, measured.epoch_s
        whole = SAFETY * (60 * minutes - (time.monotonic() - started)) / epoch_s
        epochs = next((n for n in range(most, 1, -1) if n + auto * len(POLICIES) * short_epochs(n) <= whole), 1)
    epochs = group.gather(epochs)[0]
    if group.is_rank_zero:
        logger.info(
            f"{counted(epochs, 'epoch')} of {most} fit into {minutes:g} min, at {duration(epoch_s)} each"
            + (", while the augmentation is chosen too" if auto else "")
        )
    return recipe.with_epochs(epochs)


def _step_seconds(state: TrainState) -> tuple[int, float]:
    """Clips of the largest step that was tried, a whole batch if that is fast enough, and its seconds."""
    batch = state.train.batches(state.recipe.train.batch_size, state.recipe.seed, 0, state.sample_weights)[0]
    size = 1
    while True:
        seconds = _timed_step(state, batch[:size])  # the first one also allocates memory and chooses kernels
        if seconds < LONGEST_S / 4:
            samples = [_timed_step(state, batch[:size])]
            while len(samples) < REPEATS and sum(samples) < REPEATS_S and size == len(batch):
                samples.append(_timed_step(state, batch[:size]))
            seconds = statistics.median(samples)
        if size == len(batch) or 2 * seconds > LONGEST_S:
            return size, seconds
        size = min(2 * size, len(batch))


def _timed_step(state: TrainState, batch: list[int]) -> float:
    """Seconds of a step of these clips: decoding, features, both passes, the update."""
    recipe, has_labels = state.recipe, state.train.clips.has_labels()
    draws = draw_epoch([batch], len(state.train), recipe.augment, recipe.seed, 0, has_labels)
    state.epoch, started = EpochProgress(), time.perf_counter()
    [decoded] = load_batches(state, 0, [batch], draws)
    train_step(state, 0, batch, draws, decoded, StopSignal())
    return time.perf_counter() - started


def _validation_seconds(state: TrainState) -> float:
    """Seconds that it takes to score the validation clips, of which some are tried; 0 where they are streamed."""
    if isinstance(state.val, ShardStream):
        return 0.0
    clips, count = state.val.clips, 1
    while True:
        started = time.perf_counter()
        for _ in score_clips(state.classifier, clips[:count]):
            pass
        seconds = time.perf_counter() - started
        if count == len(clips) or 4 * seconds > LONGEST_S:
            return seconds * len(clips) / count
        count = min(4 * count, len(clips))

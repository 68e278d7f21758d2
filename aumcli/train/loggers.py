"""How a running training is shown: progress bar, TensorBoard, curves drawn again after an epoch."""

import math
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from aumcli.errors import AumError
from aumcli.report.plots import drawn, plot_curves
from aumcli.train.setup import TrainState
from aumcli.utils.text import duration

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

T = TypeVar("T")
PLOT_SHARE = 0.02  # of the time, at most, is spent on drawing curves.png again
TENSORBOARD_STEPS = 10  # between two points of TensorBoard's curves


def summary_writer() -> "type[SummaryWriter]":
    """TensorBoard's writer.

    Raises:
        AumError: the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise AumError(
            "train.tensorboard needs the package tensorboard",
            fix="pip install 'aumcli[tensorboard]', or set it to false",
        ) from error
    return SummaryWriter


class Loggers:
    """Progress bar, TensorBoard and curves of a training; nothing in processes other than rank zero."""

    def __init__(self, state: TrainState):
        self.state = state
        self._tensorboard: SummaryWriter | None = None
        self._bar: tqdm | None = None
        self._next_plot = 0.0

    def __enter__(self) -> "Loggers":
        if self.state.recipe.train.tensorboard and self.state.process_group.is_rank_zero and not self.state.short:
            done = len(self.state.history) * self.state.steps_per_epoch + self.state.epoch.step
            self._tensorboard = summary_writer()(str(self.state.out / "tensorboard"), purge_step=done + 1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()

    def bar(self, batches: Iterable[T]) -> Iterator[T]:
        """Iterate over the batches of an epoch with a bar: loss, learning rate, clips per second, time left."""
        from tqdm import tqdm

        state = self.state
        self._bar = tqdm(
            batches,
            total=state.steps_per_epoch,
            initial=state.epoch.step,
            unit="step",
            leave=False,
            delay=2,
            desc=self._description(),
            disable=None if state.progress else True,
        )
        self._started, self._clips = time.perf_counter(), state.epoch.clips
        yield from self._bar

    def _description(self) -> str:
        """Which epoch is trained, and how long the whole training will go on at the pace of the epochs before."""
        state = self.state
        epochs, done = state.recipe.train.epochs, len(state.history)
        name = f"{state.recipe.augment.policy}, epoch" if state.short else "epoch"
        left = f", {duration(state.history[-1]['seconds'] * (epochs - done))} to go" if done else ""
        return f"{name} {done + 1}/{epochs}{left}"

    def step(self, epoch: int) -> None:
        """Show the step of an epoch, from 0, that was just taken."""
        state, progress = self.state, self.state.epoch
        loss = progress.loss / max(1, progress.clips)
        if self._bar is not None and not self._bar.disable:
            speed = (progress.clips - self._clips) / (time.perf_counter() - self._started)
            self._bar.set_postfix_str(f"loss {loss:.4f}, lr {state.rate:.2g}, {speed:.0f} clips/s", refresh=False)
        step = epoch * state.steps_per_epoch + progress.step
        if self._tensorboard is not None and step % TENSORBOARD_STEPS == 0:
            self._tensorboard.add_scalar("train/loss", loss, step)
            self._tensorboard.add_scalar("train/lr", state.rate, step)

    def epoch(self, row: dict[str, Any]) -> None:
        """Show an epoch that has ended; the curves are drawn again unless that would take too much of the time."""
        state = self.state
        if self._tensorboard is not None:
            for name, value in row.items():
                if name.startswith("val_") and value is not None:
                    step = row["epoch"] * state.steps_per_epoch
                    self._tensorboard.add_scalar(name.replace("_", "/", 1), value, step)
            self._tensorboard.flush()
        if state.process_group.is_rank_zero and not state.short and time.monotonic() >= self._next_plot:
            self._plot()

    def _plot(self) -> None:
        started, state = time.monotonic(), self.state
        # not after the first epoch: one point is no curve, and matplotlib takes a second to load
        if self._next_plot and drawn(
            plot_curves, state.history, state.out / "curves.png", state.out.name, state.metric
        ):
            self._next_plot = math.inf  # the report at the end tries again, and says why it fails
            return
        self._next_plot = time.monotonic() + max(1.0, time.monotonic() - started) / PLOT_SHARE

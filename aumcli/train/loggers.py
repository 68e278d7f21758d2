"""Watching a run: a bar, TensorBoard, curves after each epoch, and a report at the end that says how it came about."""

import math
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from aumcli.checkpoints import read_model, save_model, write_config
from aumcli.errors import AumError
from aumcli.metrics import Metrics
from aumcli.report import drawn, environment, markdown_table, plot_confusion, plot_curves
from aumcli.train.checkpoint import average_epochs, with_figures
from aumcli.train.setup import TrainState
from aumcli.utils.files import write_json, write_text
from aumcli.utils.text import counted

PLOT_SHARE = 0.02  # of the time, at most, goes into drawing the curves again
EVERY = 10  # steps from one point of TensorBoard's curves to the next


def summary_writer() -> type:
    """TensorBoard's writer, or the AumError that says how to get it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise AumError(
            "train.tensorboard needs the package tensorboard",
            fix="pip install 'aumcli[tensorboard]', or set it to false",
        ) from error
    return SummaryWriter


class Loggers:
    """What shows how a run comes along; in processes that don't lead, nothing."""

    def __init__(self, state: TrainState):
        self.state, self._board, self._bar = state, None, None
        self._next_plot = 0.0

    def __enter__(self) -> "Loggers":
        if self.state.recipe.train.tensorboard and self.state.process_group.is_rank_zero:
            done = len(self.state.history) * self.state.steps_per_epoch + self.state.epoch.step
            self._board = summary_writer()(str(self.state.out / "tensorboard"), purge_step=done + 1)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._board is not None:
            self._board.close()

    def bar(self, batches: Iterable) -> Iterator:
        """Pass batches on with a bar: loss, learning rate, clips per second, time left."""
        from tqdm import tqdm

        state = self.state
        self._bar = tqdm(
            batches,
            total=state.steps_per_epoch,
            initial=state.epoch.step,
            unit="step",
            leave=False,
            delay=2,
            desc=f"epoch {len(state.history) + 1}/{state.recipe.train.epochs}",
            disable=None if state.progress else True,
        )
        self._started, self._seen = time.perf_counter(), state.epoch.seen
        yield from self._bar

    def step(self, number: int) -> None:
        """Show the step of epoch `number` that was just taken."""
        state, done = self.state, self.state.epoch
        loss = done.loss / max(1, done.seen)
        if not self._bar.disable:
            speed = (done.seen - self._seen) / (time.perf_counter() - self._started)
            self._bar.set_postfix_str(f"loss {loss:.4f}, lr {state.rate:.2g}, {speed:.0f} clips/s", refresh=False)
        at = number * state.steps_per_epoch + done.step
        if self._board is not None and at % EVERY == 0:
            self._board.add_scalar("train/loss", loss, at)
            self._board.add_scalar("train/lr", state.rate, at)

    def epoch(self, row: dict[str, float | None]) -> None:
        """Show an epoch that has ended; the curves are drawn again unless that would take too much of the time."""
        state = self.state
        if self._board is not None:
            for name, value in row.items():
                if name.startswith("val_") and value is not None:
                    self._board.add_scalar(name.replace("_", "/", 1), value, row["epoch"] * state.steps_per_epoch)
            self._board.flush()
        if state.process_group.is_rank_zero and time.monotonic() >= self._next_plot:
            started = time.monotonic()
            # not after the first epoch: a point is no curve, and matplotlib takes a second to load
            if self._next_plot and drawn(
                plot_curves, state.history, state.out / "curves.png", state.out.name, state.metric
            ):
                self._next_plot = math.inf  # at the end it is tried again, and said
                return
            self._next_plot = time.monotonic() + max(1.0, time.monotonic() - started) / PLOT_SHARE


def finish(state: TrainState, measure: Callable[[torch.nn.Module], tuple[Metrics, tuple[float, ...]]], say) -> None:
    """Validate the best epoch's weights, and the mean of the last ones' where the recipe asks for it; write the report.

    What `measure` finds besides metrics, thresholds for the classes, joins the configuration of these models.
    """
    state.process_group.gather(None)  # the leader has written best/
    network, config = read_model(state.out / "best")
    (metrics, thresholds), averaged = measure(network), None
    if state.process_group.is_rank_zero:
        write_config(state.out / "best", config.model_copy(update={"thresholds": thresholds}))
    if state.recipe.train.average_last:
        network.load_state_dict(average_epochs(state))
        averaged, thresholds = measure(network)
        score = averaged.mean_average_precision if state.manifest.multi_label else averaged.accuracy
        if state.process_group.is_rank_zero:
            config = with_figures(state, averaged=state.recipe.train.average_last, **{state.metric: score})
            save_model(
                state.out / "averaged", network.state_dict(), config.model_copy(update={"thresholds": thresholds})
            )
        epochs = counted(state.recipe.train.average_last, "epoch")
        say(f"averaged/, the mean of the last {epochs}: {state.metric[4:]} {percent(score)} on the validation split")
    if state.process_group.is_rank_zero:
        _report(state, metrics, averaged)
        problems = [drawn(plot_curves, state.history, state.out / "curves.png", state.out.name, state.metric)]
        if metrics.confusion is not None:
            problems.append(
                drawn(
                    plot_confusion,
                    metrics.confusion,
                    state.classifier.labels,
                    state.out / "confusion-val.png",
                    f"{state.out.name}, validation split",
                )
            )
        for problem in filter(None, problems):
            say(problem)


def _report(state: TrainState, metrics: Metrics, averaged: Metrics | None) -> None:
    facts = {
        "seed": state.recipe.seed,
        "backend": state.classifier.backend,
        "device": str(state.classifier.device),
        "dtype": "float32",
        "training_dtype": state.recipe.train.dtype,
        "processes": state.process_group.size,
        "data": str(state.data),
        "data_sha256": state.data_sha256,
        "commit": commit(),
        "environment": environment(),
    }
    write_json(
        state.out / "report.json",
        {
            "recipe": state.recipe.model_dump(mode="json"),
            "epochs": state.history,
            "split": state.val_name,
            "clips": metrics.clips,
            **facts,
            "reported": {"split": state.recipe.data.reported, "clips": state.reported},
            "metrics": metrics.to_dict(),
            "averaged": averaged.to_dict() if averaged else None,
        },
    )
    best, last = state.history[state.best - 1], state.history[-1]
    score = state.metric[4:]
    rows = [
        ["model", state.recipe.model.describe()],
        ["training clips", len(state.train)],
        ["epochs", f"{last['epoch']} of {state.recipe.train.epochs}"],
        [
            f"best {score}",
            f"{percent(best[state.metric])} of {counted(metrics.clips, 'validation clip')}, at epoch {best['epoch']}",
        ],
        ["time", f"{sum(row['seconds'] for row in state.history) / 60:.1f} min"],
        ["steps left out", sum(row["skipped_steps"] for row in state.history)],
        ["clips left out", len(state.unreadable_clips)],
        *([key, value] for key, value in facts.items() if key != "environment"),
        *(list(item) for item in facts["environment"].items()),
    ]
    text = markdown_table(["", ""], rows)
    write_text(
        state.out / "report.md",
        f"# {state.out.name}\n\n{text}\n![Loss and {score} by epoch](curves.png)\n\n"
        "`recipe.toml` holds every setting, `metrics.csv` a row per epoch, `report.json` all of this for programs.\n",
    )


def commit() -> str | None:
    """The git commit of the code that runs, with "+" where it was changed since; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def percent(value: float | None) -> str:
    """A share as text."""
    return "undefined" if value is None else f"{100 * value:.2f} %"

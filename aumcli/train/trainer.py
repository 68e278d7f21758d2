"""The training loop, in the order in which it runs: epochs of steps, validation after each, checkpoints, a report."""

import logging
import math
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.calibration import calibration_error, fit_temperature, reliability
from aumcli.checkpoints import read_model, save_model, stored_temperature, write_config
from aumcli.classifier import pick_device, with_background
from aumcli.config import TrainConfig
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.datasets.batch import EpochDraws, draw_epoch
from aumcli.data.datasets.clip_source import Decoded
from aumcli.data.datasets.waveforms import stream_seed
from aumcli.data.training_clips import read_training_clips, write_training_clips
from aumcli.errors import AumError
from aumcli.metrics import Metrics, best_thresholds, class_indices
from aumcli.recipe import Recipe, dump_recipe
from aumcli.train.checkpoint import (
    locked_run_folder,
    read_checkpoint,
    remove_partial_files,
    restore,
    save_checkpoint,
    save_epoch,
)
from aumcli.train.comparison import Comparison, compare
from aumcli.train.data_check import free_folder
from aumcli.train.distributed import join_process_group, local_device
from aumcli.train.embeddings import check_frozen, encode
from aumcli.train.loggers import Loggers
from aumcli.train.microbatches import load_batches, make_microbatch, own_rows
from aumcli.train.nonfinite import ELSEWHERE, diagnose
from aumcli.train.optim import HEADS, learning_rate, set_learning_rate, update_ema
from aumcli.train.report import write_report
from aumcli.train.setup import MODEL_PURPOSE, EpochProgress, TrainState, autocast, build
from aumcli.train.signals import StopSignal
from aumcli.train.validation import validate, validation_metrics, validation_scores
from aumcli.utils.files import write_text
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, percent
from aumcli.utils.threads import compute_threads

HEAD_SAVED_S = 60.0  # between two checkpoints of a head
TOLD_EPOCHS = 20  # of a head, one in so many is told

logger = get_logger(__name__)


def train(
    recipe: Recipe,
    out: Path | str,
    data: Path | str | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    epochs: int | None = None,
    minutes: float | None = None,
) -> Path:
    """Train a model; started by torchrun, in all of its processes together.

    Args:
        recipe: what to do.
        out: the run's folder; must not hold a run already unless `resume`.
        data: a prepared folder; None: data/<the recipe's corpus>.
        resume: continue the run in `out` from its last checkpoint, with that run's own recipe.
        device: where to compute.
        progress: show a bar while an epoch runs (on a terminal).
        epochs: with `resume`, train for this many epochs in all instead of the recipe's number.
        minutes: train for as many epochs, of those of the recipe, as are likely to fit into this time.

    Returns:
        `out`, which now holds recipe.toml, metrics.csv, best/, last/, report.json, report.md, curves.png,
        confusion-val.png.

    Raises:
        AumError: the data, the recipe or the folder is unusable, too many clips are unreadable, the loss is not finite
            too often, or a signal stopped the run (after its step was finished and saved).
    """
    place, out = pick_device(local_device(device)), Path(out)
    with join_process_group(place) as group, StopSignal() as stop, locked_run_folder(out, group):
        saved = read_checkpoint(out, resume)
        if saved is not None:
            recipe, data = _resumed_recipe(saved, epochs, out), data or saved["data"]
        else:  # both train, if only for a few steps, so they import this module
            check_frozen(recipe, minutes)
            if minutes is not None:
                from aumcli.train.dry_run import fit_epochs

                recipe = fit_epochs(recipe, data, minutes, place, group)
            if recipe.augment.policy == "auto":
                from aumcli.train.policy import choose_policy

                recipe = choose_policy(recipe, out, data, place, group, stop, progress)
        state, notes, settings = build(recipe, out, data, place, group, progress and group.is_rank_zero, saved)
        if saved is not None:
            restore(state, saved)
            notes.append(_resumed_at(state))
            if group.is_rank_zero:
                remove_partial_files(out)
        if group.is_rank_zero:
            write_text(out / "recipe.toml", dump_recipe(state.recipe))
            if saved is None:
                write_training_clips(out, state.train.clips, read_training_clips(state.recipe.train.init))
        for note in [*notes, *settings]:
            state.log(note)
        if state.recipe.train.freeze == "backbone":
            _count_unreadable(state, encode(state, stop))
        with Loggers(state) as loggers:
            while not is_finished(state):
                train_epoch(state, stop, loggers)
        _finish(state)
    return out


def train_epoch(state: TrainState, stop: StopSignal, loggers: Loggers) -> None:
    """Train on all clips once, from the step of the last checkpoint on; then validate and save.

    Raises:
        AumError: see `train`.
    """
    settings, seed, epoch = state.recipe.train, state.recipe.seed, len(state.history)
    started = time.perf_counter()
    state.network.train()
    batches = state.train.batches(settings.batch_size, seed, epoch, state.sample_weights)[: state.steps_per_epoch]
    draws = draw_epoch(batches, len(state.train), state.recipe.augment, seed, epoch, state.train.clips.has_labels())
    for decoded in loggers.bar(load_batches(state, epoch, batches, draws)):
        train_step(state, epoch, batches[state.epoch.step], draws, decoded, stop)
        loggers.step(epoch)
        if stop.agreed and state.short:
            raise AumError(
                "stopped while the augmentation was chosen",
                fix="start the same training again; --set augment.policy=gentle goes without the choice",
                exit_code=128 + stop.agreed,
            )
        if state.embeddings is not None:  # an epoch is soon over
            continue
        if stop.agreed or _checkpoint_due(state):
            state.epoch.seconds += time.perf_counter() - started
            started = time.perf_counter()
            if state.process_group.is_rank_zero:
                save_checkpoint(state)
        if stop.agreed:
            raise AumError(
                f"stopped in epoch {epoch + 1} after step {state.epoch.step} of {len(batches)}, which is saved",
                fix=_resume_call(state),
                exit_code=128 + stop.agreed,
            )
    row = {
        "epoch": epoch + 1,
        "train_loss": state.epoch.loss / max(1, state.epoch.clips),
        **validate(state),
        "lr": learning_rate(settings, epoch + 1.0, state.steps_per_epoch),
        "skipped_steps": state.epoch.skipped_steps,
        "unreadable_clips": len(state.unreadable_clips),
        "seconds": round(state.epoch.seconds + time.perf_counter() - started, 2),
    }
    state.history.append(row)
    state.epoch = EpochProgress()
    is_best = state.best == epoch + 1
    if state.process_group.is_rank_zero and not state.short:
        if state.embeddings is not None and is_best:
            heads = {name: x for name, x in state.classifier.network.state_dict().items() if name.startswith(HEADS)}
            state.best_weights = {name: x.detach().clone() for name, x in heads.items()}
        if state.embeddings is None or stop.agreed or is_finished(state) or _long_since_saved(state):
            save_epoch(state)
    loggers.epoch(row)
    told = state.embeddings is None or is_finished(state) or epoch % TOLD_EPOCHS == 0
    state.log(
        f"epoch {row['epoch']:>3}/{settings.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"{state.metric[4:]} {percent(row[state.metric])}{' *' if is_best else '  '}  {row['seconds']:.1f} s",
        logging.INFO if told else logging.DEBUG,
    )
    if should_stop(state):
        state.log(
            f"early stopping: {state.metric[4:]} has not improved for "
            f"{counted(settings.early_stopping_patience, 'epoch')}"
        )
    if state.embeddings is not None and stop.agreed and not is_finished(state):
        raise AumError(
            f"stopped after epoch {epoch + 1}, which is saved", fix=_resume_call(state), exit_code=128 + stop.agreed
        )


@dataclass
class StepResult:
    """What the microbatches of one step, of all processes together, came to.

    Attributes:
        loss: mean over the clips of the batch.
        clips: how many could be read.
        unreadable: of this process; see `Microbatch`.
        nonfinite_batch: features of the first microbatch here whose loss is not finite, else of the last one.
    """

    loss: float = 0.0
    clips: int = 0
    unreadable: list[tuple[int, AumError]] = field(default_factory=list)
    nonfinite_batch: Tensor | None = None


def train_step(
    state: TrainState, epoch: int, batch: list[int], draws: EpochDraws, decoded: list[Decoded], stop: StopSignal
) -> None:
    """One step of the optimizer: gradients of this process's microbatches, summed over all processes."""
    settings = state.recipe.train
    progress = epoch + (state.epoch.step + int(settings.schedule == "cosine")) / state.steps_per_epoch  # cosine: to 0
    set_learning_rate(state.optimizer, learning_rate(settings, progress, state.steps_per_epoch))
    state.optimizer.zero_grad(set_to_none=True)
    result = StepResult()
    waveforms = iter(decoded)
    for rows in own_rows(state, len(batch)):
        microbatch = make_microbatch(state, epoch, batch, draws, rows, waveforms)
        result.unreadable += microbatch.unreadable
        if microbatch.features is not None and microbatch.targets is not None:
            _backward(state, epoch, len(batch), microbatch.rows, microbatch.features, microbatch.targets, result)
    state.network.rows = None
    _reduce(state, result, stop)
    if math.isfinite(result.loss):
        state.epoch.loss += result.loss * len(batch)
        state.epoch.clips += result.clips
    if result.clips:
        with compute_threads(1 if state.small else None):
            _update(state, epoch, batch, result)
    state.epoch.step += 1


def _backward(
    state: TrainState, epoch: int, size: int, rows: list[int], features: Tensor, targets: Tensor, result: StepResult
) -> None:
    """Add the gradients of a microbatch: features (b, frames, mels), targets (b, classes), of a batch of `size`."""
    device = state.classifier.device
    state.network.rows = torch.tensor(rows, device=device), size
    _seed_device(device, stream_seed(state.recipe.seed, epoch, state.epoch.step, MODEL_PURPOSE))
    with autocast(state):
        loss = loss_of(state.forward(features), targets, state.recipe.train, state.has_background) * (len(rows) / size)
    state.scaler.scale(loss).backward()
    if math.isfinite(result.loss):
        result.nonfinite_batch = features
    result.loss += loss.item()
    result.clips += len(rows)


def _reduce(state: TrainState, result: StepResult, stop: StopSignal) -> None:
    """Sum loss and counts over the processes, and agree on a signal to stop; gradients are summed in `_update`."""
    group = state.process_group
    loss, clips, unreadable, stopping = group.sum(
        [result.loss, result.clips, len(result.unreadable), stop.received], state.classifier.device
    )
    result.loss, result.clips = loss, int(clips)
    if stopping:
        stop.agreed = max(group.gather(stop.received))
    if unreadable:
        _count_unreadable(state, [item for each in group.gather(result.unreadable) for item in each])


def _update(state: TrainState, epoch: int, batch: list[int], result: StepResult) -> None:
    """Move the weights, unless the loss or a gradient is not finite."""
    settings = state.recipe.train
    trained = [x for group in state.optimizer.param_groups for x in group["params"]]
    state.process_group.sum_gradients(trained)
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.get_total_norm([x.grad for x in trained if x.grad is not None])
    finite = math.isfinite(result.loss) and bool(torch.isfinite(norm))
    too_large_a_scale = settings.dtype == "float16" and not math.isnan(result.loss) and state.scaler.get_scale() > 1
    if not finite and not too_large_a_scale:
        _skip_step(state, epoch, batch, result, float(norm))
        return
    if settings.clip_grad:
        torch.nn.utils.clip_grads_with_norm_(trained, settings.clip_grad, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if finite:
        state.nonfinite_in_a_row = 0
    if settings.ema:
        step = epoch * state.steps_per_epoch + state.epoch.step
        update_ema(state.classifier.network, state.network, settings.ema, step)


def _skip_step(state: TrainState, epoch: int, batch: list[int], result: StepResult, norm: float) -> None:
    """Skip a step whose loss or gradient is not finite, and say why; stop where there are too many in a row."""
    settings = state.recipe.train
    state.epoch.skipped_steps += 1
    state.nonfinite_in_a_row += 1
    diagnoses = state.process_group.gather(diagnose(state, epoch, batch, result.loss, norm, result.nonfinite_batch))
    problem = min(diagnoses, key=lambda text: ELSEWHERE in text)
    if state.nonfinite_in_a_row > settings.max_nonfinite_steps:
        raise AumError(
            problem,
            exit_code=1,
            fix="lower train.lr" + (f"; {state.out / 'last'} holds the last good epoch" if epoch else ""),
        )
    state.log(
        f"skipped step, {state.nonfinite_in_a_row} in a row of at most {settings.max_nonfinite_steps} "
        f"(train.max_nonfinite_steps): {problem}",
        logging.WARNING,
    )
    state.scaler.update()


def _count_unreadable(state: TrainState, unreadable: list[tuple[int, AumError]]) -> None:
    """Name the clips of this step that could not be read, each once; stop where there are too many.

    Raises:
        AumError: they are more than data.max_unreadable_clips.
    """
    most = state.recipe.data.max_unreadable_clips
    for clip, error in unreadable:
        if clip in state.unreadable_clips:
            continue
        state.unreadable_clips.add(clip)
        if len(state.unreadable_clips) > most:
            raise AumError(
                error.problem + (f"; more than {counted(most, 'clip')} can't be read" if most else ""),
                fix=f"{error.fix}; data.max_unreadable_clips says how many may be skipped, now {most}",
                exit_code=1,
            )
        state.log(
            f"skipped clip, {len(state.unreadable_clips)} of at most {most} (data.max_unreadable_clips): "
            f"{error.problem}",
            logging.WARNING,
        )


def loss_of(logits: Tensor, targets: Tensor, settings: TrainConfig, background: bool = False) -> Tensor:
    """Cross entropy or binary cross entropy of logits (b, classes) against targets (b, classes) in 0..1.

    With a `background` class, cross entropy takes what a row of targets lacks of 1 for that of the background.
    """
    if settings.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), targets)
    if background:
        logits, targets = with_background(logits), torch.cat([targets, 1 - targets.sum(1, keepdim=True)], dim=1)
    return F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing)


def _seed_device(device: torch.device, seed: int) -> None:
    """Seed what stochastic depth draws from; torch.manual_seed would initialise every kind of device there is."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)  # the current GPU need not be the one that trains
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def is_finished(state: TrainState) -> bool:
    """Whether all epochs are trained, or early stopping has ended them."""
    return len(state.history) >= state.recipe.train.epochs or should_stop(state)


def should_stop(state: TrainState) -> bool:
    """Whether the validation metric has not improved for train.early_stopping_patience epochs."""
    patience = state.recipe.train.early_stopping_patience
    return bool(patience) and bool(state.history) and len(state.history) - state.best >= patience


def _checkpoint_due(state: TrainState) -> bool:
    """Whether a checkpoint within the epoch is due after this step."""
    settings = state.recipe.train
    if state.short:
        return False
    by_steps = settings.checkpoint_every_steps and state.epoch.step % settings.checkpoint_every_steps == 0
    return bool(by_steps) or time.monotonic() - state.saved_at > 60 * settings.checkpoint_every_minutes


def _long_since_saved(state: TrainState) -> bool:
    """Whether epochs of a head, which take milliseconds, should be saved again."""
    return time.monotonic() - state.saved_at > HEAD_SAVED_S


def _finish(state: TrainState) -> None:
    """Measure the best epoch's weights once more, with confidence intervals and thresholds, and write the report."""
    state.process_group.gather(None)  # rank zero has written best/
    network, config = read_model(state.out / "best")
    scores, targets = validation_scores(state, network)
    temperature = stored_temperature(state.out / "best")  # of a run that was stopped, or has ended, after this
    if state.recipe.train.calibrate and temperature is None:
        scores, temperature = _calibrate(state, network, scores, targets)
    metrics: Metrics = validation_metrics(state, scores, targets, intervals=True)
    events, background = scores.copy(), np.flatnonzero(targets.sum(axis=1) == 0)
    if len(background):  # each of their windows could be an event, and a mean over them hides it
        events[background] = validation_scores(state, network, highest=True)[0][background]
    if state.process_group.is_rank_zero:
        said = {} if temperature is None else {"temperature": temperature}
        changes = {"thresholds": best_thresholds(events, targets), "provenance": config.provenance | said}
        config = config.model_copy(update=changes)
        if temperature is None:
            write_config(state.out / "best", config)
        else:
            save_model(state.out / "best", network.state_dict(), config, temperature=temperature)
        write_report(state, metrics, _compared(state, network))


def _calibrate(
    state: TrainState, network: SpectrogramNetwork, scores: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, float]:
    """Divide a network's logits by the temperature that fits the validation clips.

    It is fitted to the mean scores of a clip's windows, each of which has logits of its own.

    Args:
        state: of the training.
        network: is changed.
        scores: of the validation clips by it, (clips, classes).
        targets: (clips, classes).

    Returns:
        The scores that the clips have now, and the temperature.
    """
    temperature = fit_temperature(scores, targets, state.classifier.config.activation)
    network.scale_logits(1 / temperature)
    after, _ = validation_scores(state, network)
    said = f"scores are calibrated by a temperature of {temperature:g}"
    if not state.manifest.multi_label:
        truth = class_indices(targets)
        errors = [calibration_error(reliability(each, truth, state.has_background)) for each in (scores, after)]
        said += f": expected calibration error on these clips {percent(errors[0])} before, {percent(errors[1])} after"
    state.log(said)
    return after, temperature


def _compared(state: TrainState, network: SpectrogramNetwork) -> Comparison | None:
    """The comparison of the finished training with a linear model, after telling it; None where there is none."""
    try:
        comparison = compare(state, network, state.history[state.best - 1][state.metric] or 0.0)
    except AumError as error:  # the model is trained and saved, so a clip that is lost now must not end the run
        state.log(f"not compared with a linear model: {error.problem}", logging.WARNING)
        return None
    for level, line in comparison.lines() if comparison else ():
        state.log(line, level)
    return comparison


def _resumed_recipe(saved: dict, epochs: int | None, out: Path) -> Recipe:
    """The recipe of a checkpoint, with another number of epochs where that is asked for.

    Raises:
        AumError: its schedule ends with the epochs that it was made for, or more than that were trained already.
    """
    recipe = Recipe.model_validate(saved["recipe"])
    if epochs is None or epochs == recipe.train.epochs:
        return recipe
    done, quoted = len(saved["history"]), shlex.quote(str(out))
    if recipe.train.schedule == "cosine":
        raise AumError(
            f"{out} can't be extended to {epochs} epochs: its learning rate follows a cosine that ends with epoch "
            f"{recipe.train.epochs} (train.schedule)",
            fix=f"start a new run from its weights: aum train --recipe {shlex.quote(str(out / 'recipe.toml'))} "
            f"--init {quoted} --set train.epochs={max(1, epochs - recipe.train.epochs)} "
            f"--out {shlex.quote(str(free_folder(out)))}",
        )
    if epochs < done:
        raise AumError(
            f"{done} epochs of {out} are trained already, more than {epochs}", fix=f"--set train.epochs={done} or more"
        )
    return recipe.with_values(train={"epochs": epochs})


def _resumed_at(state: TrainState) -> str:
    """How far the resumed run has come."""
    epochs = f"epoch {len(state.history)} of {state.recipe.train.epochs}"
    if is_finished(state):
        return f"{state.out} is finished: it ended after {epochs}, nothing is left to train"
    steps = f" and {state.epoch.step} of {state.steps_per_epoch} steps" if state.epoch.step else ""
    return f"resuming after {epochs}{steps}"


def _resume_call(state: TrainState) -> str:
    """The command that resumes a run that was stopped."""
    device = state.classifier.device.type
    return (
        f"resume with aum train --resume --out {shlex.quote(str(state.out))}"
        + (f" --device {device}" if device != "cpu" else "")
        + (f" --devices {state.process_group.size}" if state.process_group.size > 1 else "")
    )

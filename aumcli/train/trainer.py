"""The loop: epochs of steps, validation after each, everything saved, stopped and taken up again at any step."""

import math
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.classifier import pick_device
from aumcli.config import TrainConfig
from aumcli.data.datasets.batch import EpochDraws, Partners, crop_samples, draw_epoch, make_batch
from aumcli.data.datasets.waveforms import Crop, Decoded, Item, stream_seed
from aumcli.data.training_clips import read_training_clips, write_training_clips
from aumcli.errors import AumError
from aumcli.evaluate import score_clips
from aumcli.metrics import Metrics, best_thresholds, evaluate_scores
from aumcli.recipe import Recipe, dump_recipe
from aumcli.train.checkpoint import (
    locked_run_folder,
    read_checkpoint,
    remove_leftovers,
    restore,
    save_checkpoint,
    save_epoch,
)
from aumcli.train.data_check import free_folder
from aumcli.train.distributed import join_process_group, local_device
from aumcli.train.loggers import Loggers, finish, percent
from aumcli.train.nonfinite import ELSEWHERE, diagnose
from aumcli.train.optim import learning_rate, move_average, set_learning_rate
from aumcli.train.setup import BATCH_PURPOSE, MODEL_PURPOSE, Epoch, TrainState, autocast, build
from aumcli.train.signals import StopSignal
from aumcli.utils.files import write_text
from aumcli.utils.text import counted
from aumcli.utils.threads import compute_threads


def train(
    recipe: Recipe,
    out: Path | str,
    data: Path | str | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    say=print,
    epochs: int | None = None,
) -> Path:
    """Train a model; started by torchrun, in all of its processes together.

    Args:
        recipe: what to do.
        out: the run's folder; must not hold a run already unless `resume`.
        data: a prepared folder; None: data/<the recipe's corpus>.
        resume: go on where the run in `out` was saved last, with that run's own recipe.
        device: where to compute.
        progress: show a bar while an epoch runs (on a terminal).
        say: is given one line of text now and then.
        epochs: with `resume`, train for so many in all instead of as many as the recipe says.

    Returns:
        `out`, which now holds recipe.toml, metrics.csv, best/, last/, report.json, report.md, curves.png,
        confusion-val.png.

    Raises:
        AumError: the data, the recipe or the folder is unusable, too many clips can't be read, the loss is no number
            too often, or the run was stopped by a signal (after the step was finished and saved).
    """
    place, out = pick_device(local_device(device)), Path(out)
    with (
        join_process_group(place) as process_group,
        StopSignal() as stop,
        locked_run_folder(out, process_group) as doubts,
    ):
        saved = read_checkpoint(out, resume)
        if saved is not None:
            recipe, data = _prolonged(saved, epochs, out), data or saved["data"]
        state, notes, settings = build(
            recipe, out, data, place, process_group, progress and process_group.is_rank_zero, saved
        )
        if saved is not None:
            restore(state, saved)
            if process_group.is_rank_zero:
                remove_leftovers(out)
            notes.append(_where(state))
        say = say if process_group.is_rank_zero else lambda text: None
        for note in [notes[0], *doubts, *notes[1:], *settings]:
            say(note)
        if process_group.is_rank_zero:
            write_text(out / "recipe.toml", dump_recipe(state.recipe))
            if saved is None:
                write_training_clips(out, state.train.clips, read_training_clips(state.recipe.train.init))
        with Loggers(state) as watch:
            while not _is_finished(state):
                _epoch(state, stop, watch, say)
        finish(state, lambda network: _measure(state, network), say)
    return out


def _prolonged(saved: dict, epochs: int | None, out: Path) -> Recipe:
    """The recipe of a run that is gone on with, for more epochs where that is asked for.

    Raises:
        AumError: its schedule ends with the epochs that it was made for, or more than that were trained already.
    """
    recipe = Recipe.model_validate(saved["recipe"])
    if epochs in (None, recipe.train.epochs):
        return recipe
    done, quoted = len(saved["history"]), shlex.quote(str(out))
    if recipe.train.schedule == "cosine":
        raise AumError(
            f"{out} can't be prolonged to {epochs} epochs: its learning rate follows a cosine that ends with epoch "
            f"{recipe.train.epochs} (train.schedule)",
            fix=f"start anew from its weights: aum train --recipe {shlex.quote(str(out / 'recipe.toml'))} "
            f"--init {quoted} --set train.epochs={max(1, epochs - recipe.train.epochs)} "
            f"--out {shlex.quote(str(free_folder(out)))}",
        )
    if epochs < done:
        raise AumError(
            f"{done} epochs of {out} are trained already, more than {epochs}", fix=f"--set train.epochs={done} or more"
        )
    return recipe.with_values(train={"epochs": epochs})


def _is_finished(state: TrainState) -> bool:
    return len(state.history) >= state.recipe.train.epochs or _gave_up(state)


def _where(state: TrainState) -> str:
    """How far the run that is gone on with has come."""
    epochs = f"epoch {len(state.history)} of {state.recipe.train.epochs}"
    if _is_finished(state):
        return f"{state.out} is finished: it ended after {epochs}, and nothing is left to train"
    return f"going on after {epochs}" + (
        f" and {state.epoch.step} of {state.steps_per_epoch} steps" if state.epoch.step else ""
    )


def _gave_up(state: TrainState) -> bool:
    """Whether the validation score has not risen for as many epochs as the recipe waits."""
    patience = state.recipe.train.early_stopping_patience
    return bool(patience) and bool(state.history) and len(state.history) - state.best >= patience


def _epoch(state: TrainState, stop: StopSignal, watch: Loggers, say) -> None:
    """Train on all clips once, from the step that was saved on; validate, save, and say how it went."""
    settings, number, started = state.recipe.train, len(state.history), time.perf_counter()
    state.network.train()
    batches = state.train.batches(settings.batch_size, state.recipe.seed, number, state.sample_weights)[
        : state.steps_per_epoch
    ]
    draws = draw_epoch(batches, len(state.train), state.recipe.augment, state.recipe.seed, number)
    for decoded in watch.bar(load_batches(state, number, batches, draws)):
        take_step(state, number, batches[state.epoch.step], draws, decoded, stop, say)
        watch.step(number)
        if stop.agreed or _save_now(state):
            state.epoch.seconds += time.perf_counter() - started
            started = time.perf_counter()
            if state.process_group.is_rank_zero:
                save_checkpoint(state)
        if stop.agreed:
            raise AumError(
                f"stopped in epoch {number + 1} after step {state.epoch.step} of {len(batches)}, which is saved",
                fix=_how_to_go_on(state),
                exit_code=128 + stop.agreed,
            )
    row = {
        "epoch": number + 1,
        "train_loss": state.epoch.loss / max(1, state.epoch.seen),
        **_validate(state),
        "lr": learning_rate(settings, number + 1.0, state.steps_per_epoch),
        "skipped_steps": state.epoch.skipped,
        "unreadable_clips": len(state.unreadable_clips),
        "seconds": round(state.epoch.seconds + time.perf_counter() - started, 2),
    }
    state.history.append(row)
    state.epoch = Epoch()
    best = state.best == row["epoch"]
    if state.process_group.is_rank_zero:
        save_epoch(state)
    watch.epoch(row)
    say(
        f"epoch {row['epoch']:>3}/{settings.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"{state.metric[4:]} {percent(row[state.metric])}{' *' if best else '  '}  {row['seconds']:.1f} s"
    )
    if _gave_up(state):
        say(f"no better {state.metric[4:]} for {counted(settings.early_stopping_patience, 'epoch')}: the run ends here")


def _save_now(state: TrainState) -> bool:
    """Whether the state within an epoch is to be saved after this step."""
    settings = state.recipe.train
    by_steps = settings.checkpoint_every_steps and state.epoch.step % settings.checkpoint_every_steps == 0
    return bool(by_steps) or time.monotonic() - state.saved_at > 60 * settings.checkpoint_every_minutes


def _how_to_go_on(state: TrainState) -> str:
    """The call that takes up a run that was stopped."""
    device = state.classifier.device.type
    return (
        f"go on with aum train --resume --out {shlex.quote(str(state.out))}"
        + (f" --device {device}" if device != "cpu" else "")
        + (f" --devices {state.process_group.size}" if state.process_group.size > 1 else "")
    )


def _own(state: TrainState, size: int) -> list[np.ndarray]:
    """This process's parts of a batch of `size` clips: places in it.

    Parts are as equal as can be, some empty in a small batch.
    """
    return np.array_split(np.arange(size), state.recipe.train.gradient_accumulation_steps)[
        state.process_group.rank :: state.process_group.size
    ]


def load_batches(
    state: TrainState, number: int, batches: list[list[int]], draws: EpochDraws
) -> Iterator[list[Decoded]]:
    """Decode this process's clips of the batches of epoch `number` that are still to come,
    and what they are mixed with.
    """
    size, first = state.recipe.train.batch_size, state.epoch.step
    crop = Crop(crop_samples(state.classifier.frontend, state.recipe.augment), state.recipe.data.crop)
    batches_of_items = (
        [item for rows in _own(state, len(batch)) for item in _items(batch, draws, (first + i) * size, rows)]
        for i, batch in enumerate(batches[first:])
    )
    return state.train.load(batches_of_items, state.recipe.train.workers, crop, state.recipe.seed, number)


def _items(batch: list[int], draws: EpochDraws, begin: int, rows: np.ndarray) -> list[Item]:
    """What is decoded for some places of a batch that starts at place `begin` of its epoch: the clips,
    then their partners.
    """
    mixed = rows[draws.partners[begin + rows] >= 0]
    clips = zip([batch[row] for row in rows], draws.places[0, begin + rows].tolist())
    return [*clips, *zip(draws.partners[begin + mixed].tolist(), draws.places[1, begin + mixed].tolist())]


def _progress(state: TrainState, number: int) -> float:
    """Epochs done at the step that comes next; a cosine counts that step too, as it is to end at 0."""
    return number + (state.epoch.step + int(state.recipe.train.schedule == "cosine")) / state.steps_per_epoch


def take_step(
    state: TrainState, number: int, batch: list[int], draws: EpochDraws, decoded: list[Decoded], stop: StopSignal, say
) -> None:
    """One step of the optimizer: the gradients of all parts, added up over the processes."""
    settings, seed, device = state.recipe.train, state.recipe.seed, state.classifier.device
    set_learning_rate(state.optimizer, learning_rate(settings, _progress(state, number), state.steps_per_epoch))
    state.optimizer.zero_grad(set_to_none=True)
    loss, seen, bad, suspect, waiting = 0.0, 0, [], None, iter(decoded)
    for rows in _own(state, len(batch)):
        features, targets, good, failed = _features(state, number, batch, draws, rows, waiting)
        bad += failed
        if not good:
            continue
        state.network.rows = torch.tensor(good, device=device), len(batch)
        _seed_device(device, stream_seed(seed, number, state.epoch.step, MODEL_PURPOSE))
        with autocast(state):
            part_loss = loss_of(state.network(features), targets, settings) * (len(good) / len(batch))
        state.scaler.scale(part_loss).backward()
        suspect = features if math.isfinite(loss) else suspect
        loss, seen = loss + part_loss.item(), seen + len(good)
    state.network.rows = None
    loss, seen, failed, stopping = state.process_group.sum([loss, seen, len(bad), stop.received], device)
    if stopping:
        stop.agreed = max(state.process_group.gather(stop.received))
    if failed:
        _count_bad_files(state, [item for each in state.process_group.gather(bad) for item in each], say)
    if math.isfinite(loss):
        state.epoch.loss += loss * len(batch)
        state.epoch.seen += int(seen)
    if seen:
        with compute_threads(1 if state.small else None):
            _update(state, number, batch, loss, suspect, say)
    state.epoch.step += 1


def _features(
    state: TrainState,
    number: int,
    batch: list[int],
    draws: EpochDraws,
    rows: np.ndarray,
    waiting: Iterator[Decoded],
) -> tuple[Tensor | None, Tensor | None, list[int], list[tuple[int, AumError]]]:
    """Features and targets of a part of a batch, from what was decoded for it.

    Returns:
        Features (b, frames, mels), targets (b, classes), the places of these clips in the batch, and the clips that
        can't be read, with the reason; a clip whose partner can't be read is left out too.
    """
    begin = state.epoch.step * state.recipe.train.batch_size
    waveforms = dict(zip(rows.tolist(), waiting))
    mixed = rows[draws.partners[begin + rows] >= 0].tolist()
    partners = dict(zip(mixed, waiting))
    bad = [(batch[row], item) for row, item in waveforms.items() if isinstance(item, AumError)]
    bad += [(int(draws.partners[begin + row]), item) for row, item in partners.items() if isinstance(item, AumError)]
    good = [
        row
        for row, item in waveforms.items()
        if not isinstance(item, AumError) and not isinstance(partners.get(row), AumError)
    ]
    if not good:
        return None, None, good, bad
    mixed = [row for row in mixed if row in good]
    mixture = (
        Partners(
            [good.index(row) for row in mixed],
            [partners[row] for row in mixed],
            _targets(state, draws.partners[begin + np.array(mixed)].tolist()),
            torch.from_numpy(draws.ratios[begin + np.array(mixed)]),
        )
        if mixed
        else None
    )
    features, targets = make_batch(
        state.classifier.frontend,
        [waveforms[row] for row in good],
        _targets(state, [batch[row] for row in good]),
        state.recipe.augment,
        stream_seed(state.recipe.seed, number, state.epoch.step, BATCH_PURPOSE),
        good,
        len(batch),
        mixture,
    )
    return features, targets, good, bad


def _targets(state: TrainState, clips: list[int]) -> Tensor:
    """Targets of training clips, (b, classes) float32."""
    return torch.from_numpy(state.manifest.targets(state.train.clips.take(clips)))


def _seed_device(device: torch.device, seed: int) -> None:
    """Start the random numbers that stochastic depth draws;
    torch.manual_seed would ask every kind of device there may be.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)  # the current GPU need not be the one that trains
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _update(state: TrainState, number: int, batch: list[int], loss: float, features: Tensor | None, say) -> None:
    """Move the weights, unless the loss or a gradient is no number."""
    settings = state.recipe.train
    trained = [x for group in state.optimizer.param_groups for x in group["params"]]
    state.process_group.sum_gradients(trained)
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.get_total_norm([x.grad for x in trained if x.grad is not None])
    finite = math.isfinite(loss) and bool(torch.isfinite(norm))
    if not finite and (
        math.isnan(loss) or settings.dtype != "float16" or state.scaler.get_scale() <= 1
    ):  # else the scale was too large
        state.epoch.skipped += 1
        state.nonfinite_in_a_row += 1
        what = min(
            state.process_group.gather(diagnose(state, number, batch, loss, float(norm), features)),
            key=lambda text: ELSEWHERE in text,
        )
        if state.nonfinite_in_a_row > settings.max_nonfinite_steps:
            raise AumError(
                what,
                exit_code=1,
                fix="lower train.lr" + (f"; {state.out / 'last'} holds the last good epoch" if number else ""),
            )
        say(f"left out, {state.nonfinite_in_a_row} in a row of at most {settings.max_nonfinite_steps}: {what}")
        state.scaler.update()
        return
    if settings.clip_grad:
        torch.nn.utils.clip_grads_with_norm_(trained, settings.clip_grad, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if finite:
        state.nonfinite_in_a_row = 0
    if settings.ema:
        move_average(
            state.classifier.network, state.network, settings.ema, number * state.steps_per_epoch + state.epoch.step
        )


def _count_bad_files(state: TrainState, bad: list[tuple[int, AumError]], say) -> None:
    """Name the clips of this step that could not be read, the first time,
    and stop where there are more than the recipe bears.
    """
    most = state.recipe.data.max_unreadable_clips
    for clip, error in bad:
        if clip in state.unreadable_clips:
            continue
        state.unreadable_clips.add(clip)
        if len(state.unreadable_clips) > most:
            raise AumError(
                error.problem + (f"; more than {counted(most, 'clip')} can't be read" if most else ""),
                fix=error.fix + f"; data.max_unreadable_clips says how many may be left out, now {most}",
                exit_code=1,
            )
        say(f"left out, {len(state.unreadable_clips)} of at most {most}: {error.problem}")


def loss_of(logits: Tensor, targets: Tensor, settings: TrainConfig) -> Tensor:
    """Cross entropy or binary cross entropy of logits (b, classes) against targets (b, classes) in 0..1."""
    if settings.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), targets)
    return F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing)


def scores_of(state: TrainState, network: torch.nn.Module | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Validation scores and targets, (clips, classes) each, put together from all processes;
    of another network if given.
    """
    classifier = state.classifier if network is None else state.classifier.with_network(network)
    own = [*score_clips(classifier, state.val.clips, state.val)]
    own = np.concatenate(own) if own else np.empty((0, len(state.manifest.labels)), dtype=np.float32)
    clips = state.val_clips
    scores, targets = np.empty((len(clips), own.shape[1]), dtype=np.float32), state.manifest.targets(clips)
    for rank, part in enumerate(state.process_group.gather(own)):
        scores[rank :: state.process_group.size] = part
    return scores, targets


def _measure(state: TrainState, network: torch.nn.Module) -> tuple[Metrics, tuple[float, ...]]:
    """Metrics of weights on the validation split, and the thresholds that serve its classes best."""
    scores, targets = scores_of(state, network)
    return metrics_of(state, scores, targets, intervals=True), best_thresholds(scores, targets)


def metrics_of(state: TrainState, scores: np.ndarray, targets: np.ndarray, intervals: bool = False) -> Metrics:
    """Metrics of scores (clips, classes)."""
    return evaluate_scores(
        scores,
        targets if state.manifest.multi_label else targets.argmax(1),
        state.classifier.labels,
        intervals=intervals,
    )


def _validate(state: TrainState) -> dict[str, float | None]:
    scores, targets = scores_of(state)
    probabilities = torch.from_numpy(scores).double().clamp(1e-12, 1 - 1e-12)
    truth = torch.from_numpy(targets).double()
    if state.recipe.train.loss == "bce":
        loss = F.binary_cross_entropy(probabilities, truth)
    else:
        loss = -(truth * probabilities.log()).sum(1).mean()
    metrics = metrics_of(state, scores, targets)
    mean_ap = metrics.mean_average_precision
    figures = {"val_loss": loss.item(), "val_map": None if math.isnan(mean_ap) else mean_ap}  # no class can be ranked
    return figures if state.manifest.multi_label else {**figures, "val_accuracy": metrics.accuracy}

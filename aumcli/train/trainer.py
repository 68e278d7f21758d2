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
from aumcli.data.training_clips import read_heard, write_heard
from aumcli.errors import AumError
from aumcli.evaluate import score_clips
from aumcli.metrics import Metrics, best_thresholds, evaluate_scores
from aumcli.recipe import Recipe, dump_recipe
from aumcli.train.checkpoint import kept_folder, read_state, remove_leftovers, restore, save_epoch, save_state
from aumcli.train.data_check import free_folder
from aumcli.train.distributed import join_team, own_device
from aumcli.train.loggers import Watch, finish, percent
from aumcli.train.nonfinite import ELSEWHERE, diagnose
from aumcli.train.optim import learning_rate, move_average, set_learning_rate
from aumcli.train.setup import BATCH_PURPOSE, MODEL_PURPOSE, Epoch, Run, autocast, build
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
    place, out = pick_device(own_device(device)), Path(out)
    with join_team(place) as team, StopSignal() as stop, kept_folder(out, team) as doubts:
        state = read_state(out, resume)
        if state is not None:
            recipe, data = _prolonged(state, epochs, out), data or state["data"]
        run, notes, settings = build(recipe, out, data, place, team, progress and team.leads, state)
        if state is not None:
            restore(run, state)
            if team.leads:
                remove_leftovers(out)
            notes.append(_where(run))
        say = say if team.leads else lambda text: None
        for note in [notes[0], *doubts, *notes[1:], *settings]:
            say(note)
        if team.leads:
            write_text(out / "recipe.toml", dump_recipe(run.recipe))
            if state is None:
                write_heard(out, run.train.clips, read_heard(run.recipe.train.init))
        with Watch(run) as watch:
            while not _is_finished(run):
                _epoch(run, stop, watch, say)
        finish(run, lambda network: _measure(run, network), say)
    return out


def _prolonged(state: dict, epochs: int | None, out: Path) -> Recipe:
    """The recipe of a run that is gone on with, for more epochs where that is asked for.

    Raises:
        AumError: its schedule ends with the epochs that it was made for, or more than that were trained already.
    """
    recipe = Recipe.model_validate(state["recipe"])
    if epochs in (None, recipe.train.epochs):
        return recipe
    done, quoted = len(state["history"]), shlex.quote(str(out))
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


def _is_finished(run: Run) -> bool:
    return len(run.history) >= run.recipe.train.epochs or _gave_up(run)


def _where(run: Run) -> str:
    """How far the run that is gone on with has come."""
    epochs = f"epoch {len(run.history)} of {run.recipe.train.epochs}"
    if _is_finished(run):
        return f"{run.out} is finished: it ended after {epochs}, and nothing is left to train"
    return f"going on after {epochs}" + (
        f" and {run.epoch.step} of {run.steps_per_epoch} steps" if run.epoch.step else ""
    )


def _gave_up(run: Run) -> bool:
    """Whether the validation score has not risen for as many epochs as the recipe waits."""
    patience = run.recipe.train.stop_after
    return bool(patience) and bool(run.history) and len(run.history) - run.best >= patience


def _epoch(run: Run, stop: StopSignal, watch: Watch, say) -> None:
    """Train on all clips once, from the step that was saved on; validate, save, and say how it went."""
    settings, number, started = run.recipe.train, len(run.history), time.perf_counter()
    run.network.train()
    batches = run.train.batches(settings.batch_size, run.recipe.seed, number, run.sample_weights)[: run.steps_per_epoch]
    draws = draw_epoch(batches, len(run.train), run.recipe.augment, run.recipe.seed, number)
    for decoded in watch.bar(load_batches(run, number, batches, draws)):
        take_step(run, number, batches[run.epoch.step], draws, decoded, stop, say)
        watch.step(number)
        if stop.agreed or _save_now(run):
            run.epoch.seconds += time.perf_counter() - started
            started = time.perf_counter()
            if run.team.leads:
                save_state(run)
        if stop.agreed:
            raise AumError(
                f"stopped in epoch {number + 1} after step {run.epoch.step} of {len(batches)}, which is saved",
                fix=_how_to_go_on(run),
                exit_code=128 + stop.agreed,
            )
    row = {
        "epoch": number + 1,
        "train_loss": run.epoch.loss / max(1, run.epoch.seen),
        **_validate(run),
        "lr": learning_rate(settings, number + 1.0, run.steps_per_epoch),
        "skipped_steps": run.epoch.skipped,
        "bad_files": len(run.bad_files),
        "seconds": round(run.epoch.seconds + time.perf_counter() - started, 2),
    }
    run.history.append(row)
    run.epoch = Epoch()
    best = run.best == row["epoch"]
    if run.team.leads:
        save_epoch(run)
    watch.epoch(row)
    say(
        f"epoch {row['epoch']:>3}/{settings.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"{run.metric[4:]} {percent(row[run.metric])}{' *' if best else '  '}  {row['seconds']:.1f} s"
    )
    if _gave_up(run):
        say(f"no better {run.metric[4:]} for {counted(settings.stop_after, 'epoch')}: the run ends here")


def _save_now(run: Run) -> bool:
    """Whether the state within an epoch is to be saved after this step."""
    settings = run.recipe.train
    by_steps = settings.save_steps and run.epoch.step % settings.save_steps == 0
    return bool(by_steps) or time.monotonic() - run.saved_at > 60 * settings.save_minutes


def _how_to_go_on(run: Run) -> str:
    """The call that takes up a run that was stopped."""
    device = run.classifier.device.type
    return (
        f"go on with aum train --resume --out {shlex.quote(str(run.out))}"
        + (f" --device {device}" if device != "cpu" else "")
        + (f" --devices {run.team.size}" if run.team.size > 1 else "")
    )


def _own(run: Run, size: int) -> list[np.ndarray]:
    """This process's parts of a batch of `size` clips: places in it.

    Parts are as equal as can be, some empty in a small batch.
    """
    return np.array_split(np.arange(size), run.recipe.train.parts)[run.team.rank :: run.team.size]


def load_batches(run: Run, number: int, batches: list[list[int]], draws: EpochDraws) -> Iterator[list[Decoded]]:
    """Decode this process's clips of the batches of epoch `number` that are still to come,
    and what they are mixed with.
    """
    size, first = run.recipe.train.batch_size, run.epoch.step
    crop = Crop(crop_samples(run.classifier.frontend, run.recipe.augment), run.recipe.data.crop)
    batches_of_items = (
        [item for rows in _own(run, len(batch)) for item in _items(batch, draws, (first + i) * size, rows)]
        for i, batch in enumerate(batches[first:])
    )
    return run.train.load(batches_of_items, run.recipe.train.workers, crop, run.recipe.seed, number)


def _items(batch: list[int], draws: EpochDraws, begin: int, rows: np.ndarray) -> list[Item]:
    """What is decoded for some places of a batch that starts at place `begin` of its epoch: the clips,
    then their partners.
    """
    mixed = rows[draws.partners[begin + rows] >= 0]
    clips = zip([batch[row] for row in rows], draws.places[0, begin + rows].tolist())
    return [*clips, *zip(draws.partners[begin + mixed].tolist(), draws.places[1, begin + mixed].tolist())]


def _progress(run: Run, number: int) -> float:
    """Epochs done at the step that comes next; a cosine counts that step too, as it is to end at 0."""
    return number + (run.epoch.step + int(run.recipe.train.schedule == "cosine")) / run.steps_per_epoch


def take_step(
    run: Run, number: int, batch: list[int], draws: EpochDraws, decoded: list[Decoded], stop: StopSignal, say
) -> None:
    """One step of the optimizer: the gradients of all parts, added up over the processes."""
    settings, seed, device = run.recipe.train, run.recipe.seed, run.classifier.device
    set_learning_rate(run.optimizer, learning_rate(settings, _progress(run, number), run.steps_per_epoch))
    run.optimizer.zero_grad(set_to_none=True)
    loss, seen, bad, suspect, waiting = 0.0, 0, [], None, iter(decoded)
    for rows in _own(run, len(batch)):
        features, targets, good, failed = _features(run, number, batch, draws, rows, waiting)
        bad += failed
        if not good:
            continue
        run.network.rows = torch.tensor(good, device=device), len(batch)
        _seed_device(device, stream_seed(seed, number, run.epoch.step, MODEL_PURPOSE))
        with autocast(run):
            part_loss = loss_of(run.network(features), targets, settings) * (len(good) / len(batch))
        run.scaler.scale(part_loss).backward()
        suspect = features if math.isfinite(loss) else suspect
        loss, seen = loss + part_loss.item(), seen + len(good)
    run.network.rows = None
    loss, seen, failed, stopping = run.team.sum([loss, seen, len(bad), stop.received], device)
    if stopping:
        stop.agreed = max(run.team.gather(stop.received))
    if failed:
        _count_bad_files(run, [item for each in run.team.gather(bad) for item in each], say)
    if math.isfinite(loss):
        run.epoch.loss += loss * len(batch)
        run.epoch.seen += int(seen)
    if seen:
        with compute_threads(1 if run.small else None):
            _update(run, number, batch, loss, suspect, say)
    run.epoch.step += 1


def _features(
    run: Run,
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
    begin = run.epoch.step * run.recipe.train.batch_size
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
            _targets(run, draws.partners[begin + np.array(mixed)].tolist()),
            torch.from_numpy(draws.ratios[begin + np.array(mixed)]),
        )
        if mixed
        else None
    )
    features, targets = make_batch(
        run.classifier.frontend,
        [waveforms[row] for row in good],
        _targets(run, [batch[row] for row in good]),
        run.recipe.augment,
        stream_seed(run.recipe.seed, number, run.epoch.step, BATCH_PURPOSE),
        good,
        len(batch),
        mixture,
    )
    return features, targets, good, bad


def _targets(run: Run, clips: list[int]) -> Tensor:
    """Targets of training clips, (b, classes) float32."""
    return torch.from_numpy(run.manifest.targets(run.train.clips.take(clips)))


def _seed_device(device: torch.device, seed: int) -> None:
    """Start the random numbers that stochastic depth draws;
    torch.manual_seed would ask every kind of device there may be.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)  # the current GPU need not be the one that trains
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _update(run: Run, number: int, batch: list[int], loss: float, features: Tensor | None, say) -> None:
    """Move the weights, unless the loss or a gradient is no number."""
    settings = run.recipe.train
    trained = [x for group in run.optimizer.param_groups for x in group["params"]]
    run.team.sum_gradients(trained)
    run.scaler.unscale_(run.optimizer)
    norm = torch.nn.utils.get_total_norm([x.grad for x in trained if x.grad is not None])
    finite = math.isfinite(loss) and bool(torch.isfinite(norm))
    if not finite and (
        math.isnan(loss) or settings.dtype != "float16" or run.scaler.get_scale() <= 1
    ):  # else the scale was too large
        run.epoch.skipped += 1
        run.bad_in_a_row += 1
        what = min(
            run.team.gather(diagnose(run, number, batch, loss, float(norm), features)),
            key=lambda text: ELSEWHERE in text,
        )
        if run.bad_in_a_row > settings.bad_steps:
            raise AumError(
                what,
                exit_code=1,
                fix="lower train.lr" + (f"; {run.out / 'last'} holds the last good epoch" if number else ""),
            )
        say(f"left out, {run.bad_in_a_row} in a row of at most {settings.bad_steps}: {what}")
        run.scaler.update()
        return
    if settings.clip_grad:
        torch.nn.utils.clip_grads_with_norm_(trained, settings.clip_grad, norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if finite:
        run.bad_in_a_row = 0
    if settings.ema:
        move_average(run.classifier.network, run.network, settings.ema, number * run.steps_per_epoch + run.epoch.step)


def _count_bad_files(run: Run, bad: list[tuple[int, AumError]], say) -> None:
    """Name the clips of this step that could not be read, the first time,
    and stop where there are more than the recipe bears.
    """
    most = run.recipe.data.bad_files
    for clip, error in bad:
        if clip in run.bad_files:
            continue
        run.bad_files.add(clip)
        if len(run.bad_files) > most:
            raise AumError(
                error.problem + (f"; more than {counted(most, 'clip')} can't be read" if most else ""),
                fix=error.fix + f"; data.bad_files says how many may be left out, now {most}",
                exit_code=1,
            )
        say(f"left out, {len(run.bad_files)} of at most {most}: {error.problem}")


def loss_of(logits: Tensor, targets: Tensor, settings: TrainConfig) -> Tensor:
    """Cross entropy or binary cross entropy of logits (b, classes) against targets (b, classes) in 0..1."""
    if settings.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), targets)
    return F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing)


def scores_of(run: Run, network: torch.nn.Module | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Validation scores and targets, (clips, classes) each, put together from all processes;
    of another network if given.
    """
    classifier = run.classifier if network is None else run.classifier.with_network(network)
    own = [*score_clips(classifier, run.val.clips, run.val)]
    own = np.concatenate(own) if own else np.empty((0, len(run.manifest.labels)), dtype=np.float32)
    clips = run.val_clips
    scores, targets = np.empty((len(clips), own.shape[1]), dtype=np.float32), run.manifest.targets(clips)
    for rank, part in enumerate(run.team.gather(own)):
        scores[rank :: run.team.size] = part
    return scores, targets


def _measure(run: Run, network: torch.nn.Module) -> tuple[Metrics, tuple[float, ...]]:
    """Metrics of weights on the validation split, and the thresholds that serve its classes best."""
    scores, targets = scores_of(run, network)
    return metrics_of(run, scores, targets, intervals=True), best_thresholds(scores, targets)


def metrics_of(run: Run, scores: np.ndarray, targets: np.ndarray, intervals: bool = False) -> Metrics:
    """Metrics of scores (clips, classes)."""
    return evaluate_scores(
        scores, targets if run.manifest.multi_label else targets.argmax(1), run.classifier.labels, intervals=intervals
    )


def _validate(run: Run) -> dict[str, float | None]:
    scores, targets = scores_of(run)
    probabilities = torch.from_numpy(scores).double().clamp(1e-12, 1 - 1e-12)
    truth = torch.from_numpy(targets).double()
    if run.recipe.train.loss == "bce":
        loss = F.binary_cross_entropy(probabilities, truth)
    else:
        loss = -(truth * probabilities.log()).sum(1).mean()
    metrics = metrics_of(run, scores, targets)
    mean_ap = metrics.mean_average_precision
    figures = {"val_loss": loss.item(), "val_map": None if math.isnan(mean_ap) else mean_ap}  # no class can be ranked
    return figures if run.manifest.multi_label else {**figures, "val_accuracy": metrics.accuracy}

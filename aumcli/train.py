"""aum train: from prepared data and a recipe to a model, the same bits for the same seed, data and machine.

Every random draw comes from a generator seeded by (seed, epoch, step, purpose). There is no random state to carry
along, so a run that was killed and resumed computes exactly what it would have computed.
"""

import csv
import io
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.classifier import Classifier, pick_device
from aumcli.config import AugmentConfig, ModelConfig, TrainConfig
from aumcli.core import build_network
from aumcli.core.frontend import LogMel
from aumcli.data.augment import augment_waveforms, equalise_features, mask_features, mixup_waveforms, warp_features
from aumcli.data.dataset import Waveforms, crop_and_pad, epoch_batches, load_batches, stream_seed
from aumcli.data.fit import fit_recipe
from aumcli.data.manifest import Manifest, read_manifest
from aumcli.errors import AumError
from aumcli.evaluate import score_clips, split_clips
from aumcli.files import atomic_path, write_json, write_text
from aumcli.metrics import best_thresholds, evaluate_scores
from aumcli.recipe import Recipe, dump_recipe
from aumcli.report import environment, plot_confusion, plot_curves
from aumcli.weights import save_model, write_config

WEIGHTS_PURPOSE, BATCH_PURPOSE, MODEL_PURPOSE = 1, 2, 3  # what a stream of random numbers is for
STATE = "state.pt"


@dataclass
class Run:
    """A training in progress."""

    recipe: Recipe
    data: Path
    out: Path
    manifest: Manifest
    classifier: Classifier          # the weights that are evaluated and saved: averaged ones where the recipe asks
    network: torch.nn.Module             # the weights that are trained
    optimizer: torch.optim.Optimizer
    train: Waveforms
    val: Waveforms
    history: list[dict[str, float | None]]  # a row per epoch; None where a figure is undefined
    progress: bool

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.recipe.train.batch_size)

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best epoch."""
        return "val_map" if self.manifest.multi_label else "val_accuracy"


def train(recipe: Recipe, out: Path | str, data: Path | str | None = None, *, resume: bool = False, device: str = "cpu",
          progress: bool = True, say=print) -> Path:
    """Train a model.

    Args:
        recipe: what to do.
        out: the run's folder; must not hold a run already unless `resume`.
        data: a prepared folder; None: data/<the recipe's corpus>.
        resume: go on after the last finished epoch of the run in `out`, with that run's own recipe.
        device: where to compute.
        progress: show a bar while an epoch runs (on a terminal).
        say: is given one line of text now and then.

    Returns:
        `out`, which now holds recipe.toml, metrics.csv, best/, last/, report.json, curves.png, confusion-val.png.

    Raises:
        AumError: the data, the recipe or the folder is unusable, a clip can't be read, or the loss is no number.
    """
    run = _start(recipe, Path(out), data, resume, device, progress, say)
    settings = run.recipe.train
    for epoch in range(len(run.history), settings.epochs):
        started = time.perf_counter()
        train_loss = _train_epoch(run, epoch)
        row = {"epoch": epoch + 1, "train_loss": train_loss, **_validate(run), "lr": _learning_rate(settings, epoch + 1.0),
               "seconds": round(time.perf_counter() - started, 2)}
        run.history.append(row)
        best = max(run.history, key=lambda each: -1.0 if each[run.metric] is None else each[run.metric]) is row
        _save(run, best)
        say(f"epoch {row['epoch']:>3}/{settings.epochs}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
            f"{run.metric[4:]} {_percent(row[run.metric])}{' *' if best else '  '}  {row['seconds']:.1f} s")
    _finish(run)
    return run.out


def _start(recipe: Recipe, out: Path, data: Path | str | None, resume: bool, device: str, progress: bool, say) -> Run:
    """Read the data, fit the recipe to it, build the model or take up an earlier run, and say what will happen."""
    state = _read_state(out, resume)
    if state is not None:
        recipe = Recipe.model_validate(state["recipe"])
        data = data or state["data"]
    if data is None and recipe.data.corpus is None:
        raise AumError("the recipe names no corpus and no data was given", fix="name prepared data with --data")
    folder = Path(data or Path("data") / recipe.data.corpus)
    manifest = read_manifest(folder)
    train_clips, val_clips = (split_clips(manifest, name, recipe.data.hold_out) for name in (recipe.data.train, recipe.data.val))
    manifest.check_files([*train_clips, *val_clips])
    if state is None:
        recipe = fit_recipe(recipe, train_clips, len(manifest.labels), manifest.multi_label)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a pass over every tensor
    torch.manual_seed(stream_seed(recipe.seed, WEIGHTS_PURPOSE))
    network, averaged = build_network(recipe.model), None
    network.recompute = recipe.train.recompute
    if recipe.train.ema:
        averaged = build_network(recipe.model).requires_grad_(False)
        averaged.load_state_dict(network.state_dict())
    place = pick_device(device)
    config = ModelConfig(
        model=recipe.model, frontend=recipe.frontend, labels=tuple(manifest.label_names),
        activation="sigmoid" if recipe.train.loss == "bce" else "softmax",
        provenance={"data": str(folder), "seed": recipe.seed, "hold_out": recipe.data.hold_out, "clips": len(train_clips)})
    network.to(place)
    classifier = Classifier(averaged or network, config, str(out), place)
    rate, cache = recipe.frontend.sample_rate_hz, recipe.data.cache_mb
    run = Run(recipe, folder, out, manifest, classifier, network, _optimizer(network, recipe.train),
              Waveforms(train_clips, rate, cache), Waveforms(val_clips, rate, cache), [], progress)
    if state is not None:
        _restore(run, state)
    parameters = sum(x.numel() for x in network.parameters())
    say(f"{folder}: {len(train_clips)} training and {len(val_clips)} validation clips, {len(manifest.labels)} classes; "
        f"{recipe.model.describe()}, {parameters:,} parameters; "
        f"{run.classifier.backend} backend on {place}, {torch.get_num_threads()} threads, seed {recipe.seed}")
    if state is not None:
        say(f"going on after epoch {len(run.history)} of {recipe.train.epochs}")
    write_text(out / "recipe.toml", dump_recipe(recipe))
    return run


def _optimizer(network: torch.nn.Module, settings: TrainConfig) -> torch.optim.Optimizer:
    """Adam with the decay in the gradient, as published, or AdamW, which spares gains, biases, positions and A."""
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    spared = {name for name, x in network.named_parameters()
              if settings.optimizer == "adamw" and (x.ndim < 2 or name.endswith(("_log", "_token", "pos_embed")))}
    groups = [{"params": [x for name, x in network.named_parameters() if (name in spared) is without],
               "weight_decay": 0.0 if without else settings.weight_decay} for without in (False, True)]
    return kind([group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, fused=True)


def _learning_rate(settings: TrainConfig, epochs: float) -> float:
    """The learning rate after so many epochs."""
    if epochs < settings.warmup_epochs:
        return settings.lr * epochs / settings.warmup_epochs
    if settings.schedule == "cosine":
        done = (epochs - settings.warmup_epochs) / max(settings.epochs - settings.warmup_epochs, 1e-9)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if settings.schedule == "steps" and epochs >= settings.decay_start:
        return settings.lr * settings.decay_factor ** (1 + int((epochs - settings.decay_start) / settings.decay_every))
    return settings.lr


def _train_epoch(run: Run, epoch: int) -> float:
    """One pass over the training clips; the mean loss."""
    from tqdm import tqdm

    settings, seed = run.recipe.train, run.recipe.seed
    batches = epoch_batches(len(run.train), settings.batch_size, seed, epoch)
    run.network.train()
    total, seen = 0.0, 0
    bar = tqdm(load_batches(run.train, batches, settings.workers), total=len(batches), unit="batch", leave=False, delay=2,
               desc=f"epoch {epoch + 1}/{settings.epochs}", disable=None if run.progress else True)
    for step, waveforms in enumerate(bar):
        for group in run.optimizer.param_groups:
            group["lr"] = _learning_rate(settings, epoch + (step + 1) / len(batches))
        generator = torch.Generator().manual_seed(stream_seed(seed, epoch, step, BATCH_PURPOSE))
        targets = torch.from_numpy(run.manifest.targets([run.train.clips[i] for i in batches[step]]))
        features, targets = make_batch(run.classifier.frontend, waveforms, targets, run.recipe.augment, generator)
        torch.manual_seed(stream_seed(seed, epoch, step, MODEL_PURPOSE))  # stochastic depth draws from here
        loss = loss_of(run.network(features), targets, settings)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip_grad or math.inf)
        _check_finite(run, epoch, step, batches[step], loss, norm)
        run.optimizer.step()
        _average(run, epoch * len(batches) + step)
        total += loss.item() * len(waveforms)
        seen += len(waveforms)
        bar.set_postfix_str(f"loss {total / seen:.4f}", refresh=False)
    return total / seen


def make_batch(frontend: LogMel, waveforms: list[np.ndarray], targets: Tensor, augment: AugmentConfig,
               generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn clips into augmented, normalised features on the frontend's device.

    Args:
        frontend: the model's.
        waveforms: (samples,) float32 each.
        targets: (b, classes) float32.
        augment: what to do to them.
        generator: decides every random choice.

    Returns:
        Features (b, frames, mels) and targets (b, classes), which mixing may have changed.
    """
    config, device = frontend.config, frontend.window.device
    with torch.no_grad():
        # half as much again, so that a clip that is played faster still fills the input
        batch, lengths = crop_and_pad(waveforms, int(config.clip_samples * (1 + augment.speed)), generator)
        batch, lengths, targets = batch.to(device), lengths.to(device), targets.to(device)
        batch, lengths = augment_waveforms(batch, lengths, augment, config.sample_rate_hz, generator)
        batch, targets = mixup_waveforms(batch, lengths, targets, augment.mixup, generator)
        batch, lengths = batch[:, : config.clip_samples], lengths.clamp(max=config.clip_samples)
        energies, n_frames = warp_features(frontend.energies(batch, lengths), frontend.n_frames(lengths), augment, config, generator)
        energies = equalise_features(energies, augment, generator)
        features = mask_features(frontend.fit(energies, n_frames), augment, generator)
        return frontend.normalise(features), targets


def loss_of(logits: Tensor, targets: Tensor, settings: TrainConfig) -> Tensor:
    """Cross entropy or binary cross entropy of logits (b, classes) against targets (b, classes) in 0..1."""
    if settings.loss == "bce":
        return F.binary_cross_entropy_with_logits(logits.float(), targets)
    return F.cross_entropy(logits.float(), targets, label_smoothing=settings.label_smoothing)


def _check_finite(run: Run, epoch: int, step: int, batch: list[int], loss: Tensor, norm: Tensor) -> None:
    if not torch.isfinite(loss) or not torch.isfinite(norm):
        files = ", ".join(str(run.train.clips[i].path.name) for i in batch[:5])
        raise AumError(f"the loss or its gradient is no number at epoch {epoch + 1}, step {step + 1} (loss {loss.item()}, "
                       f"gradient norm {norm.item()}, learning rate {run.optimizer.param_groups[0]['lr']:.3g}, clips {files}, ...)",
                       fix="lower train.lr" + (f"; {run.out / 'last'} holds the last good epoch" if epoch else ""), exit_code=1)


def _average(run: Run, step: int) -> None:
    """Move the averaged weights towards the trained ones; faster at first, when the average is still poor."""
    if run.recipe.train.ema:
        decay = min(run.recipe.train.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(run.classifier.network.parameters()), list(run.network.parameters()), 1 - decay)


def _scores(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Validation scores and targets, (clips, classes) each."""
    return np.concatenate(list(score_clips(run.classifier, run.val.clips, run.val))), run.manifest.targets(run.val.clips)


def _metrics(run: Run, scores: np.ndarray, targets: np.ndarray):
    return evaluate_scores(scores, targets if run.manifest.multi_label else targets.argmax(1), run.classifier.labels)


def _percent(value: float | None) -> str:
    return "undefined" if value is None else f"{100 * value:.2f} %"


def _validate(run: Run) -> dict[str, float | None]:
    scores, targets = _scores(run)
    probabilities = torch.from_numpy(scores).double().clamp(1e-12, 1 - 1e-12)
    truth = torch.from_numpy(targets).double()
    if run.recipe.train.loss == "bce":
        loss = F.binary_cross_entropy(probabilities, truth)
    else:
        loss = -(truth * probabilities.log()).sum(1).mean()
    metrics = _metrics(run, scores, targets)
    mean_ap = metrics.mean_average_precision
    figures = {"val_loss": loss.item(), "val_map": None if math.isnan(mean_ap) else mean_ap}  # no class can be ranked
    return figures if run.manifest.multi_label else {**figures, "val_accuracy": metrics.accuracy}


def _save(run: Run, best: bool) -> None:
    """Write last/ and metrics.csv, and best/ where this epoch is the best so far."""
    row = run.history[-1]
    state = {"recipe": run.recipe.model_dump(mode="json"), "data": str(run.data), "history": run.history,
             "network": run.network.state_dict(), "optimizer": run.optimizer.state_dict(),
             "averaged": run.classifier.network.state_dict() if run.recipe.train.ema else None}
    with atomic_path(run.out / "metrics.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(run.history)
    figures = {"epoch": row["epoch"], run.metric: row[run.metric]}
    config = run.classifier.config.model_copy(update={"provenance": run.classifier.config.provenance | figures})
    for name in ("best", "last") if best else ("last",):
        save_model(run.out / name, run.classifier.network.state_dict(), config)
    buffer = io.BytesIO()  # torch.save hides a full disk behind a RuntimeError
    torch.save(state, buffer)
    with atomic_path(run.out / "last" / STATE) as temporary:  # last: --resume believes that all before it was written
        temporary.write_bytes(buffer.getbuffer())


def _read_state(out: Path, resume: bool) -> dict | None:
    path = out / "last" / STATE
    if not resume:
        if path.exists():
            raise AumError(f"{out} already holds a run", fix="go on with it by --resume, choose another folder with --out, or remove it")
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise AumError(f"there is no run to resume in {out}", fix="leave --resume out to start one") from error
    except Exception as error:
        raise AumError(f"can't read {path}: {error}", fix="start again in another folder", exit_code=1) from error


def _restore(run: Run, state: dict) -> None:
    run.network.load_state_dict(state["network"])
    if run.recipe.train.ema:
        run.classifier.network.load_state_dict(state["averaged"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.history.extend(state["history"])


def _finish(run: Run) -> None:
    """Write the plots and report.json from the best epoch's weights, and add thresholds for events to their config.json."""
    from aumcli.weights import read_model

    network, config = read_model(run.out / "best")
    run.classifier = Classifier(network, config, str(run.out), run.classifier.device)
    scores, targets = _scores(run)
    metrics = _metrics(run, scores, targets)
    write_config(run.out / "best", config.model_copy(update={"thresholds": best_thresholds(scores, targets)}))
    plot_curves(run.history, run.out / "curves.png", run.out.name, run.metric)
    if metrics.confusion is not None:
        plot_confusion(metrics.confusion, run.classifier.labels, run.out / "confusion-val.png",
                       f"{run.out.name}, validation split")
    write_json(run.out / "report.json", {
        "recipe": run.recipe.model_dump(mode="json"), "data": str(run.data), "epochs": run.history, "split": run.recipe.data.val,
        "clips": metrics.clips, "seed": run.recipe.seed, "backend": run.classifier.backend,
        "device": str(run.classifier.device), "dtype": "float32", "environment": environment(), "metrics": metrics.to_dict()})

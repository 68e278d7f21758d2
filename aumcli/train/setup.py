"""The state of a training, and how it is built from a recipe and prepared data."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aumcli.checkpoints import initialise
from aumcli.checkpoints.lookup import checkpoint_path
from aumcli.classifier import Classifier
from aumcli.config import ModelConfig
from aumcli.core import build_network, n_parameters
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.clips import Clip, Clips
from aumcli.data.corpus import corpus_folder, open_corpus
from aumcli.data.datasets.clip_source import ClipSource
from aumcli.data.datasets.waveforms import Waveforms, balanced_weights, stream_seed
from aumcli.data.manifest import Manifest, data_digest
from aumcli.data.splits import split_clips
from aumcli.data.training_clips import read_training_clips, seen_in_training
from aumcli.errors import AumError
from aumcli.metrics import best_row
from aumcli.plan import TrainingData, adopt_model, infer_frontend, settings_rows, start_frontend, training_data
from aumcli.recipe import Recipe
from aumcli.report.tables import text_columns
from aumcli.train.data_check import check_same_data
from aumcli.train.distributed import ProcessGroup
from aumcli.train.optim import make_optimizer
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, escaped

if TYPE_CHECKING:
    from aumcli.train.embeddings import Embeddings

WEIGHTS_PURPOSE, BATCH_PURPOSE, MODEL_PURPOSE = 1, 2, 3  # what a stream of random numbers is for
FEW_PARAMETERS = 2_000_000

logger = get_logger(__name__)


@dataclass
class EpochProgress:
    """How far an epoch has come: all that --resume needs to continue in its middle."""

    step: int = 0  # steps done
    loss: float = 0.0  # summed over the clips trained on
    clips: int = 0  # trained on
    skipped_steps: int = 0  # whose loss or gradient was not finite
    seconds: float = 0.0  # that earlier processes spent on it


@dataclass
class TrainState:
    """Everything that a training consists of."""

    recipe: Recipe
    data: Path
    out: Path
    manifest: Manifest
    classifier: Classifier  # the weights that are evaluated and saved: the moving average where the recipe asks for it
    network: SpectrogramNetwork  # the weights that are trained
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler  # of the loss, in float16; else it does nothing
    train: ClipSource
    val: ClipSource  # this process's share
    val_clips: Sequence[Clip]  # of all processes
    reported: int  # clips of the split that results are reported on; 0: the data lack it
    sample_weights: np.ndarray | None  # how likely each training clip is drawn; None: each once per epoch
    process_group: ProcessGroup
    progress: bool  # whether to show a bar
    data_sha256: str  # of the tables of `data`
    history: list[dict[str, Any]] = field(default_factory=list)  # a row per epoch; None where a figure is undefined
    epoch: EpochProgress = field(default_factory=EpochProgress)
    unreadable_clips: set[int] = field(default_factory=set)  # indices of training clips
    nonfinite_in_a_row: int = 0  # steps whose loss or gradient was not finite
    saved_at: float = field(default_factory=time.monotonic)
    embeddings: "Embeddings | None" = None  # of a frozen network, whose head is trained on these
    best_weights: dict[str, Tensor] | None = None  # those of the best epoch, where best/ doesn't hold them yet
    short: bool = False  # a short run of which only the last epoch's figures are wanted: it saves and draws nothing

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (b, classes) of features (b, frames, mels), or of embeddings (b, d) where the network is frozen."""
        logits: Tensor = self.network(inputs) if self.embeddings is None else self.network.classify(inputs)
        return logits

    def log(self, message: str, level: int = logging.INFO) -> None:
        """Log a message, once for all processes."""
        if self.process_group.is_rank_zero and (not self.short or level >= logging.WARNING):
            logger.log(level, message)

    @property
    def steps_per_epoch(self) -> int:
        return self.recipe.train.steps_per_epoch(len(self.train))

    @property
    def has_background(self) -> bool:
        """Whether the model is trained with a background class."""
        return self.classifier.has_background

    @property
    def small(self) -> bool:
        """Whether one thread updates the weights sooner than several, which have to be woken for each tensor."""
        return n_parameters(self.network) < FEW_PARAMETERS

    @property
    def val_name(self) -> str:
        """Which clips choose the best epoch."""
        data = self.recipe.data
        return f"{data.val_fraction:g} of {data.train}" if data.val_fraction else data.val

    @property
    def rate(self) -> float:
        """The largest learning rate of the last step among the parameter groups."""
        return max(group["lr"] for group in self.optimizer.param_groups)

    @property
    def metric(self) -> str:
        """The validation metric that chooses the best epoch."""
        return "val_map" if self.manifest.multi_label else "val_accuracy"

    @property
    def best(self) -> int:
        """The best epoch so far, from 1, of equals that with the lowest validation loss; 0 before the first ended."""
        scores = [-1.0 if row[self.metric] is None else row[self.metric] for row in self.history]
        best = best_row(scores, [row["val_loss"] for row in self.history])
        return 0 if best is None else best + 1


def autocast(state: TrainState) -> torch.autocast:
    """The dtype of a step's matmuls, as `train.dtype` says."""
    dtype = state.recipe.train.dtype
    return torch.autocast(
        state.classifier.device.type,
        torch.float16 if dtype == "float16" else torch.bfloat16,
        enabled=dtype != "float32",
    )


def build(
    recipe: Recipe,
    out: Path,
    data: Path | str | None,
    device: torch.device,
    process_group: ProcessGroup,
    progress: bool,
    saved: dict | None = None,
) -> tuple[TrainState, list[str], list[str]]:
    """Read the data, infer what the recipe leaves to it, and build the model.

    Args:
        recipe: what to do.
        out, data, progress: see `aumcli.train.train`.
        device: where to compute.
        process_group: the processes of this training.
        saved: the checkpoint that will be restored; None: a new run.

    Returns:
        The state; notes for the log, data and model first; and the settings, a line each.

    Raises:
        AumError: the data or the recipe is unusable, or the data is not that of the checkpoint.
    """
    fresh = saved is None
    if fresh and recipe.train.pretrained and not recipe.train.init:
        raise AumError(
            f"this recipe starts from weights that were not given: {recipe.train.pretrained}",
            fix="fetch them and name them with --init PATH; --set train.pretrained= trains from scratch",
        )
    recipe = adopt_model(recipe) if fresh else recipe
    folder = corpus_folder(recipe.data, data)
    manifest = open_corpus(recipe.data, folder if data else None)
    sha256 = data_digest(folder)
    if saved is not None:
        check_same_data(saved, manifest, sha256, out)
    found = training_data(recipe, manifest)
    measured, kept = recipe.data.infer, start_frontend(recipe) if fresh else None
    if fresh:
        if recipe.augment.background_noise and Clips.of(found.train).has_labels().all():
            raise AumError(
                f"augment.background_noise needs clips of no class, and {folder} has none to train on",
                fix="prepare them with --background DIR, or --set augment.background_noise=0",
            )
        classes = len(manifest.labels)
        recipe = infer_frontend(recipe, found.train, classes, manifest.multi_label, kept, manifest.band_hz)
        recipe = _with_microbatches(recipe, process_group)
    config = ModelConfig(
        model=recipe.model,
        frontend=recipe.frontend,
        labels=tuple(manifest.label_names),
        activation=_activation(recipe, found),
        views=recipe.data.views,
        provenance={
            "data": escaped(str(folder)),
            "seed": recipe.seed,
            "test_group": recipe.data.test_group,
            "test": recipe.data.reported,
            "clips": len(found.train),
        },
    )
    network, averaged, notes = _networks(recipe, config, fresh)
    if fresh and process_group.is_rank_zero:
        _warn_of_seen_clips(recipe, found)
    network.to(device)
    classifier = Classifier(averaged or network, config, str(out), device)
    train: ClipSource
    val: ClipSource
    train, val = found.streams or (
        Waveforms(clips, recipe.frontend.sample_rate_hz, recipe.data.cache_mb) for clips in (found.train, found.val)
    )
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.dtype == "float16")
    state = TrainState(
        recipe,
        folder,
        out,
        manifest,
        classifier,
        network,
        make_optimizer(network, recipe.train),
        scaler,
        train,
        val.share(process_group.rank, process_group.size),
        found.val,
        found.reported,
        balanced_weights(found.train) if recipe.data.sampling == "balanced" else None,
        process_group,
        progress,
        sha256,
    )
    lost = found.unused_band(recipe.frontend)
    settings = settings_rows(recipe, len(found.train), found.reported, measured, lost, kept is not None)
    return state, [_summary(state, found), *notes], text_columns(settings, 10)


def _activation(recipe: Recipe, found: TrainingData) -> str:
    """How logits become scores: with a background class where some of the training is of no class."""
    if recipe.train.loss == "bce":
        return "sigmoid"
    background = recipe.augment.background > 0 or () in Clips.of(found.train).label_sets
    return "softmax_background" if background else "softmax"


def _warn_of_seen_clips(recipe: Recipe, found: TrainingData) -> None:
    """Warn where the weights that a training starts from were trained on clips that it will be tested on."""
    if not recipe.train.init or not found.reported or found.index is not None:
        return
    tested = split_clips(found.manifest, recipe.data.reported, recipe.data.test_group)
    seen = read_training_clips(recipe.train.init)
    for warning in seen_in_training(seen, tested, recipe.train.init, recipe.data.reported):
        logger.warning(warning)


def _summary(state: TrainState, found: TrainingData) -> str:
    """One line on data, model and machine."""
    recipe, group = state.recipe, state.process_group
    parameters, trained = n_parameters(state.network), n_parameters(state.network, trained_only=True)
    shards = (
        ""
        if found.index is None
        else f", streamed from {counted(len(found.index.shards), 'shard')} in {found.index.base}"
    )
    several = f"; {group.size} processes, {recipe.train.gradient_accumulation_steps} microbatches a step"
    return (
        f"{state.data}: {len(found.train):,} training and {counted(len(found.val), 'validation clip')}, "
        f"{counted(len(found.manifest.labels), 'class')}{shards}; "
        f"{recipe.model.describe()}, {parameters:,} parameters"
        f"{f', {trained:,} trained' if trained < parameters else ''}; "
        f"{state.classifier.backend} backend on {state.classifier.device}, "
        f"{counted(torch.get_num_threads(), 'thread')}, seed {recipe.seed}{several if group.size > 1 else ''}"
    )


def _with_microbatches(recipe: Recipe, process_group: ProcessGroup) -> Recipe:
    """The recipe with at least one microbatch of each batch for every process."""
    steps, size = recipe.train.gradient_accumulation_steps, process_group.size
    if steps == 1:
        return recipe.with_values(train={"gradient_accumulation_steps": size}) if size > 1 else recipe
    if steps % size:
        raise AumError(
            f"train.gradient_accumulation_steps {steps} can't be shared among {size} processes",
            fix=f"choose a multiple of {size}",
        )
    return recipe


def _networks(
    recipe: Recipe, config: ModelConfig, fresh: bool
) -> tuple[SpectrogramNetwork, SpectrogramNetwork | None, list[str]]:
    """The network to train, the network of its moving average where the recipe asks for one, and notes for the log."""
    torch.use_deterministic_algorithms(True)
    # a debugging aid that costs a pass over every tensor; typed as a module without attributes
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(stream_seed(recipe.seed, WEIGHTS_PURPOSE))
    network, averaged = build_network(recipe.model), None
    network.activation_checkpointing = recipe.train.activation_checkpointing
    notes = initialise(network, config, checkpoint_path(recipe.train.init)) if recipe.train.init and fresh else []
    if recipe.train.ema:
        averaged = build_network(recipe.model).requires_grad_(False)
        averaged.load_state_dict(network.state_dict())
    return network, averaged, notes

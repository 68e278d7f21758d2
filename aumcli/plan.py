"""What a training will do, and what it needs: data, steps, memory and disk, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aumcli.checkpoints import frontend_of, read_checkpoint
from aumcli.checkpoints.lookup import checkpoint_path
from aumcli.config import VIEWS, AugmentConfig, DataConfig, FrontendConfig, TrainConfig
from aumcli.core import build_network, count_parameters
from aumcli.data.clips import Clip, Clips
from aumcli.data.corpus import corpus_folder, open_corpus
from aumcli.data.datasets.shards import ShardIndex
from aumcli.data.datasets.stream import ShardStream, index_of_shards, shard_streams
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.infer import infer_shape, measure_normalisation, sample_rates, unused_band
from aumcli.data.manifest import Manifest
from aumcli.data.splits import reported_clips, training_splits
from aumcli.errors import AumError
from aumcli.recipe import MEASURED, SHARED, Recipe, load_recipe, recipe_names
from aumcli.utils.memory import kept_bytes
from aumcli.utils.text import counted

MEASURED_FILES = 2000  # whose sizes are read; more would take minutes on a network's disk
FLOAT = 4  # bytes


CROPS = {
    "random": "a random crop is trained on",
    "first": "their beginning is trained on",
    "epic_sounds": "their beginning, beyond 10 s from a random start, is trained on",
}


@dataclass(frozen=True)
class TrainingData:
    """The clips of a training, and where they are read from.

    Attributes:
        manifest: the prepared corpus.
        index: its shards, where it has no sound files here.
        streams: what reads training and validation clips from these; None: they are files.
        train, val: the clips that are trained on, and those that choose the best epoch.
        reported: how many clips there are to report results on; 0: the data lack them.
    """

    manifest: Manifest
    index: ShardIndex | None
    streams: tuple[ShardStream, ShardStream] | None
    train: Sequence[Clip]
    val: Sequence[Clip]
    reported: int

    def unused_band(self, frontend: FrontendConfig) -> str:
        """The frequencies of the recordings that the model doesn't hear (see `aumcli.data.infer.unused_band`)."""
        files = self.train if self.index is None else []
        rates = sample_rates(self.manifest, files)
        return unused_band(rates, frontend.sample_rate_hz, frontend.low_hz, self.manifest.band_hz)


def training_data(recipe: Recipe, manifest: Manifest) -> TrainingData:
    """The clips that a recipe takes from a corpus.

    Raises:
        AumError: a split or a file is missing, or shards can't serve the recipe.
    """
    index = index_of_shards(manifest)
    reported = reported_clips(manifest, recipe.data, index)
    if index is not None:
        streams = shard_streams(manifest, index, recipe.data, recipe.augment, recipe.frontend.sample_rate_hz)
        return TrainingData(manifest, index, streams, streams[0].clips, streams[1].clips, reported)
    train, val = training_splits(manifest, recipe.data)
    manifest.check_files([*train, *val])
    return TrainingData(manifest, None, None, train, val, reported)


def adopt_model(recipe: Recipe) -> Recipe:
    """A recipe whose `data.infer` names the model, with architecture, sizes and frontend of the weights it starts from.

    Values that the recipe itself gives stay.

    Raises:
        AumError: it doesn't say which weights, or they can't be read.
    """
    if "model" not in recipe.data.infer:
        return recipe
    if not recipe.train.init:
        raise AumError(
            "this recipe takes its model from the weights that it starts from",
            fix="name a run, a model or a checkpoint with --init PATH",
        )
    model, frontend = recipe.model.model_dump(exclude_unset=True), recipe.frontend.model_dump(exclude_unset=True)
    checkpoint = read_checkpoint(checkpoint_path(recipe.train.init), model.get("cls_position", "mid"))
    known = checkpoint.frontend.model_dump() if checkpoint.frontend else {"frames": checkpoint.model.frames}
    sizes = checkpoint.model.model_dump(exclude={"n_classes", *SHARED})
    chosen = {key: value for key, value in model.items() if key not in SHARED}
    infer = tuple(item for item in recipe.data.infer if item != "model")
    return recipe.with_values(model=sizes | chosen, frontend=known | frontend, data={"infer": infer})


def start_frontend(recipe: Recipe) -> FrontendConfig | None:
    """The frontend of the weights that a training starts from, where they say it; None for fresh weights."""
    return frontend_of(checkpoint_path(recipe.train.init)) if recipe.train.init else None


def infer_frontend(
    recipe: Recipe,
    clips: Sequence[Clip],
    n_classes: int,
    multi_label: bool,
    kept: FrontendConfig | None = None,
    band_hz: tuple[float, float] | None = None,
) -> Recipe:
    """Replace what the recipe leaves to the data by measured values, or by those of the weights that it starts from.

    Args:
        recipe: its `data.infer` names the frontend values to measure.
        clips: the training split.
        n_classes: labels of the corpus.
        multi_label: whether a clip may have several labels.
        kept: the frontend of the weights that the training starts from: its values are used, and nothing is measured.
        band_hz: where the corpus' annotated events are; None: not known.

    Returns:
        A recipe with every value concrete: `data.infer` empty, `train.loss` and the number of epochs decided.

    Raises:
        AumError: a clip can't be read, the values don't go together, or the recipe says another number of classes.
    """
    _check_classes(recipe, n_classes)
    if kept is not None:
        keys = [key for name in recipe.data.infer for key in MEASURED[name]]
        recipe = recipe.with_values(frontend={key: getattr(kept, key) for key in keys}, data={"infer": ()})
    count, clips = len(clips), _of_classes(clips)
    infer, loss = recipe.data.infer, recipe.train.loss
    if loss == "auto":
        loss = "bce" if multi_label else "cross_entropy"
    shape = infer_shape(infer, clips, recipe.frontend, recipe.model.whole_frames, band_hz)
    recipe = recipe.with_values(frontend=shape, model={"n_classes": n_classes}, train={"loss": loss})
    if recipe.train.max_steps:
        fitting = max(1, recipe.train.max_steps // recipe.train.steps_per_epoch(count))
        recipe = recipe.with_epochs(fitting) if fitting < recipe.train.epochs else recipe
    if "normalisation" in infer:
        mean, std = measure_normalisation(recipe.frontend, clips)
        recipe = recipe.with_values(frontend={"mean": mean, "std": std})
    return recipe.with_values(data={"infer": ()})


def _of_classes(clips: Sequence[Clip]) -> Sequence[Clip]:
    """Clips without those of no class, which shall fit the input rather than decide it."""
    clips = Clips.of(clips)
    has_labels = clips.has_labels()
    return clips if has_labels.all() else clips.take(np.flatnonzero(has_labels))


def _check_classes(recipe: Recipe, n_classes: int) -> None:
    """Refuse a number of classes that the user chose and the data doesn't have; a corpus' recipe has the corpus'."""
    unset = {type(recipe.model).model_fields["n_classes"].default}
    if recipe.data.corpus in recipe_names():
        unset.add(load_recipe(recipe.data.corpus).model.n_classes)
    if recipe.model.n_classes not in unset | {n_classes}:
        raise AumError(
            f"model.n_classes is {recipe.model.n_classes} in the recipe, the data has {counted(n_classes, 'class')}",
            fix=f"--set model.n_classes={n_classes} takes the data's",
        )


def settings_rows(
    recipe: Recipe,
    clips: int | None,
    reported: int | None,
    measured: Sequence[str] = (),
    lost: str = "",
    kept: bool = False,
) -> list[tuple[str, str]]:
    """What a recipe does, as (what, value) rows: input, start, length, steps, augmentation, which clips serve for what.

    Args:
        recipe: what to do.
        clips: clips to train on; None: not known yet.
        reported: clips to report results on, see `aumcli.data.splits.reported_clips`; None: not known yet.
        measured: what of the input was measured on them.
        lost: the band of the recordings above the model's input (see `aumcli.data.infer.unused_band`).
        kept: whether that was not measured, but is as the weights were trained with that the training starts from.
    """
    front, train, data = recipe.frontend, recipe.train, recipe.data
    normal = (
        "not normalised"
        if (front.mean, front.std) == (0, 0.5)
        else f"mean {round(front.mean, 6) + 0.0:g}, std {front.std:g}"
    )
    origin = f"as {train.init} was trained with" if kept else "measured on the clips"
    usual = FrontendConfig()
    changed = {item: any(getattr(front, key) != getattr(usual, key) for key in MEASURED[item]) for item in measured}
    names = {"low_hz": "lowest frequency", "high_hz": "highest frequency"}
    measured = [
        names.get(item, item) for item in measured if changed[item] or item not in ("low_hz", "high_hz", "window")
    ]
    fitted = f"; {origin}: " + ", ".join(measured).replace("_", " ") if measured else ""
    special = (
        ""
        if front.band_hz == (usual.low_hz, front.sample_rate_hz / 2)
        else ", {:,g} to {:,g} Hz".format(*front.band_hz)
    )
    if (front.window_ms, front.hop_ms) != (usual.window_ms, usual.hop_ms):
        special += f", windows of {front.window_ms:g} ms every {front.hop_ms:g} ms"
    length = f"{counted(train.epochs, 'epoch')}, batches of {counted(train.batch_size, 'clip')}"
    if clips:
        steps = train.steps_per_epoch(clips)
        length += f": {counted(steps, 'step')} each, {train.epochs * steps:,} in all"
    length += f", at most {train.max_steps:,} (train.max_steps)" if train.max_steps else ""
    chooser = (
        f"{100 * data.val_fraction:g} % of {data.train}, kept out of training"
        if data.val_fraction
        else f"the split {data.val}"
    )
    return [
        (
            "input",
            f"{front.sample_rate_hz} Hz, {front.n_mels} mels x {front.frames} frames, {front.clip_s:.2f} s{special}, "
            f"{front.kind}, {'without its level, ' if front.remove_level else ''}{normal}{fitted}",
        ),
        *([("not used", lost)] if lost else []),
        ("start", train.init or (f"NEEDED, by --init: {train.pretrained}" if train.pretrained else "fresh weights")),
        ("length", f"{length}; {data.sampling}"),
        ("steps", _describe(train)),
        ("long clips", f"{CROPS[data.crop]}; evaluated: {VIEWS[data.views]}"),
        ("augment", _changes(recipe.augment) or "nothing"),
        ("best epoch", f"chosen by {chooser}"),
        ("reported", _reported(data, reported)),
    ]


def _reported(data: DataConfig, clips: int | None) -> str:
    """Which clips results are reported on, and what is wrong with them."""
    what = f"the group {data.test_group}, not trained on" if data.test_group else f"the split {data.test}"
    if clips == 0:
        return f"nothing: the data lack {what}; --set data.test=NAME names another, `aum eval` takes --split"
    count = "" if clips is None else f", {counted(clips, 'clip')}"
    if data.leak:
        keep = f", --set data.val_fraction=0.1 chooses on a share of {data.train} instead"
        return (
            f"{what}{count}, WHICH ALSO {data.leak.upper()}: the figures will flatter; --set data.test=NAME names "
            f"other clips to report{'' if data.leak == 'train' else keep}"
        )
    return what + count


def _describe(train: TrainConfig) -> str:
    """Loss, optimizer and schedule in one line."""
    warmup = f"warm-up {train.warmup_epochs:g} {'epoch' if train.warmup_epochs == 1 else 'epochs'}"
    warmup = f"warm-up {counted(train.warmup_steps, 'step')}" if train.warmup_steps else warmup
    warmup += f" from {100 * train.warmup_start:g} %" if train.warmup_start else ""
    warmup += f", {train.warmup_every} steps each stair" if train.warmup_every > 1 else ""
    parts = [train.loss, train.optimizer, f"rate {train.lr:g}", f"decay {train.weight_decay:g}", warmup]
    if train.schedule == "steps":
        parts.append(
            f"x {train.decay_factor:g} after {counted(train.decay_start, 'epoch')} and every {train.decay_every}"
        )
    else:
        parts.append(train.schedule)
    return ", ".join([*parts, *([f"average {train.ema:g}"] if train.ema else []), train.dtype])


def _changes(augment: AugmentConfig) -> str:
    """The augmentations that are on."""
    return ", ".join(
        f"{key} {getattr(augment, key)}"
        for key, field in AugmentConfig.model_fields.items()
        if getattr(augment, key) != field.default and (augment.mixup or key != "mixup_partners")
    )


def dry_run(recipe: Recipe, data: Path | str | None = None) -> tuple[list[tuple[str, str]], Recipe | None]:
    """Say what a training would do and need, and write nothing.

    Args:
        recipe: what to do.
        data: a prepared folder; None: data/<the recipe's corpus>. It may be missing if the recipe names a corpus.

    Returns:
        (what, value) rows; and the recipe as it was fitted to the data, None where that is missing.

    Raises:
        AumError: the data is unusable.
    """
    recipe = adopt_model(recipe)
    folder, manifest, measured, lost, kept = corpus_folder(recipe.data, data), None, recipe.data.infer, "", None
    try:
        manifest = open_corpus(recipe.data, folder if data else None)
    except AumError:
        if data is not None or (folder / "manifest.csv").exists():
            raise
    if manifest is None:
        (rows, clips, audio), reported = _missing(recipe, folder), None
    else:
        found = training_data(recipe, manifest)
        if found.index is not None:
            size = _size(sum(shard.bytes for shard in found.index.shards))
            audio = f"streams {size} in {counted(len(found.index.shards), 'shard')} from {found.index.base}"
        else:
            audio = _audio_bytes([*found.train, *found.val])
        clips, reported, kept = len(found.train), found.reported, start_frontend(recipe)
        n_classes = len(manifest.labels)
        recipe = infer_frontend(recipe, found.train, n_classes, manifest.multi_label, kept, manifest.band_hz)
        lost = found.unused_band(recipe.frontend)
        rows = [
            (
                "data",
                f"{folder}: {clips:,} training and {counted(len(found.val), 'validation clip')}"
                f"{_coverage(recipe, manifest)}",
            )
        ]
    parameters = count_parameters(recipe.model)
    classes = counted(recipe.model.n_classes, "class")
    rows.append(("model", f"{recipe.model.describe()}, {parameters:,} parameters, {classes}{_unfitted(recipe)}"))
    return [
        *rows,
        *settings_rows(recipe, clips, reported, measured if manifest else (), lost, kept is not None),
        ("memory", _memory(recipe, FLOAT * parameters)),
        ("disk", f"{audio}; the run {_size((2 + 3 + bool(recipe.train.ema)) * FLOAT * parameters)}"),
    ], recipe if manifest else None  # on the disk: best, last, state.pt


def _unfitted(recipe: Recipe) -> str:
    """What the data, once prepared, will still change."""
    return (
        f"; the data decides the number of classes and {', '.join(recipe.data.infer)}".replace("_", " ")
        if recipe.data.infer
        else ""
    )


def _memory(recipe: Recipe, weights: int) -> str:
    """What a step needs, in words, for `weights` bytes of weights."""
    train = recipe.train
    fixed, kept = (
        (4 + bool(train.ema)) * weights,
        activation_bytes(recipe),
    )  # weights, gradients, Adam's two moments, average
    average = " and average" if train.ema else ""
    return (
        f"{_size(fixed + kept)} at least: {_size(fixed)} for weights, gradients, optimizer{average}, {_size(kept)} "
        "kept for the backward pass (measured on one and two blocks and clips); "
        f"decoded clips, up to {recipe.data.cache_mb} MB, on top"
    )


def activation_bytes(recipe: Recipe) -> int:
    """What a training step keeps for its backward pass, without weights.

    Measured on the CPU with one and two blocks and clips: blocks are alike and clips are alike, so all sizes lie on the
    plane through these four.
    """
    import torch

    model, train = recipe.model, recipe.train

    def kept(depth: int, batch: int) -> int:
        config = type(model).model_validate(model.model_dump() | {"size": None, "depth": depth, "drop_path": 0.0})
        with torch.random.fork_rng(devices=[]):
            network = build_network(config).train()
        network.activation_checkpointing = train.activation_checkpointing
        features, targets = torch.zeros(batch, model.frames, model.n_mels), torch.zeros(batch, model.n_classes)

        def loss() -> torch.Tensor:
            with torch.autocast("cpu", getattr(torch, train.dtype), enabled=train.dtype != "float32"):
                return torch.nn.functional.binary_cross_entropy_with_logits(network(features).float(), targets)

        return kept_bytes(loss, network.parameters())

    one, deep, wide, both = kept(1, 1), kept(2, 1), kept(1, 2), kept(2, 2)
    depth, batch = model.depth - 1, train.batch_size - 1
    return one + depth * (deep - one) + batch * (wide - one) + depth * batch * (both - deep - wide + one)


def _missing(recipe: Recipe, folder: Path) -> tuple[list[tuple[str, str]], int | None, str]:
    """Row, training clips and bytes of a corpus that is not prepared yet."""
    whole, corpus = recipe.data.train_clips, recipe.data.corpus
    clips = whole and whole - round(recipe.data.val_fraction * whole)
    size = "the size of the sounds is not known yet"
    if whole:
        samples = whole * recipe.frontend.clip_s * recipe.frontend.sample_rate_hz
        size = f"about {_size(2 * samples)} of sounds to train on (16 bits, {recipe.frontend.clip_s:.0f} s each)"
    about = f": {counted(whole, 'clip')} in its training split" if whole else ""
    return [("data", f"{folder} is not prepared{about}; run aum prepare {corpus}")], clips, size


def _coverage(recipe: Recipe, manifest: Manifest) -> str:
    whole, here = recipe.data.train_clips, int(manifest.clips.is_of_split(recipe.data.train).sum())
    return f"; {100 * here / whole:.1f} % of the corpus' {counted(whole, 'training clip')}" if whole else ""


def _audio_bytes(clips: Sequence[Clip]) -> str:
    """How much sound is read, in words, from the sizes of the files or of some of them."""
    paths = list(dict.fromkeys(split_dataset(clip.path)[0] for clip in clips))
    some = paths[:: max(1, len(paths) // MEASURED_FILES)]
    size = sum(path.stat().st_size for path in some) * len(paths) / len(some)
    return f"reads {'' if len(some) == len(paths) else 'about '}{_size(size)} in {counted(len(paths), 'file')}"


def _size(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"

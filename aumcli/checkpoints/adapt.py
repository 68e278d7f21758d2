"""One model's weights for another: other spectrogram, other patches, other classes; every change is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from aumcli.checkpoints.published import HEADS, PATCHES, POSITIONS, Checkpoint, read_checkpoint
from aumcli.config import FrontendConfig, ModelConfig, NetworkConfig
from aumcli.core import build_network
from aumcli.core.network import SpectrogramNetwork
from aumcli.core.tokenizers import resize_patches, resize_positions
from aumcli.errors import AumError
from aumcli.utils.text import counted

AUDIOSET_CLASSES = 527


class UnknownFrontend(AumError):
    """A checkpoint that doesn't say on which features it was trained, nor does its number of classes."""

    def __init__(self, problem: str, fix: str = "", exit_code: int = 2, n_classes: int = 0):
        super().__init__(problem, fix, exit_code)
        self.n_classes = n_classes


@dataclass(frozen=True)
class Imported:
    """A network in float32, in evaluation mode on the CPU; its configuration.

    And what was changed on the way, a line each.
    """

    network: SpectrogramNetwork
    config: ModelConfig
    notes: list[str]


def import_checkpoint(
    path: Path | str,
    *,
    cls_position: str = "mid",
    labels: Sequence[str] | None = None,
    new_head: bool = False,
    frames: int | None = None,
    heads: int | None = None,
    frontend: FrontendConfig | None = None,
    activation: str | None = None,
    views: str | None = None,
    backend: str = "auto",
) -> Imported:
    """Read somebody's weights as a model of ours (see `aumcli.checkpoints.published.KNOWN`).

    Args:
        path: the checkpoint.
        cls_position: where an AuM or ViM has its class token; no tensor tells.
        labels: names of the classes; None: the checkpoint's, else "class 0" and so on.
        new_head: draw a head for `labels` anew, with seed 0, instead of taking the checkpoint's. ImageNet's is never
            taken.
        frames: of the spectrogram; positions are resized where the checkpoint has others. None: the checkpoint's, for
            pictures the frontend's.
        heads: of an AST; None: the checkpoint's, else one for 64 of its width, as in all published sizes.
        frontend: what a checkpoint was trained with that doesn't say it, its frames aside. None: AudioSet's, for a
            checkpoint of AudioSet's 527 classes or a head that is yet to be trained.
        activation: "softmax" or "sigmoid"; None: the checkpoint's, else sigmoid for 527 classes and, for a head that is
            yet to be trained, softmax for others.
        views: which windows of a long clip evaluation scores; None: the checkpoint's, else all.
        backend: kernel backend of the network.

    Raises:
        UnknownFrontend: neither the checkpoint nor the caller says what it was trained with, and AudioSet it wasn't.
        AumError: the file can't be read, needs more than tensors, is no such checkpoint, has other classes than
            `labels`, or says itself what is given as `frontend`.
    """
    n_mels = FrontendConfig().n_mels if frontend is None else frontend.n_mels
    try:
        checkpoint = read_checkpoint(
            path, cls_position, frames or (frontend.frames if frontend is not None else None), n_mels, heads
        )
        if frontend is not None and checkpoint.frontend is not None:
            raise AumError(
                f"{path} ({checkpoint.kind}) says itself which frontend it was trained with, and no other "
                "fits its weights",
                fix="leave --recipe out",
            )
        config = _target(checkpoint, path, labels, new_head, frames, frontend, activation, views)
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise AumError(
            f"{path} describes no model that exists: {': '.join(filter(None, (where, what)))}",
            fix="check --heads, --cls-position and --frames",
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(config.model, backend)
    fresh_head = new_head or checkpoint.of_pictures
    notes = [f"read {checkpoint.kind}", *load(network, checkpoint, str(path), not fresh_head, whole=True)]
    if frontend is None and checkpoint.frontend is None:
        why = "as no recipe was given" if fresh_head else f"as for all checkpoints of {AUDIOSET_CLASSES} classes"
        notes.append(f"the frontend is AudioSet's, {why}")
    return Imported(network.eval(), config, notes)


def initialise(
    network: SpectrogramNetwork, config: ModelConfig, path: Path | str, heads: int | None = None
) -> list[str]:
    """Start a training from somebody's weights.

    The head, an AST's with the norm before it, is taken over where the checkpoint has as many classes and doesn't name
    others; what the checkpoint lacks keeps its fresh values.

    Args:
        network: of the configuration; is changed.
        config: the model that will be trained.
        path: see `aumcli.checkpoints.published.KNOWN`.
        heads: see `import_checkpoint`; None: the network's own.

    Returns:
        What was loaded, resized, left new and left out, a line each.

    Raises:
        AumError: the file can't be read, or is of a model of another size or kind.
    """
    model = config.model
    checkpoint = read_checkpoint(
        path, getattr(model, "cls_position", "mid"), None, model.n_mels, heads or getattr(model, "heads", None)
    )
    same_classes = not checkpoint.of_pictures and checkpoint.labels in (None, config.labels)
    notes = [f"initialised from {path}: {checkpoint.kind}", *load(network, checkpoint, str(path), same_classes)]
    if other := _other_values(config.frontend, checkpoint.frontend):
        notes.append(f"the input is not the checkpoint's: {', '.join(other)}")
    if checkpoint.labels is None and same_classes and checkpoint.model.n_classes == model.n_classes:
        notes.append(
            f"the head of {counted(model.n_classes, 'class')} is taken over, though the checkpoint doesn't name them: "
            "they have to be in the order of labels.csv; aum convert with --labels gives them names, which are compared"
        )
    return notes


def _other_values(frontend: FrontendConfig, before: FrontendConfig | None) -> list[str]:
    """Each value of a frontend that differs from the one that weights were trained with, where that is known."""
    return (
        []
        if before is None
        else [
            f"frontend.{name} {getattr(frontend, name)} instead of {getattr(before, name)}"
            for name in FrontendConfig.model_fields
            if getattr(frontend, name) != getattr(before, name)
        ]
    )


def load(
    network: SpectrogramNetwork, checkpoint: Checkpoint, path: str, same_classes: bool, whole: bool = False
) -> list[str]:
    """Load a checkpoint's tensors into a network, positions and patches resized; see `initialise` for what is returned.

    Args:
        network: is changed.
        checkpoint: what to load.
        path: where it came from, for people.
        same_classes: whether its classes are the network's; else its head is left out.
        whole: refuse to leave anything but the head new, or to leave anything out.

    Raises:
        AumError: it is of a model of another size or kind.
    """
    model, old = network.config, checkpoint.model
    conv = "conv" in (model.tokenizer, old.tokenizer)
    for name in ("architecture", "width", "depth", "pooling", *(("tokenizer", "n_mels", "stem") if conv else ())):
        if getattr(model, name) != getattr(old, name):
            raise AumError(
                f"{path} ({checkpoint.kind}, {old.describe()}) can't initialise {model.describe()}: another {name}",
                fix=f"take a checkpoint of the same kind and size, or set model.{name} to the checkpoint's",
            )
    tensors, notes = _resized(network, checkpoint)
    head = HEADS[model.architecture]
    if not same_classes or old.n_classes != model.n_classes:
        tensors = {name: x for name, x in tensors.items() if not name.startswith(head)}
        notes.append(_about_head(checkpoint, model))
    wanted = network.state_dict()
    loaded = {name: x.float() for name, x in tensors.items() if name in wanted}
    if other := [name for name, x in loaded.items() if x.shape != wanted[name].shape]:
        raise AumError(
            f"{path}: {other[0]} has shape {tuple(loaded[other[0]].shape)}, "
            f"the model's {tuple(wanted[other[0]].shape)}",
            fix="it comes from a model of other sizes, such as another state size",
        )
    new, left_out = (sorted(set(a) - set(b)) for a, b in ((wanted, loaded), (tensors, loaded)))
    if not loaded or whole and (left_out or any(not name.startswith(head.split(".")[0]) for name in new)):
        name = (left_out or [name for name in new if not name.startswith(head.split(".")[0])])[0]
        raise AumError(
            f"{path} doesn't fit the model that its tensors describe: {name} is {'unknown' if left_out else 'missing'}",
            fix="the file comes from another code, or is incomplete",
        )
    network.load_state_dict(loaded, strict=False)
    notes.insert(
        0, f"loaded {counted(len(loaded), 'tensor')}, {counted(sum(x.numel() for x in loaded.values()), 'parameter')}"
    )
    notes += [f"new, not trained: {_some(new)}"] if new else []
    return notes + ([f"left out: {_some(left_out)}"] if left_out else [])


def _target(
    checkpoint: Checkpoint,
    path: Path | str,
    labels: Sequence[str] | None,
    new_head: bool,
    frames: int | None,
    frontend: FrontendConfig | None,
    activation: str | None,
    views: str | None,
) -> ModelConfig:
    """The configuration of the imported model."""
    pictures = checkpoint.of_pictures
    fresh_head = new_head or pictures
    if labels is None and fresh_head:
        raise AumError(
            f"{path} ({checkpoint.kind}) gets a new head, but for which classes?", fix="name them with --labels"
        )
    classes = len(labels) if fresh_head and labels is not None else checkpoint.model.n_classes
    if labels is not None and len(labels) != classes:
        raise AumError(
            f"{counted(len(labels), 'label')} for a head of {counted(classes, 'class')}",
            fix="give the labels that this model was trained on, or --new-head for a new head to train",
        )
    activation = activation or checkpoint.activation
    of_audioset = classes == AUDIOSET_CLASSES
    if checkpoint.frontend is None and not fresh_head and not of_audioset and None in (frontend, activation):
        raise UnknownFrontend(
            f"{path} ({checkpoint.kind}) doesn't say what it was trained with, and its {classes} "
            "classes are not AudioSet's: normalisation, sample rate and loss would be guessed",
            fix="name the recipe that it was trained by with --recipe",
            n_classes=classes,
        )
    asked = checkpoint.frontend or frontend or FrontendConfig()
    size = {"frames": frames or checkpoint.model.frames}
    if pictures:
        size = {"n_mels": asked.n_mels, "frames": frames or asked.frames}
    model = type(checkpoint.model).model_validate(
        checkpoint.model.model_dump() | size | {"size": None, "n_classes": classes}
    )
    names = labels or checkpoint.labels or tuple(f"class {i}" for i in range(classes))
    return ModelConfig(
        model=model,
        labels=tuple(names),
        frontend=asked.model_copy(update={"n_mels": model.n_mels, "frames": model.frames}),
        activation=activation or ("sigmoid" if of_audioset else "softmax"),
        views=views or checkpoint.views or "all",
        provenance={
            "imported_from": Path(path).name,
            "kind": checkpoint.kind,
            "head": "new" if fresh_head else "the checkpoint's",
        },
    )


def _resized(network: SpectrogramNetwork, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], list[str]]:
    """The checkpoint's tensors with patches and positions of the network's sizes, and what was done."""
    model, old, notes = network.config, checkpoint.model, list(checkpoint.notes)
    patches, positions = PATCHES[model.architecture], POSITIONS[model.architecture]
    tensors = dict(checkpoint.tensors)
    size, had = (model.patch_mels, model.patch_frames), (old.patch_mels, old.patch_frames)
    if model.tokenizer == "patches" and size != had:
        tensors[patches] = resize_patches(tensors[patches].float(), size)
        notes.append(f"resized the patch embedding from {had[0]} x {had[1]} to {size[0]} x {size[1]}")
    prefixes = [(each.pooling == "cls") + getattr(each, "distilled", False) for each in (old, model)]
    rows = tensors[positions].float()
    if prefixes[0] != prefixes[1]:  # the first row belongs to the class token, the second to the distillation token
        fresh = network.state_dict()[positions][:, 1:2]
        rows = torch.cat([rows[:, :1], *([fresh] if prefixes[1] == 2 else []), rows[:, prefixes[0] :]], dim=1)
        notes.append(
            "left out the distillation token's position"
            if prefixes[0] == 2
            else "new, not trained: the distillation token's position"
        )
    tensors[positions] = resize_positions(rows, old.grid, model.grid, antialias=model.architecture == "aum")
    if old.grid != model.grid:
        notes.append(
            f"resized the positions from {old.grid[0]} x {old.grid[1]} to {model.grid[0]} x {model.grid[1]} patches"
        )
    return tensors, notes


def _about_head(checkpoint: Checkpoint, model: NetworkConfig) -> str:
    """Why the checkpoint's head is not taken over, and what belongs to it."""
    if checkpoint.of_pictures:
        why = "the checkpoint's classes are of pictures"
    elif checkpoint.model.n_classes != model.n_classes:
        why = f"the checkpoint has {counted(checkpoint.model.n_classes, 'class')}, the model {model.n_classes}"
    else:
        why = "the model has classes of its own"
    if model.architecture == "ast":
        return f"the head and the norm before it start afresh, as in the authors' scripts: {why}"
    return f"the head starts afresh: {why}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

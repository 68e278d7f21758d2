"""aum convert: a published checkpoint becomes a model directory that every other command takes; a model becomes one file, or
goes to the hub and comes back."""

import os
from pathlib import Path

from aumcli.classifier import checkpoint_path, find_model, load_model
from aumcli.data.tables import read_labels
from aumcli.errors import AumError
from aumcli.export import SUFFIXES, export_model
from aumcli.files import check_folder
from aumcli.hub import copy_model, hub_name, push
from aumcli.weights import CONFIG, import_checkpoint, read_model, save_model, transformers_ast


def convert(
    source: Path | str, out: Path | str, cls_position: str = "mid", labels: Path | str | None = None, new_head: bool = False,
    frames: int | None = None, heads: int | None = None, activation: str | None = None, to: str = "model",
) -> list[tuple[str, str]]:
    """Import a checkpoint into the model directory `out`; returns what was found and done, as (name, value) rows.

    Args: see `aumcli.weights.import_checkpoint`; labels: a table (see `aumcli.data.tables.read_labels`); to: "model", or "transformers" for a
        directory that transformers reads.

    Raises:
        AumError: the checkpoint is not one that is known, or damaged, or `out` already holds a model.
    """
    plain = cls_position == "mid" and to == "model" and not any((labels, new_head, frames, heads, activation))
    target = hub_name(out)
    if target or Path(out).suffix.lower() in SUFFIXES:
        if not plain:
            raise AumError(f"{out} is written of a model as it is; the options are for model directories",
                           fix="convert into a directory with them first, and that directory then without")
        return push(find_model(source), *target) if target else export_model(load_model(source), out)
    _check_directory(out)
    if (Path(out) / CONFIG).exists():
        raise AumError(f"{out} already holds a model", fix="name another folder, or remove this one first")
    fetched = hub_name(source) is not None
    source = checkpoint_path(source)
    if fetched and plain:
        _, config = read_model(source)  # refuses what is damaged before anything is written
        copy_model(source, out)
        return [("model", config.model.describe()), ("classes", str(len(config.labels))), ("written to", str(out))]
    names = None if labels is None else [label.name for label in read_labels(labels)]
    imported = import_checkpoint(source, cls_position=cls_position, labels=names, new_head=new_head, frames=frames, heads=heads,
                                 activation=activation)
    network, config, notes = imported.network, imported.config, imported.notes
    if to == "transformers":
        notes = notes + transformers_ast.write(out, network.state_dict(), config)
    else:
        save_model(out, network.state_dict(), config)
    unnamed = ", without names: give them with --labels" if config.labels[0] == "class 0" else ""
    return [("model", config.model.describe()), ("parameters", f"{sum(x.numel() for x in network.parameters()):,}"),
            ("input", f"{config.model.n_mels} mels x {config.model.frames} frames"), ("scores", config.activation),
            ("classes", str(len(config.labels)) + unnamed), ("normalisation", f"mean {config.frontend.mean}, std {config.frontend.std}"),
            *(("", note) for note in notes), ("written to", str(out))]


def _check_directory(out: Path | str) -> None:
    """Refuse what can't be meant for a model directory: a name like a file's, unless it ends in a slash or is there already."""
    suffix = Path(out).suffix
    if suffix[1:2].isalpha() and not str(out).endswith(("/", "\\")) and not os.path.isdir(out):
        raise AumError(f"a model can't be written as {suffix}", fix=f"name a file in {' or '.join(SUFFIXES)}, or a directory: {out}/")
    if suffix == "":
        check_folder(out)

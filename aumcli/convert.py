"""aum convert: a published checkpoint becomes a model directory that every other command takes."""

from pathlib import Path

from aumcli.data.tables import read_labels
from aumcli.errors import AumError
from aumcli.weights import CONFIG, import_checkpoint, save_model, transformers_ast


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
    if (Path(out) / CONFIG).exists():
        raise AumError(f"{out} already holds a model", fix="name another folder, or remove this one first")
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

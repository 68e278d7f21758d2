"""aum convert: a published checkpoint becomes a model directory that every other command takes."""

from pathlib import Path

from aumcli.data.tables import read_labels
from aumcli.errors import AumError
from aumcli.weights import CONFIG, import_checkpoint, save_model


def convert(
    source: Path | str, out: Path | str, cls_position: str = "mid", labels: Path | str | None = None, frames: int | None = None,
    heads: int | None = None, activation: str | None = None,
) -> list[tuple[str, str]]:
    """Import a checkpoint into the model directory `out`; returns what was found, as (name, value) rows.

    Args: see `aumcli.weights.import_checkpoint`; labels: a table (see `aumcli.data.tables.read_labels`).

    Raises:
        AumError: the checkpoint is not one that is known, or damaged, or `out` already holds a model.
    """
    if (Path(out) / CONFIG).exists():
        raise AumError(f"{out} already holds a model", fix="name another folder, or remove this one first")
    names = None if labels is None else [label.name for label in read_labels(labels)]
    network, config = import_checkpoint(source, cls_position=cls_position, labels=names, frames=frames, heads=heads,
                                        activation=activation)
    save_model(out, network.state_dict(), config)
    return [("model", config.model.describe()), ("parameters", f"{sum(x.numel() for x in network.parameters()):,}"),
            ("input", f"{config.model.n_mels} mels x {config.model.frames} frames"), ("scores", config.activation),
            ("classes", str(len(config.labels)) + ("" if labels else ", without names: give them with --labels")),
            ("normalisation", f"mean {config.frontend.mean}, std {config.frontend.std}: AudioSet's, since the checkpoint has none"),
            ("written to", str(out))]

"""Model directories: config.json and model.safetensors, written and read without pickle."""

import json
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from aumcli.config import ModelConfig
from aumcli.core import build_network
from aumcli.errors import AumError
from aumcli.files import atomic_path, write_json

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(folder: Path | str, tensors: dict[str, Tensor], config: ModelConfig, dtype: torch.dtype | None = None) -> None:
    """Write a model directory; each file appears whole or not at all.

    Args:
        folder: is made where it is missing.
        tensors: the network's state dict.
        config: what config.json shall hold.
        dtype: store floating point weights in this type; None for their own.

    Raises:
        AumError: the folder can't be written or the disk is full.
    """
    from safetensors.torch import save

    folder = Path(folder)
    tensors = {name: x.detach().to("cpu", dtype).contiguous() for name, x in sorted(tensors.items())}
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG, config.model_dump(mode="json", exclude_none=True))


def read_model(folder: Path | str, backend: str = "auto") -> tuple[nn.Module, ModelConfig]:
    """Read a model directory.

    Args:
        folder: holds config.json and model.safetensors.
        backend: kernel backend of the network.

    Returns:
        The network in float32, in evaluation mode on the CPU, and its configuration.

    Raises:
        AumError: a file is missing or damaged, or weights and configuration don't fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = read_config(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise AumError(f"can't read {folder / WEIGHTS}: {error}", fix="copy the model directory again, or train again",
                       exit_code=1) from error
    with torch.random.fork_rng(devices=[]):  # the draws for weights that are about to be replaced are nobody's
        network = build_network(config.model, backend)  # (building on the meta device would import torch's compiler: 2 s)
    try:
        network.load_state_dict({name: x.float() for name, x in tensors.items()})
    except RuntimeError as error:
        raise AumError(f"{folder / WEIGHTS} doesn't fit {CONFIG}: {error}",
                       fix="the two files come from different models; copy the whole directory again") from error
    return network.eval(), config


def read_config(folder: Path | str) -> ModelConfig:
    """Read a model directory's config.json (see `read_model` for what is raised)."""
    path = Path(folder) / CONFIG
    try:
        return ModelConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise AumError(f"{folder} is not a model directory: it has no {CONFIG}",
                       fix="name a run (runs/NAME), a model directory or a packaged model") from error
    except OSError as error:
        raise AumError(f"can't read {path}: {error.strerror}", fix="check its permissions") from error
    except (ValidationError, ValueError) as error:
        raise AumError(f"{path} is damaged or from another version: {error}", fix="copy the model directory again") from error

"""Model directories: config.json and model.safetensors, written and read without pickle."""

import json
import re
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from aumcli.checkpoints.tensors import check_finite, check_regular, read_safetensors, safetensors_shapes
from aumcli.config import ModelConfig, NetworkConfig
from aumcli.core import build_network
from aumcli.core.network import SpectrogramNetwork
from aumcli.errors import AumError
from aumcli.utils.files import atomic_path, utf8_path, write_json
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted

logger = get_logger(__name__)

TEMPERATURE = "temperature"  # a key of the weights' metadata
WEIGHTS, CONFIG = "model.safetensors", "config.json"
MOST_CONFIG_BYTES = 2**22  # some 100,000 labels


def save_model(
    folder: Path | str,
    tensors: dict[str, Tensor],
    config: ModelConfig,
    dtype: torch.dtype | None = None,
    temperature: float | None = None,
) -> None:
    """Write a model directory; each file appears whole or not at all.

    Args:
        folder: is made where it is missing.
        tensors: the network's state dict.
        config: what config.json shall hold.
        dtype: store floating point weights in this type; None for their own.
        temperature: what the head's weights were divided by, which stands in the weights' file.

    Raises:
        AumError: the folder can't be written or the disk is full.
    """
    from safetensors.torch import save

    folder = Path(folder)
    tensors = {name: x.detach().to("cpu", dtype).contiguous() for name, x in sorted(tensors.items())}
    content = save(tensors, metadata={"format": "pt"})
    if temperature is not None:
        content = _with_metadata(content, TEMPERATURE, str(temperature))
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
    write_config(folder, config)


def _with_metadata(content: bytes, key: str, value: str) -> bytes:
    """The content of a safetensors file with an entry more in its metadata.

    safetensors itself writes several entries in an order that differs from call to call.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"][key] = value
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # what follows is aligned
    return len(text).to_bytes(8, "little") + text + content[end:]


def stored_temperature(folder: Path | str) -> float | None:
    """What the head's weights in a model directory were divided by; None for nothing."""
    from safetensors import safe_open

    with utf8_path(Path(folder) / WEIGHTS) as plain, safe_open(plain, "pt") as content:
        value = (content.metadata() or {}).get(TEMPERATURE)
    return None if value is None else float(value)


def write_config(folder: Path | str, config: ModelConfig) -> None:
    """Write a model directory's config.json."""
    write_json(Path(folder) / CONFIG, config.model_dump(mode="json", exclude_none=True))


def read_model(folder: Path | str, backend: str = "auto") -> tuple[SpectrogramNetwork, ModelConfig]:
    """Read a model directory.

    Args:
        folder: holds config.json and model.safetensors.
        backend: kernel backend of the network.

    Returns:
        The network in float32, in evaluation mode on the CPU, and its configuration.

    Raises:
        AumError: a file is missing or damaged, or weights and configuration don't fit each other.
    """
    folder = Path(folder)
    path, config = folder / WEIGHTS, read_config(folder)
    _check_shapes(path, safetensors_shapes(path), config.model)
    stored = read_safetensors(path)
    logger.debug(f"read {len(stored)} tensors from {path}")
    if whole := [name for name, x in stored.items() if not x.is_floating_point()]:
        raise AumError(
            f"{path} doesn't fit {CONFIG}: {whole[0]} holds no floating point numbers",
            fix="copy the whole directory again",
        )
    check_finite(path, stored)
    tensors = {name: x.float() for name, x in stored.items()}
    with torch.random.fork_rng(devices=[]):  # the draws for weights that are about to be replaced are nobody's
        network = build_network(config.model, backend)
    network.load_state_dict(tensors)
    return network.eval(), config


def _check_shapes(path: Path, found: dict[str, tuple[int, ...]], config: NetworkConfig) -> None:
    """Refuse weights that aren't the network's, before any memory is taken for what a configuration only claims."""
    fix = "the two files come from different models; copy the whole directory again"
    if config.depth > len(found):
        raise AumError(
            f"{path} doesn't fit {CONFIG}: {counted(len(found), 'tensor is', 'tensors are')} too few for "
            f"{counted(config.depth, 'block')}",
            fix=fix,
        )
    try:
        with torch.device("meta"):  # shapes without memory
            network = build_network(config.model_copy(update={"depth": 1}))
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise AumError(f"{path} doesn't fit {CONFIG}: a network of its sizes can't be built", fix=fix) from error
    wanted = {}
    for name, x in network.state_dict().items():
        block = re.fullmatch(r"((?:v\.)?(?:layers|blocks)\.)0(\..+)", name)
        names = (f"{block[1]}{i}{block[2]}" for i in range(config.depth)) if block else (name,)
        wanted.update(dict.fromkeys(names, tuple(x.shape)))
    if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        have, want = (shapes.get(wrong[0], "missing") for shapes in (found, wanted))
        want = "not in the network" if want == "missing" else f"not {want}"
        raise AumError(
            f"{path} doesn't fit {CONFIG}: {wrong[0]} is {have}, {want}"
            + (f"; {counted(len(wrong) - 1, 'more tensor differs', 'more tensors differ')}" if len(wrong) > 1 else ""),
            fix=fix,
        )


def read_config(folder: Path | str) -> ModelConfig:
    """Read a model directory's config.json (see `read_model` for what is raised)."""
    path = Path(folder) / CONFIG
    try:
        check_regular(path, MOST_CONFIG_BYTES)
        return ModelConfig.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise AumError(
            f"{folder} is not a model directory: it has no {CONFIG}",
            fix="name a run (runs/NAME), a model directory or a packaged model",
        ) from error
    except OSError as error:
        raise AumError(
            f"can't read {path}: {error.strerror}", fix="check its permissions and where it leads, if it is a link"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise AumError(
            f"{path} is damaged or from another version: {where and where + ': '}{first['msg']}",
            fix="copy the model directory again",
        ) from error
    except (ValueError, RecursionError) as error:
        raise AumError(
            f"{path} is damaged or from another version: {error}", fix="copy the model directory again"
        ) from error

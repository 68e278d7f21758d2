"""Tensors of files from elsewhere: `.pth`, `.safetensors`. Nothing in a file is ever executed, and none takes more memory than
it says it holds."""

import math
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from aumcli.errors import AumError

MOST_EXPANSION = 20  # torch.save doesn't compress; trained weights that somebody deflated shrink to a half at most


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: a `.safetensors` file, or one of torch.save: a state dict, or a dict that holds one as "model" or "state_dict".

    Returns:
        The tensors by name, without `module.` in front, on the CPU.

    Raises:
        AumError: the file is missing, damaged, holds more than tensors, or has values that are no numbers.
    """
    if path.is_dir():
        raise AumError(f"{path} is a folder without a config.json that is known", fix="name a checkpoint, a model directory or a "
                       "transformers directory of an AST")
    content = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise AumError(f"{path} is no state dict: not every entry is a tensor", fix="save the model's state_dict() alone")
    tensors = {str(name).removeprefix("module."): x for name, x in content.items()}
    for name, x in tensors.items():
        # a view can repeat a few bytes without end, and would fill the memory with the first thing done to it
        if x.layout != torch.strided or x.numel() * x.element_size() > x.untyped_storage().nbytes():
            raise AumError(f"{path}: {name} claims {math.prod(x.shape):,} values, which the file doesn't hold", exit_code=1,
                           fix="get it again, from somebody you trust")
    if broken := [name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise AumError(f"{path} has NaN or infinite values in {broken[0]}" + (f" and {len(broken) - 1} more" if len(broken) > 1 else ""),
                       fix="the run that wrote it had failed; take an earlier checkpoint", exit_code=1)
    return tensors


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise AumError(f"{path} does not exist", fix="check the name") from error
    except (OSError, SafetensorError) as error:
        raise AumError(f"can't read {path}: {error}", fix="the file is damaged or cut off; get it again", exit_code=1) from error


def _torch_file(path: Path) -> object:
    try:
        _check_size(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise AumError(f"{path} does not exist", fix="check the name") from error
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise AumError(f"{path} holds more than tensors, or is no checkpoint, and was not opened: {reason}",
                       fix="save its state dict alone: torch.save(model.state_dict(), PATH)") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AumError(f"can't read {path}: {error}", fix="the file is damaged or cut off; get it again", exit_code=1) from error


def _check_size(path: Path) -> None:
    """Refuse an archive that would unpack to far more than it holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MOST_EXPANSION * path.stat().st_size:
            raise AumError(f"{path} would unpack to {unpacked / 2**30:.1f} GiB", exit_code=1, fix="get it again, from somebody you trust")

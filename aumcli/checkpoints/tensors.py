"""Tensors of files from elsewhere: `.pth`, `.safetensors`.

Nothing in a file is ever executed, and none takes more memory than it says it holds.
"""

import math
import pickle
import stat
import threading
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from aumcli.errors import AumError
from aumcli.utils.files import utf8_path

MOST_HEADER_BYTES = 2**20  # of a safetensors file; a base model's has 40 KB
MOST_EXPANSION = 20  # torch.save doesn't compress; trained weights that somebody deflated shrink to a half at most
_ONE_AT_A_TIME = threading.Lock()  # torch keeps what it may unpickle in one place for all threads


class _Arguments:
    """What `argparse.Namespace` becomes when it is read, as trainers save their options: it keeps nothing."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


ALLOWED = [(_Arguments, "argparse.Namespace")]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Args:
        path: a `.safetensors` file, or one of torch.save: a state dict, or a dict that holds one as "model" or
            "state_dict", beside which plain values and the trainer's options (`argparse.Namespace`) are passed over.

    Returns:
        The tensors by name, without `module.` in front, on the CPU.

    Raises:
        AumError: the file is missing, damaged, holds more than tensors, or has values that are no numbers.
    """
    if path.is_dir():
        raise AumError(
            f"{path} is a folder without a config.json that is known",
            fix="name a checkpoint, a model directory or a transformers directory of an AST",
        )
    content = read_safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise AumError(
            f"{path} is no state dict: not every entry is a tensor", fix="save the model's state_dict() alone"
        )
    tensors = {str(name).removeprefix("module."): x for name, x in content.items()}
    for name, x in tensors.items():
        # a view can repeat a few bytes without end, and would fill the memory with the first thing done to it
        if x.layout != torch.strided or x.numel() * x.element_size() > x.untyped_storage().nbytes():
            raise AumError(
                f"{path}: {name} claims {math.prod(x.shape):,} values, which the file doesn't hold",
                exit_code=1,
                fix="get it again, from somebody you trust",
            )
    check_finite(path, tensors)
    return tensors


def check_finite(path: Path, tensors: dict[str, Tensor]) -> None:
    """Refuse tensors of a file in which a value is NaN or infinite."""
    if broken := [name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise AumError(
            f"{path} has NaN or infinite values in {broken[0]}"
            + (f" and {len(broken) - 1} more" if len(broken) > 1 else ""),
            fix="the run that wrote it had failed; take an earlier checkpoint",
            exit_code=1,
        )


def check_regular(path: Path, most_bytes: int | None = None) -> None:
    """Refuse what is no regular file, which could keep a reader waiting or never end, or is larger than `most_bytes`.

    Raises:
        AumError: it is such a file.
        OSError: it can't be looked at.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise AumError(f"{path} is no regular file", fix="copy the model directory again")
    if most_bytes is not None and about.st_size > most_bytes:
        raise AumError(
            f"{path} has {about.st_size:,} bytes; such a file has at most {most_bytes:,}",
            exit_code=1,
            fix="get it again, from somebody you trust",
        )


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a `.safetensors` file's header holds; no tensor is read.

    Raises:
        AumError: the file is missing, or its header is damaged, too long, or doesn't describe the bytes behind it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER_BYTES, path.stat().st_size):
            raise SafetensorError(f"its header would have {length:,} bytes")
        with utf8_path(path) as plain, safe_open(plain, "pt") as content:
            names = content.keys()  # it is no dict, and can't be iterated over itself
            return {name: tuple(content.get_slice(name).get_shape()) for name in names}
    except FileNotFoundError as error:
        raise AumError(
            f"can't read {path}: it does not exist",
            fix="check the name; a model directory has to be copied as a whole",
            exit_code=1,
        ) from error
    except (OSError, SafetensorError) as error:
        raise AumError(
            f"can't read {path}: {error}", fix="the file is damaged or cut off; get it again", exit_code=1
        ) from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file (see `safetensors_shapes` for what is raised)."""
    from safetensors.torch import load_file

    safetensors_shapes(path)
    with utf8_path(path) as plain:
        return load_file(plain)


def _torch_file(path: Path) -> object:
    try:
        _check_size(path)
        with _ONE_AT_A_TIME, torch.serialization.safe_globals([*ALLOWED]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except AumError:
        raise
    except FileNotFoundError as error:
        raise AumError(f"{path} does not exist", fix="check the name") from error
    except pickle.UnpicklingError as error:
        raise AumError(
            f"{path} holds more than tensors, or is no checkpoint, and was not opened",
            fix="save its state dict alone: torch.save(model.state_dict(), PATH)",
        ) from error
    except KeyError as error:  # what torch's reader says of a file that is no pickle
        raise AumError(
            f"{path} is no checkpoint", fix="name a file of torch.save or a .safetensors", exit_code=1
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise AumError(
            f"can't read {path}: {error}", fix="the file is damaged or cut off; get it again", exit_code=1
        ) from error
    except Exception as error:  # a pickle that was made by hand can raise anything
        raise AumError(
            f"can't read {path}: it is no file of torch.save", fix="get it again, from somebody you trust", exit_code=1
        ) from error


def _check_size(path: Path) -> None:
    """Refuse an archive that would unpack to far more than it holds."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MOST_EXPANSION * path.stat().st_size:
            raise AumError(
                f"{path} would unpack to {unpacked / 2**30:.1f} GiB",
                exit_code=1,
                fix="get it again, from somebody you trust",
            )

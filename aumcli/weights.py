"""Model directories: config.json and model.safetensors, written and read without pickle; and published checkpoints, read once."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from aumcli.config import AudioMambaConfig, FrontendConfig, ModelConfig, NetworkConfig, SpectrogramTransformerConfig
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
    write_config(folder, config)


def write_config(folder: Path | str, config: ModelConfig) -> None:
    """Write a model directory's config.json."""
    write_json(Path(folder) / CONFIG, config.model_dump(mode="json", exclude_none=True))


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


def import_checkpoint(
    path: Path | str, *, cls_position: str = "mid", labels: Sequence[str] | None = None, frames: int | None = None,
    n_mels: int = 128, heads: int | None = None, activation: str | None = None, backend: str = "auto",
) -> tuple[nn.Module, ModelConfig]:
    """Read the authors' checkpoint of an AuM or an AST: sizes and direction are read off its tensors.

    Args:
        path: a `.pth` file, with or without `module.` before its names.
        cls_position: where an AuM has its class token; no tensor tells.
        labels: names of the classes; None: "class 0" and so on.
        frames: of the spectrogram, where the positions leave a choice (overlapping patches); None: 1024 if it fits.
        n_mels: of the spectrogram.
        heads: of an AST; None: one for 64 of its width, as in all published sizes.
        activation: "softmax" or "sigmoid"; None: sigmoid for AudioSet's 527 classes, else softmax.
        backend: kernel backend of the network.

    Returns:
        The network in float32, in evaluation mode on the CPU, and its configuration.

    Raises:
        AumError: the file can't be read, needs more than tensors, or is no such checkpoint.
    """
    tensors = _read_tensors(Path(path))
    try:
        if "layers.0.mixer.in_proj.weight" in tensors:
            model = _audio_mamba(tensors, cls_position, frames, n_mels)
        elif "v.cls_token" in tensors:
            tensors = {name: x for name, x in tensors.items() if not name.startswith(("v.head.", "v.head_dist."))}  # DeiT's own
            model = _spectrogram_transformer(tensors, frames, n_mels, heads)
        else:
            raise AumError(f"{path} is no checkpoint of AuM or AST: it has neither layers.0.mixer.in_proj.weight nor v.cls_token",
                           fix="name a .pth file of the authors' training code")
        classes = model.n_classes
        if labels is not None and len(labels) != classes:
            raise AumError(f"{len(labels)} labels for a head of {classes} classes", fix="give the labels that this model was trained on")
        config = ModelConfig(
            model=model, frontend=FrontendConfig(n_mels=n_mels, frames=model.frames),
            labels=tuple(labels or (f"class {i}" for i in range(classes))),
            activation=activation or ("sigmoid" if classes == 527 else "softmax"), provenance={"imported_from": Path(path).name})
    except KeyError as error:
        raise AumError(f"{path} lacks the tensor {error}", fix="the file is incomplete; get it again", exit_code=1) from error
    except ValidationError as error:
        first = error.errors()[0]
        raise AumError(f"{path} describes no model that exists: {'.'.join(map(str, first['loc']))}: {first['msg']}",
                       fix="check the options, such as the class token's position") from error
    with torch.random.fork_rng(devices=[]):
        network = build_network(config.model, backend)
    try:
        network.load_state_dict({name: x.float() for name, x in tensors.items()})
    except RuntimeError as error:
        raise AumError(f"{path} doesn't fit the model that its tensors describe: {error}", fix="the file comes from another code; "
                       "only the authors' AuM and AST are known") from error
    return network.eval(), config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file by name, without `module.`; nothing in it is executed."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise AumError(f"{path} does not exist", fix="check the name") from error
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise AumError(f"{path} holds more than tensors, or is no checkpoint, and was not opened: {reason}",
                       fix="save its state dict alone: torch.save(model.state_dict(), PATH)") from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise AumError(f"can't read {path}: {error}", fix="the file is damaged or cut off; get it again", exit_code=1) from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(x, Tensor) for x in content.values()):
        raise AumError(f"{path} is no state dict: not every entry is a tensor", fix="save the model's state_dict() alone")
    tensors = {name.removeprefix("module."): x for name, x in content.items()}
    if broken := [name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()]:
        raise AumError(f"{path} has NaN or infinite values in {broken[0]}" + (f" and {len(broken) - 1} more" if len(broken) > 1 else ""),
                       fix="the run that wrote it had failed; take an earlier checkpoint", exit_code=1)
    return tensors


def _patches(kernel: Tensor, patches: int, frames: int | None, n_mels: int, overlaps: Sequence[int]) -> dict[str, int]:
    """The spectrogram's size and its patches from the patch embedding (d, 1, mels, frames) and the number of positions."""
    if kernel.shape[1] != 1:
        raise AumError(f"the patch embedding takes {kernel.shape[1]} channels: this is a checkpoint of images, not of spectrograms",
                       fix="image checkpoints can't be imported yet")
    fits = []
    for overlap in overlaps:
        strides = [size - overlap for size in kernel.shape[2:]]
        rows = 1 + (n_mels - kernel.shape[2]) // strides[0]
        exact = kernel.shape[3] + (patches // rows - 1) * strides[1]
        fits += [{"n_mels": n_mels, "frames": length, "patch_mels": kernel.shape[2], "patch_frames": kernel.shape[3], "overlap": overlap}
                 for length in ([frames] if frames else [1024, exact])
                 if rows * (1 + (length - kernel.shape[3]) // strides[1]) == patches and length >= kernel.shape[3]]
    if not fits:
        raise AumError(f"{patches} patches don't fill a spectrogram of {n_mels} mels" + (f" and {frames} frames" if frames else ""),
                       fix="give the number of frames that the model was trained on")
    return fits[0]


def _audio_mamba(tensors: dict[str, Tensor], cls_position: str, frames: int | None, n_mels: int) -> NetworkConfig:
    mixer = "layers.0.mixer."
    width, inner = tensors["cls_token"].shape[-1], tensors[mixer + "A_log"].shape[0]
    direction = "Bi-Bi" if mixer + "conv1d_b.weight" in tensors else "Fo-Bi" if mixer + "A_b_log" in tensors else "Fo-Fo"
    return AudioMambaConfig(
        width=width, depth=_depth(tensors, "layers."), n_classes=tensors["head.weight"].shape[0], direction=direction,
        cls_position=cls_position, state_size=tensors[mixer + "A_log"].shape[1], conv_kernel=tensors[mixer + "conv1d.weight"].shape[-1],
        expand=inner // width,
        **_patches(tensors["patch_embed.proj.weight"], tensors["pos_embed.pos_embed"].shape[1] - 1, frames, n_mels, (0,)))


def _spectrogram_transformer(tensors: dict[str, Tensor], frames: int | None, n_mels: int, heads: int | None) -> NetworkConfig:
    width, distilled = tensors["v.cls_token"].shape[-1], "v.dist_token" in tensors
    if heads is None and width % 64:
        raise AumError(f"an AST of width {width} is of no published size, and no tensor tells its attention heads", fix="give their number")
    return SpectrogramTransformerConfig(
        width=width, depth=_depth(tensors, "v.blocks."), n_classes=tensors["mlp_head.1.weight"].shape[0], heads=heads or width // 64,
        distilled=distilled, mlp_width=tensors["v.blocks.0.mlp.fc1.weight"].shape[0],
        **_patches(tensors["v.patch_embed.proj.weight"], tensors["v.pos_embed"].shape[1] - 1 - distilled, frames, n_mels, (6, 0)))


def _depth(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many blocks are numbered after a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

"""Published checkpoints and whose they are: the authors' AuM and AST, ViM and DeiT (ImageNet), AST of transformers,
our own.

Each becomes a `Checkpoint`: tensors under our names and the configuration that they belong to, read off their shapes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from aumcli.checkpoints import transformers_ast
from aumcli.checkpoints.directory import CONFIG, read_config, read_model
from aumcli.checkpoints.tensors import read_tensors
from aumcli.config import AudioMambaConfig, ClsPosition, FrontendConfig, NetworkConfig, SpectrogramTransformerConfig
from aumcli.core.tokenizers import cls_index
from aumcli.errors import AumError
from aumcli.utils.text import counted

PATCHES = {"aum": "patch_embed.proj.weight", "ast": "v.patch_embed.proj.weight"}
POSITIONS = {"aum": "pos_embed.pos_embed", "ast": "v.pos_embed"}
HEADS = {"aum": "head.", "ast": "mlp_head."}  # AST's with its norm: the authors' load_backbone_only starts both afresh
KNOWN = (
    "the authors' AuM or AST (.pth), a ViM or DeiT of ImageNet (.pth, .safetensors), "
    "a transformers directory of an AST, a run or a model directory"
)


@dataclass(frozen=True)
class Checkpoint:
    """Somebody's weights under our names; labels, frontend, activation and views where the source says them."""

    kind: str
    tensors: dict[str, Tensor]
    model: NetworkConfig
    labels: tuple[str, ...] | None = None
    frontend: FrontendConfig | None = None
    activation: str | None = None
    views: str | None = None
    of_pictures: bool = False  # then its classes mean nothing here
    notes: list[str] = field(default_factory=list)


def read_checkpoint(
    path: Path | str, cls_position: str = "mid", frames: int | None = None, n_mels: int = 128, heads: int | None = None
) -> Checkpoint:
    """Read somebody's weights; sizes and direction are read off the tensors.

    Args:
        path: see `KNOWN`.
        cls_position: where an AuM or a ViM has its class token; no tensor tells.
        frames: of the spectrogram, where the positions leave a choice (overlapping patches); None: 1024 if it fits.
        n_mels: of the spectrogram.
        heads: of an AST; None: one for 64 of its width, as in all published sizes.

    Raises:
        AumError: the file can't be read, needs more than tensors, or is none of these.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _directory(path)
        tensors = read_tensors(path)
        if any("patch_embed.convs." in name for name in tensors):
            raise AumError(
                f"{path} is of a model with a convolutional stem, whose strides no tensor tells",
                fix="name the model directory that it came in",
            )
        if "pos_embed.pos_embed" in tensors:
            return Checkpoint("the authors' AuM", tensors, _audio_mamba(tensors, cls_position, frames, n_mels))
        if "layers.0.mixer.in_proj.weight" in tensors:
            return _vision_mamba(tensors, cls_position)
        if "v.cls_token" in tensors:
            tensors = {
                name: x for name, x in tensors.items() if not name.startswith(("v.head.", "v.head_dist."))
            }  # DeiT's own
            return Checkpoint("the authors' AST", tensors, _spectrogram_transformer(tensors, frames, n_mels, heads))
        if "blocks.0.attn.qkv.weight" in tensors:
            return _deit(tensors, heads)
    except KeyError as error:
        raise AumError(
            f"{path} lacks the tensor {error}", fix="the file is incomplete; get it again", exit_code=1
        ) from error
    raise AumError(
        f"{path} is no checkpoint that is known: it has neither layers.0.mixer.in_proj.weight nor v.cls_token nor "
        "blocks.0.attn.qkv.weight",
        fix=f"name {KNOWN}",
    )


def frontend_of(path: Path | str) -> FrontendConfig | None:
    """The frontend that somebody's weights were trained with; None where the source doesn't say it."""
    for folder in (Path(path, "best"), Path(path)):
        if transformers_ast.is_directory(folder):
            return _directory(folder).frontend
        if (folder / CONFIG).is_file():
            return read_config(folder).frontend
    return None


def _directory(path: Path) -> Checkpoint:
    for folder in (path / "best", path):
        if transformers_ast.is_directory(folder):
            return Checkpoint("an AST of transformers", *transformers_ast.read(folder))
        if (folder / CONFIG).is_file():
            network, config = read_model(folder)
            return Checkpoint(
                "a model directory",
                network.state_dict(),
                config.model,
                config.labels,
                config.frontend,
                config.activation,
                config.views,
            )
    raise AumError(f"{path} holds no model: it has no {CONFIG}", fix=f"name {KNOWN}")


def _vision_mamba(tensors: dict[str, Tensor], cls_position: str) -> Checkpoint:
    """A ViM of ImageNet: its class token's position stands among the others, and there are rotary tables,
    which AuM has not.
    """
    positions = tensors.pop("pos_embed")  # (1, l + 1, d)
    patches = positions.shape[1] - 1
    row = cls_index(patches, ClsPosition(cls_position))
    order = [row, *range(row), *range(row + 1, patches + 1)]
    rotary = [name for name in tensors if name.startswith("rope")]
    tensors = {name: x for name, x in tensors.items() if name not in rotary} | {
        "pos_embed.pos_embed": positions[:, order]
    }
    kernel = tensors["patch_embed.proj.weight"]  # (d, colours, h, w)
    tensors["patch_embed.proj.weight"] = kernel.mean(1, keepdim=True)
    notes = [f"averaged the patch embedding over {kernel.shape[1]} colours"]
    notes += [f"left out {counted(len(rotary), 'rotary table')}"] if rotary else []
    side = _side(patches) * kernel.shape[-1]
    return Checkpoint(
        "a ViM of ImageNet", tensors, _audio_mamba(tensors, cls_position, side, side), of_pictures=True, notes=notes
    )


def _deit(tensors: dict[str, Tensor], heads: int | None) -> Checkpoint:
    """A DeiT or ViT of ImageNet under timm's names, for an AST, which sums the colours."""
    names = {name: f"v.{name}" for name in tensors if not name.startswith("head")}
    classes = tensors["head.weight"].shape[0] if "head.weight" in tensors else 1
    renamed = {new: tensors[old] for old, new in names.items()}
    kernel = renamed["v.patch_embed.proj.weight"]  # (d, colours, h, w)
    renamed["v.patch_embed.proj.weight"] = kernel.sum(1, keepdim=True)
    side = _side(renamed["v.pos_embed"].shape[1] - 1 - ("v.dist_token" in renamed)) * kernel.shape[-1]
    model = _spectrogram_transformer(renamed, side, side, heads, classes)
    return Checkpoint(
        "a DeiT of ImageNet",
        renamed,
        model,
        of_pictures=True,
        notes=[f"summed the patch embedding over {kernel.shape[1]} colours"],
    )


def _side(patches: int) -> int:
    side = math.isqrt(patches)
    if side**2 != patches:
        raise AumError(f"{patches} patches are no square picture", fix="name a checkpoint of square pictures")
    return side


def _patches(kernel: Tensor, patches: int, frames: int | None, n_mels: int, overlaps: Sequence[int]) -> dict[str, int]:
    """The spectrogram's size and its patches from the patch embedding (d, 1, mels, frames)
    and the number of positions.
    """
    if kernel.ndim != 4 or kernel.shape[1] != 1:
        raise AumError(
            f"the patch embedding has shape {tuple(kernel.shape)}: not that of spectrograms", fix=f"name {KNOWN}"
        )
    fits = []
    for overlap in overlaps:
        strides = [size - overlap for size in kernel.shape[2:]]
        rows = 1 + (n_mels - kernel.shape[2]) // strides[0]
        exact = kernel.shape[3] + (patches // rows - 1) * strides[1] if rows > 0 else 0
        fits += [
            {
                "n_mels": n_mels,
                "frames": length,
                "patch_mels": kernel.shape[2],
                "patch_frames": kernel.shape[3],
                "overlap": overlap,
            }
            for length in [frames or 1024, exact]
            if rows * (1 + (length - kernel.shape[3]) // strides[1]) == patches and length >= kernel.shape[3]
        ]
    if not fits:
        raise AumError(
            f"{patches} patches don't fill a spectrogram of {n_mels} mels",
            fix="say how many mels the model was trained on",
        )
    return fits[0]


def _audio_mamba(tensors: dict[str, Tensor], cls_position: str, frames: int | None, n_mels: int) -> NetworkConfig:
    mixer = "layers.0.mixer."
    width, inner = tensors["cls_token"].shape[-1], tensors[mixer + "A_log"].shape[0]
    direction = (
        "Bi-Bi" if mixer + "conv1d_b.weight" in tensors else "Fo-Bi" if mixer + "A_b_log" in tensors else "Fo-Fo"
    )
    return AudioMambaConfig(
        width=width,
        depth=_depth(tensors, "layers."),
        n_classes=tensors["head.weight"].shape[0],
        direction=direction,
        cls_position=cls_position,
        state_size=tensors[mixer + "A_log"].shape[1],
        conv_kernel=tensors[mixer + "conv1d.weight"].shape[-1],
        expand=inner // width,
        **_patches(
            tensors["patch_embed.proj.weight"], tensors["pos_embed.pos_embed"].shape[1] - 1, frames, n_mels, (0,)
        ),
    )


def _spectrogram_transformer(
    tensors: dict[str, Tensor], frames: int | None, n_mels: int, heads: int | None, classes: int | None = None
) -> NetworkConfig:
    width, distilled = tensors["v.cls_token"].shape[-1], "v.dist_token" in tensors
    if heads is None and width % 64:
        raise AumError(
            f"an AST of width {width} is of no published size, and no tensor tells its attention heads",
            fix="give them with --heads",
        )
    return SpectrogramTransformerConfig(
        width=width,
        depth=_depth(tensors, "v.blocks."),
        n_classes=classes or tensors["mlp_head.1.weight"].shape[0],
        heads=heads or width // 64,
        distilled=distilled,
        mlp_width=tensors["v.blocks.0.mlp.fc1.weight"].shape[0],
        **_patches(
            tensors["v.patch_embed.proj.weight"],
            tensors["v.pos_embed"].shape[1] - 1 - distilled,
            frames,
            n_mels,
            (6, 0),
        ),
    )


def _depth(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many blocks are numbered after a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)})

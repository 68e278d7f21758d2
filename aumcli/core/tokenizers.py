"""Spectrograms as tokens: patches or a convolutional stem, the classification token's place, resized positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aumcli.config import ClsPosition, NetworkConfig


def check_features(features: Tensor, config: NetworkConfig) -> None:
    """Refuse features that are not (b, frames, mels) of the model's size."""
    if features.ndim != 3 or features.shape[1:] != (config.frames, config.n_mels):
        raise ValueError(
            f"the model takes features (batch, {config.frames} frames, {config.n_mels} mels), "
            f"not {tuple(features.shape)}"
        )


class PatchEmbed(nn.Module):
    """Cut a spectrogram into patches and project each to a token, lowest mels first (frequency-major order)."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        patch = (config.patch_mels, config.patch_frames)
        stride = (patch[0] - config.overlap, patch[1] - config.overlap)
        self.proj = nn.Conv2d(1, config.width, kernel_size=patch, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (b, frames, mels) to tokens (b, l, d), token f * T' + t for patch (f, t)."""
        if self.proj.stride != self.proj.kernel_size:
            grid: Tensor = self.proj(features.transpose(1, 2)[:, None])  # (b, d, f, t)
            return grid.flatten(2).transpose(1, 2)
        b, frames, mels = features.shape
        height, width = self.proj.kernel_size
        # stride equals kernel, so the convolution is one matmul; as such it is far faster on CPUs
        patches = features.reshape(b, frames // width, width, mels // height, height)
        patches = patches.permute(0, 3, 1, 4, 2).flatten(3).flatten(1, 2)  # (b, l, height * width)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """Stages of convolutions that keep the order of time, then one token per step: all mels of it, projected.

    Unlike a patch's projection, convolutions see the same shape in a spectrum wherever it lies: a voice or a bell of
    another pitch gives similar features, which matters with few clips to learn from. Every convolution is followed by
    a group norm of one group, (channels, mels, frames) of a clip together, and SiLU: no statistic is shared among
    clips, so that microbatches, processes and batch sizes don't change the result.

    Source: early convolutions in the place of patches, Xiao et al. 2021; the sizes are ours.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__()
        stem = config.stem
        channels, mels = 1, config.n_mels
        layers: list[nn.Module] = []
        for width, convs, mel_stride, frame_stride in zip(
            stem.channels, stem.convs, stem.mel_strides, stem.frame_strides
        ):
            strides = [(mel_stride, frame_stride)] + (convs - 1) * [(1, 1)]
            for stride in strides:
                conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
                layers += [conv, nn.GroupNorm(1, width), nn.SiLU()]
                channels = width
            mels = math.ceil(mels / mel_stride)
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Linear(channels * mels, config.width)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (b, frames, mels) to tokens (b, l, d), in the order of time."""
        maps = self.convs(features.transpose(1, 2)[:, None])  # (b, channels, mels', l)
        tokens: Tensor = self.proj(maps.permute(0, 3, 1, 2).flatten(2))
        return tokens


def build_tokenizer(config: NetworkConfig) -> PatchEmbed | ConvStem:
    """Build the tokenizer of a configuration: features (b, frames, mels) to tokens (b, l, d)."""
    return ConvStem(config) if config.tokenizer == "conv" else PatchEmbed(config)


class PositionEmbedding(nn.Module):
    """Learned positions, stored prefix first: row 0 belongs to the classification token wherever it stands."""

    def __init__(self, n_patches: int, width: int, prefix: int = 1):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, prefix + n_patches, width))


def cls_index(n_patches: int, position: ClsPosition) -> int:
    """Index of the classification token among n_patches + 1 tokens: head 0, mid n // 2, end n."""
    return {ClsPosition.HEAD: 0, ClsPosition.MID: n_patches // 2, ClsPosition.END: n_patches}[position]


def place_cls(tokens: Tensor, cls: Tensor, position: ClsPosition) -> tuple[Tensor, int]:
    """Insert the classification token among the patch tokens (paper, section 2.2).

    Args:
        tokens: patch embeddings, (b, l, d).
        cls: the learned token, (1, 1, d).
        position: head, mid or end.

    Returns:
        The longer sequence, (b, l + 1, d), and the index at which the token stands.
    """
    index = cls_index(tokens.shape[1], position)
    cls = cls.expand(tokens.shape[0], -1, -1)  # len() would fix the batch of an exported program; (b, 1, d)
    return torch.cat([tokens[:, :index], cls, tokens[:, index:]], dim=1), index


def resize_positions(
    pos_embed: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], antialias: bool = True
) -> Tensor:
    """Resize learned positions to another patch grid; the prefix rows stay as they are.

    Args:
        pos_embed: (1, prefix + f * t, d), patches in frequency-major order.
        old_grid, new_grid: patches along (mels, frames).
        antialias: as the authors load AuM weights; without, as AST's authors load theirs, who also cut a shorter axis
            out of the middle instead of squeezing it.

    Returns:
        (1, prefix + f' * t', d), bilinearly interpolated.
    """
    if old_grid == new_grid:
        return pos_embed
    n = old_grid[0] * old_grid[1]
    prefix, rows = pos_embed[:, :-n], pos_embed[:, -n:]
    image = rows.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)  # (1, d, f, t)
    if not antialias:
        for axis, (old, new) in enumerate(zip(old_grid, new_grid), start=2):
            image = image.narrow(axis, old // 2 - new // 2, new) if new < old else image
    image = F.interpolate(image, new_grid, mode="bilinear", antialias=antialias, align_corners=False)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2)], dim=1)


def resize_patches(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a patch embedding so that a resized patch gives the token that the patch gave.

    Args:
        kernel: (d, 1, mels, frames).
        size: of the new patches, (mels', frames').

    Returns:
        (d, 1, mels', frames'): the old kernel by the pseudo-inverse of bilinear interpolation without antialiasing.

    Source: FlexiViT (Beyer et al. 2023), equation 5, which the authors' load of AuM weights uses.
    """
    old = tuple(kernel.shape[2:])
    if old == tuple(size):
        return kernel
    basis = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(-1, 1, *old)  # (old, 1, mels, frames)
    resized = F.interpolate(basis, size, mode="bilinear", antialias=False, align_corners=False).flatten(1)  # (old, new)
    flat = kernel.flatten(1).double() @ torch.linalg.pinv(resized).T  # (d, new)
    resized_kernel: Tensor = flat.to(kernel.dtype).reshape(len(kernel), 1, *size)
    return resized_kernel

"""Token order, the classification token's place and resized positions."""

import numpy as np
import pytest
import torch

from aumcli.config import AudioMambaConfig, ClsPosition, ConvStemConfig, SpectrogramTransformerConfig
from aumcli.core.tokenizers import (
    ConvStem,
    PatchEmbed,
    PositionEmbedding,
    cls_index,
    place_cls,
    resize_patches,
    resize_positions,
)


@pytest.mark.parametrize(
    "n_patches, position, index",
    [
        (8, "head", 0),
        (8, "mid", 4),
        (8, "end", 8),
        (7, "head", 0),
        (7, "mid", 3),
        (7, "end", 7),
        (1, "head", 0),
        (1, "mid", 0),
        (1, "end", 1),
    ],
)
def test_the_classification_tokens_place(n_patches, position, index):
    position = ClsPosition(position)
    assert cls_index(n_patches, position) == index
    tokens = torch.arange(1.0, 2 * n_patches + 1).reshape(2, n_patches, 1).repeat(1, 1, 3)  # (b, l, d)
    cls = torch.full((1, 1, 3), -1.0)
    longer, at = place_cls(tokens, cls, position)
    assert at == index
    assert longer.shape == (2, n_patches + 1, 3)
    assert torch.equal(longer[:, index], cls[0].expand(2, 3))
    assert torch.equal(torch.cat([longer[:, :index], longer[:, index + 1 :]], dim=1), tokens)  # order is kept


@pytest.mark.parametrize("patch_mels, patch_frames", [(16, 16), (8, 4)])
def test_tokens_are_frequency_major(patch_mels, patch_frames):
    # semantics 13: token f * T' + t, f = 0 the lowest mels
    config = AudioMambaConfig(width=2, depth=1, n_mels=48, frames=32, patch_mels=patch_mels, patch_frames=patch_frames)
    height, width = config.grid
    numbers = torch.arange(float(height * width)).reshape(height, width)  # (f, t)
    image = numbers.repeat_interleave(patch_mels, 0).repeat_interleave(patch_frames, 1)  # (mels, frames)
    embed = PatchEmbed(config)
    with torch.no_grad():
        embed.proj.weight.fill_(1 / (patch_mels * patch_frames))
        embed.proj.bias.zero_()
        tokens = embed(image.t()[None])  # (1, l, d)
    torch.testing.assert_close(tokens[0, :, 0], numbers.flatten())


def test_patches_are_embedded_as_by_a_convolution():
    config = AudioMambaConfig(width=12, depth=1, n_mels=32, frames=48)
    torch.manual_seed(0)
    embed, features = PatchEmbed(config), torch.randn(3, 48, 32)
    want = embed.proj(features.transpose(1, 2)[:, None]).flatten(2).transpose(1, 2)  # (b, l, d)
    torch.testing.assert_close(embed(features), want, rtol=1e-5, atol=1e-5)
    # a view with other strides, as the frontend may hand over
    strided = features.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(embed(strided), want, rtol=1e-5, atol=1e-5)


def test_positions_hold_the_prefix_row():
    assert PositionEmbedding(8, 6).pos_embed.shape == (1, 9, 6)


def test_resized_positions_are_the_published_ones(golden):
    source = torch.load(golden / "aum" / "Fo-Bi_mid.pth", weights_only=True)["pos_embed.pos_embed"]
    with np.load(golden / "aum" / "interp_128x128_to_128x256.npz", allow_pickle=False) as arrays:
        want = torch.from_numpy(arrays["pos_embed"])
    resized = resize_positions(source, (8, 8), (8, 16))
    torch.testing.assert_close(resized, want, rtol=0, atol=1e-6)
    assert torch.equal(resized[:, 0], source[:, 0])  # the classification token's row


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_resizing_leaves_prefix_rows_and_equal_grids_alone(prefix):
    rows = torch.randn(1, prefix + 12, 4)
    assert torch.equal(resize_positions(rows, (3, 4), (3, 4)), rows)
    resized = resize_positions(rows, (3, 4), (6, 2))
    assert resized.shape == (1, prefix + 12, 4)
    assert torch.equal(resized[:, :prefix], rows[:, :prefix])


def test_resizing_keeps_a_ramp_along_its_own_axis():
    ramp = torch.arange(4.0)[:, None].expand(4, 4).reshape(1, 16, 1)  # grows with f only
    resized = resize_positions(ramp, (4, 4), (4, 8)).reshape(4, 8)
    torch.testing.assert_close(resized, torch.arange(4.0)[:, None].expand(4, 8))


@pytest.mark.parametrize("size", [(24, 16), (16, 40), (32, 32)])
def test_a_larger_patch_gives_the_token_that_the_smaller_gave(size):
    torch.manual_seed(0)
    kernel, patches = torch.randn(5, 1, 16, 16), torch.randn(3, 1, 16, 16)
    larger = torch.nn.functional.interpolate(patches, size, mode="bilinear", align_corners=False)
    want = patches.flatten(1) @ kernel.flatten(1).t()  # (3, 5)
    torch.testing.assert_close(
        larger.flatten(1) @ resize_patches(kernel, size).flatten(1).t(), want, rtol=1e-4, atol=1e-4
    )
    assert resize_patches(kernel, (16, 16)) is kernel


def test_a_smaller_patch_gives_the_nearest_token_that_there_is():
    torch.manual_seed(0)
    kernel = torch.randn(1, 1, 8, 8)
    smaller = resize_patches(kernel, (4, 8)).flatten(1)  # (1, 32)
    basis = torch.eye(64).reshape(64, 1, 8, 8)
    resized = torch.nn.functional.interpolate(basis, (4, 8), mode="bilinear", align_corners=False).flatten(
        1
    )  # (64, 32)
    best = torch.linalg.lstsq(resized, kernel.flatten(1).t()).solution  # (32, 1)
    torch.testing.assert_close(smaller.t(), best, rtol=1e-4, atol=1e-4)


def test_positions_without_antialiasing_are_cut_where_the_axis_is_shorter():
    rows = torch.arange(1.0, 14 * 14 + 2)[None, :, None]  # (1, 1 + 196, 1)
    cut = resize_positions(rows, (14, 14), (8, 14), antialias=False)
    assert torch.equal(cut, torch.cat([rows[:, :1], rows[:, 1 + 3 * 14 : 1 + 11 * 14]], dim=1))
    wider = resize_positions(rows, (14, 14), (8, 64), antialias=False)
    want = torch.nn.functional.interpolate(cut[:, 1:].reshape(1, 1, 8, 14), (8, 64), mode="bilinear")
    torch.testing.assert_close(wider[0, 1:, 0], want.flatten())


def conv_config(**values) -> AudioMambaConfig:
    stem = {"channels": (4, 6), "convs": (1, 2), "mel_strides": (2, 3), "frame_strides": (2, 2)}
    return AudioMambaConfig(width=8, depth=1, n_mels=20, tokenizer="conv", **{"frames": 32, "stem": stem, **values})


@pytest.mark.parametrize("frames, tokens", [(32, 8), (33, 9), (31, 8), (1, 1)])
def test_a_stem_gives_a_token_per_step_of_time(frames, tokens):
    config = conv_config(frames=frames)
    assert config.grid == (1, tokens) and config.token_frames == 4
    assert ConvStem(config)(torch.randn(3, frames, 20)).shape == (3, tokens, 8)


def test_a_stem_keeps_the_order_of_time():
    stem = ConvStem(conv_config(frames=64)).eval()
    quiet, click = torch.zeros(1, 64, 20), torch.zeros(1, 64, 20)
    click[:, 40:44] = 3.0
    with torch.no_grad():
        changed = (stem(click) - stem(quiet))[0].norm(dim=1)  # (l)
    assert int(changed.argmax()) in (10, 11)


def test_a_clip_does_not_depend_on_the_others_of_its_batch():
    stem, features = ConvStem(conv_config()), torch.randn(5, 32, 20)
    together = stem(features)  # in training mode
    for row in range(5):
        torch.testing.assert_close(stem(features[row : row + 1])[0], together[row], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "values, whole",
    [
        ({"tokenizer": "conv"}, {1: 4, 4: 4, 5: 8, 98: 100}),
        ({"patch_mels": 16, "patch_frames": 16}, {1: 16, 16: 16, 17: 32, 1024: 1024}),
    ],
)
def test_the_least_frames_that_tokens_fill(values, whole):
    config = AudioMambaConfig(**values)
    assert {frames: config.whole_frames(frames) for frames in whole} == whole


def test_the_least_frames_of_overlapping_patches():
    config = SpectrogramTransformerConfig(overlap=6, frames=1024)
    assert [config.whole_frames(frames) for frames in (1, 16, 17, 26, 27, 1024)] == [16, 16, 26, 26, 36, 1026]


def test_stages_are_described_completely():
    with pytest.raises(ValueError, match="a number for each stage"):
        ConvStemConfig(channels=(4, 8))

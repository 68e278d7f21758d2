"""The published augmentation of spectrograms: time warp and SpecAugment before normalisation, noise and roll after it.

As in `aumcli.data.augmentation.augment`, the order of the random numbers doesn't depend on the configuration.
"""

import math

import torch
from torch import Tensor

from aumcli.config import AugmentConfig
from aumcli.data.augmentation.augment import ClipRandom, noise, normal

TIME_WARP_NOISE = 1e-7  # standard deviation of what stands for zeros in the published time warp's system


def warp_time(features: Tensor, config: AugmentConfig, random: ClipRandom) -> Tensor:
    """Warp every clip in time as EPIC-SOUNDS' published code does, before its masks.

    That code means to move a frame in the middle of the clip by d frames, d drawn from -time_warp .. time_warp - 1, and
    to let a spline carry its neighbours along. But it takes the energy found at a random frame for that frame's place;
    one point doesn't determine a spline, and noise of 1e-7 in place of zeros makes the system solvable; and it takes
    the sum of all squared places for the square of each. The solution is an affine displacement: mel m of frame t is
    read at

        t - v . (m, t, 1) - w phi(S)  with  c = (mels // 2, energy + d, 1),
                                            v = d E^-1 c / (c' E^-1 c),  w = -1e-7 d / (c' E^-1 c),

    E a normal 3 x 3 matrix, S the sum of m^2 + t^2 over the spectrogram and phi(r) = r ln(r) / 2: a random stretch,
    shift and shear, which leaves the clip alone where d is 0 (once in 2 time_warp draws).

    Args:
        features: log energies after padding, (b, frames, mels) float32; not written to.
        config: time_warp is read.
        random: the only source of chance.

    Returns:
        The warped features, (b, frames, mels): linear interpolation, the outermost frame beyond the ends.

    Source: spec_augment.py, time_warp and sparse_image_warp, in the authors' code.
    """
    frames, mels = features.shape[1:]
    chance, seeds = random.uniform(2, features), random.seeds()
    if not config.time_warp:
        return features
    most = config.time_warp
    moved = (2 * most * chance[:, 0]).floor() - most  # d, (b,)
    place = (most + chance[:, 1] * max(1, frames - 2 * most)).long().clamp(max=frames - 1)
    energy = features[torch.arange(len(features), device=features.device), place, mels // 2]
    point = torch.stack([torch.full_like(energy, mels // 2), energy + moved, torch.ones_like(energy)], dim=1)
    point = point.cpu().double()  # c, (b, 3); not every device has float64
    direction = torch.linalg.solve(normal(seeds, 3, 3).double(), point)  # E^-1 c, (b, 3)
    scale = moved.cpu() / (direction * point).sum(1)  # d / (c' E^-1 c), (b,)
    squares = frames * _sum_of_squares(mels) + mels * _sum_of_squares(frames)  # S
    affine = direction * scale[:, None]  # v, (b, 3)
    affine[:, 2] -= TIME_WARP_NOISE * scale * 0.5 * squares * math.log(squares)  # w phi(S) joins the shift
    by_mel, by_frame, shift = affine.to(features)[:, :, None, None].unbind(1)  # (b, 1, 1) each
    t = torch.arange(frames, device=features.device)[:, None]
    m = torch.arange(mels, device=features.device)
    read_at = (t - (by_mel * m + by_frame * t + shift)).clamp(0, frames - 1)  # (b, frames, mels)
    before = read_at.long().clamp(max=max(0, frames - 2))
    after = (before + 1).clamp(max=frames - 1)
    return torch.lerp(features.gather(1, before), features.gather(1, after), read_at - before)


def _sum_of_squares(count: int) -> int:
    """Sum of i^2 over 0 .. count - 1."""
    return (count - 1) * count * (2 * count - 1) // 6


def mask_features(features: Tensor, config: AugmentConfig, random: ClipRandom) -> Tensor:
    """Mask a mel band and a run of frames of every clip (SpecAugment), before normalisation.

    As in torchaudio, start and width are rounded down apart, so that a mask stops short of the very last mel or frame.
    EPIC-SOUNDS' masks come in pairs, are set to the mean of the spectrogram as it then is, and their width is drawn
    twice: below the bound, then below the first draw. Where the first mask's first draw is 0 there is no second mask.

    Args:
        features: log energies after padding, (b, frames, mels) float32; not written to.
        config: freq_mask and time_mask, the widest masks in mels and frames, and masking.
        random: the only source of chance.

    Returns:
        The masked features, (b, frames, mels).

    Source: torchaudio.functional.mask_along_axis_iid, as the authors' dataloader.py calls it for each clip;
    spec_augment.py.
    """
    chance, pairs = random.uniform(4, features), random.uniform(12, features)
    if config.masking == "epic_sounds":
        for dim, widest, draws in ((2, config.freq_mask, pairs[:, :6]), (1, config.time_mask, pairs[:, 6:])):
            if widest:
                features = _mask_pair(features, dim, widest, draws)
        return features
    for dim, widest, (width, start) in ((2, config.freq_mask, chance.T[:2]), (1, config.time_mask, chance.T[2:])):
        if widest:
            size = features.shape[dim]
            width = width * min(widest, size)
            features = features.masked_fill(_hit(features, dim, (start * (size - width)).long(), width.long()), 0.0)
    return features


def _mask_pair(features: Tensor, dim: int, widest: int, draws: Tensor) -> Tensor:
    """Set two bands along `dim` to the spectrogram's mean.

    From draws (b, 6): width, start and part of the width, twice.
    """
    size = features.shape[dim]
    going_on = torch.ones(len(features), dtype=torch.bool, device=features.device)
    for width, start, part in (draws.T[:3], draws.T[3:]):
        bound = (width * min(widest, size)).floor() * going_on
        going_on = bound > 0
        first = (start * (size - bound)).long()
        mean = features.mean((1, 2), keepdim=True)  # (b, 1, 1)
        features = torch.where(_hit(features, dim, first, (part * bound).long()), mean, features)
    return features


def disturb_features(features: Tensor, config: AugmentConfig, random: ClipRandom) -> Tensor:
    """Add uniform noise to normalised features, at a random level for each clip, and roll them in time.

    Args:
        features: normalised, (b, frames, mels) float32; not written to.
        config: feature_noise and roll are read; frames are rolled by -roll .. roll - 1, as published.
        random: the only source of chance.

    Returns:
        The changed features, (b, frames, mels).

    Source: dataloader.py, `noise`, in the authors' code: feature_noise 0.1 and roll 10.
    """
    b, frames, mels = features.shape
    chance, seeds = random.uniform(2, features), random.seeds()
    if config.feature_noise:
        raw = noise(seeds, frames, mels).to(features.device)
        features = torch.addcmul(features, raw, chance[:, :1, None], value=config.feature_noise)
    if config.roll:
        offset = (2 * config.roll * chance[:, 1]).long() - config.roll  # (b,)
        index = (torch.arange(frames, device=features.device) - offset[:, None]) % frames
        features = features[torch.arange(b, device=features.device)[:, None], index]
    return features


def _hit(features: Tensor, dim: int, first: Tensor, width: Tensor) -> Tensor:
    """Where `width` mels or frames from `first` on (both (b,)) lie: broadcasts with (b, frames, mels)."""
    index = torch.arange(features.shape[dim], device=features.device)
    return ((index >= first[:, None]) & (index < (first + width)[:, None])).unsqueeze(3 - dim)

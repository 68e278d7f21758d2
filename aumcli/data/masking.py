"""The published augmentation of spectrograms: SpecAugment before normalisation, noise and roll after it.

As in `aumcli.data.augment`, the order of the random numbers doesn't depend on the configuration.
"""

import torch
from torch import Generator, Tensor

from aumcli.config import AugmentConfig
from aumcli.data.augment import child


def mask_features(features: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Mask a mel band and a run of frames of every clip (SpecAugment), before normalisation.

    As in torchaudio, start and width are rounded down apart, so that a mask stops short of the very last mel or frame.
    EPIC-SOUNDS' masks come in pairs, are set to the mean of the spectrogram as it then is, and their width is drawn twice:
    below the bound, then below the first draw. Its published time warp is left out: it takes a pixel's value for a place.

    Args:
        features: log energies after padding, (b, frames, mels) float32; not written to.
        config: freq_mask and time_mask, the widest masks in mels and frames, and masking.
        generator: the only source of chance.

    Returns:
        The masked features, (b, frames, mels).

    Source: torchaudio.functional.mask_along_axis_iid, as the authors' dataloader.py calls it for each clip; spec_augment.py.
    """
    b, device = len(features), features.device
    chance = torch.rand(4, b, generator=generator, device=generator.device).to(device)
    pairs = child(generator)
    if config.masking == "epic_sounds":
        chance = torch.rand(2, 2, 3, b, generator=pairs, device=pairs.device).to(device)
        for (dim, widest), masks in zip(((2, config.freq_mask), (1, config.time_mask)), chance):
            for width, start, part in masks if widest else ():
                bound = (width * min(widest, features.shape[dim])).floor()
                first = (start * (features.shape[dim] - bound)).long()
                mean = features.mean((1, 2), keepdim=True)                               # (b, 1, 1)
                features = torch.where(_hit(features, dim, first, (part * bound).long()), mean, features)
        return features
    for dim, widest, (width, start) in ((2, config.freq_mask, chance[:2]), (1, config.time_mask, chance[2:])):
        if widest:
            size = features.shape[dim]
            width = width * min(widest, size)
            features = features.masked_fill(_hit(features, dim, (start * (size - width)).long(), width.long()), 0.0)
    return features


def disturb_features(features: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Add uniform noise to normalised features, at a random level for each clip, and roll them in time.

    Args:
        features: normalised, (b, frames, mels) float32; not written to.
        config: feature_noise and roll are read; frames are rolled by -roll .. roll - 1, as published.
        generator: the only source of chance.

    Returns:
        The changed features, (b, frames, mels).

    Source: dataloader.py, `noise`, in the authors' code: feature_noise 0.1 and roll 10.
    """
    b, frames, _ = features.shape
    chance = torch.rand(2, b, generator=generator, device=generator.device).to(features.device)
    noise = child(generator)
    if config.feature_noise:
        raw = torch.rand(features.shape, generator=noise, device=noise.device).to(features.device)
        features = torch.addcmul(features, raw, chance[0, :, None, None], value=config.feature_noise)
    if config.roll:
        offset = (2 * config.roll * chance[1]).long() - config.roll                      # (b,)
        index = (torch.arange(frames, device=features.device) - offset[:, None]) % frames
        features = features[torch.arange(b, device=features.device)[:, None], index]
    return features


def _hit(features: Tensor, dim: int, first: Tensor, width: Tensor) -> Tensor:
    """Where `width` mels or frames from `first` on (both (b,)) lie: broadcasts with (b, frames, mels)."""
    index = torch.arange(features.shape[dim], device=features.device)
    return ((index >= first[:, None]) & (index < (first + width)[:, None])).unsqueeze(3 - dim)

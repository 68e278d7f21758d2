"""From an epoch's clips to what a model is trained on.

What is drawn before they are decoded, and batches of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aumcli.config import AugmentConfig
from aumcli.core.frontend import LogMel
from aumcli.data.augmentation.augment import (
    ClipRandom,
    augment_waveforms,
    equalise_features,
    lay_into_noise,
    mixup_waveforms,
    replace_by_background,
    silence_after_,
    warp_features,
)
from aumcli.data.augmentation.masking import disturb_features, mask_features, warp_time
from aumcli.data.datasets.waveforms import padded, stream_seed
from aumcli.utils.threads import compute_threads

FEW_SAMPLES = 500_000  # a batch of fewer is turned into features by one thread
NOISE_DB = (0.0, 30.0)  # range of how much louder a clip is than background noise
EPOCH_PURPOSE, PARTNER_ROWS = 4, 2  # of a seed; a batch has a row for each clip and one for what it is mixed with


@dataclass(frozen=True)
class EpochDraws:
    """What is drawn for the clips of an epoch, in their order, before they are decoded.

    Attributes:
        places: number in [0, 1) that chooses the part of a longer clip, (2, n): of the clip, and of its partner.
        partners: the clip that is mixed in, (n,) int64; -1 for none.
        ratios: share of the clip itself in a mixture, (n,) float32; NaN where the partner is of no class, and noise.
        noise: how much louder than this noise a clip is, in dB, and a number in [0, 1) that chooses where in it the
            clip lies, (2, n) float32.
    """

    places: np.ndarray
    partners: np.ndarray
    ratios: np.ndarray
    noise: np.ndarray


def draw_epoch(
    batches: Sequence[Sequence[int]],
    clips: int,
    augment: AugmentConfig,
    seed: int,
    epoch: int,
    has_labels: np.ndarray | None = None,
) -> EpochDraws:
    """Draw parts and partners for all clips of an epoch: Beta(10, 10) of a clip and its partner, as published.

    They depend on the clip's place in the epoch alone, not on how a batch is cut and who computes it.

    Args:
        batches: clip indices.
        clips: how many training clips there are.
        augment: mixup, mixup_partners and background_noise are read. A batch of one has nothing to mix with unless
            partners are of the corpus.
        seed, epoch: decide the result.
        has_labels: which clips are of a class, (clips,) bool; None: all.
    """
    order = np.concatenate([np.asarray(batch, dtype=np.int64) for batch in batches])
    random = np.random.default_rng(stream_seed(seed, epoch, EPOCH_PURPOSE))
    places, mixed, ratios = random.random((2, len(order))), random.random(len(order)), random.beta(10, 10, len(order))
    choice = random.random(len(order))
    if augment.mixup_partners == "corpus":
        partners = (choice * clips).astype(np.int64)
        alone = np.zeros(len(order), dtype=bool)
    else:
        sizes = np.repeat([len(batch) for batch in batches], [len(batch) for batch in batches])
        begins = np.repeat(np.cumsum([0, *map(len, batches)])[:-1], [len(batch) for batch in batches])
        step = 1 + (choice * (sizes - 1)).astype(np.int64)  # never the clip itself
        partners, alone = order[begins + (np.arange(len(order)) - begins + step) % sizes], sizes == 1
    partners = np.where((mixed < augment.mixup) & ~alone, partners, -1)
    noisy, which, louder, where = random.random((4, len(order)))
    if augment.background_noise and has_labels is not None:
        begin = 0
        for batch in batches:
            rows, own = np.arange(begin, begin + len(batch)), np.asarray(batch)
            begin += len(batch)
            noises = own[~has_labels[own]]
            chosen = rows[has_labels[own] & (noisy[rows] < augment.background_noise) & (partners[rows] < 0)]
            if len(noises):
                partners[chosen] = noises[(which[chosen] * len(noises)).astype(np.int64)]
                ratios[chosen] = np.nan
    noise = np.stack([NOISE_DB[0] + (NOISE_DB[1] - NOISE_DB[0]) * louder, where]).astype(np.float32)
    return EpochDraws(places, partners, ratios.astype(np.float32), noise)


@dataclass(frozen=True)
class Partners:
    """What some clips of a batch are mixed with.

    Attributes:
        of: places of these clips among those given to `make_batch`.
        waveforms: (samples,) float32 each.
        targets: (len(of), classes) float32.
        ratios: share of the clip itself, (len(of),) float32; NaN where the partner is noise.
        noise: see `EpochDraws`, (2, len(of)) float32; None where no partner is noise.
    """

    of: list[int]
    waveforms: list[np.ndarray]
    targets: Tensor
    ratios: Tensor
    noise: Tensor | None = None


def crop_samples(frontend: LogMel, augment: AugmentConfig) -> int:
    """Samples of a clip that `make_batch` can use.

    Half as much again, so that one that is played faster still fills the input.
    """
    return int(frontend.config.clip_samples * (1 + augment.speed))


def make_batch(
    frontend: LogMel,
    waveforms: list[np.ndarray],
    targets: Tensor,
    augment: AugmentConfig,
    seed: int,
    rows: Sequence[int] | None = None,
    size: int | None = None,
    partners: Partners | None = None,
) -> tuple[Tensor, Tensor]:
    """Turn clips of a batch into augmented, normalised features on the frontend's device.

    Args:
        frontend: the model's.
        waveforms: (samples,) float32 each, of at most `crop_samples`.
        targets: (b, classes) float32.
        augment: what to do to them.
        seed: of the batch; decides every random choice.
        rows: places of these clips in the batch, b of them; None: they are the batch.
        size: clips of the batch.
        partners: what some of them are mixed with.

    Returns:
        Features (b, frames, mels) and targets (b, classes), which mixing has changed.
    """
    config, device = frontend.config, next(frontend.buffers()).device
    rows, size = [*range(len(waveforms))] if rows is None else [*rows], size or len(waveforms)
    clips = waveforms + (partners.waveforms if partners else [])
    few = len(clips) * config.clip_samples < FEW_SAMPLES
    with torch.no_grad(), compute_threads(1 if few else None):
        all_rows = rows + [size + rows[i] for i in partners.of] if partners else rows
        batch = padded(clips, crop_samples(frontend, augment)).to(device)
        lengths, targets = torch.tensor([len(clip) for clip in clips], device=device), targets.to(device)
        if augment.background:
            rows_of_clips, random = len(targets), ClipRandom(stream_seed(seed, 2), rows, size)
            replaced, targets = replace_by_background(
                batch[:rows_of_clips],
                lengths[:rows_of_clips],
                targets,
                augment.background,
                config.sample_rate_hz,
                random,
            )
            batch = torch.cat([replaced, batch[rows_of_clips:]])
        batch, lengths = augment_waveforms(
            batch,
            lengths,
            augment,
            config.sample_rate_hz,
            ClipRandom(stream_seed(seed, 0), all_rows, PARTNER_ROWS * size),
        )
        if partners:
            batch, lengths, targets = _mixed(batch, lengths, targets, partners, config.clip_samples)
        random = ClipRandom(stream_seed(seed, 1), rows, size)
        batch, lengths = batch[:, : config.clip_samples], lengths.clamp(max=config.clip_samples)
        n_frames = torch.as_tensor(frontend.n_frames(lengths))  # (b,)
        energies, n_frames = warp_features(frontend.energies(batch, lengths), n_frames, augment, config, random)
        energies = equalise_features(energies, augment, random)
        features = mask_features(warp_time(frontend.fit(energies, n_frames), augment, random), augment, random)
        return disturb_features(frontend.normalise(features), augment, random), targets


def _mixed(
    batch: Tensor, lengths: Tensor, targets: Tensor, partners: Partners, clip_samples: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Clips, lengths and targets with the partners, which follow the clips, mixed in."""
    b, of, ratios = len(targets), torch.tensor(partners.of, device=batch.device), partners.ratios.to(batch.device)
    noisy, ratios = ratios.isnan(), ratios.nan_to_num(1.0)
    mixtures, longer = mixup_waveforms(batch[of], lengths[of], batch[b:], lengths[b:], ratios), lengths[of]
    mixed_targets = torch.lerp(partners.targets.to(targets), targets[of], ratios[:, None].to(targets.dtype))
    if partners.noise is not None and noisy.any():
        louder, place = partners.noise.to(batch.device)[:, noisy]
        noise_lengths = lengths[b:][noisy].clamp(max=clip_samples)
        noises = silence_after_(batch[b:][noisy], noise_lengths)
        mixtures[noisy], longer[noisy] = lay_into_noise(
            mixtures[noisy], longer[noisy], noises, noise_lengths, louder, place
        )
    return (
        batch[:b].index_copy(0, of, mixtures),
        lengths[:b].index_copy(0, of, longer),
        targets.index_copy(0, of, mixed_targets),
    )

"""From decoded clips to what a model is trained on."""

import numpy as np
import torch
from torch import Tensor

from aumcli.config import AugmentConfig
from aumcli.core.frontend import LogMel
from aumcli.data.augment import augment_waveforms, equalise_features, mixup_waveforms, warp_features
from aumcli.data.dataset import crop_and_pad
from aumcli.data.masking import disturb_features, mask_features


def make_batch(frontend: LogMel, waveforms: list[np.ndarray], targets: Tensor, augment: AugmentConfig,
               generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn clips into augmented, normalised features on the frontend's device.

    Args:
        frontend: the model's.
        waveforms: (samples,) float32 each.
        targets: (b, classes) float32.
        augment: what to do to them.
        generator: decides every random choice.

    Returns:
        Features (b, frames, mels) and targets (b, classes), which mixing may have changed.
    """
    config, device = frontend.config, frontend.window.device
    with torch.no_grad():
        # half as much again, so that a clip that is played faster still fills the input
        batch, lengths = crop_and_pad(waveforms, int(config.clip_samples * (1 + augment.speed)), generator)
        batch, lengths, targets = batch.to(device), lengths.to(device), targets.to(device)
        batch, lengths = augment_waveforms(batch, lengths, augment, config.sample_rate_hz, generator)
        batch, targets = mixup_waveforms(batch, lengths, targets, augment.mixup, generator)
        batch, lengths = batch[:, : config.clip_samples], lengths.clamp(max=config.clip_samples)
        energies, n_frames = warp_features(frontend.energies(batch, lengths), frontend.n_frames(lengths), augment, config, generator)
        energies = equalise_features(energies, augment, generator)
        features = mask_features(frontend.fit(energies, n_frames), augment, generator)
        return disturb_features(frontend.normalise(features), augment, generator), targets

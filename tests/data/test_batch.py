"""From decoded clips to what a model is trained on."""

import numpy as np
import pytest
import torch
from tiny import RATE_HZ

from aumcli.config import AugmentConfig, FrontendConfig
from aumcli.core.frontend import LogMel
from aumcli.data.batch import make_batch

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


ALL = AugmentConfig(shift_s=0.2, mixup=1.0, freq_mask=8, time_mask=8, speed=0.3, tempo=0.3, warp=0.2, gain_db=12,
                    noise_snr_db=0.0, band=1.0, reverb=1.0, masking="epic_sounds", feature_noise=0.1, roll=5)
FRONTEND = FrontendConfig(sample_rate_hz=RATE_HZ, n_mels=32, frames=48)


def some_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(samples).astype(np.float32)
            for samples in (3, 100, 3900, FRONTEND.clip_samples, 5 * FRONTEND.clip_samples)]


@pytest.mark.parametrize("augment", [ALL, AugmentConfig()] + [
    AugmentConfig(**{name: getattr(ALL, name)}) for name in AugmentConfig.model_fields])
def test_batches_with_each_and_every_augmentation(augment):
    targets = torch.eye(5)
    batches = [make_batch(LogMel(FRONTEND), some_clips(), targets, augment, torch.Generator().manual_seed(3)) for _ in range(2)]
    features, mixed = batches[0]
    assert features.shape == (5, 48, 32) and mixed.shape == (5, 5) and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert torch.allclose(mixed.sum(1), torch.ones(5))
    assert torch.equal(mixed, targets) == (augment.mixup == 0)
    assert torch.equal(features, batches[1][0])
    other, _ = make_batch(LogMel(FRONTEND), some_clips(), targets, augment, torch.Generator().manual_seed(4))
    assert not torch.equal(features, other)


def test_without_augmentation_training_sees_what_prediction_sees():
    logmel, clips = LogMel(FRONTEND), some_clips()[:4]                      # none is longer than the input
    features, _ = make_batch(logmel, clips, torch.eye(4), AugmentConfig(), torch.Generator().manual_seed(3))
    for row, clip in zip(features, clips):
        assert torch.allclose(row, logmel(torch.from_numpy(clip)[None])[0], atol=1e-4)


def test_silence_and_one_clip_alone():
    features, _ = make_batch(LogMel(FRONTEND), [np.zeros(3900, dtype=np.float32)], torch.ones(1, 1), ALL,
                             torch.Generator().manual_seed(3))
    assert torch.isfinite(features).all()

"""The published augmentation of spectrograms: masks, noise and roll, each from the generator alone."""

import torch

from aumcli.config import AugmentConfig
from aumcli.data.masking import disturb_features, mask_features

EPIC = AugmentConfig(freq_mask=48, time_mask=192, masking="epic_sounds")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def runs(hit: torch.Tensor) -> list[int]:
    """Lengths of the runs of true values."""
    lengths, current = [], 0
    for value in [*hit.tolist(), False]:
        current = current + 1 if value else (lengths.append(current) if current else None) or 0
    return lengths


def test_epic_sounds_masks_come_in_pairs_and_are_the_mean():
    features = torch.randn(300, 1024, 128, generator=seeded()) + 3.0
    before = features.clone()
    masked = mask_features(features, EPIC, seeded(1))
    assert torch.equal(features, before)
    changed = masked != features
    bands, times = changed.all(1), changed.all(2)                           # (b, mels), (b, frames)
    widths = torch.tensor([sum(runs(row)) for row in bands], dtype=torch.float)
    lengths = torch.tensor([sum(runs(row)) for row in times], dtype=torch.float)
    assert max(len(runs(row)) for row in bands) == max(len(runs(row)) for row in times) == 2
    assert max(max(runs(row), default=0) for row in bands if len(runs(row)) == 2) < 48
    # two masks whose width is uniform below a uniform bound: F / 4 each on average, 0.51 of the mean apart at most in 300
    assert abs(widths.mean() - 2 * 48 / 4) < 3 and abs(lengths.mean() - 2 * 192 / 4) < 12
    row = int(widths.argmax())
    values = masked[row][:, bands[row]].unique()
    assert len(values) <= 4 and (values - 3.0).abs().max() < 0.02           # each mask has the mean as it then was
    assert torch.equal(masked, mask_features(features, EPIC, seeded(1)))


def test_masking_one_axis_leaves_the_other_alone():
    features = torch.randn(8, 64, 32, generator=seeded())
    for config, axis in ((AugmentConfig(freq_mask=8, masking="epic_sounds"), 1), (AugmentConfig(time_mask=8, masking="epic_sounds"), 2)):
        changed = mask_features(features, config, seeded(3)) != features
        assert changed.any() and torch.equal(changed.any(axis), changed.all(axis))


def test_noise_is_uniform_at_a_level_of_its_own_for_each_clip():
    features = torch.zeros(400, 50, 20)
    noisy = disturb_features(features, AugmentConfig(feature_noise=0.1), seeded())
    assert not features.any() and noisy.min() >= 0 and noisy.max() <= 0.1
    levels = 2 * noisy.mean((1, 2))                                         # uniform in 0 .. 0.1
    assert levels.min() < 0.002 and levels.max() > 0.098 and abs(levels.mean() - 0.05) < 0.006
    assert (noisy.amax((1, 2)) <= levels * 1.1).all()


def test_roll_moves_frames_by_minus_ten_to_nine():
    features = torch.arange(100.0)[None, :, None].expand(2000, 100, 3)
    rolled = disturb_features(features, AugmentConfig(roll=10), seeded())
    offsets = (-rolled[:, 0, 0]).remainder(100)
    offsets = torch.where(offsets > 50, offsets - 100, offsets)
    assert set(offsets.int().tolist()) == set(range(-10, 10))
    for row, offset in zip(rolled[:20], offsets[:20].int().tolist()):
        assert torch.equal(row, features[0].roll(offset, 0))


def test_nothing_is_done_unless_asked_and_the_order_of_chance_stays():
    features = torch.randn(4, 32, 16, generator=seeded())
    assert disturb_features(features, AugmentConfig(), seeded()) is features
    ends = []
    for config in (AugmentConfig(), EPIC, AugmentConfig(freq_mask=4, time_mask=4, feature_noise=0.1, roll=3)):
        generator = seeded(7)
        disturb_features(mask_features(features, config, generator), config, generator)
        ends.append(generator.get_state())
    assert all(torch.equal(end, ends[0]) for end in ends)

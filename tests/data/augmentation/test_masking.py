"""The published augmentation of spectrograms: time warp, masks, noise and roll, each from the random numbers alone."""

import torch
from scipy.stats import ks_2samp

from aumcli.config import AugmentConfig
from aumcli.data.augmentation.augment import ClipRandom
from aumcli.data.augmentation.masking import _mask_pair, disturb_features, mask_features, warp_time

EPIC = AugmentConfig(freq_mask=48, time_mask=192, masking="epic_sounds")


def seeded(seed=0, b=8):
    return ClipRandom(seed, range(b), b)


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def runs(hit: torch.Tensor) -> list[int]:
    """Lengths of the runs of true values."""
    lengths, current = [], 0
    for value in [*hit.tolist(), False]:
        current = current + 1 if value else (lengths.append(current) if current else None) or 0
    return lengths


def test_epic_sounds_masks_come_in_pairs_and_are_the_mean():
    features = randn(300, 1024, 128).double() + 3.0  # in float32 one of 40 million values would be the mean by chance
    before = features.clone()
    masked = mask_features(features, EPIC, seeded(1, 300))
    assert torch.equal(features, before)
    changed = masked != features
    bands, times = changed.all(1), changed.all(2)  # (b, mels), (b, frames)
    widths = torch.tensor([sum(runs(row)) for row in bands], dtype=torch.float)
    lengths = torch.tensor([sum(runs(row)) for row in times], dtype=torch.float)
    assert max(len(runs(row)) for row in bands) == max(len(runs(row)) for row in times) == 2
    assert max(max(runs(row), default=0) for row in bands if len(runs(row)) == 2) < 48
    # floor(part * bound) with a bound uniform in 0 .. widest - 1: 11.3 and 47.3 for each mask, less what two have in
    # common
    assert abs(widths.mean() - 21.3) < 3 and abs(lengths.mean() - 92) < 12
    row = int(widths.argmax())
    values = masked[row][:, bands[row]].unique()
    assert len(values) <= 4 and (values - 3.0).abs().max() < 0.02  # each mask has the mean as it then was
    assert torch.equal(masked, mask_features(features, EPIC, seeded(1, 300)))


def test_masking_one_axis_leaves_the_other_alone():
    features = randn(8, 64, 32)
    for config, axis in (
        (AugmentConfig(freq_mask=8, masking="epic_sounds"), 1),
        (AugmentConfig(time_mask=8, masking="epic_sounds"), 2),
    ):
        changed = mask_features(features, config, seeded(3)) != features
        assert changed.any() and torch.equal(changed.any(axis), changed.all(axis))


def test_noise_is_uniform_at_a_level_of_its_own_for_each_clip():
    features = torch.zeros(400, 50, 20)
    noisy = disturb_features(features, AugmentConfig(feature_noise=0.1), seeded(b=400))
    assert not features.any() and noisy.min() >= 0 and noisy.max() <= 0.1
    levels = 2 * noisy.mean((1, 2))  # uniform in 0 .. 0.1
    assert levels.min() < 0.002 and levels.max() > 0.098 and abs(levels.mean() - 0.05) < 0.006
    assert (noisy.amax((1, 2)) <= levels * 1.1).all()


def test_roll_moves_frames_by_minus_ten_to_nine():
    features = torch.arange(100.0)[None, :, None].expand(2000, 100, 3)
    rolled = disturb_features(features, AugmentConfig(roll=10), seeded(b=2000))
    offsets = (-rolled[:, 0, 0]).remainder(100)
    offsets = torch.where(offsets > 50, offsets - 100, offsets)
    assert set(offsets.int().tolist()) == set(range(-10, 10))
    for row, offset in zip(rolled[:20], offsets[:20].int().tolist()):
        assert torch.equal(row, features[0].roll(offset, 0))


def test_nothing_is_done_unless_asked_and_the_order_of_chance_stays():
    features = randn(4, 32, 16)
    assert disturb_features(features, AugmentConfig(), seeded(b=4)) is features
    ends = []
    for config in (AugmentConfig(), EPIC, AugmentConfig(freq_mask=4, time_mask=4, feature_noise=0.1, roll=3)):
        random = seeded(7, 4)
        disturb_features(mask_features(warp_time(features, config, random), config, random), config, random)
        ends.append(random.uniform(3, features))
    assert all(torch.equal(end, ends[0]) for end in ends)


def test_there_is_no_second_mask_where_the_first_draw_of_the_first_is_nothing():
    features = randn(4000, 4, 64)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(_mask_pair(features, 2, 16, torch.cat([draws * 0, draws], dim=1)), features)
    assert not torch.equal(_mask_pair(features, 2, 16, torch.cat([draws, draws * 0], dim=1)), features)


def published_displacement(energy: float, moved: int, noise: torch.Tensor, mels: int, frames: int) -> torch.Tensor:
    """How far the published time warp moves each mel of each frame, (frames, mels), written from the spline's formulas.

    A spline of order 2 through one control point: [[phi(0), c], [c', noise]] [w; v] = [d; 0], and w phi(r) + v . (q, 1)
    at each place q = (mel, frame), in float32; r = sum |q|^2 - 2 q . c + |c|^2, where a distance would have the |q|^2
    of this place alone.
    """
    c = torch.tensor([mels // 2, energy + moved, 1.0])
    system = torch.zeros(4, 4)
    system[0, 1:], system[1:, 0], system[1:, 1:] = c, c, 1e-7 * noise
    solution = torch.linalg.solve(system, torch.tensor([float(moved), 0, 0, 0]))
    frame, mel = torch.meshgrid(torch.arange(float(frames)), torch.arange(float(mels)), indexing="ij")
    r = (mel**2 + frame**2).sum() - 2 * (mel * c[0] + frame * c[1]) + c[0] ** 2 + c[1] ** 2
    return solution[0] * 0.5 * r * r.log() + solution[1] * mel + solution[2] * frame + solution[3]


def displacement(features: torch.Tensor, random: ClipRandom) -> torch.Tensor:
    """How far `warp_time` moves each frame of a ramp in time, (b, frames, mels), within the clip's ends."""
    warped = warp_time(features, AugmentConfig(time_warp=5), random)
    return torch.arange(features.shape[1])[:, None] - warped


def test_the_time_warp_is_the_published_spline_noise_by_noise(monkeypatch):
    """The ramp's own values are places in time.

    So the energies which are taken for a place are those of the test.
    """
    frames, mels, b = 200, 32, 60
    noise = torch.randn(b, 3, 3, generator=torch.Generator().manual_seed(5))
    monkeypatch.setattr("aumcli.data.augmentation.masking.normal", lambda seeds, *shape: noise)
    ramp = torch.arange(float(frames))[None, :, None].expand(b, frames, mels)
    chance = seeded(3, b).uniform(2, ramp)
    moved, place = (10 * chance[:, 0]).floor() - 5, (5 + chance[:, 1] * (frames - 10)).long()
    found = displacement(ramp, seeded(3, b))
    for i in range(b):
        t = torch.arange(float(frames))[:, None]
        expected = published_displacement(float(place[i]), int(moved[i]), noise[i], mels, frames)
        inside = ((t - expected) >= 1) & ((t - expected) <= frames - 2)
        # 1e-2 frames: float32 in a system whose entries span nine orders of magnitude
        assert torch.allclose(found[i][inside], expected[inside], atol=1e-2, rtol=1e-3), i
        assert (moved[i] != 0) or torch.allclose(found[i], torch.zeros(()), atol=1e-4)


def test_the_time_warps_distribution_on_spectrograms():
    """Against 1,500 draws of the published formula on noise spectrograms.

    Where the last frame beside the middle mel is read.
    """
    frames, mels, b = 1024, 9, 1500
    features = torch.arange(float(frames))[None, :, None].repeat(b, 1, mels)  # a ramp shows how far it was moved,
    features[:, :, mels // 2] = randn(b, frames) * 2 - 5  # by what the middle mel's energies say
    ours = displacement(features, seeded(11, b))[:, -1, mels - 1]
    theirs, generator = [], torch.Generator().manual_seed(12)
    for clip in features:
        moved, place = (
            int(torch.randint(-5, 5, (1,), generator=generator)),
            int(torch.randint(5, frames - 5, (1,), generator=generator)),
        )
        noise = torch.randn(3, 3, generator=generator)
        moves = published_displacement(float(clip[place, mels // 2]), moved, noise, mels, frames)[-1, -1]
        theirs.append(float(frames - 1 - (frames - 1 - moves).clamp(0, frames - 1)))
    assert ks_2samp(ours.numpy(), theirs).pvalue > 0.01
    assert 0.4 < sum(each == 0 for each in theirs) / b < 0.75  # reading beyond the end gives the end


def test_the_time_warp_belongs_to_a_clip_and_reads_between_frames():
    features = randn(6, 64, 16) - 5
    config = AugmentConfig(time_warp=5)
    whole = warp_time(features, config, seeded(2, 6))
    assert not torch.equal(whole, features) and whole.isfinite().all()
    assert torch.equal(warp_time(features[[4, 1]], config, ClipRandom(2, [4, 1], 6)), whole[[4, 1]])
    assert (whole <= features.amax(1, keepdim=True)).all() and (whole >= features.amin(1, keepdim=True)).all()
    assert warp_time(features, AugmentConfig(), seeded(2, 6)) is features
    short = torch.randn(6, 3, 16)
    assert warp_time(short, config, seeded(2, 6)).shape == short.shape

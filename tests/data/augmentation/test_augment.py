"""Each augmentation does what its name says, to the clip's own samples only, from the generator alone."""

import math

import pytest
import torch

from aumcli.config import AugmentConfig, FrontendConfig
from aumcli.data.augmentation import augment
from aumcli.data.augmentation.augment import ClipRandom, augment_waveforms, mixup_waveforms, warp_features
from aumcli.data.augmentation.masking import mask_features

RATE = 16000
EVERYTHING = AugmentConfig(speed=0.1, shift_s=0.1, band_limit=0.5, reverb=0.5, gain_db=6.0, noise=0.56)
FEATURES = AugmentConfig(tempo=0.2, freq_warp=0.2, freq_mask=24, time_mask=30)


def seeded(seed=0, b=8):
    return ClipRandom(seed, range(b), b)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sine(hz, samples=RATE, b=1, buffer=None):
    clip = torch.sin(2 * math.pi * hz * torch.arange(samples) / RATE)
    padded = torch.nn.functional.pad(clip, (0, (buffer or samples) - samples))
    return padded.repeat(b, 1), torch.full((b,), samples)


def peak_hz(clip):
    spectrum = torch.fft.rfft(clip * torch.hann_window(len(clip)), 8 * len(clip)).abs()
    return spectrum.argmax().item() * RATE / (8 * len(clip))


def noise_clips(b=8, samples=RATE, length=RATE):
    clips = torch.randn(b, samples, generator=generator(99)) * 0.1
    clips[:, length:] = 0
    return clips, torch.full((b,), length)


def test_nothing_switched_on_returns_the_inputs_themselves():
    clips, lengths = noise_clips()
    new, new_lengths = augment_waveforms(clips, lengths, AugmentConfig(), RATE, seeded())
    assert new is clips and new_lengths is lengths
    features, frames = torch.randn(8, 20, 128), torch.full((8,), 15)
    warped, new_frames = warp_features(features, frames, AugmentConfig(), FrontendConfig(), seeded())
    assert warped is features and new_frames is frames
    assert mask_features(features, AugmentConfig(), seeded()) is features


def test_the_result_depends_on_the_generator_and_the_inputs_only():
    clips, lengths = noise_clips()
    torch.manual_seed(1)
    first = augment_waveforms(clips, lengths, EVERYTHING, RATE, seeded(5))
    torch.manual_seed(2)
    again = augment_waveforms(clips, lengths, EVERYTHING, RATE, seeded(5))
    other = augment_waveforms(clips, lengths, EVERYTHING, RATE, seeded(6))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    features, frames = torch.randn(8, 40, 128), torch.full((8,), 30)
    runs = [warp_features(features, frames, FEATURES, FrontendConfig(), seeded(5))[0] for _ in range(2)]
    assert torch.equal(*runs) and not torch.equal(runs[0], features)
    assert torch.equal(*(mask_features(features, FEATURES, seeded(5)) for _ in range(2)))


def test_one_augmentation_leaves_the_choices_of_the_others_alone():
    clips, lengths = noise_clips()
    only, _ = augment_waveforms(clips, lengths, AugmentConfig(gain_db=6.0), RATE, seeded())
    more = AugmentConfig(gain_db=6.0, reverb=0.3, noise=0.001)
    both, _ = augment_waveforms(clips, lengths, more, RATE, seeded())
    same = torch.isclose(only, both, rtol=0.02, atol=1e-3).all(dim=1)  # no room: the same gain, little noise
    assert 0 < same.sum() < 8
    a, b = seeded(), seeded()
    augment_waveforms(clips, lengths, AugmentConfig(), RATE, a)
    augment_waveforms(clips, lengths, EVERYTHING, RATE, b)
    assert torch.equal(a.uniform(3, clips), b.uniform(3, clips))


def test_a_clip_of_a_part_is_changed_as_in_the_whole_batch():
    clips, lengths = noise_clips()
    whole, whole_lengths = augment_waveforms(clips, lengths, EVERYTHING, RATE, seeded(5))
    for rows in ([0, 1, 2], [3], [7, 4]):
        part, part_lengths = augment_waveforms(clips[rows], lengths[rows], EVERYTHING, RATE, ClipRandom(5, rows, 8))
        assert torch.equal(part_lengths, whole_lengths[rows])
        assert torch.allclose(part, whole[rows], atol=1e-6)  # Fourier transforms of other batch sizes


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(speed=0.2),
        AugmentConfig(shift_s=0.2),
        AugmentConfig(crop=0.5, shift_s=0.2),
        AugmentConfig(band_limit=1.0),
        AugmentConfig(reverb=1.0),
        AugmentConfig(gain_db=6.0),
        AugmentConfig(noise=1.0),
        EVERYTHING,
    ],
)
def test_the_buffer_is_kept_and_silent_after_the_clip(config):
    clips, lengths = noise_clips(b=8, samples=12000, length=8000)
    before = clips.clone()
    new, new_lengths = augment_waveforms(clips, lengths, config, RATE, seeded())
    assert torch.equal(clips, before)  # inputs are not written to
    assert new.shape == clips.shape and new.dtype == torch.float32 and new_lengths.dtype == torch.int64
    assert not torch.equal(new, clips) and new.isfinite().all()
    assert (new_lengths > 0).all() and (new_lengths <= 12000).all()
    beyond = torch.arange(12000) >= new_lengths[:, None]
    assert (new[beyond] == 0).all()
    assert all(new[i, n - 40 : n].any() for i, n in enumerate(new_lengths))  # and not before its end


@pytest.mark.parametrize("samples", [1, 3])
def test_clips_of_hardly_any_samples_and_silence_survive(samples):
    config = EVERYTHING.model_copy(update={"band": 1.0, "reverb": 1.0, "speed": 0.5})
    for clips in (torch.rand(4, samples), torch.zeros(4, samples)):
        new, lengths = augment_waveforms(clips, torch.full((4,), samples), config, RATE, seeded(b=4))
        assert new.shape == (4, samples) and new.isfinite().all()
        assert ((lengths >= 1) & (lengths <= samples)).all()
    lengths = torch.full((4,), samples)
    assert (
        mixup_waveforms(torch.rand(4, samples), lengths, torch.rand(4, samples), lengths, torch.rand(4))
        .isfinite()
        .all()
    )


def test_an_empty_clip_stays_empty():
    new, lengths = augment_waveforms(
        torch.zeros(2, 500), torch.zeros(2, dtype=torch.int64), EVERYTHING, RATE, seeded(b=2)
    )
    assert lengths.tolist() == [0, 0] and not new.any()


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25])
def test_speed_moves_pitch_and_length_together(factor):
    clips, lengths = sine(1000.0, buffer=24000)
    new, new_lengths = augment._change_speed(clips, lengths, torch.tensor([factor]))
    assert new_lengths.item() == round(RATE / factor)
    assert peak_hz(new[0, :new_lengths]) == pytest.approx(1000 * factor, abs=0.3)
    ideal = torch.sin(2 * math.pi * 1000 * factor * torch.arange(8000) / RATE)  # same phase: no delay either
    assert (new[0, 500:8000] - ideal[500:]).abs().max() < 2e-3  # -54 dB: the polynomial's error


def test_speed_stays_exact_to_the_end_of_a_long_clip():
    samples = 40 * RATE
    clip = torch.sin(2 * math.pi * 1000 * (torch.arange(samples) % 16) / RATE)[None]
    new, lengths = augment._change_speed(clip, torch.tensor([samples]), torch.tensor([1.25 + 2**-20]))
    index = torch.arange(lengths.item() - 2000, lengths.item() - 1000).double()
    ideal = torch.sin(2 * math.pi * 1000 * (1.25 + 2**-20) * index / RATE).float()
    assert (new[0, index.long()] - ideal).abs().max() < 2e-3  # float32 positions miss by 1e-2


def test_speed_up_does_not_alias():
    clips, lengths = sine(7000.0)  # would come back at 7250 Hz
    new, _ = augment._change_speed(clips, lengths, torch.tensor([1.25]))
    assert new[0, 500:12000].norm() < 0.01 * clips[0, 500:12000].norm()


def test_speed_is_drawn_within_its_range_and_on_both_sides():
    _, lengths = augment_waveforms(
        *sine(500.0, 4000, b=200, buffer=5000), AugmentConfig(speed=0.1), RATE, seeded(b=200)
    )
    factor = 4000 / lengths
    assert 1 / 1.101 < factor.min() < 0.93 and 1.07 < factor.max() < 1.101
    assert factor.log().mean().abs() < 0.01  # log-uniform: symmetric


def test_shift_puts_zeros_in_front_or_cuts_the_beginning():
    clips, lengths = noise_clips(b=3, samples=1000, length=600)
    new, new_lengths = augment._shift(clips, lengths, torch.tensor([100, -100, 900]))
    assert new_lengths.tolist() == [700, 500, 900]  # the last: by half a clip at most
    assert not new[0, :100].any() and torch.equal(new[0, 100:700], clips[0, :600])
    assert torch.equal(new[1, :500], clips[1, 100:600]) and not new[1, 500:].any()
    full, full_lengths = augment._shift(*noise_clips(b=1, samples=600, length=600), torch.tensor([100]))
    assert full_lengths.item() == 600 and full.shape == (1, 600)


def test_crop_keeps_a_part_of_the_clip_in_one_piece():
    clips = torch.arange(1.0, 1001).repeat(200, 1)
    clips[:, 800:] = 0
    new, lengths = augment_waveforms(clips, torch.full((200,), 800), AugmentConfig(crop=0.5), RATE, seeded(b=200))
    assert 400 <= lengths.min() < 420 and 780 < lengths.max() <= 800
    starts = []
    for row, length in zip(new, lengths.tolist()):
        starts.append(int(row[0]))
        assert torch.equal(row[:length], torch.arange(starts[-1], starts[-1] + length)) and not row[length:].any()
    assert max(starts) > 250 and min(starts) == 1  # of 400 at most


def test_shift_stays_within_its_time():
    clips = torch.zeros(100, 1000)
    clips[:, 500] = 1
    new, _ = augment_waveforms(clips, torch.full((100,), 1000), AugmentConfig(shift_s=0.01), RATE, seeded(b=100))
    offset = new.argmax(dim=1) - 500
    assert offset.min() in range(-160, -139) and offset.max() in range(140, 161)


def test_band_takes_low_and_high_frequencies_from_its_share_of_clips():
    clips, lengths = noise_clips(b=200, samples=4000, length=4000)
    new, _ = augment_waveforms(clips, lengths, AugmentConfig(band_limit=0.3), RATE, seeded(b=200))
    changed = (new != clips).any(dim=1)
    assert 40 <= changed.sum() <= 80
    ratio = torch.fft.rfft(new[changed]).abs().square().mean(0) / torch.fft.rfft(clips[changed]).abs().square().mean(0)
    hz = torch.linspace(0, RATE / 2, len(ratio))
    assert ratio[hz < 50].mean() < 0.02 and ratio[hz > 7700].mean() < 0.1
    assert ratio[(hz > 600) & (hz < 1800)].mean() == pytest.approx(1, abs=0.05)


def test_reverb_keeps_the_direct_sound_and_adds_a_decaying_tail():
    clips = torch.zeros(64, 16000)
    clips[:, 0] = 1.0  # a click: the output is the room
    ones = torch.ones(64, dtype=torch.int64)
    new, lengths = augment_waveforms(clips, ones, AugmentConfig(reverb=1.0), RATE, seeded(b=64))
    assert torch.allclose(new[:, 0], torch.ones(64), atol=1e-4)
    tail = lengths - 1
    assert tail.min() >= 0.1 * RATE and 0.5 * RATE < tail.max() <= 0.6 * RATE
    energy_db = -10 * new[:, 1:].square().sum(dim=1).log10()  # direct over reverberant
    assert energy_db.min() > -0.1 and energy_db.max() < 15.1 and energy_db.std() > 2
    i = tail.argmax()
    levels = [new[i, 1:][int(a * tail[i]) : int((a + 0.2) * tail[i])].square().mean().log10().item() for a in (0, 0.4)]
    assert 10 * (levels[0] - levels[1]) == pytest.approx(24, abs=3)  # 60 dB * 0.4


def test_gain_stays_within_its_decibels():
    clips, lengths = noise_clips(b=200, samples=50, length=50)
    new, _ = augment_waveforms(clips, lengths, AugmentConfig(gain_db=6.0), RATE, seeded(b=200))
    gain_db = 20 * (new.norm(dim=1) / clips.norm(dim=1)).log10()
    assert -6.01 < gain_db.min() < -5 and 5 < gain_db.max() < 6.01


def test_noise_has_the_promised_ratio_share_and_colours():
    clips, lengths = sine(440.0, 8000, b=200, buffer=10000)
    new, _ = augment_waveforms(clips, lengths, AugmentConfig(noise=10**-0.5), RATE, seeded(b=200))
    noise = (new - clips)[:, :8000]
    noisy = noise.any(dim=1)
    assert 120 <= noisy.sum() <= 160  # 70 % of 200
    snr_db = 20 * (clips[noisy].norm(dim=1) / noise[noisy].norm(dim=1)).log10()
    assert 9.9 < snr_db.min() < 11.5 and 38.5 < snr_db.max() < 40.1
    power = torch.fft.rfft(noise[noisy]).abs().square()  # 2 Hz per bin
    slope_db = 10 * (power[:, 2000:4000].mean(dim=1) / power[:, 50:100].mean(dim=1)).log10()
    assert slope_db.max() > -6 and -36 < slope_db.min() < -25  # white .. brown (-6 dB an octave)


def test_mixup_mixes_by_the_ratio():
    clips, lengths = torch.stack([sine(100.0 * (i + 1), 8000)[0][0] for i in range(6)]), torch.full((6,), 8000)
    ratios = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    mixed = mixup_waveforms(clips + 0.3, lengths, clips.roll(1, 0) - 0.2, lengths, ratios)
    shares = mixed @ clips.T / (clips * clips).sum(dim=1)  # amplitude of each sine: orthogonal
    assert torch.allclose(shares, torch.diag(ratios) + torch.diag(1 - ratios).roll(-1, 1), atol=1e-3)
    assert mixed.mean(dim=1).abs().max() < 1e-6


def test_mixup_cuts_and_pads_the_second_clip_to_the_first():
    clips = torch.randn(2, 400, generator=generator(1))
    clips[0, 100:] = 0
    lengths = torch.tensor([100, 400])
    mixed = mixup_waveforms(clips, lengths, clips.flip(0), lengths.flip(0), torch.full((2,), 0.5))
    assert not mixed[0, 100:].any() and mixed[1, 300:].any()
    assert mixed[0, :100].mean().abs() < 1e-6


def test_tempo_stretches_valid_frames_and_keeps_the_mel_axis():
    profile = torch.randn(128, generator=generator(3))
    features = torch.full((100, 60, 128), 9.0)  # 9: what tempo must not drag in
    features[:, :40] = torch.arange(40.0)[:, None] + profile
    new, frames = warp_features(
        features, torch.full((100,), 40), AugmentConfig(tempo=0.25), FrontendConfig(), seeded(b=100)
    )
    assert 32 <= frames.min() < 36 and 46 < frames.max() <= 50
    for clip, n in zip(new, frames, strict=True):
        assert not clip[n:].any()
        ramp = (clip[:n] - profile).mean(dim=1)
        assert torch.allclose(clip[:n], ramp[:, None] + profile, atol=1e-4)  # every mel at its place
        assert ramp[0].abs() < 1e-4 and ramp[-1] == pytest.approx(39, abs=1.3)  # the whole clip, a little slower
        steps = ramp[1:-1].diff()
        assert steps.max() - steps.min() < 1e-3
    cut, frames = warp_features(
        features[:, :40], torch.full((100,), 40), AugmentConfig(tempo=0.25), FrontendConfig(), seeded(b=100)
    )
    assert cut.shape == (100, 40, 128) and frames.max() == 40


def test_warp_moves_a_peak_by_the_factor_in_hertz():
    frontend = FrontendConfig()
    low, high = 1127 * math.log1p(20 / 700), 1127 * math.log1p(8000 / 700)
    mels = low + (high - low) / 129 * torch.arange(1, 129)
    hz = 700 * torch.expm1(mels / 1127)
    features = torch.exp(-((torch.arange(128) - 60.0) ** 2) / 18).expand(50, 5, 128).contiguous()  # a peak at filter 60
    new, frames = warp_features(features, torch.full((50,), 5), AugmentConfig(freq_warp=0.3), frontend, seeded(b=50))
    factor = augment._log_uniform(seeded(b=50).uniform(2, features)[:, 1], 0.3)
    where = hz[new[:, 0].argmax(dim=1)]
    assert factor.min() < 0.8 and factor.max() > 1.2 and frames.tolist() == [5] * 50
    assert ((where / (factor * hz[60])).log().abs() < 0.04).all()  # half a filter's width is 3 %


def test_masks_are_single_runs_of_zeros_within_their_width():
    features = torch.ones(500, 64, 128)
    for config, dim, widest in ((AugmentConfig(freq_mask=24), 2, 24), (AugmentConfig(time_mask=20), 1, 20)):
        hit = mask_features(features, config, seeded(b=500)) == 0
        assert torch.equal(hit.any(dim=3 - dim), hit.all(dim=3 - dim))  # whole rows or columns
        line = hit.all(dim=3 - dim).int()  # (500, size)
        width = line.sum(dim=1)
        edges = (torch.nn.functional.pad(line, (1, 1)).diff(dim=1) == 1).sum(dim=1)
        assert edges.max() == 1 and width.min() == 0 and width.max() == widest - 1
        assert width.float().mean() == pytest.approx((widest - 1) / 2, rel=0.1)
        assert line[:, 0].any() and line[:, -3:].any() and not line[:, -1].any()  # as torchaudio's: never the last
    everything = mask_features(torch.ones(20, 4, 4), AugmentConfig(freq_mask=99, time_mask=99), seeded(b=20))
    assert everything.shape == (20, 4, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_clips():
    clips, lengths = noise_clips()
    here, lengths_here = augment_waveforms(clips, lengths, EVERYTHING, RATE, seeded())
    there, lengths_there = augment_waveforms(clips.cuda(), lengths.cuda(), EVERYTHING, RATE, seeded())
    assert torch.equal(lengths_here, lengths_there.cpu())
    assert torch.allclose(here, there.cpu(), atol=1e-4)  # different Fourier transforms


def test_equalise_adds_one_smooth_curve_to_all_frames():
    features = torch.randn(4, 10, 64, generator=generator())
    changed = augment.equalise_features(features, AugmentConfig(eq_db=8.0), seeded(1, 4)) - features
    assert torch.allclose(changed, changed[:, :1].expand_as(changed), atol=1e-5)
    decibels = changed[:, 0] * 10 / math.log(10)
    assert 2 < decibels.abs().max() <= 8.0001 and not torch.allclose(decibels[0], decibels[1])
    assert decibels.diff(dim=1).abs().max() <= 16 / (63 / 4) + 1e-4  # from one extreme to the other between two points
    assert augment.equalise_features(features, AugmentConfig(), seeded(b=4)) is features

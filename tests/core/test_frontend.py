"""The frontend against recorded features, against torchaudio's Kaldi filter banks, and at its edges."""

import statistics
import time

import numpy as np
import pytest
import torch
from baselines import import_torchaudio

from aumcli.config import FrontendConfig
from aumcli.core.frontend import ENERGY_FLOOR, LogMel, build_frontend

kaldi = import_torchaudio("compliance.kaldi")

TOLERANCE, MEAN_TOLERANCE = 1e-3, 5e-5  # of log energy
ROUNDING = 2.0**-24  # of float32, relative
FLOOR = float(np.log(np.float32(ENERGY_FLOOR)))


def _kaldi(waveform: torch.Tensor, rate: int = 16000, n_mels: int = 128) -> torch.Tensor:
    """The published call: waveform (1, samples), mean removed -> (frames, mels)."""
    return kaldi.fbank(
        waveform - waveform.mean(),
        htk_compat=True,
        sample_frequency=rate,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=n_mels,
        dither=0.0,
        frame_shift=10,
    )


def _excess(difference: torch.Tensor, log_energies: torch.Tensor) -> torch.Tensor:
    """Difference of log energies (t, mels) as a share of what float32 allows, in units of TOLERANCE.

    An FFT rounds relative to the frame's strongest bin: in a bin 1e-11 of its energy one rounding is 4e-2 of the log
    energy. How it falls depends on the processor: torchaudio's own features of a recorded chirp differ by 1e-2 between
    two.
    """
    strongest = log_energies.amax(1, keepdim=True)  # (t, 1)
    allowed = TOLERANCE + 2 * ROUNDING * torch.exp((strongest - log_energies) / 2)
    return difference.abs() / allowed * TOLERANCE


def _clips(seed: int, *samples: int) -> list[torch.Tensor]:
    """Tones with noise at various levels and offsets, one row each."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for i, count in enumerate(samples):
        t = torch.arange(count) / 16000
        tone = torch.sin(2 * torch.pi * (200.0 + 333.0 * i) * t) * 0.3
        noise = torch.randn(count, generator=generator) * 10.0 ** -(1 + i % 3)
        clips.append(tone + noise + 0.05 * i)
    return clips


def _padded(clips: list[torch.Tensor], junk: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.full((len(clips), int(lengths.max())), junk)
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    return batch, lengths


@pytest.mark.parametrize("name", ["chirp_1s_16k", "noise_0p3s_16k", "clip_2p7s_16k", "chirp_1s_8k", "chirp_0p5s_44k1"])
def test_recorded_features(golden, name):
    with np.load(golden / "fbank" / f"{name}.npz", allow_pickle=False) as arrays:
        recorded = {k: arrays[k] for k in arrays.files}
    config = FrontendConfig(
        sample_rate_hz=int(recorded["sample_rate"]),
        frames=int(recorded["target_length"]),
        mean=float(recorded["mean"]),
        std=float(recorded["std"]),
    )
    frontend, waveform = LogMel(config), torch.from_numpy(recorded["waveform"])
    features, want = frontend(waveform)[0], torch.from_numpy(recorded["features"])
    assert frontend.n_frames(waveform.shape[1]) == int(recorded["n_frames"])
    scale = 2 * config.std
    excess = _excess((features - want) * scale, want * scale)  # the mean cancels
    assert excess.max() <= TOLERANCE
    assert excess.mean() <= MEAN_TOLERANCE


@pytest.mark.parametrize("rate, n_mels", [(16000, 128), (16000, 64), (8000, 128), (44100, 128), (22050, 80)])
def test_energies_are_kaldis(rate, n_mels):
    config = FrontendConfig(sample_rate_hz=rate, n_mels=n_mels, frames=64)
    clip = _clips(1, rate // 2)[0]
    energies = LogMel(config).energies(clip[None])[0]
    want = _kaldi(clip[None], rate, n_mels)
    assert energies.shape == want.shape
    assert (energies - want).abs().max() <= TOLERANCE


@pytest.mark.parametrize("junk", [0.0, 0.7], ids=["zeros-behind", "junk-behind"])
def test_a_batch_of_clips_of_different_lengths(junk):
    clips = _clips(2, 16000, 400, 559, 560, 5003, 12345, 401, 15999, 7777)
    batch, lengths = _padded(clips, junk)
    config = FrontendConfig(frames=98)
    frontend = LogMel(config)
    energies, features = frontend.energies(batch, lengths), frontend(batch, lengths)
    for i, clip in enumerate(clips):
        want = _kaldi(clip[None])
        frames = len(want)
        assert frontend.n_frames(len(clip)) == frames == int(frontend.n_frames(lengths)[i])
        assert _excess(energies[i, :frames] - want, want).max() <= TOLERANCE
        log_energy = features[i] * 2 * config.std + config.mean
        assert _excess(log_energy[:frames] - want, want).max() <= TOLERANCE + 1e-5  # 1e-5: normalised and back
        assert (features[i, frames:] == features.new_tensor(-config.mean / (2 * config.std))).all()


def test_a_batch_equals_its_clips_one_by_one():
    clips = _clips(3, *range(900, 12000, 619))  # 18 clips: more than one pass
    batch, lengths = _padded(clips)
    frontend = LogMel(FrontendConfig(frames=80))
    together = frontend(batch, lengths)
    for i, clip in enumerate(clips):
        alone, scale = frontend(clip[None])[0], 2 * frontend.config.std  # the mean is summed over another length
        assert _excess((together[i] - alone) * scale, alone * scale).max() <= TOLERANCE
    assert torch.equal(together, frontend(batch, lengths))


def test_rounding_is_less_than_kaldis():
    """Both against float64, as a share of the frame's strongest bin: what an FFT's rounding is relative to."""
    frontend, ours, theirs = LogMel(FrontendConfig()), [], []
    for clip in _clips(12, 16000, 12345, 9000, 7777, 5003, 16000):
        truth = LogMel(FrontendConfig()).double().energies(clip[None].double())[0]
        share = torch.exp((truth - truth.amax(1, keepdim=True)) / 2)
        ours.append((frontend.energies(clip[None])[0] - truth) * share)
        theirs.append((_kaldi(clip[None]) - truth) * share)
    (mean, most), (kaldis_mean, kaldis_most) = (
        (x.square().mean().sqrt(), x.abs().max()) for x in (torch.cat(ours), torch.cat(theirs))
    )
    assert mean <= kaldis_mean and most <= kaldis_most
    assert most < 16 * ROUNDING


@pytest.mark.parametrize("samples", [1, 2, 100, 399])
def test_a_clip_shorter_than_a_window_gives_one_frame(samples):
    clip = _clips(4, samples)[0]
    frontend = LogMel(FrontendConfig(frames=16))
    assert frontend.n_frames(samples) == 1
    energies = frontend.energies(clip[None])
    assert energies.shape == (1, 1, 128) and energies.isfinite().all()
    # beside longer clips too: silence (after the mean is removed) fills the window
    batch, lengths = _padded([clip, _clips(5, 4000)[0]], junk=0.5)
    torch.testing.assert_close(frontend.energies(batch, lengths)[0, 0], energies[0, 0], rtol=0, atol=TOLERANCE)
    if samples == 1:
        assert torch.allclose(energies, torch.tensor(FLOOR))  # one sample minus its mean is nothing
    features = frontend(clip[None])
    assert features.shape == (1, 16, 128) and features.isfinite().all()
    assert (features[0, 1:] == features[0, 1, 0]).all()


def test_no_sample_at_all_gives_finite_features():
    frontend = LogMel(FrontendConfig(frames=16))
    features = frontend(torch.rand(2, 1000), torch.tensor([0, 1000]))
    assert features.shape == (2, 16, 128) and features.isfinite().all()


@pytest.mark.parametrize("samples, frames", [(400, 1), (559, 1), (560, 2), (16000, 98), (16240, 100)])
def test_frames_of_a_clip(samples, frames):
    frontend = LogMel(FrontendConfig())
    assert frontend.n_frames(samples) == frames
    assert frontend.n_frames(torch.tensor([samples])).tolist() == [frames]
    assert FrontendConfig(frames=frames).clip_samples <= samples


def test_padding_is_zero_before_normalisation():
    # semantics 28: +0.467 for AudioSet's values, +0.570 for VGGSound's; digital silence is far below
    for values, padding in (({}, 0.467), ({"mean": -5.0767093, "std": 4.4533687}, 0.570)):
        features = LogMel(FrontendConfig(frames=128, **values))(_clips(6, 16000)[0][None])
        assert features[0, 98:].unique().item() == pytest.approx(padding, abs=5e-4)
    assert LogMel(FrontendConfig(frames=128))(torch.zeros(1, 16000))[0, 0, 0].item() == pytest.approx(-1.278, abs=5e-4)


def test_a_long_clip_is_cut_at_its_end():
    clip = _clips(7, 32000)[0][None]
    short, long = (LogMel(FrontendConfig(frames=frames)) for frames in (64, 198))
    assert short(clip).shape == (1, 64, 128)
    torch.testing.assert_close(short(clip), long(clip)[:, :64])


def test_normalisation_halves_twice():
    config = FrontendConfig(mean=-6.845978, std=5.5654526, frames=98)
    frontend, clip = LogMel(config), _clips(8, 16000)[0][None]
    energies = frontend.energies(clip)
    torch.testing.assert_close(frontend(clip), (energies + 6.845978) / (2 * 5.5654526), rtol=1e-6, atol=1e-6)
    assert torch.equal(frontend.normalise(energies), frontend(clip))


@pytest.mark.parametrize("rate, empty", [(16000, [3]), (8000, [4, 7, 12, 17])])
def test_empty_filters_stay_at_the_floor(rate, empty):
    # semantics 29
    energies = LogMel(FrontendConfig(sample_rate_hz=rate)).energies(torch.randn(1, rate) / 4)[0]
    constant = (energies - FLOOR).abs().amax(0) < 1e-5
    assert constant.nonzero()[:, 0].tolist() == empty


def test_the_result_does_not_depend_on_an_offset():
    frontend, clip = LogMel(FrontendConfig(frames=98)), torch.randn(1, 16000) / 8
    torch.testing.assert_close(frontend(clip + 0.25), frontend(clip), rtol=0, atol=1e-3)


def test_input_is_left_alone():
    batch, lengths = _padded(_clips(9, 16000, 5000))
    before = batch.clone()
    LogMel(FrontendConfig(frames=98))(batch, lengths)
    assert torch.equal(batch, before)


def _seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_a_batch_is_five_times_as_fast_as_kaldi(record_property):
    clips = torch.stack(_clips(10, *[16000] * 64))
    frontend = LogMel(FrontendConfig(frames=98))
    ours, theirs = [], []
    with torch.no_grad():
        # Interleaved, so that both meet the same neighbours; medians, so that a few stalls don't count; one try,
        # because the best of several would count the stalls of the slower side. The first repeat is a warm-up.
        for _ in range(10):
            theirs.append(_seconds(lambda: [_kaldi(clip[None]) for clip in clips]))
            ours.append(_seconds(lambda: frontend(clips)))
    theirs_s, ours_s = statistics.median(theirs[1:]), statistics.median(ours[1:])
    record_property("times_as_fast_as_kaldi", theirs_s / ours_s)
    assert theirs_s / ours_s >= 5, (
        f"{1e3 * theirs_s:.1f} ms for kaldi.fbank, {1e3 * ours_s:.1f} ms for LogMel, 64 s of sound"
    )


# the EPIC-SOUNDS frontend

EPIC = FrontendConfig(
    kind="epic_sounds", sample_rate_hz=24000, window_ms=10.0, hop_ms=5.0, fft_size=2048, low_hz=0.0, mean=0.0, std=0.5
)


def _recorded_epic(golden) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = []
    for path in sorted((golden / "fbank").glob("epic_*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            pairs.append((torch.from_numpy(arrays["waveform"]), torch.from_numpy(arrays["features"])))
    return pairs


def test_epic_sounds_recorded_features(golden):
    pairs, frontend = _recorded_epic(golden), build_frontend(EPIC)
    assert len(pairs) >= 2
    for waveform, want in pairs:
        assert (frontend(waveform[None])[0] - want).abs().max() <= TOLERANCE
    batch, lengths = _padded([waveform for waveform, _ in pairs], junk=0.7)
    assert (frontend(batch, lengths) - torch.stack([want for _, want in pairs])).abs().max() <= TOLERANCE


def test_epic_sounds_batch_equals_its_clips_one_by_one():
    clips = _clips(3, 1, 60, 119, 120, 121, *range(900, 30000, 2619))  # more than one pass
    batch, lengths = _padded(clips, junk=0.5)
    frontend = build_frontend(EPIC.model_copy(update={"frames": 96}))
    together = frontend(batch, lengths)
    assert together.shape == (len(clips), 96, 128)
    for i, clip in enumerate(clips):
        frames = 1 + len(clip) // 120
        assert frontend.n_frames(len(clip)) == frames == int(frontend.n_frames(lengths)[i])
        assert (together[i] - frontend(clip[None])[0]).abs().max() <= TOLERANCE
        assert (together[i, min(frames, 96) - 1 :] == together[i, min(frames, 96) - 1]).all()  # the last frame fills up
    apart = frontend.fit(frontend.energies(batch, lengths), frontend.n_frames(lengths))  # as in training
    torch.testing.assert_close(frontend.normalise(apart), together)


@pytest.mark.parametrize("frames", [1, 2, 96, 1024])
def test_epic_sounds_clip_samples_are_what_all_frames_see(frames):
    """The first frames of a longer clip, as published.

    The last of them sees samples behind its centre, and none is wanted more.
    """
    config = EPIC.model_copy(update={"frames": frames})
    frontend, clip = build_frontend(config), torch.randn(1, 130_000, generator=torch.Generator().manual_seed(0))
    whole = frontend.energies(clip)[:, :frames]
    assert (frontend(clip[:, : config.clip_samples]) - whole).abs().max() <= TOLERANCE
    assert (frontend(clip[:, : config.clip_samples - 60]) - whole).abs().max() > 10 * TOLERANCE


def test_epic_sounds_silence_is_the_logarithm_of_the_offset():
    features = build_frontend(EPIC)(torch.zeros(1, 5000))
    assert torch.allclose(features, torch.tensor(float(np.log(1e-6))))  # not normalised


@pytest.mark.parametrize("fft_size", [255, 128])
def test_an_fft_that_does_not_hold_the_window(fft_size):
    with pytest.raises(ValueError, match="fft_size"):
        FrontendConfig(kind="epic_sounds", fft_size=fft_size)


@pytest.mark.parametrize("kind", ["kaldi", "epic_sounds"])
def test_a_clips_level_is_removed_over_its_own_frames(kind):
    config = FrontendConfig(kind=kind, frames=64, n_mels=32, remove_level=True, mean=0.0, std=0.5)
    plain = build_frontend(config.model_copy(update={"remove_level": False}))
    clips, lengths = _padded(_clips(1, 16000, 5000, 9000), junk=0.3)
    features = build_frontend(config)(clips, lengths)
    for row, frames in enumerate(plain.n_frames(lengths).clamp(max=64).tolist()):
        own = plain(clips[row : row + 1], lengths[row : row + 1])[0, :frames]
        torch.testing.assert_close(features[row, :frames], own - own.mean(), rtol=1e-4, atol=1e-4)
        beyond = features[row, frames - 1] if kind == "epic_sounds" else torch.zeros(32)
        assert (features[row, frames:] == beyond).all()


def test_without_its_level_a_clip_is_as_loud_as_another():
    config = FrontendConfig(frames=64, n_mels=32, remove_level=True)
    clips, lengths = _padded(_clips(2, 16000, 7000))
    frontend = build_frontend(config)
    torch.testing.assert_close(frontend(clips * 0.1, lengths), frontend(clips, lengths), rtol=1e-3, atol=1e-3)


def test_energies_and_features_remove_the_same_level():
    config = FrontendConfig(frames=64, n_mels=32, remove_level=True)
    clips, lengths = _padded(_clips(3, 8000, 6000))
    frontend = build_frontend(config)
    fitted = frontend.fit(frontend.energies(clips, lengths), frontend.n_frames(lengths))
    torch.testing.assert_close(frontend.normalise(fitted), frontend(clips, lengths), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rate_hz, low_hz, high_hz", [(16000, 300.0, 3400.0), (48000, 2000.0, 20000.0)])
def test_a_band_is_kaldi_s(rate_hz, low_hz, high_hz):
    config = FrontendConfig(sample_rate_hz=rate_hz, n_mels=40, low_hz=low_hz, high_hz=high_hz)
    [clip] = _clips(3, rate_hz)
    wanted = kaldi.fbank(
        (clip - clip.mean())[None],
        htk_compat=True,
        sample_frequency=rate_hz,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=40,
        low_freq=low_hz,
        high_freq=high_hz,
        dither=0.0,
    )
    energies = LogMel(config).energies((clip - clip.mean())[None])[0]
    assert _excess(energies - wanted, wanted).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["kaldi", "epic_sounds"])
@pytest.mark.parametrize("tone_hz", [200.0, 7000.0])
def test_the_filters_are_a_band_pass(kind, tone_hz):
    """A tone an octave outside of the band is at least 80 dB below one inside."""
    logmel = build_frontend(FrontendConfig(kind=kind, n_mels=32, low_hz=1000.0, high_hz=3000.0))
    t = torch.arange(16000, dtype=torch.float64) / 16000
    inside, outside = (
        logmel.energies(torch.sin(2 * torch.pi * hz * t)[None].float())[0, 2:-2].amax(1) for hz in (1700.0, tone_hz)
    )
    decibels = (10 if kind == "kaldi" else 20) / np.log(10) * (inside - outside)  # of energies, of magnitudes
    assert decibels.min() > 80

"""What training does to a batch of clips before the model sees it: batched tensor operations, on any device.

Every random number comes from the `ClipRandom` that is passed in, in an order that does not depend on the
configuration: switching one augmentation on leaves the random choices of the others as they were. Numbers are drawn on
the CPU and moved to the tensors' device, so a GPU gets the same clips.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aumcli.config import AugmentConfig, FrontendConfig
from aumcli.core.frontend import mel

LOW_HZ = 20.0  # no noise below: inaudible, and brown noise would have all its power there
HIGH_PASS_HZ = (100.0, 400.0)  # range of the lower edge of a telephone or a small loudspeaker
LOW_PASS = (0.3, 0.9)  # range of its upper edge, as a part of the Nyquist frequency
RT60_S = (0.1, 0.6)  # range of the time in which a room's sound decays by 60 dB
DIRECT_DB = (0.0, 15.0)  # range of the energy of the direct sound over that of the room
SNR_SPAN_DB = 30.0  # from the strongest noise to the weakest
EQ_POINTS = 5  # of a random frequency response: smooth enough for a microphone's
NOISY = 0.7  # share of clips that get noise
SETTLE_S = 0.05  # room for the filters' ringing, so that the Fourier transform's wrap-around is silent
BACKGROUND_SLOPE = (-0.5, 1.25)  # of noise of no class: amplitude f^0.5 (blue) to f^-1.25, below brown
BACKGROUND_DB = (-80.0, -5.0)  # range of its level below full scale
UNSTEADY, ENVELOPE_POINTS = 0.5, 8  # share of it whose level changes, through so many random levels
SILENT = 0.1  # share of it that is digital silence
OVERSAMPLING = 2  # of a clip that is resampled, so that a short polynomial can interpolate it
_DRAWS = (
    "speed",
    "shift",
    "band",
    "high_pass",
    "low_pass",
    "reverb",
    "rt60",
    "direct",
    "gain",
    "noise",
    "snr",
    "slope",
)


class ClipRandom:
    """Random numbers for clips of a batch.

    A clip's depend on the seed and on its row, not on the clips computed beside it. So a batch
    that is cut into parts, computed one after the other or by several processes, is augmented as if it were whole.

    Args:
        seed: of the batch.
        rows: places of the clips in the batch, b of them.
        size: rows of the batch.
    """

    def __init__(self, seed: int, rows: Sequence[int], size: int):
        self._generator = torch.Generator().manual_seed(seed)
        self._rows, self._size = torch.as_tensor(rows, dtype=torch.int64), size

    def uniform(self, count: int, like: Tensor) -> Tensor:
        """Draw `count` numbers in [0, 1) for each clip: (b, count) float32 on the device of `like`."""
        return torch.rand(self._size, count, generator=self._generator)[self._rows].to(like.device)

    def seeds(self) -> Tensor:
        """Draw a seed for each clip, (b,) int64, for `normal` or `noise`."""
        return torch.randint(2**62, (self._size,), generator=self._generator)[self._rows]


def normal(seeds: Tensor, *shape: int) -> Tensor:
    """Draw standard normal numbers, (b, *shape) float32, those of each clip from its own seed."""
    return _from_seeds(torch.randn, seeds, shape)


def noise(seeds: Tensor, *shape: int) -> Tensor:
    """Draw uniform numbers in [0, 1), (b, *shape) float32, those of each clip from its own seed."""
    return _from_seeds(torch.rand, seeds, shape)


def _from_seeds(draw: Callable[..., Tensor], seeds: Tensor, shape: tuple[int, ...]) -> Tensor:
    drawn, generator = torch.empty(len(seeds), *shape), torch.Generator()
    for row, seed in zip(drawn, seeds.tolist()):
        draw(shape, generator=generator.manual_seed(seed), out=row)
    return drawn


def augment_waveforms(
    waveforms: Tensor, lengths: Tensor, config: AugmentConfig, sample_rate_hz: int, random: ClipRandom
) -> tuple[Tensor, Tensor]:
    """Change clips at random: speed, crop, shift, band, reverb, gain, noise, in this order.

    The buffer keeps its size: a clip that grows (slower, later, reverberant) is cut where the buffer ends. Everything
    beyond a clip's new length is zero. The shift comes before room and noise, so that the silence it puts in front of a
    clip is that of the recording rather than digital zeros, wherever the clip gets noise.

    Args:
        waveforms: clips with zeros after their end, (b, samples) float32; not written to.
        lengths: samples of each clip, (b,) int64.
        config: what to do; a zero switches a thing off.
        sample_rate_hz: of the clips.
        random: the only source of chance.

    Returns:
        The changed clips, (b, samples) float32, and their lengths, (b,) int64.
    """
    table = random.uniform(len(_DRAWS), waveforms)
    chance = dict(zip(_DRAWS, table.unbind(1), strict=True))  # each (b,), in [0, 1)
    rooms, noises = random.seeds(), random.seeds()
    part, place = random.uniform(2, waveforms).unbind(1)  # last: what a seed gave without crops stays as it was
    if config.speed:
        waveforms, lengths = _change_speed(waveforms, lengths, _log_uniform(chance["speed"], config.speed))
    if config.crop:
        waveforms, lengths = _crop(waveforms, lengths, 1 - config.crop * part, place)
    if config.shift_s:
        offset = (2 * chance["shift"] - 1) * config.shift_s * sample_rate_hz
        waveforms, lengths = _shift(waveforms, lengths, offset.round().long())
    if config.band_limit:
        waveforms = _limit_band(waveforms, lengths, chance, config.band_limit, sample_rate_hz)
    if config.reverb:
        waveforms, lengths = _reverberate(waveforms, lengths, chance, config.reverb, sample_rate_hz, rooms)
    if config.gain_db:
        waveforms = waveforms * 10 ** ((2 * chance["gain"] - 1) * config.gain_db / 20)[:, None]
    if config.noise:
        waveforms = _add_noise(waveforms, lengths, chance, -20 * math.log10(config.noise), sample_rate_hz, noises)
    return waveforms, lengths


def replace_by_background(
    waveforms: Tensor, lengths: Tensor, targets: Tensor, share: float, sample_rate_hz: int, random: ClipRandom
) -> tuple[Tensor, Tensor]:
    """Replace a share of the clips by what is of no class: coloured noise, steady or not, or digital silence.

    Args:
        waveforms: clips with zeros after their end, (b, samples) float32; not written to.
        lengths: samples of each clip, (b,) int64.
        targets: (b, classes) float32.
        share: of the clips.
        sample_rate_hz: of the clips.
        random: the only source of chance.

    Returns:
        The clips, and the targets, which are zero where a clip was replaced.
    """
    chance, noises, envelopes = random.uniform(4, waveforms), random.seeds(), random.seeds()  # (b, 4), (b,), (b,)
    chosen = (chance[:, 0] < share).nonzero()[:, 0]
    if not len(chosen):
        return waveforms, targets
    kind, level, slope = chance[chosen, 1:].unbind(1)
    sound = _coloured_noise(noises[chosen.cpu()], _between(slope, *BACKGROUND_SLOPE), waveforms, sample_rate_hz)
    points = noise(envelopes[chosen.cpu()], 1, ENVELOPE_POINTS).to(waveforms).square()
    envelope = torch.nn.functional.interpolate(points, sound.shape[1], mode="linear", align_corners=True)[:, 0]
    sound = torch.where((kind < UNSTEADY)[:, None], sound * envelope, sound)
    gain = 10 ** (_between(level, *BACKGROUND_DB) / 20) * (kind < 1 - SILENT)  # (chosen,)
    sound = sound * (gain / sound.square().mean(1).sqrt().clamp(min=1e-12))[:, None]
    waveforms = waveforms.index_copy(0, chosen, silence_after_(sound, lengths[chosen]))
    return waveforms, targets.index_fill(0, chosen, 0.0)


def mixup_waveforms(
    waveforms: Tensor, lengths: Tensor, partners: Tensor, partner_lengths: Tensor, ratios: Tensor
) -> Tensor:
    """Mix clips with others: the share `ratio` of a clip and 1 - ratio of its partner.

    Both lose their mean, the partner is padded or cut to the clip's length, and the mixture loses its mean again.

    Args:
        waveforms: clips with zeros after their end, (b, samples) float32; not written to.
        lengths: samples of each clip, (b,) int64.
        partners: what each is mixed with, likewise.
        partner_lengths: (b,) int64.
        ratios: (b,) float32 in 0..1.

    Returns:
        The mixtures, (b, samples), each as long as its clip.

    Source: dataloader.py, _wav2fbank and __getitem__, in the authors' code; Tokozume et al. 2018.
    """
    first, second = _remove_mean(waveforms, lengths), _remove_mean(partners, partner_lengths)
    return _remove_mean(torch.lerp(second, first, ratios[:, None].to(first.dtype)), lengths)  # cuts the second


def lay_into_noise(
    waveforms: Tensor, lengths: Tensor, noises: Tensor, noise_lengths: Tensor, snr_db: Tensor, place: Tensor
) -> tuple[Tensor, Tensor]:
    """Lay clips somewhere into longer recordings of something else; into shorter ones from their beginning.

    Args:
        waveforms: clips with zeros after their end, (b, samples) float32; not written to.
        lengths: samples of each clip, (b,) int64.
        noises: what each is laid into, likewise.
        noise_lengths: (b,) int64.
        snr_db: by how much the clip's RMS exceeds the noise's, (b,) float32.
        place: in [0, 1), (b,): which of the places where the clip fits.

    Returns:
        The mixtures, (b, samples), and their lengths: those of the longer of the two.
    """
    offset = ((noise_lengths - lengths).clamp(min=0) * place).long()
    index = torch.arange(waveforms.shape[1], device=waveforms.device) - offset[:, None]
    laid = waveforms.gather(1, index.clamp(min=0)).masked_fill(index < 0, 0.0)
    power, noise_power = (
        x.square().sum(1) / n.clamp(min=1) for x, n in ((waveforms, lengths), (noises, noise_lengths))
    )
    gain = 10 ** (-snr_db / 20) * (power / noise_power.clamp(min=1e-12)).sqrt()
    return laid + gain[:, None] * noises, torch.maximum(lengths, noise_lengths)


def warp_features(
    features: Tensor, n_frames: Tensor, config: AugmentConfig, frontend: FrontendConfig, random: ClipRandom
) -> tuple[Tensor, Tensor]:
    """Stretch clips in time, keeping their pitch (tempo), and scale frequencies, keeping their tempo (freq_warp).

    Both interpolate linearly. A clip made longer than the array is cut at its end; frames after a changed clip's end
    are zero. A peak at f Hz moves to factor * f; where that asks for mels beyond the array, the outermost one is taken.

    Args:
        features: raw log energies, before padding and normalisation, (b, frames, mels) float32; not written to.
        n_frames: valid frames of each clip, (b,) int64.
        config: tempo and freq_warp are read.
        frontend: says where the mel filters lie.
        random: the only source of chance.

    Returns:
        The changed features, (b, frames, mels), and their valid frames, (b,) int64.
    """
    frames, mels = features.shape[1:]
    device = features.device
    chance = random.uniform(2, features)  # (b, 2)
    if config.tempo:
        factor = _log_uniform(chance[:, 0], config.tempo)
        stretched = (n_frames / factor).round().long().clamp(1, frames)
        index = torch.arange(frames, device=device)
        last = (n_frames - 1).clamp(min=0)[:, None]
        features = _interpolate(features, torch.minimum(index * factor[:, None], last), dim=1)
        n_frames = torch.where(n_frames > 0, stretched, n_frames)
        features = features.masked_fill((index >= n_frames[:, None])[..., None], 0.0)
    if config.freq_warp:
        factor = _log_uniform(chance[:, 1], config.freq_warp)[:, None]  # (b, 1)
        low, high = map(mel, frontend.band_hz)
        step = (high - low) / (mels + 1)
        centre_hz = 700 * torch.expm1((low + step * torch.arange(1, mels + 1, device=device)) / 1127)
        source = (1127 * torch.log1p(centre_hz / factor / 700) - low) / step - 1  # (b, mels), in filters
        features = _interpolate(features, source.clamp(0, mels - 1), dim=2)
    return features, n_frames


def equalise_features(features: Tensor, config: AugmentConfig, random: ClipRandom) -> Tensor:
    """Give every clip a frequency response: a curve through EQ_POINTS random levels, equally spaced along the mels.

    Args:
        features: raw log energies, (b, frames, mels) float32; not written to.
        config: eq_db is read.
        random: the only source of chance.

    Returns:
        The changed features, (b, frames, mels).
    """
    chance = random.uniform(EQ_POINTS, features)[:, None]  # (b, 1, EQ_POINTS)
    if not config.eq_db:
        return features
    levels = (2 * chance - 1) * (config.eq_db * math.log(10) / 10)  # dB to natural log of energy
    curve = torch.nn.functional.interpolate(levels, features.shape[2], mode="linear", align_corners=True)
    return features + curve  # (b, 1, mels) on all frames


def _change_speed(waveforms: Tensor, lengths: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Resample each clip to 1 / factor of its length: pitch, formants and tempo change together.

    Oversampled by a Fourier transform, which also removes what would alias; a third-order Lagrange polynomial reads
    between the samples: at 16 kHz a sine of 1, 3, 5 kHz comes out with an error of -82, -54, -37 dB.
    """
    samples, device = waveforms.shape[1], waveforms.device
    size = _fft_size(samples + 64)
    spectrum = torch.fft.rfft(torch.nn.functional.pad(waveforms, (1, 0)), size)  # (b, size // 2 + 1)
    frequency = torch.linspace(0, 1, spectrum.shape[1], device=device)  # as a part of Nyquist
    spectrum *= ((1 - frequency * factor[:, None]) / 0.05).clamp_(0, 1).mul_(OVERSAMPLING)  # what fits afterwards
    dense = torch.fft.irfft(spectrum, OVERSAMPLING * size)  # (b, OVERSAMPLING size)
    # fixed point: float32 could not tell neighbouring samples of a long clip apart, and not every device has float64
    step = (OVERSAMPLING * 2**24 * factor).round().long()[:, None]  # (b, 1)
    position = torch.arange(samples, device=device) * step  # (b, samples)
    whole = (position >> 24).clamp_(max=OVERSAMPLING * samples)  # beyond: silenced below
    part = position.bitwise_and_(2**24 - 1).to(waveforms.dtype).div_(2**24)  # [0, 1) after `whole`
    before, here, after, later = (dense[:, OVERSAMPLING + tap :].gather(1, whole) for tap in (-1, 0, 1, 2))
    cubic = (later - before).div_(3).add_(here).sub_(after).div_(2)  # in place: half the time
    square = (before + after).div_(2).sub_(here)
    linear = after.sub_(here).sub_(square).sub_(cubic)
    result = cubic.mul_(part).add_(square).mul_(part).add_(linear).mul_(part).add_(here)
    changed = torch.where(lengths > 0, (lengths / factor).round().long().clamp(1, samples), lengths)
    return silence_after_(result, changed), changed


def _crop(waveforms: Tensor, lengths: Tensor, kept: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Keep a part of each clip, its share `kept` in (0, 1], from `place` in [0, 1) of what can be left out."""
    samples = waveforms.shape[1]
    size = torch.minimum((lengths * kept).ceil().long(), lengths)
    first = ((lengths - size + 1) * place).long()[:, None]
    index = (torch.arange(samples, device=waveforms.device) + first).clamp_(max=samples - 1)
    return silence_after_(waveforms.gather(1, index), size), size


def _shift(waveforms: Tensor, lengths: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Place clips `offset` samples later (zeros in front) or earlier (their beginning cut), by half a clip at most."""
    samples = waveforms.shape[1]
    offset = offset.clamp(-(lengths // 2), lengths // 2)
    index = torch.arange(samples, device=waveforms.device) - offset[:, None]  # (b, samples)
    moved = waveforms.gather(1, index.clamp(0, samples - 1)).masked_fill_(index < 0, 0.0)
    lengths = (lengths + offset).clamp(max=samples)
    return silence_after_(moved, lengths), lengths


def _limit_band(waveforms: Tensor, lengths: Tensor, chance: dict[str, Tensor], share: float, rate_hz: int) -> Tensor:
    """Filter a share of the clips by a high-pass (4th order) and a low-pass (8th order Butterworth), without delay."""
    chosen = (chance["band"] < share).nonzero()[:, 0]
    if not len(chosen):
        return waveforms
    samples, nyquist_hz = waveforms.shape[1], rate_hz / 2
    size = _fft_size(samples + int(SETTLE_S * rate_hz))
    frequency = torch.linspace(0, nyquist_hz, size // 2 + 1, device=waveforms.device)
    low = _between(chance["high_pass"][chosen], *HIGH_PASS_HZ)[:, None]
    high = _between(chance["low_pass"][chosen], *LOW_PASS)[:, None] * nyquist_hz
    ratio = (frequency / low) ** 8
    gain = (ratio / (1 + ratio) / (1 + (frequency / high) ** 16)).sqrt()  # (chosen, size // 2 + 1)
    filtered = torch.fft.irfft(torch.fft.rfft(waveforms[chosen], size) * gain, size)[:, :samples]
    return waveforms.index_copy(0, chosen, silence_after_(filtered, lengths[chosen]))


def _reverberate(
    waveforms: Tensor, lengths: Tensor, chance: dict[str, Tensor], share: float, rate_hz: int, seeds: Tensor
) -> tuple[Tensor, Tensor]:
    """Convolve a share of the clips with a room: the direct sound unchanged, then exponentially decaying noise."""
    chosen = (chance["reverb"] < share).nonzero()[:, 0]
    if not len(chosen):
        return waveforms, lengths
    samples, taps = waveforms.shape[1], int(RT60_S[1] * rate_hz) + 1
    tail_samples = _between(chance["rt60"][chosen], *RT60_S)[:, None] * rate_hz  # (chosen, 1)
    index = torch.arange(taps, device=waveforms.device)
    room = normal(seeds[chosen.cpu()], taps).to(waveforms) * torch.exp(-math.log(1000) * index / tail_samples)
    room = room * ((index > 0) & (index <= tail_samples))  # (chosen, taps)
    level = 10 ** (-_between(chance["direct"][chosen], *DIRECT_DB)[:, None] / 20)
    room = room * level / room.norm(dim=1, keepdim=True).clamp(min=1e-12)
    room[:, 0] = 1.0
    size = _fft_size(samples + taps)
    wet = torch.fft.irfft(torch.fft.rfft(waveforms[chosen], size) * torch.fft.rfft(room, size), size)[:, :samples]
    longer = lengths[chosen] + (lengths[chosen] > 0) * tail_samples[:, 0].long()
    lengths = lengths.index_copy(0, chosen, longer.clamp(max=samples))
    return waveforms.index_copy(0, chosen, silence_after_(wet, lengths[chosen])), lengths


def _add_noise(
    waveforms: Tensor, lengths: Tensor, chance: dict[str, Tensor], worst_db: float, rate_hz: int, seeds: Tensor
) -> Tensor:
    """Add noise between white and brown to most clips, over their own samples: padding stays silent.

    The padding is left alone because frames after a clip's end are written by whoever pads the features.
    """
    chosen = (chance["noise"] < NOISY).nonzero()[:, 0]
    if not len(chosen):
        return waveforms
    clips, lengths = waveforms[chosen], lengths[chosen]  # (chosen, samples)
    added = _coloured_noise(seeds[chosen.cpu()], chance["slope"][chosen], waveforms, rate_hz)  # f^0 .. f^-1
    added = silence_after_(added, lengths)
    snr_db = _between(chance["snr"][chosen], worst_db, worst_db + SNR_SPAN_DB)[:, None]
    scale = clips.norm(dim=1, keepdim=True) / added.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return waveforms.index_copy(0, chosen, torch.addcmul(clips, added, scale * 10 ** (-snr_db / 20)))


def _coloured_noise(seeds: Tensor, slopes: Tensor, like: Tensor, rate_hz: int) -> Tensor:
    """Noise whose amplitude falls with frequency as f^-slope, (b, samples of `like`), each row from its own seed."""
    size = _fft_size(like.shape[1])
    bins = size // 2 + 1
    raw = normal(seeds, bins, 2).to(like)
    frequency = torch.linspace(0, rate_hz / 2, bins, device=like.device)
    octaves = torch.log(frequency.clamp(min=LOW_HZ) / LOW_HZ)
    colour = torch.exp(-slopes[:, None] * octaves) * (frequency >= LOW_HZ)  # (b, bins)
    noise: Tensor = torch.fft.irfft(torch.view_as_complex(raw) * colour, size)[:, : like.shape[1]]
    return noise


def _interpolate(features: Tensor, position: Tensor, dim: int) -> Tensor:
    """Read (b, frames, mels) at fractional indices `position` (b, size of dim) along dim 1 or 2, linearly."""
    low = position.long()
    high = (low + 1).clamp(max=features.shape[dim] - 1)
    part = (position - low).to(features.dtype).unsqueeze(3 - dim)
    if dim == 1:  # whole rows: quicker than gather
        clip = torch.arange(len(features), device=features.device)[:, None]
        return torch.lerp(features[clip, low], features[clip, high], part)
    low, high = (each.unsqueeze(1).expand_as(features) for each in (low, high))
    return torch.lerp(features.gather(2, low), features.gather(2, high), part)


def _remove_mean(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Subtract each clip's mean over its own samples, and silence what comes after them."""
    own = silence_after_(waveforms.clone(), lengths)
    return silence_after_(own.sub_(own.sum(dim=1, keepdim=True) / lengths.clamp(min=1)[:, None]), lengths)


def silence_after_(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Write zeros after each clip's end, in place."""
    return waveforms.masked_fill_(torch.arange(waveforms.shape[1], device=waveforms.device) >= lengths[:, None], 0.0)


def _log_uniform(chance: Tensor, extent: float) -> Tensor:
    """[0, 1) -> a factor in [1 / (1 + extent), 1 + extent), log-uniform."""
    return torch.exp((2 * chance - 1) * math.log1p(extent))


def _between(chance: Tensor, low: float, high: float) -> Tensor:
    """[0, 1) -> [low, high)."""
    return low + (high - low) * chance


def _fft_size(samples: int) -> int:
    """The next even size that is quick to transform."""
    from scipy.fft import next_fast_len

    return 2 * int(next_fast_len((samples + 1) // 2, real=True))

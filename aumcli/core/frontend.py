"""Waveform -> log-mel spectrogram as Kaldi or as the EPIC-SOUNDS pipeline computes it, batched and on any device.

Source: the options that the published pipeline gives to `torchaudio.compliance.kaldi.fbank` (htk_compat, Hann
window, no dither, 128 mels, 10 ms shift), and its order: features, padding or cutting, then normalisation. For
EPIC-SOUNDS those that it gives to `librosa.stft` and `librosa.filters.mel` (audio_loader_epicsounds.py).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aumcli.config import FrontendConfig
from aumcli.core.kernels import log_mel, windowed_frames

PRE_EMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # float32's epsilon: Kaldi's floor before the logarithm
LOG_OFFSET = 1e-6  # added to EPIC-SOUNDS' magnitudes before the logarithm
_TOGETHER = (8, 1024)  # clips, and frames, per pass: more leave the caches, and take memory that malloc fetches anew each time


def mel(hz: Tensor | float) -> Tensor | float:
    """HTK's mel scale, 1127 ln(1 + hz / 700)."""
    return 1127.0 * (torch.log1p(hz / 700.0) if isinstance(hz, Tensor) else math.log1p(hz / 700.0))


def mel_filters(n_mels: int, fft_size: int, sample_rate_hz: int, low_hz: float) -> Tensor:
    """Build triangular filters, equally spaced and triangular in mel, without area normalisation.

    Args:
        n_mels: number of filters between low_hz and half the sample rate.
        fft_size: points of the FFT; the bin at half the sample rate weighs nothing (as in Kaldi) and is left out.
        sample_rate_hz: Hz.
        low_hz: Hz.

    Returns:
        (fft_size / 2, n_mels), float32. A filter narrower than an FFT bin may be empty.
    """
    bins = mel(torch.arange(fft_size // 2, dtype=torch.float64) * (sample_rate_hz / fft_size))[:, None]  # (bins, 1)
    edges = torch.linspace(mel(low_hz), mel(sample_rate_hz / 2), n_mels + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rise, fall).clamp(min=0).float()


def hertz_filters(n_mels: int, fft_size: int, sample_rate_hz: int, low_hz: float) -> Tensor:
    """Build filters equally spaced in mel but triangular in Hz, as librosa does with `htk=True, norm=None`.

    Args:
        n_mels, sample_rate_hz, low_hz: see `mel_filters`.
        fft_size: points of the FFT; the bin at half the sample rate is included.

    Returns:
        (fft_size / 2 + 1, n_mels), float32.
    """
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)[:, None] * (sample_rate_hz / fft_size)     # (bins, 1)
    edges = torch.linspace(mel(low_hz), mel(sample_rate_hz / 2), n_mels + 2, dtype=torch.float64)
    edges = 700 * torch.expm1(edges / 1127)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0).float()


def build_frontend(config: FrontendConfig) -> "LogMel":
    """Build the frontend of a configuration's kind."""
    return EpicSoundsLogMel(config) if config.kind == "epic_sounds" else LogMel(config)


class LogMel(nn.Module):
    """The frontend: waveforms of one sample rate to normalised log-mel spectrograms of one length.

    Args:
        config: rates, sizes and normalisation. Window and filters are built here, once.
    """

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        window, filters = self._constants(config)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def _constants(self, config: FrontendConfig) -> tuple[Tensor, Tensor]:
        return (torch.hann_window(config.window_samples, periodic=False),
                mel_filters(config.n_mels, config.fft_points, config.sample_rate_hz, config.low_hz))

    def n_frames(self, samples: Tensor | int) -> Tensor | int:
        """Whole windows in so many samples; a clip shorter than one window is padded to one."""
        frames = 1 + (samples - self.config.window_samples) // self.config.hop_samples
        return frames.clamp(min=1) if isinstance(frames, Tensor) else max(1, frames)

    def energies(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute log-mel energies before padding and normalisation.

        Args:
            waveforms: (b, samples), float32, in -1 .. 1, at the config's sample rate.
            lengths: samples that belong to each clip, (b,); the rest is padding. None: all.

        Returns:
            (b, frames, mels); frames beyond a clip's own `n_frames` mean nothing.
        """
        out = waveforms.new_empty(len(waveforms), self.n_frames(waveforms.shape[1]), self.config.n_mels)
        return self._fill(out, waveforms, lengths)

    def _fill(self, out: Tensor, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        """Write log-mel energies into `out` (b, frames, mels), as many frames as it has or the waveforms give."""
        n_frames = min(out.shape[1], self.n_frames(waveforms.shape[1]))
        together = max(1, min(_TOGETHER[0], _TOGETHER[1] // n_frames))
        for i in range(0, len(waveforms), together):
            some = slice(i, i + together)
            out[some, :n_frames] = self._energies(waveforms[some], None if lengths is None else lengths[some], n_frames)
        return out

    def _energies(self, waveforms: Tensor, lengths: Tensor | None, n_frames: int) -> Tensor:
        """The first n_frames log-mel energies of a few waveforms."""
        hop = self.config.hop_samples
        if lengths is None:
            waveforms = waveforms - waveforms.mean(1, keepdim=True)
        else:
            inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]      # (b, samples)
            mean = torch.where(inside, waveforms, 0.0).sum(1, keepdim=True) / lengths[:, None].clamp(min=1)
            waveforms = torch.where(inside, waveforms - mean, 0.0)  # mean removed first, so that padding is silence
        waveforms = F.pad(waveforms, (1, max(0, (n_frames - 1) * hop + self.config.fft_points - waveforms.shape[1])))
        frames = windowed_frames(waveforms, self.window, hop, n_frames, self.config.fft_points, PRE_EMPHASIS)
        return log_mel(torch.fft.rfft(frames), self.filters, ENERGY_FLOOR)                             # (b, t, mels)

    def fit(self, energies: Tensor, n_frames: Tensor) -> Tensor:
        """Cut to the config's length, and pad where a clip has ended: with zeros, or with its last frame for EPIC-SOUNDS.

        The zeros come before normalisation, so padding is -mean / (2 std) afterwards, not silence.

        Args:
            energies: (b, frames, mels), not normalised.
            n_frames: frames that belong to each clip, (b,).

        Returns:
            (b, config.frames, mels), not normalised.
        """
        energies = energies[:, : self.config.frames]
        return self._end(F.pad(energies, (0, 0, 0, self.config.frames - energies.shape[1])), n_frames)

    def _end(self, features: Tensor, n_frames: Tensor) -> Tensor:
        """Write what follows a clip's end into features (b, frames, mels), in place."""
        ended = torch.arange(features.shape[1], device=features.device) >= n_frames[:, None]           # (b, frames)
        return features.masked_fill_(ended[..., None], 0.0)

    def normalise(self, energies: Tensor) -> Tensor:
        """Map log energies to (x - mean) / (2 std)."""
        return energies.sub(self.config.mean).div_(2 * self.config.std)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn waveforms (b, samples) into model inputs (b, config.frames, mels); see `energies` for the arguments."""
        features = waveforms.new_zeros(len(waveforms), self.config.frames, self.config.n_mels)
        self._fill(features, waveforms, lengths)
        lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device) if lengths is None else lengths
        return self._end(features, self.n_frames(lengths)).sub_(self.config.mean).div_(2 * self.config.std)


class EpicSoundsLogMel(LogMel):
    """The frontend of EPIC-SOUNDS: logarithm of filtered magnitudes of centred frames; the last frame fills a short clip up.

    A frame stands at every hop from the first sample on, with zeros beyond the clip's ends. No mean is removed and nothing
    is emphasised.
    """

    def _constants(self, config: FrontendConfig) -> tuple[Tensor, Tensor]:
        return (torch.hann_window(config.window_samples),
                hertz_filters(config.n_mels, config.fft_points, config.sample_rate_hz, config.low_hz))

    def n_frames(self, samples: Tensor | int) -> Tensor | int:
        """Hops in so many samples, and one frame at the start."""
        return 1 + samples // self.config.hop_samples

    def _energies(self, waveforms: Tensor, lengths: Tensor | None, n_frames: int) -> Tensor:
        if lengths is not None:
            inside = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]      # (b, samples)
            waveforms = torch.where(inside, waveforms, 0.0)
        hop, window = self.config.hop_samples, self.config.window_samples
        before = window // 2
        after = max(0, (n_frames - 1) * hop + window - before - waveforms.shape[1])
        frames = F.pad(waveforms, (before, after)).unfold(1, window, hop)[:, :n_frames]                # (b, t, window)
        magnitudes = torch.fft.rfft(frames * self.window, self.config.fft_points).abs()                # (b, t, bins)
        return (magnitudes @ self.filters).add_(LOG_OFFSET).log_()                                     # (b, t, mels)

    def _end(self, features: Tensor, n_frames: Tensor) -> Tensor:
        last = (n_frames - 1).clamp(0, features.shape[1] - 1)                                          # (b,)
        edge = features[torch.arange(len(features), device=features.device), last][:, None]            # (b, 1, mels)
        ended = torch.arange(features.shape[1], device=features.device) >= n_frames[:, None]           # (b, frames)
        return features.copy_(torch.where(ended[..., None], edge, features))

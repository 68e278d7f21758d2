"""Waveform -> log-mel spectrogram as Kaldi computes it, batched and on any device.

Source: the options that the published pipeline gives to `torchaudio.compliance.kaldi.fbank` (htk_compat, Hann
window, no dither, 128 mels, 10 ms shift), and its order: features, padding or cutting, then normalisation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aumcli.config import FrontendConfig
from aumcli.core.kernels import log_mel, windowed_frames

PRE_EMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # float32's epsilon: Kaldi's floor before the logarithm
_TOGETHER = 8  # clips per pass: more leave the caches, and take memory that malloc fetches anew each time


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


class LogMel(nn.Module):
    """The frontend: waveforms of one sample rate to normalised log-mel spectrograms of one length.

    Args:
        config: rates, sizes and normalisation. Window and filters are built here, once.
    """

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        self.fft_size = 1 << (config.window_samples - 1).bit_length()
        window = torch.hann_window(config.window_samples, periodic=False)
        filters = mel_filters(config.n_mels, self.fft_size, config.sample_rate_hz, config.low_hz)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

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
        for i in range(0, len(waveforms), _TOGETHER):
            some = slice(i, i + _TOGETHER)
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
        waveforms = F.pad(waveforms, (1, max(0, (n_frames - 1) * hop + self.fft_size - waveforms.shape[1])))
        frames = windowed_frames(waveforms, self.window, hop, n_frames, self.fft_size, PRE_EMPHASIS)
        return log_mel(torch.fft.rfft(frames), self.filters, ENERGY_FLOOR)                             # (b, t, mels)

    def fit(self, energies: Tensor, n_frames: Tensor) -> Tensor:
        """Cut to the config's length, and pad with zeros where a clip has ended, as the published pipeline does.

        The zeros come before normalisation, so padding is -mean / (2 std) afterwards, not silence.

        Args:
            energies: (b, frames, mels), not normalised.
            n_frames: frames that belong to each clip, (b,).

        Returns:
            (b, config.frames, mels), not normalised.
        """
        energies = energies[:, : self.config.frames]
        energies = F.pad(energies, (0, 0, 0, self.config.frames - energies.shape[1]))
        inside = torch.arange(self.config.frames, device=energies.device) < n_frames[:, None]          # (b, frames)
        return torch.where(inside[..., None], energies, 0.0)

    def normalise(self, energies: Tensor) -> Tensor:
        """Map log energies to (x - mean) / (2 std)."""
        return energies.sub(self.config.mean).div_(2 * self.config.std)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn waveforms (b, samples) into model inputs (b, config.frames, mels); see `energies` for the arguments."""
        features = waveforms.new_zeros(len(waveforms), self.config.frames, self.config.n_mels)
        self._fill(features, waveforms, lengths)
        if lengths is not None:
            ended = torch.arange(self.config.frames, device=features.device) >= self.n_frames(lengths)[:, None]  # (b, frames)
            features.masked_fill_(ended[..., None], 0.0)
        return features.sub_(self.config.mean).div_(2 * self.config.std)

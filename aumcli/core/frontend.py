"""Waveform -> log-mel spectrogram as Kaldi or as the EPIC-SOUNDS pipeline computes it, batched and on any device.

Source: the options that the published pipeline gives to `torchaudio.compliance.kaldi.fbank` (htk_compat, Hann
window, no dither, 128 mels, 10 ms shift), and its order: features, padding or cutting, then normalisation. For
EPIC-SOUNDS those that it gives to `librosa.stft` and `librosa.filters.mel` (audio_loader_epicsounds.py).
"""

import math
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aumcli.config import FrontendConfig
from aumcli.core.kernels import log_mel
from aumcli.core.kernels.torch_ops import MelOptions

PRE_EMPHASIS = 0.97
ENERGY_FLOOR = 1.1920928955078125e-07  # float32's epsilon: Kaldi's floor before the logarithm
LOG_OFFSET = 1e-6  # added to EPIC-SOUNDS' magnitudes before the logarithm


@overload
def mel(hz: Tensor) -> Tensor: ...
@overload
def mel(hz: float) -> float: ...
def mel(hz: Tensor | float) -> Tensor | float:
    """HTK's mel scale, 1127 ln(1 + hz / 700)."""
    return 1127.0 * (torch.log1p(hz / 700.0) if isinstance(hz, Tensor) else math.log1p(hz / 700.0))


def mel_filters(n_mels: int, fft_size: int, sample_rate_hz: int, band_hz: tuple[float, float]) -> Tensor:
    """Build triangular filters, equally spaced and triangular in mel, without area normalisation.

    Args:
        n_mels: number of filters.
        fft_size: points of the FFT; the bin at half the sample rate weighs nothing (as in Kaldi) and is left out.
        sample_rate_hz: Hz.
        band_hz: outer edges of the first and the last filter.

    Returns:
        (fft_size / 2, n_mels), float32. A filter narrower than an FFT bin may be empty.
    """
    bins = mel(torch.arange(fft_size // 2, dtype=torch.float64) * (sample_rate_hz / fft_size))[:, None]  # (bins, 1)
    edges = torch.linspace(mel(band_hz[0]), mel(band_hz[1]), n_mels + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return torch.minimum(rise, fall).clamp(min=0).float()


def hertz_filters(n_mels: int, fft_size: int, sample_rate_hz: int, band_hz: tuple[float, float]) -> Tensor:
    """Build filters equally spaced in mel but triangular in Hz, as librosa does with `htk=True, norm=None`.

    Args:
        n_mels, sample_rate_hz, band_hz: see `mel_filters`.
        fft_size: points of the FFT; the bin at half the sample rate is included.

    Returns:
        (fft_size / 2 + 1, n_mels), float32.
    """
    bins = torch.arange(fft_size // 2 + 1, dtype=torch.float64)[:, None] * (sample_rate_hz / fft_size)  # (bins, 1)
    edges = torch.linspace(mel(band_hz[0]), mel(band_hz[1]), n_mels + 2, dtype=torch.float64)
    edges = 700 * torch.expm1(edges / 1127)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clamp(min=0).float()


def narrowest_spacing_hz(n_mels: int, band_hz: tuple[float, float]) -> float:
    """Hz from the lower edge to the centre of the first filter, the narrowest."""
    low, high = map(mel, band_hz)
    return 700 * math.exp(low / 1127) * math.expm1((high - low) / (n_mels + 1) / 1127)


def build_frontend(config: FrontendConfig) -> "LogMel":
    """Build the frontend of a configuration's kind."""
    return EpicSoundsLogMel(config) if config.kind == "epic_sounds" else LogMel(config)


class LogMel(nn.Module):
    """The frontend: waveforms of one sample rate to normalised log-mel spectrograms of one length.

    Args:
        config: rates, sizes and normalisation. Window and filters are built here, once.
    """

    window: Tensor  # (window samples)
    filters: Tensor  # (bins, mels)

    def __init__(self, config: FrontendConfig):
        super().__init__()
        self.config = config
        window, filters = self._constants(config)
        self.options = self._options(config)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", filters, persistent=False)

    def _constants(self, config: FrontendConfig) -> tuple[Tensor, Tensor]:
        return (
            torch.hann_window(config.window_samples, periodic=False),
            mel_filters(config.n_mels, config.fft_points, config.sample_rate_hz, config.band_hz),
        )

    def _options(self, config: FrontendConfig) -> MelOptions:
        return MelOptions(
            config.fft_points, config.hop_samples, ENERGY_FLOOR, remove_means=True, pre_emphasis=PRE_EMPHASIS
        )

    @overload
    def n_frames(self, samples: Tensor) -> Tensor: ...
    @overload
    def n_frames(self, samples: int) -> int: ...
    def n_frames(self, samples: Tensor | int) -> Tensor | int:
        """Whole windows in so many samples; a clip shorter than one window is padded to one."""
        frames = 1 + (samples - self.config.window_samples) // self.config.hop_samples
        return frames.clamp(min=1) if isinstance(frames, Tensor) else max(1, frames)

    def energies(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute log-mel energies before padding and normalisation; without a clip's level where the config says so.

        Args:
            waveforms: (b, samples), float32, in -1 .. 1, at the config's sample rate.
            lengths: samples that belong to each clip, (b,); the rest is padding. None: all.

        Returns:
            (b, frames, mels); 0 beyond a clip's own `n_frames`.
        """
        energies = self._log_mel(waveforms, lengths, self.n_frames(waveforms.shape[1]))
        return self._remove_level(energies, lengths) if self.config.remove_level else energies

    def _remove_level(self, energies: Tensor, lengths: Tensor | None) -> Tensor:
        """Subtract from each clip (frames, mels) the mean over its own frames; 0 beyond them. In place."""
        if lengths is None:
            return energies.sub_(energies.mean((1, 2), keepdim=True))
        n_frames = self.n_frames(lengths).clamp(max=energies.shape[1])  # (b,)
        beyond = torch.arange(energies.shape[1], device=energies.device) >= n_frames[:, None]  # (b, frames)
        energies.masked_fill_(beyond[..., None], 0.0)
        level = energies.sum((1, 2)) / (n_frames * energies.shape[2])
        return energies.sub_(level[:, None, None]).masked_fill_(beyond[..., None], 0.0)

    def _log_mel(
        self, waveforms: Tensor, lengths: Tensor | None, frames: int, shift: float = 0.0, scale: float = 1.0
    ) -> Tensor:
        """(log energy - shift) / scale of the first `frames` frames; the log energy beyond a clip's end counts as 0."""
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        return log_mel(
            waveforms, lengths, self.n_frames(lengths), frames, self.window, self.filters, self.options, shift, scale
        )

    def fit(self, energies: Tensor, n_frames: Tensor) -> Tensor:
        """Cut to the config's length and pad clips that are shorter: with zeros, for EPIC-SOUNDS with the last frame.

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
        ended = torch.arange(features.shape[1], device=features.device) >= n_frames[:, None]  # (b, frames)
        return features.masked_fill_(ended[..., None], 0.0)

    def normalise(self, energies: Tensor) -> Tensor:
        """Map log energies to (x - mean) / (2 std)."""
        return energies.sub(self.config.mean).div_(2 * self.config.std)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn waveforms (b, samples) into model inputs (b, config.frames, mels); see `energies` for the arguments."""
        if self.config.remove_level:
            if lengths is None:
                lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
            energies = self._log_mel(waveforms, lengths, self.config.frames)
            return self.normalise(self._end(self._remove_level(energies, lengths), self.n_frames(lengths)))
        return self._log_mel(waveforms, lengths, self.config.frames, self.config.mean, 2 * self.config.std)


class EpicSoundsLogMel(LogMel):
    """The frontend of EPIC-SOUNDS: log of filtered magnitudes of centred frames; a short clip repeats its last frame.

    Frames are centred at every hop from the first sample on, with zeros beyond the ends. The mean is not removed, and
    there is no pre-emphasis.
    """

    def _constants(self, config: FrontendConfig) -> tuple[Tensor, Tensor]:
        return (
            torch.hann_window(config.window_samples),
            hertz_filters(config.n_mels, config.fft_points, config.sample_rate_hz, config.band_hz),
        )

    def _options(self, config: FrontendConfig) -> MelOptions:
        return MelOptions(
            config.fft_points, config.hop_samples, 0.0, -(config.window_samples // 2), magnitude=True, offset=LOG_OFFSET
        )

    @overload
    def n_frames(self, samples: Tensor) -> Tensor: ...
    @overload
    def n_frames(self, samples: int) -> int: ...
    def n_frames(self, samples: Tensor | int) -> Tensor | int:
        """Hops in so many samples, and one frame at the start."""
        return 1 + samples // self.config.hop_samples

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See `LogMel.forward`."""
        if lengths is None:
            lengths = torch.full((len(waveforms),), waveforms.shape[1], device=waveforms.device)
        return self._end(super().forward(waveforms, lengths), self.n_frames(lengths))

    def _end(self, features: Tensor, n_frames: Tensor) -> Tensor:
        last = (n_frames - 1).clamp(0, features.shape[1] - 1)  # (b,)
        edge = features[torch.arange(len(features), device=features.device), last][:, None]  # (b, 1, mels)
        ended = torch.arange(features.shape[1], device=features.device) >= n_frames[:, None]  # (b, frames)
        return features.copy_(torch.where(ended[..., None], edge, features))

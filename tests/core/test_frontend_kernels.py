"""Framing and log-mel in C against the same in tensor operations."""

import pytest
import torch

from aumcli.config import FrontendConfig
from aumcli.core.frontend import LogMel
from aumcli.core.kernels import log_mel, windowed_frames

pytestmark = pytest.mark.usefixtures("needs_cpu")


@pytest.mark.parametrize("rate_hz, mels, samples", [(16000, 128, 16000), (8000, 64, 801), (44100, 40, 5000), (16000, 3, 400)])
def test_cpu_equals_torch(rate_hz, mels, samples):
    config = FrontendConfig(sample_rate_hz=rate_hz, n_mels=mels)
    frontend, waveforms = LogMel(config), torch.randn(3, samples, generator=torch.Generator().manual_seed(0))
    n_frames = max(1, 1 + (samples - config.window_samples) // config.hop_samples)
    padded = torch.nn.functional.pad(waveforms, (1, config.window_samples))
    args = (padded, frontend.window, config.hop_samples, n_frames, config.fft_points, 0.97)
    ours, theirs = (windowed_frames(*args, backend=backend) for backend in ("cpu", "torch"))
    assert torch.equal(ours, theirs)  # to the bit: rounding is what the quiet bins are made of
    spectrum = torch.fft.rfft(ours)
    ours, theirs = (log_mel(spectrum, frontend.filters, 1e-7, backend=backend) for backend in ("cpu", "torch"))
    assert (ours - theirs).abs().max() < 5e-6  # natural logarithms up to 20: two or three of float32's last places


def test_nan_is_not_masked():
    frontend = LogMel(FrontendConfig())
    waveform = torch.randn(1, 16000)
    waveform[0, 8000] = torch.nan
    assert frontend.energies(waveform).isnan().any()


def test_gradients_flow_through_the_frontend():
    frontend, waveform = LogMel(FrontendConfig()), torch.randn(1, 4000, requires_grad=True)
    frontend.energies(waveform).sum().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.abs().sum() > 0


def test_more_frames_than_samples_are_refused():
    with pytest.raises(ValueError, match="don't fit"):
        windowed_frames(torch.zeros(1, 500), torch.ones(400), 160, 2, 512, 0.97)

"""Log-mel spectra in C against the same in tensor operations of float64."""

import pytest
import torch

from aumcli.config import FrontendConfig
from aumcli.core.frontend import build_frontend
from aumcli.core.kernels import cpu, log_mel
from aumcli.errors import AumError

EPIC = {
    "kind": "epic_sounds",
    "sample_rate_hz": 24000,
    "window_ms": 10.0,
    "hop_ms": 5.0,
    "fft_size": 2048,
    "low_hz": 0.0,
}
CONFIGS = {
    "kaldi": {},
    "narrow": {"n_mels": 3},
    "telephone": {"sample_rate_hz": 8000, "n_mels": 61},
    "wide": {"sample_rate_hz": 44100, "n_mels": 40, "fft_size": 4096},
    "band": {"n_mels": 24, "low_hz": 700.0, "high_hz": 2900.0},
    "epic_sounds": EPIC,
}
pytestmark = pytest.mark.usefixtures("needs_cpu")


LENGTHS = [9000, 1, 399, 400, 401, 4097, 0, 8999]


def compute(
    name: str, backend: str, lengths: list[int], dtype: torch.dtype = torch.float32, junk: float = 0.0, **normalisation
) -> torch.Tensor:
    """Log-mel energies of a batch of noise with tones, (b, 60, mels)."""
    frontend, samples = build_frontend(FrontendConfig(**CONFIGS[name])), max(lengths)
    generator = torch.Generator().manual_seed(0)
    waveforms = (
        torch.randn(len(LENGTHS), samples, generator=generator)[: len(lengths)] * 0.1
        + torch.sin(torch.arange(samples) * 0.3)
        + 0.1
    )
    waveforms = torch.where(torch.arange(samples) < torch.tensor(lengths)[:, None], waveforms, junk)
    lengths = torch.tensor(lengths)
    return log_mel(
        waveforms.to(dtype),
        lengths,
        frontend.n_frames(lengths),
        60,
        frontend.window.to(dtype),
        frontend.filters.to(dtype),
        frontend.options,
        backend=backend,
        **normalisation,
    )


def error(ours: torch.Tensor, truth: torch.Tensor, name: str) -> float:
    """Largest difference as a share of the frame's strongest bin, which an FFT's rounding is relative to."""
    share = torch.exp(
        (truth - truth.amax(2, keepdim=True)) * (1.0 if name == "epic_sounds" else 0.5)
    )  # magnitudes, powers
    return ((ours - truth) * share).abs().max().item()


@pytest.mark.parametrize("name", CONFIGS)
def test_cpu_equals_float64(name):
    ours, truth = compute(name, "cpu", LENGTHS), compute(name, "torch", LENGTHS, torch.float64)
    assert error(ours, truth, name) < 2e-6  # 1.05e-6 without fused multiplications
    assert ours.shape == (len(LENGTHS), 60, CONFIGS[name].get("n_mels", 128))


@pytest.mark.parametrize("name", ["kaldi", "epic_sounds"])
def test_a_clip_gives_the_same_bits_in_any_batch(name, threads):
    together = compute(name, "cpu", LENGTHS, junk=0.7)
    threads(3)
    assert torch.equal(compute(name, "cpu", LENGTHS, junk=0.7), together)
    assert torch.equal(compute(name, "cpu", LENGTHS), together)
    assert torch.equal(compute(name, "cpu", LENGTHS[:1]), together[:1])


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_what_follows_a_clip_is_zero_and_then_normalised(backend):
    plain, lengths = compute("kaldi", backend, [400, 9000]), [400, 9000]
    assert (plain[0, 1:] == 0).all() and (plain[1, 54:] == 0).all() and (plain[1, :54] != 0).all()
    assert torch.equal(compute("kaldi", backend, lengths, shift=-4.5, scale=9.25), (plain + 4.5) / 9.25)


@pytest.mark.parametrize("name", ["kaldi", "epic_sounds"])
def test_instruction_sets_agree(name):
    best = compute(name, "cpu", LENGTHS)
    try:
        for limit in (0, 1):
            cpu.library.aum_limit_isa(limit)
            assert error(compute(name, "cpu", LENGTHS), best, name) < 1e-6
    finally:
        cpu.library.aum_limit_isa(2)


def test_nan_is_not_masked():
    frontend = build_frontend(FrontendConfig())
    waveform = torch.randn(1, 16000)
    waveform[0, 8000] = torch.nan
    assert frontend.energies(waveform).isnan().any()


def test_gradients_flow_through_the_frontend():
    frontend, waveform = build_frontend(FrontendConfig()), torch.randn(1, 4000, requires_grad=True)
    frontend.energies(waveform).sum().backward()
    assert waveform.grad.isfinite().all() and waveform.grad.abs().sum() > 0


def test_an_fft_of_no_power_of_two():
    config = FrontendConfig(fft_size=480)
    frontend, waveform = build_frontend(config), torch.randn(1, 4000)
    truth = build_frontend(config).double().energies(waveform.double())
    assert (frontend.energies(waveform) - truth).abs().max() < 1e-3
    lengths = torch.tensor([4000])
    with pytest.raises(AumError, match="power of 2"):
        log_mel(waveform, lengths, lengths, 9, frontend.window, frontend.filters, frontend.options, backend="cpu")


@pytest.mark.parametrize("length", [-1, 501])
def test_more_samples_than_there_are_are_refused(length):
    frontend, lengths = build_frontend(FrontendConfig()), torch.tensor([length])
    with pytest.raises(ValueError, match="500"):
        log_mel(torch.zeros(1, 500), lengths, lengths, 1, frontend.window, frontend.filters, frontend.options)


def test_lengths_of_other_types_and_counts():
    frontend, waveforms = build_frontend(FrontendConfig(frames=20)), torch.randn(3, 3000)
    lengths = torch.tensor([3000, 400, 2999])
    assert torch.equal(frontend(waveforms, lengths.int()), frontend(waveforms, lengths))
    with pytest.raises(ValueError, match="lengths has shape"):
        frontend(waveforms, lengths[:1])


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("clips, frames", [(0, 5), (2, 0)])
def test_nothing_gives_nothing(backend, clips, frames):
    frontend, lengths = build_frontend(FrontendConfig()), torch.full((clips,), 900)
    out = log_mel(
        torch.zeros(clips, 900),
        lengths,
        lengths,
        frames,
        frontend.window,
        frontend.filters,
        frontend.options,
        backend=backend,
    )
    assert out.shape == (clips, frames, 128)

"""What is fast compared to what: python tests/benchmarks/speed.py. Ratios of medians, the two sides taken in turn."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from aumcli.config import AudioMambaConfig, FrontendConfig
from aumcli.core.frontend import LogMel
from aumcli.core.kernels import bidirectional_scan
from aumcli.core.mixer import Mixer

sys.path.append(str(Path(__file__).resolve().parents[1] / "fixtures"))
from rivals import import_torchaudio

kaldi = import_torchaudio("compliance.kaldi")


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 21) -> tuple[float, float, float]:
    """Medians in ms of two functions called in turn, and the median of the pairwise ratio ours / theirs."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for function, taken in zip((ours, theirs), times):
            start = time.perf_counter()
            function()
            if repeat > 1:  # the first two warm up
                taken.append(1000 * (time.perf_counter() - start))
    ratio = statistics.median(a / b for a, b in zip(*times))
    return statistics.median(times[0]), statistics.median(times[1]), ratio


@torch.inference_mode()
def scan_against_products() -> tuple[float, float, float]:
    """The Fo-Bi scan of one AuM-base block at 513 tokens against that block's four matrix products."""
    config = AudioMambaConfig(size="base")
    b, l, e, n = 1, 513, config.inner_width, config.state_size
    mixer, generator = Mixer(config), torch.Generator().manual_seed(0)
    tokens, u, delta, z = (torch.randn(b, l, width, generator=generator) for width in (config.width, e, e, e))
    dt, B, C = (torch.randn(b, l, width, generator=generator) for width in (config.dt_rank, n, n))
    A = -torch.exp(mixer.A_log)

    def products() -> None:
        mixer.in_proj(tokens), mixer.x_proj(u), torch.nn.functional.linear(dt, mixer.dt_proj.weight), mixer.out_proj(u)

    return compare(lambda: bidirectional_scan(u, delta - 4, A, A, B, C, mixer.D, z, mixer.dt_proj.bias), products)


@torch.inference_mode()
def frontend_against_kaldi() -> tuple[float, float, float]:
    """The frontend against torchaudio's Kaldi filter banks on 64 one-second clips at 16 kHz."""
    waveforms = torch.randn(64, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    frontend = LogMel(FrontendConfig(frames=98))

    def theirs() -> None:
        for waveform in waveforms:
            kaldi.fbank(waveform[None] - waveform.mean(), htk_compat=True, sample_frequency=16000, use_energy=False,
                        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)

    return compare(lambda: frontend(waveforms), theirs)


def main() -> None:
    """Print every comparison."""
    print(f"{torch.get_num_threads()} threads, float32, medians of 21")
    for function in (scan_against_products, frontend_against_kaldi):
        ours, theirs, ratio = function()
        print(f"{function.__name__}: {ours:.2f} ms against {theirs:.2f} ms, ratio {ratio:.3f} ({1 / ratio:.1f} times)")


if __name__ == "__main__":
    main()

"""Train an Audio Mamba with a loop of your own: python examples/train_loop.py.

Three classes of tones are generated here, and a small model learns them in some seconds: frontend, network and
optimizer are ordinary torch. What `aum train` adds: files, augmentation, validation, checkpoints, several devices.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.config import AudioMambaConfig, FrontendConfig
from aumcli.core.audio_mamba import AudioMamba
from aumcli.core.frontend import LogMel

RATE_HZ, CLIP_S = 8000, 0.5
CLASSES = {"low": (200, 400), "middle": (600, 1200), "high": (1800, 3600)}  # Hz
STEPS, BATCH = 30, 32


def tones(clips: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tones of random pitch and phase in noise: waveforms (b, samples) and the index of each one's class, (b)."""
    targets = torch.randint(len(CLASSES), (clips,), generator=generator)
    low, high = torch.tensor(list(CLASSES.values()), dtype=torch.float32)[targets].T  # (b) each
    hz = low + (high - low) * torch.rand(clips, generator=generator)
    phase = 2 * math.pi * torch.rand(clips, generator=generator)
    times_s = torch.arange(int(RATE_HZ * CLIP_S)) / RATE_HZ
    waveforms = torch.sin(2 * math.pi * hz[:, None] * times_s + phase[:, None])  # (b, samples)
    return waveforms + 0.1 * torch.randn(waveforms.shape, generator=generator), targets


def main() -> None:
    torch.set_num_threads(1)  # so small a model gains nothing from more
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    frontend = LogMel(FrontendConfig(sample_rate_hz=RATE_HZ, n_mels=32, frames=48, mean=0.0, std=4.0))
    network = AudioMamba(
        AudioMambaConfig(width=64, depth=2, state_size=8, n_mels=32, frames=48, n_classes=len(CLASSES))
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)

    def features_of(waveforms: Tensor) -> Tensor:
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        return frontend(waveforms, lengths)  # (b, frames, mels)

    network.train()
    for step in range(1, STEPS + 1):
        waveforms, targets = tones(BATCH, generator)
        loss = F.cross_entropy(network(features_of(waveforms)), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:>3}  loss {loss.item():.4f}")

    network.eval()
    waveforms, targets = tones(300, generator)
    with torch.inference_mode():
        accuracy = (network(features_of(waveforms)).argmax(-1) == targets).float().mean().item()
    print(f"accuracy {100 * accuracy:.1f} % of {len(targets)} new tones")


if __name__ == "__main__":
    main()

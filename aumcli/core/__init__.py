"""Tensors in, tensors out: the frontend, the models and their kernels."""

from typing import TYPE_CHECKING

from aumcli.config import NetworkConfig

if TYPE_CHECKING:
    from aumcli.core.audio_mamba import AudioMamba
    from aumcli.core.spectrogram_transformer import SpectrogramTransformer


def build_network(config: NetworkConfig, backend: str = "auto") -> "AudioMamba | SpectrogramTransformer":
    """Build the network that a configuration describes, with weights drawn from torch's global generator.

    Args:
        config: of an Audio Mamba or a spectrogram transformer.
        backend: see the network's class; "auto" serves both.
    """
    from aumcli.core.audio_mamba import AudioMamba
    from aumcli.core.spectrogram_transformer import SpectrogramTransformer

    kind = AudioMamba if config.architecture == "aum" else SpectrogramTransformer
    return kind(config, backend)

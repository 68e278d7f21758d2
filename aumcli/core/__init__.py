"""Tensors in, tensors out: the frontend, the models and their kernels."""

import copy
from typing import TYPE_CHECKING

from aumcli.config import NetworkConfig

if TYPE_CHECKING:
    from torch import nn

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


def at_length(network: "nn.Module", frames: int) -> "nn.Module | None":
    """A network for spectrograms of another length: it shares every weight but the positions, which are resized.

    Args:
        network: an Audio Mamba or a spectrogram transformer.
        frames: a length that whole patches fill.

    Returns:
        The other network; None where this one has no positions to resize.
    """
    from torch import nn

    from aumcli.core.tokenizers import resize_positions

    places = [name for name, _ in network.named_parameters() if name.endswith("pos_embed")]
    if not places:
        return None
    other = copy.deepcopy(network, {id(weights): weights for weights in network.parameters()})
    other.config = type(network.config).model_validate(network.config.model_dump() | {"frames": frames})
    owner, _, name = places[0].rpartition(".")
    positions = network.get_parameter(places[0]).detach()
    setattr(
        other.get_submodule(owner),
        name,
        nn.Parameter(resize_positions(positions, network.config.grid, other.config.grid)),
    )
    return other

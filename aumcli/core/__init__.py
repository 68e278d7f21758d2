"""Tensors in, tensors out: the frontend, the models and their kernels."""

import copy
from typing import TYPE_CHECKING

from aumcli.config import AudioMambaConfig, NetworkConfig, SpectrogramTransformerConfig

if TYPE_CHECKING:
    from torch import nn

    from aumcli.core.network import SpectrogramNetwork


def build_network(config: NetworkConfig, backend: str = "auto") -> "SpectrogramNetwork":
    """Build the network that a configuration describes, with weights drawn from torch's global generator.

    Args:
        config: of an Audio Mamba or a spectrogram transformer.
        backend: see the network's class; "auto" serves both.
    """
    from aumcli.core.audio_mamba import AudioMamba
    from aumcli.core.spectrogram_transformer import SpectrogramTransformer

    if isinstance(config, AudioMambaConfig):
        return AudioMamba(config, backend)
    if isinstance(config, SpectrogramTransformerConfig):
        return SpectrogramTransformer(config, backend)
    raise TypeError(f"no network for a {type(config).__name__}")


def n_parameters(module: "nn.Module", trained_only: bool = False) -> int:
    """Number of parameters of a module, or of those that are trained."""
    return sum(x.numel() for x in module.parameters() if x.requires_grad or not trained_only)


def count_parameters(config: NetworkConfig) -> int:
    """Number of parameters of the network that a configuration describes, which is not built in memory."""
    import torch

    with torch.device("meta"):
        return n_parameters(build_network(config))


def at_length(network: "SpectrogramNetwork", frames: int) -> "SpectrogramNetwork | None":
    """A network for spectrograms of another length: it shares every weight but the positions, which are resized.

    Args:
        network: an Audio Mamba or a spectrogram transformer.
        frames: a length that patches fill completely.

    Returns:
        The other network; None where this one has no positions to resize.
    """
    from torch import nn

    from aumcli.core.tokenizers import resize_positions

    names = [name for name, _ in network.named_parameters() if name.endswith("pos_embed")]
    if not names:
        return None
    other = copy.deepcopy(network, {id(weights): weights for weights in network.parameters()})
    other.config = type(network.config).model_validate(network.config.model_dump() | {"frames": frames})
    owner, _, name = names[0].rpartition(".")
    positions = network.get_parameter(names[0]).detach()
    resized = nn.Parameter(resize_positions(positions, network.config.grid, other.config.grid))
    setattr(other.get_submodule(owner), name, resized)
    return other

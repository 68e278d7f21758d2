"""What both architectures have in common, for whoever trains, evaluates or exports them."""

import torch
from torch import Tensor, nn

from aumcli.config import AudioMambaConfig, SpectrogramTransformerConfig

# positions of a call's clips in their batch, (b,) int64, and the batch's size; None: the call has the whole batch
Rows = tuple[Tensor, int] | None


class SpectrogramNetwork(nn.Module):
    """A classifier of log-mel spectrograms.

    Attributes:
        config: its configuration.
        activation_checkpointing: what the backward pass recomputes instead of keeping it, "cheap" or "block"; see the
            subclasses.
        rows: positions of the next call's clips in their batch; see `Rows`.
    """

    config: AudioMambaConfig | SpectrogramTransformerConfig
    activation_checkpointing: str = "cheap"
    rows: Rows = None

    def forward_features(self, features: Tensor) -> Tensor:
        """Encode normalised log-mel features (b, frames, mels) to an embedding, (b, d)."""
        raise NotImplementedError

    def classify(self, embedding: Tensor) -> Tensor:
        """Map what `forward_features` returns, (b, d), to logits (b, classes)."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Map normalised log-mel features (b, frames, mels) to logits (b, classes)."""
        return self.classify(self.forward_features(features))

    @property
    def output(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        raise NotImplementedError

    def scale_logits(self, factor: float) -> None:
        """Multiply all logits by a factor, by way of the last layer's weights."""
        with torch.no_grad():
            for parameter in self.output.parameters():
                parameter.mul_(factor)

    def backend_on(self, device: torch.device) -> str:
        """Name of the backend that runs on a device."""
        raise NotImplementedError


def drop_path(x: Tensor, rate: float, training: bool, rows: Rows) -> Tensor:
    """Stochastic depth: drop a clip's x (b, l, d) with this probability and scale up the rest, in training only.

    Numbers are drawn for the whole batch, so that a clip's doesn't depend on what is computed beside it.
    """
    if not training or rate == 0:
        return x
    positions, size = (slice(None), len(x)) if rows is None else rows
    keep = torch.rand(size, 1, 1, device=x.device)[positions] >= rate
    return x * (keep / (1 - rate)).to(x.dtype)

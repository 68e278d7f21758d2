"""Audio Mamba: patch tokens with a classification token through a stack of Mamba blocks (paper, section 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aumcli.config import AudioMambaConfig
from aumcli.core.activation_checkpointing import run_block
from aumcli.core.kernels import OPERATORS, add_rms_norm, choose_backend, cpu
from aumcli.core.mixer import Mixer
from aumcli.core.network import SpectrogramNetwork, drop_path
from aumcli.core.tokenizers import PatchEmbed, PositionEmbedding, build_tokenizer, check_features, place_cls


class RMSNorm(nn.Module):
    """Add to the residual stream, then normalise; the weight only, no bias."""

    def __init__(self, width: int, eps: float, backend: str):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.backend = eps, backend

    def forward(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the normalised sum in the weight's type, and the sum in at least float32: (b, l, d) each."""
        x, residual = add_rms_norm(x, residual, self.weight, self.eps, backend=self.backend)
        return x.to(self.weight.dtype), residual


class Block(nn.Module):
    """Add, norm, mixer: the mixer's output joins the residual stream at the next block's start."""

    def __init__(self, config: AudioMambaConfig, backend: str):
        super().__init__()
        self.norm = RMSNorm(config.width, config.norm_eps, backend)
        self.mixer = Mixer(config, backend)

    def forward(
        self, x: Tensor, residual: Tensor | None, activation_checkpointing: str = "cheap"
    ) -> tuple[Tensor, Tensor]:
        """Map the last output and the residual stream, (b, l, d) each, to the next pair; see `AudioMamba`."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling() and self._has_operators(x):
            return run_block(self, x, residual, keep_projection=activation_checkpointing != "block")
        if torch.is_grad_enabled() and activation_checkpointing == "block":
            pair: tuple[Tensor, Tensor] = checkpoint(self._run, x, residual, use_reentrant=False)
            return pair
        return self._run(x, residual)

    def _run(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        x, residual = self.norm(x, residual)
        return self.mixer(x), residual

    def _has_operators(self, x: Tensor) -> bool:
        """Whether every kernel of this block runs as an operator with a backward operator of its own."""
        return (
            choose_backend(self.norm.backend, x.device, x.dtype) in OPERATORS
            and self.mixer.A_log.shape[1] <= cpu.MOST_STATES
            and self.mixer.conv_kernel <= cpu.MOST_TAPS
        )


class AudioMamba(SpectrogramNetwork):
    """Classify log-mel spectrograms with a bidirectional state space model.

    Parameter names are the published ones. The gradient of Fo-Bi's gate is the true one unless the config asks for
    the published one.

    Args:
        config: sizes, direction and the classification token's position.
        backend: kernel backend, "auto" or one of `aumcli.core.kernels.BACKENDS`.

    Attributes:
        activation_checkpointing: what the backward pass recomputes: "cheap", everything but the matmuls, or "block",
            everything between the residual streams of two blocks.
    """

    config: AudioMambaConfig
    layers: Sequence[Block]  # of type nn.ModuleList
    cls_token: nn.Parameter | None

    def __init__(self, config: AudioMambaConfig, backend: str = "auto"):
        super().__init__()
        self.config = config
        self.patch_embed = build_tokenizer(config)  # the published name
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.pooling == "cls" else None
        self.pos_embed = PositionEmbedding(config.n_patches, config.width, int(config.pooling == "cls"))
        self.layers = nn.ModuleList(Block(config, backend) for _ in range(config.depth))  # type: ignore[assignment]
        self.norm_f = RMSNorm(config.width, config.norm_eps, backend)
        self.head = nn.Linear(config.width, config.n_classes)
        # the published probabilities are shifted by one: a block drops the output of the block before it
        self.drop_rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        if (
            not self.norm_f.weight.is_meta
        ):  # on the meta device drawing would import torch's compiler, which takes a second
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the published initial values."""
        for tensor in (self.cls_token, self.pos_embed.pos_embed, self.head.weight):
            if tensor is not None:
                nn.init.trunc_normal_(tensor, std=0.02)
        nn.init.zeros_(self.head.bias)
        if isinstance(self.patch_embed, PatchEmbed):  # a stem keeps torch's values
            fan_in = self.patch_embed.proj.weight[0].numel()
            # timm 0.4.12's lecun_normal_ divides by 0.8796, what a cut at two standard deviations leaves of one, but
            # cuts at +-2, that is never: 0.0711 for the 256 inputs of a patch of 16 x 16, where 1 / sqrt(256) was meant
            nn.init.trunc_normal_(self.patch_embed.proj.weight, std=fan_in**-0.5 / 0.87962566103423978)
            assert self.patch_embed.proj.bias is not None
            nn.init.zeros_(self.patch_embed.proj.bias)
        for block in self.layers:
            block.mixer.reset_parameters(len(self.layers))

    def forward_features(self, features: Tensor) -> Tensor:
        """Encode features (b, frames, mels) to an embedding, (b, d).

        It is the classification token after the last norm, or that norm of the tokens' mean.
        """
        check_features(features, self.config)
        positions, index = self.pos_embed.pos_embed, 0  # (1, 1 + l, d), or (1, l, d)
        if self.cls_token is None:
            x = self.patch_embed(features) + positions  # (b, l, d)
        else:
            tokens = self.patch_embed(features) + positions[:, 1:]
            x, index = place_cls(tokens, self.cls_token + positions[:, :1], self.config.cls_position)  # (b, l + 1, d)
        residual: Tensor | None = None
        for i, block in enumerate(self.layers):
            x = drop_path(x, self.drop_rates[i - 1] if i else 0.0, self.training, self.rows)
            x, residual = block(x, residual, self.activation_checkpointing)
        x = drop_path(x, self.config.drop_path, self.training, self.rows)
        assert residual is not None  # there is a block
        if self.cls_token is None:
            x, residual = x.mean(1, keepdim=True), residual.mean(1, keepdim=True)
        else:  # the other tokens' last norm would be thrown away
            x, residual = x[:, index : index + 1], residual[:, index : index + 1]
        x, _ = self.norm_f(x, residual)
        embedding: Tensor = x[:, 0]
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """Map the embedding (b, d) to logits (b, classes)."""
        logits: Tensor = self.head(embedding)
        return logits

    @property
    def output(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        return self.head

    def backend_on(self, device: torch.device) -> str:
        """Name of the kernel backend that runs on a device."""
        return choose_backend(self.norm_f.backend, device, torch.float32)

"""Audio Spectrogram Transformer (AST): a vision transformer on patches of a spectrogram, the rival to compare with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aumcli.config import SpectrogramTransformerConfig
from aumcli.core.network import Rows, SpectrogramNetwork, drop_path
from aumcli.core.tokenizers import build_tokenizer, check_features

ATTENTIONS = ("sdpa", "eager")


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, config: SpectrogramTransformerConfig, backend: str):
        super().__init__()
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)
        self.heads, self.backend = config.heads, backend

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (b, l, d) to (b, l, d)."""
        y: Tensor = self.proj(self.attend(self.qkv(x)))
        return y

    def attend(self, qkv: Tensor) -> Tensor:
        """Map queries, keys and values side by side, (b, l, 3 d), to what the heads give, (b, l, d)."""
        b, l, _ = qkv.shape
        q, k, v = qkv.view(b, l, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (b, heads, l, d / heads)
        if self.backend == "eager":  # as the paper measured it: the (l, l) matrix is held in memory
            x = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        heads: Tensor = x.transpose(1, 2)  # (b, l, heads, d / heads)
        return heads.flatten(2)


class MLP(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, config: SpectrogramTransformerConfig):
        super().__init__()
        inner = config.mlp_width or 4 * config.width
        self.fc1, self.fc2 = nn.Linear(config.width, inner), nn.Linear(inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (b, l, d) to (b, l, d)."""
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class TransformerBlock(nn.Module):
    """Pre-norm attention and MLP, each added to its input."""

    def __init__(self, config: SpectrogramTransformerConfig, backend: str, drop: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.attn = Attention(config, backend)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp = MLP(config)
        self.drop = drop

    def forward(self, x: Tensor, rows: Rows = None) -> Tensor:
        """Map tokens (b, l, d) to (b, l, d); `rows` as in `SpectrogramTransformer`."""
        x = x + drop_path(self.attn(self.norm1(x)), self.drop, self.training, rows)
        return x + drop_path(self.mlp(self.norm2(x)), self.drop, self.training, rows)


class Encoder(nn.Module):
    """Patches, class tokens, positions and blocks: what the published weights hold under `v.`"""

    def __init__(self, config: SpectrogramTransformerConfig, backend: str):
        super().__init__()
        self.patch_embed = build_tokenizer(config)  # the published name
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.pooling == "cls" else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, config.width)) if config.distilled else None
        self.prefix = (config.pooling == "cls") + config.distilled
        self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + config.n_patches, config.width))
        drops = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(TransformerBlock(config, backend, drop) for drop in drops)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)

    def forward(self, features: Tensor, activation_checkpointing: str, rows: Rows) -> Tensor:
        """Encode features (b, frames, mels) to the class tokens, or all tokens' mean, after the last norm:
        (b, 1 or 2, d).
        """
        prefix = [
            token.expand(features.shape[0], -1, -1) for token in (self.cls_token, self.dist_token) if token is not None
        ]
        x = torch.cat([*prefix, self.patch_embed(features)], dim=1) + self.pos_embed
        for block in self.blocks:
            again = activation_checkpointing == "block" and torch.is_grad_enabled()
            x = checkpoint(block, x, rows, use_reentrant=False) if again else block(x, rows)
        tokens: Tensor = self.norm(x[:, : self.prefix] if self.prefix else x.mean(1, keepdim=True))
        return tokens


class SpectrogramTransformer(SpectrogramNetwork):
    """Classify log-mel spectrograms with self-attention (Gong et al. 2021). Parameter names are the published ones.

    Args:
        config: sizes.
        backend: "sdpa" (torch's fused attention), "eager" (the attention matrix in memory) or "auto", which is sdpa.

    Attributes:
        activation_checkpointing: "block": the backward pass recomputes each block; "cheap": nothing.

    Raises:
        ValueError: no such attention.
    """

    config: SpectrogramTransformerConfig

    def __init__(self, config: SpectrogramTransformerConfig, backend: str = "auto"):
        super().__init__()
        self.backend = "sdpa" if backend == "auto" else backend
        if self.backend not in ATTENTIONS:
            raise ValueError(
                f"a spectrogram transformer has no backend {backend!r}: choose one of auto, {', '.join(ATTENTIONS)}"
            )
        self.config = config
        self.v = Encoder(config, self.backend)
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(config.width, config.head_norm_eps), nn.Linear(config.width, config.n_classes)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the published initial values.

        The authors put a plain `nn.Conv2d` and a plain `nn.Sequential` in the place of timm's patch embedding and head,
        which therefore keep torch's values: uniform within 1 / sqrt(inputs). timm draws what is left.
        """
        for name, parameter in self.v.named_parameters():
            if name.endswith(("_token", "pos_embed")) or (name.startswith("blocks.") and parameter.ndim == 2):
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.startswith("blocks.") and name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward_features(self, features: Tensor) -> Tensor:
        """Encode features (b, frames, mels) to the class token after the last norm, (b, d).

        It is the mean of both tokens if distilled, and that norm of all tokens' mean without a class token.
        """
        check_features(features, self.config)
        tokens: Tensor = self.v(features, self.activation_checkpointing, self.rows)  # (b, 1 or 2, d)
        return tokens.mean(1)

    def classify(self, embedding: Tensor) -> Tensor:
        """Map the embedding (b, d) to logits (b, classes)."""
        logits: Tensor = self.mlp_head(embedding)
        return logits

    @property
    def output(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        layer = self.mlp_head[1]
        assert isinstance(layer, nn.Linear)
        return layer

    def backend_on(self, device: torch.device) -> str:
        """Name of the attention that runs, the same on every device."""
        return self.backend

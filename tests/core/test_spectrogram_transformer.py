"""The spectrogram transformer against the published models' outputs, and its two attentions against each other."""

import json

import numpy as np
import pytest
import scipy.stats
import torch
from safetensors.torch import load_file

from aumcli.config import SpectrogramTransformerConfig
from aumcli.core import build_network
from aumcli.core.spectrogram_transformer import SpectrogramTransformer

SMALL = {"width": 48, "depth": 2, "heads": 3, "n_mels": 32, "frames": 48, "n_classes": 4}


@pytest.mark.parametrize("backend", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["ast_128x128", "ast_128x256", "ast_distilled_128x128"])
def test_published_logits(golden, name, backend):
    recorded = np.load(golden / "ast" / f"{name}.npz", allow_pickle=False)
    published = json.loads(str(recorded["config"]))
    config = SpectrogramTransformerConfig(
        width=published["embed_dim"],
        depth=published["depth"],
        heads=published["num_heads"],
        distilled=published["distilled"],
        n_mels=published["mel_bins"],
        frames=published["frames"],
        n_classes=published["num_classes"],
    )
    model = SpectrogramTransformer(config, backend).eval()
    weights = torch.load(golden / "ast" / f"{name}.pth", weights_only=True)
    unused = {key for key in weights if key.startswith(("v.head.", "v.head_dist."))}  # DeiT's own heads
    model.load_state_dict({key: value for key, value in weights.items() if key not in unused})
    with torch.inference_mode():
        logits = model(torch.from_numpy(recorded["input"]))
    np.testing.assert_allclose(logits.numpy(), recorded["logits"], atol=1e-5)


def test_overlapping_patches_as_in_transformers(golden):
    theirs = load_file(golden / "ast" / "hf" / "model.safetensors")
    model = SpectrogramTransformer(
        SpectrogramTransformerConfig(
            width=64,
            depth=3,
            heads=2,
            mlp_width=128,
            distilled=True,
            overlap=6,
            n_mels=128,
            frames=128,
            n_classes=7,
            norm_eps=1e-12,
            head_norm_eps=1e-12,
        )
    ).eval()
    body = "audio_spectrogram_transformer."
    renamed = {}
    for key, value in theirs.items():
        for old, new in (
            (body + "embeddings.patch_embeddings.projection", "v.patch_embed.proj"),
            (body + "embeddings.distillation_token", "v.dist_token"),
            (body + "embeddings.cls_token", "v.cls_token"),
            (body + "embeddings.position_embeddings", "v.pos_embed"),
            (body + "layernorm", "v.norm"),
            (body + "encoder.layer.", "v.blocks."),
            (".layernorm_before", ".norm1"),
            (".layernorm_after", ".norm2"),
            (".attention.output.dense", ".attn.proj"),
            (".intermediate.dense", ".mlp.fc1"),
            (".output.dense", ".mlp.fc2"),
            ("classifier.layernorm", "mlp_head.0"),
            ("classifier.dense", "mlp_head.1"),
        ):
            key = key.replace(old, new)
        renamed[key] = value
    for i in range(3):
        for kind in ("weight", "bias"):
            parts = [
                renamed.pop(f"v.blocks.{i}.attention.attention.{part}.{kind}") for part in ("query", "key", "value")
            ]
            renamed[f"v.blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    model.load_state_dict(renamed)
    recorded = np.load(golden / "ast" / "hf" / "io.npz", allow_pickle=False)
    with torch.inference_mode():
        logits = model(torch.from_numpy(recorded["input"]))
    np.testing.assert_allclose(logits.numpy(), recorded["logits"], atol=1e-5)


def _published_values(name: str, width: int):
    """What a parameter starts from: timm's `_init_vit_weights`; PyTorch's own where the authors replace a module."""
    matrices = ("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")
    in_blocks = name.startswith("v.blocks.") and name.endswith(matrices)
    if in_blocks or name.endswith(("_token", "pos_embed")):
        return scipy.stats.norm(0, 0.02)  # cut at +-2, that is a hundred deviations
    if name.startswith(("v.patch_embed.proj.", "mlp_head.1.")):
        bound = (256 if "patch" in name else width) ** -0.5
        return scipy.stats.uniform(-bound, 2 * bound)
    return torch.tensor(1.0 if name.endswith("weight") else 0.0)  # norms, and biases of the blocks


@pytest.mark.parametrize("distilled", [False, True])
def test_every_parameter_starts_from_the_published_values(distilled, follows):
    torch.manual_seed(0)
    config = SpectrogramTransformerConfig(width=192, depth=2, heads=3, distilled=distilled, n_classes=50)
    model = SpectrogramTransformer(config)
    drawn = 0
    for name, x in model.named_parameters():
        want = _published_values(name, 192)
        if isinstance(want, torch.Tensor):
            assert "norm" in name or "mlp_head.0" in name or name.endswith("bias"), name
            assert (x == want).all(), name
        else:
            follows(x, want, name)
            drawn += 1
    assert drawn == 2 + distilled + 2 * 4 + 4  # tokens and positions, blocks, patches, head


def test_attentions_agree_in_values_and_gradients():
    torch.manual_seed(0)
    models = [build_network(SpectrogramTransformerConfig(**SMALL), backend) for backend in ("auto", "eager")]
    models[1].load_state_dict(models[0].state_dict())
    features = torch.randn(2, 48, 32)
    for model in models:
        model(features).square().sum().backward()
    for (name, ours), theirs in zip(models[0].named_parameters(), models[1].parameters()):
        assert (ours.grad - theirs.grad).abs().max() <= 1e-5 * (1 + theirs.grad.abs().max()), name


def test_an_unknown_attention_is_refused():
    with pytest.raises(ValueError, match="sdpa, eager"):
        SpectrogramTransformer(SpectrogramTransformerConfig(**SMALL), "cpu")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"heads": 5}, "multiple of heads"),
        ({"overlap": 16}, "overlap 16"),
        ({"frames": 50}, "not a multiple"),
        ({"direction": "Fo-Bi"}, "direction"),
    ],
)
def test_impossible_configurations_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        SpectrogramTransformerConfig(**SMALL | changes)


@pytest.mark.parametrize("size", ["nano", "tiny", "small", "base"])
def test_sizes_match_the_audio_mamba_of_their_name(size):
    from aumcli.config import AudioMambaConfig

    with torch.device("meta"):
        aum, ast = (
            sum(x.numel() for x in build_network(kind(size=size)).parameters())
            for kind in (AudioMambaConfig, SpectrogramTransformerConfig)
        )
    assert 0.8 < ast / aum < 1.25, f"{aum:,} and {ast:,} parameters"

"""AST directories of Hugging Face transformers: config.json, preprocessor_config.json, model.safetensors,
in both directions.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aumcli.checkpoints.directory import CONFIG, WEIGHTS
from aumcli.checkpoints.tensors import read_tensors
from aumcli.config import FrontendConfig, ModelConfig, SpectrogramTransformerConfig
from aumcli.errors import AumError
from aumcli.utils.files import atomic_path, write_json

PREPROCESSOR = "preprocessor_config.json"
TYPE = "audio-spectrogram-transformer"
_BODY = "audio_spectrogram_transformer."
# their names -> ours, longest first where one contains another
_NAMES = (
    (_BODY + "embeddings.patch_embeddings.projection", "v.patch_embed.proj"),
    (_BODY + "embeddings.distillation_token", "v.dist_token"),
    (_BODY + "embeddings.cls_token", "v.cls_token"),
    (_BODY + "embeddings.position_embeddings", "v.pos_embed"),
    (_BODY + "encoder.layer.", "v.blocks."),
    (_BODY + "layernorm", "v.norm"),
    (".layernorm_before", ".norm1"),
    (".layernorm_after", ".norm2"),
    (".attention.output.dense", ".attn.proj"),
    (".intermediate.dense", ".mlp.fc1"),
    (".output.dense", ".mlp.fc2"),
    ("classifier.layernorm", "mlp_head.0"),
    ("classifier.dense", "mlp_head.1"),
)
_PARTS = ("query", "key", "value")  # one projection here, three there


def is_directory(folder: Path) -> bool:
    """Whether a folder's config.json is that of an AST of transformers."""
    return (folder / CONFIG).is_file() and _json(folder / CONFIG).get("model_type") == TYPE


def read(folder: Path) -> tuple[dict[str, Tensor], SpectrogramTransformerConfig, tuple[str, ...], FrontendConfig, str]:
    """Read a directory: tensors under our names, network, labels, frontend, activation.

    Raises:
        AumError: a file is missing or damaged, or the model computes something that ours can't.
    """
    said = _json(folder / CONFIG)
    extractor = _json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    try:
        tensors = _ours(read_tensors(folder / WEIGHTS))
        classes, width = tensors["mlp_head.1.weight"].shape
        patch, eps = int(said["patch_size"]), float(said["layer_norm_eps"])
        held = {
            "hidden_size": width,
            "num_hidden_layers": sum(".attn.qkv.weight" in name for name in tensors),
            "intermediate_size": len(tensors["v.blocks.0.mlp.fc1.weight"]),
        }
        if wrong := [key for key, value in held.items() if said[key] != value]:
            raise ValueError(f"{wrong[0]} is {said[wrong[0]]}, but {held[wrong[0]]} in {WEIGHTS}")
        if said["frequency_stride"] != said["time_stride"] or said["hidden_act"] != "gelu" or not said["qkv_bias"]:
            raise AumError(
                f"{folder / CONFIG} asks for what is not built here: other strides in time and frequency, another "
                "activation than gelu, or no bias of qkv",
                fix="only the usual AST can be read",
            )
        model = SpectrogramTransformerConfig(
            width=width,
            depth=said["num_hidden_layers"],
            heads=said["num_attention_heads"],
            mlp_width=said["intermediate_size"],
            distilled=True,
            n_classes=classes,
            n_mels=said["num_mel_bins"],
            frames=said["max_length"],
            patch_mels=patch,
            patch_frames=patch,
            overlap=patch - said["time_stride"],
            norm_eps=eps,
            head_norm_eps=eps,
        )
        if model.n_patches + 2 != tensors["v.pos_embed"].shape[1]:
            raise ValueError(
                f"{model.n_patches} patches, but {tensors['v.pos_embed'].shape[1] - 2} positions in {WEIGHTS}"
            )
        labels = tuple(str(said["id2label"][str(i)]) for i in range(classes))
        frontend = FrontendConfig(
            n_mels=model.n_mels,
            frames=model.frames,
            **{
                ours: kind(extractor[theirs])
                for theirs, ours, kind in (
                    ("mean", "mean", float),
                    ("std", "std", float),
                    ("sampling_rate", "sample_rate_hz", int),
                )
                if theirs in extractor
            },
        )
    except KeyError as error:
        raise AumError(f"{folder} lacks {error}", fix="get the whole directory again", exit_code=1) from error
    except (TypeError, ValueError) as error:
        raise AumError(
            f"{folder / CONFIG} describes no AST that exists: {error}", fix="get the directory again", exit_code=1
        ) from error
    sigmoid = (
        said.get("problem_type") == "multi_label_classification" or said.get("problem_type") is None and classes == 527
    )
    return tensors, model, labels, frontend, "sigmoid" if sigmoid else "softmax"


def write(folder: Path | str, tensors: dict[str, Tensor], config: ModelConfig) -> list[str]:
    """Write a directory that `ASTForAudioClassification.from_pretrained` takes; returns what transformers can't say.

    Raises:
        AumError: transformers has no such model (an AuM, or an AST without a distillation token), or no such frontend.
    """
    from safetensors.torch import save

    model, folder = config.model, Path(folder)
    if (
        not isinstance(model, SpectrogramTransformerConfig)
        or not model.distilled
        or model.tokenizer != "patches"
        or model.patch_mels != model.patch_frames
    ):
        raise AumError(
            f"transformers has no such model: {model.describe()}"
            f"{'' if model.architecture == 'aum' else ', not distilled'}",
            fix="only a distilled AST with square patches exists there",
        )
    if config.activation == "softmax_background":
        raise AumError(
            "transformers has no model with a background class, without which its scores would be others",
            fix="export it to ONNX, whose logits can be completed by a 0",
        )
    fixed = config.frontend.model_dump(
        exclude={"n_mels", "frames", "sample_rate_hz", "mean", "std"}
    )  # which can be said
    if other := [key for key, value in fixed.items() if value != getattr(FrontendConfig(), key)]:
        raise AumError(
            f"transformers has no such frontend: its {other[0]} is {getattr(config.frontend, other[0])}",
            fix="only Kaldi's features from 20 Hz to half the sample rate in windows of 25 ms every 10 ms exist there",
        )
    names = {str(i): label for i, label in enumerate(config.labels)}
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(
            save({name: x.contiguous() for name, x in sorted(_theirs(tensors).items())}, metadata={"format": "pt"})
        )
    write_json(
        folder / PREPROCESSOR,
        {
            "feature_extractor_type": "ASTFeatureExtractor",
            "do_normalize": True,
            "feature_size": 1,
            "max_length": model.frames,
            "mean": config.frontend.mean,
            "std": config.frontend.std,
            "num_mel_bins": model.n_mels,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": False,
            "sampling_rate": config.frontend.sample_rate_hz,
        },
    )
    write_json(
        folder / CONFIG,
        {
            "architectures": ["ASTForAudioClassification"],
            "model_type": TYPE,
            "hidden_size": model.width,
            "num_hidden_layers": model.depth,
            "num_attention_heads": model.heads,
            "intermediate_size": model.mlp_width or 4 * model.width,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.02,
            "layer_norm_eps": model.norm_eps,
            "patch_size": model.patch_mels,
            "qkv_bias": True,
            "frequency_stride": model.patch_mels - model.overlap,
            "time_stride": model.patch_frames - model.overlap,
            "max_length": model.frames,
            "num_mel_bins": model.n_mels,
            "id2label": names,
            "label2id": {label: int(i) for i, label in names.items()},
            "problem_type": "multi_label_classification"
            if config.activation == "sigmoid"
            else "single_label_classification",
        },
    )
    return (
        []
        if model.norm_eps == model.head_norm_eps
        else [
            f"transformers has one epsilon for all norms: the head's {model.head_norm_eps:g} becomes {model.norm_eps:g}"
        ]
    )


def _ours(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, x in tensors.items():
        for theirs, ours in _NAMES:
            name = name.replace(theirs, ours)
        renamed[name] = x
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [renamed.pop(name.replace("query", part)) for part in _PARTS]
        renamed[name.replace("attention.attention.query", "attn.qkv")] = torch.cat(parts)  # (3 d, d) or (3 d)
    return renamed


def _theirs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, x in tensors.items():
        if ".attn.qkv." in name:
            parts = {
                name.replace("attn.qkv", f"attention.attention.{part}"): each for part, each in zip(_PARTS, x.chunk(3))
            }
        else:
            parts = {name: x}
        for name, x in parts.items():
            for (
                theirs,
                ours,
            ) in _NAMES:  # "v.norm" is no part of ".norm1", ".mlp.fc2" is made last of all that end in ".dense"
                name = name.replace(ours, theirs)
            renamed[name] = x
    return renamed


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AumError(f"can't read {path}: {error}", fix="get the directory again", exit_code=1) from error
    if not isinstance(content, dict):
        raise AumError(f"{path} is no JSON object", fix="get the directory again", exit_code=1)
    return content

"""Parameter groups of the optimizer, learning rate schedule, exponential moving average of the weights."""

import math
import re

import torch
from torch import nn

from aumcli.config import TrainConfig
from aumcli.core.network import SpectrogramNetwork

_BLOCK = re.compile(r"(?:layers|blocks)\.(\d+)\.")
HEADS = ("head.", "mlp_head.")
_INPUTS = ("patch_embed.", "_token", "pos_embed")


def make_optimizer(network: SpectrogramNetwork, settings: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer of a network: Adam with weight decay in the gradient, as published, or AdamW.

    AdamW decays neither gains, biases, class tokens and positions nor A and D of the state space models. A parameter
    group's "scale" multiplies its learning rate: train.layer_decay for each block between it and the head.

    Args:
        network: parameters that `train.freeze` excludes are frozen.
        settings: optimizer, lr, betas, weight_decay, layer_decay and freeze are read.
    """
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    depth = network.config.depth
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, x in network.named_parameters():
        if settings.freeze == "backbone" and not name.startswith(HEADS):
            x.requires_grad_(False)
            continue
        spared = settings.optimizer == "adamw" and (x.ndim < 2 or name.endswith(("_log", "_token", "pos_embed")))
        groups.setdefault((spared, settings.layer_decay ** (depth + 1 - _layer(name, depth))), []).append(x)
    return kind(
        [
            {"params": parameters, "weight_decay": 0.0 if spared else settings.weight_decay, "scale": scale}
            for (spared, scale), parameters in sorted(groups.items())
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=True,
    )


def _layer(name: str, depth: int) -> int:
    """Layer of a parameter: 0 the tokenizer, 1 to depth the blocks, depth + 1 the last norm and the head."""
    block = _BLOCK.search(name)
    if block:
        return 1 + int(block[1])
    return 0 if any(part in name for part in _INPUTS) else depth + 1


def learning_rate(settings: TrainConfig, epochs: float, steps_per_epoch: int = 1) -> float:
    """The learning rate of the schedule.

    Args:
        settings: of the schedule.
        epochs: since the start, a fraction within an epoch.
        steps_per_epoch: for warm-up in steps.
    """
    warmup = settings.warmup_steps / steps_per_epoch or settings.warmup_epochs
    if epochs < warmup:
        step = round(epochs * steps_per_epoch, 6)  # an integer but for rounding
        risen = (
            epochs
            if settings.warmup_every == 1
            else step // settings.warmup_every * settings.warmup_every / steps_per_epoch
        )
        return settings.lr * (settings.warmup_start + (1 - settings.warmup_start) * risen / warmup)
    if settings.schedule == "cosine":
        done = (epochs - warmup) / max(settings.epochs - warmup, 1e-9)
        return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if settings.schedule == "steps" and epochs >= settings.decay_start:
        return settings.lr * settings.decay_factor ** (1 + int((epochs - settings.decay_start) / settings.decay_every))
    return settings.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, times its scale, of each parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def update_ema(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the exponential moving average towards the trained weights; faster in the first steps, when it is poor.

    Args:
        averaged: whose parameters are moved.
        network: the trained weights.
        decay: share of the average that stays, per step.
        step: steps done since the start of the training.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - decay)

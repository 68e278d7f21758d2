"""Why a loss or a gradient is no number: the first layer that gives one, the gradients, the clips."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from aumcli.train.setup import TrainState, autocast
from aumcli.utils.text import counted

ELSEWHERE = "in another process"


def diagnose(
    state: TrainState, number: int, batch: list[int], loss: float, norm: float, features: Tensor | None
) -> str:
    """Describe a step whose loss or gradient is no number.

    Args:
        run: as the step left it, the weights not moved.
        number: of the epoch, from 0.
        batch: the step's clips.
        loss: over the batch.
        norm: of the gradient.
        features: (b, frames, mels), on which this process' loss became no number, or the last; None: it had no clips.
    """
    broken = [name for name, x in state.network.named_parameters() if not torch.isfinite(x).all()]
    grads = [
        name for name, x in state.network.named_parameters() if x.grad is not None and not torch.isfinite(x.grad).all()
    ]
    if features is not None and not torch.isfinite(features).all():
        where = "the features already are none"
    elif broken:
        where = f"the weights {broken[0]} already are none"
    elif features is not None and (layer := _first_layer(state, features)):
        where = f"{layer} is the first layer that gives one"
    elif math.isfinite(loss):
        where = (
            f"every layer's output is one, the gradients of {counted(len(grads), 'tensor')} are not, "
            f"{grads[-1]} the first"
            if grads
            else "the gradients are too large to be squared"
        )
    else:
        where = ELSEWHERE if state.process_group.size > 1 else "every layer's output is one, the loss itself is not"
    files = ", ".join(_name(state, state.train.clips[clip].path) for clip in batch)
    return (
        f"the loss or its gradient is no number at epoch {number + 1}, step {state.epoch.step + 1} "
        f"(loss {loss:g}, gradient norm {norm:g}, learning rate {state.rate:.3g}; {where}; clips {files})"
    )


def _name(state: TrainState, path: Path) -> str:
    """A clip's file, from the data's folder on where it is in there."""
    return str(path.relative_to(state.data) if path.is_relative_to(state.data) else path)


def _first_layer(state: TrainState, features: Tensor) -> str:
    """Name of the first module whose output is not finite; "" if all are."""
    found: list[str] = []

    def hook(name: str):
        def look(module: nn.Module, inputs: object, output: object) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and not all(torch.isfinite(x).all() for x in tensors if isinstance(x, Tensor)):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(hook(name)) for name, module in state.network.named_modules() if name]
    try:
        with torch.no_grad(), autocast(state):
            state.network(features)
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else ""

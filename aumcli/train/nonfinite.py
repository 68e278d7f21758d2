"""Why a loss or a gradient is not finite: the first layer whose output is not, the gradients, the clips."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from aumcli.train.setup import TrainState, autocast
from aumcli.utils.text import counted

ELSEWHERE = "in another process"


def diagnose(state: TrainState, epoch: int, batch: list[int], loss: float, norm: float, features: Tensor | None) -> str:
    """Describe a step whose loss or gradient is not finite.

    Args:
        state: after the backward pass, before the weights moved.
        epoch: its number, from 0.
        batch: training clips of the step.
        loss: mean over the batch.
        norm: of the gradient.
        features: (b, frames, mels), of this process' first microbatch without a finite loss, else its last one; None:
            it had no clips.
    """
    what = "loss" if not math.isfinite(loss) else "gradient"
    files = ", ".join(_name(state, state.train.clips[clip].path) for clip in batch)
    return (
        f"{what} is not finite at epoch {epoch + 1}, step {state.epoch.step + 1} "
        f"(loss {loss:g}, gradient norm {norm:g}, learning rate {state.rate:.3g}; {_origin(state, loss, features)}; "
        f"clips {files})"
    )


def _origin(state: TrainState, loss: float, features: Tensor | None) -> str:
    """Where the first value that is not finite comes from."""
    parameters = dict(state.network.named_parameters())
    weights = [name for name, x in parameters.items() if not torch.isfinite(x).all()]
    gradients = [name for name, x in parameters.items() if x.grad is not None and not torch.isfinite(x.grad).all()]
    if features is not None and not torch.isfinite(features).all():
        return "the features are not finite"
    if weights:
        return f"the weights {weights[0]} are not finite"
    if features is not None and (layer := _first_layer(state, features)):
        return f"the first layer whose output is not finite is {layer}"
    if math.isfinite(loss) and gradients:
        tensors = counted(len(gradients), "tensor")
        return f"all outputs are finite, the gradients of {tensors} are not, first {gradients[-1]}"
    if math.isfinite(loss):
        return "all gradients are finite, the sum of their squares is not"
    return ELSEWHERE if state.process_group.size > 1 else "all outputs are finite, the loss is not"


def _name(state: TrainState, path: Path) -> str:
    """A clip's file, relative to the data's folder where it is in there."""
    return str(path.relative_to(state.data) if path.is_relative_to(state.data) else path)


def _first_layer(state: TrainState, features: Tensor) -> str:
    """Name of the first module whose output is not finite; "" if all are."""
    found: list[str] = []

    def hook(name: str) -> Callable[[nn.Module, object, object], None]:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and not all(torch.isfinite(x).all() for x in tensors if isinstance(x, Tensor)):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(hook(name)) for name, module in state.network.named_modules() if name]
    try:
        with torch.no_grad(), autocast(state):
            state.forward(features)
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else ""

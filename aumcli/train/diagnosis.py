"""Why a loss or a gradient is no number: the first layer that gives one, the gradients, the clips."""

import torch
from torch import Tensor, nn

from aumcli.train.run import Run


def diagnose(run: Run, number: int, batch: list[int], loss: float, norm: float, features: Tensor | None) -> str:
    """Describe a step whose loss or gradient is no number.

    Args:
        run: as the step left it, the weights not moved.
        number: of the epoch, from 0.
        batch: the step's clips.
        loss: over the batch.
        norm: of the gradient.
        features: (b, frames, mels), the last that this process computed on; None: it had no clips.
    """
    broken = [name for name, x in run.network.named_parameters() if not torch.isfinite(x).all()]
    grads = [name for name, x in run.network.named_parameters() if x.grad is not None and not torch.isfinite(x.grad).all()]
    if features is not None and not torch.isfinite(features).all():
        where = "the features already are none"
    elif broken:
        where = f"the weights {broken[0]} already are none"
    elif features is not None and (layer := _first_layer(run.network, features)):
        where = f"{layer} is the first layer that gives one"
    else:
        where = f"every layer's output is one, the gradients of {len(grads)} tensors are not, {grads[-1]} the first" if grads else "in another process"
    files = ", ".join(str(run.train.clips[i].path.name) for i in batch[:5]) + (f" and {len(batch) - 5} more" if len(batch) > 5 else "")
    return (f"the loss or its gradient is no number at epoch {number + 1}, step {run.epoch.step + 1} (loss {loss:g}, gradient norm {norm:g}, "
            f"learning rate {run.optimizer.param_groups[-1]['lr']:.3g}; {where}; clips {files})")


def _first_layer(network: nn.Module, features: Tensor) -> str:
    """Name of the first module whose output is not finite; "" if all are."""
    found: list[str] = []

    def hook(name: str):
        def look(module: nn.Module, inputs: object, output: object) -> None:
            tensors = output if isinstance(output, tuple) else (output,)
            if not found and not all(torch.isfinite(x).all() for x in tensors if isinstance(x, Tensor)):
                found.append(name)
        return look

    hooks = [module.register_forward_hook(hook(name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(features)
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else ""

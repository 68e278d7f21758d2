"""Use a kernel alone: python examples/kernel.py.

Runs the selective scan and its gradients with every backend that this machine has, and prints how far each is from the
reference, the plain loop that defines it.
"""

import torch
from torch import Tensor

from aumcli.core.kernels import available_backends, selective_scan

b, l, e, n = 2, 100, 32, 8  # clips, tokens, channels, states


def inputs(device: str) -> dict[str, Tensor]:
    """What a scan takes, the same numbers on every device."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "u": normal(b, l, e),
        "delta": normal(b, l, e),  # a softplus makes it positive
        "A": -torch.exp(normal(e, n)),  # decays
        "B": normal(b, l, n),
        "C": normal(b, l, n),
        "D": normal(e),
        "z": normal(b, l, e),  # gate
        "delta_bias": normal(e),
    }
    return {name: x.to(device).requires_grad_() for name, x in tensors.items()}


def scan(backend: str, device: str) -> dict[str, Tensor]:
    """The output y (b, l, e) and the gradient of its sum with respect to each input."""
    tensors = inputs(device)
    y = selective_scan(**tensors, backend=backend)
    y.sum().backward()
    return {"y": y.detach(), **{name: x.grad for name, x in tensors.items()}}


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = scan("reference", device)
    for backend, reason in available_backends(device).items():
        if reason:
            print(f"{backend:<10} can't run: {reason}")
            continue
        found = scan(backend, device)
        errors = {name: ((found[name] - x).abs().max() / x.abs().max()).item() for name, x in wanted.items()}
        worst = max(errors, key=lambda name: errors[name])
        print(f"{backend:<10} y {errors['y']:.1e}, largest of all gradients {errors[worst]:.1e} ({worst})")


if __name__ == "__main__":
    main()

"""The Mamba mixer in the paper's three kinds (figure 1): Fo-Fo, Fo-Bi and Bi-Bi."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aumcli.config import AudioMambaConfig, Direction
from aumcli.core.kernels import bidirectional_scan, causal_conv1d, selective_scan

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # the step sizes that a fresh model starts from


class Mixer(nn.Module):
    """Mix tokens along the sequence: input projection, causal convolution, selective scan, gate, output projection.

    Fo-Fo scans forward. Fo-Bi convolves once and scans the result in both directions, which share all but A; the
    two are added. Bi-Bi has a second convolution and scan of its own for the reversed sequence; the two are averaged.

    Args:
        config: widths and direction.
        backend: kernel backend (see `aumcli.core.kernels`).
    """

    A_log: nn.Parameter
    A_b_log: nn.Parameter  # Fo-Bi and Bi-Bi only

    def __init__(self, config: AudioMambaConfig, backend: str = "auto"):
        super().__init__()
        self.direction, self.backend = config.direction, backend
        self.published_gate_gradient, self.conv_kernel = config.published_gate_gradient, config.conv_kernel
        self.splits = (config.dt_rank, config.state_size, config.state_size)
        self.in_proj = nn.Linear(config.width, 2 * config.inner_width, bias=False)
        self._add_branch(config, "")
        if config.direction is Direction.FO_BI:
            self.A_b_log = nn.Parameter(_initial_A_log(config))
        if config.direction is Direction.BI_BI:
            self._add_branch(config, "_b")
        self.out_proj = nn.Linear(config.inner_width, config.width, bias=False)

    def _add_branch(self, config: AudioMambaConfig, suffix: str) -> None:
        """Add one direction's parameters under the published names."""
        e, k = config.inner_width, config.conv_kernel
        setattr(self, f"conv1d{suffix}", nn.Conv1d(e, e, k, groups=e, padding=k - 1))
        setattr(self, f"x_proj{suffix}", nn.Linear(e, sum(self.splits), bias=False))
        setattr(self, f"dt_proj{suffix}", nn.Linear(config.dt_rank, e))
        setattr(self, "A_b_log" if suffix else "A_log", nn.Parameter(_initial_A_log(config)))
        setattr(self, f"D{suffix}", nn.Parameter(torch.ones(e)))

    def reset_parameters(self, depth: int) -> None:
        """Draw the published initial values (depth: number of blocks, by whose root out_proj is divided)."""
        for suffix, _ in self.branches:
            dt_proj = getattr(self, f"dt_proj{suffix}")
            bound = dt_proj.in_features**-0.5
            nn.init.uniform_(dt_proj.weight, -bound, bound)
            low, high = math.log(DT_MIN), math.log(DT_MAX)
            dt = torch.exp(torch.rand_like(dt_proj.bias) * (high - low) + low).clamp(min=DT_FLOOR)  # (e)
            with torch.no_grad():
                # the inverse of softplus; the published code leaves the reversed branch's bias at zero
                dt_proj.bias.copy_(torch.zeros_like(dt) if suffix else dt + torch.log(-torch.expm1(-dt)))
        nn.init.kaiming_uniform_(self.out_proj.weight, a=math.sqrt(5))
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(depth)

    @property
    def branches(self) -> tuple[tuple[str, bool], ...]:
        """Suffix of the parameters' names of each branch, and whether it runs from the last token to the first."""
        return (("", False), ("_b", True)) if self.direction is Direction.BI_BI else (("", False),)

    def convolve(self, x: Tensor, suffix: str, reverse: bool) -> Tensor:
        """Convolve one branch's input (b, l, e) causally, in its direction."""
        conv = getattr(self, f"conv1d{suffix}")
        return causal_conv1d(x, conv.weight[:, 0], conv.bias, reverse=reverse, backend=self.backend)

    def project(self, u: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Project one branch's convolved input u (b, l, e) to dt (b, l, r), delta (b, l, e), B, C (b, l, n)."""
        dt, B, C = getattr(self, f"x_proj{suffix}")(u).split(self.splits, dim=-1)
        # dt_proj's bias enters inside the scan, before softplus
        return dt, F.linear(dt, getattr(self, f"dt_proj{suffix}").weight), B, C

    def ssm_parameters(self, suffix: str) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """A of a branch, A of its reversed direction for Fo-Bi, (e, n) each; D and the bias of delta, (e) each."""
        A_log = self.A_b_log if suffix else self.A_log
        A_b = -torch.exp(self.A_b_log.float()) if self.direction is Direction.FO_BI else None
        return (
            -torch.exp(A_log.float()),
            A_b,
            getattr(self, f"D{suffix}").float(),
            getattr(self, f"dt_proj{suffix}").bias.float(),
        )

    def scan(self, u: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor, suffix: str, reverse: bool) -> Tensor:
        """Scan one branch, a Fo-Bi's in both directions: u, delta, z (b, l, e); B, C (b, l, n) -> (b, l, e)."""
        A, A_b, D, bias = self.ssm_parameters(suffix)
        if A_b is None:
            return selective_scan(u, delta, A, B, C, D, z, bias, reverse=reverse, backend=self.backend)
        return bidirectional_scan(
            u,
            delta,
            A,
            A_b,
            B,
            C,
            D,
            z,
            bias,
            backend=self.backend,
            published_gate_gradient=self.published_gate_gradient,
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (b, l, d) to (b, l, d)."""
        return self.mix(self.in_proj(tokens))

    def mix(self, projected: Tensor) -> Tensor:
        """Map the output of in_proj, inputs and gates (b, l, 2 e), to (b, l, d)."""
        x, z = projected.chunk(2, dim=-1)  # (b, l, e) each
        y: Tensor | None = None
        for suffix, reverse in self.branches:
            u = self.convolve(x, suffix, reverse)
            _, delta, B, C = self.project(u, suffix)
            branch = self.scan(u, delta, B, C, z, suffix, reverse)  # (b, l, e)
            y = branch if y is None else (y + branch) / 2
        tokens: Tensor = self.out_proj(y)
        return tokens


def _initial_A_log(config: AudioMambaConfig) -> Tensor:
    """log(1 .. n) for every channel, (e, n)."""
    states = torch.arange(1, config.state_size + 1, dtype=torch.float32, device="cpu")
    return torch.empty(config.inner_width, config.state_size).copy_(torch.log(states))

"""Every backend of the kernels against the reference: time and largest difference, forward and backward.

    python benchmarks/kernel_backends.py [--max-tokens 2048] [--dtype bfloat16] [--device cuda] > kernels.md

Scan, convolution and norm have the sizes of the first AuM's block; the options are those of `aum bench`.
difference: the largest one from the reference in float64, over the largest value; of gradients: that of the gradient
that differs most, and its name.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from harness import parse_sweep, print_environment, print_section, scan_inputs
from torch import Tensor

from aumcli.bench import BenchConfig, Sweep, network_config
from aumcli.bench.interleave import quartiles, run_interleaved
from aumcli.bench.measurement import timed
from aumcli.bench.tables import milliseconds, title
from aumcli.config import AudioMambaConfig
from aumcli.core import kernels as implementations
from aumcli.errors import AumError

KERNELS = {
    "bidirectional scan": "bidirectional_scan",
    "causal convolution": "causal_conv1d",
    "add and RMS norm": "add_rms_norm",
}
COLUMNS = ("backend", "forward", "backward", "difference", "of gradients")
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class KernelConfig:
    """What one process measures; the sizes are those of the model's block."""

    kernel: str
    backend: str
    bench: BenchConfig


@dataclass
class KernelMeasurement:
    """What was measured of one backend."""

    config: KernelConfig
    samples_ms: dict[str, list[float]] = field(default_factory=dict)  # forward, backward
    differences: dict[str, float] = field(default_factory=dict)  # likewise
    worst_gradient: str = ""
    failure: str = ""

    def median_ms(self, direction: str) -> float:
        """Median of the forward or backward pass."""
        return quartiles(self.samples_ms[direction])[1]


def measure_kernels(sweep: Sweep) -> Iterator[list[KernelMeasurement]]:
    """Time every backend of scan, convolution and norm, and compare it with the reference in float64.

    Yields:
        The backends of one kernel at one length; those that can't run have a failure, the reason.

    Raises:
        AumError: there is no AuM among the models.
    """
    is_aum = (isinstance(network_config(each, sweep.min_tokens)[0], AudioMambaConfig) for each in sweep.models)
    model = next((each for each, aum in zip(sweep.models, is_aum) if aum), None)
    if model is None:
        raise AumError("the kernels take their sizes from an AuM, and --models has none", fix="--models aum-base")
    refusals = implementations.available_backends(sweep.device.split(":")[0])
    for dtype in sweep.dtypes:
        for tokens in sweep.lengths:
            for kernel in KERNELS:
                bench = sweep.config(model, tokens, dtype=dtype)
                configs = [KernelConfig(kernel, backend, bench) for backend in refusals]
                able = [each for each in configs if not refusals[each.backend]]
                samples = dict(zip(able, run_interleaved(timed_kernel, able, sweep.stopping_rule)))
                yield [
                    KernelMeasurement(each, samples[each].ms, **samples[each].facts, failure=samples[each].failure)
                    if each in samples
                    else KernelMeasurement(each, failure=refusals[each.backend])
                    for each in configs
                ]


def table_title(measurements: Sequence[KernelMeasurement]) -> str:
    """What the backends of one kernel were measured with."""
    config = measurements[0].config
    common = title(config.bench).partition(", ")[2]
    return f"{config.kernel}, sizes of {config.bench.model}, {config.bench.tokens:,} tokens, {common}"


def table_rows(measurements: Sequence[KernelMeasurement]) -> list[list[str]]:
    """A row for each backend."""
    return [
        [each.config.backend, each.failure, "-", "-", "-"]
        if each.failure
        else [
            each.config.backend,
            milliseconds(each.median_ms(FORWARD)),
            milliseconds(each.median_ms(BACKWARD)),
            f"{each.differences[FORWARD]:.1e}",
            f"{each.differences[BACKWARD]:.1e} ({each.worst_gradient})",
        ]
        for each in measurements
    ]


def timed_kernel(config: KernelConfig) -> Iterator[tuple[dict[str, float], dict[str, object]]]:
    """Run a kernel forward and backward, again and again; the first time, compare it with the reference in float64.

    Yields:
        Milliseconds by direction; the differences.
    """
    torch.set_num_threads(config.bench.threads)
    named, options = kernel_inputs(config)
    truth, gradients = exact_results(config, named, options)
    forward, backward = passes(config.kernel, config.backend, named, options)
    y = forward()
    wrong = {name: difference(ours, gradients[name]) for name, ours in zip(named, backward(y))}
    worst = max(wrong, key=lambda name: wrong[name])
    differences = {FORWARD: difference(y.detach(), truth), BACKWARD: wrong[worst]}
    del truth, gradients, y
    while True:
        forward_ms, y = timed(forward, config.bench.device)
        backward_ms, _ = timed(lambda: backward(y), config.bench.device)
        yield {FORWARD: forward_ms, BACKWARD: backward_ms}, {"differences": differences, "worst_gradient": worst}


def exact_results(
    config: KernelConfig, named: dict[str, Tensor], options: list[float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The reference's output in float64, and its gradients by name."""
    exact = {name: x.detach().double() for name, x in named.items()}
    forward, backward = passes(config.kernel, "reference", exact, options)
    y = forward()
    return y.detach(), dict(zip(exact, backward(y)))


def passes(
    kernel: str, backend: str, named: dict[str, Tensor], options: list[float]
) -> tuple[Callable[[], Tensor], Callable[[Tensor], Sequence[Tensor]]]:
    """The forward pass, and the backward pass of what it returns."""
    function, leaves = getattr(implementations, KERNELS[kernel]), [x.requires_grad_() for x in named.values()]

    def forward() -> Tensor:
        y = function(*leaves, *options, backend=backend)
        return y[0] if isinstance(y, tuple) else y

    return forward, lambda y: torch.autograd.grad(y, leaves, torch.ones_like(y))


def difference(ours: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((ours.double() - exact).abs().max() / exact.abs().max())


def kernel_inputs(config: KernelConfig) -> tuple[dict[str, Tensor], list[float]]:
    """A kernel's tensors by name, as in a fresh model, and its other arguments."""
    bench = config.bench
    model = network_config(bench.model, bench.tokens)[0]
    device, dtype = torch.device(bench.device), getattr(torch, bench.dtype)
    shape = bench.batch, bench.tokens + 1
    torch.manual_seed(bench.seed)
    named, options = {}, []
    if config.kernel == "bidirectional scan":
        named = scan_inputs(model, shape[1], shape[0], dtype, bench.seed)
    elif config.kernel == "causal convolution":
        x = torch.randn(*shape, model.inner_width)
        conv = torch.nn.Conv1d(model.inner_width, model.inner_width, model.conv_kernel, groups=model.inner_width)
        named = {"x": x, "weight": conv.weight[:, 0].detach(), "bias": conv.bias.detach()}
        named = {name: each.to(dtype) for name, each in named.items()}
    else:
        x, residual = (torch.randn(*shape, model.width) for _ in range(2))
        named, options = {"x": x.to(dtype), "residual": residual, "weight": torch.ones(model.width)}, [model.norm_eps]
    return {name: x.to(device) for name, x in named.items()}, options


def main() -> None:
    """Print a table for each kernel and length."""
    sweep = parse_sweep(__doc__, "aum-base")
    print_environment()
    for measurements in measure_kernels(sweep):
        print_section(table_title(measurements), COLUMNS, table_rows(measurements))


if __name__ == "__main__":
    main()

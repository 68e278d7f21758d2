"""Every backend of the kernels against the reference: time and largest difference, forward and backward."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aumcli.bench.interleave import Samples, quartiles, run_interleaved
from aumcli.bench.measurement import BenchConfig, network_config, timed
from aumcli.bench.results import here
from aumcli.bench.sweep import Sweep
from aumcli.bench.tables import aligned, milliseconds, title, write_tables
from aumcli.config import AudioMambaConfig, Direction
from aumcli.errors import AumError
from aumcli.utils.files import check_writable

KERNELS = {"scan, both ways": "bidirectional_scan", "convolution": "causal_conv1d", "add and norm": "add_rms_norm"}
COLUMNS = ("backend", "forward", "backward", "difference", "of gradients")
NOTE = (
    "difference: the largest one from the reference in float64, over the largest value; of gradients: "
    "that of the worst\none, and its name."
)
FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class KernelConfig:
    """What one process measures; the sizes are those of the model's block."""

    kernel: str
    backend: str
    setting: BenchConfig


@dataclass
class KernelMeasurement:
    """What was measured of one backend."""

    setting: KernelConfig
    samples_ms: dict[str, list[float]] = field(default_factory=dict)  # forward, backward
    differences: dict[str, float] = field(default_factory=dict)  # likewise: see NOTE
    worst: str = ""  # the gradient with the largest one
    failure: str = ""

    def median_ms(self, way: str) -> float:
        """Median of the forward or backward pass."""
        return quartiles(self.samples_ms[way])[1]


def kernels(sweep: Sweep, out: Path | str | None = None) -> Iterator[list[KernelMeasurement]]:
    """Time every backend of scan, convolution and norm, and compare it with the reference in float64.

    Args:
        sweep: its first AuM gives the sizes; lengths, types, device and batch.
        out: folder for kernels.json and kernels.md; None: nothing is written.

    Yields:
        The backends of one kernel at one length; those that can't run have a failure, the reason.

    Raises:
        AumError: there is no AuM among the models.
    """
    from aumcli.core.kernels import available_backends

    model = next(
        (each for each in sweep.models if network_config(each, sweep.min_tokens)[0].architecture == "aum"), None
    )
    if model is None:
        raise AumError(
            "--kernels takes its sizes from an AuM, and there is none among the models", fix="--models aum-base"
        )
    if out is not None:
        check_writable(Path(out) / "kernels.json")
    refused, done = available_backends(sweep.device.split(":")[0]), []
    for dtype in sweep.dtypes:
        for tokens in sweep.lengths:
            for kernel in KERNELS:
                settings = [
                    KernelConfig(kernel, backend, sweep.setting(model, tokens, dtype=dtype)) for backend in refused
                ]
                able = [each for each in settings if not refused[each.backend]]
                measured = {
                    each: _point(each, samples)
                    for each, samples in zip(able, run_interleaved(timed_kernel, able, sweep.rules))
                }
                row = [
                    measured.get(each) or KernelMeasurement(each, failure=refused[each.backend]) for each in settings
                ]
                done.append(row)
                if out is not None:
                    write_tables(
                        Path(out) / "kernels",
                        "Backends of the kernels",
                        here(sweep.device),
                        sweep.rules,
                        [asdict(point) for each in done for point in each],
                        [(_title(each), COLUMNS, _rows(each), [NOTE]) for each in done],
                    )
                yield row


def kernel_lines(rows: Iterable[Sequence[KernelMeasurement]]) -> Iterator[str]:
    """Lines to print while `kernels` runs."""
    for row in rows:
        yield _title(row)
        yield from aligned(COLUMNS, _rows(row))
        yield ""
    yield NOTE


def _title(row: Sequence[KernelMeasurement]) -> str:
    what = row[0].setting
    place = title(what.setting).partition(", ")[2]
    return f"{what.kernel}, sizes of {what.setting.model}, {what.setting.tokens:,} tokens, {place}"


def _rows(row: Sequence[KernelMeasurement]) -> list[list[str]]:
    return [
        [
            point.setting.backend,
            point.failure or milliseconds(point.median_ms(FORWARD)),
            *(
                ["-"] * 3
                if point.failure
                else [
                    milliseconds(point.median_ms(BACKWARD)),
                    f"{point.differences[FORWARD]:.1e}",
                    f"{point.differences[BACKWARD]:.1e} ({point.worst})",
                ]
            ),
        ]
        for point in row
    ]


def _point(setting: KernelConfig, samples: Samples) -> KernelMeasurement:
    return KernelMeasurement(setting, samples.ms, failure=samples.failure, **({} if samples.failure else samples.facts))


def timed_kernel(what: KernelConfig) -> Iterator[tuple[dict, dict]]:
    """Run a kernel forward and backward, again and again; the first time, compare it with the reference in float64."""
    import torch

    from aumcli.core import kernels as door

    setting = what.setting
    torch.set_num_threads(setting.threads)
    device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
    config, _, _ = network_config(setting.model, setting.tokens)
    function = getattr(door, KERNELS[what.kernel])
    named, rest = _inputs(what.kernel, config, setting, device, dtype)

    def passes(backend: str, leaves: dict):
        """The forward pass, and a function for the backward pass of what it gave."""

        def forward():
            given = function(*leaves.values(), *rest, backend=backend)
            return given[0] if isinstance(given, tuple) else given

        return forward, lambda y: torch.autograd.grad(y, list(leaves.values()), torch.ones_like(y))

    exact = {name: x.detach().double().requires_grad_() for name, x in named.items()}
    forward, backward = passes("reference", exact)
    truth = forward()
    gradients = dict(zip(named, backward(truth)))
    truth = truth.detach()
    del exact
    forward, backward = passes(what.backend, {name: x.requires_grad_() for name, x in named.items()})
    y = forward()
    wrong = {name: _difference(ours, gradients[name]) for name, ours in zip(named, backward(y))}
    worst = max(wrong, key=wrong.get)
    facts = {"differences": {FORWARD: _difference(y.detach(), truth), BACKWARD: wrong[worst]}, "worst": worst}
    del truth, gradients, y
    while True:
        forward_ms, y = timed(forward, setting.device)
        backward_ms, _ = timed(lambda: backward(y), setting.device)
        yield {FORWARD: forward_ms, BACKWARD: backward_ms}, facts


def _difference(ours, theirs) -> float:
    """The largest difference over the largest value."""
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


def _inputs(kernel: str, config: AudioMambaConfig, setting: BenchConfig, device, dtype) -> tuple[dict, list]:
    """A kernel's tensors by name, as in a fresh model, and its other arguments."""
    import torch

    from aumcli.core.mixer import Mixer

    generator = torch.Generator().manual_seed(setting.seed)

    def draw(width: int, shift: float = 0.0):
        return (torch.randn(setting.batch, setting.tokens + 1, width, generator=generator) + shift).to(device, dtype)

    e, n, d = config.inner_width, config.state_size, config.width
    torch.manual_seed(setting.seed)
    mixer = Mixer(config.model_copy(update={"direction": Direction.FO_BI}))
    A, A_b, D, bias = (x.detach().to(device) for x in mixer.rates(""))
    if kernel == "convolution":
        weight, bias = (x.detach().to(device, dtype) for x in (mixer.conv1d.weight[:, 0], mixer.conv1d.bias))
        return {"x": draw(e), "weight": weight, "bias": bias}, []
    if kernel == "add and norm":
        return {"x": draw(d), "residual": draw(d).float(), "weight": torch.ones(d, device=device)}, [config.norm_eps]
    # steps like those of a fresh model: softplus(-4) is 0.02
    return {
        "u": draw(e),
        "delta": draw(e, -4.0),
        "A": A,
        "A_b": A_b,
        "B": draw(n),
        "C": draw(n),
        "D": D,
        "z": draw(e),
        "delta_bias": bias,
    }, []

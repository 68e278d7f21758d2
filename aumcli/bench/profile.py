"""Where a block's time goes: each part alone, beside the block's matrix products alone and a copy in memory."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aumcli.bench.interleave import quartiles, run_interleaved
from aumcli.bench.measurement import BenchConfig, network_config, timed
from aumcli.bench.results import here
from aumcli.bench.sweep import Sweep
from aumcli.bench.tables import aligned, milliseconds, title, write_tables
from aumcli.utils.files import check_writable

BLOCK, PRODUCTS, COPY = "whole block", "its matrix products alone", "copy in memory"
COLUMNS = ("part", "median", "of block", "GFLOP/s", "GB/s", "of copy")
NOTE = (
    "GFLOP/s counts matrix products, GB/s the least that must be moved: inputs, weights and outputs once.\n"
    "Parts of a block that are timed alone need not add up to it."
)
COPY_BYTES = 2**28  # a buffer that no cache holds


@dataclass
class Part:
    """A part of a block, or what it is held against."""

    name: str
    operations: int  # of its matrix products, a multiplication and an addition being two
    least_bytes: int  # inputs, weights and outputs, each moved once
    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return quartiles(self.samples_ms)[1]


@dataclass
class Profile:
    """The parts of one model's block at one length; of inference, forward."""

    setting: BenchConfig
    parts: list[Part]
    failure: str = ""

    def part(self, name: str) -> Part:
        """A part by its name."""
        return next(part for part in self.parts if part.name == name)


def components(sweep: Sweep, out: Path | str | None = None) -> Iterator[Profile]:
    """Time the parts of each model's block, by type and number of tokens, in inference.

    Args:
        sweep: models, lengths, types, device and batch; the modes don't count.
        out: folder for components.json and components.md; None: nothing is written.

    Yields:
        A block's parts; a whole block, its linear layers alone, and a copy in memory end the list.
    """
    if out is not None:
        check_writable(Path(out) / "components.json")
    done = []
    for dtype in sweep.dtypes:
        for tokens in sweep.lengths:
            for model in sweep.models:
                done.append(_breakdown(sweep.setting(model, tokens, dtype=dtype), sweep.rules))
                if out is not None:
                    write_tables(
                        Path(out) / "components",
                        "Where a block's time goes",
                        here(sweep.device),
                        sweep.rules,
                        [asdict(each) for each in done],
                        [(_title(each), COLUMNS, _rows(each), [NOTE]) for each in done],
                    )
                yield done[-1]


def component_lines(breakdowns: Iterable[Profile]) -> Iterator[str]:
    """Lines to print while `components` runs."""
    for each in breakdowns:
        yield _title(each)
        yield from aligned(COLUMNS, _rows(each))
        yield ""
    yield NOTE


def _title(each: Profile) -> str:
    return f"{each.setting.model}, {each.setting.tokens:,} tokens, {title(each.setting)}"


def _rows(breakdown: Profile) -> list[list[str]]:
    if breakdown.failure:
        return [[breakdown.failure, "-", "-", "-", "-", "-"]]
    whole, copy = breakdown.part(BLOCK), breakdown.part(COPY)
    rows = []
    for part in breakdown.parts:
        rate = part.least_bytes / part.median_ms / 1e6
        rows.append(
            [
                part.name,
                milliseconds(part.median_ms),
                "-" if part is copy else f"{100 * part.median_ms / whole.median_ms:.1f} %",
                f"{part.operations / part.median_ms / 1e6:,.0f}" if part.operations else "-",
                f"{rate:,.1f}",
                f"{100 * rate / (copy.least_bytes / copy.median_ms / 1e6):.0f} %",
            ]
        )
    return rows


def _breakdown(setting: BenchConfig, rules) -> Profile:
    (samples,) = run_interleaved(timed_parts, [setting], rules)
    parts = [] if samples.failure else [Part(name, *samples.facts[name], ms) for name, ms in samples.ms.items()]
    return Profile(setting, parts, samples.failure)


def timed_parts(setting: BenchConfig) -> Iterator[tuple[dict, dict]]:
    """Run each part once, again and again: milliseconds by part, and its operations and bytes."""
    import torch

    from aumcli.core import build_network

    torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    config, backend, _ = network_config(setting.model, setting.tokens)
    config = config.model_copy(update={"depth": 1})
    device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
    with torch.inference_mode():
        network = build_network(config, backend).to(device).eval().to(dtype)
        tokens = torch.randn(setting.batch, setting.tokens + 1, config.width).to(device, dtype)
        if config.architecture == "aum":
            parts, whole, linears = _aum_parts(network.layers[0], tokens)
        else:
            parts, whole, linears = _ast_parts(network.v.blocks[0], tokens)
        source = torch.empty(COPY_BYTES // 4, device=device).fill_(1.0)
        target = torch.empty_like(source)
        calls = {
            **{name: run for name, run, _, _ in parts},
            BLOCK: whole,
            PRODUCTS: lambda: [layer(x) for layer, x in linears],
            COPY: lambda: target.copy_(source),
        }
        facts = {name: [operations, size] for name, _, operations, size in parts}
        facts[BLOCK] = [sum(each[0] for each in facts.values()), sum(each[1] for each in facts.values())]
        facts[PRODUCTS] = [_operations(linears), sum(_bytes(x, layer(x), *layer.parameters()) for layer, x in linears)]
        facts[COPY] = [0, 2 * COPY_BYTES]
        while True:
            yield {name: timed(run, setting.device)[0] for name, run in calls.items()}, facts


def _aum_parts(block, x) -> tuple[list, Callable, list]:
    """An AuM block's parts, (name, call, operations, bytes) each; the whole block;
    its linear layers with their inputs.
    """
    import torch

    mixer, stream = block.mixer, torch.randn_like(x, dtype=torch.float32)
    tokens, _ = block.norm(x, stream)
    projected = mixer.in_proj(tokens)
    inner, z = projected.chunk(2, dim=-1)  # (b, l, e) each
    convolved = [(mixer.convolve(inner, suffix, reverse), suffix, reverse) for suffix, reverse in mixer.branches]
    small = [mixer.project(u, suffix) for u, suffix, _ in convolved]
    y = mixer.scan(convolved[0][0], *small[0][1:], z, *convolved[0][1:])
    linears = [(mixer.in_proj, tokens), (mixer.out_proj, y)]
    for (u, suffix, _), (dt, *_) in zip(convolved, small):
        linears += [(getattr(mixer, f"x_proj{suffix}"), u), (getattr(mixer, f"dt_proj{suffix}"), dt)]
    weights = [layer.weight for layer, _ in linears[2:]]

    def convolve() -> None:
        for suffix, reverse in mixer.branches:
            mixer.convolve(inner, suffix, reverse)

    def project() -> None:
        for u, suffix, _ in convolved:
            mixer.project(u, suffix)

    def scan() -> None:
        for (u, suffix, reverse), (_, delta, B, C) in zip(convolved, small):
            mixer.scan(u, delta, B, C, z, suffix, reverse)

    us = [u for u, _, _ in convolved]
    parts = [
        ("norm", lambda: block.norm(x, stream), 0, _bytes(x, stream, stream, tokens)),
        (
            "in_proj",
            lambda: mixer.in_proj(tokens),
            _operations(linears[:1]),
            _bytes(tokens, projected, mixer.in_proj.weight),
        ),
        ("convolution", convolve, 0, _bytes(*(inner for _ in us), *us)),
        (
            "x_proj, dt_proj",
            project,
            _operations(linears[2:]),
            _bytes(*us, *(each for four in small for each in four), *weights),
        ),
        (
            "scan",
            scan,
            0,
            _bytes(*us, *(each for four in small for each in four[1:]), *(z for _ in us), *(y for _ in us)),
        ),
        ("out_proj", lambda: mixer.out_proj(y), _operations(linears[1:2]), _bytes(y, x, mixer.out_proj.weight)),
    ]
    return parts, lambda: block(x, stream), linears


def _ast_parts(block, x) -> tuple[list, Callable, list]:
    """An AST block's parts, as `_aum_parts` gives an AuM's."""
    attention, mlp = block.attn, block.mlp
    tokens = block.norm1(x)
    qkv = attention.qkv(tokens)
    y = attention.attend(qkv)
    hidden = mlp.fc1(tokens)
    linears = [(attention.qkv, tokens), (attention.proj, y), (mlp.fc1, tokens), (mlp.fc2, hidden)]
    weights = [layer.weight for layer, _ in linears]
    b, l, d = x.shape
    parts = [
        ("norms", lambda: (block.norm1(x), block.norm2(x)), 0, _bytes(x, x, tokens, tokens)),
        ("qkv", lambda: attention.qkv(tokens), _operations(linears[:1]), _bytes(tokens, qkv, weights[0])),
        ("attention", lambda: attention.attend(qkv), 4 * b * l * l * d, _bytes(qkv, y)),
        ("proj", lambda: attention.proj(y), _operations(linears[1:2]), _bytes(y, x, weights[1])),
        ("mlp", lambda: mlp(tokens), _operations(linears[2:]), _bytes(tokens, hidden, hidden, x, *weights[2:])),
    ]
    return parts, lambda: block(x), linears


def _operations(linears: list) -> int:
    """Multiplications and additions of linear layers."""
    return sum(2 * x.shape[0] * x.shape[1] * layer.weight.numel() for layer, x in linears)


def _bytes(*tensors) -> int:
    """Bytes of tensors; a view counts for what it shows."""
    return sum(x.numel() * x.element_size() for x in tensors)

"""Where a block's time goes: each part of it alone, beside the block's matmuls alone and a copy in memory.

    python benchmarks/profile_blocks.py [--models aum-base,ast-base,ast-base-eager] [--max-tokens 4096] > profile.md

Inference; the options are those of `aum bench`. GFLOP/s counts matmuls, GB/s the least that must be moved: inputs,
weights and outputs once. Parts of a block that are timed alone need not add up to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from harness import parse_sweep, print_environment, print_section
from torch import Tensor, nn

from aumcli.bench import BenchConfig, StoppingRule, Sweep, network_config
from aumcli.bench.interleave import quartiles, run_interleaved
from aumcli.bench.measurement import timed
from aumcli.bench.tables import milliseconds, title
from aumcli.core import build_network

BLOCK, MATMULS, COPY = "whole block", "its matmuls alone", "copy in memory"
COLUMNS = ("part", "median", "of block", "GFLOP/s", "GB/s", "of copy")
COPY_BYTES = 2**28  # a buffer that no cache holds


class Work(NamedTuple):
    """A part of a block: how to run it, the flops of its matmuls, and its inputs, weights and outputs in bytes."""

    name: str
    run: Callable[[], object]
    flops: int
    min_bytes: int


Linear = tuple[nn.Linear, Tensor]  # a linear layer and its input


@dataclass
class Part:
    """What was measured of a part of a block, or of what it is compared with."""

    name: str
    flops: int
    min_bytes: int
    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return quartiles(self.samples_ms)[1]


@dataclass
class Profile:
    """The parts of one model's block at one length; a whole block, its matmuls and a copy in memory come last."""

    config: BenchConfig
    parts: list[Part]
    failure: str = ""

    def part(self, name: str) -> Part:
        """A part by its name."""
        return next(part for part in self.parts if part.name == name)


def profile_blocks(sweep: Sweep) -> Iterator[Profile]:
    """Time the parts of each model's block, by type and number of tokens, in inference."""
    for dtype in sweep.dtypes:
        for tokens in sweep.lengths:
            for model in sweep.models:
                yield profile_block(sweep.config(model, tokens, dtype=dtype), sweep.stopping_rule)


def profile_block(config: BenchConfig, rule: StoppingRule) -> Profile:
    """Time the parts of one block, in a process of its own."""
    (samples,) = run_interleaved(timed_parts, [config], rule)
    parts = [] if samples.failure else [Part(name, *samples.facts[name], ms) for name, ms in samples.ms.items()]
    return Profile(config, parts, samples.failure)


def table_title(profile: Profile) -> str:
    """What a block was measured with."""
    return f"{profile.config.model}, {profile.config.tokens:,} tokens, {title(profile.config)}"


def table_rows(profile: Profile) -> list[list[str]]:
    """A row for each part."""
    if profile.failure:
        return [[profile.failure, "-", "-", "-", "-", "-"]]
    block, copy = profile.part(BLOCK), profile.part(COPY)
    rows = []
    for part in profile.parts:
        gb_per_s = part.min_bytes / part.median_ms / 1e6
        rows.append(
            [
                part.name,
                milliseconds(part.median_ms),
                "-" if part is copy else f"{100 * part.median_ms / block.median_ms:.1f} %",
                f"{part.flops / part.median_ms / 1e6:,.0f}" if part.flops else "-",
                f"{gb_per_s:,.1f}",
                f"{100 * gb_per_s / (copy.min_bytes / copy.median_ms / 1e6):.0f} %",
            ]
        )
    return rows


def timed_parts(config: BenchConfig) -> Iterator[tuple[dict[str, float], dict[str, tuple[int, int]]]]:
    """Run each part once, again and again.

    Yields:
        Milliseconds by part; flops and bytes by part.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    with torch.inference_mode():
        works = block_works(config)
        sizes = {work.name: (work.flops, work.min_bytes) for work in works}
        while True:
            yield {work.name: timed(work.run, config.device)[0] for work in works}, sizes


def block_works(config: BenchConfig) -> list[Work]:
    """The parts of a block, the whole block, its matmuls alone, and a copy in memory."""
    network, backend, _ = network_config(config.model, config.tokens)
    network = network.model_copy(update={"depth": 1})
    device, dtype = torch.device(config.device), getattr(torch, config.dtype)
    model = build_network(network, backend).to(device).eval().to(dtype)
    tokens = torch.randn(config.batch, config.tokens + 1, network.width).to(device, dtype)  # (b, l, d)
    split = audio_mamba_parts if network.architecture == "aum" else transformer_parts
    block = model.layers[0] if network.architecture == "aum" else model.v.blocks[0]
    parts, run_block, linears = split(block, tokens)
    matmul_bytes = sum(size_of(x, layer(x), *layer.parameters()) for layer, x in linears)
    source = torch.empty(COPY_BYTES // 4, device=device).fill_(1.0)
    target = torch.empty_like(source)
    return [
        *parts,
        Work(BLOCK, run_block, sum(part.flops for part in parts), sum(part.min_bytes for part in parts)),
        Work(MATMULS, lambda: [layer(x) for layer, x in linears], flops_of(linears), matmul_bytes),
        Work(COPY, lambda: target.copy_(source), 0, 2 * COPY_BYTES),
    ]


def audio_mamba_parts(block: nn.Module, x: Tensor) -> tuple[list[Work], Callable[[], object], list[Linear]]:
    """The parts of an AuM block, the block itself, and its linear layers with their inputs.

    Args:
        block: of an Audio Mamba.
        x: its tokens, (b, l, d).
    """
    mixer, residual = block.mixer, torch.randn_like(x, dtype=torch.float32)
    tokens, _ = block.norm(x, residual)
    projected = mixer.in_proj(tokens)
    inner, z = projected.chunk(2, dim=-1)  # (b, l, e) each
    branches = mixer.branches
    us = [mixer.convolve(inner, suffix, reverse) for suffix, reverse in branches]
    ssm = [mixer.project(u, suffix) for u, (suffix, _) in zip(us, branches)]  # dt, delta, B, C of each branch
    y = mixer.scan(us[0], *ssm[0][1:], z, *branches[0])
    small = [
        (layer, x)
        for u, (dt, *_), (suffix, _) in zip(us, ssm, branches)
        for layer, x in ((getattr(mixer, f"x_proj{suffix}"), u), (getattr(mixer, f"dt_proj{suffix}"), dt))
    ]

    def convolve() -> None:
        for suffix, reverse in branches:
            mixer.convolve(inner, suffix, reverse)

    def project() -> None:
        for u, (suffix, _) in zip(us, branches):
            mixer.project(u, suffix)

    def scan() -> None:
        for u, (_, delta, B, C), (suffix, reverse) in zip(us, ssm, branches):
            mixer.scan(u, delta, B, C, z, suffix, reverse)

    in_proj, out_proj = (mixer.in_proj, tokens), (mixer.out_proj, y)
    projections = [x for four in ssm for x in four]
    scanned = [x for u, (_, *rest) in zip(us, ssm) for x in (u, *rest, z, y)]
    parts = [
        Work("norm", lambda: block.norm(x, residual), 0, size_of(x, residual, residual, tokens)),
        linear_work("in_proj", in_proj, projected),
        Work("convolution", convolve, 0, size_of(*(inner for _ in us), *us)),
        Work("x_proj, dt_proj", project, flops_of(small), size_of(*us, *projections, *weights_of(small))),
        Work("scan", scan, 0, size_of(*scanned)),
        linear_work("out_proj", out_proj, x),
    ]
    return parts, lambda: block(x, residual), [in_proj, out_proj, *small]


def transformer_parts(block: nn.Module, x: Tensor) -> tuple[list[Work], Callable[[], object], list[Linear]]:
    """The parts of an AST block, as `audio_mamba_parts` returns those of an AuM's."""
    attention, mlp = block.attn, block.mlp
    tokens = block.norm1(x)
    qkv = attention.qkv(tokens)
    y = attention.attend(qkv)
    hidden = mlp.fc1(tokens)
    layers = [(mlp.fc1, tokens), (mlp.fc2, hidden)]
    b, l, d = x.shape
    parts = [
        Work("norms", lambda: (block.norm1(x), block.norm2(x)), 0, size_of(x, x, tokens, tokens)),
        linear_work("qkv", (attention.qkv, tokens), qkv),
        Work("attention", lambda: attention.attend(qkv), 4 * b * l * l * d, size_of(qkv, y)),
        linear_work("proj", (attention.proj, y), x),
        Work("mlp", lambda: mlp(tokens), flops_of(layers), size_of(tokens, hidden, hidden, x, *weights_of(layers))),
    ]
    return parts, lambda: block(x), [(attention.qkv, tokens), (attention.proj, y), *layers]


def linear_work(name: str, linear: Linear, output: Tensor) -> Work:
    """One linear layer as a part."""
    layer, x = linear
    return Work(name, lambda: layer(x), flops_of([linear]), size_of(x, output, layer.weight))


def weights_of(linears: list[Linear]) -> list[Tensor]:
    """The weights of linear layers."""
    return [layer.weight for layer, _ in linears]


def flops_of(linears: list[Linear]) -> int:
    """Multiplications and additions of linear layers on inputs (b, l, width)."""
    return sum(2 * x.shape[0] * x.shape[1] * layer.weight.numel() for layer, x in linears)


def size_of(*tensors: Tensor) -> int:
    """Bytes of tensors; a view counts for what it shows."""
    return sum(x.numel() * x.element_size() for x in tensors)


def main() -> None:
    """Print a table for each model and length."""
    sweep = parse_sweep(__doc__, "aum-base,ast-base,ast-base-eager")
    print_environment()
    for profile in profile_blocks(sweep):
        print_section(table_title(profile), COLUMNS, table_rows(profile))


if __name__ == "__main__":
    main()

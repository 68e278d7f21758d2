"""How fast ours is beside others' on this machine: python benchmarks/speed.py [section ...] [--max-tokens N].

Each line compares two things whose runs were interleaved in one process: medians, the median of the pairwise ratios and
the span of its middle half. Sections: frontend, loader, kernels, floors, others, models, training, bfloat16, memory,
engine; all where none is named. The kernels have to be compiled; floors needs a C compiler, the comparisons need what
`pip install aumcli[test]` installs.
"""

import contextlib
import copy
import ctypes
import io
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from harness import parser_of, print_environment, scan_inputs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from aumcli.bench import BenchConfig, StoppingRule, measure, network_config
from aumcli.config import AudioMambaConfig, Direction, FrontendConfig
from aumcli.core import build_network
from aumcli.core.frontend import LogMel
from aumcli.core.kernels import bidirectional_scan, causal_conv1d, cpu, operators
from aumcli.core.mixer import Mixer
from aumcli.data.datasets.batch import crop_samples, make_batch
from aumcli.data.datasets.clip_source import Crop
from aumcli.data.datasets.waveforms import Waveforms, epoch_batches, padded
from aumcli.data.manifest import Clip, Label, write_manifest
from aumcli.recipe import load_recipe
from aumcli.train import microbatches, trainer
from aumcli.train.distributed import ProcessGroup
from aumcli.train.loggers import Loggers
from aumcli.train.optim import make_optimizer, update_ema
from aumcli.train.setup import TrainState, build
from aumcli.train.signals import StopSignal
from aumcli.utils.memory import keep_memory

# isort: split
# of tests/fixtures, which harness has put on the path
from baselines import hugging_face_ast, hugging_face_mixer, import_torchaudio, mambapy_scan
from tiny import sound

KALDI = dict(htk_compat=True, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)
TINY_AST = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)


class Compared(NamedTuple):
    """Medians in ms of ours and theirs; the pairwise ratio theirs / ours: median and quartiles."""

    ours_ms: float
    theirs_ms: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Options:
    """How much is measured; a smoke test takes the smallest sizes."""

    smoke: bool
    max_tokens: int

    @property
    def aum(self) -> AudioMambaConfig:
        """The AuM that blocks are taken from."""
        return AudioMambaConfig(size="nano" if self.smoke else "base")

    @property
    def block_tokens(self) -> int:
        """Tokens of a block that is measured alone."""
        return 17 if self.smoke else 513

    def lengths(self, most: int) -> list[int]:
        """Tokens of the models that are measured."""
        doublings = (512, 1024, 2048, 4096, 8192)
        return [16] if self.smoke else [tokens for tokens in doublings if tokens <= min(most, self.max_tokens)]

    def compare(
        self, what: str, ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 21
    ) -> Compared:
        """Time two functions, called alternately, and print it."""
        compared = compare(ours, theirs, 2 if self.smoke else repeats)
        print(
            f"{what:<62} {compared.ours_ms:>9.2f} {compared.theirs_ms:>9.2f} ms  {compared.ratio:>7.2f} "
            f"({compared.low:.2f} .. {compared.high:.2f})",
            flush=True,
        )
        return compared


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int) -> Compared:
    """Time two functions, called alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for function, taken in zip((ours, theirs), times):
            start = time.perf_counter()
            function()
            if repeat > 1:  # the first two warm up
                taken.append(1000 * (time.perf_counter() - start))
    low, middle, high = statistics.quantiles([b / a for a, b in zip(*times)], n=4)
    return Compared(statistics.median(times[0]), statistics.median(times[1]), middle, low, high)


@torch.inference_mode()
def frontend(options: Options) -> None:
    """The frontend against torchaudio's Kaldi filter banks on 64 one-second clips at 16 kHz."""
    kaldi = import_torchaudio("compliance.kaldi")
    clips = 2 if options.smoke else 64
    waveforms = torch.randn(clips, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours = LogMel(FrontendConfig(frames=98))

    def theirs() -> None:
        for waveform in waveforms:
            kaldi.fbank(waveform[None] - waveform.mean(), sample_frequency=16000, **KALDI)

    options.compare(f"frontend | torchaudio's kaldi.fbank, {clips} s of sound", lambda: ours(waveforms), theirs)


class Published(Dataset[Tensor]):
    """The published dataloader's way.

    One clip at a time, features in the worker, the mel matrix built again for each.
    """

    def __init__(self, clips: list[Clip], config: FrontendConfig):
        self.clips, self.config, self.kaldi = clips, config, import_torchaudio("compliance.kaldi")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Tensor:
        samples, rate = soundfile.read(self.clips[index].path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.T)  # (channels, samples)
        features = self.kaldi.fbank(waveform - waveform.mean(), sample_frequency=rate, **KALDI)
        features = F.pad(features, (0, 0, 0, self.config.frames - len(features)))[: self.config.frames]
        return (features - self.config.mean) / (2 * self.config.std)


def our_batches(clips: list[Clip], batches: list[list[int]], frontend: LogMel, samples: int) -> Iterator[Tensor]:
    """Batches of features by our loader: one thread decodes, one computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    items = [[(clip, 0.0) for clip in batch] for batch in batches]
    for waveforms in Waveforms(clips, 16000, cache_mb=0).load(items, 0, Crop(samples, "first")):
        lengths = torch.tensor([len(waveform) for waveform in waveforms])
        yield frontend(padded(waveforms, samples), lengths)
    torch.set_num_threads(threads)


@torch.inference_mode()
def loader(options: Options) -> None:
    """From sound files to batches of features: a thread that decodes and one that computes, against the published
    dataloader in one process with as many threads as there are cores, and with two that decode and compute."""
    sizes = ((1, 128, 8, 4),) if options.smoke else ((1, 128, 1536, 128), (10, 1024, 180, 12))
    for seconds, frames, count, batch in sizes:
        with tempfile.TemporaryDirectory() as folder:
            random, clips = np.random.default_rng(0), [Clip(Path(folder) / f"{i}.wav") for i in range(count)]
            for clip in clips:
                soundfile.write(clip.path, 0.1 * random.standard_normal(16000 * seconds), 16000)
            config = FrontendConfig(frames=frames)
            frontend, published = LogMel(config), Published(clips, config)
            batches = [list(range(i, min(i + batch, count))) for i in range(0, count, batch)]

            def ours() -> Iterator[Tensor]:
                return our_batches(clips, batches, frontend, config.clip_samples)

            for workers in (0, 2):
                theirs = DataLoader(published, batch_sampler=batches, num_workers=workers)
                difference = max((a - b).abs().max() for a, b in zip(ours(), theirs))
                assert difference < 1e-3, f"the features differ by {difference}"
                compared = options.compare(
                    f"loader | published, {count} clips of {seconds} s, {workers} workers",
                    lambda: deque(ours(), maxlen=0),
                    lambda: deque(theirs, maxlen=0),
                    9,
                )
                rates = (1000 * count / ms for ms in compared[:2])
                print(f"{'  clips/s':<62} " + " ".join(f"{rate:>9.0f}" for rate in rates), flush=True)


def scan_backward(grad: Tensor, inputs: list[Tensor]) -> Callable[[], object]:
    """The backward pass of the bidirectional scan alone."""
    return lambda: torch.ops.aumcli.scan_backward(grad, *inputs, True, False, False)


@torch.no_grad()
def kernels(options: Options) -> None:
    """The kernels of one base block at 513 tokens against its four matmuls, and against each other."""
    config, l = options.aum, options.block_tokens
    mixer, scan = Mixer(config), list(scan_inputs(config, l).values())
    u, delta, A, A_b, B, C, *rest = scan
    tokens, dt = torch.randn(1, l, config.width), torch.randn(1, l, config.dt_rank)
    x = torch.randn(1, l, 2 * config.inner_width).chunk(2, -1)[0]  # (1, l, e)

    def matmuls() -> None:
        mixer.in_proj(tokens), mixer.x_proj(u), F.linear(dt, mixer.dt_proj.weight), mixer.out_proj(u)

    def forward() -> Tensor:
        return bidirectional_scan(*scan)

    def with_states(n: int) -> Callable[[], Tensor]:
        rates, maps = (a[:, :n].contiguous() for a in (A, A_b)), (b[..., :n].contiguous() for b in (B, C))
        inputs = [u, delta, *rates, *maps, *rest]
        return lambda: bidirectional_scan(*inputs)

    n = config.state_size
    options.compare("Fo-Bi scan | the block's matmuls", forward, matmuls)
    options.compare("Fo-Bi scan | its backward", forward, scan_backward(torch.randn_like(u), scan))
    options.compare(
        f"Fo-Bi scan with {n // 2} states | with {n}: the rest are exponentials", with_states(n // 2), with_states(n)
    )
    options.compare(
        "convolution and SiLU | the block's matmuls",
        lambda: causal_conv1d(x, mixer.conv1d.weight[:, 0], mixer.conv1d.bias),
        matmuls,
    )
    options.compare(
        "add and RMS norm | the block's matmuls",
        lambda: operators.norm(tokens, tokens, torch.ones(config.width), 1e-5),
        matmuls,
    )


def in_cache(kernel: Callable[[], object], channels: int) -> None:
    """Run a kernel of 64 channels in one thread, as often as all channels share out to all threads."""
    threads, once = torch.get_num_threads(), cpu._run
    again = max(1, channels // 64 // threads)
    torch.set_num_threads(1)
    with (
        mock.patch.object(cpu, "_run", lambda *call: [once(*call) for _ in range(again)]),
        mock.patch.object(cpu, "_SLOTS", 1),
    ):
        kernel()
    torch.set_num_threads(threads)


def compiled_floor(folder: Path) -> ctypes.CDLL:
    """floor.c as a library."""
    library, source = folder / "floor.so", Path(__file__).with_name("floor.c")
    flags = ["-O3", "-std=gnu11", "-fno-math-errno", "-shared", "-fPIC", "-w"]
    subprocess.run(["cc", *flags, "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


@torch.no_grad()
def floors(options: Options) -> None:
    """What a base block's scan could cost at best: its recurrences from the first-level cache, all of it from the
    second-level cache, its tensors at the memory's speed; and what its matmuls cost on as few tokens as stay in the
    cache between kernels."""
    config = options.aum
    scan = list(scan_inputs(config, options.block_tokens).values())
    grad, channels = torch.randn_like(scan[0]), config.inner_width
    few, few_grad = ([(x[:64] if x.ndim < 3 else x[..., :64]).contiguous() for x in each] for each in (scan, [grad]))
    with tempfile.TemporaryDirectory() as folder:
        loops = compiled_floor(Path(folder))
    directions, block, tokens = 2, 16, 16  # of floor.c
    times = ctypes.c_int64(
        max(1, directions * (channels // block) * options.block_tokens // tokens // torch.get_num_threads())
    )
    for direction, recurrences, kernel, small in (
        ("forward", loops.floor_forward, lambda: bidirectional_scan(*scan), lambda: bidirectional_scan(*few)),
        ("backward", loops.floor_backward, scan_backward(grad, scan), scan_backward(*few_grad, few)),
    ):
        options.compare(
            f"recurrences from the first-level cache, {direction} | the kernel", lambda: recurrences(times), kernel
        )
        options.compare(
            f"the kernel in the second-level cache, {direction} | the kernel",
            lambda: in_cache(small, channels),
            kernel,
        )
    source, target = torch.randn(4, *scan[0].shape), torch.empty(4, *scan[0].shape)
    options.compare(
        "copy of four of the scan's tensors | the kernel, forward",
        lambda: target.copy_(source),
        lambda: bidirectional_scan(*scan),
    )
    tokens = 64 if options.smoke else 2048
    blocks, x = build_network(config).layers, torch.randn(tokens, config.width)

    def projections(piece: int) -> None:
        for block in blocks:
            for part in x.split(piece):
                block.mixer.in_proj(part)

    for piece in (tokens // 4, tokens // 8, tokens // 16):
        options.compare(
            f"input projections of {tokens} tokens | {piece} at a time",
            lambda: projections(tokens),
            lambda: projections(piece),
            5,
        )


def others(options: Options) -> None:
    """Forward and backward against what else computes a Mamba on CPUs."""
    config, l = options.aum, options.block_tokens
    leaves = [x.requires_grad_() for x in scan_inputs(config, l).values()]
    grad = torch.randn_like(leaves[0])

    def with_gradients(function: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    options.compare(
        "Fo-Bi scan and gradients | mambapy's pscan, twice",
        with_gradients(bidirectional_scan),
        with_gradients(mambapy_scan),
        5,
    )
    ours = Mixer(config.model_copy(update={"direction": Direction.FO_FO}))
    theirs, tokens = hugging_face_mixer(config.width), torch.randn(1, l, config.width)

    def run(network: nn.Module) -> None:
        network(tokens).sum().backward()

    options.compare(
        "Fo-Fo mixer and gradients | transformers' Mamba, sequential", lambda: run(ours), lambda: run(theirs), 5
    )


def whole_models(options: Options, tokens: int) -> tuple[nn.Module, nn.Module, Tensor]:
    """AuM-B, transformers' AST-B, and features of so many tokens."""
    config, _, _ = network_config("aum-nano" if options.smoke else "aum-base", tokens)
    ast = hugging_face_ast(tokens, **(TINY_AST if options.smoke else {}))
    return build_network(config), ast, torch.randn(1, 2 * tokens, 128)


def inference(options: Options, dtype: torch.dtype) -> None:
    """Whole models in inference, weights and all in `dtype`."""
    for tokens in options.lengths(8192):
        aum, ast, features = (each.to(dtype) for each in whole_models(options, tokens))
        aum.eval(), ast.eval()
        repeats = 9 if tokens < 4096 else 5
        with torch.inference_mode():
            options.compare(
                f"AuM-B | AST-B of transformers, {tokens} tokens, {dtype}".replace("torch.", ""),
                lambda: aum(features),
                lambda: ast(features).logits,
                repeats,
            )
            if dtype == torch.float32:
                options.compare(
                    f"AuM-B | its matmuls alone, {tokens} tokens", lambda: aum(features), matmuls_of(aum), repeats
                )


def matmuls_of(aum: nn.Module) -> Callable[[], None]:
    """Run the matmuls of all blocks, with each block's own weights, and nothing else."""
    l, config = aum.config.n_patches + 1, aum.config
    tokens, inner, dt = (torch.randn(1, l, width) for width in (config.width, config.inner_width, config.dt_rank))

    def run() -> None:
        for block in aum.layers:
            mixer = block.mixer
            mixer.in_proj(tokens), mixer.x_proj(inner), F.linear(dt, mixer.dt_proj.weight), mixer.out_proj(inner)

    return run


def models(options: Options) -> None:
    """Whole models, inference in float32."""
    inference(options, torch.float32)


def bfloat16(options: Options) -> None:
    """Whole models, inference in bfloat16: weights and all; the scan's state stays float32."""
    inference(options, torch.bfloat16)


def training(options: Options) -> None:
    """A training step of whole models, forward and backward, in float32."""
    for tokens in options.lengths(4096):
        aum, ast, features = whole_models(options, tokens)
        aum.train(), ast.train()
        target = torch.zeros(1, dtype=torch.long)

        def step(network: nn.Module, logits: Callable[[], Tensor]) -> None:
            network.zero_grad(set_to_none=True)
            F.cross_entropy(logits(), target).backward()

        options.compare(
            f"AuM-B | AST-B of transformers, training, {tokens} tokens",
            lambda: step(aum, lambda: aum(features)),
            lambda: step(ast, lambda: ast(features).logits),
            5,
        )


def memory(options: Options) -> None:
    """Bytes per token that training keeps for the backward pass, and the peak of a process that trains AuM-B."""
    size = "nano" if options.smoke else "base"
    for tokens in options.lengths(8192):
        measured = []
        for model, checkpointing in (("aum", "cheap"), ("aum", "block"), ("ast", "cheap")):
            if model == "ast" and tokens > 4096:
                continue
            config = BenchConfig(
                f"{model}-{size}",
                tokens,
                "training",
                "float32",
                "cpu",
                1,
                torch.get_num_threads(),
                activation_checkpointing=checkpointing,
            )
            (found,) = measure([config], StoppingRule(repeats=1, budget_s=600))
            measured.append(
                f"{config.model} {checkpointing}: "
                + (
                    found.failure
                    or f"{found.saved_bytes / tokens / 1024:.0f} KiB kept per token, "
                    f"peak {found.peak_bytes / 2**30:.2f} GiB"
                )
            )
        print(f"{tokens} tokens: " + "; ".join(measured), flush=True)


class Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self) -> bool:
        return True


def fsdd_state(folder: Path, batches: int, val_clips: int) -> TrainState:
    """A training by the fsdd recipe on generated clips."""
    recipe, root = load_recipe("fsdd"), folder / "data"
    counts = {"train": batches * recipe.train.batch_size, "val": val_clips}
    clips = [
        Clip(sound(folder / split / f"{i}.wav", 300.0 + i % 10 * 200, 0.4, i), labels=(str(i % 10),), split=split)
        for split, count in counts.items()
        for i in range(count)
    ]
    write_manifest(root, clips, [Label(i, str(i), str(i)) for i in range(10)], {})
    return build(recipe, folder / "run", root, torch.device("cpu"), ProcessGroup(), progress=True)[0]


def bare_steps(state: TrainState, ready: list[tuple[Tensor, Tensor]]) -> Callable[[], None]:
    """Forward, backward, clipping, step and average on a copy of the network, and nothing else."""
    settings = state.recipe.train
    network, averaged = copy.deepcopy(state.network), copy.deepcopy(state.classifier.network)
    network.train()
    optimizer = make_optimizer(network, settings)

    def run() -> None:
        for features, targets in ready:
            optimizer.zero_grad(set_to_none=True)
            trainer.loss_of(network(features), targets, settings).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_grad)
            optimizer.step()
            update_ema(averaged, network, settings.ema, 1000)

    return run


def engine(options: Options) -> None:
    """An epoch of the training loop on ready batches against bare steps, as many as the corpus fsdd has.

    What the loop's figure leaves out, beside: frontend and augmentation, and validation.
    """
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        state = fsdd_state(Path(folder), *((2, 8) if options.smoke else (75, 300)))
        recipe, frontend = state.recipe, state.classifier.frontend
        samples, batch_size = crop_samples(frontend, recipe.augment), recipe.train.batch_size
        decoded = [
            [state.train[i][:samples] for i in batch] for batch in epoch_batches(len(state.train), batch_size, 0, 0)
        ]
        targets = torch.eye(10)[torch.arange(batch_size) % 10]  # (b, classes)

        def prepare_batches() -> list[tuple[Tensor, Tensor]]:
            return [make_batch(frontend, waveforms, targets, recipe.augment, 0) for waveforms in decoded]

        ready, figures = prepare_batches(), trainer.validate(state)
        bare = bare_steps(state, ready)
        with (
            Loggers(state) as loggers,
            mock.patch.object(microbatches, "make_batch", lambda *args: ready[state.epoch.step]),
            mock.patch.object(trainer, "validate", lambda state: figures),
            contextlib.redirect_stderr(Terminal()),
        ):
            compared = options.compare(
                f"fsdd: an epoch of {len(ready)} steps by the loop | its bare steps",
                lambda: trainer.train_epoch(state, stop, loggers),
                bare,
                9,
            )
        options.compare("the same: frontend and augmentation | bare steps", prepare_batches, bare, 5)
        options.compare(
            f"the same: validation of {len(state.val)} clips | bare steps", lambda: trainer.validate(state), bare, 5
        )
        print(
            f"the loop (decoded clips from memory, batches, finite or not, bar, metrics.csv, a checkpoint) costs "
            f"{100 * (1 / compared.ratio - 1):.1f} % over the bare steps"
        )


SECTIONS = {
    function.__name__: function
    for function in (frontend, loader, kernels, floors, others, models, bfloat16, training, memory, engine)
}


def main() -> None:
    """Print the comparisons that were asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}")
    parser.add_argument("--max-tokens", type=int, default=8192)
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}")
    keep_memory()
    torch.manual_seed(0)
    print_environment()
    print(f"{'float32 unless stated, batch 1':<62} {'ours':>9} {'theirs':>9}     times faster (middle half)")
    for name in arguments.sections or SECTIONS:
        SECTIONS[name](Options(arguments.smoke, arguments.max_tokens))


if __name__ == "__main__":
    main()

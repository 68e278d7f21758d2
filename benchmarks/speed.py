"""How fast ours is beside others' on this machine: python benchmarks/speed.py [section ...] [--max-tokens N].

Each line compares two things that were run in turn in one process: medians, the median of the pairwise ratios and the
span of its middle half. Sections: frontend, loader, kernels, floors, others, models, training, bfloat16, memory,
engine; all where none is named.
"""

import argparse
import contextlib
import copy
import ctypes
import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch
import torch.nn.functional as F
from torch import nn
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
from aumcli.report.environment import environment
from aumcli.train import microbatches, trainer
from aumcli.train.distributed import ProcessGroup
from aumcli.train.loggers import Loggers
from aumcli.train.optim import make_optimizer, update_ema
from aumcli.train.setup import TrainState, build
from aumcli.train.signals import StopSignal
from aumcli.utils.memory import keep_memory

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))
from baselines import hugging_face_ast, hugging_face_mixer, import_torchaudio, mambapy_scan
from tiny import sound

Compared = tuple[float, float, float, float, float]
BASE_TOKENS = 513


def compare(ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 21) -> Compared:
    """Medians in ms of two functions called in turn; the pairwise ratio theirs / ours: median and quartiles."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 2):
        for function, taken in zip((ours, theirs), times):
            start = time.perf_counter()
            function()
            if repeat > 1:  # the first two warm up
                taken.append(1000 * (time.perf_counter() - start))
    ratios = [b / a for a, b in zip(*times)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return statistics.median(times[0]), statistics.median(times[1]), middle, low, high


def show(what: str, compared: Compared) -> None:
    """Print one comparison."""
    ours, theirs, ratio, low, high = compared
    print(f"{what:<62} {ours:>9.2f} {theirs:>9.2f} ms  {ratio:>7.2f} ({low:.2f} .. {high:.2f})", flush=True)


@torch.inference_mode()
def frontend(arguments: argparse.Namespace) -> None:
    """The frontend against torchaudio's Kaldi filter banks on 64 one-second clips at 16 kHz."""
    kaldi = import_torchaudio("compliance.kaldi")
    waveforms = torch.randn(64, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    ours = LogMel(FrontendConfig(frames=98))

    def theirs() -> None:
        for waveform in waveforms:
            kaldi.fbank(
                waveform[None] - waveform.mean(),
                htk_compat=True,
                sample_frequency=16000,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=128,
                dither=0.0,
                frame_shift=10,
            )

    show("frontend | torchaudio's kaldi.fbank, 64 s of sound", compare(lambda: ours(waveforms), theirs))


class Published(Dataset):
    """The published dataloader's way.

    One clip at a time, features in the worker, the mel matrix built again for each.
    """

    def __init__(self, clips: list[Clip], config: FrontendConfig):
        self.clips, self.config, self.kaldi = clips, config, import_torchaudio("compliance.kaldi")

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> torch.Tensor:
        samples, rate = soundfile.read(self.clips[index].path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples.T)  # (channels, samples)
        features = self.kaldi.fbank(
            waveform - waveform.mean(),
            htk_compat=True,
            sample_frequency=rate,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        features = F.pad(features, (0, 0, 0, self.config.frames - len(features)))[: self.config.frames]
        return (features - self.config.mean) / (2 * self.config.std)


@torch.inference_mode()
def loader(arguments: argparse.Namespace) -> None:
    """From sound files to batches of features: a thread that decodes and one that computes, against the published
    dataloader in one process with as many threads as there are cores, and with two that decode and compute."""
    threads = torch.get_num_threads()
    for seconds, frames, count, batch in ((1, 128, 1536, 128), (10, 1024, 180, 12)):
        with tempfile.TemporaryDirectory() as folder:
            random, clips = np.random.default_rng(0), [Clip(Path(folder) / f"{i}.wav") for i in range(count)]
            for clip in clips:
                soundfile.write(clip.path, 0.1 * random.standard_normal(16000 * seconds), 16000)
            config = FrontendConfig(frames=frames)
            frontend, published = LogMel(config), Published(clips, config)
            batches = [list(range(i, min(i + batch, count))) for i in range(0, count, batch)]

            def ours() -> Iterator[torch.Tensor]:
                torch.set_num_threads(1)
                items = [[(clip, 0.0) for clip in batch] for batch in batches]
                for waveforms in Waveforms(clips, 16000, cache_mb=0).load(items, 0, Crop(config.clip_samples, "first")):
                    lengths = torch.tensor([len(waveform) for waveform in waveforms])
                    yield frontend(padded(waveforms, config.clip_samples), lengths)
                torch.set_num_threads(threads)

            for workers in (0, 2):
                theirs = DataLoader(published, batch_sampler=batches, num_workers=workers)
                difference = max((a - b).abs().max() for a, b in zip(ours(), theirs))
                assert difference < 1e-3, f"the features differ by {difference}"
                compared = compare(lambda: deque(ours(), maxlen=0), lambda: deque(theirs, maxlen=0), 9)
                show(f"loader | published, {count} clips of {seconds} s, {workers} workers", compared)
                print(
                    f"{'  clips/s':<62} {1000 * count / compared[0]:>9.0f} {1000 * count / compared[1]:>9.0f}",
                    flush=True,
                )


def block_inputs(l: int = BASE_TOKENS) -> tuple[Mixer, list[torch.Tensor]]:
    """A base mixer, and u, delta, A, A_b, B, C, D, z, bias of its scan with values as in a fresh model."""
    config = AudioMambaConfig(size="base")
    mixer, generator = Mixer(config), torch.Generator().manual_seed(0)
    u, delta, z = (torch.randn(1, l, config.inner_width, generator=generator) for _ in range(3))
    B, C = (torch.randn(1, l, config.state_size, generator=generator) for _ in range(2))
    A, A_b, D, bias = (x.detach() for x in mixer.rates(""))
    return mixer, [u, delta - 4, A, A_b, B, C, D, z, bias]


@torch.no_grad()
def kernels(arguments: argparse.Namespace) -> None:
    """The kernels of one base block at 513 tokens against its four matrix products, and against each other."""
    mixer, scan = block_inputs()
    tokens, dt = torch.randn(1, BASE_TOKENS, 768), torch.randn(1, BASE_TOKENS, 48)
    grad, x = torch.randn_like(scan[0]), torch.randn(1, BASE_TOKENS, 3072).chunk(2, -1)[0]

    def products() -> None:
        mixer.in_proj(tokens), mixer.x_proj(scan[0]), F.linear(dt, mixer.dt_proj.weight), mixer.out_proj(scan[0])

    def forward() -> torch.Tensor:
        return bidirectional_scan(*scan)

    show("Fo-Bi scan | the block's matrix products", compare(forward, products))
    show(
        "Fo-Bi scan | its backward",
        compare(forward, lambda: torch.ops.aumcli.scan_backward(grad, *scan, True, False, False)),
    )
    one, two = (
        [
            *scan[:2],
            *(a[:, :n].contiguous() for a in scan[2:4]),
            *(b[..., :n].contiguous() for b in scan[4:6]),
            *scan[6:],
        ]
        for n in (8, 16)
    )
    show(
        "Fo-Bi scan with 8 states | with 16: the rest are exponentials",
        compare(lambda: bidirectional_scan(*one), lambda: bidirectional_scan(*two)),
    )
    show(
        "convolution and SiLU | the block's matrix products",
        compare(lambda: causal_conv1d(x, mixer.conv1d.weight[:, 0], mixer.conv1d.bias), products),
    )
    show(
        "add and RMS norm | the block's matrix products",
        compare(lambda: operators.norm(tokens, tokens, torch.ones(768), 1e-5), products),
    )


@torch.no_grad()
def floors(arguments: argparse.Namespace) -> None:
    """What a base block's scan could cost at best: its recurrences from the first-level cache, all of it from the
    second-level cache, its tensors at the memory's speed; and what its products cost on as few tokens as stay in the
    cache between kernels."""
    mixer, scan = block_inputs()
    threads, grad, once = torch.get_num_threads(), torch.randn_like(scan[0]), cpu._run
    few, few_grad = ([(x[:64] if x.ndim < 3 else x[..., :64]).contiguous() for x in each] for each in (scan, [grad]))

    def in_cache(kernel: Callable[[], object]) -> None:
        """64 channels in one thread, so often that all channels would have had their turn in all threads."""
        again = scan[0].shape[2] // 64 // threads
        torch.set_num_threads(1)
        with (
            mock.patch.object(cpu, "_run", lambda *call: [once(*call) for _ in range(again)]),
            mock.patch.object(cpu, "_SLOTS", 1),
        ):
            kernel()
        torch.set_num_threads(threads)

    directions, channels, tokens = 2, scan[0].shape[2] // 16, 16
    times = directions * channels * BASE_TOKENS // tokens // threads
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "floor.so"
        subprocess.run(
            [
                "cc",
                "-O3",
                "-std=gnu11",
                "-fno-math-errno",
                "-shared",
                "-fPIC",
                "-w",
                "-o",
                library,
                Path(__file__).with_name("floor.c"),
            ],
            check=True,
        )
        loops = ctypes.CDLL(str(library))
    for recurrences, kernel, what in (
        (loops.floor_forward, lambda scan, grad: bidirectional_scan(*scan), "forward"),
        (
            loops.floor_backward,
            lambda scan, grad: torch.ops.aumcli.scan_backward(grad, *scan, True, False, False),
            "backward",
        ),
    ):

        def whole() -> object:
            return kernel(scan, grad)

        show(
            f"recurrences from the first-level cache, {what} | the kernel",
            compare(lambda: recurrences(ctypes.c_int64(times)), whole),
        )
        show(
            f"the kernel in the second-level cache, {what} | the kernel",
            compare(lambda: in_cache(lambda: kernel(few, *few_grad)), whole),
        )
    source, target = torch.randn(4, *scan[0].shape), torch.empty(4, *scan[0].shape)
    show(
        "copy of four of the scan's tensors | the kernel, forward",
        compare(lambda: target.copy_(source), lambda: bidirectional_scan(*scan)),
    )
    blocks, x = build_network(AudioMambaConfig(size="base")).layers, torch.randn(2048, 768)

    def projections(piece: int) -> None:
        for block in blocks:
            for part in x.split(piece):
                block.mixer.in_proj(part)

    for piece in (512, 256, 128):
        show(
            f"input projections of 2048 tokens | {piece} at a time",
            compare(lambda: projections(2048), lambda: projections(piece), 5),
        )


def others(arguments: argparse.Namespace) -> None:
    """Forward and backward against what else computes a Mamba on CPUs."""
    mixer, scan = block_inputs()
    leaves = [x.clone().requires_grad_() for x in scan]
    grad = torch.randn_like(scan[0])

    def with_gradients(function: Callable) -> Callable[[], object]:
        return lambda: torch.autograd.grad(function(*leaves), leaves, grad)

    show(
        "Fo-Bi scan and gradients | mambapy's pscan, twice",
        compare(with_gradients(bidirectional_scan), with_gradients(mambapy_scan), 5),
    )
    ours, theirs = Mixer(AudioMambaConfig(size="base", direction=Direction.FO_FO)), hugging_face_mixer(768)
    tokens = torch.randn(1, BASE_TOKENS, 768)

    def run(network: nn.Module) -> None:
        network(tokens).sum().backward()

    show(
        "Fo-Fo mixer and gradients | transformers' Mamba, sequential",
        compare(lambda: run(ours), lambda: run(theirs), 5),
    )


def _models(tokens: int) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    config, _, _ = network_config("aum-base", tokens)
    return build_network(config), hugging_face_ast(tokens), torch.randn(1, 2 * tokens, 128)


def _lengths(arguments: argparse.Namespace, most: int) -> list[int]:
    return [tokens for tokens in (512, 1024, 2048, 4096, 8192) if tokens <= min(most, arguments.max_tokens)]


def _inference(arguments: argparse.Namespace, dtype: torch.dtype) -> None:
    for tokens in _lengths(arguments, 8192):
        aum, ast, features = (each.to(dtype) for each in _models(tokens))
        aum.eval(), ast.eval()
        repeats = 9 if tokens < 4096 else 5
        with torch.inference_mode():
            show(
                f"AuM-B | AST-B of transformers, {tokens} tokens, {dtype}".replace("torch.", ""),
                compare(lambda: aum(features), lambda: ast(features).logits, repeats),
            )
            if dtype == torch.float32:
                show(
                    f"AuM-B | its matrix products alone, {tokens} tokens",
                    compare(lambda: aum(features), _products_of(aum), repeats),
                )


def _products_of(aum: nn.Module) -> Callable[[], None]:
    """Run the matrix products of all blocks, with each block's own weights, and nothing else."""
    l, config = aum.config.n_patches + 1, aum.config
    tokens, inner, dt = (torch.randn(1, l, width) for width in (config.width, config.inner_width, config.dt_rank))

    def run() -> None:
        for block in aum.layers:
            mixer = block.mixer
            mixer.in_proj(tokens), mixer.x_proj(inner), F.linear(dt, mixer.dt_proj.weight), mixer.out_proj(inner)

    return run


def models(arguments: argparse.Namespace) -> None:
    """Whole models, inference in float32."""
    _inference(arguments, torch.float32)


def bfloat16(arguments: argparse.Namespace) -> None:
    """Whole models, inference in bfloat16: weights and all; the scan's state stays float32."""
    _inference(arguments, torch.bfloat16)


def training(arguments: argparse.Namespace) -> None:
    """A training step of whole models, forward and backward, in float32."""
    for tokens in _lengths(arguments, 4096):
        aum, ast, features = _models(tokens)
        aum.train(), ast.train()

        def step(network: nn.Module, of=lambda out: out) -> None:
            network.zero_grad(set_to_none=True)
            F.cross_entropy(of(network(features)), torch.zeros(1, dtype=torch.long)).backward()

        show(
            f"AuM-B | AST-B of transformers, training, {tokens} tokens",
            compare(lambda: step(aum), lambda: step(ast, lambda out: out.logits), 5),
        )


def memory(arguments: argparse.Namespace) -> None:
    """Bytes per token that training keeps for the backward pass, and the peak of a process that trains AuM-B."""
    for tokens in _lengths(arguments, 8192):
        models = ["aum-base", "aum-base"] + ["ast-base"] * (tokens <= 4096)
        activation_checkpointing = ["cheap", "block", "cheap"]
        points = [
            measure(
                [
                    BenchConfig(
                        model,
                        tokens,
                        "training",
                        "float32",
                        "cpu",
                        1,
                        torch.get_num_threads(),
                        activation_checkpointing=again,
                    )
                ],
                StoppingRule(repeats=1, budget_s=600),
            )[0]
            for model, again in zip(models, activation_checkpointing)
        ]
        print(
            f"{tokens} tokens: "
            + "; ".join(
                f"{point.setting.model} {point.setting.activation_checkpointing}: "
                + (
                    point.failure
                    or f"{point.saved_bytes / tokens / 1024:.0f} KiB kept per token, "
                    f"peak {point.peak_bytes / 2**30:.2f} GiB"
                )
                for point in points
            ),
            flush=True,
        )


class _Terminal(io.StringIO):
    """What a progress bar takes for a terminal."""

    def isatty(self) -> bool:
        return True


def _fsdd_run(folder: Path) -> TrainState:
    """A training by the fsdd recipe on as many generated clips as fill 75 batches, as the corpus does.

    And the corpus' 300 to validate.
    """
    recipe, root = load_recipe("fsdd"), folder / "data"
    counts = {"train": 75 * recipe.train.batch_size, "val": 300}
    clips = [
        Clip(sound(folder / split / f"{i}.wav", 300.0 + i % 10 * 200, 0.4, i), labels=(str(i % 10),), split=split)
        for split, count in counts.items()
        for i in range(count)
    ]
    write_manifest(root, clips, [Label(i, str(i), str(i)) for i in range(10)], {})
    return build(recipe, folder / "run", root, torch.device("cpu"), ProcessGroup(), progress=True)[0]


def engine(arguments: argparse.Namespace) -> None:
    """An epoch of the training loop on ready batches against bare steps.

    Those are forward, backward, clipping, step and average; what is ready or left out, beside.
    """
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        run = _fsdd_run(Path(folder))
        settings, network, averaged = (
            run.recipe.train,
            copy.deepcopy(run.network),
            copy.deepcopy(run.classifier.network),
        )
        optimizer = make_optimizer(network, settings)
        most = crop_samples(run.classifier.frontend, run.recipe.augment)
        decoded = [
            [run.train[i][:most] for i in batch] for batch in epoch_batches(len(run.train), settings.batch_size, 0, 0)
        ]
        targets = torch.eye(10)[torch.arange(settings.batch_size) % 10]

        def prepare_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
            return [
                make_batch(run.classifier.frontend, waveforms, targets, run.recipe.augment, 0) for waveforms in decoded
            ]

        def bare() -> None:
            for features, truth in ready:
                optimizer.zero_grad(set_to_none=True)
                trainer.loss_of(network(features), truth, settings).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_grad)
                optimizer.step()
                update_ema(averaged, network, settings.ema, 1000)

        ready, figures = prepare_batches(), trainer.validate(run)
        network.train()
        with (
            Loggers(run) as watch,
            mock.patch.object(microbatches, "make_batch", lambda *args: ready[run.epoch.step]),
            mock.patch.object(trainer, "validate", lambda run: figures),
            contextlib.redirect_stderr(_Terminal()),
        ):
            compared = compare(lambda: trainer.train_epoch(run, stop, watch), bare, 9)
        show(f"fsdd: an epoch of {len(ready)} steps by the loop | its bare steps", compared)
        show("the same: frontend and augmentation | bare steps", compare(prepare_batches, bare, 5))
        show(
            f"the same: validation of {len(run.val)} clips | bare steps",
            compare(lambda: trainer.validate(run), bare, 5),
        )
        print(
            f"the loop (decoded clips from memory, batches, finite or not, bar, metrics.csv, a checkpoint) costs "
            f"{100 * (1 / compared[2] - 1):.1f} % over the bare steps"
        )


SECTIONS = {
    function.__name__: function
    for function in (frontend, loader, kernels, floors, others, models, bfloat16, training, memory, engine)
}


def main() -> None:
    """Print the comparisons that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}")
    parser.add_argument("--max-tokens", type=int, default=8192)
    arguments = parser.parse_args()
    if unknown := set(arguments.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}")
    keep_memory()
    torch.manual_seed(0)
    print(
        f"{environment()['cpu']}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        "float32 unless said, batch 1, seed 0\n"
        f"{'ours | theirs':<62} {'ours':>9} {'theirs':>9}     times faster (middle half)"
    )
    for name in arguments.sections or SECTIONS:
        SECTIONS[name](arguments)


if __name__ == "__main__":
    main()

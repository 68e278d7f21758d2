"""One measurement: a model at a number of tokens, its time and memory measured in a process of its own."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from aumcli.bench.interleave import Run, StoppingRule, quartiles, relative_error, run_interleaved
from aumcli.config import ARCHITECTURES, FrontendConfig, NetworkConfig, SpectrogramTransformerConfig
from aumcli.errors import AumError
from aumcli.utils.memory import kept_bytes, peak_bytes, physical_bytes, resident_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

GIB = 2**30
Result = TypeVar("Result")


@dataclass(frozen=True)
class BenchConfig:
    """What one process measures."""

    model: str  # architecture, size and, for AST, the attention: aum-base, ast-small, ast-base-eager; or a directory
    tokens: int  # patches; the class token comes on top
    mode: str
    dtype: str
    device: str
    batch: int
    threads: int
    seed: int = 0
    activation_checkpointing: str = "cheap"  # see `aumcli.config.TrainConfig`
    memory_cap_gib: float | None = None  # what needs more counts as out of memory, as on a smaller device


@dataclass
class Measurement:
    """What was measured with one configuration."""

    config: BenchConfig
    clip_s: float  # duration of a clip of as many tokens
    backend: str = ""
    samples_ms: list[float] = field(default_factory=list)
    peak_bytes: int | None = None  # on a GPU allocated there, else what the process grew by while computing
    saved_bytes: int | None = None  # kept for the backward pass, without the weights; training only
    failure: str = ""  # why there is no time

    @property
    def median_ms(self) -> float | None:
        """Median of the samples; None where the model could not run."""
        return quartiles(self.samples_ms)[1] if self.samples_ms else None

    @property
    def relative_error(self) -> float | None:
        """See `aumcli.bench.interleave.relative_error`."""
        return relative_error(self.samples_ms) if self.samples_ms else None


def network_config(model: str, tokens: int) -> tuple[NetworkConfig, str, float]:
    """Configuration of a model at a number of patches, its backend, and the seconds of audio that they cover.

    Args:
        model: see `BenchConfig.model`; of a directory only the configuration counts, the weights don't change the time.
        tokens: a multiple of the patches along the frequency axis.

    Raises:
        AumError: there is no such model, or it can't have that number of patches.
    """
    name = model.removesuffix("-eager")
    config, hop_ms = _stored_config(name)
    if model != name and not isinstance(config, SpectrogramTransformerConfig):
        raise AumError(f"{model}: only an AST has eager attention", fix=f"write {name}")
    rows = config.grid[0]
    if tokens < 1 or tokens % rows:
        raise AumError(
            f"{model} has {rows} patches along the frequency axis, so it can't have {tokens} tokens",
            fix=f"--min-tokens is a multiple of {rows}",
        )
    frames = config.whole_frames(1) + (tokens // rows - 1) * config.token_frames
    config = type(config).model_validate(config.model_dump() | {"frames": frames})
    return config, "auto" if model == name else "eager", frames * hop_ms / 1000


def _stored_config(name: str) -> tuple[NetworkConfig, float]:
    """Configuration and hop in ms of an architecture and size, or of a model directory."""
    from aumcli.checkpoints import read_config
    from aumcli.checkpoints.lookup import find_model

    architecture, _, size = name.partition("-")
    if architecture in ARCHITECTURES and size in ARCHITECTURES[architecture].SIZES:
        return ARCHITECTURES[architecture].model_validate({"size": size}), FrontendConfig().hop_ms
    try:
        stored = read_config(find_model(name))
    except AumError as error:
        names = [f"{name}-{each}" for name, kind in ARCHITECTURES.items() for each in kind.SIZES]
        raise AumError(
            f"there is no model {name} to measure",
            fix=f"choose from: {', '.join(names)}, ast-SIZE-eager, or a model directory",
        ) from error
    return stored.model, stored.frontend.hop_ms


def measure(configs: Sequence[BenchConfig], rule: StoppingRule) -> list[Measurement]:
    """Measure several models by interleaved runs (see `aumcli.bench.interleave.run_interleaved`)."""
    measurements = []
    for config, samples in zip(configs, run_interleaved(timed_runs, configs, rule)):
        clip_s = network_config(config.model, config.tokens)[2]
        facts = {} if samples.failure else samples.facts
        measurements.append(
            Measurement(config, clip_s, samples_ms=samples.ms.get("run", []), failure=samples.failure, **facts)
        )
    return measurements


def timed_runs(config: BenchConfig) -> Iterator[Run]:
    """Build a model and run it again and again.

    Yields:
        Milliseconds; backend, peak memory and bytes kept for the backward pass.
    """
    import torch

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    cap = None if config.memory_cap_gib is None else config.memory_cap_gib * GIB
    on_gpu, has_peak = config.device.startswith("cuda"), sys.platform != "win32"
    if cap is not None and on_gpu:
        share = min(1.0, cap / device_bytes(config.device))
        torch.cuda.set_per_process_memory_fraction(share, torch.device(config.device).index)
    run, backend = _prepare_run(config)
    base = resident_bytes() if has_peak else 0
    while True:
        ms, saved = timed(run, config.device)
        peak = torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - base if has_peak else None
        if cap is not None and peak is not None and peak > cap:
            raise MemoryError(f"{peak} bytes are above the cap")  # which a worker reports as out of memory
        yield {"run": ms}, {"peak_bytes": peak, "saved_bytes": saved, "backend": backend}


def timed(run: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Milliseconds that a call takes, the device's work included, and what it returns."""
    import torch

    synchronize = getattr(torch, device.partition(":")[0]).synchronize  # of torch.cpu, torch.cuda or torch.mps
    synchronize()
    start = time.perf_counter()
    result = run()
    synchronize()
    return 1000 * (time.perf_counter() - start), result


def _prepare_run(config: BenchConfig) -> tuple[Callable[[], int | None], str]:
    """Build a model; what runs it once, and the name of its backend."""
    import torch

    from aumcli.core import build_network

    model, backend, _ = network_config(config.model, config.tokens)
    device, dtype = torch.device(config.device), getattr(torch, config.dtype)
    features = torch.randn(config.batch, model.frames, model.n_mels).to(device)  # (b, frames, mels)
    network = build_network(model, backend).to(device)
    network.activation_checkpointing = config.activation_checkpointing
    if config.mode == "training":
        return _training_step(network, features, dtype), network.backend_on(device)
    network.eval().to(dtype)
    features = features.to(dtype)

    def run() -> None:
        with torch.inference_mode():
            network(features)

    return run, network.backend_on(device)


def _training_step(network: "nn.Module", features: "Tensor", dtype: "torch.dtype") -> Callable[[], int]:
    """Forward, backward and an AdamW step; the call returns the bytes that were kept for the backward pass."""
    import torch
    import torch.nn.functional as F

    device = features.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    targets = torch.zeros(len(features), dtype=torch.long, device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    saved: list[int] = []

    def loss_of_batch() -> "Tensor":
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return F.cross_entropy(network(features), targets)

    def step() -> int:
        if not saved:  # counted once, in the first warm-up
            saved.append(kept_bytes(loss_of_batch, network.parameters()))
        loss = loss_of_batch()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return saved[0]

    return step


def device_bytes(device: str) -> float:
    """The memory of a GPU, or of this machine; infinity where the system doesn't report it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return physical_bytes()

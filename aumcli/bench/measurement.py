"""One point of a benchmark: a model at a number of tokens, timed and its memory measured in a process of its own."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aumcli.bench.interleave import StoppingRule, quartiles, relative_error, run_interleaved
from aumcli.config import ARCHITECTURES, FrontendConfig, NetworkConfig
from aumcli.errors import AumError
from aumcli.utils.memory import kept_bytes

GIB = 2**30


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
    """What was measured of one setting."""

    setting: BenchConfig
    clip_s: float  # sound that so many tokens stand for
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
    """Configuration of a model at so many patches, its backend, and the seconds of sound that they stand for.

    Args:
        model: see `BenchConfig.model`; of a directory the configuration counts, its weights would not change the time.
        tokens: a multiple of the patches that lie above one another.

    Raises:
        AumError: there is no such model, or it can't have so many patches.
    """
    from aumcli.checkpoints import read_config
    from aumcli.checkpoints.lookup import find_model

    name = model.removesuffix("-eager")
    architecture, _, size = name.partition("-")
    if architecture in ARCHITECTURES and size in ARCHITECTURES[architecture].SIZES:
        config, hop_ms = ARCHITECTURES[architecture](size=size), FrontendConfig().hop_ms
    else:
        try:
            stored = read_config(find_model(name))
        except AumError as error:
            names = [f"{name}-{each}" for name, kind in ARCHITECTURES.items() for each in kind.SIZES]
            raise AumError(
                f"there is no model {model} to measure",
                fix=f"choose from: {', '.join(names)}, ast-SIZE-eager, or a model directory",
            ) from error
        config, hop_ms = stored.model, stored.frontend.hop_ms
    if model != name and config.architecture != "ast":
        raise AumError(f"{model}: only an AST has attention that could be eager", fix=f"write {name}")
    rows = config.grid[0]
    if tokens < 1 or tokens % rows:
        raise AumError(
            f"{model} has {rows} patches above one another, so it can't have {tokens} tokens",
            fix=f"--min-tokens is a multiple of {rows}",
        )
    frames = config.patch_frames + (tokens // rows - 1) * (config.patch_frames - config.overlap)
    config = type(config).model_validate(config.model_dump() | {"frames": frames})
    return config, "auto" if model == name else "eager", frames * hop_ms / 1000


def measure(settings: Sequence[BenchConfig], rules: StoppingRule) -> list[Measurement]:
    """Measure several models in turn (see `aumcli.bench.interleave.run_interleaved`)."""
    points = []
    for setting, samples in zip(settings, run_interleaved(timed_runs, settings, rules)):
        points.append(
            Measurement(
                setting,
                network_config(setting.model, setting.tokens)[2],
                samples_ms=samples.ms.get("run", []),
                failure=samples.failure,
                **({} if samples.failure else samples.facts),
            )
        )
    return points


def timed_runs(setting: BenchConfig) -> Iterator[tuple[dict, dict]]:
    """Build a model and run it again and again: for each run its milliseconds, and backend, peak and bytes kept."""
    import torch

    torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    on_gpu, has_peak = setting.device.startswith("cuda"), sys.platform != "win32"
    most = None if setting.memory_cap_gib is None else setting.memory_cap_gib * GIB
    if most is not None and on_gpu:
        share = min(1.0, most / memory_bytes(setting.device))
        torch.cuda.set_per_process_memory_fraction(share, torch.device(setting.device).index)
    run, backend = _prepare(setting)
    base = _resident_bytes() if has_peak else 0
    while True:
        ms, saved = timed(run, setting.device)
        peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_bytes() - base if has_peak else None
        if most is not None and peak is not None and peak > most:
            raise MemoryError(f"{peak} bytes are above the cap")  # which a worker calls out of memory
        yield {"run": ms}, {"peak_bytes": peak, "saved_bytes": saved, "backend": backend}


def timed(run: Callable, device: str) -> tuple[float, object]:
    """Milliseconds that a call takes, the device's work included, and what it returns."""
    import torch

    synchronise = getattr(torch, device.partition(":")[0]).synchronize  # of torch.cpu, torch.cuda or torch.mps
    synchronise()
    start = time.perf_counter()
    result = run()
    synchronise()
    return 1000 * (time.perf_counter() - start), result


def _prepare(setting: BenchConfig) -> tuple[Callable[[], int | None], str]:
    """Build a model; what runs it once, and the name of its backend."""
    import torch

    from aumcli.core import build_network

    config, backend, _ = network_config(setting.model, setting.tokens)
    device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
    features = torch.randn(setting.batch, config.frames, config.n_mels).to(device)
    network = build_network(config, backend).to(device)
    network.activation_checkpointing = setting.activation_checkpointing
    if setting.mode == "training":
        return _training_step(network, features, dtype), network.backend_on(device)
    network.eval().to(dtype)
    features = features.to(dtype)

    @torch.inference_mode()
    def run() -> None:
        network(features)

    return run, network.backend_on(device)


def _training_step(network, features, dtype) -> Callable[[], int]:
    """Forward, backward and an AdamW step; the call gives the bytes that the backward pass needed kept."""
    import torch
    import torch.nn.functional as F

    device = features.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    targets = torch.zeros(len(features), dtype=torch.long, device=device)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
    saved: list[int] = []

    def loss_of_batch():
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


def memory_bytes(device: str) -> int | None:
    """The memory of a GPU, or of this machine; None where the system doesn't say."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None


def _peak_bytes() -> int:
    """The most memory that this process ever held."""
    if sys.platform == "linux":  # getrusage would count the parent's, from before the program was loaded
        return _status("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _resident_bytes() -> int:
    """The memory that this process holds now, or held at most where the system doesn't say."""
    return _status("VmRSS") if sys.platform == "linux" else _peak_bytes()


def _status(key: str) -> int:
    """A size from Linux's table about this process, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {key}")

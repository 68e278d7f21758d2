"""aum bench: time and memory by number of tokens, AuM beside AST.

Each model has a process of its own, so that running out of memory ends that one only; the processes work in turn, one
repeat each, so that whatever else slows the machine down hits all models alike.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aumcli.config import ARCHITECTURES, NetworkConfig
from aumcli.errors import AumError
from aumcli.files import check_writable, write_json
from aumcli.memory import keep_memory, kept_bytes
from aumcli.report import environment

SCHEMA = 1
MODES, DTYPES = ("inference", "training"), ("float32", "bfloat16")
MODELS = ("aum-base", "ast-base")
WARM_UPS, FEWEST = 2, 3


@dataclass(frozen=True)
class Setting:
    """What one process measures."""

    model: str              # architecture, size and, for AST, the attention: aum-base, ast-small, ast-base-eager
    tokens: int             # patches; the class token comes on top
    mode: str
    dtype: str
    device: str
    batch: int
    threads: int
    seed: int = 0
    recompute: str = "cheap"  # see `aumcli.config.TrainConfig`


@dataclass
class Point:
    """What was measured of one setting."""

    setting: Setting
    backend: str = ""
    samples_ms: list[float] = field(default_factory=list)
    peak_bytes: int | None = None   # on a GPU allocated there, else what the process grew by while computing
    saved_bytes: int | None = None  # kept for the backward pass, without the weights; training only
    failure: str = ""               # why there is no time

    @property
    def median_ms(self) -> float | None:
        """Median of the samples; None where the model could not run."""
        return statistics.median(self.samples_ms) if self.samples_ms else None


def bench(models: Sequence[str] = MODELS, max_tokens: int = 2048, min_tokens: int = 512, mode: str = "inference",
          dtype: str = "float32", device: str = "cpu", batch: int = 1, repeats: int = 7, budget_s: float = 60.0,
          out: Path | str | None = None) -> Iterator[list[Point]]:
    """Measure models at min_tokens, twice that, ... up to max_tokens.

    Args:
        models: names as in `Setting.model`.
        max_tokens, min_tokens: patches per clip, each a multiple of 8 (128 mels in patches of 16 x 16).
        mode: "inference", or "training": forward, backward and an AdamW step.
        dtype: "float32", or "bfloat16": autocast in training, weights and all in inference.
        device: "cpu" or "cuda".
        batch: clips at a time.
        repeats: timed runs of each model, after two that warm up.
        budget_s: seconds per point; with fewer than three repeats done, a point goes on.
        out: folder for bench.json, written after every point; None: nothing is written.

    Yields:
        The points of one number of tokens, in the order of `models`.

    Raises:
        AumError: an unknown model, mode or type, impossible numbers, or no such device.
    """
    import torch

    from aumcli.classifier import pick_device

    for name, value, known in (("--mode", mode, MODES), ("--dtype", dtype, DTYPES)):
        if value not in known:
            raise AumError(f"{name} {value} is not known", fix=f"choose one of: {', '.join(known)}")
    if min_tokens % 8 or min_tokens < 8 or max_tokens < min_tokens:
        raise AumError(f"can't measure from {min_tokens} to {max_tokens} tokens",
                       fix="--min-tokens is a multiple of 8 and at most --max-tokens")
    for model in models:
        network_config(model, min_tokens)
    pick_device(device)
    if out is not None:
        check_writable(Path(out) / "bench.json")
    points, tokens = [], min_tokens
    while tokens <= max_tokens:
        settings = [Setting(model, tokens, mode, dtype, device, batch, torch.get_num_threads()) for model in models]
        points.append(measure(settings, repeats, budget_s))
        if out is not None:
            write_json(Path(out) / "bench.json", {
                "schema": SCHEMA, "environment": environment(),
                "points": [asdict(point) | {"median_ms": point.median_ms} for row in points for point in row]})
        yield points[-1]
        tokens *= 2


def network_config(model: str, tokens: int) -> tuple[NetworkConfig, str]:
    """Configuration and backend of a model's name, at so many patches."""
    architecture, size, *backend = model.split("-")
    kind = ARCHITECTURES.get(architecture)
    if kind is None or size not in kind.SIZES or len(backend) > 1 or (backend and (architecture, backend) != ("ast", ["eager"])):
        names = [f"{name}-{each}" for name, kind in ARCHITECTURES.items() for each in kind.SIZES]
        raise AumError(f"there is no model {model} to measure", fix=f"choose from: {', '.join(names)}, ast-SIZE-eager")
    return kind(size=size, frames=2 * tokens), (backend or ["auto"])[0]


def measure(settings: Sequence[Setting], repeats: int, budget_s: float) -> list[Point]:
    """Measure several models in turn, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    points, workers = [Point(setting) for setting in settings], []
    for setting in settings:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, setting), daemon=True)
        process.start()
        theirs.close()                                              # so that a dead process ends the pipe
        workers.append((process, ours))
    try:
        for repeat in range(WARM_UPS + repeats):
            for point, (process, pipe) in zip(points, workers):
                enough = len(point.samples_ms) >= FEWEST and sum(point.samples_ms) > 1000 * budget_s
                if point.failure or enough:
                    continue
                answer = _ask(process, pipe)
                point.failure = answer.get("failure", "")
                if point.failure:
                    point.samples_ms.clear()
                elif repeat >= WARM_UPS:
                    point.samples_ms.append(answer["ms"])
                    point.peak_bytes, point.saved_bytes, point.backend = answer["peak"], answer["saved"], answer["backend"]
    finally:
        for process, pipe in workers:
            pipe.close()
            process.join(10)
            process.kill()
    return points


def _ask(process, pipe) -> dict:
    """Have a worker do one run; its answer, or why it died."""
    try:
        pipe.send("run")
        return pipe.recv()
    except (EOFError, ConnectionError):
        process.join()
        killed = process.exitcode == -9
        return {"failure": "out of memory" if killed else f"its process ended with code {process.exitcode}"}


def _work(pipe, setting: Setting) -> None:
    """The worker's process: build the model, then do one timed run for each message."""
    if sys.platform == "linux":  # if memory runs out, this is the process to end
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    keep_memory()
    import torch

    torch.set_num_threads(setting.threads)
    torch.manual_seed(setting.seed)
    try:
        run, synchronise, backend = _prepare(setting)
        on_gpu, has_peak = setting.device.startswith("cuda"), sys.platform != "win32"
        base = _resident_bytes() if has_peak else 0
        while pipe.recv():
            synchronise()
            start = time.perf_counter()
            saved = run()
            synchronise()
            ms = 1000 * (time.perf_counter() - start)
            peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_bytes() - base if has_peak else None
            pipe.send({"ms": ms, "peak": peak, "saved": saved, "backend": backend})
    except (EOFError, ConnectionError, KeyboardInterrupt):
        return
    except (RuntimeError, MemoryError) as error:
        memory = isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
        pipe.send({"failure": "out of memory" if memory else str(error).splitlines()[0]})


def _prepare(setting: Setting):
    """Build a model and return what runs it once, what waits for the device, and the name of its backend."""
    import torch
    import torch.nn.functional as F

    from aumcli.core import build_network

    config, backend = network_config(setting.model, setting.tokens)
    device, dtype = torch.device(setting.device), getattr(torch, setting.dtype)
    features = torch.randn(setting.batch, config.frames, config.n_mels).to(device)
    network = build_network(config, backend).to(device)
    network.recompute = setting.recompute
    synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    name = network.backend_on(device)
    if setting.mode == "inference":
        network.eval().to(dtype)
        features = features.to(dtype)

        @torch.inference_mode()
        def run() -> None:
            network(features)

        return run, synchronise, name
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    targets = torch.zeros(setting.batch, dtype=torch.long, device=device)
    counted: list[int] = []

    def loss_of_batch():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return F.cross_entropy(network(features), targets)

    def step() -> int:
        loss = loss_of_batch()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return counted[0]

    def first() -> int:
        """Count once, in the first warm-up."""
        counted.append(kept_bytes(loss_of_batch, network.parameters()))
        return counted[0]

    return lambda: step() if counted else first(), synchronise, name


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

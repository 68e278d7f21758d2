"""What memory bandwidth and arithmetic allow on three GPUs: computed from datasheets, nothing is measured.

python benchmarks/roofline.py prints the tables of docs/gpu-roofline.md. A kernel takes the longest of its bytes
over the bandwidth, its products over the tensor cores' rate, its exponentials over the special function units' (16 a
clock and multiprocessor) and its other float32 operations over the lanes'. A program that reads a tile again finds it
in a cache.
"""

from dataclasses import dataclass

WIDTH, INNER, STATES, RANK, TAPS, DEPTH = 768, 1536, 16, 48, 4, 24  # AuM-B; AST-B has the width and half the depth
HALF, FULL = 2, 4  # bytes of bfloat16 and float32
LENGTHS = (512, 1024, 2048, 4096, 8192)
CHUNK, TILE, STRIP = 80, 16, 16  # as in triton_scan.py


@dataclass(frozen=True)
class Gpu:
    """What a datasheet says of a GPU.

    Bandwidth in bytes/s, dense bfloat16 products in flop/s, multiprocessors, float32 lanes each, clock in Hz.
    """

    name: str
    bandwidth: float
    products: float
    multiprocessors: int
    lanes: int
    clock: float


GPUS = (
    Gpu("RTX A6000", 768e9, 154.8e12, 84, 128, 1.80e9),
    Gpu("A100 80 GB SXM", 2039e9, 312e12, 108, 64, 1.41e9),
    Gpu("H100 SXM", 3350e9, 989e12, 132, 128, 1.98e9),
)


@dataclass(frozen=True)
class Work:
    """A kernel's work for a token."""

    bytes: float = 0.0
    products: float = 0.0  # floating point operations of matrix products
    exponentials: float = 0.0
    others: float = 0.0  # float32 instructions of a lane

    def seconds(self, gpu: Gpu) -> tuple[float, str]:
        """Time for a token and what bounds it."""
        rate = gpu.multiprocessors * gpu.clock
        return max(
            (self.bytes / gpu.bandwidth, "bandwidth"),
            (self.products / gpu.products, "tensor cores"),
            (self.exponentials / (16 * rate), "exponentials"),
            (self.others / (gpu.lanes * rate), "float32 lanes"),
        )


def linear(inputs: int, outputs: int) -> Work:
    """A linear layer: its weights are read once for many tokens and are left out."""
    return Work(bytes=HALF * (inputs + outputs), products=2.0 * inputs * outputs)


def states(length: int) -> float:
    """Bytes to carry both directions' states between chunks of `length`: written, read, written, read."""
    return 2 * 4 * FULL * STATES * INNER / length


def fused_scan(chunked: bool, size: int = HALF) -> Work:
    """Both directions: u, delta, z read, y written, one direction's output parked in float32.

    Cut in chunks, u and delta twice.
    """
    parked = 0 if size == FULL else FULL  # in float32 it waits in y itself
    moved = (4 * size + parked + (2 * size if chunked else 0)) * INNER + (states(CHUNK) if chunked else 0)
    passes = 2 if chunked else 1
    steps = 2 * INNER * STATES * passes
    return Work(bytes=moved + 4 * size * STATES, exponentials=steps + 3 * INNER, others=4.0 * steps)


def two_causal_scans(size: int = HALF) -> Work:
    """Two causal scans: u, delta, z read, y written ungated and gated, twice.

    Besides, u, delta, z, y are flipped (B and C are small), and the two added.
    """
    return Work(
        bytes=(2 * 5 + 4 * 2 + 3) * size * INNER + 8 * size * STATES,
        exponentials=2 * INNER * (STATES + 2),
        others=4.0 * 2 * INNER * STATES,
    )


def fused_scan_backward(size: int = HALF) -> Work:
    """Ends, adjoint ends, gradients: each with what it reads; states and adjoints by tiles; parts of dA, dB and dC."""
    reads = (2 + 3 + 4) * size * INNER
    writes = (3 * size + FULL) * INNER
    parts = 2 * (2 * FULL * STATES * INNER / TILE) + 2 * 2 * (2 * FULL * STATES * INNER / STRIP)
    return Work(
        bytes=reads + writes + 2 * states(TILE) + parts,
        exponentials=2 * INNER * STATES * 4,
        others=2.0 * INNER * STATES * 20,
    )


def audio_mamba(scan: Work) -> dict[str, Work]:
    """The kernels of AuM-B, for a token."""
    return {
        "projections": [
            linear(WIDTH, 2 * INNER),
            linear(INNER, RANK + 2 * STATES),
            linear(RANK, INNER),
            linear(INNER, WIDTH),
        ],
        "convolution": [Work(bytes=2 * HALF * INNER, exponentials=INNER, others=8 * INNER)],
        "scan": [scan],
        "norm": [Work(bytes=(2 * HALF + 2 * FULL) * WIDTH, others=6 * WIDTH)],
    }


def transformer(tokens: int, eager: bool = False) -> dict[str, Work]:
    """The kernels of AST-B, for a token; eager attention writes and reads the scores twice, as published and timed."""
    heads = 12
    scores = 4 * HALF * heads * tokens if eager else 0
    return {
        "projections": [
            linear(WIDTH, 3 * WIDTH),
            linear(WIDTH, WIDTH),
            linear(WIDTH, 4 * WIDTH),
            linear(4 * WIDTH, WIDTH),
        ],
        "attention": [
            Work(
                bytes=4 * HALF * WIDTH + scores,
                products=4.0 * tokens * WIDTH,
                exponentials=heads * tokens,
                others=4.0 * heads * tokens,
            )
        ],
        "GELU": [Work(bytes=2 * HALF * 4 * WIDTH, exponentials=4 * WIDTH)],
        "norms and residuals": [Work(bytes=2 * HALF * WIDTH)] * 2 + [Work(bytes=3 * HALF * WIDTH)] * 2,
    }


def total(kernels: dict, depth: int, gpu: Gpu) -> float:
    """Seconds of a model for a token."""
    return depth * sum(work.seconds(gpu)[0] for works in kernels.values() for work in works)


def main() -> None:
    """Print the tables."""
    print(
        "| kernel, both directions, AuM-B | bytes a token | of two causal scans | "
        + " | ".join(f"{g.name}, ns a token" for g in GPUS)
        + " |"
    )
    print("|---|---|---|" + "---|" * len(GPUS))
    for label, size in (("bfloat16", HALF), ("float32", FULL)):
        flipped = two_causal_scans(size)
        for name, work in (
            ("two causal scans with flips", flipped),
            ("fused, sequence whole", fused_scan(False, size)),
            (f"fused, chunks of {CHUNK}", fused_scan(True, size)),
            ("fused, backward", fused_scan_backward(size)),
        ):
            times = " | ".join(f"{work.seconds(g)[0] * 1e9:.0f} ({work.seconds(g)[1]})" for g in GPUS)
            print(f"| {label}: {name} | {work.bytes:,.0f} | {work.bytes / flipped.bytes:.2f} | {times} |")
    print("\n| inference in bfloat16, ms for a clip | " + " | ".join(f"{l} tokens" for l in LENGTHS) + " |")
    print("|---|" + "---|" * len(LENGTHS))
    for gpu in GPUS:
        whole, cut, causal = (
            total(audio_mamba(scan), DEPTH, gpu) for scan in (fused_scan(False), fused_scan(True), two_causal_scans())
        )
        flash, eager = ([total(transformer(l, kind), DEPTH // 2, gpu) for l in LENGTHS] for kind in (False, True))
        models = {
            "AuM-B, fused, cut in chunks": [cut] * 5,
            "AuM-B, fused, whole": [whole] * 5,
            "AuM-B, two causal scans": [causal] * 5,
            "AST-B, flash attention": flash,
            "AST-B, eager attention": eager,
        }
        for name, times in models.items():
            print(f"| {gpu.name}: {name} | " + " | ".join(f"{t * l * 1e3:.2f}" for t, l in zip(times, LENGTHS)) + " |")
        for name, times in (("flash", flash), ("eager", eager)):
            print(
                f"| **{gpu.name}: AST-B {name} / AuM-B whole** | "
                + " | ".join(f"**{t / whole:.2f}**" for t in times)
                + " |"
            )


if __name__ == "__main__":
    main()

"""The sweep: models by number of tokens, modes and types."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import GIB, BenchConfig, Measurement, device_bytes, measure, network_config
from aumcli.bench.output import update_results
from aumcli.bench.results import environment_of
from aumcli.errors import AumError

MODES, DTYPES = ("inference", "training"), ("float32", "bfloat16", "float16")
MODELS = ("aum-base", "ast-base", "ast-base-eager", "aum-small", "ast-small", "ast-small-eager")

VISIBLE = 0.95  # of a card's nominal memory is what its driver shows at least: 47.5 GiB of an A6000's 48


@dataclass(frozen=True)
class Sweep:
    """What to measure.

    Args:
        models: names as in `BenchConfig.model`.
        min_tokens, max_tokens: patches per clip: from the minimum on doubled up to the maximum.
        modes: "inference", and "training": forward, backward and an AdamW step.
        dtypes: "float32", "bfloat16", "float16": autocast in training (with scaled gradients for float16), weights and
            all in inference.
        device: "cpu", "cuda" or "auto".
        batch: clips at a time.
        stopping_rule: when a measurement ends.
        memory_cap_gib: what needs more memory counts as out of memory, as on a smaller device; None: the machine's own.

    Raises:
        AumError: an unknown model, mode or type, impossible numbers, a cap above the device's memory, no such device.
    """

    models: Sequence[str] = MODELS
    min_tokens: int = 512
    max_tokens: int = 2048
    modes: Sequence[str] = ("inference",)
    dtypes: Sequence[str] = ("float32",)
    device: str = "cpu"
    batch: int = 1
    stopping_rule: StoppingRule = field(default_factory=StoppingRule)
    memory_cap_gib: float | None = None

    def __post_init__(self) -> None:
        from aumcli.classifier import pick_device

        for name, values, known in (("--mode", self.modes, MODES), ("--dtype", self.dtypes, DTYPES)):
            for value in values:
                if value not in known:
                    raise AumError(f"{name} {value} is not known", fix=f"choose among: {', '.join(known)}")
        if self.max_tokens < self.min_tokens:
            raise AumError(
                f"can't measure from {self.min_tokens} to {self.max_tokens} tokens",
                fix="--min-tokens is at most --max-tokens",
            )
        for model in self.models:
            network_config(model, self.min_tokens)
        object.__setattr__(self, "device", str(pick_device(self.device)))
        cap_gib, has_gib = self.memory_cap_gib or 0.0, device_bytes(self.device) / GIB
        if VISIBLE * cap_gib > has_gib:
            raise AumError(
                f"{self.device} has {has_gib:.1f} GiB of memory, less than --memory-cap {cap_gib:g}: "
                "what runs out of memory here needn't there",
                fix="measure on a device with more, or lower the cap",
            )

    @property
    def lengths(self) -> list[int]:
        """The numbers of tokens."""
        doublings = (self.max_tokens // self.min_tokens).bit_length()
        return [self.min_tokens << i for i in range(doublings)]

    def config(self, model: str, tokens: int, mode: str = "inference", dtype: str | None = None) -> BenchConfig:
        """The configuration of one measurement."""
        import torch

        return BenchConfig(
            model,
            tokens,
            mode,
            dtype or self.dtypes[0],
            self.device,
            self.batch,
            torch.get_num_threads(),
            memory_cap_gib=self.memory_cap_gib,
        )


def bench(sweep: Sweep, out: Path | str | None = None) -> Iterator[list[Measurement]]:
    """Measure models by number of tokens.

    Args:
        sweep: what to measure.
        out: folder for bench.json, bench.csv, bench.md and bench.png, written after every number of tokens.
            Measurements of other configurations that are there, made on the same machine, are kept. None: nothing is
            written.

    Yields:
        The measurements of one mode, type and number of tokens, in the order of the models.

    Raises:
        AumError: `out` can't be written, or holds results of another machine or version.
    """
    machine, rule = environment_of(sweep.device), sweep.stopping_rule
    if out is not None:
        update_results(out, machine, rule, [])
    for mode in sweep.modes:
        for dtype in sweep.dtypes:
            for tokens in sweep.lengths:
                row = measure([sweep.config(model, tokens, mode, dtype) for model in sweep.models], rule)
                if out is not None:
                    update_results(out, machine, rule, row)
                yield row

"""Interleaved runs: each competitor in a process of its own, one run after the other, until all medians are precise."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aumcli.errors import AumError
from aumcli.utils.subprocesses import OUT_OF_MEMORY, Worker

OVER_BUDGET = "over budget"
MIN_SAMPLES = 5  # below which a median does not count as precise
MIN_SAMPLES_OVER_BUDGET = 3  # that are taken even beyond the budget
WARM_UPS = 2

Config = TypeVar("Config")
Run = tuple[dict[str, float], dict[str, Any]]  # milliseconds by the name of what was timed; anything else to report


@dataclass(frozen=True)
class StoppingRule:
    """When a measurement ends."""

    precision: float = 0.01  # relative standard error of the median to reach
    repeats: int = 50  # timed runs at most
    budget_s: float = 60.0  # seconds of runs, warm-up included; three timed runs are made in any case


@dataclass
class Samples:
    """What was measured of one competitor."""

    ms: dict[str, list[float]] = field(default_factory=dict)  # by the name of what was timed
    facts: dict[str, Any] = field(default_factory=dict)  # what its last run reported besides
    failure: str = ""  # why there are no times
    warm_ups: int = 0
    spent_s: float = 0.0

    @property
    def count(self) -> int:
        """Timed runs."""
        return min(map(len, self.ms.values()), default=0)

    def is_precise(self, rule: StoppingRule) -> bool:
        """Whether every median has the precision that is asked for."""
        return self.count >= MIN_SAMPLES and all(relative_error(ms) <= rule.precision for ms in self.ms.values())

    def may_continue(self, rule: StoppingRule) -> bool:
        """Whether repeats and budget allow another run."""
        within_budget = self.count < MIN_SAMPLES_OVER_BUDGET or self.spent_s < rule.budget_s
        return not self.failure and self.count < rule.repeats and within_budget


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(samples) < 2:
        return (samples[0],) * 3
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high


def relative_error(samples: Sequence[float]) -> float:
    """Standard error of the median over the median: 0.93 interquartile ranges over the root of the number of samples.

    Source: McGill, Tukey and Larsen 1978, whose notches of 1.57 interquartile ranges are 1.7 standard errors. Outliers,
    which are frequent where others use the machine, count no more than other samples.
    """
    low, middle, high = quartiles(samples)
    return 0.93 * (high - low) / math.sqrt(len(samples)) / middle if middle else math.inf


def run_interleaved(
    generator: Callable[[Config], Iterator[Run]], configs: Sequence[Config], rule: StoppingRule
) -> list[Samples]:
    """Measure competitors by interleaved runs, so that whatever slows the machine down affects all alike.

    A competitor that is precise continues while another is not, within its budget. One that runs out of memory or
    budget beside the others is measured again alone: only what fails alone has failed.

    Args:
        generator: yields the result of each run; it is started in a process of its own for each competitor.
        configs: what the generator is called with, for each competitor.
        rule: when a measurement ends.

    Returns:
        The samples of each competitor.
    """
    together = _interleave(generator, configs, rule)
    if len(together) == 1:
        return together
    return [
        _interleave(generator, [config], rule)[0]
        if samples.failure.startswith((OUT_OF_MEMORY, OVER_BUDGET))
        else samples
        for config, samples in zip(configs, together)
    ]


def _interleave(
    generator: Callable[[Config], Iterator[Run]], configs: Sequence[Config], rule: StoppingRule
) -> list[Samples]:
    workers, all_samples = [Worker(generator, config) for config in configs], [Samples() for _ in configs]
    try:
        while any(samples.may_continue(rule) and not samples.is_precise(rule) for samples in all_samples):
            for worker, samples in zip(workers, all_samples):
                if samples.may_continue(rule):
                    _run(worker, samples, rule)
    finally:
        for worker in workers:
            worker.close()
    return all_samples


def _run(worker: Worker, samples: Samples, rule: StoppingRule) -> None:
    """One run: the first two are warm-up, or the first alone where it took a tenth of the budget."""
    try:
        times, samples.facts = worker.ask()
    except AumError as error:
        samples.failure = error.problem
        samples.ms.clear()
        return
    took_s = sum(times.values()) / 1000
    samples.spent_s += took_s
    if samples.warm_ups == 0 and took_s > rule.budget_s:
        samples.failure = f"{OVER_BUDGET}: {took_s:.0f} s a run"
    elif samples.warm_ups == WARM_UPS or samples.warm_ups == 1 and took_s > rule.budget_s / 10:
        for name, ms in times.items():
            samples.ms.setdefault(name, []).append(ms)
    else:
        samples.warm_ups += 1

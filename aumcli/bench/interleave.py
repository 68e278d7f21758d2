"""Timing in turn: each competitor in a process of its own, one run each, until all figures are precise."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from aumcli.errors import AumError
from aumcli.utils.subprocesses import OUT_OF_MEMORY, Worker

OVER_BUDGET = "over budget"
FEWEST = 5  # runs before a figure can count as precise
FEWEST_DEAR = 3  # runs that are made even beyond the budget


@dataclass(frozen=True)
class StoppingRule:
    """When a point has been measured enough."""

    precision: float = 0.01  # relative standard error of the median to reach
    repeats: int = 50  # timed runs at most
    budget_s: float = 60.0  # seconds of runs, the warm-up included; three timed runs are made all the same


@dataclass
class Samples:
    """What one competitor gave."""

    ms: dict[str, list[float]] = field(default_factory=dict)  # by the name of what was timed
    facts: dict[str, object] = field(default_factory=dict)  # what its last run said besides
    failure: str = ""  # why there are no times
    warm_ups: int = 0
    spent_s: float = 0.0

    @property
    def count(self) -> int:
        """Timed runs."""
        return min(map(len, self.ms.values()), default=0)

    def is_precise(self, rules: StoppingRule) -> bool:
        """Whether every figure has the precision that is asked for, or there are none."""
        return (
            bool(self.failure)
            or self.count >= FEWEST
            and all(relative_error(x) <= rules.precision for x in self.ms.values())
        )

    def goes_on(self, rules: StoppingRule) -> bool:
        """Whether it may run again."""
        return (
            not self.failure
            and self.count < rules.repeats
            and (self.count < FEWEST_DEAR or self.spent_s < rules.budget_s)
        )


def quartiles(samples: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    if len(samples) < 2:
        return (samples[0],) * 3
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high


def relative_error(samples: Sequence[float]) -> float:
    """Standard error of the median over the median: 0.93 interquartile ranges over the root of the number.

    Source: McGill, Tukey and Larsen 1978, whose notches of 1.57 interquartile ranges are 1.7 standard errors; outliers,
    which are many where others use the machine, count no more than other samples.
    """
    low, middle, high = quartiles(samples)
    return 0.93 * (high - low) / math.sqrt(len(samples)) / middle if middle else math.inf


def run_interleaved(
    generator: Callable[..., Iterator[tuple[dict, dict]]], arguments: Sequence[object], rules: StoppingRule
) -> list[Samples]:
    """Let competitors run in turn, so that whatever slows the machine down hits all alike.

    A precise one goes on while another is not, within its budget. One that runs out of memory or time beside others,
    who may have left it no memory for its files, has another try alone: only what fails alone has failed.

    Args:
        generator: yields, for each run, milliseconds by name, and facts.
        arguments: one for each competitor's generator.
        rules: when it is enough.

    Returns:
        What each gave.
    """
    together = _in_turn(generator, arguments, rules)
    if len(together) == 1:
        return together
    return [
        _in_turn(generator, [argument], rules)[0]
        if samples.failure.startswith((OUT_OF_MEMORY, OVER_BUDGET))
        else samples
        for argument, samples in zip(arguments, together)
    ]


def _in_turn(generator: Callable[..., Iterator], arguments: Sequence[object], rules: StoppingRule) -> list[Samples]:
    workers, all_samples = [Worker(generator, argument) for argument in arguments], [Samples() for _ in arguments]
    try:
        while any(each.goes_on(rules) and not each.is_precise(rules) for each in all_samples):
            for worker, samples in zip(workers, all_samples):
                if samples.goes_on(rules):
                    _run(worker, samples, rules)
    finally:
        for worker in workers:
            worker.close()
    return all_samples


def _run(worker: Worker, samples: Samples, rules: StoppingRule) -> None:
    """One run: the first two warm up, or the first alone where it took a tenth of the budget."""
    try:
        times, samples.facts = worker.ask()
    except AumError as error:
        samples.failure = error.problem
        samples.ms.clear()
        return
    took_s = sum(times.values()) / 1000
    samples.spent_s += took_s
    if samples.warm_ups == 0 and took_s > rules.budget_s:
        samples.failure = f"{OVER_BUDGET}: {took_s:.0f} s a run"
    elif samples.warm_ups == 2 or samples.warm_ups == 1 and took_s > rules.budget_s / 10:
        for name, ms in times.items():
            samples.ms.setdefault(name, []).append(ms)
    else:
        samples.warm_ups += 1

"""What follows from the measurements: how time grows with the length, and from which length on AuM is faster."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from aumcli.bench.measurement import Measurement

Z95 = 1.96  # standard errors on either side of a 95 % interval


class Group(NamedTuple):
    """What the measurements of one table have in common."""

    mode: str
    dtype: str
    device: str
    batch: int
    memory_cap_gib: float | None


def groups(measurements: Sequence[Measurement]) -> dict[Group, list[Measurement]]:
    """Measurements that belong into one table, in their order, by tokens and then by model."""
    found: dict[Group, list[Measurement]] = {}
    for measurement in measurements:
        config = measurement.config
        group = Group(config.mode, config.dtype, config.device, config.batch, config.memory_cap_gib)
        found.setdefault(group, []).append(measurement)
    for each in found.values():
        order = list(dict.fromkeys(measurement.config.model for measurement in each))
        each.sort(key=lambda measurement: (measurement.config.tokens, order.index(measurement.config.model)))
    return found


def by_model(measurements: Sequence[Measurement]) -> dict[str, dict[int, Measurement]]:
    """A group's measurements by model and tokens."""
    found: dict[str, dict[int, Measurement]] = {}
    for measurement in measurements:
        found.setdefault(measurement.config.model, {})[measurement.config.tokens] = measurement
    return found


def baseline_of(model: str, models: Sequence[str]) -> str:
    """What a model is compared with: the AuM of the same size, else the first model; an AuM with itself."""
    kind, _, size = model.removesuffix("-eager").partition("-")
    same_size = f"aum-{size}"
    if kind == "aum" and size:
        return model
    return same_size if kind == "ast" and same_size in models else models[0]


@dataclass(frozen=True)
class Growth:
    """Time grows as tokens to the power of `exponent`, by a fit to `lengths` lengths from `from_tokens` on."""

    exponent: float
    lengths: int
    from_tokens: int


def growth(measurements: Sequence[Measurement]) -> Growth | None:
    """Least squares of log time on log tokens, over the longer half of the lengths.

    Of an odd number of lengths, the middle one is used too. Short lengths, where fixed costs count, would
    flatten the slope.

    Returns:
        None with fewer than two lengths in that half.
    """
    known = sorted((each.config.tokens, each.median_ms) for each in measurements if each.median_ms)
    longer = known[len(known) // 2 :]
    if len(longer) < 2:
        return None
    x, y = ([math.log(value) for value in column] for column in zip(*longer))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)
    return Growth(slope, len(longer), longer[0][0])


@dataclass(frozen=True)
class Comparison:
    """A model against a rival: the ratio of their times, and where it passes one."""

    model: str
    rival: str
    ratios: dict[int, float]  # by tokens: the rival's time over the model's; above 1 the model is faster
    errors: dict[int, float]  # relative standard errors of these
    crossings: tuple[float, ...]  # tokens from which on the other one is faster
    clip_s_per_token: float

    @property
    def undecided(self) -> list[int]:
        """Lengths at which the ratio differs from one by less than its 95 % interval."""
        return [tokens for tokens, ratio in self.ratios.items() if abs(math.log(ratio)) < Z95 * self.errors[tokens]]

    @property
    def decided(self) -> list[int]:
        """The other lengths."""
        return [tokens for tokens in self.ratios if tokens not in self.undecided]

    def sentence(self) -> str:
        """Which is faster where, as far as the measurements tell."""
        if not self.ratios:
            return f"{self.model} and {self.rival}: at no length did both run."
        longest = max(self.ratios)
        if not self.decided:
            return (
                f"{self.model} and {self.rival}: at no length is the difference larger than the error "
                f"({self._ratio(longest)} at {longest:,} tokens)."
            )
        text = self._crossover() if self.crossings else self._no_crossover()
        if self.undecided:
            text += f"; at {_lengths(self.undecided)} the difference is within the error"
        end = f"{self.model} is {self._ratio(longest)} times as fast as {self.rival} at {longest:,} tokens"
        return f"{text}; {end}."

    def _faster_first(self) -> tuple[str, str]:
        """The model that is faster at the shortest decided length, and the other one."""
        return (self.model, self.rival) if self.ratios[self.decided[0]] > 1 else (self.rival, self.model)

    def _no_crossover(self) -> str:
        faster, other = self._faster_first()
        if len(self.ratios) == 1:
            where = "at the one length measured"
        elif self.undecided:
            where = f"at {_lengths(self.decided)}"
        else:
            where = f"at every length measured, {min(self.ratios):,} to {max(self.ratios):,} tokens"
        return f"{faster} is faster than {other} {where}: no crossover there"

    def _crossover(self) -> str:
        faster, other = self._faster_first()
        text = f"{faster} is faster"
        for tokens in self.crossings:
            faster, other = other, faster
            left = max(each for each in self.decided if each <= tokens)
            right = min(each for each in self.decided if each >= tokens)
            if any(left < each < right for each in self.undecided):
                text += f" up to somewhere between {left:,} and {right:,} tokens, then {faster}"
            else:
                text += f" up to {tokens:,.0f} tokens ({tokens * self.clip_s_per_token:.1f} s), then {faster}"
        return text

    def _ratio(self, tokens: int) -> str:
        """A ratio, with its 95 % interval where that shows in two decimals."""
        ratio, half_width = self.ratios[tokens], Z95 * self.ratios[tokens] * self.errors[tokens]
        return f"{ratio:.2f}" + (f" ± {half_width:.2f}" if half_width >= 0.005 else "")


def _lengths(tokens: Sequence[int]) -> str:
    return ", ".join(f"{each:,}" for each in tokens) + " tokens"


def imprecise(measurements: Sequence[Measurement], precision: float) -> str:
    """A sentence that names the measurements with larger errors than asked for; "" where there are none."""
    errors = [(each.config, each.relative_error) for each in measurements]
    named = [
        f"{config.model} at {config.tokens:,} tokens {100 * error:.1f} %"
        for config, error in errors
        if error is not None and error > precision
    ]
    if not named:
        return ""
    return (
        f"the precision of {100 * precision:g} % was not reached: {', '.join(named)}; "
        "--budget and --repeats let it measure longer, a quieter machine helps more"
    )


def comparisons(measurements: Sequence[Measurement]) -> Iterator[Comparison]:
    """Each model of a group against its baseline (see `baseline_of`).

    Crossings are interpolated on logarithmic axes, between lengths at which the difference is larger than the error.
    """
    models = by_model(measurements)
    for rival, rivals in models.items():
        model = baseline_of(rival, list(models))
        if model == rival:
            continue
        ours, theirs = _times(models[model]), _times(rivals)
        both = sorted(set(ours) & set(theirs))
        ratios = {tokens: theirs[tokens][0] / ours[tokens][0] for tokens in both}
        errors = {tokens: math.hypot(ours[tokens][1], theirs[tokens][1]) for tokens in both}
        first = next(iter(models[model].values()))
        found = Comparison(model, rival, ratios, errors, (), first.clip_s / first.config.tokens)
        yield replace(found, crossings=tuple(_crossings({tokens: ratios[tokens] for tokens in found.decided})))


def _times(measurements: dict[int, Measurement]) -> dict[int, tuple[float, float]]:
    """Medians in ms and their relative errors, by tokens, of the lengths that could be measured."""
    return {
        tokens: (each.median_ms, each.relative_error)
        for tokens, each in measurements.items()
        if each.median_ms and each.relative_error is not None
    }


def _crossings(ratios: dict[int, float]) -> Iterator[float]:
    """Where the ratio passes one."""
    for left, right in pairwise(ratios):
        a, b = math.log(ratios[left]), math.log(ratios[right])
        if (a > 0) != (b > 0):
            fraction = a / (a - b)
            yield math.exp(math.log(left) + fraction * (math.log(right) - math.log(left)))

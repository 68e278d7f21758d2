"""What follows from the points: how time grows with the length, and from which length on AuM wins."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from aumcli.bench.measurement import Measurement

Z95 = 1.96  # standard errors on either side of a 95 % interval

Group = tuple[str, str, str, int, float | None]  # mode, type, device, batch, cap of the memory


def groups(points: Sequence[Measurement]) -> dict[Group, list[Measurement]]:
    """Points that belong into one table, in their order, by tokens and then by model."""
    found: dict[Group, list[Measurement]] = {}
    for point in points:
        setting = point.setting
        key = setting.mode, setting.dtype, setting.device, setting.batch, setting.memory_cap_gib
        found.setdefault(key, []).append(point)
    for each in found.values():
        order = list(dict.fromkeys(point.setting.model for point in each))
        each.sort(key=lambda point: (point.setting.tokens, order.index(point.setting.model)))
    return found


def by_model(points: Sequence[Measurement]) -> dict[str, dict[int, Measurement]]:
    """A group's points by model and tokens."""
    found: dict[str, dict[int, Measurement]] = {}
    for point in points:
        found.setdefault(point.setting.model, {})[point.setting.tokens] = point
    return found


def rival_of(model: str, models: Sequence[str]) -> str:
    """The model that a model is compared with: the AuM of the same size, else the first of all; itself for none."""
    kind, _, size = model.removesuffix("-eager").partition("-")
    same = f"aum-{size}"
    return model if kind == "aum" and size else same if kind == "ast" and same in models else models[0]


@dataclass(frozen=True)
class Growth:
    """Time grows as tokens to the power of `exponent`.

    By a fit to `points` lengths, the shortest of which is `from_tokens`.
    """

    exponent: float
    points: int
    from_tokens: int


def growth(points: Sequence[Measurement]) -> Growth | None:
    """Least squares of log time on log tokens, over the longer half of the lengths.

    Of an odd number of lengths, the middle one is used too. Short lengths, where fixed costs count, would
    flatten the slope.

    Returns:
        None with fewer than two lengths in that half.
    """
    known = sorted((point.setting.tokens, point.median_ms) for point in points if point.median_ms)
    upper = known[len(known) // 2 :]
    if len(upper) < 2:
        return None
    x, y = ([math.log(value) for value in column] for column in zip(*upper))
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y)) / sum((a - middle_x) ** 2 for a in x)
    return Growth(slope, len(upper), upper[0][0])


@dataclass(frozen=True)
class Comparison:
    """AuM (or whatever comes first) against a rival: their times' ratio, and where it passes one."""

    model: str
    rival: str
    ratios: dict[int, float]  # by tokens: the rival's time over the model's; above 1 the model is ahead
    errors: dict[int, float]  # relative standard errors of these
    crossings: tuple[float, ...]  # tokens at which the other one takes the lead
    clip_s_per_token: float

    @property
    def undecided(self) -> list[int]:
        """Lengths at which the ratio differs from one by less than its 95 % interval."""
        return [tokens for tokens, ratio in self.ratios.items() if abs(math.log(ratio)) < Z95 * self.errors[tokens]]

    def sentence(self) -> str:
        """Who is ahead where, plainly, as far as the measurements tell."""
        if not self.ratios:
            return f"{self.model} and {self.rival}: at no length did both run."
        longest, undecided = max(self.ratios), self.undecided
        decided = [tokens for tokens in self.ratios if tokens not in undecided]
        if not decided:
            return (
                f"{self.model} and {self.rival}: at no length is the difference larger than the error "
                f"({self._ratio(longest)} at {longest:,} tokens)."
            )
        end = f"{self.model} is {self._ratio(longest)} times as fast as {self.rival} at {longest:,} tokens"
        leader, other = (self.model, self.rival) if self.ratios[decided[0]] > 1 else (self.rival, self.model)
        text = f"{leader} is faster"
        if not self.crossings:
            every = f"at every length measured, {min(self.ratios):,} to {longest:,} tokens"
            where = (
                "at the one length measured"
                if len(self.ratios) == 1
                else every
                if not undecided
                else "at " + _lengths(decided)
            )
            text += f" than {other} {where}: no crossover there"
        for tokens in self.crossings:
            leader, other = other, leader
            left, right = (
                max(each for each in decided if each <= tokens),
                min(each for each in decided if each >= tokens),
            )
            between = [each for each in undecided if left < each < right]
            text += (
                f" up to somewhere between {left:,} and {right:,} tokens, then {leader}"
                if between
                else f" up to {tokens:,.0f} tokens ({tokens * self.clip_s_per_token:.1f} s), then {leader}"
            )
        if undecided:
            text += f"; at {_lengths(undecided)} the difference is within the error"
        return f"{text}; {end}."

    def _ratio(self, tokens: int) -> str:
        """A ratio, with its 95 % interval where that shows in two decimals."""
        ratio, wide = self.ratios[tokens], Z95 * self.ratios[tokens] * self.errors[tokens]
        return f"{ratio:.2f}" + (f" ± {wide:.2f}" if wide >= 0.005 else "")


def _lengths(tokens: Sequence[int]) -> str:
    return ", ".join(f"{each:,}" for each in tokens) + " tokens"


def unprecise(points: Sequence[Measurement], precision: float) -> str:
    """A sentence that names the points whose errors are larger than what was asked for; "" where there are none."""
    named = ", ".join(
        f"{point.setting.model} at {point.setting.tokens:,} tokens {100 * error:.1f} %"
        for point in points
        if (error := point.relative_error) is not None and error > precision
    )
    if not named:
        return ""
    return (
        f"the precision of {100 * precision:g} % was not reached: {named}; "
        "--budget and --repeats let it measure longer, a quieter machine helps more"
    )


def comparisons(points: Sequence[Measurement]) -> Iterator[Comparison]:
    """Each model of a group against its rival (see `rival_of`); crossings are interpolated on logarithmic axes, between
    lengths at which the difference is larger than the error."""
    models = by_model(points)
    for name, theirs in models.items():
        ours_name = rival_of(name, list(models))
        if ours_name == name:
            continue
        ours = models[ours_name]
        ratios, errors = {}, {}
        for tokens in sorted(set(ours) & set(theirs)):
            pair = (ours[tokens], theirs[tokens])
            if pair[0].median_ms and pair[1].median_ms:
                ratios[tokens] = pair[1].median_ms / pair[0].median_ms
                errors[tokens] = math.hypot(*(each.relative_error or 0.0 for each in pair))
        some = next(iter(ours.values()))
        found = Comparison(ours_name, name, ratios, errors, (), some.clip_s / some.setting.tokens)
        decided = {tokens: ratio for tokens, ratio in ratios.items() if tokens not in found.undecided}
        yield replace(found, crossings=tuple(_crossings(decided)))


def _crossings(ratios: dict[int, float]) -> Iterator[float]:
    for left, right in pairwise(ratios):
        a, b = math.log(ratios[left]), math.log(ratios[right])
        if (a > 0) != (b > 0):
            share = a / (a - b)
            yield math.exp(math.log(left) + share * (math.log(right) - math.log(left)))

"""What aum bench prints and writes for people: a line per point, who is ahead where, and the same as Markdown."""

from collections.abc import Iterable, Iterator, Sequence

from aumcli.bench.analysis import by_model, comparisons, groups, growth, rival_of, unprecise
from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import BenchConfig, Measurement
from aumcli.bench.results import Result
from aumcli.report.tables import markdown_table
from aumcli.utils.text import counted

HEADING = f"{'tokens':>6} {'sound':>8}  {'model':<16}{'median':>11} {'error':>7} {'peak':>9} {'kept':>9}{'x AuM':>7}"
NOTES = (
    "error: standard error of the median. x AuM: the time over that of the AuM of this size (else of the first model); "
    "above 1, AuM is ahead. peak: {peak}. kept: bytes kept for the backward pass, without the weights."
)
PEAKS = {
    "cpu": "what the process grew by while computing, without the weights",
    "gpu": "memory allocated on the GPU, weights and all",
}


def point_lines(rows: Iterable[list[Measurement]], rules: StoppingRule) -> Iterator[str]:
    """Lines to print while a benchmark runs, a heading where mode or type change, and at the end what follows."""
    points: list[Measurement] = []
    for row in rows:
        new = next(iter(groups(row)))
        if not points or new not in groups(points):
            yield from ([""] if points else [])
            yield title(row[0].setting)
            yield HEADING
        points += row
        yield from _lines(row)
    yield ""
    for group, each in groups(points).items():
        yield f"{group[0]}, {group[1]}"
        yield from (_wrapped(line) for line in conclusions(each, rules))


def _lines(row: Sequence[Measurement]) -> Iterator[str]:
    ratios = _times_aum(row)
    for point in row:
        setting, name = point.setting, point.setting.model
        start = f"{setting.tokens:>6} {_seconds(point.clip_s):>8}  {name if len(name) < 17 else '…' + name[-15:]:<16}"
        if point.median_ms is None:
            yield f"{start}  {point.failure}"
            continue
        ratio = ratios.get(name)
        yield (
            f"{start}{milliseconds(point.median_ms):>11} {100 * (point.relative_error or 0.0):>5.1f} % "
            f"{_size(point.peak_bytes):>9} {_size(point.saved_bytes):>9}{'' if ratio is None else f'{ratio:.2f}':>7}"
        ).rstrip()


def conclusions(points: Sequence[Measurement], rules: StoppingRule) -> Iterator[str]:
    """How each model's time grows, who is ahead where, what was not measured well enough, and what could not run."""
    for name, each in by_model(points).items():
        found = growth(list(each.values()))
        if found:
            yield (
                f"- {name}: time grows as tokens^{found.exponent:.2f} "
                f"({found.points} lengths from {found.from_tokens:,} tokens on)."
            )
    for comparison in comparisons(points):
        yield f"- {comparison.sentence()}"
    if sentence := unprecise(points, rules.precision):
        yield f"- {sentence}."
    for point in points:
        if point.failure:
            yield f"- {point.setting.model} at {point.setting.tokens:,} tokens: {point.failure}."


def markdown(results: Sequence[Result]) -> str:
    """All results as one page: for each machine its environment,
    and for each mode and type a table and what follows.
    """
    lines = [
        "# Time and memory by number of tokens",
        "",
        "Written by `aum bench`; every sample is in bench.json.",
        "",
        "![](bench.png)",
        "",
    ]
    for result in results:
        lines += _preamble(result.environment, result.rules)
        for each in groups(result.points).values():
            on_gpu = each[0].setting.device.startswith("cuda")
            lines += [
                f"### {title(each[0].setting)}",
                "",
                markdown_table(*_markdown_rows(each)),
                NOTES.format(peak=PEAKS["gpu" if on_gpu else "cpu"]),
                "",
                "Time grows as a power of the tokens: least squares on logarithms over the longer half of the lengths.",
                "",
            ]
            lines += [*conclusions(each, result.rules), ""]
    return "\n".join(lines)


def _preamble(environment: dict[str, object], rules: StoppingRule) -> list[str]:
    facts = ", ".join(f"{key} {value}" for key, value in environment.items())
    return [f"## {environment.get('gpu') or environment['cpu']}", "", f"{facts}. {_rule(rules).capitalize()}.", ""]


def _markdown_rows(points: Sequence[Measurement]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for tokens in dict.fromkeys(point.setting.tokens for point in points):
        row = [point for point in points if point.setting.tokens == tokens]
        ratios = _times_aum(row)
        for point in row:
            start = [f"{tokens:,}", _seconds(point.clip_s), point.setting.model, point.backend or "-"]
            if point.median_ms is None:
                rows.append([*start, point.failure, "-", "-", "-", "-", "-"])
                continue
            ratio = ratios.get(point.setting.model)
            rows.append(
                [
                    *start,
                    milliseconds(point.median_ms),
                    f"{100 * (point.relative_error or 0.0):.1f} %",
                    str(len(point.samples_ms)),
                    _size(point.peak_bytes),
                    _size(point.saved_bytes),
                    "-" if ratio is None else f"{ratio:.2f}",
                ]
            )
    return ["tokens", "sound", "model", "backend", "median", "error", "samples", "peak", "kept", "x AuM"], rows


def _times_aum(row: Sequence[Measurement]) -> dict[str, float]:
    """Each model's time over its AuM's."""
    times = {point.setting.model: point.median_ms for point in row}
    pairs = {name: rival_of(name, list(times)) for name in times}
    return {
        name: theirs / ours
        for name, other in pairs.items()
        if name != other and (theirs := times[name]) and (ours := times[other])
    }


def compared(results: Sequence[Result]) -> Iterator[str]:
    """Lines that compare machines: their environments, and each point's time on each over that on the first."""
    names = [chr(ord("A") + i) for i in range(len(results))]
    for name, result in zip(names, results):
        yield _wrapped(f"{name}: " + ", ".join(f"{key} {value}" for key, value in result.environment.items()))
    by_setting = [{_key(point): point for point in result.points} for result in results]
    common = [key for key in by_setting[0] if any(key in each for each in by_setting[1:])]
    if not common:
        yield "They have no point in common: no model was measured on both at the same length, mode and type."
        return
    yield ""
    yield (
        f"{'mode':<10}{'dtype':<9}{'tokens':>6}  {'model':<16}"
        + "".join(f"{name:>11}" for name in names)
        + "".join(f"{f'{name}/A':>7}" for name in names[1:])
    )
    for key in sorted(common, key=lambda key: (key[0], key[1], key[3], common.index(key))):
        points = [each.get(key) for each in by_setting]
        cells = [
            milliseconds(point.median_ms) if point and point.median_ms else "failed" if point else "-"
            for point in points
        ]
        first = points[0].median_ms if points[0] else None
        ratios = [
            f"{point.median_ms / first:.2f}" if point and point.median_ms and first else "-" for point in points[1:]
        ]
        figures = "".join(f"{cell:>11}" for cell in cells) + "".join(f"{ratio:>7}" for ratio in ratios)
        yield f"{key[0]:<10}{key[1]:<9}{key[3]:>6}  {key[2][-16:]:<16}{figures}"


def _key(point: Measurement) -> tuple[str, str, str, int, int]:
    setting = point.setting
    return setting.mode, setting.dtype, setting.model, setting.tokens, setting.batch


def title(setting: BenchConfig) -> str:
    """What a table's figures have in common."""
    threads = f"{setting.threads} thread{'s' if setting.threads > 1 else ''}"
    cap = "" if setting.memory_cap_gib is None else f", at most {setting.memory_cap_gib:g} GiB"
    return (
        f"{setting.mode}, {setting.dtype}, {setting.device}, batch {setting.batch}, {threads}, seed {setting.seed}{cap}"
    )


def _rule(rules: StoppingRule) -> str:
    return (
        f"medians, runs in turn until each has a standard error of {100 * rules.precision:g} %, "
        f"at most {counted(rules.repeats, 'run')} "
        f"or {rules.budget_s:g} s a point"
    )


def _wrapped(text: str) -> str:
    """Text for a terminal of 80 columns."""
    import textwrap

    return textwrap.fill(text, 79, subsequent_indent="  ", break_long_words=False)


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def milliseconds(ms: float) -> str:
    """A time, in the unit that reads best."""
    return f"{ms:,.2f} ms" if ms < 100 else f"{ms:,.0f} ms" if ms < 10_000 else f"{ms / 1000:,.1f} s"


def _size(size: int | None) -> str:
    if size is None:
        return "-"
    if size >= 2**30:
        return f"{size / 2**30:,.2f} GiB"
    return f"{size / 2**20:,.0f} MiB" if size >= 100 * 2**20 else f"{size / 2**20:.1f} MiB"

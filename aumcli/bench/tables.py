"""What aum bench prints and writes for people: a line per measurement, who is faster where, and both as Markdown."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from aumcli.bench.analysis import baseline_of, by_model, comparisons, groups, growth, imprecise
from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import BenchConfig, Measurement
from aumcli.bench.results import Result
from aumcli.report.tables import markdown_table
from aumcli.utils.text import counted, wrapped

COLUMNS = ("tokens", "sound", "model", "backend", "median", "error", "samples", "peak", "kept", "x AuM")
NAME_WIDTH = 16  # longer names of models lose their beginning in the terminal
NOTES = (
    "error: standard error of the median. x AuM: the time over that of the AuM of this size (else of the first model); "
    "above 1, AuM is ahead. peak: {peak}. kept: bytes kept for the backward pass, without the weights."
)
PEAKS = {
    "cpu": "what the process grew by while computing, without the weights",
    "gpu": "memory allocated on the GPU, weights and all",
}


def measurement_lines(rows: Iterable[list[Measurement]], rule: StoppingRule) -> Iterator[str]:
    """Lines to print while a benchmark runs, with a heading where mode or type change; conclusions at the end.

    Args:
        rows: measurements of one length, mode and type each, as they are made.
        rule: that they were stopped by.
    """
    measurements: list[Measurement] = []
    for row in rows:
        if not set(groups(row)) & set(groups(measurements)):
            yield from ([""] if measurements else [])
            yield title(row[0].config)
            yield _line(dict(zip(COLUMNS, COLUMNS)))
        measurements += row
        yield from (_line(cells) for cells in _cells(row))
    yield ""
    for group, each in groups(measurements).items():
        yield f"{group.mode}, {group.dtype}"
        yield from (wrapped(line) for line in conclusions(each, rule))


def _line(cells: dict[str, str]) -> str:
    """A row for the terminal; a failure takes the place of the figures."""
    name = cells["model"]
    name = name if len(name) <= NAME_WIDTH else "…" + name[1 - NAME_WIDTH :]
    start = f"{cells['tokens']:>6} {cells['sound']:>8}  {name:<{NAME_WIDTH}}"
    if "failure" in cells:
        return f"{start}  {cells['failure']}"
    figures = f"{cells['median']:>11} {cells['error']:>7} {cells['peak']:>9} {cells['kept']:>9}{cells['x AuM']:>7}"
    return (start + figures).rstrip()


def _cells(row: Sequence[Measurement]) -> Iterator[dict[str, str]]:
    """The cells of each measurement of one length, by `COLUMNS`; "failure" in the place of figures."""
    ratios = _times_baseline(row)
    for measurement in row:
        config, ratio = measurement.config, ratios.get(measurement.config.model)
        cells = {"tokens": f"{config.tokens:,}", "sound": _seconds(measurement.clip_s), "model": config.model}
        cells["backend"] = measurement.backend or "-"
        if measurement.median_ms is None or measurement.relative_error is None:
            yield cells | {"failure": measurement.failure}
            continue
        yield cells | {
            "median": milliseconds(measurement.median_ms),
            "error": f"{100 * measurement.relative_error:.1f} %",
            "samples": str(len(measurement.samples_ms)),
            "peak": _size(measurement.peak_bytes),
            "kept": _size(measurement.saved_bytes),
            "x AuM": "" if ratio is None else f"{ratio:.2f}",
        }


def _times_baseline(row: Sequence[Measurement]) -> dict[str, float]:
    """The time of each model that has a baseline over the baseline's."""
    names = [measurement.config.model for measurement in row]
    times = {measurement.config.model: measurement.median_ms for measurement in row if measurement.median_ms}
    baselines = {name: baseline_of(name, names) for name in times}
    return {name: times[name] / times[base] for name, base in baselines.items() if name != base and base in times}


def conclusions(measurements: Sequence[Measurement], rule: StoppingRule) -> Iterator[str]:
    """How each model's time grows, which is faster where, what was not measured precisely, and what could not run."""
    for name, by_tokens in by_model(measurements).items():
        if found := growth(list(by_tokens.values())):
            yield (
                f"- {name}: time grows as tokens^{found.exponent:.2f} "
                f"({found.lengths} lengths from {found.from_tokens:,} tokens on)."
            )
    for comparison in comparisons(measurements):
        yield f"- {comparison.sentence()}"
    if sentence := imprecise(measurements, rule.precision):
        yield f"- {sentence}."
    for each in measurements:
        if each.failure:
            yield f"- {each.config.model} at {each.config.tokens:,} tokens: {each.failure}."


def markdown(results: Sequence[Result]) -> str:
    """All results as one page: the environment of each machine, and for each mode and type a table and conclusions."""
    lines = [
        "# Time and memory by number of tokens",
        "",
        "Written by `aum bench`; every sample is in bench.json.",
        "",
        "![](bench.png)",
        "",
    ]
    for result in results:
        lines += [
            f"## {result.machine}",
            "",
            f"{_facts(result.environment)}. {_rule(result.stopping_rule).capitalize()}.",
            "",
        ]
        for each in groups(result.measurements).values():
            peak = PEAKS["gpu" if each[0].config.device.startswith("cuda") else "cpu"]
            lines += [
                f"### {title(each[0].config)}",
                "",
                markdown_table(COLUMNS, _markdown_rows(each)),
                NOTES.format(peak=peak),
                "",
                "Time grows as a power of the tokens: least squares on logarithms over the longer half of the lengths.",
                "",
            ]
            lines += [*conclusions(each, result.stopping_rule), ""]
    return "\n".join(lines)


def _markdown_rows(measurements: Sequence[Measurement]) -> list[list[str]]:
    rows = []
    for tokens in dict.fromkeys(each.config.tokens for each in measurements):
        for cells in _cells([each for each in measurements if each.config.tokens == tokens]):
            figures = {"median": cells["failure"]} if "failure" in cells else {}
            rows.append([(cells | figures).get(column, "-") or "-" for column in COLUMNS])
    return rows


def machine_lines(results: Sequence[Result]) -> Iterator[str]:
    """The environment of each machine, with the letter that stands for it in `comparison_table`."""
    for name, result in zip(_letters(results), results):
        yield wrapped(f"{name}: {_facts(result.environment)}")


def comparison_table(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows that compare machines: each median on each machine, and over that on the first.

    There are no rows where no model was measured on the first and another one with the same configuration.
    """
    names = _letters(results)
    columns = ["mode", "dtype", "tokens", "model", *names, *(f"{name}/A" for name in names[1:])]
    by_config = [{_comparable(each.config): each for each in result.measurements} for result in results]
    common = [key for key in by_config[0] if any(key in each for each in by_config[1:])]
    rows = []
    for key in sorted(common, key=lambda key: (key[0], key[1], key[2], common.index(key))):
        medians = [each[key].median_ms if key in each else None for each in by_config]
        first = medians[0]
        cells = [
            milliseconds(median) if median else "failed" if key in each else "-"
            for median, each in zip(medians, by_config)
        ]
        ratios = [f"{median / first:.2f}" if median and first else "-" for median in medians[1:]]
        mode, dtype, tokens, model, _ = key
        rows.append([mode, dtype, f"{tokens}", model, *cells, *ratios])
    return columns, rows


def _letters(results: Sequence[Result]) -> list[str]:
    return [chr(ord("A") + i) for i in range(len(results))]


def _comparable(config: BenchConfig) -> tuple[str, str, int, str, int]:
    """What has to be equal on two machines."""
    return config.mode, config.dtype, config.tokens, config.model, config.batch


def title(config: BenchConfig) -> str:
    """What a table's figures have in common."""
    cap = "" if config.memory_cap_gib is None else f", at most {config.memory_cap_gib:g} GiB"
    return (
        f"{config.mode}, {config.dtype}, {config.device}, batch {config.batch}, {counted(config.threads, 'thread')}, "
        f"seed {config.seed}{cap}"
    )


def _facts(environment: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in environment.items())


def _rule(rule: StoppingRule) -> str:
    return (
        f"medians of interleaved runs, repeated until each has a standard error of {100 * rule.precision:g} %, "
        f"at most {counted(rule.repeats, 'run')} or {rule.budget_s:g} s a measurement"
    )


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

"""bench.png: time and memory against tokens, in the manner of the paper's figure 2."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aumcli.bench.analysis import Group, by_model, groups
from aumcli.bench.interleave import quartiles
from aumcli.bench.measurement import GIB, Measurement
from aumcli.bench.results import Result
from aumcli.report.plots import BLUE, GREEN, ORANGE, STYLE, save_figure
from aumcli.utils.subprocesses import OUT_OF_MEMORY
from aumcli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.typing import LineStyleType

KINDS = {"aum": ("AuM", BLUE, "o"), "ast": ("AST", ORANGE, "s"), "ast-eager": ("AST eager", GREEN, "^")}
OTHERS = (("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"))  # Okabe and Ito 2008
SIZES = ("base", "small", "tiny", "nano")
DASHES: "Sequence[LineStyleType]" = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))  # one for each machine
WIDTH, HEIGHT = 7.2, 3.0  # inches; a row of panels

LineStyle = dict[str, Any]  # keyword arguments of matplotlib's Line2D


def plot_results(results: Sequence[Result], path: Path | str) -> None:
    """Draw time and memory against tokens on logarithmic axes, a row of panels for each mode and type.

    Lines are medians, bands the middle half of the samples. Hue and marker show the kind of model, a hollow marker the
    smaller one of a kind, dashes the machine. A cross at the upper edge is a model that ran out of memory; where the
    memory was capped, a dotted line shows the cap.

    Args:
        results: of one machine or several.
        path: the PNG to write.

    Raises:
        AumError: `path` can't be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys(key for result in results for key in groups(result.measurements)))
    measurements = [each for result in results for each in result.measurements]
    styles = _styles(list(dict.fromkeys(each.config.model for each in measurements)))
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT * max(1, len(keys)) + 0.3), layout="constrained")
        panels = figure.subplots(max(1, len(keys)), 2, squeeze=False)
        for row, key in zip(panels, keys):
            for axes, of_memory in zip(row, (False, True)):
                _panel(axes, results, key, styles, of_memory)
        handles = _legend(
            styles,
            [result.machine for result in results],
            {each.failure for each in measurements} - {""},
            {key.memory_cap_gib for key in keys},
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        save_figure(figure, path)


def _styles(models: Sequence[str]) -> dict[str, LineStyle]:
    """How each model's line is drawn, with its label."""
    styles, others = {}, iter(OTHERS * len(models))
    used = [size for size in SIZES if any(model.removesuffix("-eager").endswith(f"-{size}") for model in models)]
    for model in models:
        name = model.removesuffix("-eager")
        kind, _, size = name.partition("-")
        if kind in KINDS and size in SIZES:
            label, colour, marker = KINDS[kind + model.removeprefix(name)]
            rank = used.index(size)
            styles[model] = {
                "label": f"{label}, {size}",
                "color": colour,
                "marker": marker,
                "markerfacecolor": "white" if rank else colour,
                "markersize": 5.5 - 0.8 * rank,
            }
        else:
            colour, marker = next(others)
            styles[model] = {"label": one_line(model), "color": colour, "marker": marker, "markersize": 5}
    return styles


def _panel(axes: "Axes", results: Sequence[Result], key: Group, styles: dict[str, LineStyle], of_memory: bool) -> None:
    """One set of axes: a line for each model and machine."""
    on_gpu = key.device.startswith("cuda")
    unit, unit_bytes = ("GiB", GIB) if on_gpu else ("MiB", 2**20)
    shown = [groups(result.measurements).get(key, []) for result in results]
    lengths = sorted({each.config.tokens for measurements in shown for each in measurements})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    crosses: dict[int, int] = {}
    for measurements, dashes in zip(shown, list(DASHES) * len(shown)):
        for model, by_tokens in by_model(measurements).items():
            line = [by_tokens[tokens] for tokens in sorted(by_tokens)]
            if of_memory:
                _memory_line(axes, line, styles[model], dashes, unit_bytes)
            else:
                _time_line(axes, line, styles[model], dashes)
            for failed in line:
                if failed.failure:
                    _cross(axes, failed, styles[model], crosses)
    axes.set_xticks(lengths, [f"{tokens}" for tokens in lengths])
    axes.set_xticks([], minor=True)
    if key.memory_cap_gib is not None and of_memory:
        _cap_line(axes, key.memory_cap_gib, unit_bytes)
    axes.margins(y=0.06)
    low, high = axes.get_ylim()
    if crosses:  # room for them above the curves
        axes.set_ylim(low, high * (high / low) ** (0.06 + 0.05 * max(crosses.values())))
    _round_ticks(axes)
    memory = "peak device memory" if on_gpu else "peak memory"
    time = "time per step (ms)" if key.mode == "training" else "time (ms)"
    axes.set(xlabel="tokens", ylabel=f"{memory} ({unit})" if of_memory else time)
    axes.set_title(f"{key.mode}, {key.dtype}, batch {key.batch}: {'memory' if of_memory else 'time'}", fontsize=9)
    _seconds_axis(axes, [each for measurements in shown for each in measurements], lengths)


def _time_line(axes: "Axes", measurements: Sequence[Measurement], style: LineStyle, dashes: "LineStyleType") -> None:
    """A model's medians, with a band for the middle half of the samples."""
    ran = [each for each in measurements if each.samples_ms]
    if ran:
        tokens = [each.config.tokens for each in ran]
        low, middle, high = zip(*(quartiles(each.samples_ms) for each in ran))
        axes.fill_between(tokens, low, high, color=style["color"], alpha=0.25, lw=0)
        axes.plot(tokens, middle, ls=dashes, **style)


def _memory_line(
    axes: "Axes", measurements: Sequence[Measurement], style: LineStyle, dashes: "LineStyleType", unit_bytes: int
) -> None:
    """A model's peaks."""
    peaks = {each.config.tokens: each.peak_bytes for each in measurements if each.samples_ms and each.peak_bytes}
    axes.plot(list(peaks), [peak / unit_bytes for peak in peaks.values()], ls=dashes, **style)


def _cross(axes: "Axes", failed: Measurement, style: LineStyle, crosses: dict[int, int]) -> None:
    """A mark for what could not run, below those that were made before at the same length."""
    tokens = failed.config.tokens
    height = 0.965 - 0.05 * crosses.get(tokens, 0)
    crosses[tokens] = crosses.get(tokens, 0) + 1
    out_of_memory, place = failed.failure == OUT_OF_MEMORY, axes.get_xaxis_transform()
    marker = "x" if out_of_memory else "1"
    axes.plot([tokens], [height], marker, transform=place, color=style["color"], ms=6, mew=1.8, clip_on=False)
    if out_of_memory:
        axes.annotate(
            f"{style['label'].rpartition(', ')[2]} OOM",
            (tokens, height),
            xycoords=place,
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
            color=style["color"],
        )


def _cap_line(axes: "Axes", cap_gib: float, unit_bytes: int) -> None:
    """A dotted line where the memory was capped."""
    height = cap_gib * GIB / unit_bytes
    axes.axhline(height, color="#555555", ls=":", lw=1.2)
    axes.annotate(
        f"{cap_gib:g} GiB",
        (0.01, height),
        xycoords=axes.get_yaxis_transform(),
        xytext=(0, -2),
        textcoords="offset points",
        va="top",
        fontsize=7,
        color="#555555",
    )


def _round_ticks(axes: "Axes") -> None:
    """Plain numbers on the logarithmic axis, also between the powers of ten where it spans few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1, 3) if math.log10(high / low) < 4 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _seconds_axis(axes: "Axes", measurements: Sequence[Measurement], lengths: Sequence[int]) -> None:
    """Seconds of audio above, where they are the same for all models."""
    import numpy as np

    scales = {round(each.clip_s / each.config.tokens, 9) for each in measurements}
    if len(scales) == 1:
        (scale,) = scales
        top = axes.secondary_xaxis("top", functions=(lambda x: np.asarray(x) * scale, lambda x: np.asarray(x) / scale))
        top.set_xticks([tokens * scale for tokens in lengths], [f"{tokens * scale:.3g}" for tokens in lengths])
        top.set_xticks([], minor=True)
        top.set_xlabel("audio (s)")
        top.spines["top"].set_visible(True)


def _legend(
    styles: dict[str, LineStyle], machines: Sequence[str], failures: set[str], caps: set[float | None]
) -> "list[Line2D]":
    """An entry for each model, each machine where there are several, and each mark that occurs."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style) for style in styles.values()]
    if len(machines) > 1:
        handles += [
            Line2D([], [], color="black", ls=dashes, label=machine)
            for machine, dashes in zip(machines, list(DASHES) * len(machines))
        ]
    limits = ", ".join(f"{cap:g} GiB" for cap in sorted(cap for cap in caps if cap is not None))
    for marker, label, occurs in (
        ("x", OUT_OF_MEMORY + (f" ({limits})" if limits else ""), OUT_OF_MEMORY in failures),
        ("1", "not measured (see bench.md)", bool(failures - {OUT_OF_MEMORY})),
    ):
        if occurs:
            handles.append(Line2D([], [], color="black", ls="", marker=marker, mew=1.8, label=label))
    return handles

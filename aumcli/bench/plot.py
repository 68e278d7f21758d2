"""bench.png: time and memory against tokens, in the manner of the paper's figure 2."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aumcli.bench.analysis import Group, by_model, groups
from aumcli.bench.interleave import quartiles
from aumcli.bench.measurement import Measurement
from aumcli.bench.results import Result
from aumcli.report.plots import BLUE, GREEN, ORANGE, STYLE, save_figure
from aumcli.utils.subprocesses import OUT_OF_MEMORY
from aumcli.utils.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

KINDS = {"aum": ("AuM", BLUE, "o"), "ast": ("AST", ORANGE, "s"), "ast-eager": ("AST eager", GREEN, "^")}
OTHERS = (("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"))  # Okabe and Ito 2008
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))  # one for each machine
WIDTH, HEIGHT = 7.2, 3.0  # inches; a row of panels


def plot_results(results: Sequence[Result], path: Path | str) -> None:
    """Draw time and memory against tokens on logarithmic axes, a row of panels for each mode and type.

    Lines are medians, bands the middle half of the samples. Hue and marker tell the kind of model, a hollow marker the
    smaller one of a kind, dashes the machine. A cross at the upper edge is a model that ran out of memory; where the
    memory was capped, a dotted line says at what.

    Args:
        results: of one machine or several.
        path: the PNG to write.

    Raises:
        AumError: `path` can't be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    keys = list(dict.fromkeys(key for result in results for key in groups(result.points)))
    looks = _looks(list(dict.fromkeys(point.setting.model for result in results for point in result.points)))
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT * max(1, len(keys)) + 0.3), layout="constrained")
        panels = figure.subplots(max(1, len(keys)), 2, squeeze=False)
        for row, key in zip(panels, keys):
            for axes, of_memory in zip(row, (False, True)):
                _panel(axes, results, key, looks, of_memory)
        handles = _legend(
            looks,
            [result.machine for result in results],
            {p.failure for r in results for p in r.points} - {""},
            {key[-1] for key in keys},
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8, handlelength=2.6)
        save_figure(figure, path)


def _looks(models: Sequence[str]) -> dict[str, dict]:
    """How each model's line is drawn, and its name."""
    looks, others, sizes = {}, iter(OTHERS * len(models)), ("base", "small", "tiny", "nano")
    ranked = [size for size in sizes if any(model.removesuffix("-eager").endswith(f"-{size}") for model in models)]
    for model in models:
        name = model.removesuffix("-eager")
        kind, _, size = name.partition("-")
        if kind in KINDS and size in sizes:
            label, colour, marker = KINDS[kind + model.removeprefix(name)]
            fill = colour if ranked.index(size) == 0 else "white"
            looks[model] = {
                "label": f"{label}, {size}",
                "color": colour,
                "marker": marker,
                "markerfacecolor": fill,
                "markersize": 5.5 - 0.8 * ranked.index(size),
            }
        else:
            colour, marker = next(others)
            looks[model] = {"label": one_line(model), "color": colour, "marker": marker, "markersize": 5}
    return looks


def _panel(axes: "Axes", results: Sequence[Result], key: Group, looks: dict[str, dict], of_memory: bool) -> None:
    """One set of axes: a line for each model and machine."""
    shown = [(result, groups(result.points).get(key, [])) for result in results]
    lengths = sorted({point.setting.tokens for _, points in shown for point in points})
    mode, dtype, device, batch, cap = key
    unit, unit_bytes = ("GiB", 2**30) if device.startswith("cuda") else ("MiB", 2**20)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    crosses: dict[int, int] = {}
    for (_, points), dashes in zip(shown, DASHES * len(shown)):
        for model, by_tokens in by_model(points).items():
            _curve(
                axes,
                [by_tokens[tokens] for tokens in sorted(by_tokens)],
                looks[model],
                dashes,
                unit_bytes if of_memory else 0,
                crosses,
            )
    axes.set_xticks(lengths, [f"{tokens}" for tokens in lengths])
    axes.set_xticks([], minor=True)
    if cap is not None and of_memory:
        axes.axhline(cap * 2**30 / unit_bytes, color="#555555", ls=":", lw=1.2)
        axes.annotate(
            f"{cap:g} GiB",
            (0.01, cap * 2**30 / unit_bytes),
            xycoords=axes.get_yaxis_transform(),
            xytext=(0, -2),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color="#555555",
        )
    axes.margins(y=0.06)
    low, high = axes.get_ylim()
    if crosses:  # room for them above the curves
        axes.set_ylim(low, high * (high / low) ** (0.06 + 0.05 * max(crosses.values())))
    _round_ticks(axes)
    device_memory = "device memory" if device.startswith("cuda") else "memory"
    time = "time per step (ms)" if mode == "training" else "time (ms)"
    axes.set(xlabel="tokens", ylabel=f"peak {device_memory} ({unit})" if of_memory else time)
    axes.set_title(f"{mode}, {dtype}, batch {batch}: {'memory' if of_memory else 'time'}", fontsize=9)
    _seconds_axis(axes, [point for _, points in shown for point in points], lengths)


def _curve(
    axes: "Axes", points: Sequence[Measurement], look: dict, dashes, unit_bytes: int, crosses: dict[int, int]
) -> None:
    """A model's line, of time with a band, or of memory in units of so many bytes; crosses where it could not run."""
    ran = [point for point in points if point.samples_ms and (not unit_bytes or point.peak_bytes)]
    x = [point.setting.tokens for point in ran]
    if unit_bytes:
        axes.plot(x, [(point.peak_bytes or 0) / unit_bytes for point in ran], ls=dashes, **look)
    elif ran:
        low, middle, high = zip(*(quartiles(point.samples_ms) for point in ran))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.25, lw=0)
        axes.plot(x, middle, ls=dashes, **look)
    for point in points:
        if point.failure:
            tokens = point.setting.tokens
            height = 0.965 - 0.05 * crosses.get(tokens, 0)
            crosses[tokens] = crosses.get(tokens, 0) + 1
            mark = "x" if point.failure == OUT_OF_MEMORY else "1"
            place = axes.get_xaxis_transform()
            axes.plot([tokens], [height], mark, transform=place, color=look["color"], ms=6, mew=1.8, clip_on=False)
            if mark == "x":
                size = look["label"].rpartition(", ")[2]
                axes.annotate(
                    f"{size} OOM",
                    (tokens, height),
                    xycoords=place,
                    xytext=(-6, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize=7,
                    color=look["color"],
                )


def _round_ticks(axes: "Axes") -> None:
    """Plain numbers on the logarithmic axis, also between the powers of ten where it spans few of them."""
    import math

    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    steps = (1, 2, 5) if math.log10(high / low) < 2.5 else (1, 3) if math.log10(high / low) < 4 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:.3g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _seconds_axis(axes: "Axes", points: Sequence[Measurement], lengths: Sequence[int]) -> None:
    """Seconds of audio above, where all models agree about them."""
    rates = {round(point.clip_s / point.setting.tokens, 9) for point in points}
    if len(rates) == 1:
        rate = rates.pop()
        import numpy as np

        forward, back = (lambda tokens: np.asarray(tokens) * rate), (lambda seconds: np.asarray(seconds) / rate)
        top = axes.secondary_xaxis("top", functions=(forward, back))
        top.set_xticks([tokens * rate for tokens in lengths], [f"{tokens * rate:.3g}" for tokens in lengths])
        top.set_xticks([], minor=True)
        top.set_xlabel("audio (s)")
        top.spines["top"].set_visible(True)


def _legend(
    looks: dict[str, dict], machines: Sequence[str], failures: set[str], caps: set[float | None]
) -> "list[Line2D]":
    """An entry for each model, each machine where there are several, and each mark that occurs."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **look) for look in looks.values()]
    if len(machines) > 1:
        handles += [
            Line2D([], [], color="black", ls=dashes, label=machine)
            for machine, dashes in zip(machines, DASHES * len(machines))
        ]
    limit = ", ".join(f"{cap:g} GiB" for cap in sorted(cap for cap in caps if cap is not None))
    for mark, label, some in (
        ("x", OUT_OF_MEMORY + (f" ({limit})" if limit else ""), OUT_OF_MEMORY in failures),
        ("1", "not measured (see bench.md)", failures - {OUT_OF_MEMORY}),
    ):
        if some:
            handles.append(Line2D([], [], color="black", ls="", marker=mark, mew=1.8, label=label))
    return handles

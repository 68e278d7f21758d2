"""What people read: tables in the terminal and PNG plots for a paper. Heavy imports stay inside the functions."""

import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from aumcli.errors import AumError, debugging
from aumcli.metrics import Metrics, best_row
from aumcli.utils.files import atomic_path
from aumcli.utils.text import counted, one_line, plural

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from aumcli.prepare import PrepareReport

PIPE_COLUMNS = 100_000  # width where the output is no terminal: a program reads it, nothing may wrap
COUNTS_UP_TO = 20  # classes up to which a confusion matrix has its counts written in
CLASSES_SHOWN = 10  # classes that aum prepare lists in the terminal
NAMES_UP_TO, UNNAMED_INCHES = 600, 12.0  # classes up to which it has their names, and its side where it has none
LEFT_OUT_SHOWN = 10  # files that aum prepare left out, in the terminal; report.json has all
GAP = 2  # columns between those of a plain table
LABEL_CHARACTERS = 40  # longer class names end in an ellipsis on a plot's axes
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito 2008: told apart with any colour vision
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # a class may be called US$__EU$
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
}
AXIS_NAMES = {
    "val_accuracy": "validation accuracy (%)",
    "val_map": "validation mAP (%)",
    "val_mean_average_precision": "validation mAP (%)",
    "val_macro_f1": "validation macro F1 (%)",
}


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: TextIO | None = None, heading: bool = True
) -> None:
    """Print a table; plain and unwrapped where the output is no terminal.

    Args:
        title: stands above the table; "" for none.
        columns: headings.
        rows: one value per column: floats get four decimals, None and NaN a dash. Columns of numbers are flush right.
        file: where to print; standard output by default.
        heading: False for a table that goes on.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = _console(file)
    terminal = console.is_terminal
    table = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, show_header=heading)
    for i, name in enumerate(columns):
        numbers = any(_is_number(row[i]) for row in rows) and all(row[i] is None or _is_number(row[i]) for row in rows)
        table.add_column(
            Text(name), justify="right" if numbers else "left", overflow="fold", no_wrap=numbers or not terminal
        )
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))  # Text: a label like "[b]" is no markup
    if title:
        console.print(Text(title, style="bold"))  # apart: rich would fold it to the table's width
    console.print(table)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def print_metrics(metrics: Metrics, title: str, file: TextIO | None = None) -> None:
    """Print the figures of a whole split, one a line, and how many classes stand behind them.

    Args:
        metrics: what `evaluate_scores` found.
        title: model, corpus and split.
        file: where to print; standard output by default.
    """
    rows = [
        ("clips", f"{metrics.clips:,}"),
        ("classes", f"{metrics.classes:,}"),
        ("accuracy", _percent(metrics.accuracy), _between(metrics.accuracy_ci95, _percent)),
        ("top-5 accuracy", _percent(metrics.top5_accuracy), _between(metrics.top5_accuracy_ci95, _percent)),
        ("macro F1", _cell(metrics.macro_f1)),
        ("mAP", _cell(metrics.mean_average_precision), _between(metrics.mean_average_precision_ci95, _cell)),
        ("AUC", _cell(metrics.mean_auc)),
        ("d-prime", _cell(metrics.d_prime)),
    ]
    rows = [(*row, "")[:3] for row in rows if row[1] != "-"]
    between = 2 + any(row[2] for row in rows)
    print_table(title, ("figure", "value", "95 % interval")[:between], [row[:between] for row in rows], file)
    if metrics.left_out_classes:
        _console(file).print(
            f"mAP, AUC and d-prime: {metrics.ranked_classes:,} of {counted(metrics.classes, 'class')}; the other "
            f"{counted(metrics.left_out_classes, 'lacks', 'lack')} a positive or a negative clip",
            highlight=False,
        )


def print_classes(metrics: Metrics, limit: int = 20, where: str = "report.json", file: TextIO | None = None) -> None:
    """Print the figures of each class, worst first: by F1, or by average precision for multi-label data.

    Args:
        metrics: what `evaluate_scores` found.
        limit: rows at most; the rest is counted.
        where: the file that holds all of them.
        file: where to print; standard output by default.
    """

    def badness(row):
        value = row.average_precision if metrics.multi_label else row.f1
        return (not row.support or math.isnan(value), value, row.label)  # classes without clips come last

    rows = sorted(metrics.per_class, key=badness)
    print_table(
        "classes, worst first",
        ("class", "clips", "precision", "recall", "F1", "AP", "AUC"),
        [
            (row.label, row.support, row.precision, row.recall, row.f1, row.average_precision, row.roc_auc)
            for row in rows[:limit]
        ],
        file,
    )
    if len(rows) > limit:
        _console(file).print(f"... and {len(rows) - limit:,} more, see {where}", highlight=False, markup=False)


def print_prepared(report: "PrepareReport", file: TextIO | None = None) -> None:
    """Print what `aum prepare` found: splits, classes, how the source was understood, warnings, what was left out.

    Args:
        report: what `aumcli.prepare.prepare` returned.
        file: where to print; standard output by default.
    """
    rows = [(name, cell["clips"], f"{cell['seconds'] / 60:.1f}") for name, cell in report.splits.items()]
    title = f"{report.corpus}, {counted(len(report.classes), 'class')}, in {report.folder}"
    print_table(title, ("split", "clips", "minutes"), rows, file)
    lines = [_class_line(report), *(f"note: {note}" for note in report.notes)]
    lines += [f"warning: {warning}" for warning in report.warnings]
    for name, cell in report.missing.items():
        lines.append(
            f"missing: {cell['missing']:,} of {counted(cell['listed'], 'clip')} of {name} "
            f"{plural(cell['missing'], 'has', 'have')} no file; "
            f"{report.folder}/missing.csv names them"
        )
    for item in report.left_out[:LEFT_OUT_SHOWN]:
        name = "" if item.path in item.reason else f"{item.path}: "
        lines.append(f"left out: {name}{item.reason} (fix: {item.fix})")
    if report.left_out:
        lines.append(f"left out: {len(report.left_out):,} in all; {report.folder}/report.json names each")
    console = _console(file)
    for line in lines:
        console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)  # so that a setting can be copied


def _class_line(report: "PrepareReport") -> str:
    """How many classes a clip may have, and the classes with the most clips."""
    clips = {name: sum(cell["clips"] for cell in splits.values()) for name, splits in report.classes.items()}
    names = sorted(clips, key=lambda name: (-clips[name], name))
    shown = [f"{json.dumps(name, ensure_ascii=False) if ',' in name else name} {clips[name]:,}" for name in names]
    more = ""
    if len(names) > CLASSES_SHOWN:
        more = f" and {len(names) - CLASSES_SHOWN} more, at least {counted(clips[names[-1]], 'clip')} each"
    kind = "single-label, each clip has one class"
    if report.multi_label:
        kind = "multi-label, a clip may have several classes"
    return f"{kind}: {', '.join(shown[:CLASSES_SHOWN])}{more}"


def print_predictions(
    predictions: Sequence[tuple], file: TextIO | None = None, heading: bool = True, width: int | None = None
) -> None:
    """Print the labels of clips, one clip or window a line.

    Args:
        predictions: (clip, start in s or None, stop in s or None, [(label, score), ...] best first) of each.
        file: where to print; standard output by default.
        heading: False for a table that goes on.
        width: of the terminal in columns; paths lose their middle and the further labels their end to fit. None: all is
            written.
    """
    windows = any(start is not None for _, start, _, _ in predictions)
    others = any(len(labels) > 1 for _, _, _, labels in predictions)
    columns = ["clip"] + ["start_s", "stop_s"] * windows + ["label", "score"] + ["then"] * others
    rows = []
    for clip, start, stop, labels in predictions:
        (label, score), rest = labels[0] if labels else ("-", None), labels[1:]
        times = [None if each is None else round(float(each), 3) for each in (start, stop)]
        rows.append(
            [str(clip)] + times * windows + [label, score] + [[f"{name} {value:.3f}" for name, value in rest]] * others
        )
    if width:
        _fit(columns, rows, width)
    print_table(
        "",
        columns,
        [[", ".join(cell) if isinstance(cell, list) else cell for cell in row] for row in rows],
        file,
        heading,
    )


def _fit(columns: Sequence[str], rows: list[list], width: int) -> None:
    """Shorten cells of a table of predictions so that it is at most `width` columns wide."""
    from rich.cells import cell_len

    label, others = columns.index("label"), columns[-1] == "then"
    for row in rows:
        row[label] = _shortened(row[label], max(12, width // 3))
    middle = sum(
        max(map(cell_len, map(_cell, cells))) for cells in list(zip(columns, *rows))[1 : len(columns) - others]
    )
    room = width - GAP * (len(columns) - 1) - middle  # for the paths and further labels
    longest = max(cell_len(row[0]) for row in rows)
    wanted = max(cell_len(", ".join(row[-1])) for row in rows) if others else 0
    of_clip = max(room - wanted, min(longest, room // 2))
    if others and room - of_clip < max(
        cell_len(", ".join([*row[-1][:1], "…"])) for row in rows
    ):  # not one label would fit
        of_clip = min(longest, room - len(columns[-1]))
    for row in rows:
        row[0] = _shortened(row[0], of_clip)
        if others and cell_len(", ".join(row[-1])) > room - of_clip:
            while row[-1] and cell_len(", ".join([*row[-1], "…"])) > room - of_clip:
                row[-1].pop()
            row[-1].append("…")


def _shortened(text: str, room: int) -> str:
    """The text, with … for its middle where it is more than `room` columns wide."""
    from rich.cells import cell_len

    short, kept = text, min(len(text), max(room, 2))
    while cell_len(short) > room and kept > 1:
        kept -= 1
        short = text[: kept // 3] + "…" + text[len(text) - kept + kept // 3 :]  # of a path the end tells more
    return short


def plot_curves(
    history: Sequence[Mapping[str, Any]], path: Path | str, title: str, metric: str = "val_accuracy"
) -> None:
    """Draw loss and validation metric by epoch, and mark the epoch with the best metric.

    Args:
        history: a row per epoch, as metrics.csv has them: `epoch`, `train_loss`, `val_loss` and `metric`; numbers or
            their text. A missing or empty value leaves a gap.
        path: the PNG to write.
        title: stands above.
        metric: the column that chose the best epoch, 0..1, higher is better.

    Raises:
        AumError: `path` can't be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [int(row["epoch"]) for row in history]
    values = [100 * _number(row.get(metric)) for row in history]
    marker = {"marker": "o", "markersize": 3} if len(epochs) <= 40 else {}
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        figure.suptitle(one_line(title), fontsize=10)
        left.plot(epochs, [_number(row.get("train_loss")) for row in history], color=BLUE, label="training", **marker)
        left.plot(
            epochs,
            [_number(row.get("val_loss")) for row in history],
            color=ORANGE,
            ls="--",
            label="validation",
            **marker,
        )
        left.set(xlabel="epoch", ylabel="loss")
        left.legend()
        right.plot(epochs, values, color=GREEN, **marker)
        right.set(xlabel="epoch", ylabel=AXIS_NAMES.get(metric, f"{metric.replace('_', ' ')} (%)"))
        best = best_row(values, [_number(row.get("val_loss")) for row in history])
        if best is not None:
            right.axvline(epochs[best], color="#888888", ls=":", lw=1)
            right.plot(
                epochs[best],
                values[best],
                "*",
                color=ORANGE,
                ms=10,
                label=f"best: {values[best]:.2f} % at epoch {epochs[best]}",
            )
            right.legend(loc="lower right")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        save_figure(figure, path)


def plot_confusion(matrix: "np.ndarray", label_names: Sequence[str], path: Path | str, title: str) -> None:
    """Draw a confusion matrix: colour is the share of the true class, numbers are clips (up to 20 classes).

    With more classes the colours follow the square root of the share, so that single cells can be seen; the bar beside
    says which share has which colour. Rows without clips are grey.

    Args:
        matrix: (true class, predicted class) clips, integer.
        label_names: the classes' names.
        path: the PNG to write.
        title: stands above; accuracy and number of clips are added.

    Raises:
        AumError: `path` can't be written.
    """
    import numpy as np
    from matplotlib import colormaps, rc_context
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    matrix = np.asarray(matrix)
    classes, clips = len(matrix), int(matrix.sum())
    support = matrix.sum(axis=1, keepdims=True)
    share = np.ma.masked_array(100 * matrix / np.maximum(support, 1), np.broadcast_to(support == 0, matrix.shape))
    cell = 0.42 if classes <= COUNTS_UP_TO else max(0.062, 0.3 - 0.004 * classes)  # inches
    names = [
        name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1] + "…"
        for name in map(one_line, label_names)
    ]
    font = min(9.0, 0.8 * 72 * cell)
    named = classes <= NAMES_UP_TO  # a picture with more would take a minute, and no screen shows it whole
    margin = 1.0 + 0.62 * font / 72 * max(map(len, names)) * named  # inches, for the names
    side = max(1.8, cell * classes) if named else UNNAMED_INCHES
    with rc_context({**STYLE, "axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(side + margin + 0.9, side + margin + 0.6), layout="constrained")
        axes = figure.subplots()
        norm = PowerNorm(1.0 if classes <= COUNTS_UP_TO else 0.5, 0, 100)
        image = axes.imshow(
            share, cmap=colormaps["Blues"].with_extremes(bad="#e4e4e4"), norm=norm, interpolation="nearest"
        )
        accuracy = f"accuracy {100 * np.trace(matrix) / clips:.2f} % of " if clips else ""
        scale = 1 + side / 20  # large pictures, large words
        axes.set_title(f"{one_line(title)}\n{accuracy}{counted(clips, 'clip')}", fontsize=10 * scale)
        order = "" if named else ", by index"
        axes.set_xlabel(f"predicted class{order}", fontsize=9 * scale)
        axes.set_ylabel(f"true class{order}", fontsize=9 * scale)
        if named:
            axes.set_xticks(range(classes), names, rotation=90, fontsize=font)
            axes.set_yticks(range(classes), names, fontsize=font)
        axes.tick_params(length=0 if classes > COUNTS_UP_TO else 3)
        height = min(1, 6 / side)
        bar = figure.colorbar(image, cax=axes.inset_axes((1 + 0.15 / side, 0.5 - height / 2, 0.2 / side, height)))
        bar.set_label("share of the true class (%)", fontsize=9 * scale)
        bar.ax.tick_params(labelsize=8 * scale)
        if classes <= COUNTS_UP_TO:
            digits = len(str(matrix.max()))
            for i, j in np.argwhere(matrix > 0):
                axes.text(
                    j,
                    i,
                    f"{matrix[i, j]}",
                    ha="center",
                    va="center",
                    fontsize=min(8, 30 / digits),
                    color="white" if share[i, j] > 55 else "black",
                )
        save_figure(figure, path)


def drawn(plot: Callable[..., None], *arguments: object) -> str:
    """Draw a picture: `plot(*arguments)`.

    "", or a sentence that says why there is none: no picture is worth a report.
    """
    try:
        plot(*arguments)
    except AumError as error:
        return f"no picture: {error.problem}"
    except Exception as error:
        if debugging():
            raise
        path = next((Path(each).name for each in arguments if isinstance(each, Path)), "")
        return (
            f"no picture {path}: {type(error).__name__}: {' '.join(str(error).split())[:200]}; AUM_DEBUG=1 shows where"
        )
    return ""


def environment() -> dict[str, Any]:
    """Say what computed a number: versions, machine, processor and threads.

    Returns:
        `aumcli`, `torch`, `python`, `platform`, `cpu` as text; `cpus` (that this process may use) and `threads` (that
        torch uses) as integers.
    """
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    try:
        aumcli = version("aumcli")
    except PackageNotFoundError:  # run from a bare checkout
        aumcli = "unknown"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "aumcli": aumcli,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": cpus,
        "threads": torch.get_num_threads(),
    }


def _cpu_model() -> str:
    """The processor's name as its maker gives it, else the architecture."""
    import platform
    import subprocess

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    if sys.platform == "darwin":
        brand = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return brand.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()


def _console(file: TextIO | None):
    """A rich console that is as wide as the terminal, or as wide as need be where there is none."""
    from rich.console import Console

    file = file or sys.stdout
    console = Console(file=file, soft_wrap=False)
    return console if console.is_terminal else Console(file=file, width=PIPE_COLUMNS, color_system=None)


def save_figure(figure: "Figure", path: Path | str) -> None:
    """Write a PNG by the Agg renderer, atomically; no window system and no global state take part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png")


def _cell(value: object) -> str:
    """A table cell's text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else one_line(str(value))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _between(interval: tuple[float, float] | None, shown: Callable[[float], str]) -> str:
    return "" if interval is None else " to ".join(map(shown, interval))


def _number(value: Any) -> float:
    """A number out of a CSV cell; NaN for none."""
    return math.nan if value is None or value == "" else float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

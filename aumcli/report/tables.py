"""Tables in the terminal, in Markdown and in plain text. rich is imported where it is used: it takes a while."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from aumcli.metrics import ClassMetrics, Metrics
from aumcli.utils.text import counted, one_line, plural

if TYPE_CHECKING:
    from rich.console import Console

    from aumcli.event_scores import EventScores
    from aumcli.false_alarms import FalseAlarms
    from aumcli.prepare import PrepareReport

PIPE_COLUMNS = 100_000  # width where the output is no terminal: a program reads it, nothing may wrap
CLASSES_SHOWN = 10  # classes that a line lists in the terminal
SKIPPED_SHOWN = 10  # files that aum prepare skipped, in the terminal; report.json has all
PredictionRow = tuple[str, float | None, float | None, list[tuple[str, float]]]  # see `print_predictions`
GAP = 2  # columns between those of a plain table


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], file: TextIO | None = None, heading: bool = True
) -> None:
    """Print a table; plain and unwrapped where the output is no terminal.

    Args:
        title: stands above the table; "" for none.
        columns: headings.
        rows: one value per column: floats get four decimals, None and NaN a dash. Columns of numbers are flush right.
        file: where to print; standard output by default.
        heading: False for a table that continues.
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


def text_columns(rows: Sequence[Sequence[str]], first: int = 0) -> list[str]:
    """Rows as lines of text that no terminal folds, so that a command in them can be pasted.

    Args:
        rows: the cells, all of one length.
        first: width of the first column, at least.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows)]
    widths[:1] = [max(first, width) for width in widths[:1]]
    gap = " " * GAP
    return [gap.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def print_metrics(
    metrics: Metrics, title: str, file: TextIO | None = None, calibration_error: float | None = None
) -> None:
    """Print the figures of a split, one a line, and over how many classes they are taken.

    Args:
        metrics: what `evaluate_scores` found.
        title: model, corpus and split.
        file: where to print; standard output by default.
        calibration_error: the expected one, where it is known.
    """
    rows = [
        ("clips", f"{metrics.clips:,}"),
        ("classes", f"{metrics.classes:,}"),
        ("accuracy", _percent(metrics.accuracy), _between(metrics.accuracy_ci95, _percent)),
        ("top-5 accuracy", _percent(metrics.top5_accuracy), _between(metrics.top5_accuracy_ci95, _percent)),
        *_background_rows(metrics),
        ("calibration error", _percent(calibration_error)),
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


def print_false_alarms(found: "FalseAlarms", file: TextIO | None = None) -> None:
    """Print false alarms per hour and recall by threshold, and which classes have them."""
    shown = [i for i, t in enumerate(found.thresholds) if t in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)]
    values = [*zip(found.per_hour, found.time, found.recall)]
    rows = [("the model's own", *found.own_thresholds), *((f"{found.thresholds[i]:g}", *values[i]) for i in shown)]
    print_table(
        f"false alarms in {found.hours:.2f} hours of {counted(found.files, 'recording')} of no class",
        ("threshold", "per hour", "of the time", "recall of clips"),
        [(name, f"{per_hour:,.1f}", _percent(time), _percent(recall)) for name, per_hour, time, recall in rows],
        file,
    )
    if found.classes:
        most = ", ".join(
            f"{one_line(name)} {count:,.1f}" for name, count in islice(found.classes.items(), CLASSES_SHOWN)
        )
        _console(file).print(f"at its own thresholds, per hour: {most}", highlight=False, markup=False)


def print_thresholds(rows: Sequence[Mapping[str, Any]], precision: float, file: TextIO | None = None) -> None:
    """Print the thresholds that were chosen for a precision."""
    columns = ("label", "threshold", "precision", "recall", "clips")
    print_table(
        f"thresholds for a precision of {precision:g}",
        columns,
        [[row[name] for name in columns] for row in rows],
        file,
    )
    if without := [one_line(str(row["label"])) for row in rows if isinstance(row["threshold"], str)]:
        names = ", ".join(without[:CLASSES_SHOWN]) + (
            f" and {len(without) - CLASSES_SHOWN} more" * (len(without) > CLASSES_SHOWN)
        )
        _console(file).print(
            f"no threshold reaches that precision, and so no event: {names}", highlight=False, markup=False
        )


def print_events(found: "EventScores", file: TextIO | None = None) -> None:
    """Print how a model's events agree with annotated ones, for all classes and for each, worst first."""
    rows = sorted(found.classes, key=lambda row: (math.isnan(row.f1), row.f1, row.label))
    near = f", or at most {found.tolerance_s:g} s apart" if found.tolerance_s else ""
    print_table(
        f"events in {found.hours:.2f} hours of {counted(found.recordings, 'annotated recording')}, right where they "
        f"overlap{near}; false alarms per hour: {found.false_alarms_per_hour:,.1f}",
        ("class", "annotated", "found", "reported", "right", "precision", "recall", "F1"),
        [(*row, row.precision, row.recall, row.f1) for row in (found.total, *rows[:CLASSES_SHOWN])],
        file,
    )
    if len(rows) > CLASSES_SHOWN:
        _console(file).print(f"{len(rows) - CLASSES_SHOWN:,} more in the JSON", highlight=False)


def _background_rows(metrics: Metrics) -> list[tuple[str, str]]:
    """What is answered with nothing, rightly and wrongly."""
    found = metrics.background
    if found is None:
        return []
    rejected = [("nothing, of no class", f"{_percent(found.rejected)} of {counted(found.clips, 'clip')}")]
    return (rejected if found.clips else []) + [("nothing, of a class", _percent(found.missed))]


def print_classes(metrics: Metrics, limit: int = 20, where: str = "report.json", file: TextIO | None = None) -> None:
    """Print the figures of each class, worst first: by F1, or by average precision for multi-label data.

    Args:
        metrics: what `evaluate_scores` found.
        limit: rows at most; the rest is counted.
        where: the file that holds all of them.
        file: where to print; standard output by default.
    """

    def badness(row: ClassMetrics) -> tuple[bool, float, str]:
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
    """Print what `aum prepare` found: splits, classes, how the source was understood, warnings, skipped files.

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
    for item in report.skipped[:SKIPPED_SHOWN]:
        name = "" if item.path in item.reason else f"{item.path}: "
        lines.append(f"skipped: {name}{item.reason} (fix: {item.fix})")
    if report.skipped:
        lines.append(f"skipped: {len(report.skipped):,} in all; {report.folder}/report.json names each")
    console = _console(file)
    for line in lines:
        console.print(one_line(line), highlight=False, markup=False, soft_wrap=True)  # so that a setting can be copied


def _class_line(report: "PrepareReport") -> str:
    """How many classes a clip may have, and the classes with the most clips."""
    clips = {name: int(sum(cell["clips"] for cell in splits.values())) for name, splits in report.classes.items()}
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
    predictions: Sequence[PredictionRow], file: TextIO | None = None, heading: bool = True, width: int | None = None
) -> None:
    """Print the labels of clips, one clip or window a line.

    Args:
        predictions: (clip, start in s or None, stop in s or None, [(label, score), ...] best first) of each.
        file: where to print; standard output by default.
        heading: False for a table that continues.
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


def _fit(columns: Sequence[str], rows: list[list[Any]], width: int) -> None:
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


def _console(file: TextIO | None) -> "Console":
    """A rich console that is as wide as the terminal, or as wide as need be where there is none."""
    from rich.console import Console

    file = file or sys.stdout
    console = Console(file=file, soft_wrap=False)
    return console if console.is_terminal else Console(file=file, width=PIPE_COLUMNS, color_system=None)


def _cell(value: object) -> str:
    """A table cell's text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else one_line(str(value))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _between(interval: tuple[float, float] | None, shown: Callable[[float], str]) -> str:
    return "" if interval is None else " to ".join(map(shown, interval))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

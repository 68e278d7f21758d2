"""Plots as PNG files. matplotlib is imported where it is used: it takes a second."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aumcli.config import NOTHING
from aumcli.errors import AumError, debugging
from aumcli.metrics import best_row
from aumcli.utils.files import atomic_path
from aumcli.utils.text import counted, one_line

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.typing import RcKeyType

COUNTS_UP_TO = 20  # classes up to which a confusion matrix has its counts written in
NAMES_UP_TO, UNNAMED_INCHES = 600, 12.0  # classes up to which it has their names, and its side where it has none
LABEL_CHARACTERS = 40  # longer class names end in an ellipsis on a plot's axes
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito 2008: told apart with any colour vision
STYLE: "dict[RcKeyType, Any]" = {
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
    names = _shortened(label_names)
    font = min(9.0, 0.8 * 72 * cell)
    named = classes <= NAMES_UP_TO  # a picture with more would take a minute, and fits no screen
    margin = 1.0 + 0.62 * font / 72 * max(map(len, names)) * named  # inches, for the names
    side = max(1.8, cell * classes) if named else UNNAMED_INCHES
    with rc_context({**STYLE, "axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(side + margin + 0.9, side + margin + 0.6), layout="constrained")
        axes = figure.subplots()
        norm = PowerNorm(1.0 if classes <= COUNTS_UP_TO else 0.5, 0, 100)
        image = axes.imshow(
            share, cmap=colormaps["Blues"].with_extremes(bad="#e4e4e4"), norm=norm, interpolation="nearest"
        )
        word = "right" if NOTHING in label_names else "accuracy"  # which is of the clips of a class
        accuracy = f"{word} {100 * np.trace(matrix) / clips:.2f} % of " if clips else ""
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


def plot_reliability(bins: "Sequence[tuple[float, float, int]]", error: float, path: Path | str, title: str) -> None:
    """Draw the share of right answers by the score of the answer, and how many clips have it.

    Args:
        bins: mean score, share of right answers, clips; see `aumcli.calibration.reliability`.
        error: the expected calibration error, 0..1.
        path: the PNG to write.
        title: stands above.

    Raises:
        AumError: `path` can't be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    scores, shares, clips = zip(*bins)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.4), layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"{one_line(title)}\nexpected calibration error {100 * error:.2f} %")
        axes.plot([0, 1], [0, 1], color="#888888", ls=":", lw=1, label="as often as the score says")
        areas = [12 + 300 * count / sum(clips) for count in clips]
        axes.scatter(scores, shares, areas, color=BLUE, label="this model, by number of clips", clip_on=False)
        for score, share, count in bins:
            axes.annotate(f"{count:,}", (score, share), fontsize=7, xytext=(5, -9), textcoords="offset points")
        axes.set(xlabel="score of the answer", ylabel="share of right answers", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.set_aspect("equal")
        axes.legend(loc="lower right", markerscale=0.6)
        save_figure(figure, path)


def plot_false_alarms(found: Any, path: Path | str, title: str) -> None:
    """Draw recall against false alarms per hour, threshold by threshold, and the model's own thresholds.

    Args:
        found: an `aumcli.false_alarms.FalseAlarms`.
        path: the PNG to write.
        title: stands above.

    Raises:
        AumError: `path` can't be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.set_title(f"{one_line(title)}\n{found.hours:.2f} hours of no class")
        axes.plot(
            found.per_hour, [100 * each for each in found.recall], color=BLUE, marker="o", markersize=3,
            label="one threshold for all classes",
        )  # fmt: skip
        for threshold in (0.1, 0.5, 0.9):
            place = found.thresholds.index(threshold)
            axes.annotate(
                f"{threshold:g}", (found.per_hour[place], 100 * found.recall[place]), fontsize=8, xytext=(4, -9),
                textcoords="offset points",
            )  # fmt: skip
        own = found.own_thresholds
        axes.plot(own.per_hour, 100 * own.recall, "*", color=ORANGE, ms=11, label="the model's own thresholds")
        axes.set_xscale("symlog", linthresh=1)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set(xlabel="false alarms per hour", ylabel="recall of clips (%)", xlim=(0, None))
        axes.legend(loc="lower right")
        save_figure(figure, path)


def plot_hours(
    events: "Mapping[str, np.ndarray]", recorded_h: "np.ndarray", path: Path | str, title: str, most: int = 40
) -> None:
    """Draw events per recorded hour, by class and hour of the day; hours without recordings are grey.

    Args:
        events: class -> events in each hour, (24,).
        recorded_h: hours recorded in each, (24,).
        path: the PNG to write.
        title: stands above.
        most: classes that are drawn, those with the most events; the title counts the others.

    Raises:
        AumError: `path` can't be written.
    """
    import numpy as np
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    labels = sorted(events, key=lambda label: (-events[label].sum(), label))
    shown = labels[:most]
    more = f"; {counted(len(labels) - most, 'class')} with fewer are left out" if len(labels) > most else ""
    if not shown:
        shown, events = ["no events"], {"no events": np.zeros(24)}
    rates = np.array([events[label] / np.maximum(recorded_h, 1e-9) for label in shown])  # (classes, 24)
    rates = np.ma.masked_array(rates, np.broadcast_to(recorded_h == 0, rates.shape))
    names = _shortened(shown)
    with rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(8.0, 1.3 + 0.28 * len(shown)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(rates, aspect="auto", cmap=colormaps["Blues"].with_extremes(bad="#e4e4e4"), vmin=0)
        axes.set_title(one_line(title) + more)
        axes.set_yticks(range(len(shown)), names)
        axes.set_xticks(range(24))
        axes.set_xlabel("hour of the day")
        figure.colorbar(image, ax=axes, label="events per recorded hour", pad=0.01)
        save_figure(figure, path)


def _shortened(names: Sequence[str]) -> list[str]:
    """Names as they stand on an axis: in one line, of at most LABEL_CHARACTERS."""
    return [
        name if len(name) <= LABEL_CHARACTERS else name[: LABEL_CHARACTERS - 1] + "…" for name in map(one_line, names)
    ]


def drawn(plot: Callable[..., None], *arguments: object) -> str:
    """Draw a picture: `plot(*arguments)`.

    "", or a sentence that says why there is none: a report is written without it.
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


def save_figure(figure: "Figure", path: Path | str) -> None:
    """Write a PNG by the Agg renderer, atomically; no window system and no global state take part."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, format="png")


def _number(value: Any) -> float:
    """A number out of a CSV cell; NaN for none."""
    return math.nan if value is None or value == "" else float(value)

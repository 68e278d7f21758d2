"""ablation.png: the scores of a grid with two axes, as a heat map."""

from pathlib import Path
from typing import TYPE_CHECKING

from aumcli.ablate.cells import Ablation, Cell
from aumcli.ablate.grid import value_of
from aumcli.report.plots import ORANGE, STYLE, save_figure

if TYPE_CHECKING:
    import numpy as np


def plot_heat_map(result: Ablation, path: Path | str) -> None:
    """Draw a cell for each variant, with mean and standard deviation; the best of a row bold, the best of all framed.

    The colours span the scores without outliers below them, such as a variant at chance, which would make the others
    look the same; those have a colour of their own.

    Args:
        result: has two axes: the first down, the second across.
        path: the PNG to write.

    Raises:
        AumError: `path` can't be written.
    """
    import numpy as np
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = result.rows()
    means = np.array(
        [[np.nan if cell.mean is None else 100 * cell.mean for cell in row] for row in rows]
    )  # (down, across)
    low, high = _span(means[np.isfinite(means)])
    with rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        figure = Figure(figsize=(1.8 + 1.15 * means.shape[1], 1.2 + 0.62 * means.shape[0]), layout="constrained")
        axes = figure.subplots()
        colours = colormaps["Blues"].with_extremes(bad="#e4e4e4", under="#f6e3d3")
        image = axes.imshow(means, cmap=colours, vmin=low, vmax=high, aspect="auto")
        for i, row in enumerate(rows):
            for j, cell in enumerate(row):
                rank, is_dark = result.rank(cell), (means[i, j] - low) / (high - low) > 0.6
                weight, colour = "bold" if rank else "normal", "white" if is_dark else "black"
                axes.text(j, i, _cell_text(cell), ha="center", va="center", weight=weight, color=colour)
                if rank == 2:
                    axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, lw=2, ec=ORANGE))
        axes.set_xticks(range(means.shape[1]), list(map(value_of, result.axes[1])))
        axes.set_yticks(range(means.shape[0]), list(map(value_of, result.axes[0])))
        axes.tick_params(length=0)
        axes.set(xlabel=result.keys[1].replace("_", " "), ylabel=result.keys[0].replace("_", " "))
        has_outliers = bool((means < low).any())
        bar = figure.colorbar(image, ax=axes, extend="min" if has_outliers else "neither", shrink=0.9)
        bar.set_label(f"{result.score_name} (%)")
        bar.outline.set_visible(False)
        save_figure(figure, path)


def _cell_text(cell: Cell) -> str:
    if cell.mean is None:
        return "failed" if cell.failures else "-"
    return f"{100 * cell.mean:.2f}" + ("" if cell.std is None else f"\n± {100 * cell.std:.2f}")


def _span(means: "np.ndarray") -> tuple[float, float]:
    """Lowest and highest score to colour; without those that lie far below the rest."""
    import numpy as np

    if not len(means):
        return 0.0, 100.0
    lower, upper = np.quantile(means, (0.25, 0.75))
    low, high = means[means >= lower - 1.5 * (upper - lower)].min(), means.max()
    return (low, high) if high > low else (low - 1, high + 1)

"""An ablation for people and programs: terminal, Markdown, LaTeX, CSV, JSON."""

import csv
import io
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from aumcli.ablate.cells import Ablation, Cell
from aumcli.ablate.grid import value_of
from aumcli.ablate.picture import plot_heat_map
from aumcli.console import say
from aumcli.files import write_json, write_text
from aumcli.report import drawn, markdown_table, print_table

LATEX = str.maketrans({"_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "$": r"\$", "±": r"$\pm$"})
Mark = Callable[[str, int], str]      # a score's text and its rank -> its text in a format


def print_ablation(result: Ablation) -> None:
    """Print the table: for two axes rows by columns, else a row for each cell; failures; and what a comparison says."""
    import textwrap

    columns, rows = _grid(result, _stars) if len(result.axes) == 2 else table(result, _stars)
    print_table(_title(result), columns, rows)
    print("*  best of its row, ** best of all" if len(result.axes) > 1 else "** best of all")
    for cell in result.cells:
        for seed, text in cell.failures.items():
            print(textwrap.fill(f"failed: {cell.name}, seed {seed}: {text}", 79))
    for line in result.comparison.sentences() if result.comparison else []:
        print(textwrap.fill(line, 79))


def write_ablation(result: Ablation, out: Path) -> None:
    """Write ablation.json, .csv, .md, .tex and, for two axes, the heat map ablation.png."""
    write_json(out / "ablation.json", _as_json(result))
    write_text(out / "ablation.csv", _csv(result))
    write_text(out / "ablation.md", _markdown(result))
    write_text(out / "ablation.tex", _latex(result))
    if len(result.axes) == 2 and (problem := drawn(plot_heat_map, result, out / "ablation.png")):
        say(problem)


def table(result: Ablation, mark: Mark) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each cell: values, mean and standard deviation in percent, the seeds' scores, parameters."""
    rows = []
    for cell in result.cells:
        seeds = " ".join(f"{100 * score:.2f}" for score in cell.scores.values()) or "-"
        rows.append([*map(value_of, cell.overrides), mark(score_text(cell), result.rank(cell)), seeds,
                     "-" if cell.parameters is None else f"{cell.parameters:,}"])
    return [*result.keys, f"test {result.metric or 'score'} (%)", "by seed", "parameters"], rows


def score_text(cell: Cell) -> str:
    """Mean and standard deviation in percent."""
    if cell.mean is None:
        return "failed" if cell.failures else "-"
    spread = "" if cell.std is None else f" ± {100 * cell.std:.2f}"
    return f"{100 * cell.mean:.2f}{spread}{' (some failed)' if cell.failures else ''}"


def _grid(result: Ablation, mark: Mark) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of a table with the first axis down and the second across."""
    rows = [[value_of(row[0].overrides[0]), *(mark(score_text(cell), result.rank(cell)) for cell in row)] for row in result.rows()]
    return [" / ".join(result.keys), *map(value_of, result.axes[1])], rows


def _stars(text: str, rank: int) -> str:
    return text + ("", " *", " **")[rank]


def _bold(text: str, rank: int) -> str:
    return (text, f"**{text}**", f"**{text}** *")[rank]


def _bold_latex(text: str, rank: int) -> str:
    return (text, rf"\textbf{{{text}}}", rf"\underline{{\textbf{{{text}}}}}")[rank]


def _title(result: Ablation) -> str:
    what = f"{result.recipe}{''.join(f', {text}' for text in result.overrides)}"
    return f"{what}: test {result.metric or 'score'} (%), {result.seeds} seed{'s' if result.seeds > 1 else ''}"


def _markdown(result: Ablation) -> str:
    parts = [f"# {_title(result)}\n",
             "Written by `aum ablate`. Mean and standard deviation over the seeds; bold: best of its row; *: best of all.\n"]
    if len(result.axes) == 2:
        parts += [markdown_table(*_grid(result, _bold)), "![](ablation.png)\n"]
    parts.append(markdown_table(*table(result, _bold)))
    parts += [f"Failed: {cell.name}, seed {seed}: {text}\n" for cell in result.cells for seed, text in cell.failures.items()]
    parts += [f"{line}\n" for line in (result.comparison.sentences() if result.comparison else [])]
    parts += [f"Trained on {machine}.\n" for machine in result.machines]
    return "\n".join(parts)


def _latex(result: Ablation) -> str:
    columns, rows = (_grid if len(result.axes) == 2 else table)(result, lambda text, rank: f"{rank}|{text}")

    def cell(text: str) -> str:
        rank, bar, rest = text.partition("|")
        return _bold_latex(rest.translate(LATEX), int(rank)) if bar else text.translate(LATEX)

    lines = [r"% needs \usepackage{booktabs}; bold: best of its row; underlined: best of all", rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
             r"\toprule", " & ".join(map(cell, columns)) + r" \\", r"\midrule", *(" & ".join(map(cell, row)) + r" \\" for row in rows),
             r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _csv(result: Ablation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*result.keys, "mean", "std", *(f"seed_{seed}" for seed in range(result.seeds)), "parameters", "failed"])
    for cell in result.cells:
        writer.writerow([*map(value_of, cell.overrides), cell.mean, cell.std, *(cell.scores.get(seed) for seed in range(result.seeds)),
                         cell.parameters, "; ".join(cell.failures.values())])
    return text.getvalue()


def _as_json(result: Ablation) -> dict[str, object]:
    cells = [{"overrides": list(cell.overrides), "scores": {str(seed): score for seed, score in cell.scores.items()}, "mean": cell.mean,
              "std": cell.std, "parameters": cell.parameters, "failures": {str(seed): text for seed, text in cell.failures.items()}}
             for cell in result.cells]
    return {"schema": 2, "recipe": result.recipe, "overrides": list(result.overrides), "axes": result.axes, "seeds": result.seeds,
            "metric": result.metric, "machines": result.machines, "cells": cells,
            "comparison": asdict(result.comparison) if result.comparison else None}

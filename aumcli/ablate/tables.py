"""An ablation, or a table of the paper made again, for people and programs: terminal, Markdown, LaTeX, CSV, JSON."""

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from aumcli.ablate.cells import Ablation, Cell, Table
from aumcli.ablate.grid import value_of
from aumcli.ablate.plot import plot_heat_map
from aumcli.paper import Published
from aumcli.report.plots import drawn
from aumcli.report.tables import markdown_table, print_table
from aumcli.utils.files import write_json, write_text

LATEX = str.maketrans({"_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "$": r"\$", "±": r"$\pm$"})
PAPER = "paper"  # a row, or a column, of the paper's figures
Mark = Callable[[str, int], str]  # a score's text and its rank -> its text in a format

logger = logging.getLogger(__name__)


def print_ablation(result: Ablation) -> None:
    """Print the table: for two axes rows by columns, else a row for each cell; failures; and what a comparison says."""
    columns, rows = _grid([result], _stars) if result.has_map else table(result, _stars)
    print_table(_title(result), columns, rows)
    print("*  best of its row, ** best of all" if len(result.axes) > 1 else "** best of all")
    _print_notes(result)


def print_paper_table(made: Table) -> None:
    """Print a table as the paper has it, its figures below ours; failures; and what the comparisons say."""
    print_table(_table_title(made), *_grid(made.results, _stars))
    print("*  best of its row, ** best of its corpus" if made.has_map else "** best of its corpus")
    for result in made.results:
        _print_notes(result)


def write_ablation(result: Ablation, out: Path) -> None:
    """Write ablation.json, .csv, .md, .tex and, for two axes, the heat map ablation.png."""
    write_json(out / "ablation.json", {"schema": 2, **_as_json(result)})
    write_text(out / "ablation.csv", _csv([result]))
    write_text(out / "ablation.md", _markdown(result))
    write_text(out / "ablation.tex", _latex(*(_grid([result], _ranked) if result.has_map else table(result, _ranked))))
    if result.has_map and (problem := drawn(plot_heat_map, result, out / "ablation.png")):
        logger.warning(problem)


def write_table(made: Table) -> None:
    """Write ablation.json, .csv, .md, .tex and, of Table 2, a heat map for each corpus."""
    out = made.folder
    write_json(
        out / "ablation.json",
        {"schema": 2, "table": made.number, "corpora": [_as_json(result) for result in made.results]},
    )
    write_text(out / "ablation.csv", _csv(made.results))
    write_text(out / "ablation.md", _table_markdown(made))
    write_text(out / "ablation.tex", _latex(*_grid(made.results, _ranked)))
    for result in made.results:
        if result.has_map and (problem := drawn(plot_heat_map, result, out / f"{result.recipe}.png")):
            logger.warning(problem)


def table(result: Ablation, mark: Mark) -> tuple[list[str], list[list[str]]]:
    """Headings and a row for each cell: values, mean and deviation in percent, the paper's, each seed's, parameters."""
    rows, has_paper = [], _has_paper([result])
    for cell in result.cells:
        seeds = " ".join(f"{100 * score:.2f}" for score in cell.scores.values()) or "-"
        rows.append(
            [
                *map(value_of, cell.overrides),
                mark(score_text(cell), result.rank(cell)),
                *([_paper_text(result.published(cell))] if has_paper else []),
                seeds,
                "-" if cell.parameters is None else f"{cell.parameters:,}",
            ]
        )
    return [*result.keys, f"{result.what} (%)", *([PAPER] if has_paper else []), "by seed", "parameters"], rows


def score_text(cell: Cell) -> str:
    """Mean and standard deviation in percent."""
    if cell.mean is None:
        return "failed" if cell.failures else "-"
    spread = "" if cell.std is None else f" ± {100 * cell.std:.2f}"
    return f"{100 * cell.mean:.2f}{spread}{' (some failed)' if cell.failures else ''}"


def _paper_text(published: Published | None) -> str:
    return "-" if published is None else f"{100 * published.mean:.2f} ± {100 * published.std:.2f}"


def _has_paper(results: Sequence[Ablation]) -> bool:
    """Whether the paper reports any of the cells."""
    return any(result.published(cell) for result in results for cell in result.cells)


def _grid(results: Sequence[Ablation], mark: Mark) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: the first axis down, corpora and the second across, the paper's row below each of ours."""
    columns, rows, has_paper = [" / ".join(results[0].keys)], [], _has_paper(results)
    for result in results:
        heading = f"{result.recipe} {result.what}" if result.table else ""
        columns += (
            [f"{heading}, {value_of(text)}".removeprefix(", ") for text in result.axes[1]]
            if result.has_map
            else [heading]
        )
    for number, text in enumerate(results[0].axes[0]):
        cells = [(result, cell) for result in results for cell in result.lines()[number]]
        rows.append([value_of(text), *(mark(score_text(cell), result.rank(cell)) for result, cell in cells)])
        if has_paper:
            rows.append(
                [f"{value_of(text)}, {PAPER}", *(_paper_text(result.published(cell)) for result, cell in cells)]
            )
    return columns, rows


def _stars(text: str, rank: int) -> str:
    return text + ("", " *", " **")[rank]


def _bold(text: str, rank: int) -> str:
    return (text, f"**{text}**", f"**{text}** *")[rank]


def _ranked(text: str, rank: int) -> str:
    return f"{rank}|{text}"


def _bold_latex(text: str, rank: int) -> str:
    return (text, rf"\textbf{{{text}}}", rf"\underline{{\textbf{{{text}}}}}")[rank]


def _title(result: Ablation) -> str:
    return f"{', '.join((result.recipe, *result.overrides))}: {result.what} (%), {_seeds(result)}"


def _table_title(made: Table) -> str:
    return f"{', '.join((f'Table {made.number}', *made.results[0].overrides))}: scores (%), {_seeds(made.results[0])}"


def _seeds(result: Ablation) -> str:
    return f"{result.seeds} seed{'s' if result.seeds > 1 else ''}"


def _print_notes(result: Ablation) -> None:
    import textwrap

    for line in _notes(result):
        print(textwrap.fill(line, 79))


def _notes(result: Ablation) -> Iterator[str]:
    """What failed, what the runs started from, what is wrong with the figures, and what a comparison says."""
    corpus = f"{result.recipe}: " if result.table else ""
    for cell in result.cells:
        for seed, text in cell.failures.items():
            yield f"failed: {corpus}{cell.name}, seed {seed}: {text}"
    for start in result.starts:
        yield f"{corpus}{start}."
    for leak in result.leaks:
        yield f"{corpus}the reported clips also {leak}: the figures flatter."
    for line in result.comparison.sentences() if result.comparison else ():
        yield corpus + line


def _markdown(result: Ablation) -> str:
    parts = [
        f"# {_title(result)}\n",
        "Written by `aum ablate`. Mean and standard deviation over the seeds; bold: best of its row; *: best of all.\n",
    ]
    if result.has_map:
        parts += [markdown_table(*_grid([result], _bold)), "![](ablation.png)\n"]
    return "\n".join([*parts, *_details(result)])


def _table_markdown(made: Table) -> str:
    parts = [
        f"# {_table_title(made)}\n",
        "Written by `aum ablate`. Mean and standard deviation over the seeds, and below them the paper's (arXiv "
        "2406.03344, three seeds); bold: best of its row; *: best of its corpus.\n",
        markdown_table(*_grid(made.results, _bold)),
    ]
    for result in made.results:
        parts += [
            f"## {result.recipe}\n",
            *([f"![]({result.recipe}.png)\n"] if result.has_map else []),
            *_details(result),
        ]
    return "\n".join(parts)


def _details(result: Ablation) -> list[str]:
    """A row for each cell with its seeds, what there is to say, and what trained the runs."""
    return [
        markdown_table(*table(result, _bold)),
        *(f"{line}\n" for line in _notes(result)),
        *(f"Trained on {machine}.\n" for machine in result.machines),
    ]


def _latex(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose scores `_ranked` has marked."""

    def cell(text: str) -> str:
        rank, bar, rest = text.partition("|")
        return _bold_latex(rest.translate(LATEX), int(rank)) if bar else text.translate(LATEX)

    lines = [
        r"% needs \usepackage{booktabs}; bold: best of its row; underlined: best of all",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(cell, columns)) + r" \\",
        r"\midrule",
        *(" & ".join(map(cell, row)) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _csv(results: Sequence[Ablation]) -> str:
    """A row for each cell; with the corpus in a table of the paper, and the paper's figures where it reports any."""
    text, first, has_paper = io.StringIO(), results[0], _has_paper(results)
    writer = csv.writer(text, lineterminator="\n")
    seeds = [f"seed_{seed}" for seed in range(first.seeds)]
    writer.writerow(
        [
            *(["corpus", "split", "metric"] if first.table else []),
            *first.keys,
            "mean",
            "std",
            *(["paper_mean", "paper_std"] if has_paper else []),
            *seeds,
            "parameters",
            "failed",
        ]
    )
    for result in results:
        for cell in result.cells:
            published = result.published(cell)
            figures = [published.mean, published.std] if published else [None, None]
            writer.writerow(
                [
                    *([result.recipe, result.split, result.metric] if result.table else []),
                    *map(value_of, cell.overrides),
                    cell.mean,
                    cell.std,
                    *(figures if has_paper else []),
                    *(cell.scores.get(seed) for seed in range(result.seeds)),
                    cell.parameters,
                    "; ".join(cell.failures.values()),
                ]
            )
    return text.getvalue()


def _as_json(result: Ablation) -> dict[str, object]:
    cells = []
    for cell in result.cells:
        published = result.published(cell)
        cells.append(
            {
                "overrides": list(cell.overrides),
                "scores": {str(seed): score for seed, score in cell.scores.items()},
                "mean": cell.mean,
                "std": cell.std,
                "paper": published and {"mean": published.mean, "std": published.std},
                "parameters": cell.parameters,
                "failures": {str(seed): text for seed, text in cell.failures.items()},
            }
        )
    return {
        "recipe": result.recipe,
        "overrides": list(result.overrides),
        "axes": result.axes,
        "seeds": result.seeds,
        "split": result.split,
        "metric": result.metric,
        "starts": result.starts,
        "leaks": result.leaks,
        "machines": result.machines,
        "cells": cells,
        "comparison": asdict(result.comparison) if result.comparison else None,
    }

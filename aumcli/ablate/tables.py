"""An ablation, or a table of the paper, for people and programs: terminal, Markdown, LaTeX, CSV, JSON."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aumcli.ablate.cells import Ablation, Cell, PaperTable
from aumcli.ablate.grid import value_of
from aumcli.ablate.plot import plot_heat_map
from aumcli.paper import Published
from aumcli.report.plots import drawn
from aumcli.report.tables import markdown_table, print_table
from aumcli.utils.console import echo
from aumcli.utils.csv import csv_writer
from aumcli.utils.files import write_json, write_text
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, wrapped

logger = get_logger(__name__)

LATEX = str.maketrans({"_": r"\_", "&": r"\&", "%": r"\%", "#": r"\#", "$": r"\$", "±": r"$\pm$"})
PAPER = "paper"  # a row, or a column, of the paper's scores


@dataclass(frozen=True)
class Score:
    """A score in a table, which shows its rank in the manner of the format (see `Ablation.rank`)."""

    text: str
    rank: int


Table = tuple[list[str], list[list[str | Score]]]  # headings and rows


def print_result(result: Ablation | PaperTable) -> None:
    """Print the scores, for two axes rows by columns, else a row for each cell; failures; and the comparisons.

    Of a table of the paper, the paper's scores stand below ours.
    """
    row = "*  best of its row, "
    if isinstance(result, PaperTable):
        (columns, rows), title, ablations = score_table(result.results), _paper_title(result), result.results
        legend = (row if result.has_heat_map else "") + "** best of its corpus"
    else:
        columns, rows = score_table([result]) if result.has_heat_map else cell_table(result)
        title, ablations, legend = _title(result), [result], (row if len(result.axes) > 1 else "") + "** best of all"
    print_table(title, columns, _marked(rows, _stars))
    echo(legend)
    for ablation in ablations:
        for line in _notes(ablation):
            echo(wrapped(line))


def write_ablation(result: Ablation, out: Path) -> None:
    """Write ablation.json, .csv, .md, .tex and, for two axes, the heat map ablation.png."""
    write_json(out / "ablation.json", {"schema": 2, **_as_json(result)})
    _write_csv(out / "ablation.csv", [result])
    write_text(out / "ablation.md", _markdown(result))
    write_text(out / "ablation.tex", _latex(*(score_table([result]) if result.has_heat_map else cell_table(result))))
    if result.has_heat_map:
        _draw(result, out / "ablation.png")


def write_table(table: PaperTable) -> None:
    """Write ablation.json, .csv, .md, .tex and, of Table 2, a heat map for each corpus."""
    out, corpora = table.folder, [_as_json(result) for result in table.results]
    write_json(out / "ablation.json", {"schema": 2, "table": table.number, "corpora": corpora})
    _write_csv(out / "ablation.csv", table.results)
    write_text(out / "ablation.md", _paper_markdown(table))
    write_text(out / "ablation.tex", _latex(*score_table(table.results)))
    for result in table.results:
        if result.has_heat_map:
            _draw(result, out / f"{result.recipe}.png")


def _draw(result: Ablation, path: Path) -> None:
    if problem := drawn(plot_heat_map, result, path):
        logger.warning(problem)


def cell_table(result: Ablation) -> Table:
    """A row for each cell: its values, mean and deviation in percent, the paper's, each seed's, parameters."""
    has_paper = _has_paper([result])
    columns = [*result.keys, f"{result.score_name} (%)", *([PAPER] if has_paper else []), "by seed", "parameters"]
    rows: list[list[str | Score]] = []
    for cell in result.cells:
        by_seed = " ".join(f"{100 * score:.2f}" for score in cell.scores.values()) or "-"
        parameters = "-" if cell.parameters is None else f"{cell.parameters:,}"
        paper = [_paper_text(result.published(cell))] if has_paper else []
        rows.append([*map(value_of, cell.overrides), _score(result, cell), *paper, by_seed, parameters])
    return columns, rows


def score_table(results: Sequence[Ablation]) -> Table:
    """The first axis down, corpora and the second axis across, a row of the paper's scores below each of ours."""
    columns = [" / ".join(results[0].keys)]
    for result in results:
        heading = f"{result.recipe} {result.score_name}" if result.table else ""
        across = [value_of(text) for text in result.axes[1]] if result.has_heat_map else [""]
        columns += [", ".join(filter(None, (heading, value))) for value in across]
    rows: list[list[str | Score]] = []
    for number, text in enumerate(results[0].axes[0]):
        cells = [(result, cell) for result in results for cell in result.by_first_axis()[number]]
        rows.append([value_of(text), *(_score(result, cell) for result, cell in cells)])
        if _has_paper(results):
            published = [_paper_text(result.published(cell)) for result, cell in cells]
            rows.append([f"{value_of(text)}, {PAPER}", *published])
    return columns, rows


def _score(result: Ablation, cell: Cell) -> Score:
    return Score(score_text(cell), result.rank(cell))


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


def _marked(rows: Sequence[Sequence[str | Score]], mark: Callable[[str, int], str]) -> list[list[str]]:
    """Rows whose scores have been given the mark of their rank."""
    return [[mark(cell.text, cell.rank) if isinstance(cell, Score) else cell for cell in row] for row in rows]


def _stars(text: str, rank: int) -> str:
    return text + ("", " *", " **")[rank]


def _bold(text: str, rank: int) -> str:
    return (text, f"**{text}**", f"**{text}** *")[rank]


def _bold_latex(text: str, rank: int) -> str:
    return (text, rf"\textbf{{{text}}}", rf"\underline{{\textbf{{{text}}}}}")[rank]


def _title(result: Ablation) -> str:
    changes = ", ".join((result.recipe, *result.overrides))
    return f"{changes}: {result.score_name} (%), {counted(result.seeds, 'seed')}"


def _paper_title(table: PaperTable) -> str:
    first = table.results[0]
    changes = ", ".join((f"Table {table.number}", *first.overrides))
    return f"{changes}: scores (%), {counted(first.seeds, 'seed')}"


def _notes(result: Ablation) -> Iterator[str]:
    """What failed, what the runs started from, what is wrong with the scores, and what the comparison says."""
    corpus = f"{result.recipe}: " if result.table else ""
    for cell in result.cells:
        for seed, text in cell.failures.items():
            yield f"failed: {corpus}{cell.name}, seed {seed}: {text}"
    for start in result.starts:
        yield f"{corpus}{start}."
    for leak in result.leaks:
        yield f"{corpus}the reported clips also {leak}: the scores are optimistic."
    for line in result.comparison.sentences() if result.comparison else ():
        yield corpus + line


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str | Score]]) -> str:
    return markdown_table(columns, _marked(rows, _bold))


def _markdown(result: Ablation) -> str:
    sections = [
        f"# {_title(result)}\n",
        "Written by `aum ablate`. Mean and standard deviation over the seeds; bold: best of its row; *: best of all.\n",
    ]
    if result.has_heat_map:
        sections += [_markdown_table(*score_table([result])), "![](ablation.png)\n"]
    return "\n".join([*sections, *_details(result)])


def _paper_markdown(table: PaperTable) -> str:
    sections = [
        f"# {_paper_title(table)}\n",
        "Written by `aum ablate`. Mean and standard deviation over the seeds, and below them the paper's (arXiv "
        "2406.03344, three seeds); bold: best of its row; *: best of its corpus.\n",
        _markdown_table(*score_table(table.results)),
    ]
    for result in table.results:
        sections += [
            f"## {result.recipe}\n",
            *([f"![]({result.recipe}.png)\n"] if result.has_heat_map else []),
            *_details(result),
        ]
    return "\n".join(sections)


def _details(result: Ablation) -> list[str]:
    """A row for each cell with its seeds, the notes, and what trained the runs."""
    return [
        _markdown_table(*cell_table(result)),
        *(f"{line}\n" for line in _notes(result)),
        *(f"Trained on {machine}.\n" for machine in result.machines),
    ]


def _latex(columns: Sequence[str], rows: Sequence[Sequence[str | Score]]) -> str:
    """A table in LaTeX."""
    escaped = [
        [
            Score(cell.text.translate(LATEX), cell.rank) if isinstance(cell, Score) else cell.translate(LATEX)
            for cell in row
        ]
        for row in rows
    ]
    lines = [
        r"% needs \usepackage{booktabs}; bold: best of its row; underlined: best of all",
        rf"\begin{{tabular}}{{{'l' * len(columns)}}}",
        r"\toprule",
        " & ".join(column.translate(LATEX) for column in columns) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in _marked(escaped, _bold_latex)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, results: Sequence[Ablation]) -> None:
    """Write a row for each cell; in a table of the paper with its corpus, and with the paper's scores if it has any."""
    first, has_paper = results[0], _has_paper(results)
    columns = [
        *(["corpus", "split", "metric"] if first.table else []),
        *first.keys,
        *("mean", "std"),
        *(["paper_mean", "paper_std"] if has_paper else []),
        *(f"seed_{seed}" for seed in range(first.seeds)),
        *("parameters", "failed"),
    ]
    with csv_writer(path, columns) as writer:
        for result in results:
            for cell in result.cells:
                published = result.published(cell)
                paper = [published.mean, published.std] if published else [None, None]
                writer.writerow(
                    [
                        *([result.recipe, result.split, result.metric] if result.table else []),
                        *map(value_of, cell.overrides),
                        *(cell.mean, cell.std),
                        *(paper if has_paper else []),
                        *(cell.scores.get(seed) for seed in range(result.seeds)),
                        cell.parameters,
                        "; ".join(cell.failures.values()),
                    ]
                )


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

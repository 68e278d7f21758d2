"""aum info table1, ..., figure2: the recipes and commands that make a part of the paper again, and what it reports."""

import shlex
from collections.abc import Callable
from typing import Any

from aumcli import paper
from aumcli.recipe import Recipe, load_recipe
from aumcli.report.tables import text_columns

PAGES = tuple(paper.TITLES)
SOURCE = "Erol et al. 2024, arXiv 2406.03344"
# corpus -> the folder with its publisher's files; Speech Commands is fetched
SOURCES = {"as20k": "audioset", "speechcommands": ""}
FIGURE_2 = (
    "aum bench --models aum-base,ast-base-eager,aum-small,ast-small-eager --mode inference,training --min-tokens 512 "
    "--max-tokens 4096 --batch 12 --memory-cap 48 --device cuda --out figure-2"
)
LOSSES = {"bce": "BCE", "cross_entropy": "CE"}
AT_ONCE = 3  # columns of Table 5 beside each other, to fit a terminal


def _warm_up(recipe: Recipe) -> str:
    steps, epochs = recipe.train.warmup_steps, recipe.train.warmup_epochs
    return f"{steps} steps" if steps else f"{epochs:g} Epochs" if epochs else "none"


def _decay(recipe: Recipe) -> str:
    train = recipe.train
    if train.schedule != "steps":
        return train.schedule
    return f"{train.decay_start} / {train.decay_every} / {train.decay_factor:g}"


def _rate(recipe: Recipe) -> str:
    digits, _, exponent = f"{recipe.train.lr:e}".partition("e")
    return f"{float(digits):g}e{int(exponent)}"


# a row of the paper's Table 5 -> what a recipe has there, in the table's words
SETTINGS: dict[str, Callable[[Recipe], str]] = {
    "batch size": lambda recipe: f"{recipe.train.batch_size}",
    "loss": lambda recipe: LOSSES[recipe.train.loss],
    "balanced sampling": lambda recipe: "Yes" if recipe.data.sampling == "balanced" else "No",
    "warm-up": _warm_up,
    "spectrogram": lambda recipe: f"{recipe.frontend.n_mels}x{recipe.frontend.frames}",
    "SpecAug": lambda recipe: f"{recipe.augment.freq_mask} / {recipe.augment.time_mask}",
    "mixup": lambda recipe: f"{recipe.augment.mixup:g}",
    "epochs": lambda recipe: f"{recipe.train.epochs}",
    "decay": _decay,
    "mean": lambda recipe: f"{recipe.frontend.mean:.3f}",
    "std": lambda recipe: f"{recipe.frontend.std:.3f}",
    "rate": _rate,
}


def page_name(name: str) -> str:
    """The page that a name means, such as table1 for "Table-1"; "" where it is none."""
    plain = name.lower().translate(str.maketrans("", "", " -_."))
    plain = {"fig2": "figure2"}.get(plain, plain)
    return plain if plain in paper.TITLES else ""


def published(name: str) -> dict[str, Any]:
    """A page as plain values.

    Args:
        name: one of PAGES.

    Returns:
        `title`; `cells` or `settings`, with what the paper has beside; `needs`, weights that must be there before;
        `commands`, (what, command) each.
    """
    page: dict[str, Any] = {"name": name, "title": paper.TITLES[name], "paper": SOURCE}
    if name == "figure2":
        return page | {"says": list(paper.FIGURE_2), "commands": [("The figure, on a GPU", FIGURE_2)]}
    if name == "table5":
        return page | {
            "settings": _table_5(),
            "commands": [
                *_prepare(paper.CORPORA),
                *(command for corpus in paper.CORPORA for command in _by_hand(corpus, ())),
            ],
        }
    number = int(name.removeprefix("table"))
    cells = paper.cells_of(number)
    last = cells[-1]
    inits = paper.INITS.get(number, {})
    needs = {
        load_recipe(cell.recipe).train.pretrained: inits.get(paper.architecture_of(number, cell.row)) for cell in cells
    }
    return page | {
        "cells": [
            {
                "row": cell.row,
                "corpus": cell.corpus,
                "recipe": cell.recipe,
                "settings": list(cell.overrides),
                "metric": cell.published.metric,
                "published": {"mean": cell.published.mean, "std": cell.published.std},
            }
            for cell in cells
        ],
        "needs": [f"{what}, as {file}" for what, file in needs.items() if what],
        "commands": [
            *_prepare(paper.corpora_of(number)),
            *_ablations(number),
            *_by_hand(last.recipe, last.overrides, inits.get(paper.architecture_of(number, last.row))),
        ],
    }


def published_lines(page: dict[str, Any]) -> list[str]:
    """A page for people; commands stand unbroken, each in a line of its own."""
    kind, number = page["name"][:-1].capitalize(), page["name"][-1]
    lines = [f"{kind} {number}: {page['title']} ({page['paper']})", ""]
    if "cells" in page:
        lines += [
            *_cell_lines(page["cells"]),
            "",
            "The paper's figures are means and standard deviations over three runs, in percent.",
        ]
    if "settings" in page:
        lines += _setting_lines(page["settings"])
    lines += [f"The paper says: {text}." for text in page.get("says", ())]
    lines += [f"Needed before: {text}." for text in page.get("needs", ())]
    for what in dict.fromkeys(what for what, _ in page["commands"]):
        lines += ["", f"{what}:", *(f"  {command}" for each, command in page["commands"] if each == what)]
    return lines


def _cell_lines(cells: list[dict[str, Any]]) -> list[str]:
    rows = [("row", "recipe", *(("class token",) if cells[0]["settings"] else ()), "metric", "paper")]
    for cell in cells:
        position = [text.partition("=")[2] for text in cell["settings"][1:]]
        figures = " ± ".join(f"{100 * cell['published'][key]:.2f}" for key in ("mean", "std"))
        rows.append((cell["row"], cell["recipe"], *position, cell["metric"], figures))
    return text_columns(rows)


def _table_5() -> dict[str, dict[str, dict[str, str]]]:
    """Setting -> corpus -> the recipe's value and, where it is another, the paper's."""
    recipes = {corpus: load_recipe(corpus) for corpus in paper.CORPORA}
    table: dict[str, dict[str, dict[str, str]]] = {}
    for setting, theirs in paper.TABLE_5.items():
        ours = {corpus: SETTINGS[setting](recipe) for corpus, recipe in recipes.items()}
        table[setting] = {
            corpus: {"recipe": ours[corpus]} | ({"paper": said} if said and said != ours[corpus] else {})
            for corpus, said in zip(paper.CORPORA, theirs, strict=True)
        }
    return table


def _setting_lines(table: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    lines = []
    for start in range(0, len(paper.CORPORA), AT_ONCE):
        corpora = paper.CORPORA[start : start + AT_ONCE]
        rows = [("recipe", *corpora)]
        rows += [
            (setting, *(cells[corpus]["recipe"] + "*" * ("paper" in cells[corpus]) for corpus in corpora))
            for setting, cells in table.items()
        ]
        lines += [*text_columns(rows), ""]
    other = [
        f"{corpus} {setting} {cell['paper']}"
        for setting, cells in table.items()
        for corpus, cell in cells.items()
        if "paper" in cell
    ]
    one = load_recipe(paper.CORPORA[0])  # of what all share
    shared = (
        f"All: {one.train.optimizer}, weight decay {one.train.weight_decay:g}, betas {one.train.betas}, patches of "
        f"{one.model.patch_mels} x {one.model.patch_frames}"
    )
    return [
        *lines,
        shared,
        "",
        "* differs from the paper's Table 5, after the authors' scripts; docs/paper.md says why. Table 5 has:",
        *(f"  {text}" for text in other),
    ]


def _prepare(corpora: tuple[str, ...]) -> list[tuple[str, str]]:
    """The calls that prepare what is trained on."""
    sources = {corpus: SOURCES.get(corpus, corpus) for corpus in corpora}
    return [
        (
            "The corpora (without --source, each says what to get and from whom)",
            f"aum prepare {corpus}" + (f" --source corpora/{folder}" if folder else ""),
        )
        for corpus, folder in sources.items()
    ]


def _ablations(number: int) -> list[tuple[str, str]]:
    """The calls that make a table, its rows and, of Table 2, its grids."""
    inits = paper.INITS.get(number, {})

    def call(*choice: str, architectures: tuple[str, ...] = ("aum", "ast")) -> str:
        given = [word for name in architectures if name in inits for word in ("--init", f"{name}={inits[name]}")]
        return shlex.join(["aum", "ablate", "--table", str(number), *choice, *given, "--device", "cuda"])

    rows = [
        ("One row", call("--rows", row, architectures=(paper.architecture_of(number, row),)))
        for row in paper.rows_of(number)
    ]
    grids = [("One grid", call("--corpora", corpus)) for corpus in paper.TABLE_2] if number == paper.GRID else []
    return [("The whole table, three seeds, the paper's figures beside ours", call()), *rows, *grids]


def _by_hand(recipe: str, settings: tuple[str, ...], init: str | None = None) -> list[tuple[str, str]]:
    """The calls that train one cell, said first."""
    changes = [word for setting in settings for word in ("--set", setting)] + (["--init", init] if init else [])
    train = shlex.join(["aum", "train", "--recipe", recipe, *changes])
    out = f"runs/{recipe}"
    return [
        ("One cell by hand", command)
        for command in (f"{train} --dry-run", f"{train} --seed 0 --out {out}", f"aum eval {out}")
    ]

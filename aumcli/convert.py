"""aum convert: a published checkpoint becomes a model directory that every other command takes.

A model becomes one file, or goes to the hub and comes back.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from aumcli.checkpoints import (
    CONFIG,
    Imported,
    UnknownFrontend,
    import_checkpoint,
    read_model,
    save_model,
    transformers_ast,
)
from aumcli.checkpoints.export import SUFFIXES, export_model
from aumcli.checkpoints.hub import copy_model, hub_name, push
from aumcli.checkpoints.lookup import checkpoint_path, find_model
from aumcli.classifier import load_model
from aumcli.core import n_parameters
from aumcli.data.labels import Label, read_labels
from aumcli.errors import AumError
from aumcli.recipe import Recipe, load_recipe, recipe_families
from aumcli.utils.csv import listed
from aumcli.utils.files import check_folder
from aumcli.utils.text import counted

ACTIVATIONS = {"bce": "sigmoid", "cross_entropy": "softmax"}  # of a loss
NOT_ALPHABETICAL = ("vggsound", "speechcommands")  # as published; `aum prepare` sorts where it has no table
TABLES = "https://github.com/kaistmm/Audio-Mamba-AuM, exps/CORPUS/data/*class_labels_indices.csv"


def convert(
    source: Path | str,
    out: Path | str,
    cls_position: str = "mid",
    labels: Path | str | None = None,
    new_head: bool = False,
    frames: int | None = None,
    heads: int | None = None,
    activation: str | None = None,
    to: str = "model",
    recipe: Path | str | None = None,
) -> list[tuple[str, str]]:
    """Import a checkpoint into the model directory `out`.

    Args:
        source: see `aumcli.checkpoints.published.KNOWN`; or a model, to be written as a file or to the hub.
        out: a directory without a model; FILE.onnx, FILE.pt2 or hf://owner/name for a model as it is.
        cls_position, new_head, frames, heads, activation: see `aumcli.checkpoints.import_checkpoint`.
        labels: a table of classes (see `aumcli.utils.csv.read_labels`), in the order of the checkpoint's head.
        to: "model", or "transformers" for a directory that transformers reads.
        recipe: what a published checkpoint was trained by, a name or a .toml file: says frontend, activation and views.

    Returns:
        What was found and done, as (name, value) rows.

    Raises:
        AumError: the checkpoint is not one that is known, or damaged; neither it nor a recipe says what it was trained
            with, or both do, or they contradict each other; or `out` already holds a model.
    """
    options = {
        "--to": None if to == "model" else to,
        "--cls-position": None if cls_position == "mid" else cls_position,
        "--labels": labels,
        "--new-head": new_head,
        "--frames": frames,
        "--heads": heads,
        "--activation": activation,
        "--recipe": recipe,
    }
    plain = not any(options.values())
    target = hub_name(out)
    if target or Path(out).suffix.lower() in SUFFIXES:
        if not plain:
            raise AumError(
                f"{out} is written of a model as it is; the options are for model directories",
                fix="convert into a directory with them first, and that directory then without",
            )
        return push(find_model(source), *target) if target else export_model(load_model(source), out)
    _check_directory(out)
    stated = None if recipe is None else _load_stated(recipe)
    path = checkpoint_path(source)
    if plain and hub_name(source) is not None:
        _, config = read_model(path)  # refuses what is damaged before anything is written
        copy_model(path, out)
        return [("model", config.model.describe()), ("classes", str(len(config.labels))), ("written to", str(out))]
    table = None if labels is None else read_labels(labels)
    with_recipe = partial(_with_recipe, source, out, options)
    try:
        imported = import_checkpoint(
            path,
            cls_position=cls_position,
            labels=None if table is None else [label.name for label in table],
            new_head=new_head,
            frames=frames,
            heads=heads,
            frontend=None if stated is None else stated.frontend,
            activation=activation if stated is None else activation or _activation(stated, str(recipe)),
            views=None if stated is None else stated.data.views,
        )
    except UnknownFrontend as error:
        raise AumError(error.problem, fix=with_recipe(error.n_classes)) from error
    if stated is not None:
        if imported.config.provenance["head"] != "new":
            n_classes = imported.config.model.n_classes
            if stated.model.n_classes != n_classes:
                raise AumError(
                    f"{source} has {counted(n_classes, 'class')}, the recipe {recipe} has {stated.model.n_classes}: "
                    "it was not trained by that one",
                    fix=with_recipe(n_classes),
                )
            _check_order(table or [], labels, stated)
        imported = _trained_by(imported, stated, str(recipe), "" if activation else "scores, ")
    weights = imported.network.state_dict()
    if to == "transformers":
        notes = transformers_ast.write(out, weights, imported.config)
        imported = replace(imported, notes=[*imported.notes, *notes])
    else:
        save_model(out, weights, imported.config)
    return _rows(imported, out)


def _trained_by(imported: Imported, stated: Recipe, recipe: str, scores: str) -> Imported:
    """What was imported, with the recipe that it was trained by in its provenance and notes."""
    config = imported.config
    provenance = config.provenance | {"recipe": recipe, "test": stated.data.test}
    note = f"frontend, {scores}evaluation views: the recipe {recipe}'s"
    return replace(imported, config=config.model_copy(update={"provenance": provenance}), notes=[*imported.notes, note])


def _rows(imported: Imported, out: Path | str) -> list[tuple[str, str]]:
    """What was imported and written, for people."""
    config, frontend = imported.config, imported.config.frontend
    unnamed = ", without names: give them with --labels" if config.labels[0] == "class 0" else ""
    return [
        ("model", config.model.describe()),
        ("parameters", f"{n_parameters(imported.network):,}"),
        ("input", f"{config.model.n_mels} mels x {config.model.frames} frames"),
        ("frontend", f"{frontend.kind}, {frontend.sample_rate_hz} Hz, mean {frontend.mean}, std {frontend.std}"),
        ("scores", config.activation),
        ("evaluation views", config.views),
        ("classes", f"{len(config.labels)}{unnamed}"),
        *(("", note) for note in imported.notes),
        ("written to", str(out)),
    ]


def _load_stated(name: Path | str) -> Recipe:
    """A recipe that states what a checkpoint was trained with."""
    recipe = load_recipe(name)
    if recipe.data.infer:
        raise AumError(
            f"the recipe {name} doesn't say what a checkpoint was trained with: it measures "
            f"{listed(recipe.data.infer)} on the data",
            fix="name a recipe that states all of [frontend]: vggsound and its like, or a run's recipe.toml",
        )
    return recipe


def _activation(recipe: Recipe, name: Path | str) -> str:
    if recipe.train.loss not in ACTIVATIONS:
        raise AumError(
            f"the recipe {name} doesn't say how scores come about: its train.loss is {recipe.train.loss}",
            fix="--activation sigmoid for a model trained with bce, --activation softmax with cross_entropy",
        )
    return ACTIVATIONS[recipe.train.loss]


def _check_order(table: Sequence[Label], path: Path | str | None, recipe: Recipe) -> None:
    """Refuse a table that `aum prepare` sorted: a published head has the order of the authors' table."""
    names = [label.name for label in table]
    own = recipe.data.corpus in NOT_ALPHABETICAL and all(label.id == label.name for label in table)
    if own and len(names) > 1 and names == sorted(names):
        raise AumError(
            f"{path} lists the classes by name, as aum prepare does where it has no other table; published "
            f"checkpoints of {recipe.data.corpus} have them in another order",
            fix=f"--labels class_labels_indices.csv of the authors ({TABLES}); a table of your own, by "
            "which the model was trained, needs ids beside the names",
        )


def _with_recipe(source: Path | str, out: Path | str, options: Mapping[str, object], n_classes: int) -> str:
    """The call once more, with the recipe of that many classes."""
    given = [
        word
        for option, value in options.items()
        if value and option != "--recipe"
        for word in ([option] if value is True else [option, value])
    ]
    recipes = {name: load_recipe(name) for name in recipe_families()}
    names = [name for name, each in recipes.items() if each.model.n_classes == n_classes and not each.data.infer]
    recipe, *others = names or ["mine.toml"]
    line = shlex.join(map(str, ["aum", "convert", source, out, *given, "--recipe", recipe]))
    if not names:
        return (
            f"{line}\n  where mine.toml states what it was trained with: frontend.mean, frontend.std, train.loss, "
            f"model.n_classes = {n_classes}"
        )
    return line + (f"\n  or with {' or '.join(others)}" if others else "")


def _check_directory(out: Path | str) -> None:
    """Refuse a directory that holds a model, and a name like a file's, unless it ends in a slash or is a directory."""
    suffix = Path(out).suffix
    if suffix[1:2].isalpha() and not str(out).endswith(("/", "\\")) and not os.path.isdir(out):
        raise AumError(
            f"a model can't be written as {suffix}",
            fix=f"name a file in {' or '.join(SUFFIXES)}, or a directory: {out}/",
        )
    if suffix == "":
        check_folder(out)
    if (Path(out) / CONFIG).exists():
        raise AumError(f"{out} already holds a model", fix="name another folder, or remove this one first")

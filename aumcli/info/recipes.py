"""aum info: what is installed, which kernels can run and why the others can't; recipes."""

from pathlib import Path
from typing import Any

from aumcli.checkpoints import read_config, read_model
from aumcli.checkpoints.lookup import default_model, find_model, packaged_models
from aumcli.config import ModelConfig
from aumcli.core import n_parameters
from aumcli.core.kernels import available_backends, choose_backend, cpu
from aumcli.errors import AumError, did_you_mean
from aumcli.info.published import PAGES
from aumcli.recipe import MEASURED, Recipe, load_recipe, recipe_families, recipe_names
from aumcli.report.environment import environment
from aumcli.utils.csv import listed
from aumcli.utils.text import counted

SHOWN_LABELS = 10
MOST_CHANGES = 8  # a recipe that differs in more is one of its own
# decided by the data and the call, not by the recipe's author
OF_THE_RUN = {
    "data.infer",
    "model.n_classes",
    "model.frames",
    "model.n_mels",
    "train.init",
    "train.pretrained",
    "train.loss",
    "train.gradient_accumulation_steps",
}


def installed() -> list[tuple[str, str]]:
    """What is installed and what would be used, as (name, value) rows."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = [(key, str(value)) for key, value in environment().items()]
    rows.append(("GPU", torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"))
    for name, reason in available_backends(device.type).items():
        rows.append((f"backend {name}", reason or "can run" + (_about_cpu() if name == "cpu" else "")))
    rows.append(("backend auto", f"{choose_backend('auto', device, torch.float32)} on {device.type}"))
    rows.append(("packaged models", ", ".join(packaged_models()) or "none"))
    try:
        rows.append(("default model", "{} ({})".format(*default_model())))
    except AumError as error:
        rows.append(("default model", error.problem))
    return rows


def _about_cpu() -> str:
    threads = "" if cpu.has_threads() else "; on one thread, since the compiler had no OpenMP"
    return f", with {cpu.instruction_set()}{threads}"


def recipes() -> dict[str, list[dict[str, str | int]]]:
    """The shipped recipes: by corpus those of the paper, the others under "for a CPU"."""
    groups: dict[str, list[dict[str, str | int]]] = {}
    for base, variants in recipe_families().items():
        group = base if load_recipe(base).paper else "for a CPU"
        groups.setdefault(group, []).extend(map(_summary, (base, *variants)))
    return dict(sorted(groups.items()))


def recipe_lines() -> list[str]:
    """The shipped recipes for people, at most 80 columns wide."""
    lines = []
    for group, rows in recipes().items():
        is_corpus = rows[0]["name"] == group
        length = f": {counted(int(rows[0]['epochs']), 'epoch')}, batch {rows[0]['batch_size']}"
        lines.append(group + (length if is_corpus else ""))
        lines += [f"  {row['name']:<33}  {row['model']:<15}  {row['paper'] or row['training']}" for row in rows]
    return [*lines, "", "aum info NAME: all keys of one; aum train --recipe NAME --dry-run: what it needs"]


def _summary(name: str) -> dict[str, str | int]:
    """What distinguishes a recipe from others."""
    recipe = load_recipe(name)
    model, train = recipe.model, recipe.train
    sizes = " ".join(filter(None, (model.size, model.architecture, getattr(model, "direction", None))))
    return {
        "name": name,
        "corpus": recipe.data.corpus or "any",
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "model": "that of --init" if "model" in recipe.data.infer else sizes,
        "training": f"{train.optimizer}, {train.schedule}, {train.dtype}",
        "paper": recipe.paper,
        "needs": train.pretrained,
    }


def about(name: str) -> Recipe | ModelConfig:
    """A recipe, or a model directory's configuration."""
    if name in recipe_names() or name.endswith(".toml"):
        return load_recipe(name)
    try:
        folder = find_model(name)
    except AumError as error:
        if Path(name).is_dir():  # a run or a folder in which something is missing: that is what to say
            raise
        raise AumError(
            f"{name} is neither a recipe nor a model",
            fix=f"{_near(name)}`aum info recipes` lists the recipes; packaged models: "
            f"{', '.join(packaged_models()) or 'none'}; the paper: {', '.join(PAGES)}",
        ) from error
    return read_config(folder)


def _near(name: str) -> str:
    """Ask for what is called nearly so: a recipe, a page, a packaged model, a run."""
    runs = sorted(path for path in Path("runs").glob("*") if path.is_dir())
    if same := [path for path in runs if path.name == name]:
        return f"did you mean {same[0].as_posix()}? "
    known = [*recipe_names(), *PAGES, "recipes", *packaged_models(), *(path.as_posix() for path in runs)]
    return did_you_mean(name, known)


def nearest_recipe(recipe: Recipe) -> tuple[str, list[str]] | None:
    """The shipped recipe that a run's comes from, as far as one can tell, and what differs, "section.key = value" each.

    What is measured on the data, the classes, the seed and the start are no differences. None where nothing is near.
    """
    own = _flat(recipe)
    found = []
    for name in recipe_names():
        shipped = load_recipe(name)
        measured = {f"frontend.{key}" for what in shipped.data.infer for key in MEASURED.get(what, ())}
        if "model" in shipped.data.infer:
            measured |= {key for key in own if key.startswith(("model.", "frontend."))}
        other = _flat(shipped)
        keys = [key for key in {**other, **own} if key not in measured | OF_THE_RUN and own.get(key) != other.get(key)]
        found.append((len(keys), name, [f"{key} = {own[key]}" for key in keys if key in own]))
    count, name, changes = min(found)
    return (name, changes) if count <= MOST_CHANGES else None


def _flat(recipe: Recipe) -> dict[str, Any]:
    """Its values by section.key."""
    return {
        f"{section}.{key}": value
        for section, values in recipe.model_dump(mode="json").items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def namesake(name: str) -> dict[str, dict[str, Any]]:
    """Of a recipe the packaged model of the same name, {"packaged_model": its essentials}; {} where there is none."""
    if name not in recipe_names() or name not in packaged_models():
        return {}
    folder = find_model(name)
    network, config = read_model(folder)
    return {
        "packaged_model": {
            "folder": str(folder),
            "model": config.model.describe(),
            "parameters": n_parameters(network),
            "sample_rate_hz": config.frontend.sample_rate_hz,
            "clip_s": config.frontend.clip_s,
            "labels": list(config.labels),
        }
    }


def namesake_lines(model: dict[str, Any]) -> str:
    """The essentials for people, as comments that may stand in a recipe."""
    return "\n".join(
        (
            f"# A packaged model has this name too: {model['model']}",
            f"# {model['parameters']:,} parameters, {model['sample_rate_hz']} Hz",
            f"# {counted(len(model['labels']), 'label')}: {listed(model['labels'], SHOWN_LABELS)}",
            f"# More about it: aum info {model['folder']}",
        )
    )

"""aum info: what is installed, which kernels can run and why the others can't, recipes and model directories."""

from aumcli.classifier import default_model, find_model, packaged_models
from aumcli.core.kernels import available_backends, choose_backend, cpu
from aumcli.errors import AumError
from aumcli.recipe import dump_recipe, load_recipe, recipe_names
from aumcli.report import environment
from aumcli.weights import read_config


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


def recipes() -> list[tuple[str, str, str, str]]:
    """The shipped recipes: (name, corpus, model, training)."""
    rows = []
    for name in recipe_names():
        recipe = load_recipe(name)
        rows.append((name, recipe.data.corpus or "any", recipe.model.describe(),
                     f"{recipe.train.epochs} epochs, batch {recipe.train.batch_size}, {recipe.train.optimizer} {recipe.train.lr:g}"))
    return rows


def about(name: str) -> str:
    """A recipe with every key, as TOML, or a model directory's configuration, as JSON."""
    if name in recipe_names() or name.endswith(".toml"):
        return dump_recipe(load_recipe(name))
    try:
        folder = find_model(name)
    except AumError as error:
        raise AumError(f"{name} is neither a recipe nor a model",
                       fix=f"`aum info recipes` lists the recipes; packaged models: {', '.join(packaged_models()) or 'none'}") from error
    return read_config(folder).model_dump_json(indent=2)

"""Models by name: a run, a model directory, a packaged model, one on the Hugging Face hub, or the default."""

import os
from importlib import resources
from pathlib import Path

from aumcli.checkpoints.directory import CONFIG
from aumcli.checkpoints.hub import hub_name, pull
from aumcli.errors import AumError


def find_model(model: Path | str) -> Path:
    """Folder of a run's best weights, of a model directory, of a packaged model or of a model on the hub, fetched."""
    folder = Path(model)
    for candidate in (folder / "best", folder):
        if (candidate / CONFIG).is_file():
            return candidate
    packaged = _packaged() / str(model)
    if str(model) in packaged_models():
        return packaged
    if named := hub_name(model):
        return pull(*named)
    if folder.is_dir():
        raise AumError(
            f"{model} is no run and no model directory: it has neither best/{CONFIG} nor {CONFIG}",
            fix="name a run (runs/NAME) or a model directory; a run without best/ has not finished an epoch",
        )
    raise AumError(
        f"there is no model {model}",
        fix=f"name a run (runs/NAME), a model directory, or a packaged model: {', '.join(packaged_models()) or 'none'}",
    )


def checkpoint_path(source: Path | str) -> Path | str:
    """Where a checkpoint lies: a packaged model's or a hub model's folder, else the path itself."""
    named = hub_name(source) is not None or not Path(source).exists() and str(source) in packaged_models()
    return find_model(source) if named else source


def packaged_models() -> list[str]:
    """Names of the models that come with aumcli."""
    root = _packaged()
    return sorted(path.name for path in root.iterdir() if (path / CONFIG).is_file()) if root.is_dir() else []


def _packaged() -> Path:
    return Path(str(resources.files("aumcli"))) / "models"


def default_model() -> tuple[Path, str]:
    """The model that is used where none was named, and why: AUM_MODEL, else the newest run, else the packaged one.

    Raises:
        AumError: there is none of them.
    """
    if os.environ.get("AUM_MODEL"):
        return Path(os.environ["AUM_MODEL"]), "from the environment variable AUM_MODEL"
    runs = [path.parent.parent for path in Path("runs").glob(f"*/best/{CONFIG}")]
    if runs:
        return max(runs, key=lambda run: (run / "best" / CONFIG).stat().st_mtime), "the newest run"
    if packaged_models():
        return Path(packaged_models()[0]), "the packaged model"
    raise AumError("there is no model to use", fix="train one (aum train), or name one with --model")

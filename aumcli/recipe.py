"""Recipes: a TOML file that states only what differs from the defaults -> one checked, frozen `Recipe`.

A file that lists `variants` stands for as many recipes more: vggsound-ast is vggsound with parts/ast.toml on top.
"""

import os
import tomllib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from aumcli.config import (
    ARCHITECTURES,
    AudioMambaConfig,
    AugmentConfig,
    DataConfig,
    FrontendConfig,
    Frozen,
    Network,
    TrainConfig,
)
from aumcli.errors import AumError, did_you_mean
from aumcli.utils.text import counted, quotable

SHARED = ("n_mels", "frames")  # the spectrogram's size: the frontend says it, the model follows
VARIANTS = "variants"  # a recipe's key
# what data.infer can name -> the frontend's keys that are measured then
MEASURED = {
    "sample_rate": ("sample_rate_hz",),
    "low_hz": ("low_hz",),
    "high_hz": ("high_hz",),
    "window": ("window_ms", "hop_ms", "fft_size"),
    "clip_length": ("frames",),
    "normalisation": ("mean", "std"),
}


class Recipe(Frozen):
    """Everything that decides what training computes, except the data itself."""

    seed: int = Field(0, ge=0, description="decides every random draw")
    paper: str = Field("", description="the row of the paper's tables that this is")
    data: DataConfig = DataConfig()
    frontend: FrontendConfig = FrontendConfig()
    model: Network = AudioMambaConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="before")
    @classmethod
    def _share_sizes(cls, values: Any) -> Any:
        """The spectrogram's size is said once, in the frontend; the model's follows."""
        frontend = values.get("frontend", {})
        frontend = frontend.model_dump() if isinstance(frontend, BaseModel) else frontend
        model = values.get("model", {})
        if isinstance(frontend, dict) and isinstance(model, dict):
            sizes = {key: frontend.get(key, FrontendConfig.model_fields[key].default) for key in SHARED}
            values = {**values, "model": {**sizes, **model}}
        return values

    @model_validator(mode="after")
    def _check_sizes(self) -> "Recipe":
        for key in SHARED:
            if getattr(self.model, key) != getattr(self.frontend, key):
                raise ValueError(
                    f"model.{key} {getattr(self.model, key)} differs from frontend.{key} "
                    f"{getattr(self.frontend, key)}; say it in the frontend only, the model follows"
                )
        return self

    def with_epochs(self, epochs: int) -> "Recipe":
        """Copy with another number of epochs, a quarter of which, at most, is warm-up."""
        warmup_epochs = min(self.train.warmup_epochs, epochs / 4)
        return self.with_values(train={"epochs": epochs, "warmup_epochs": warmup_epochs})

    def with_values(self, **sections: dict[str, Any]) -> "Recipe":
        """Copy with some values of some sections replaced and everything checked again."""
        values = self.model_dump()
        values["model"] = {key: value for key, value in values["model"].items() if key not in SHARED}
        values["augment"] = self.augment.model_dump(exclude_unset=True)  # a policy may yet set the others
        if sections.get("model", {}).get("architecture", self.model.architecture) != self.model.architecture:
            values["model"] = {}  # which has other keys
        for section, changes in sections.items():
            values[section] |= changes
        return _validated(values, "the fitted recipe")


@cache
def recipe_families() -> dict[str, list[str]]:
    """The recipes that come with aumcli: each file's name, and the names of its variants."""
    files = sorted(path.name.removesuffix(".toml") for path in _shipped().iterdir() if path.name.endswith(".toml"))
    return {name: [f"{name}-{variant}" for variant in _read(name, seen=()).get(VARIANTS, [])] for name in files}


def recipe_names() -> list[str]:
    """Names of the recipes that come with aumcli."""
    return sorted(name for base, variants in recipe_families().items() for name in (base, *variants))


def load_recipe(name: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and apply overrides.

    Args:
        name: a shipped recipe's name, or the path of a .toml file.
        overrides: "section.key=value" strings, the value as in TOML (bare words are taken as strings).

    Raises:
        AumError: no such recipe, or a list of all unknown keys and wrong values.
    """
    values = _read(str(name), seen=())
    values.pop(VARIANTS, None)
    chosen: dict[str, Any] = {}
    for override in overrides or []:
        _merge(chosen, _parse_override(override))
    return _validated(_laid_over(values, chosen), f"recipe {name}")


def dump_recipe(recipe: Recipe) -> str:
    """Write a recipe as TOML, every value spelt out."""
    import tomli_w

    values = recipe.model_dump(mode="json", exclude_none=True)
    values["model"] = {key: value for key, value in values["model"].items() if key not in SHARED}
    return quotable(tomli_w.dumps(values))


def _shipped() -> Traversable:
    installed = resources.files("aumcli") / "recipes"
    # in a checkout they lie beside the package; the wheel has them inside
    return installed if installed.is_dir() else Path(str(installed)).parents[1] / "recipes"


def _variant(name: str) -> tuple[str, str] | None:
    """The base and the part that a name is composed of; None where it isn't: files come first."""
    if name.endswith(".toml") or _shipped().joinpath(f"{name}.toml").is_file():
        return None
    splits = ((name[:i], name[i + 1 :]) for i, letter in enumerate(name) if letter == "-")
    return next(
        (
            (base, f"parts/{part}")
            for base, part in splits
            if _shipped().joinpath(f"{base}.toml").is_file() and part in _read(base, seen=()).get(VARIANTS, [])
        ),
        None,
    )


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Read one TOML file and what it extends, or a variant of one, as one nested dictionary."""
    if variant := _variant(name):
        base, part = variant
        return _laid_over(_read(base, (*seen, name)), _read(part, (*seen, name)))
    is_file = name.endswith(".toml")
    name = os.path.normpath(name) if is_file else name  # one name for a file, or a circle of folders would never close
    if name in seen:
        raise AumError(f"recipe {name} extends itself: {' -> '.join((*seen, name))}", fix="break the circle")
    source = Path(name) if is_file else _shipped().joinpath(f"{name}.toml")
    if not source.is_file():
        near = did_you_mean(Path(name).stem if is_file else name, recipe_names())
        raise AumError(
            f"there is no recipe {name}", fix=f"{near}`aum info recipes` lists them; or name a .toml file that is there"
        )
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8-sig"))  # -sig: editors on Windows add a mark
    except UnicodeDecodeError as error:
        raise AumError(
            f"recipe {name} is not valid TOML: it is not in UTF-8 ({error})", fix="save it as UTF-8"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise AumError(f"recipe {name} is not valid TOML: {error}", fix="mend that line") from error
    except OSError as error:
        raise AumError(f"can't read recipe {name}: {error.strerror or error}", fix="check its permissions") from error
    base = values.pop("extends", None)
    if base is None:
        return _laid_over({}, values)
    if is_file and str(base).endswith(".toml"):
        base = str(Path(name).parent / base)
    return _laid_over(_read(str(base), (*seen, name)), values)


def _laid_over(below: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """Merge a file, or the overrides, over what lies below.

    A frontend value that it sets is no longer measured, and epochs that it sets no longer limited by train.max_steps.

    A dump spells out every value, those to be measured too: where one layer says both, another value than the default
    is a choice.
    """
    said = {name: section for name, section in layer.items() if isinstance(section, dict)}
    own, measures = said.get("frontend", {}), "infer" in said.get("data", {})
    if "epochs" in said.get("train", {}) and "max_steps" not in said["train"]:
        below.get("train", {}).pop("max_steps", None)  # the number that is asked for, whatever limit lay below
    _merge(below, layer)
    fit = below["data"].get("infer") if isinstance(below.get("data"), dict) else None
    if not isinstance(fit, (list, tuple)) or not isinstance(below.get("frontend", {}), dict):
        return below
    left = []
    for item in fit:
        keys = MEASURED.get(item, ()) if isinstance(item, str) else ()
        chosen = [key for key in keys if key in own and not (measures and own[key] == _default(key))]
        if item == "normalisation" and 0 < len(chosen) < len(keys):  # one says nothing without the other
            other = next(key for key in keys if key not in chosen)
            raise AumError(
                f"frontend.{chosen[0]} is set, while frontend.{other} is to be measured on the data",
                fix=f"set both, such as --set frontend.{other}={_default(other)}, or neither",
            )
        if chosen:
            continue
        left.append(item)
        for key in keys:  # a value from below will be measured: no dump may look as if it were chosen
            if measures and key not in own:
                below.get("frontend", {}).pop(key, None)
    below["data"]["infer"] = left
    return below


def _default(key: str) -> Any:
    return FrontendConfig.model_fields[key].default


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise AumError(f"--set {text} is not key=value", fix="write for example --set train.epochs=5")
    try:
        parsed: Any = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *sections, name = key.strip().split(".")
    values = {name: parsed}
    for section in reversed(sections):
        values = {section: values}
    return values


def _validated(values: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        items = error.errors()
        wrong = {item["loc"] for item in items}
        # a wrong size is the frontend's mistake; the model only repeats it
        lines = [
            _explain(item)
            for item in items
            if item["loc"][:1] != ("model",) or ("frontend", *item["loc"][2:]) not in wrong
        ]
        raise AumError(
            f"{where} has {counted(len(lines), 'mistake')}:\n  " + "\n  ".join(lines),
            fix="mend the recipe or the --set value; `aum info NAME` shows a recipe with all its keys",
        ) from error


def _explain(item: Any) -> str:
    """One line about one of pydantic's errors: the key, what is wrong, and a guess at what was meant."""
    key = ".".join(str(part) for part in item["loc"] if part not in ARCHITECTURES)
    if item["type"] == "union_tag_invalid":
        return f"{key}.architecture: should be one of {', '.join(ARCHITECTURES)}, not {item['input']['architecture']!r}"
    if item["type"] == "extra_forbidden":
        fields = _fields_at(item["loc"][:-1])
        near = did_you_mean(str(item["loc"][-1]), fields)
        return f"{key}: unknown key" + (f", {near}".rstrip() if near else f"; known: {', '.join(fields)}")
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message[:1].lower()}{message[1:]}, not {item['input']!r}"


def _fields_at(location: tuple[Any, ...]) -> list[str]:
    model: Any = Recipe
    for part in location:
        model = ARCHITECTURES.get(part) or model.model_fields[part].annotation
    return list(model.model_fields)

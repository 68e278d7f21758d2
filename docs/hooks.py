"""What `mkdocs build` adds to docs/: reference pages from the code, and the Markdown files of the repository's top.

A page asks for a generated part by a line `<!-- generated: NAME -->`, NAME being a key of GENERATED.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path, PurePosixPath
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from aumcli.cli import app
from aumcli.config import (
    AudioMambaConfig,
    AugmentConfig,
    DataConfig,
    FrontendConfig,
    ModelConfig,
    PredictConfig,
    SpectrogramTransformerConfig,
    TrainConfig,
)
from aumcli.recipe import SHARED, Recipe, load_recipe, recipe_families

ROOT = Path(__file__).parents[1]
PAGES = {  # page of the site -> file of the repository
    "development/architecture.md": "ARCHITECTURE.md",
    "development/contributing.md": "CONTRIBUTING.md",
    "development/changelog.md": "CHANGELOG.md",
    "reference/digits.md": "aumcli/models/digits/README.md",
}
MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.M)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
SECTIONS = {
    "data": DataConfig,
    "frontend": FrontendConfig,
    "model": AudioMambaConfig,
    "augment": AugmentConfig,
    "train": TrainConfig,
}
NUMBERS = {int: "integer", float: "number", bool: "true, false", str: "text"}
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def on_files(files, config):
    """Add the repository's own pages."""
    from mkdocs.structure.files import File  # here, for the tests do without mkdocs

    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=relinked(text, source, page)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put in what a page's markers ask for."""
    return MARKER.sub(lambda match: GENERATED[match[1]](), markdown)


def relinked(text: str, source: str, page: str) -> str:
    """A file of the repository with links that hold on its page of the site; others become plain text.

    Args:
        text: Markdown.
        source: where it lies in the repository.
        page: where it lies in the site.
    """
    pages = {file: name for name, file in PAGES.items()}

    def link(match: re.Match[str]) -> str:
        picture, words, target, anchor = match.groups()
        if "://" in target:
            return match[0]
        path = (PurePosixPath(source).parent / target).as_posix()
        path = pages.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if not path:
            return words
        return f"{picture}[{words}]({'../' * page.count('/')}{path}{anchor or ''})"

    return LINK.sub(link, text)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in [titles, ["---"] * len(titles), *rows])


def _cell(text: str) -> str:
    """Text that neither ends its cell nor is taken for HTML."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|").replace("\n", " "))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


def code(text: object) -> str:
    """Text as code; nothing for no text."""
    return f"`{text}`" if str(text) else ""


# the command line


def cli_page() -> str:
    """Every command with its arguments and options, as `aum COMMAND --help` shows them."""
    group = typer.main.get_command(app)
    callbacks = {each.name or each.callback.__name__: each.callback for each in app.registered_commands}
    parts = [_options(group, {})]
    for name, command in group.commands.items():
        types = {key: _bare(kind) for key, kind in get_type_hints(callbacks[name]).items()}
        usage = f"```text\n{_usage(name, command)}\n```"
        parts += [f"## aum {name}", command.help or "", usage, _options(command, types)]
    return "\n\n".join(parts)


def _bare(annotation: Any) -> Any:
    """The type of one value: without None and the list around it."""
    kinds = [each for each in get_args(annotation) if each is not NoneType]
    return _bare(kinds[0]) if kinds else annotation


def _usage(name: str, command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    words = [each.name.upper() + ("..." if each.nargs == -1 else "") for each in arguments]
    return " ".join(
        ["aum", name, "[OPTIONS]", *(word if each.required else f"[{word}]" for word, each in zip(words, arguments))]
    )


def _options(command: Any, types: dict[str, Any]) -> str:
    """A table of arguments, then one for each panel of options.

    Args:
        command: typer's.
        types: of its parameters, by name.
    """
    panels: dict[str, list[Sequence[str]]] = {}
    for each in command.params:
        if getattr(each, "hidden", False):
            continue
        if each.param_type_name == "argument":
            panels.setdefault("argument", []).append((code(each.name.upper()), each.help or "", ""))
            continue
        names = ", ".join(map(code, [*each.opts, *each.secondary_opts]))
        panels.setdefault(getattr(each, "rich_help_panel", None) or "option", []).append(
            (f"{names} {_metavar(types.get(each.name, bool))}".strip(), each.help or "", _default(each.default))
        )
    return "\n\n".join(
        table((title, "meaning", "default"), rows)
        if any(default for *_, default in rows)
        else table((title, "meaning"), [row[:2] for row in rows])
        for title, rows in panels.items()
    )


def _metavar(kind: type) -> str:
    if issubclass(kind, Enum):
        return code("|".join(each.value for each in kind))
    return {int: "N", float: "X", Path: "PATH", bool: ""}.get(kind, "TEXT")


def _default(value: object) -> str:
    value = value.value if isinstance(value, Enum) else value
    return "" if value is None or callable(value) or isinstance(value, bool) or value == () else code(value)


# recipes and their keys


def recipes_page() -> str:
    """The shipped recipes by corpus."""
    parts, others = [], []
    for base, variants in sorted(recipe_families().items()):
        rows = [_recipe_row(name) for name in (base, *variants)]
        if load_recipe(base).paper:
            parts.append(f"## {base}\n\n{_recipe_table(rows)}")
        else:
            others += rows
    return "\n\n".join([f"## For a CPU\n\n{_recipe_table(others)}", *parts])


def _recipe_row(name: str) -> Sequence[str]:
    recipe = load_recipe(name)
    model, train = recipe.model, recipe.train
    network = " ".join(filter(None, (model.size, model.architecture, getattr(model, "direction", None))))
    how = f"{train.optimizer}, {train.schedule}, {train.dtype}"
    return code(name), network, str(train.epochs), str(train.batch_size), code(f"{train.lr:g}"), how, recipe.paper


def _recipe_table(rows: Sequence[Sequence[str]]) -> str:
    titles = ("recipe", "model", "epochs", "batch", "lr", "training", "paper")
    if not any(paper for *_, paper in rows):
        titles, rows = titles[:-1], [row[:-1] for row in rows]
    return table(titles, rows)


def config_page() -> str:
    """Every key of a recipe, from the fields of aumcli.config."""
    top = [(name, field) for name, field in Recipe.model_fields.items() if name not in SECTIONS]
    parts = ["## Top level", _keys(top)]
    for section, config in SECTIONS.items():
        # the spectrogram's size is the frontend's, which the model follows
        own = [(name, field) for name, field in config.model_fields.items() if section != "model" or name not in SHARED]
        parts += [f"## [{section}]", _doc(config), _keys(own)]
        if section == "model":
            more = SpectrogramTransformerConfig
            own = [(name, field) for name, field in more.model_fields.items() if _is_new(name, field)]
            parts += ['### architecture = "ast"', f"{_doc(more)} What differs from the keys above:", _keys(own)]
            parts += ["### Sizes", _sizes()]
    return "\n\n".join(parts)


def _is_new(name: str, field: FieldInfo) -> bool:
    """Whether an AST's key is not an Audio Mamba's, or has another default."""
    known = AudioMambaConfig.model_fields.get(name)
    return known is None or known.default != field.default


def _sizes() -> str:
    rows = []
    for config in (AudioMambaConfig, SpectrogramTransformerConfig):
        for size, values in config.SIZES.items():
            rows.append(
                (
                    code(config.model_fields["architecture"].default),
                    code(size),
                    ", ".join(f"{k} {v}" for k, v in values.items()),
                )
            )
    return table(("architecture", "size", "sets"), rows)


def _doc(config: type[BaseModel]) -> str:
    return (config.__doc__ or "").split("\n\n")[0].strip()


def _keys(fields) -> str:
    return table(
        ("key", "value", "default", "meaning"),
        [
            (code(name), ", ".join(kinds(field)), code(_value(field.default)), field.description or "")
            for name, field in fields
        ],
    )


def _value(default: object) -> str:
    """A default as it stands in a recipe."""
    if default is PydanticUndefined:
        return ""
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, Enum):
        return str(default.value)
    if isinstance(default, tuple):
        return f"[{', '.join(map(_value, default))}]"
    return '""' if default == "" else str(default)


def kinds(field: FieldInfo) -> Iterator[str]:
    """What a key may be: values, or a kind of number with its bounds."""
    yield from _kinds(field.annotation, field.metadata)


def _kinds(annotation: Any, metadata: Sequence[object]) -> Iterator[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [each for extra in arguments[1:] for each in getattr(extra, "metadata", [extra])]
        yield from _kinds(arguments[0], [*inner, *metadata])
    elif origin in (Union, UnionType):
        for each in arguments:
            yield from _kinds(each, metadata)
    elif origin is Literal:
        yield from map(code, arguments)
    elif origin is tuple:
        yield "list of " + " or ".join(
            dict.fromkeys(kind for each in arguments if each is not ... for kind in _kinds(each, []))
        )
    elif annotation is NoneType:
        yield "`none`"
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (code(each.value) for each in annotation)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield code(annotation.__name__)
    elif origin is dict:
        yield "table"
    else:
        bounds = [
            f"{sign} {getattr(each, key):g}"
            for key, sign in BOUNDS.items()
            for each in metadata
            if getattr(each, key, None) is not None
        ]
        yield " ".join([NUMBERS[annotation], ", ".join(bounds)]).strip()


GENERATED: dict[str, Callable[[], str]] = {
    "cli": cli_page,
    "config": config_page,
    "recipes": recipes_page,
    "PredictConfig": lambda: _keys(PredictConfig.model_fields.items()),
    "ModelConfig": lambda: _keys(ModelConfig.model_fields.items()),
}

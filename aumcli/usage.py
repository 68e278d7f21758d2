"""A call that the command line doesn't understand, as a message with the call that was likely meant."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from aumcli.config import ARCHITECTURES, AugmentConfig, DataConfig, FrontendConfig, TrainConfig
from aumcli.errors import AumError, did_you_mean
from aumcli.utils.text import shell_quoted

SECTIONS: dict[str, tuple[type[BaseModel], ...]] = {
    "train": (TrainConfig,),
    "data": (DataConfig,),
    "augment": (AugmentConfig,),
    "frontend": (FrontendConfig,),
    "model": tuple(ARCHITECTURES.values()),
}
WITH_RECIPES = ("train", "ablate")


def usage_error(error: Any, arguments: Sequence[str]) -> AumError:
    """The message of a mistake in a call, with the call that was likely meant.

    Args:
        error: typer's UsageError, whose module differs between its versions.
        arguments: of the call, without the program's name.
    """
    command = error.ctx.info_name if error.ctx.parent is not None else ""
    problem = error.format_message().split(" (Possible options")[0].split(". Did you mean")[0].rstrip(".")
    wrong = getattr(error, "option_name", "")
    meant = ""
    if wrong:
        meant = _setting(command, wrong, arguments) or did_you_mean(
            wrong, [text for each in error.ctx.command.params for text in each.opts]
        )
    elif "extra argument" in problem:
        meant = _extra(command, problem.partition("(s) (")[2].rstrip(")"))
    elif "No such command" in problem:
        meant = did_you_mean(problem.partition("'")[2].rstrip("'"), error.ctx.command.commands)
    elif problem.startswith("Missing argument"):
        meant = {
            "prepare": "aum prepare folder DIR for your own sounds, with a sub-folder for each class; ",
            "eval": "aum eval runs/NAME; ",
        }.get(command, "")
    return AumError(
        problem[:1].lower() + problem[1:],
        fix=f"{meant}`{' '.join(filter(None, ('aum', command)))} --help` shows what there is",
    )


def _setting(command: str, option: str, arguments: Sequence[str]) -> str:
    """The `--set` that an option's name stands for, with the value that the call gave it."""
    name = option.lstrip("-").replace("-", "_")
    keys = [
        f"{section}.{name}"
        for section, configs in SECTIONS.items()
        if any(name in config.model_fields for config in configs)
    ]
    if command not in WITH_RECIPES or not keys:
        return ""
    value = next((text.partition("=")[2] for text in arguments if text.startswith(f"{option}=")), "")
    if option in arguments[:-1]:
        value = arguments[arguments.index(option) + 1]
    return (
        " or ".join(
            f"--set {key}={shell_quoted(value) if value and not value.startswith('-') else 'VALUE'}" for key in keys
        )
        + "; "
    )


def _extra(command: str, text: str) -> str:
    """What somebody meant who named data or a recipe without an option."""
    if command not in WITH_RECIPES:
        return ""
    if Path(text, "manifest.csv").is_file():
        return f"aum {command} --data {shell_quoted(text)}; "
    if Path(text).is_dir():
        prepared = f"data/{shell_quoted(Path(text).resolve().name)}"
        return f"aum prepare folder {shell_quoted(text)}, then aum {command} --data {prepared}; "
    return f"aum {command} --recipe {shell_quoted(text)}; "

"""README and the pages in docs/: short, links that lead somewhere, commands that the program understands."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from aumcli.cli import app
from aumcli.config import TrainConfig
from aumcli.recipe import recipe_names

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
PAGES = [README, *(REPOSITORY / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"))]
PAGES += sorted((REPOSITORY / "docs").rglob("*.md"))
NAMES = [page.relative_to(REPOSITORY).as_posix() for page in PAGES]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
PARTS = {"&&", "||", "|", ";", ">", "<", ">>"}


def hooks():
    """docs/hooks.py, which writes pages from the code."""
    spec = importlib.util.spec_from_file_location("hooks", REPOSITORY / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOKS = hooks()
GENERATED = {(REPOSITORY / "docs" / page).as_posix(): REPOSITORY / source for page, source in HOOKS.PAGES.items()}
COMMANDS = typer.main.get_command(app)


def text_of(page: Path) -> str:
    """A page as the site has it."""
    return HOOKS.on_page_markdown(page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", text_of(page)), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").split()) <= 600


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(text):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        path = Path(page.parent, target).resolve() if target else page
        path = GENERATED.get(path.as_posix(), path)
        assert path.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(path), f"{link}: no such heading"


def calls(text: str) -> list[list[str]]:
    """The words behind `aum`, or `-m aumcli`, of all calls in a piece of shell script."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words = list(lexer)
        for place, word in enumerate(words):
            if word == "aum" or word == "aumcli" and words[place - 1] == "-m":
                rest = words[place + 1 :]
                end = next((i for i, each in enumerate(rest) if each in PARTS), len(rest))
                found.append([each for each in rest[:end] if not each.startswith("$")])
    return found


CALLS = [
    pytest.param(words, id=f"{name}: {shlex.join(words)[:70]}")
    for name, page in zip(NAMES, PAGES, strict=True)
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8"))
    if language == "sh"
    for words in calls(block)
]


def parse(words: list[str]) -> None:
    """Have the command line read a call, without running it; raises a usage error for what it doesn't know."""
    context = COMMANDS.make_context("aum", list(words))
    name, command, arguments = COMMANDS.resolve_command(context, list(words))
    command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("words", CALLS)
def test_commands_are_understood(words):
    parse(words)


def test_what_is_not_understood_is_found():
    for wrong in (["bench", "--components"], ["tarin"], ["ablate", "--table", "one"], ["eval"]):
        with pytest.raises(Exception) as caught:
            parse(wrong)
        assert hasattr(caught.value, "format_message")  # a usage error, whose class has another home in each typer
    assert calls("aum info fsdd > all.toml && aum eval 'a b' # why") == [["info", "fsdd"], ["eval", "a b"]]
    assert calls("torchrun --nproc-per-node 4 -m aumcli predict x") == [["predict", "x"]]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_exist(page):
    """Of calls within the text, too."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for name, *rest in (words for inline in re.findall(r"`(aum [^`]*)`", text) for words in calls(inline)):
        if name.isupper() or name.startswith("-"):  # aum COMMAND --help, aum --version
            continue
        options = {"--help", "-h"}
        for each in COMMANDS.commands[name].params:
            options.update(each.opts, each.secondary_opts)
        assert {word.partition("=")[0] for word in rest if re.match("--?[a-z]", word)} <= options


def test_generated_pages_hold_all():
    commands, keys, recipes = (HOOKS.GENERATED[name]() for name in ("cli", "config", "recipes"))
    for name, command in COMMANDS.commands.items():
        assert f"## aum {name}" in commands
        for each in command.params:
            shown = f"`{each.name.upper()}`" if each.param_type_name == "argument" else f"`{each.opts[0]}`"
            assert shown in commands
    assert "`--recipe`" in commands and "`quickstart`" in commands
    for name, field in TrainConfig.model_fields.items():
        assert f"| `{name}` |" in keys and (field.description or "").split("`")[0].replace("<", "&lt;") in keys
    for name in recipe_names():
        assert f"`{name}`" in recipes

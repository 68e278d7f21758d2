"""docs/train.md: the worked example's recipes are read, its commands run.

And what is said of precedence and paths holds.
"""

import re
import shlex
from pathlib import Path

import pytest
from tiny import sounds

from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

PAGE = (
    (Path(__file__).parents[1] / "docs" / "train.md").read_text(encoding="utf-8").partition("## Recipes of your own")[2]
)
RECIPES = dict(re.findall(r"^```toml\n# (\S+)\n(.*?)^```", PAGE, re.S | re.M))
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M) for line in block.splitlines()]


@pytest.fixture
def example(tmp_path, monkeypatch) -> None:
    """The files of the page."""
    monkeypatch.chdir(tmp_path)
    for name, text in RECIPES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")


def run(aum, command: str) -> str:
    words, _, file = command.partition(" > ")
    result = aum(*shlex.split(words)[1:])
    assert result.code == 0, (command, result.err)
    if file:
        Path(file).write_text(result.out, encoding="utf-8")
    return result.out


def test_the_worked_example(aum, example, tmp_path):
    assert len(RECIPES) == 2 and len(COMMANDS) == 5
    assert (
        aum("prepare", "folder", sounds(tmp_path / "sounds", 6), "--out", "data/mine", "--split", "60/20/20").code == 0
    )
    printed = {command: run(aum, command) for command in COMMANDS}
    used = load_recipe("runs/wide/recipe.toml")
    assert (used.train.epochs, used.train.lr, used.seed) == (2, 1e-3, 7)  # --set, --seed
    assert (used.model.width, used.model.depth) == (64, 2)  # the file
    assert used.frontend.sample_rate_hz == 8000 and used.train.batch_size == load_recipe("quickstart").train.batch_size
    assert used.frontend.frames != load_recipe("night/wide.toml").frontend.frames  # measured
    assert "runs/wide: a run" in printed[COMMANDS[2]]
    assert load_recipe("all.toml") == load_recipe("night/wide.toml")
    run(aum, "aum train --recipe runs/wide/recipe.toml --data data/mine --out runs/again")
    weights = [Path("runs", name, "best", "model.safetensors").read_bytes() for name in ("wide", "again")]
    assert weights[0] == weights[1]


def test_what_comes_later_wins(aum, example):
    assert load_recipe("night/wide.toml", ["train.epochs=2", "train.epochs=3"]).train.epochs == 3
    assert load_recipe("night/wide.toml", ["train.betas=[0.5, 0.6]"]).train.betas == (0.5, 0.6)
    assert "sample_rate" not in load_recipe("base.toml").data.infer
    result = aum("train", "--recipe", "synth", "--set", "train.init=one.pth", "--init", "other.pth", "--dry-run")
    assert result.code == 0 and "other.pth" in result.out and "one.pth" not in result.out


def test_extends_is_relative_to_its_file(example, tmp_path, monkeypatch):
    wanted = load_recipe("night/wide.toml")
    monkeypatch.chdir(tmp_path / "night")
    assert load_recipe("wide.toml") == wanted == load_recipe("../night/wide.toml")

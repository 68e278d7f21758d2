"""docs/demo.svg is what `make demo` prints: the Makefile's commands, which run, and the same words."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo():
    """docs/demo.py as a module."""
    spec = importlib.util.spec_from_file_location("demo", REPOSITORY / "docs" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(demo) -> str:
    return demo.SVG.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_commands_are_those_of_make_demo(demo, picture):
    printed = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    calls = [line.replace(".venv/bin/", "") for line in printed.splitlines() if line.startswith(".venv/bin/aum ")]
    assert calls == list(demo.COMMANDS) == demo.commands(picture)


def test_the_commands_print_what_the_picture_shows(demo, picture):
    """On a few sounds of each kind; numbers, times and what the model takes for what may differ."""
    assert demo.words(demo.svg(demo.outputs(small=True))) == demo.words(picture), "make it again: python docs/demo.py"


def test_the_picture_is_of_a_good_model_and_loads_nothing(demo, picture):
    lines = demo.lines(picture)
    (accuracy,) = [line.split()[1] for line in lines if line.startswith(" accuracy ")]
    assert float(accuracy) > 90 and max(map(len, lines)) <= demo.COLUMNS
    assert "url(http" not in picture and "@import" not in picture and "http" not in "".join(lines)

"""examples/: each script runs as a user would start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["aum_fixtures"]
REPOSITORY = Path(__file__).parents[2]


def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example in a process of its own, with this checkout's package."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, REPOSITORY / "examples" / name, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_label_folder(clips):
    result = run("label_folder.py", clips)
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stderr
    assert len(lines) == len(list(clips.iterdir())) == 3
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)


def test_label_folder_names_bad_files(clips):
    (clips / "bad.wav").write_text("no sound")
    result = run("label_folder.py", clips)
    assert result.returncode == 1 and "bad.wav" in result.stderr and len(result.stdout.splitlines()) == 3


def test_train_loop():
    result = run("train_loop.py")
    assert result.returncode == 0, result.stderr
    *steps, last = result.stdout.splitlines()
    losses = [float(line.split()[-1]) for line in steps]
    assert losses[-1] < losses[0]
    assert float(last.split()[1]) > 90


def test_kernel():
    result = run("kernel.py")
    assert result.returncode == 0, result.stderr
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert {"reference", "torch", "cpu"} <= rows.keys()
    assert rows["reference"].split()[2].startswith("0.0")
    for name in ("torch", "cpu"):
        if "can't run" not in rows[name]:
            y, gradient = (float(word.rstrip(",")) for word in rows[name].split() if "e-" in word)
            assert y < 1e-5 and gradient < 1e-5


def test_every_example_is_tested():
    here = Path(__file__).read_text(encoding="utf-8")
    assert not [path.name for path in (REPOSITORY / "examples").glob("*.py") if f'"{path.name}"' not in here]


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("*.py")), ids=lambda path: path.name)
def test_examples_say_how_to_run(path):
    assert f"python examples/{path.name}" in path.read_text(encoding="utf-8").partition('"""\n\nimport')[0]

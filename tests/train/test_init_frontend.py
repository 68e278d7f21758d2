"""`--init` of a model of another input.

What the data would have decided is the checkpoint's, and each other value is said.
"""

import pytest
from tiny import RECIPE, sounds, tiny
from training import quietly

from aumcli.checkpoints import frontend_of, read_config
from aumcli.plan import dry_run
from aumcli.prepare import prepare
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture
def faster_corpus(tmp_path):
    """The tests' classes at twice the rate, in longer clips."""
    prepare(
        "folder",
        tmp_path / "data",
        source=sounds(tmp_path / "sounds", 10, rate_hz=16000, seconds=0.8),
        split="60/20/20",
    )
    return tmp_path / "data"


def input_row(said) -> str:
    [row] = [text for text in said if text.startswith("input")]
    return row


def test_what_would_be_measured_is_the_checkpoints(trained, faster_corpus, tmp_path):
    said = []
    run = quietly(tiny("train.epochs=1", f"train.init={trained}"), tmp_path / "run", faster_corpus, say=said.append)
    assert read_config(run / "best").frontend == frontend_of(trained) == frontend_of(trained / "best")
    assert f"as {trained} was trained with: sample rate, clip length, normalisation" in input_row(said)
    assert not any("instead of" in text or "resized" in text for text in said)
    rows = dict(dry_run(tiny(f"train.init={trained}"), faster_corpus)[0])
    assert f"input       {rows['input']}" == input_row(said)


def test_what_the_user_sets_is_taken_and_each_difference_is_said(trained, faster_corpus, tmp_path):
    said = []
    run = quietly(
        tiny(
            "train.epochs=1",
            f"train.init={trained}",
            "frontend.sample_rate_hz=16000",
            "frontend.mean=-1.5",
            "frontend.std=2.5",
        ),
        tmp_path / "run",
        faster_corpus,
        say=said.append,
    )
    ours, theirs = frontend_of(run), frontend_of(trained)
    assert (ours.sample_rate_hz, ours.mean, ours.frames) == (16000, -1.5, theirs.frames)
    [note] = [text for text in said if "instead of" in text]
    assert (
        "frontend.sample_rate_hz 16000 instead of 8000" in note
        and f"frontend.mean -1.5 instead of {theirs.mean}" in note
    )
    assert "frames" not in note and "clip length" in input_row(said)


def test_without_weights_the_data_decides(faster_corpus, tmp_path):
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", faster_corpus)
    assert frontend_of(run).sample_rate_hz == 16000
    assert frontend_of(tmp_path) is None and load_recipe(RECIPE).data.infer

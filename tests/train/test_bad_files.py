"""Clips that break after preparing: named, counted, and at some number too many."""

import re
from pathlib import Path

import pytest
import torch
from tiny import sound, tiny
from training import history, problem, quietly, train_in_team, weights

from aumcli.classifier import load_model
from aumcli.data.manifest import Clip, read_manifest, write_manifest

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

READY = (
    "data.infer=[]",
    "frontend.frames=48",
    "frontend.sample_rate_hz=8000",
)  # nothing is measured, so no clip is read before training


def with_broken(folder: Path, corpus: Path, count: int, split: str = "train") -> Path:
    """The corpus with so many clips more, which were cut off after preparing."""
    manifest, clips = read_manifest(corpus), []
    for number in range(count):
        path = sound(folder / f"bad{number}.wav", 300.0)
        path.write_bytes(path.read_bytes()[:-100])
        clips.append(Clip(path, labels=("low",), split=split))
    write_manifest(folder / "data", [*manifest.clips, *clips], manifest.labels, {})
    return folder / "data"


@pytest.mark.parametrize("settings", [(), (*READY, "train.workers=1")])
def test_none_is_borne_unless_the_recipe_says_so(tmp_path, corpus, settings):
    error = problem(quietly, tiny(*settings), tmp_path / "run", with_broken(tmp_path, corpus, 1))
    assert "bad0.wav is truncated" in error.problem and error.exit_code == 1 and "Traceback" not in error.problem


@pytest.mark.parametrize("workers", [0, 1])
def test_within_the_limit_each_is_named_once_and_counted_once(tmp_path, corpus, workers):
    """Both clips fail in each of three epochs, and are two clips all the same."""
    said = []
    run = quietly(
        tiny(*READY, "data.max_unreadable_clips=2", "train.epochs=3", f"train.workers={workers}"),
        tmp_path / "run",
        with_broken(tmp_path, corpus, 2),
        say=said.append,
    )
    named = [text for text in said if "max_unreadable_clips" in text]
    assert len(named) == 2 and all(sum(f"bad{i}.wav is truncated" in text for text in named) == 1 for i in range(2))
    assert [row["unreadable_clips"] for row in history(run)] == ["2", "2", "2"]
    assert re.search(r"\| skipped clips +\| 2 ", (run / "report.md").read_text())


@pytest.mark.parametrize("workers", [0, 1])
def test_beyond_the_limit(tmp_path, corpus, workers):
    error = problem(
        quietly,
        tiny(*READY, "data.max_unreadable_clips=2", f"train.workers={workers}"),
        tmp_path / "run",
        with_broken(tmp_path, corpus, 3),
    )
    assert (
        "is truncated" in error.problem
        and "more than 2 clips" in error.problem
        and error.exit_code == 1
        and "data.max_unreadable_clips" in error.fix
    )


def test_the_count_survives_resuming(tmp_path, corpus):
    data = with_broken(tmp_path, corpus, 2)

    class Stop(BaseException):
        pass

    def say(text: str) -> None:
        if text.startswith("epoch   2/"):
            raise Stop

    with pytest.raises(Stop):
        quietly(tiny(*READY, "data.max_unreadable_clips=2"), tmp_path / "run", data, say=say)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert [row["unreadable_clips"] for row in history(tmp_path / "run")] == ["2"] * 4


def test_in_a_team_one_process_names_the_clips_of_all(tmp_path, corpus):
    data, log = with_broken(tmp_path, corpus, 6), tmp_path / "log"

    def say(text: str) -> None:
        with open(log, "a", encoding="utf-8") as file:
            file.write(text + "\n")

    recipe = tiny(*READY, "data.max_unreadable_clips=6", "train.epochs=2")
    assert train_in_team(2, recipe, tmp_path / "run", data, say=say) == ["", ""]
    lines = [line for line in log.read_text().splitlines() if "max_unreadable_clips" in line]
    assert len(lines) == 6 and all(sum(f"bad{i}.wav" in line for line in lines) == 1 for i in range(6))
    quietly(recipe.with_values(train={"gradient_accumulation_steps": 2}), tmp_path / "alone", data)
    assert weights(tmp_path / "run") == weights(tmp_path / "alone")
    ends = train_in_team(2, recipe.with_values(data={"max_unreadable_clips": 5}), tmp_path / "more", data)
    assert all(end.startswith("AumError") and "more than 5 clips" in end for end in ends)


def test_a_batch_of_nothing_but_broken_clips_moves_no_weight(tmp_path, corpus):
    """A whole training split of them: the weights stay as they were drawn."""
    manifest = read_manifest(with_broken(tmp_path, corpus, 4))
    bad = [clip for clip in manifest.split("train") if clip.path.name.startswith("bad")]
    write_manifest(tmp_path / "data", [*bad, *manifest.split("val")], manifest.labels, {})
    for dtype in ("float32", "float16"):
        runs = [
            quietly(
                tiny(*READY, "data.max_unreadable_clips=4", f"train.dtype={dtype}", f"train.epochs={epochs}"),
                tmp_path / f"{dtype}{epochs}",
                tmp_path / "data",
            )
            for epochs in (1, 3)
        ]
        networks = [load_model(run / "last").network.state_dict() for run in runs]
        assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])


def test_a_broken_validation_clip_stops_the_run_and_is_named(tmp_path, corpus):
    """Leaving it out would change what the best epoch is chosen by."""
    error = problem(
        quietly, tiny(*READY, "data.max_unreadable_clips=9"), tmp_path / "run", with_broken(tmp_path, corpus, 1, "val")
    )
    assert "bad0.wav is truncated" in error.problem and error.exit_code == 1

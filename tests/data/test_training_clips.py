"""Whether a model is tested on clips that it was trained on: through growing data, through --init, in moved folders."""

import shutil

import numpy as np
import pytest
from tiny import sounds, tiny
from training import quietly

from aumcli.data.clips import Clip
from aumcli.data.manifest import read_manifest
from aumcli.data.training_clips import TRAINING_CLIPS, clip_hashes, read_training_clips, seen_in_training
from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def warnings(messages) -> list[str]:
    return [text for text in messages if "was trained on" in text]


def warned(caplog, *arguments, **how) -> list[str]:
    """What an evaluation warns of."""
    caplog.clear()
    with caplog.at_level("WARNING", "aumcli"):
        evaluate(*arguments, **how)
    assert all(record.levelname == "WARNING" for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_a_clip_is_known_where_its_corpus_was_moved(tmp_path):
    sounds(tmp_path / "here", 2)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    here, there = (
        clip_hashes([Clip(path) for path in sorted((tmp_path / name).rglob("*.wav"))]) for name in ("here", "there")
    )
    assert (here == there).all() and len(set(here)) == 6


def test_a_slice_another_size_and_another_folder_are_other_clips(tmp_path):
    one = sounds(tmp_path / "x", 1) / "high" / "0.wav"
    two = sounds(tmp_path / "y", 1, seconds=0.4) / "high" / "0.wav"
    hashes = clip_hashes(
        [Clip(one), Clip(two), Clip(one, 0.0, 0.2), Clip(one, 0.1, 0.3), Clip(one.parent.parent / "low" / "0.wav")]
    )
    assert len(set(hashes)) == 5


def test_a_run_keeps_what_it_was_trained_on(trained, corpus):
    clips = read_manifest(corpus).split("train")
    assert set(read_training_clips(trained)) == set(read_training_clips(trained / "best")) == set(clip_hashes(clips))
    assert read_training_clips(corpus) is None and read_training_clips(None) is None


def test_test_clips_of_training_are_named(trained, corpus, tmp_path, caplog):
    assert not warned(caplog, trained) and not warned(caplog, trained, split="train")
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    rows = (corpus / "manifest.csv").read_text().splitlines()
    tested = [
        row.replace(",train,", ",test,") if i in (1, 2) else row
        for i, row in enumerate(sorted(rows[1:], key=lambda r: ",train," not in r), 1)
    ]
    (other / "manifest.csv").write_text("\n".join([rows[0], *tested]) + "\n")
    (other / "manifest.parquet").unlink(missing_ok=True)
    [warning] = warned(caplog, trained, other)
    assert f"{trained} was trained on 2 of the 8 clips of the test split" in warning


def test_so_are_those_of_the_weights_that_a_training_starts_from(trained, corpus, tmp_path):
    clips = read_manifest(corpus).split("train")
    (tmp_path / "second").mkdir()
    shutil.copytree(trained / "best", tmp_path / "second" / "best")
    shutil.copy(trained / "recipe.toml", tmp_path / "second")
    np.save(
        tmp_path / "second" / TRAINING_CLIPS,
        np.concatenate([clip_hashes(clips), clip_hashes(read_manifest(corpus).split("test"))[:3]]),
    )
    said = []
    out = quietly(
        tiny("train.epochs=1", f"train.init={tmp_path / 'second'}"), tmp_path / "run", corpus, say=said.append
    )
    [warning] = warnings(said)
    assert "trained on 3 of the 6 clips of the test split" in warning
    assert len(read_training_clips(out)) == len(clips) + 3  # what the weights heard before counts too


def test_a_damaged_list_is_named(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / TRAINING_CLIPS).write_bytes(b"\x93NUMPY")
    with pytest.raises(AumError, match=TRAINING_CLIPS):
        read_training_clips(tmp_path / "run")


def test_nothing_is_said_where_nothing_is_known(corpus):
    assert seen_in_training(None, read_manifest(corpus).split("test"), "model", "test") == []


def splits(folder) -> dict[str, str]:
    return {str(clip.path): clip.split for clip in read_manifest(folder).clips}


def test_splits_stay_when_sounds_are_added(tmp_path):
    prepare("folder", tmp_path / "data", source=sounds(tmp_path / "x", 10))
    before = splits(tmp_path / "data")
    for each in (13, 40):
        sounds(tmp_path / "x", each)
        report = prepare("folder", tmp_path / "data", source=tmp_path / "x")
        after = splits(tmp_path / "data")
        assert {path: after[path] for path in before} == before
        assert not any("earlier test split" in warning for warning in report.warnings)
        before = after
    assert {name: cell["clips"] for name, cell in report.splits.items()} == {"train": 96, "val": 12, "test": 12}


def test_other_splits_are_drawn_when_asked_for_and_said(tmp_path):
    prepare("folder", tmp_path / "data", source=sounds(tmp_path / "x", 20))
    before = splits(tmp_path / "data")
    report = prepare("folder", tmp_path / "data", source=tmp_path / "x", seed=1)
    after = splits(tmp_path / "data")
    moved = [path for path in before if before[path] == "test" and after[path] == "train"]
    assert moved and any(
        f"{len(moved)} clips of the earlier test split are in train now" in warning for warning in report.warnings
    )
    assert after == splits_of_fresh(tmp_path, seed=1)


def splits_of_fresh(tmp_path, **how) -> dict[str, str]:
    prepare("folder", tmp_path / "fresh", source=tmp_path / "x", **how)
    return splits(tmp_path / "fresh")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_an_earlier_manifest_that_is_damaged_changes_nothing(tmp_path, text):
    prepare("folder", tmp_path / "data", source=sounds(tmp_path / "x", 10))
    (tmp_path / "data" / "report.json").write_text(text)
    prepare("folder", tmp_path / "data", source=tmp_path / "x")
    assert splits(tmp_path / "data") == splits_of_fresh(tmp_path)

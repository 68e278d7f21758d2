"""Annotated events against those that a model reports."""

import json
import shutil

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, RATE_HZ, sound
from training import problem

from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import read_events, read_manifest
from aumcli.event_scores import annotated_spans, score_events
from aumcli.false_alarms import ScoredRecording
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
AT = np.array([0.5, 0.5])


def scored(*rows):
    """Windows of 1 s, of which the next one starts half a second later, at 10 Hz."""
    starts = np.arange(len(rows)) * 5
    return ScoredRecording(starts, starts + 10, np.array(rows, dtype=np.float32))


def score(recordings, annotated, **options):
    return score_events(recordings, annotated, AT, ["owl", "fox"], 10, 0.5, **options)


def test_right_found_and_wrong():
    # owl from 0 to 1.5 s and from 3 to 4 s, fox from 2 to 3 s
    windows = scored([0.9, 0], [0.6, 0.1], [0.1, 0.4], [0, 0], [0, 0.5], [0, 0], [0.7, 0], [0, 0])
    assert windows.events(AT) == [(0, 0, 15), (0, 30, 40), (1, 20, 30)]
    truth = {"a": [(0.2, 0.3, 0), (1.0, 1.2, 0), (2.0, 2.2, 0), (4.0, 5.0, 1)]}
    found = score({"a": windows}, truth)
    assert [tuple(row) for row in found.classes] == [("owl", 3, 2, 2, 1), ("fox", 1, 0, 1, 0)]
    assert tuple(found.total) == ("all", 4, 2, 3, 1) and found.false_alarms_per_hour == 4.0
    assert found.total.precision == pytest.approx(1 / 3) and found.total.recall == 0.5 and found.total.f1 == 0.4
    near = score({"a": windows}, truth, tolerance_s=1.0)
    assert [tuple(row) for row in near.classes] == [("owl", 3, 3, 2, 2), ("fox", 1, 1, 1, 1)]
    assert near.total.f1 == 1 and near.false_alarms_per_hour == 0


def test_what_is_in_doubt_is_neither():
    windows = scored([0.9, 0], [0, 0], [0, 0], [0, 0.9])
    found = score({"a": windows}, {"a": [(1.6, 9.0, -1)]})
    assert [tuple(row) for row in found.classes] == [("owl", 0, 0, 1, 0)]
    assert np.isnan(found.total.f1) and found.to_dict()["all"]["f1"] is None
    nothing = score({"a": scored([0, 0])}, {"a": []})
    assert tuple(nothing.total) == ("all", 0, 0, 0, 0) and nothing.false_alarms_per_hour == 0


def test_eval_of_annotated_recordings(aum, trained, tmp_path):
    for split in ("train", "val", "test"):
        parts, rows, at = [], [], 0.0
        for i, (name, hz) in enumerate([*CLASSES.items(), *CLASSES.items()]):
            path = sound(tmp_path / "parts" / f"{split}{i}.wav", hz, seconds=1, seed=i)
            parts.append(load_audio(path)[0])
            rows.append(f"{at:.6f}\t{at + 1:.6f}\t{name}\n")
            at += 1
        (tmp_path / "rec" / split).mkdir(parents=True)
        soundfile.write(tmp_path / "rec" / split / f"{split}.wav", np.concatenate(parts), RATE_HZ)
        (tmp_path / "rec" / split / f"{split}.txt").write_text("".join(rows) + "3\t2\twrong\n")
    prepare("annotations", tmp_path / "data", source=tmp_path / "rec", settings=["window=1"], split="34/33/33")
    manifest = read_manifest(tmp_path / "data")
    events = read_events(manifest)
    [spans] = annotated_spans(
        events, manifest.split("test"), {name: i for i, name in enumerate(sorted(CLASSES))}
    ).values()
    assert len(spans) == 7 and spans[1][:2] == (1.0, 2.0) and [label for *_, label in spans].count(-1) == 1
    assert annotated_spans(events, manifest.split("test")[:0], {}) == {}
    result = aum("eval", trained, "--data", tmp_path / "data", "--out", tmp_path / "out", "--tolerance", "0.1")
    assert result.code == 0 and "1 annotated recording" in result.out and "0.1 s apart" in result.out, result.err
    found = json.loads((tmp_path / "out" / "eval-test.json").read_text())["events"]
    assert found["recordings"] == 1 and found["all"]["annotated"] == 6 and found["all"]["recall"] > 0.8
    assert found["hours"] == pytest.approx(6 / 3600) and {row["label"] for row in found["classes"]} == set(CLASSES)
    prepare("annotations", tmp_path / "data", source=tmp_path / "rec", settings=["window=1", "unlabelled=unknown"])
    assert read_events(read_manifest(tmp_path / "data")) is None
    lost = aum("eval", trained, "--data", tmp_path / "data", "--out", tmp_path / "lost", "--tolerance", "0.1")
    assert "events are not compared with annotated ones" in lost.err


def test_a_damaged_file_of_events(corpus, tmp_path):
    data = shutil.copytree(corpus, tmp_path / "data")
    (data / "annotated_events.csv").write_text("path,start_s\n")
    assert "annotated_events.csv" in problem(read_events, read_manifest(data)).problem

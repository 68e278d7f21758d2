"""Events by class and hour of the day."""

import csv

import numpy as np
import pytest
from tiny import CLASSES, sound

from aumcli.predict.hours import count_hours, write_hours

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [*csv.DictReader(file)]


def record(at, seconds, *events):
    found = [{"label": label, "start_s": 0, "stop_s": 1, "score": 0.9, "recorded_at": begin} for label, begin in events]
    return {"path": "a.wav", "duration_s": seconds, "events": found, **({"recorded_at": at} if at else {})}


def test_events_and_hours_recorded():
    found = count_hours(
        [
            record("2024-05-01T23:30:00", 5400, ("owl", "2024-05-01T23:59:59"), ("owl", "2024-05-02T00:00:00.500")),
            record("2024-05-02T23:00:00+02:00", 60, ("fox", "2024-05-02T23:00:01+02:00")),
            record(None, 60),
            {"path": "bad.wav", "problem": "no sound", "fix": ""},
        ]
    )
    assert (found.dated, found.undated) == (2, 1) and list(found.events) == ["fox", "owl"]
    assert np.flatnonzero(found.events["owl"]).tolist() == [0, 23] and found.events["fox"][23] == 1
    assert found.recorded_h[23] == pytest.approx(0.5 + 1 / 60) and found.recorded_h[0] == pytest.approx(1.0)
    assert found.recorded_h.sum() == pytest.approx(1.5 + 1 / 60)


def test_without_events(tmp_path):
    write_hours(tmp_path / "h.csv", count_hours([record("2024-05-01T23:30:00", 60)]))
    assert (tmp_path / "h.png").stat().st_size > 1000 and read(tmp_path / "h.csv") == []


def test_the_command(aum, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, (name, hz) in enumerate(CLASSES.items()):
        sound(tmp_path / "rec" / f"POND_20240501_0{i}5959.wav", hz, seconds=3, seed=i)
        sound(tmp_path / "rec" / f"{name}.wav", hz, seconds=1, seed=i)
    call = ("predict", "rec", "--model", trained, "--threshold", "0.5")
    done = aum(*call, "--hours", "hours.csv", "--out", "all.csv")
    assert done.code == 0 and "without 3 recordings of unknown time" in done.err, done.err
    rows = read("hours.csv")
    assert {row["label"] for row in rows} == set(CLASSES) and {row["hour"] for row in rows} == set("0123")
    assert sum(int(row["events"]) for row in rows) >= 3
    assert all(
        float(row["events_per_h"]) == pytest.approx(int(row["events"]) / float(row["recorded_h"]), rel=0.1)
        for row in rows
    )
    assert (tmp_path / "hours.png").stat().st_size > 5000
    events = [row for row in read("all.csv") if row["kind"] == "event" and row["site"]]
    assert events and all(row["site"] == "POND" and row["recorded_at"].startswith("2024-05-01T0") for row in events)
    named = aum(*call, "--recorded", "{site}_%Y%m%d_%H%M%S", "--format", "jsonl", "--out", "all.jsonl")
    assert named.code == 0 and '"recorded_at":"2024-05-01T00:59:59","site":"POND"' in (
        tmp_path / "all.jsonl"
    ).read_text().replace(": ", ":").replace(", ", ",")
    assert aum(*call, "--hours", "hours.xlsx").code == 2 and aum(*call, "--recorded", "%Y").code == 2

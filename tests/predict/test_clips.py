"""Events cut out of their recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, sound

from aumcli.predict.clips import ClipFolder, sample_events, write_event_clips

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
RATE_HZ = 8000


def record(path, encoding="PCM_16", seconds=10.0, channels=2):
    """A recording of noise, up to full scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (round(seconds * RATE_HZ), channels)
    bits = {"PCM_16": 16, "PCM_24": 24}.get(encoding, 24)
    whole = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape) << (32 - bits)
    samples = whole.astype(np.int32) if encoding.startswith("PCM") else (whole / 2**31).astype(np.float32)
    soundfile.write(path, samples, RATE_HZ, encoding)
    return path


def result(path, *events, seconds=10.0):
    """The record of a recording with these events: start, stop, label, score."""
    keys = ("start_s", "stop_s", "label", "score")
    return {"path": str(path), "duration_s": seconds, "events": [dict(zip(keys, event)) for event in events]}


def cut(folder, *records, files=None, **options):
    write_event_clips(ClipFolder(folder, **options), lambda: iter(records), files or {})
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.wav"))


@pytest.mark.parametrize(("encoding", "kept"), [("PCM_16", "PCM_16"), ("PCM_24", "PCM_24"), ("FLOAT", "FLOAT")])
def test_every_sample_and_channel_is_kept(tmp_path, encoding, kept):
    path = record(tmp_path / "night.wav", encoding)
    [name] = cut(tmp_path / "out", result(path, (2.0, 3.5, "owl", 0.9)), pad_s=0.25)
    assert name == "owl/00001_0.900_night_2.000s.wav"
    with soundfile.SoundFile(tmp_path / "out" / name) as clip:
        assert (clip.samplerate, clip.channels, clip.subtype) == (RATE_HZ, 2, kept)
        assert clip.title == "owl" and str(path) in clip.comment and "2.000000 s to 3.500000 s" in clip.comment
        dtype = "float32" if kept == "FLOAT" else "int32"
        assert np.array_equal(clip.read(dtype=dtype), soundfile.read(path, dtype=dtype)[0][14000:30000])


def test_the_best_and_at_most_so_many(tmp_path):
    path = record(tmp_path / "night.wav")
    events = [(0.5 * i, 0.5 * i + 0.4, "owl" if i % 2 else "fox", round(0.3 + 0.03 * i, 3)) for i in range(16)]
    assert len(cut(tmp_path / "all", result(path, *events))) == 16
    names = cut(tmp_path / "best", result(path, *events), {"path": "x", "problem": "broken", "fix": ""}, each=2)
    assert [name.split("_")[:2] for name in names] == [
        ["fox/00001", "0.720"], ["fox/00002", "0.660"], ["owl/00001", "0.750"], ["owl/00002", "0.690"]
    ]  # fmt: skip
    spread = cut(tmp_path / "spread", result(path, *events), each=2, spread=True)
    scores = [float(name.split("_")[1]) for name in spread]
    assert len(spread) == 4 and scores[0] > 0.51 >= scores[1] and scores[2] > 0.54 >= scores[3]
    assert cut(tmp_path / "again", result(path, *events), each=2, spread=True) == spread


def test_borders_and_names(tmp_path):
    path = record(tmp_path / "night.flac")
    records = result(path, (0.1, 0.5, "a/b", 0.9), (9.5, 10.0, "A:b", 0.8), (5, 6, "..", 0.7), (7, 8, "x" * 300, 0.6))
    names = cut(tmp_path / "out", records, pad_s=1)
    folders = {name.partition("/")[0] for name in names}
    assert len(names) == len(folders) == 4 and {"_", "a_b"} < {folder.casefold() for folder in folders}
    lengths = sorted(soundfile.info(tmp_path / "out" / name).duration for name in names)
    assert lengths == [1.5, 1.5, 3.0, 3.0]  # no more than there is
    assert len(cut(tmp_path / "stdin", result("-", (1, 2, "owl", 0.9)), files={"-": str(path)})) == 1


def test_a_recording_that_is_gone_is_named(tmp_path, caplog):
    caplog.set_level("INFO", "aumcli")
    path = record(tmp_path / "night.wav")
    names = cut(tmp_path / "out", result("gone.wav", (1, 2, "owl", 0.9)), result(path, (1, 2, "owl", 0.8)))
    assert len(names) == 1 and "gone.wav are not cut out: gone.wav doesn't exist" in caplog.text
    assert "wrote 1 event of 1 class" in caplog.text


def test_where_clips_may_lie(aum, trained, tmp_path):
    sound(tmp_path / "a.wav", 300.0)
    (tmp_path / "full" / "x").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    call = ("predict", tmp_path / "a.wav", "--model", trained, "--threshold", "0.5")
    assert aum(*call, "--clips", tmp_path / "empty").code == 0 and list((tmp_path / "empty").rglob("*.wav"))
    assert "exists already" in aum(*call, "--clips", tmp_path / "full").err
    for more in (("--out", f"{tmp_path / 'new'}/"), ("--html", tmp_path / "new" / "p.html")):
        assert "lies where events are cut out" in aum(*call, "--clips", tmp_path / "new", *more).err
    assert aum("predict", "--join", "--out", tmp_path / "all.csv", "--clips", tmp_path / "full").code == 2
    assert aum(*call, "--review", "5").code == 2


def test_a_sample_for_review(tmp_path):
    events = [(0.5 * i, 0.5 * i + 0.4, "owl" if i % 2 else "fox", round(0.3 + 0.03 * i, 3)) for i in range(16)]
    records = [
        result("a.wav", *events),
        result("b.wav"),
        result("c.wav", (1, 2, "rain", 0.4)),
        {"path": "x", "problem": ""},
    ]
    first, second = sample_events(lambda: iter(records), 6)
    assert first["path"] == "a.wav" and second["path"] == "c.wav" and second["others"] == []
    assert len(first["events"]) == 4 and len(first["others"]) == 12
    assert {event["label"] for event in first["events"]} == {"owl", "fox"}
    times = [[event["start_s"], event["stop_s"]] for event in first["events"]]
    assert sorted([*times, *first["others"]]) == [[start, stop] for start, stop, *_ in events]


def test_no_events(tmp_path):
    assert cut(tmp_path / "out", result("night.wav")) == [] and (tmp_path / "out").is_dir()


def test_the_command(aum, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, hz in CLASSES.items():
        sound(Path("rec") / f"{name}.wav", hz, seconds=2, seed=5)
    call = ("predict", "rec", "--model", trained, "--threshold", "0.5")
    done = aum(*call, "--clips", "cut", "--scores", "s.parquet", "--out", "all.csv")
    assert done.code == 0 and "events of 3 classes to cut" in done.err, done.err
    assert {path.name for path in Path("cut").iterdir()} == set(CLASSES)
    assert "high" in done.out + Path("all.csv").read_text()
    again = aum(*call, "--clips", "cut")
    assert again.code == 2 and "cut exists already" in again.err
    assert aum("predict", "--from-scores", "s.parquet", "--threshold", "0.5", "--clips", "cut2").code == 0
    first, second = (sorted(path.relative_to(name) for path in Path(name).rglob("*.wav")) for name in ("cut", "cut2"))
    assert first == second and first
    printed = aum(*call, "--clips", "cut3", "--clips-each", "1", "--clips-pad", "0", "--clips-spread")
    assert "high.wav" in printed.out and len(list(Path("cut3").rglob("*.wav"))) == 3
    alone = aum(*call, "--clips-each", "1")
    assert alone.code == 2 and "need --clips" in alone.err
    assert not list(Path().glob("*.journal")) and not list(Path().glob("*part*"))

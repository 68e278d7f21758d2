"""Scores of windows that are kept: the file, results from it without scoring again, breaks, embeddings of windows."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, sound

from aumcli.predict import score_files as module
from aumcli.predict.events import Events
from aumcli.predict.journal import ResultsJournal

parquet = pytest.importorskip("pyarrow.parquet")
pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    for name in ("AUM_MODEL", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def rec():
    """Short clips, longer ones whose classes alternate, one below a window, and two bad files between them."""
    for name, hz in CLASSES.items():
        sound(Path("rec") / f"{name}.wav", hz, seed=5)
    for number in range(3):
        sound(
            Path(f"rec/deep/{number}.wav"),
            [*CLASSES.values()][number],
            seconds=5.1 + number,
            seed=number,
            rate_hz=11025,
        )
    sound(Path("rec/tiny.wav"), 300.0, seconds=0.0123)
    for name in ("rec/bad.wav", "rec/worse.wav"):
        Path(name).write_text("no sound")
    return "rec"


@pytest.fixture
def predict(aum, trained):
    """`aum predict` with the tests' model."""
    return lambda *arguments: aum("predict", "--model", trained, *arguments)


def of_windows(path):
    file = parquet.ParquetFile(path)
    return file.read(), json.loads(file.schema_arrow.metadata[b"aumcli"])


def test_a_row_for_each_window(predict, rec, trained):
    from aumcli.classifier import load_model
    from aumcli.data.decoding.audio import load_audio

    result = predict(rec, "--scores", "s.parquet", "--out", "r.json", "--threshold", 0.4, "--smooth", 3, "--hop", 0.1)
    assert (
        result.code == 1 and "wrote s.parquet" in result.err and sorted(os.listdir()) == ["r.json", "rec", "s.parquet"]
    )
    table, facts = of_windows("s.parquet")
    document, model = json.loads(Path("r.json").read_text()), load_model(trained)
    assert facts["labels"] == model.labels == table.column_names[-3:] and {
        str(table.schema.field(label).type) for label in model.labels
    } == {"float"}
    assert {name: facts[name] for name in document if name not in ("clips", "failed")} == {
        name: value for name, value in document.items() if name not in ("clips", "failed")
    }
    assert (facts["threshold"], facts["smooth"], facts["hop_s"]) == (0.4, 3, 0.1) and [
        each["place"] for each in facts["failed"]
    ] == [0, 8]
    rows = table.to_pylist()
    for clip in document["clips"]:
        own = [row for row in rows if row["path"] == clip["path"]]
        assert (
            len(own) == clip["windows"]
            and own[0]["start_s"] == 0
            and own[-1]["stop_s"] == pytest.approx(clip["duration_s"], abs=2e-4)
        )
        assert (
            all(row["start_s"] == pytest.approx(0.1 * i) for i, row in enumerate(own[:-1]))
            and own[-1]["stop_s"] <= clip["duration_s"]
        )
        for label in clip["labels"]:
            assert np.mean([row[label["label"]] for row in own]) == pytest.approx(label["score"], abs=1e-5)
    window = load_audio("rec/low.wav", facts["sample_rate_hz"])[0][: model.window_samples[0]]
    (first,) = [row for row in rows if row["path"] == "rec/low.wav" and row["start_s"] == 0]
    np.testing.assert_allclose([first[label] for label in model.labels], model.score_windows([window])[0], atol=1e-5)


DECISIONS = [
    (),
    ("--threshold", 0.35),
    ("--threshold", 0.35, "--smooth", 5, "--top", 2),
    ("--threshold", 0.4, "--max-gap", 0.4),
    ("--threshold", 0.5, "--max-gap", 0.2, "--min-duration", 0.6, "--smooth", 3),
    ("--min-duration", 5.1),
]


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv", "r.parquet"])
def test_the_same_bytes_without_scoring_again(predict, aum, rec, decision, name, monkeypatch):
    assert predict(rec, "--scores", "s.parquet", "--threshold", 0.9, "--hop", 0.1, "--batch", 5).code == 1
    assert predict(rec, "--out", "direct-" + name, "--hop", 0.1, "--batch", 7, *decision).code == 1
    monkeypatch.setattr(module, "GROUP_ROWS", 13)  # clips go over several of the pieces that are read
    monkeypatch.setattr("aumcli.classifier.Classifier.score_windows", None)
    result = aum("predict", "--from-scores", "s.parquet", "--out", "again-" + name, *decision)
    assert result.code == 1 and "bad.wav is not audio" in result.err and "worse.wav is not audio" in result.err
    assert Path("again-" + name).read_bytes() == Path("direct-" + name).read_bytes()


@pytest.mark.parametrize("kind", ["table", "raven", "csv"])
def test_the_same_text_is_printed(predict, aum, rec, kind):
    direct = predict(rec, "--scores", "s.parquet", "--format", kind, "--threshold", 0.3)
    assert aum("predict", "--from-scores", "s.parquet", "--format", kind, "--threshold", 0.3).out == direct.out != ""


def test_the_same_files_for_each_input_and_the_same_page(predict, aum, rec):
    predict(
        rec,
        "--scores",
        "s.parquet",
        "--out",
        "direct/",
        "--format",
        "audacity",
        "--html",
        "direct.html",
        "--threshold",
        0.3,
    )
    aum(
        "predict",
        "--from-scores",
        "s.parquet",
        "--out",
        "again/",
        "--format",
        "audacity",
        "--html",
        "again.html",
        "--threshold",
        0.3,
    )
    files = sorted(path.relative_to("direct") for path in Path("direct").rglob("*.txt"))
    assert len(files) == 7 and all(
        Path("direct", path).read_bytes() == Path("again", path).read_bytes() for path in files
    )
    assert Path("again.html").read_bytes() == Path("direct.html").read_bytes()


def test_names_and_labels_of_any_text(predict, aum):
    assert module.class_columns(["path", "path_", "dog", "stop_s", "a.b"]) == [
        "path_",
        "path__",
        "dog",
        "stop_s_",
        "a.b",
    ]
    sound(Path("plain.wav"), 300.0).rename(os.fsdecode(b"caf\xe9 .wav"))
    predict(".", "--scores", "s.parquet", "--out", "direct.json")
    aum("predict", "--from-scores", "s.parquet", "--out", "again.json")
    assert "caf\\xe9" in of_windows("s.parquet")[0].column("path")[0].as_py()
    assert Path("again.json").read_bytes() == Path("direct.json").read_bytes()


def test_long_recordings_are_written_in_row_groups(predict, monkeypatch):
    sound(Path("long.wav"), 300.0, seconds=20)
    predict("long.wav", "--hop", 0.05, "--scores", "one.parquet")
    monkeypatch.setattr(module, "GROUP_ROWS", 50)
    monkeypatch.setattr("aumcli.predict.window_store.READ_BYTES", 1000)
    predict("long.wav", "--hop", 0.05, "--scores", "many.parquet")
    file = parquet.ParquetFile("many.parquet")
    assert file.metadata.num_row_groups >= file.metadata.num_rows // 100 >= 3
    assert file.read().equals(parquet.read_table("one.parquet"))


class Killed(BaseException):
    pass


def test_broken_off_and_resumed_the_file_is_the_same(predict, monkeypatch):
    for number in range(30):
        sound(
            Path("many") / f"{number:02d}.wav",
            [*CLASSES.values()][number % 3],
            seconds=(0.3, 0.5, 1.4)[number % 3],
            seed=number,
        )
    options = ("--batch", 4, "--embed", "e.parquet", "--embed-windows")
    predict("many", "--scores", "once.parquet", *options)
    expected = Path("once.parquet").read_bytes(), Path("e.parquet").read_bytes()
    append, calls = ResultsJournal.append, []

    def killed(self, *arguments):
        calls.append(None)
        if len(calls) == 5:  # its windows are in the store already
            raise Killed
        append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(ResultsJournal, "append", killed)
        with pytest.raises(Killed):
            predict("many", "--scores", "s.parquet", *options)
    left = next(path for path in Path().iterdir() if path.name.endswith(".windows"))
    assert "made with --scores" in predict("many", *options, "--resume").err
    content = left.read_bytes()
    for damaged in (content, content[: len(content) // 2]):  # as it was, and after a loss of power
        left.write_bytes(damaged)
        for path in ("s.parquet", "e.parquet"):
            Path(path).unlink(missing_ok=True)
        result = predict("many", "--scores", "s.parquet", *options, "--resume")
        assert result.code == 0 and (Path("s.parquet").read_bytes(), Path("e.parquet").read_bytes()) == expected
        assert ("were lost" in result.err) == (len(damaged) < len(content))
    sound(Path("many/07.wav"), 300.0, seconds=0.9)  # what is changed is scored again, and stands where it stood
    assert "1 clip," in predict("many", "--scores", "s.parquet", *options, "--resume").err
    paths = of_windows("s.parquet")[0].column("path").to_pylist()
    assert paths == sorted(paths)


def test_embeddings_of_windows(predict, rec, trained):
    predict(rec, "--embed", "clips.parquet")
    result = predict(rec, "--embed", "windows.parquet", "--embed-windows", "--out", "r.json")
    assert result.code == 1 and not list(Path().glob("*.windows"))
    clips = {row["path"]: row["embedding"] for row in parquet.read_table("clips.parquet").to_pylist()}
    rows = parquet.read_table("windows.parquet").to_pylist()
    assert {*rows[0]} == {"path", "start_s", "stop_s", "embedding"}
    for clip in json.loads(Path("r.json").read_text())["clips"]:
        own = [row for row in rows if row["path"] == clip["path"]]
        assert len(own) == clip["windows"] and own[0]["start_s"] == 0
        np.testing.assert_allclose(np.mean([row["embedding"] for row in own], axis=0), clips[clip["path"]], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("rec", "--scores", "s.csv"), "s.csv"),
        (("rec", "--embed", "e.npy", "--embed-windows"), "e.npy"),
        (("rec", "--embed-windows"), "--embed"),
        (("--from-scores", "gone.parquet"), "gone.parquet"),
        (("--from-scores", "rec/low.wav"), "--scores"),
        (("--from-scores", "other.parquet"), "--scores"),
        (("--from-scores", "s.parquet", "rec", "--hop", 0.1), "sounds, --hop"),
        (("--from-scores", "s.parquet", "--resume", "--out", "r.json"), "--resume"),
        (("--from-scores", "s.parquet", "--embed", "e.npy"), "--embed"),
        (("--from-scores", "s.parquet", "--out", "s.parquet"), "overwritten"),
        (("rec", "--min-duration", -1), "--min-duration"),
        (("rec", "--scores", "s2.parquet", "--out", "s2.parquet"), "twice"),
    ],
)
def test_mistakes_in_the_call(predict, aum, rec, arguments, words):
    predict("rec/low.wav", "--scores", "s.parquet", "--out", "other.parquet")
    before = Path("s.parquet").read_bytes()
    result = aum("predict", *arguments)
    assert (
        result.code == 2 and words in result.err and "fix: " in result.err and Path("s.parquet").read_bytes() == before
    )


def test_several_processes_are_refused(predict, rec, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = predict(rec, "--scores", "s.parquet", "--out", "r.json")
    assert result.code == 2 and "2 processes" in result.err
    result = predict("--join", "--scores", "s.parquet", "--out", "r.json")
    assert result.code == 2 and "--scores" in result.err


def test_a_missing_package_names_the_extra(predict, rec, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "aumcli[data]" in predict(rec, "--scores", "s.parquet").err
    assert "aumcli[data]" in predict(rec, "--embed", "e.parquet", "--embed-windows").err


# gaps and durations


@pytest.mark.parametrize(
    "max_gap, expected",
    [(0, [(0, 10), (15, 25), (40, 50)]), (4, [(0, 10), (15, 25), (40, 50)]), (5, [(0, 25), (40, 50)]), (15, [(0, 50)])],
)
def test_gaps_up_to_the_largest_are_closed(max_gap, expected):
    events = Events(np.array([0.5], dtype=np.float32), 1, max_gap)
    for i, score in enumerate([0.9, 0.1, 0.1, 0.8, 0.1, 0.1, 0.1, 0.1, 0.7]):
        events.add(i * 5, i * 5 + 10, np.array([score], dtype=np.float32))
    assert [event[:2] for event in events.finish()] == expected


def test_short_events_are_left_out_after_joining(predict):
    sound(Path("a.wav"), 300.0, seconds=6, seed=2)
    options = ("a.wav", "--format", "json", "--hop", 0.1, "--threshold", 0.6)

    def events(*more):
        return json.loads(predict(*options, *more).out)["clips"][0]["events"]

    every = events()
    lengths = [event["stop_s"] - event["start_s"] for event in every]
    least = max(lengths)
    assert least > 0 and events("--min-duration", 0) == every
    kept = events("--min-duration", round(least, 6))
    assert kept == [event for event, length in zip(every, lengths) if round(length, 6) >= round(least, 6)]
    assert events("--min-duration", 6.5) == []
    assert json.loads(predict(*options, "--min-duration", 2, "--max-gap", 1).out)["min_duration_s"] == 2.0
    assert "max_gap_s" not in json.loads(predict(*options).out)

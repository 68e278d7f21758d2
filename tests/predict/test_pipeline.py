"""The command as a person uses it: every output, broken off and resumed, in parts by several processes, every input."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, RATE_HZ, sound

from aumcli.data.decoding.audio import load_audio
from aumcli.predict import writers
from aumcli.predict.inputs import Source, find_clips, share
from aumcli.predict.journal import ResultsJournal
from aumcli.utils.journal import SUFFIX, Journal

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    for name in ("AUM_MODEL", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def rec(tmp_path):
    """Three clips and a longer one, a bad file, in two folders; relative to where the test runs."""
    for name, hz in CLASSES.items():
        sound(Path("rec") / f"{name}.wav", hz, seed=5)
    sound(Path("rec/deep/long; 'quoted'.wav"), 300.0, seconds=3, seed=1)
    Path("rec/bad.wav").write_text("no sound")
    return "rec"


@pytest.fixture
def predict(aum, trained):
    """`aum predict` with the tests' model."""
    return lambda *arguments: aum("predict", "--model", trained, *arguments)


def read_json(path):
    return json.loads(Path(path).read_text())


# outputs


def test_json_jsonl_csv_and_parquet_say_the_same(predict, rec):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("r.json", "r.jsonl", "r.csv", "r.parquet"):
        result = predict(rec, "--out", name, "--top", 2)
        assert (
            result.code == 1
            and result.out == ""
            and f"wrote {name}" in result.err
            and "bad.wav is not audio" in result.err
        )
    document = read_json("r.json")
    lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [line.pop("schema") for line in lines] == [document["schema"]] * 5 == [1] * 5
    assert [line for line in lines if "labels" in line] == document["clips"] and [
        line for line in lines if "problem" in line
    ] == document["failed"]
    assert [Path(line["path"]).name for line in lines] == [
        "bad.wav",
        "long; 'quoted'.wav",
        "high.wav",
        "hiss.wav",
        "low.wav",
    ]
    assert len(document["clips"][0]["events"]) >= 1 and document["clips"][0]["windows"] > 3
    rows = [
        tuple(None if value is None else str(value) for value in row) for line in lines for row in writers.rows_of(line)
    ]
    with open("r.csv", newline="") as file:
        header, *got = csv.reader(file)
    assert tuple(header) == writers.COLUMNS and [tuple(value or None for value in row) for row in got] == rows
    table = parquet.read_table("r.parquet")
    assert [
        tuple(None if row[name] is None else str(row[name]) for name in writers.COLUMNS) for row in table.to_pylist()
    ] == rows
    assert json.loads(table.schema.metadata[b"aumcli"]) == {
        key: document[key] for key in document if key not in ("clips", "failed")
    }


def test_printed_formats_are_those_of_files(predict, rec):
    for kind in ("json", "jsonl", "csv", "raven"):
        printed = predict(rec, "--format", kind)
        predict(rec, "--format", kind, "--out", f"r.{kind}")
        assert Path(f"r.{kind}").read_text() == printed.out != ""


def test_a_printed_table_fits_the_terminal_and_a_file_has_all(predict, rec, monkeypatch):
    deep = sound(Path(rec) / "/".join(["a folder of many words"] * 4) / "clip.wav", 300.0)
    monkeypatch.setenv("COLUMNS", "80")
    predict(rec, "--out", "piped.txt", "--format", "table")
    assert str(deep) in predict(rec).out  # no terminal, nothing shortened
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = predict(rec).out.splitlines()
    assert max(map(len, lines)) <= 80 and any("…" in line and "clip.wav" in line for line in lines)
    predict(rec, "--out", "terminal.txt", "--format", "table")
    assert (
        Path("terminal.txt").read_text() == Path("piped.txt").read_text() and str(deep) in Path("piped.txt").read_text()
    )


def test_audacity_labels_and_raven_tables(predict, rec):
    result = predict("rec/deep", "--format", "audacity", "--threshold", 0.2, "--hop", 0.1)
    lines = [line.split("\t") for line in result.out.splitlines()]
    assert lines and all(
        0 <= float(start) < float(stop) <= 3 and label.split()[0] in CLASSES for start, stop, label in lines
    )
    rows = list(csv.DictReader(io.StringIO(predict(rec, "--format", "raven", "--threshold", 0.2).out), delimiter="\t"))
    assert tuple(rows[0]) == writers.RAVEN_COLUMNS and [int(row["Selection"]) for row in rows] == list(
        range(1, len(rows) + 1)
    )
    assert {row["High Freq (Hz)"] for row in rows} == {"4000.000"}
    starts = {"rec/deep/long; 'quoted'.wav": 0, "rec/high.wav": 3, "rec/hiss.wav": 3.5, "rec/low.wav": 4}
    assert {row["Begin Path"] for row in rows} <= set(starts)
    for row in rows:  # times run on through the files
        assert float(row["Begin Time (s)"]) == pytest.approx(starts[row["Begin Path"]] + float(row["File Offset (s)"]))
    result = predict(rec, "--format", "audacity")
    assert result.code == 2 and "belong to one recording" in result.err


def test_a_file_for_each_input(predict, rec):
    Path("results").mkdir()
    Path("results/bad.wav.txt").write_text("of an earlier call")
    result = predict(rec, "--out", "results/", "--format", "audacity", "--threshold", 0.3)
    assert result.code == 1
    assert sorted(path.relative_to("results").as_posix() for path in Path("results").rglob("*.txt")) == [
        "deep/long; 'quoted'.wav.txt",
        "high.wav.txt",
        "hiss.wav.txt",
        "low.wav.txt",
    ]
    assert Path("results/low.wav.txt").read_text().startswith("0.000000\t0.500000\tlow 0.")
    assert not list(Path().glob("*.journal"))
    predict(rec, "--out", "documents/")
    assert (
        read_json("documents/bad.wav.json")["failed"][0]["fix"]
        and read_json("documents/low.wav.json")["clips"][0]["labels"]
    )
    result = predict("rec/low.wav", "rec/deep/../low.wav", "--out", "results/")
    assert result.code == 2 and "would both be written" in result.err


def test_the_table_shows_events_of_long_clips(predict, rec):
    lines = predict("rec/deep", "--threshold", 0.3, "--top", 1).out.splitlines()
    assert lines[0].split() == ["clip", "start_s", "stop_s", "label", "score"] and len(lines) >= 3


def test_long_lists_are_printed_in_pieces(predict, rec, monkeypatch):
    monkeypatch.setattr(writers, "TABLE_ROWS", 2)
    lines = predict("rec/high.wav", "rec/low.wav", "rec/hiss.wav", "rec/low.wav", "--top", 1).out.splitlines()
    assert [line.split()[0] for line in lines] == ["clip", "rec/high.wav", "rec/low.wav", "rec/hiss.wav", "rec/low.wav"]


def test_embeddings(predict, rec, trained):
    from aumcli.classifier import load_model

    parquet = pytest.importorskip("pyarrow.parquet")
    assert predict(rec, "--embed", "e.npy").code == 1
    assert predict(rec, "--embed", "e.parquet", "--out", "r.csv").code == 1
    vectors, about = np.load("e.npy"), read_json("e.json")
    model = load_model(trained)
    assert vectors.shape == (4, model.config.model.width) and vectors.dtype == np.float32
    table = parquet.read_table("e.parquet")
    assert table.column("path").to_pylist() == about["paths"] == [row["path"] for row in _clips(predict, rec)]
    assert np.array_equal(np.array(table.column("embedding").to_pylist(), dtype=np.float32), vectors)
    import torch

    for path, vector in zip(about["paths"], vectors):
        features = [
            model.frontend(torch.from_numpy(window)[None]) for window in model.windows(load_audio(path, RATE_HZ)[0])
        ]
        np.testing.assert_allclose(vector, model.embed(torch.cat(features)).mean(0), atol=1e-5)
    assert predict(rec, "--embed", "e.txt").code == 2


def _clips(predict, rec):
    return json.loads(predict(rec, "--format", "json").out)["clips"]


def test_speed_is_said(predict, rec):
    err = predict("rec/low.wav").err
    assert "1 clip, 0.5 s of sound in" in err and "clips/s, real-time factor" in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--out", "r.xyz"), "doesn't say which format"),
        (("--format", "xml"), "no format xml"),
        (("--format", "parquet"), "no text"),
        (("--out", "rec/low.wav/r.json"), "can't write"),
        (("--window", "0"), "window_s"),
        (("--smooth", 4), "--smooth"),
        (("--window", 0.2, "--hop", 0.3), "windows of 0.2 s"),
        (("--whole", "--hop", 0.3), "--whole"),
    ],
)
def test_mistakes_in_the_call(predict, rec, arguments, words):
    result = predict("rec/low.wav", *arguments)
    assert result.code == 2 and words in result.err and "fix: " in result.err and not result.out


def test_a_missing_package_names_the_extra(predict, rec, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "aumcli[data]" in predict(rec, "--out", "r.parquet").err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = predict("--mic", 1)
    assert result.code == 2 and "aumcli[mic]" in result.err


# inputs


def test_patterns_lists_and_standard_input(predict, rec, monkeypatch):
    Path("list.txt").write_text("rec/low.wav\n\nrec/deep\n")
    paths = [source.path for source in find_clips(["rec/h*.wav", "rec/**/l*.wav"], "list.txt")]
    assert paths == [
        "rec/high.wav",
        "rec/hiss.wav",
        "rec/deep/long; 'quoted'.wav",
        "rec/low.wav",
        "rec/low.wav",
        "rec/deep/long; 'quoted'.wav",
    ]
    sound(Path("odd[1].wav"), 300.0)
    assert [source.path for source in find_clips(["odd[1].wav"])] == [
        "odd[1].wav"
    ]  # a file, whatever its name looks like
    assert "nothing matches" in predict("none*.wav").err and "can't read the list" in predict("--from", "gone.txt").err
    assert "nothing to label" in predict().err
    with open("rec/low.wav", "rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        document = json.loads(predict("-", "--format", "json").out)
    assert [clip["path"] for clip in document["clips"]] == ["-"] and document["clips"][0]["labels"][0]["label"] == "low"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"no sound")))
    result = predict("-")
    assert result.code == 1 and "error: - is not audio" in result.err and "aum-" not in result.err


def test_the_microphone(predict, monkeypatch):
    class Stream:
        def __init__(self, rate_hz, channels, dtype):
            assert (rate_hz, channels, dtype) == (44100, 1, "float32")
            self.place = 0

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def read(self, count):
            t = self.place + np.arange(count)
            self.place += count
            noise = 0.05 * np.random.default_rng(self.place).standard_normal(count)
            return (0.3 * np.sin(2 * np.pi * 300 * t / 44100) + noise).astype(np.float32)[:, None], False

    class Module:
        PortAudioError = OSError
        InputStream = Stream

        @staticmethod
        def query_devices(kind):
            return {"default_samplerate": 44100.0}

    monkeypatch.setitem(sys.modules, "sounddevice", Module)
    (clip,) = json.loads(predict("--mic", 0.5, "--format", "json").out)["clips"]
    assert (clip["path"], clip["duration_s"], clip["labels"][0]["label"]) == ("microphone", 0.5, "low")
    Module.query_devices = staticmethod(lambda kind: (_ for _ in ()).throw(OSError("no device")))
    result = predict("--mic", 0.5)
    assert result.code == 1 and "can't record from the microphone: no device" in result.err


def test_everyday_and_rare_formats(predict):
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(24000) / 48000) + 0.05 * np.random.default_rng(0).standard_normal(
        24000
    )
    Path("in").mkdir()
    for name, kind, subtype in (
        ("a.wav", "WAV", "PCM_U8"),
        ("b.wav", "WAV", "PCM_24"),
        ("c.flac", "FLAC", "PCM_24"),
        ("d.ogg", "OGG", "VORBIS"),
        ("e.opus", "OGG", "OPUS"),
        ("f.mp3", "MP3", "MPEG_LAYER_III"),
        ("g.aiff", "AIFF", "PCM_32"),
        ("h.w64", "W64", "DOUBLE"),
        ("i.rf64", "RF64", "PCM_16"),
    ):
        soundfile.write(f"in/{name}", np.stack([tone, tone], 1), 48000, format=kind, subtype=subtype)
    Path("in/j.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    document = json.loads(predict("in", "--format", "json").out)
    assert [clip["labels"][0]["label"] for clip in document["clips"]] == ["low"] * 9
    assert "ffmpeg -i in/j.m4a in/j.wav" in document["failed"][0]["fix"]


@pytest.mark.parametrize(
    "rate_hz, channels, words", [(2_000_000, 1, "a rate in Hz of 2,000,000"), (8000, 300, "channels of 300")]
)
def test_absurd_headers_are_refused(predict, rate_hz, channels, words):
    soundfile.write("a.wav", np.zeros((10, channels)), rate_hz)
    result = predict("a.wav")
    assert result.code == 1 and words in result.err


# broken off and resumed


def many(count):
    for number in range(count):
        sound(
            Path("many") / f"{number:03d}.wav",
            [*CLASSES.values()][number % 3],
            seconds=(0.3, 0.5, 1.4)[number % 3],
            seed=number,
        )
    return "many"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["r.json", "r.csv", "folder/"])
def test_resumed_output_is_the_uninterrupted_one(predict, name, monkeypatch):
    folder, options = many(40), ("--batch", 4, "--threshold", 0.4)
    assert predict(folder, "--out", "once-" + name, *options).code == 0
    append, calls, left = ResultsJournal.append, [], {}

    def killed(self, records, *places_and_fingerprints):
        if len(calls) == 4:  # half of a group reaches the disk: what lies there then is kept as a kill leaves it
            database = self._journal._db
            database.execute("PRAGMA cache_size=1")
            database.execute("BEGIN")
            for key in range(self._next - 2, self._next + 1000):
                half = json.dumps(
                    {"path": "many/020.wav", "size": 1, "mtime_ns": 1, "ends_group": False} | {"x": "x" * 999}
                )
                database.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, half.encode()))
            left.update({path: path.read_bytes() for path in self.path.parent.glob(self.path.name + "*")})
            raise Killed
        calls.append(len(records))
        append(self, records, *places_and_fingerprints)

    with monkeypatch.context() as patch:
        patch.setattr(ResultsJournal, "append", killed)
        with pytest.raises(Killed):
            predict(folder, "--out", name, *options)
    journal, beside_it = sorted(left)
    assert beside_it.name == journal.name + SUFFIX and b"x" * 500 in left[journal]
    for path, content in left.items():
        path.write_bytes(content)
    result = predict(folder, "--out", name, *options)
    assert result.code == 2 and "--resume" in result.err  # nothing is thrown away unasked
    result = predict(folder, "--out", name, "--resume", *options)
    assert result.code == 0 and f"{40 - sum(calls)} clips, " in result.err and "damaged" not in result.err
    for path in [Path(name)] if not name.endswith("/") else sorted(Path(name).rglob("*.json")):
        assert path.read_bytes() == Path(f"once-{path}").read_bytes()
    assert not beside_it.exists()


def results_in(journal):
    """How many results a journal has that another process is writing."""
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?immutable=1", uri=True)) as database:
            return database.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.DatabaseError:  # there is none yet, or it is just being written
        return 0


def test_only_what_is_new_or_changed_is_done_again(predict):
    folder = many(6)
    (Path(folder) / "003.wav").write_text("no sound")
    assert predict(folder, "--out", "r.jsonl", "--resume").code == 1
    result = predict(folder, "--out", "r.jsonl", "--resume")
    assert result.code == 1 and "0 clips, " in result.err and "003.wav is not audio" in result.err  # still named
    sound(Path(folder) / "003.wav", 300.0)
    sound(Path(folder) / "001b.wav", 300.0)
    os.utime(Path(folder) / "005.wav", ns=(1, 1))
    result = predict(folder, "--out", "r.jsonl", "--resume")
    assert result.code == 0 and "3 clips, " in result.err
    got = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert [Path(clip["path"]).name for clip in got] == [
        "000.wav",
        "001.wav",
        "001b.wav",
        "002.wav",
        "003.wav",
        "004.wav",
        "005.wav",
    ]
    predict(folder, "--out", "fresh.jsonl")
    fresh = [json.loads(line) for line in Path("fresh.jsonl").read_text().splitlines()]
    for a, b in zip(got, fresh):
        assert a["labels"][0]["label"] == b["labels"][0]["label"] and a["labels"][0]["score"] == pytest.approx(
            b["labels"][0]["score"], abs=1e-5
        )
    result = predict(folder, "--out", "r.jsonl", "--resume", "--hop", 0.1)
    assert result.code == 2 and "r.jsonl.journal was made with --hop 0.2675, this call says 0.1" in result.err


def test_killed_for_real(predict, trained):
    """SIGKILL in the middle, whatever the process was about to do."""
    many(400)
    command = [sys.executable, "-m", "aumcli", "predict", "many", "--model", str(trained), "--batch", "4", "--out"]
    predict("many", "--batch", 4, "--out", "once.csv")
    process = subprocess.Popen(
        [*command, "killed.csv"], stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    journal, until = Path("killed.csv.journal"), time.monotonic() + 60
    while not journal.exists() or results_in(journal) < 30:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("killed.csv").exists() and 30 <= results_in(journal) < 400
    assert predict("many", "--batch", 4, "--out", "killed.csv", "--resume").code == 0
    assert Path("killed.csv").read_bytes() == Path("once.csv").read_bytes()


# several processes


def test_parts_join_into_what_one_process_writes(predict, monkeypatch):
    folder = many(20)
    (Path(folder) / "007.wav").write_text("no sound")
    predict(folder, "--out", "once.json")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "0")
    assert "can't print into each other" in predict(folder).err
    for rank in (2, 0):
        monkeypatch.setenv("RANK", str(rank))
        result = predict(folder, "--out", "r.json")
        assert "aum predict --join --out r.json" in result.err
    result = predict("--join", "--out", "r.json")
    assert result.code == 1 and "r.json.part-2-of-3 is missing" in result.err
    monkeypatch.setenv("RANK", "1")
    result = predict(folder, "--out", "r.json")
    assert result.code == 0 and "1 failed" in result.err  # torchrun would stop the others
    result = predict("--join", "--out", "r.json")
    assert result.code == 1 and "007.wav is not audio" in result.err and not list(Path().glob("r.json.*"))
    once, joined = read_json("once.json"), read_json("r.json")
    assert joined["failed"] == once["failed"] and [clip["path"] for clip in joined["clips"]] == [
        clip["path"] for clip in once["clips"]
    ]
    for a, b in zip(joined["clips"], once["clips"]):
        assert {label["label"]: pytest.approx(label["score"], abs=1e-5) for label in a["labels"]} == {
            label["label"]: label["score"] for label in b["labels"]
        }
        assert [event["label"] for event in a["events"]] == [event["label"] for event in b["events"]]
    assert predict("--join", "--out", "r.json").code == 2  # they are gone


def test_shares_join_byte_for_byte(predict, monkeypatch):
    """Whatever the number of shares, and in whatever order they are labelled, and also by tasks of a Slurm array."""
    folder = many(40)
    sound(Path(folder) / "long.wav", 300.0, seconds=40)
    (Path(folder) / "007.wav").write_text("no sound")
    assert predict(folder, "--out", "once.json").code == 1
    for count in (2, 7):
        for place in range(count, 0, -1):
            assert predict(folder, "--out", "r.json", "--part", f"{place}/{count}").code == 0
        assert predict("--join", "--out", "r.json").code == 1
        assert Path("r.json").read_bytes() == Path("once.json").read_bytes()
    for name, value in (("MIN", 3), ("MAX", 5), ("COUNT", 3)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    for number in (5, 3, 4):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(number))
        predict(folder, "--out", "s.json", "--part", "slurm")
    assert predict("--join", "--out", "s.json").code == 1
    assert Path("s.json").read_bytes() == Path("once.json").read_bytes()


def test_shares_that_do_not_belong_together(predict, monkeypatch):
    folder = many(6)
    predict(folder, "--out", "r.json", "--part", "1/2")
    (Path(folder) / "005.wav").unlink()
    predict(folder, "--out", "r.json", "--part", "2/2")
    assert "of different lists of sounds" in predict("--join", "--out", "r.json").err
    for wrong in ("0/2", "3/2", "1", "a/b", "1/-2", "slurm"):
        result = predict(folder, "--out", "r.json", "--part", wrong)
        assert result.code == 2 and "fix:" in result.err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "use one of them" in predict(folder, "--out", "r.json", "--part", "1/2").err


def test_a_damaged_part_is_said(predict):
    folder = many(4)
    predict(folder, "--out", "r.json", "--part", "1/2")
    predict(folder, "--out", "r.json", "--part", "2/2")
    part = Path("r.json.part-1-of-2")
    whole = part.read_text()
    for text in ("{}\n", "nonsense", whole[: whole.index("\n") + 1]):
        part.write_text(text)
        result = predict("--join", "--out", "r.json")
        assert result.code == 1 and "r.json.part-1-of-2 is damaged" in result.err


def test_blocks_of_a_list(tmp_path):
    small = [Source.of(sound(tmp_path / f"{i}.wav", 300.0, seconds=0.1)) for i in range(40)]
    assert [*share(small).blocks] == [i // 2 for i in range(40)]
    assert set(share(small * 100).blocks) == set(range(32)) and share(small[:3]).processes == 1
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(2**24))
    assert [*share([*small * 100, Source.of(large), *small]).blocks][3999:4002] == [31, 32, 33]
    inside = [Source.of(f"{large}::{i}") for i in range(3200)]  # of an HDF5 file nobody knows how large its sounds are
    assert [*share(inside).blocks] == [i // 128 for i in range(3200)]
    own = [share(small, (rank, 3)) for rank in range(3)]
    assert sorted(block for each in own for block in each.blocks) == [*share(small).blocks]
    assert len({each.digest for each in own}) == 1 and own[0].sources[2] == small[6]


def test_a_source_is_taken_as_it_is():
    source = Source("-", "stdin", "/elsewhere")
    assert Source.of(source) is source and Source.of("a/b.wav") == Source("a/b.wav", "b.wav", "a/b.wav")


def test_interrupted_it_says_how_to_go_on(predict, monkeypatch):
    def interrupt(self, records, places, fingerprints):
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultsJournal, "append", interrupt)
    result = predict(many(3), "--out", "r.json")
    assert result.code == 130 and "0 of 3 results are in r.json.journal" in result.err and "--resume" in result.err


def test_a_full_disk_keeps_what_was_done(predict, monkeypatch):
    put, calls = Journal.put, []

    def full(self, items):
        calls.append(len(items))
        if len(calls) == 3:
            limit_pages(self)
            items = [(key, value | {"more": "x" * 10_000}) for key, value in items]
        put(self, items)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "put", full)
        result = predict(many(12), "--out", "r.csv", "--batch", 2)
    assert result.code == 1 and result.err.count("error: ") == 1
    assert "no space left" in result.err and "r.csv.journal" in result.err
    result = predict("many", "--out", "r.csv", "--batch", 2, "--resume")
    assert result.code == 0 and f"{12 - sum(calls[:2])} clips, " in result.err


def limit_pages(journal):
    """Let SQLite find the disk full: the file can't grow any more."""
    database = journal._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count={pages}")


def test_help_tells_the_defaults_there_are():
    import typer

    from aumcli.cli import app
    from aumcli.config import PredictConfig

    helps = {option.name: option.help for option in typer.main.get_command(app).commands["predict"].params}
    for option, field in (("top", "top"), ("smooth", "smooth")):
        assert f"(default: {PredictConfig.model_fields[field].default})" in helps[option]
    assert "(default: half the cores, at most 4)" in helps["workers"]
    assert "(default: 64, or 128 of fewer than 48 tokens)" in helps["batch"]


@pytest.mark.parametrize(
    "options",
    [
        ("--out", "k.json", "--embed", "k.npy"),
        ("--out", "k.x", "--format", "csv", "--html", "./k.x"),
        ("--embed", "k.parquet", "--html", "k.parquet"),
    ],
)
def test_no_output_is_written_over_another(clips, aum, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    refused = aum("predict", clips, *options)
    assert refused.code == 2 and "written twice" in refused.err and not list(tmp_path.glob("k.*"))


def test_no_output_is_written_over_a_sound(clips, aum):
    sound = clips / "low.wav"
    before = sound.read_bytes()
    refused = aum("predict", clips, "--format", "csv", "--out", sound)
    assert refused.code == 2 and "one of the sounds" in refused.err and sound.read_bytes() == before


def test_printed_results_can_not_be_resumed(clips, aum):
    refused = aum("predict", clips, "--resume")
    assert refused.code == 2 and "--out" in refused.err

"""Where results are written to, by any name and by one call at a time; and what can't be gone on with says why."""

import csv
import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny import CLASSES, sound

from aumcli.predict import writers
from aumcli.predict.journal import ResultsJournal
from aumcli.utils.journal import Journal

pytest_plugins = ["aum_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("on_one_thread"),
    pytest.mark.skipif(os.name == "nt", reason="needs links, FIFOs and names of any bytes"),
]

NAMES = [
    b"caf\xe9.wav",
    b"cr\rhere.wav",
    b"tab\there.wav",
    b"line\nbreak.wav",
    b"esc\x1b[31m.wav",
    "é☃.wav".encode(),
    "e\u0301.wav".encode(),
    b"back\\xe9.wav",
    b"#?%41&.wav",
    b"-dash.wav",
    b" space .wav",
    b"quote\"'.wav",
    b"a" * 248 + b".wav",
    "é".encode() * 125 + b".wav",
]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    for name in ("AUM_MODEL", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, hz in CLASSES.items():
        sound(Path("rec") / f"{name}.wav", hz, seed=5)


@pytest.fixture
def predict(aum, trained):
    """`aum predict` with the tests' model."""
    return lambda *arguments: aum("predict", "--model", trained, *arguments)


@pytest.fixture
def odd():
    """A folder of sounds with names of any bytes."""
    Path("odd").mkdir()
    content = Path("rec/low.wav").read_bytes()
    for name in NAMES:
        Path("odd", os.fsdecode(name)).write_bytes(content)
    return Path("odd")


def shown(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def csv_paths(path: str) -> set[str]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["path"] for row in csv.DictReader(file)}


# links, FIFOs, devices


@pytest.mark.parametrize(
    "options",
    [
        ("--out", "l.json"),
        ("--out", "l.csv"),
        ("--out", "l.parquet"),
        ("--html", "l.html"),
        ("--embed", "l.npy"),
        ("--embed", "l.parquet"),
    ],
)
def test_links_are_followed(predict, options):
    name = options[1]
    Path("far").mkdir()
    Path(name).symlink_to(f"far/{name}")
    assert predict("rec", *options).code == 0
    link = Path(name)
    assert link.is_symlink() and Path("far", name).stat().st_size > 100
    predict("rec", options[0], f"plain{link.suffix}")
    if link.suffix != ".html":  # a page has paths relative to itself
        assert Path("far", name).read_bytes() == Path(f"plain{link.suffix}").read_bytes()
    assert sorted(path.name for path in Path("far").iterdir()) == [name]


@pytest.mark.parametrize(
    "options, suffix", [(("--out",), "jsonl"), (("--out",), "parquet"), (("--html",), "html"), (("--embed",), "npy")]
)
def test_a_fifo_gets_what_a_file_would(predict, options, suffix):
    os.mkfifo(f"f.{suffix}")
    got = []
    reader = threading.Thread(target=lambda: got.append(Path(f"f.{suffix}").read_bytes()))
    reader.start()
    result = predict("rec", *options, f"f.{suffix}")
    reader.join(10)
    assert result.code == 0 and stat.S_ISFIFO(os.stat(f"f.{suffix}").st_mode)
    predict("rec", *options, f"g.{suffix}")
    assert got[0] == Path(f"g.{suffix}").read_bytes()
    assert not list(Path().glob("*.journal"))


@pytest.mark.parametrize("out", ["-", "/dev/stdout", "/dev/fd/1"])
def test_standard_output_by_any_name(predict, out):
    for more in ((), ("--format", "csv"), ("--format", "json")):
        plain, named = predict("rec", *more), predict("rec", "--out", out, *more)
        assert plain.code == named.code == 0 and plain.out == named.out != ""
    assert not Path("-").exists()
    assert "--resume" in predict("rec", "--out", out, "--resume").err


def test_a_page_on_standard_output_stands_alone(predict):
    result = predict("rec", "--html", "-")
    assert (
        result.code == 0
        and result.out.startswith("<!doctype html>")
        and result.out.endswith("</html>\n")
        and not Path("-").exists()
    )
    assert "written twice" in predict("rec", "--html", "-", "--out", "-").err
    assert predict("rec", "--html", "p.html", "--out", "-", "--format", "csv").out.startswith("path,kind")


def test_devices(predict):
    assert predict("rec", "--out", "/dev/null", "--format", "csv", "--html", "/dev/null").code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if os.path.exists("/dev/full"):
        result = predict("rec", "--out", "/dev/full", "--format", "csv")
        assert result.code == 1 and "no space left on the disk while saving /dev/full" in result.err


def test_eval_writes_where_it_is_told_to(aum, trained):
    Path("far").mkdir()
    Path("e.json").symlink_to("far/e.json")
    assert aum("eval", trained, "--out", "out", "--json", "e.json").code == 0
    assert Path("e.json").is_symlink() and json.loads(Path("far/e.json").read_text())["clips"] == 6
    for name in ("-", "/dev/stdout"):
        assert json.loads(aum("eval", trained, "--out", "out", "--json", name).out)["clips"] == 6
    assert not Path("-").exists()


# names


def test_names_of_any_bytes_in_every_format(predict, odd):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("r.json", "r.jsonl", "r.csv", "r.parquet"):
        result = predict(odd, "--out", name, "--embed", "e.npy")
        assert result.code == 0 and "14 clips" in result.err, result.err
    expected = {f"odd/{shown(name)}" for name in NAMES}
    assert {clip["path"] for clip in json.loads(Path("r.json").read_bytes())["clips"]} == expected
    assert {json.loads(line)["path"] for line in Path("r.jsonl").read_bytes().split(b"\n")[:-1]} == expected
    assert {*json.loads(Path("e.json").read_bytes())["paths"]} == expected
    with open("r.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["path"] for row in rows} == expected and {row["kind"] for row in rows} <= {"clip", "event"}
    assert {*parquet.read_table("r.parquet").column("path").to_pylist()} == expected


@pytest.mark.parametrize("kind", ["audacity", "raven", "table", "csv", "json"])
def test_names_of_any_bytes_as_files_of_results(predict, odd, kind):
    result = predict(odd, "--out", "results/", "--format", kind, "--threshold", 0.2)
    assert result.code == 0 and "2 names are too long" in result.err
    suffix = writers.Format(kind).suffix
    written = {os.fsencode(path.name) for path in Path("results").iterdir()}
    assert len(written) == len(NAMES)
    assert {name + suffix.encode() for name in NAMES if len(name) < 200} <= written
    assert all(path.stat().st_size for path in Path("results").iterdir())
    lines = predict(odd, "--format", "raven", "--threshold", 0.2).out.split("\n")
    assert all(line.count("\t") == lines[0].count("\t") for line in lines[:-1])


def test_names_of_any_bytes_are_gone_on_with(predict, odd):
    assert "14 clips" in predict(odd, "--out", "r.csv", "--resume").err
    before = Path("r.csv").read_bytes()
    Path("odd", os.fsdecode(b"new\xff.wav")).write_bytes(Path("rec/high.wav").read_bytes())
    result = predict(odd, "--out", "r.csv", "--resume")
    assert result.code == 0 and "1 clip, " in result.err
    assert set(before.split(b"\n")) < set(Path("r.csv").read_bytes().split(b"\n"))


def test_names_of_any_bytes_in_a_page(predict, odd, monkeypatch):
    from aumcli.predict import page

    monkeypatch.setattr(page, "FILE_MB", 0)  # so that sounds are played from their files
    assert predict(odd, "--html", "p.html").code == 0
    text = Path("p.html").read_bytes().decode("utf-8")
    assert "odd/caf%E9.wav" in text and "odd/%23%3F%2541%26.wav" in text and "caf\\\\xe9.wav" in text


def test_hundreds_of_random_names(predict):
    """Of all bytes, of what means something to some format, of characters that aren't what they look like.

    None is lost in any format.
    """
    rng, content, raw = random.Random(1), Path("rec/low.wav").read_bytes(), set()
    kinds = (
        bytes(range(1, 256)),
        b"\\x5ce9\"',;\r\n\t ",
        "é☃😀e\u0301\u2028\u202e\ufeff".encode(),
        b"$`%#?&<>|*[]{}~!",
    )
    while len(raw) < 400:
        name = (
            bytes(rng.choice(rng.choice(kinds)) for _ in range(rng.choice((1, 3, 8, 40, 250)))).replace(b"/", b"")[:251]
            + b".wav"
        )
        if not name.startswith(b"."):  # which are hidden
            raw.add(name)
    Path("fuzz").mkdir()
    for name in raw:
        Path("fuzz", os.fsdecode(name)).write_bytes(content)
    for out in ("r.json", "r.csv", "r.jsonl", "r/"):
        result = predict("fuzz", "--out", out, "--top", 1, "--threshold", 0.2)
        assert result.code == 0 and "400 clips" in result.err
    expected = {f"fuzz/{shown(name)}" for name in raw}
    assert {clip["path"] for clip in json.loads(Path("r.json").read_bytes())["clips"]} == expected
    assert csv_paths("r.csv") == expected
    assert {json.loads(line)["path"] for line in Path("r.jsonl").read_bytes().split(b"\n")[:-1]} == expected
    assert len([*Path("r").iterdir()]) == 400
    lines = predict("fuzz", "--format", "raven", "--threshold", 0.2).out.split("\n")
    assert len({line.split("\t")[7] for line in lines[1:-1]}) == 400 and {line.count("\t") for line in lines[:-1]} == {
        10
    }
    assert "400 clips" in predict("fuzz", "--html", "p.html", "--out", "q.csv", "--resume").err


def test_a_bad_file_by_a_bad_name_costs_itself(predict, odd):
    Path("odd", os.fsdecode(b"bad\xe9.m4a")).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    for name in ("r.json", "r.csv", "r.parquet"):
        result = predict(odd, "--out", name)
        assert result.code == 1 and "14 clips" in result.err
    (failed,) = json.loads(Path("r.json").read_bytes())["failed"]
    assert failed["path"] == "odd/bad\\xe9.m4a" and "ffmpeg -i $'odd/bad\\xe9.m4a' $'odd/bad\\xe9.wav'" in failed["fix"]


@pytest.mark.parametrize("length", [244, 250])
def test_an_output_of_a_long_name_is_gone_on_with(predict, length):
    out = "x" * length + ".json"
    assert predict("rec", "--out", out, "--resume").code == 0
    assert (
        "0 clips" in predict("rec", "--out", out, "--resume").err
        and len(json.loads(Path(out).read_text())["clips"]) == 3
    )


def test_parts_of_an_output_of_a_long_name(predict, monkeypatch):
    out = "é" * 124 + ".csv"
    for rank in "01":
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        assert predict("rec", "--out", out).code == 0
    assert predict("--join", "--out", out).code == 0
    assert len(csv_paths(out)) == 3 and len(list(Path().iterdir())) == 2


def test_a_name_that_is_too_long_is_said_before_the_work(predict):
    for options in (
        ("--out", "x" * 252 + ".json"),
        ("--html", "x" * 256),
        ("--embed", "x" * 251 + ".npy"),
    ):  # which has a .json beside it
        result = predict("rec", *options)
        assert result.code == 2 and "File name too long" in result.err and "clips/s" not in result.err


# one call at a time


def test_two_calls_for_one_output(predict, monkeypatch):
    append, refused = ResultsJournal.append, []

    def meanwhile(self, *arguments):
        if not refused:
            refused.append(None)
            for options in ((), ("--resume",)):
                refused.append(
                    subprocess.run(
                        [
                            sys.executable,
                            "-m",
                            "aumcli",
                            "predict",
                            "rec",
                            "--model",
                            MODEL,
                            "--out",
                            "r.csv",
                            *options,
                        ],
                        capture_output=True,
                        text=True,
                    )
                )
        append(self, *arguments)

    MODEL = predict.__closure__[1].cell_contents
    monkeypatch.setattr(ResultsJournal, "append", meanwhile)
    assert predict("rec", "--out", "r.csv").code == 0
    for result in refused[1:]:
        assert (
            result.returncode == 2
            and "another call is writing r.csv.journal" in result.stderr
            and "wait" in result.stderr
        )
    assert len(csv_paths("r.csv")) == 3 and not Path("r.csv.journal").exists()


# what can't be gone on with


@pytest.mark.parametrize(
    "then, now, words",
    [
        (("--threshold", 0.9), ("--threshold", 0.8), "was made with --threshold 0.9, this call says 0.8\n"),
        (("--top", 2), ("--top", 1), "with --top 2, this call says 1\n"),
        (
            ("--hop", 0.1, "--smooth", 3),
            ("--hop", 0.2),
            "with --hop 0.1, this call says 0.2; with --smooth 3, this call says 1\n",
        ),
        ((), ("--whole",), "was made without --whole\n"),
        (("--whole",), (), "was made with --whole\n"),
        (("--embed", "e.npy"), (), "was made with --embed\n"),
        ((), ("--html", "p.html"), "was made without --html\n"),
        (("--batch", 4), (), "with --batch 4, this call says none\n"),
    ],
)
def test_it_says_what_differs(predict, then, now, words):
    assert predict("rec", "--out", "r.json", "--resume", *then).code == 0
    result = predict("rec", "--out", "r.json", "--resume", *now)
    assert (
        result.code == 2
        and words in result.err
        and "rm r.json.journal" in result.err
        and "holds results" not in result.err
    )


def test_it_says_that_the_weights_or_the_folder_differ(predict, trained, tmp_path):
    import shutil

    assert predict("rec", "--out", "f/", "--format", "csv", "--resume").code == 0
    assert "for a folder of csv, this call for a folder of json" in predict("rec", "--out", "f/", "--resume").err
    model = shutil.copytree(trained / "best", tmp_path / "model")
    assert predict("rec", "--model", model, "--out", "r.json", "--resume").code == 0
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"thresholds": [0.4, 0.5, 0.6]}))
    assert predict("rec", "--model", model, "--out", "t.json", "--resume").code == 0
    result = predict("rec", "--model", model, "--out", "t.json", "--resume", "--threshold", 0.8)
    assert result.code == 2 and "was made with --threshold as the model has it, this call says 0.8\n" in result.err
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"head.bias": weights["head.bias"] + 1}, model / "model.safetensors")
    result = predict("rec", "--model", model, "--out", "t.json", "--resume")
    assert result.code == 2 and f"was made when {model} had other weights" in result.err


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-30],
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes(500),
        lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
        lambda data: data[:-40] + bytes(40),
        lambda data: data[: len(data) // 2] + bytes(5000) + data[len(data) // 2 + 5000 :],
        lambda data: data[:-3000] + b"\xff" * 3000,
        lambda data: data.replace(b'"windows"', b'"window\0"'),
        lambda data: data.replace(b'"windows": 1', b'"windows": \xff', 1),
        lambda data: data + b"{}\n",
        lambda data: data + bytes(5000),
        lambda data: b"",
    ],
)
def test_a_damaged_journal_costs_what_is_damaged(predict, damage):
    for number in range(30):
        sound(Path("rec") / f"{number}.wav", 300.0, seed=number)
    assert predict("rec", "--out", "r.csv", "--batch", 2, "--resume").code == 0
    before, path = Path("r.csv").read_bytes(), Path("r.csv.journal")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    result = predict("rec", "--out", "r.csv", "--batch", 2, "--resume")
    assert result.code == 0 and Path("r.csv").read_bytes() == before
    unharmed = damage(content).startswith(content)
    assert ("is damaged from result" in result.err) == (not unharmed and damage(content) != b"")
    assert ("0 clips, " in result.err) == unharmed
    result = predict("rec", "--out", "r.csv", "--batch", 2, "--resume")  # it is whole again
    assert result.code == 0 and "0 clips, " in result.err and "damaged" not in result.err
    assert Path("r.csv").read_bytes() == before


@pytest.mark.parametrize("lost", [0, 5, 17, 32])
def test_a_result_that_is_lost_costs_the_groups_from_there_on(predict, lost):
    for number in range(30):
        sound(Path("rec") / f"{number}.wav", 300.0, seed=number)
    assert predict("rec", "--out", "r.csv", "--batch", 2, "--resume").code == 0
    before = Path("r.csv").read_bytes()
    with sqlite3.connect("r.csv.journal") as database:
        database.execute("DELETE FROM results WHERE key = ?", (lost,))
    database.close()
    result = predict("rec", "--out", "r.csv", "--batch", 2, "--resume")
    assert result.code == 0 and Path("r.csv").read_bytes() == before and "0 clips, " not in result.err


@pytest.mark.parametrize("content", [bytes(5000), b"hello\n", b"[1]\n", b"null\n", b"\xff\xfe\n", b'"text"\n'])
def test_a_journal_without_a_beginning(predict, content):
    Path("r.csv.journal").write_bytes(content)
    result = predict("rec", "--out", "r.csv", "--resume")
    assert result.code == 2 and "rm r.csv.journal" in result.err and "damaged" in result.err
    assert Path("r.csv.journal").read_bytes() == content


@pytest.mark.parametrize("change", ["DELETE FROM header", "UPDATE header SET value = 'x'", "PRAGMA user_version = 999"])
def test_a_journal_of_another_kind(predict, change):
    assert predict("rec", "--out", "r.csv", "--resume").code == 0
    with sqlite3.connect("r.csv.journal") as database:
        database.execute(change)
    database.close()
    content = Path("r.csv.journal").read_bytes()
    result = predict("rec", "--out", "r.csv", "--resume")
    assert result.code == 2 and "rm r.csv.journal" in result.err and Path("r.csv.journal").read_bytes() == content


def test_a_journal_on_a_full_disk_is_said_once(predict, monkeypatch):
    connect = Journal._connect

    def full(self):
        database = connect(self)
        database.execute("PRAGMA max_page_count=1")
        return database

    monkeypatch.setattr(Journal, "_connect", full)
    result = predict("rec", "--out", "r.csv")
    assert result.code == 1 and result.err.count("error: ") == 1
    assert "no space left" in result.err and "r.csv.journal" in result.err


def test_windows_that_nothing_could_hold(predict, monkeypatch):
    for value in ("1e9", "1e300"):
        result = predict("rec", "--window", value)
        assert result.code == 2 and "longer than any sound" in result.err
    with monkeypatch.context() as patch:
        patch.setattr("aumcli.predict.scoring.physical_bytes", lambda: 1000)
        result = predict("rec", "--window", 30)
    assert result.code == 1 and "windows of 30 s are too long for the memory" in result.err and "--window" in result.err
    assert predict("rec/low.wav", "--window", 2).code == 0


def test_embeddings_of_names_that_are_cut_are_all_there(predict, odd):
    predict(odd, "--embed", "e.npy")
    assert np.load("e.npy").shape[0] == len(NAMES)

"""Names of any bytes from a folder to a trained model: kept in manifest, journal and shards, and shown as text."""

import json
import os
import sqlite3
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, sound, tiny
from training import quietly

from aumcli.data.clips import Clip
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import Label, read_manifest, write_manifest
from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.prepare import JOURNAL, prepare
from aumcli.utils.csv import csv_rows
from aumcli.utils.journal import Journal
from aumcli.utils.lock import locked

pytest_plugins = ["aum_fixtures"]
pytestmark = [
    pytest.mark.usefixtures("on_one_thread"),
    pytest.mark.skipif(os.name == "nt", reason="names are text there"),
]

NAMES = [
    b"caf\xe9.wav",
    b"cr\rhere.wav",
    b"tab\there.wav",
    b"line\nbreak.wav",
    b"crlf\r\n.wav",
    b"\xff\xfe",
    b"back\\xe9.wav",
    b"\\x5c\\x5cxe9",
    "é☃.wav".encode(),
    "e\u0301.wav".encode(),
    b"quote\"',;.wav",
    b" space ",
    b"\x1b[31m.wav",
    "\u2028\x85.wav".encode(),
    b"=1+1.wav",
    b"#comment",
    b"\xef\xbb\xbfbom",
]


def tone(path: bytes, hz: float, seed: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        soundfile.write(
            file, 0.3 * np.sin(np.arange(4000) * hz / 1273) + 0.05 * rng.standard_normal(4000), 8000, format="WAV"
        )


@pytest.fixture
def folder(tmp_path) -> bytes:
    """Two classes of sounds with such names."""
    for name, hz in ((b"low", 300.0), (b"stra\xdfe", 2000.0)):
        for number, own in enumerate(NAMES):
            tone(os.path.join(os.fsencode(tmp_path), b"sounds", name, own + b".wav"), hz, number)
    return os.path.join(os.fsencode(tmp_path), b"sounds")


@pytest.mark.parametrize("arrow", [True, False])
def test_a_manifest_gives_back_every_name(tmp_path, monkeypatch, arrow):
    if not arrow:
        monkeypatch.setattr("aumcli.data.parquet._has_pyarrow", lambda: False)
    clips = [
        Clip(tmp_path / where / os.fsdecode(name), 0.5, None, ("a",), "train", os.fsdecode(name))
        for name in NAMES
        for where in ("inside", "/elsewhere")
    ]
    write_manifest(tmp_path, clips, [Label(0, "a", "a")], {})
    assert (tmp_path / "manifest.parquet").exists() == arrow
    assert read_manifest(tmp_path).clips == clips
    (tmp_path / "manifest.parquet").unlink(missing_ok=True)
    assert read_manifest(tmp_path).clips == clips
    (tmp_path / "manifest.csv").read_bytes().decode("utf-8")
    assert {row["group"] for row in csv_rows(tmp_path / "manifest.csv", ("path", "group"))} >= {
        "caf\\xe9.wav",
        "cr\rhere.wav",
        "back\\x5cxe9.wav",
    }


def test_a_label_keeps_its_name(tmp_path):
    labels = [Label(i, f"id{i}", name) for i, name in enumerate(("a\rb", "a\nb", 'a"b', "a,b", " a ", "é", "e\u0301x"))]
    write_manifest(tmp_path, [Clip(tmp_path / "x", labels=("id0",), split="train")], labels, {})
    assert read_manifest(tmp_path).labels == labels


def test_a_path_with_nul_is_a_wrong_row(tmp_path):
    write_manifest(tmp_path, [Clip(tmp_path / "x", labels=("a",), split="train")], [Label(0, "a", "a")], {})
    (tmp_path / "manifest.csv").write_text("path,start_s,stop_s,labels,split\nx\0.wav,,,a,train\n")
    with pytest.raises(AumError, match="row 2: NUL in the path"):
        read_manifest(tmp_path)
    with pytest.raises(AumError, match=r"x\\x00.wav can't be a file"):
        load_audio("x\0.wav")


def test_such_a_folder_is_prepared_trained_on_and_evaluated(folder, tmp_path):
    report = prepare("folder", tmp_path / "data", source=Path(os.fsdecode(folder)), split="60/20/20")
    assert report.failures == 0 and report.classes.keys() == {"low", "stra\\xdfe"} and not report.warnings
    manifest = read_manifest(tmp_path / "data")
    assert {os.fsencode(clip.path.name) for clip in manifest.clips} == {name + b".wav" for name in NAMES}
    json.loads((tmp_path / "data" / "report.json").read_bytes().decode("utf-8"))
    run = quietly(
        tiny("train.epochs=1", "data.val_fraction=0.2"), tmp_path / os.fsdecode(b"run\xe9"), tmp_path / "data"
    )
    assert evaluate(run, out=run).metrics.clips == len(manifest.split("test"))
    for path in run.rglob("*.json"):
        json.loads(path.read_bytes().decode("utf-8"))


def test_data_in_a_folder_of_such_a_name(folder, tmp_path):
    data = tmp_path / os.fsdecode(b"data\xe9")
    prepare("folder", data, source=Path(os.fsdecode(folder)), split="60/20/20")
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", data)
    assert evaluate(run).metrics.clips == len(read_manifest(data).split("test"))  # it knows where its data is
    quietly(tiny(), run, resume=True)


def test_such_sounds_in_shards(folder, tmp_path):
    pytest.importorskip("webdataset")
    prepare("folder", tmp_path / "data", source=Path(os.fsdecode(folder)), split="60/20/20", shards=True)
    recipe = tiny("train.epochs=1", "data.infer=[]", "frontend.sample_rate_hz=8000", "frontend.frames=52")
    quietly(recipe, tmp_path / "files", tmp_path / "data")
    manifest = (tmp_path / "data" / "manifest.csv").read_bytes()
    os.rename(folder, folder + b"-moved")
    quietly(recipe, tmp_path / "shards", tmp_path / "data")
    assert (tmp_path / "data" / "manifest.csv").read_bytes() == manifest and (
        tmp_path / "shards" / "best" / "config.json"
    ).exists()


def test_a_sound_that_is_skipped_by_such_a_name_is_named(folder, tmp_path, aum):
    with open(os.path.join(folder, b"low", b"bad\xe9\r\x1b.wav"), "wb") as file:
        file.write(b"no sound")
    result = aum("prepare", "folder", os.fsdecode(folder), "--out", tmp_path / "data")
    assert result.code == 1 and "bad\\xe9" in result.out and not {"\x1b", "\udce9"} & {*result.out}
    (skipped,) = json.loads((tmp_path / "data" / "report.json").read_text(encoding="utf-8"))["skipped"]
    assert skipped["path"].endswith("bad\\xe9\r\x1b.wav")
    assert json.loads(aum("prepare", "folder", os.fsdecode(folder), "--out", tmp_path / "data", "--json").out)[
        "skipped"
    ] == [skipped]


# what looks the same


def test_folders_that_look_the_same_are_one_class(tmp_path):
    spelt = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    for number, name in enumerate(spelt):
        for i in range(5):
            sound(tmp_path / "sounds" / name / f"{i}.wav", 300.0, seed=10 * number + i)
    for i in range(5):
        sound(tmp_path / "sounds" / "other" / f"{i}.wav", 2000.0, seed=i)
    report = prepare("folder", tmp_path / "data", source=tmp_path / "sounds")
    assert (
        report.classes.keys() == {spelt[0], "other"}
        and sum(cell["clips"] for cell in report.classes[spelt[0]].values()) == 10
    )
    (warning,) = [text for text in report.warnings if "look the same" in text]
    assert "'cafe\\u0301'" in warning and "'caf\\xe9'" in warning


def test_split_folders_may_spell_a_class_differently(tmp_path):
    for split, form in (("train", "NFC"), ("val", "NFD"), ("test", "NFD")):
        for name, hz in (("café", 300.0), ("other", 2000.0)):
            for i in range(3):
                sound(
                    tmp_path / "sounds" / split / unicodedata.normalize(form, name) / f"{i}.wav",
                    hz,
                    seed=hash((split, i)) % 1000,
                )
    report = prepare("folder", tmp_path / "data", source=tmp_path / "sounds")
    assert report.classes.keys() == {"café", "other"} and ["look the same" in text for text in report.warnings] == [
        True
    ]
    assert report.classes["café"].keys() == {"train", "val", "test"}


def test_labels_of_a_table_that_look_the_same_are_one_class(tmp_path):
    spelt = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    rows = [
        f"{sound(tmp_path / f'{i}.wav', 300.0, seed=i).name},{name}" for i, name in enumerate([*spelt, "other"] * 10)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    report = prepare("csv", tmp_path / "data", source=tmp_path / "t.csv")
    assert (
        report.classes.keys() == {"café", "other"}
        and sum(cell["clips"] for cell in report.classes["café"].values()) == 20
    )


def test_an_ast_list_with_a_mark_before_it(tmp_path):
    from aumcli.data.sources.ast_json import read_items

    (tmp_path / "train.json").write_text('{"data": [{"wav": "a.wav", "labels": "x"}]}', encoding="utf-8-sig")
    assert read_items(tmp_path / "train.json")[0]["wav"] == "a.wav"


# the journal, and two at once


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: bytes(len(data)),
        lambda data: data[:4096] + bytes(len(data) - 4096),
        lambda data: data[:1000],
        lambda data: b"",
        lambda data: data[:20] + bytes(80) + data[100:],
        lambda data: data[:-3000] + b"\xff" * 3000,
    ],
)
def test_a_damaged_journal_costs_time_only(folder, tmp_path, monkeypatch, damage):
    expected = prepare("folder", tmp_path / "whole", source=Path(os.fsdecode(folder)))
    journal = Journal(tmp_path / "data" / JOURNAL)
    journal.put([(f"key {number}", [1.0, 8000, 1] * 40) for number in range(500)])
    journal.close()
    path = tmp_path / "data" / JOURNAL
    path.write_bytes(damage(path.read_bytes()))
    report = prepare("folder", tmp_path / "data", source=Path(os.fsdecode(folder)))
    assert report.splits == expected.splits and not path.exists()
    assert (tmp_path / "data" / "manifest.csv").read_bytes() == (tmp_path / "whole" / "manifest.csv").read_bytes()


def test_a_journal_that_is_damaged_while_it_is_open(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    journal.put([(f"key {number}", ["x" * 200]) for number in range(500)])
    size = journal.path.stat().st_size
    with open(journal.path, "rb+") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    journal._db.close()
    journal._db = sqlite3.connect(journal.path)
    assert journal.get(["key 3", "key 400"]) == [None, None]
    journal.put([("key 3", [1])])
    assert journal.get(["key 3"]) == [[1]]
    journal.remove()


def test_a_second_prepare_into_the_folder_is_refused(folder, tmp_path, aum):
    with locked(tmp_path / "data", "aum prepare"):
        result = aum("prepare", "folder", os.fsdecode(folder), "--out", tmp_path / "data")
    assert (
        result.code == 2
        and f"another aum prepare writes to {tmp_path / 'data'}: process {os.getpid()}" in result.err
        and "wait" in result.err
    )
    assert aum("prepare", "folder", os.fsdecode(folder), "--out", tmp_path / "data").code == 0
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {
        "manifest.csv",
        "manifest.parquet",
        "labels.csv",
        "report.json",
    }


def test_prepare_follows_links(folder, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "data").mkdir()
    for name in ("manifest.csv", "labels.csv", "report.json"):
        (tmp_path / "data" / name).symlink_to(f"../far/{name}")
    prepare("folder", tmp_path / "data", source=Path(os.fsdecode(folder)))
    assert all((tmp_path / "data" / name).is_symlink() for name in ("manifest.csv", "labels.csv", "report.json"))
    assert (
        len(read_manifest(tmp_path / "data").clips) == 2 * len(NAMES) and len(list((tmp_path / "far").iterdir())) == 3
    )


def test_a_class_of_sounds_with_such_names_only(tmp_path):
    for name in CLASSES:
        for number in range(4):
            tone(
                os.path.join(os.fsencode(tmp_path), b"sounds", name.encode(), b"\xe9%d.wav" % number),
                100 * len(name) + 31,
                hash(name) % 97 + number,
            )
    assert prepare("folder", tmp_path / "data", source=tmp_path / "sounds").failures == 0

"""Clips by column behave as a list of clips, and manifest.parquet gives what manifest.csv says."""

import os
from pathlib import Path

import numpy as np
import pytest

from aumcli.data import parquet
from aumcli.data.clips import Clip, Clips
from aumcli.data.labels import Label, read_labels
from aumcli.data.manifest import read_manifest, write_manifest
from aumcli.errors import AumError
from aumcli.utils.csv import csv_rows

CLIPS = [
    Clip(Path("/a/1.wav"), labels=("x",), split="train", group="ann"),
    Clip(Path("/a/2.wav"), 0.0, 2.5, ("y", "x"), "val"),
    Clip(Path('/a/é;,".wav'), None, 2.0, ("x",), "train", "bob"),
    Clip(Path("/b.hdf5::v/1"), 1.0, None, ("y",), "test", "ann"),
]
LABELS = [Label(0, "x", "X"), Label(1, "y", "Y")]


def test_as_a_list():
    clips = Clips.of(CLIPS)
    assert clips == CLIPS and clips == CLIPS and list(clips) == CLIPS and len(clips) == 4 and clips[1] == CLIPS[1]
    assert (
        clips[-1] == CLIPS[-1]
        and clips[1:3] == CLIPS[1:3]
        and clips != CLIPS[:3]
        and clips != CLIPS[::-1]
        and clips != 3
    )
    assert Clips.of(clips) is clips and not Clips() and Clips() == []
    with pytest.raises(IndexError):
        clips[4]
    part = clips.take([3, 0])
    assert part == [CLIPS[3], CLIPS[0]] and part.take([1]) == [CLIPS[0]] and part[1:] == [CLIPS[0]]
    assert (
        part.splits == ["test", "train"]
        and part.label_sets == [("y",), ("x",)]
        and list(part.paths()) == ["/b.hdf5::v/1", "/a/1.wav"]
    )
    assert [part.slice_at(i) for i in (0, 1)] == [("/b.hdf5::v/1", 1.0, None), ("/a/1.wav", None, None)]
    assert list(part.labels()) == [("y",), ("x",)]
    assert clips.splits == ["train", "val", "test"] and clips.label_sets == [("x",), ("y", "x"), ("y",)]
    assert (
        clips.of_split("train") == [CLIPS[0], CLIPS[2]]
        and part.of_split("train") == [CLIPS[0]]
        and clips.of_split("no") == []
    )
    assert clips.is_of_split("val").tolist() == [False, True, False, False]
    assert part.columns() == {
        "path": ["/b.hdf5::v/1", "/a/1.wav"],
        "start_s": [1.0, None],
        "stop_s": [None, None],
        "labels": ["y", "x"],
        "split": ["test", "train"],
        "group": ["ann", "ann"],
    }


def test_parquet_gives_what_the_csv_says(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    write_manifest(tmp_path, [*CLIPS, Clip(tmp_path / "in" / "1.wav", labels=("x",), split="val")], LABELS, {})
    seen = []
    monkeypatch.setattr("aumcli.data.manifest._read_clips", lambda *_: seen.append(1))
    by_parquet = read_manifest(tmp_path)
    assert not seen and by_parquet.split_names == ["train", "val", "test"] and by_parquet.multi_label
    monkeypatch.undo()
    (tmp_path / "manifest.parquet").rename(tmp_path / "x")
    by_csv = read_manifest(tmp_path)
    assert by_parquet.clips == by_csv.clips and by_csv.clips[4].path == tmp_path / "in" / "1.wav"
    np.testing.assert_array_equal(by_parquet.targets(by_parquet.clips), by_csv.targets(by_csv.clips))
    (tmp_path / "x").rename(tmp_path / "manifest.parquet")
    tmp_path.rename(tmp_path.with_name("moved"))  # they may go elsewhere together
    assert read_manifest(tmp_path.with_name("moved")).clips[4].path == tmp_path.with_name("moved") / "in" / "1.wav"


def test_who_edits_the_csv_gets_what_he_wrote(tmp_path):
    pytest.importorskip("pyarrow")
    write_manifest(tmp_path, CLIPS, LABELS, {})
    times = os.stat(tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text().replace("ann", "eve")
    (tmp_path / "manifest.csv").write_text(text)
    os.utime(
        tmp_path / "manifest.csv", ns=(times.st_atime_ns, times.st_mtime_ns)
    )  # even if nothing shows it from outside
    assert [clip.group for clip in read_manifest(tmp_path).clips] == ["eve", "", "bob", "eve"]
    write_manifest(tmp_path, CLIPS, LABELS, {})
    (tmp_path / "labels.csv").write_text("index,id,name\n0,x,X\n")
    with pytest.raises(AumError, match="row 3: unknown label 'y'"):
        read_manifest(tmp_path)
    write_manifest(tmp_path, CLIPS, LABELS, {})
    data = (tmp_path / "manifest.parquet").read_bytes()
    for damaged in (b"PAR1", data[:-100], data[:100] + b"x" * 50 + data[150:], b""):
        (tmp_path / "manifest.parquet").write_bytes(damaged)
        assert read_manifest(tmp_path).clips == CLIPS


def test_without_pyarrow_the_csv_serves(tmp_path, monkeypatch):
    write_manifest(tmp_path, CLIPS, LABELS, {})
    monkeypatch.setattr(parquet, "_has_pyarrow", lambda: False)
    assert read_manifest(tmp_path).clips == CLIPS
    write_manifest(tmp_path, CLIPS[:1], LABELS, {})
    assert not (tmp_path / "manifest.parquet").exists()  # an old one would only confuse


@pytest.mark.parametrize(
    "text, words",
    [
        ("a,b\n1,2\n", "lacks the column index"),
        ("index,b\n0,2\n", "none of the columns name and display_name"),
        ("", "lacks the column"),
        ("index,name\n0,x\n2,y\n", "its place is 1"),
        ("index,name\n0,x\n0,y\n", "its place is 1"),
        ("index,name\nx,y\n", "row 2"),
        ("class,class_id\nx,0\ny,0\n", "its place is 1"),
        ("class,class_id\nx,1\n", "its place is 0"),
        ("class,class_id\nx,y\n", "row 2"),
        ("index,name\n0,x\n1,x\n", "occurs twice"),
        ("index,name\n", "no labels"),
        ("index,name\n0\n", "row 2"),
    ],
)
def test_label_tables_with_mistakes(tmp_path, text, words):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(AumError, match=words):
        read_labels(tmp_path / "labels.csv")


def test_label_tables_of_all_kinds(tmp_path):
    for text, ids in (
        ('index,mid,display_name\n1,/m/2,B\n0,/m/1,"A, a"\n', ["/m/1", "/m/2"]),
        ('index,name\n0,"A, a"\n1,B\n', ["A, a", "B"]),
        ('name,id,index\n"A, a",q,0\nB,r,1\n', ["q", "r"]),
    ):
        (tmp_path / "t.csv").write_text(text, "utf-8-sig")
        labels = read_labels(tmp_path / "t.csv")
        assert [label.id for label in labels] == ids and [label.name for label in labels] == ["A, a", "B"]


def test_annotations_serve_as_a_table_of_classes(annotations, tmp_path):
    """EPIC-SOUNDS publishes no other: its class_id is the published models' index."""
    labels = read_labels(annotations / "EPIC_Sounds_validation.csv")
    assert [label.index for label in labels] == list(range(44)) and labels[4].name == labels[4].id == "rustle"
    (tmp_path / "t.csv").write_text("class_id,clip,class\n1,a,Rain\n0,b,Dog\n1,c,Rain\n")
    assert [label.name for label in read_labels(tmp_path / "t.csv")] == ["Dog", "Rain"]


def test_numbered_speakers_get_their_names(tmp_path):
    """VoxCeleb's table as published with AuM; names that are none of numbers stay."""
    (tmp_path / "t.csv").write_text(
        "index,mid,display_name\n0,/m/voxclb0001,0\n1,/m/voxclb0002,1\n2,/m/voxclb1251,A. J. Buckley\n3,/m/3,3\n"
    )
    labels = read_labels(tmp_path / "t.csv")
    assert [label.name for label in labels] == ["id10001", "id10002", "A. J. Buckley", "3"]
    assert labels[0].id == "/m/voxclb0001"


def test_tables_that_are_none(tmp_path):
    with pytest.raises(AumError, match="doesn't exist"):
        list(csv_rows(tmp_path / "no.csv", ["a"]))
    with pytest.raises(AumError, match="doesn't exist"):
        list(csv_rows(tmp_path, ["a"]))
    (tmp_path / "t.csv").write_bytes(b"a,b\n1,\xff\n")
    with pytest.raises(AumError, match="not a CSV file in UTF-8"):
        list(csv_rows(tmp_path / "t.csv", ["a"]))

"""manifest.csv and labels.csv: what is written comes back; what is wrong is named by row."""

import json
from pathlib import Path

import numpy as np
import pytest

from aumcli.data.manifest import Clip, Label, read_manifest, write_manifest
from aumcli.errors import AumError

LABELS = [Label(0, "/m/1", "Dog, barking"), Label(1, "/m/2", "Cat"), Label(2, "/m/3", "Pfütze")]
HEADER = "path,start_s,stop_s,labels,split\n"


@pytest.fixture
def corpus(tmp_path):
    clips = [
        Clip(tmp_path / "c" / "in,side.wav", labels=("/m/1",), split="train", group="ann"),
        Clip(Path("/else/where.wav"), 0.1, 10.3, ("/m/3", "/m/1"), "val"),
        Clip(Path("/else/where.wav"), None, 2.0, ("/m/2",), "train"),
    ]
    write_manifest(tmp_path / "c", clips, LABELS, {"clips": 3})
    return tmp_path / "c", clips


def raises(folder, *words):
    with pytest.raises(AumError) as caught:
        read_manifest(folder)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.fix


def test_round_trip(corpus):
    folder, clips = corpus
    manifest = read_manifest(folder)
    assert manifest.clips == clips and manifest.labels == LABELS
    assert manifest.label_names == ["Dog, barking", "Cat", "Pfütze"]
    assert json.loads((folder / "report.json").read_text()) == {"clips": 3}
    assert '\n"in,side.wav",,,/m/1,train,ann\n' in (folder / "manifest.csv").read_text()  # relative where inside


def test_corpus_can_be_moved(corpus, tmp_path):
    folder, _ = corpus
    folder.rename(tmp_path / "moved")
    assert read_manifest(tmp_path / "moved").clips[0].path == tmp_path / "moved" / "in,side.wav"


def test_relative_folder_gives_absolute_paths(corpus, monkeypatch):
    monkeypatch.chdir(corpus[0].parent)
    assert read_manifest("c").clips == corpus[1]


def test_splits(corpus):
    manifest = read_manifest(corpus[0])
    assert manifest.split("train") == [corpus[1][0], corpus[1][2]]
    with pytest.raises(AumError, match="no split 'test'; it has train, val"):
        manifest.split("test")


def test_targets_and_multi_label(corpus):
    manifest = read_manifest(corpus[0])
    assert manifest.multi_label
    targets = manifest.targets(manifest.clips)
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, [[1, 0, 0], [1, 0, 1], [0, 1, 0]])
    write_manifest(corpus[0], [corpus[1][0]], LABELS, {})
    assert not read_manifest(corpus[0]).multi_label


def test_check_files_names_rows_and_counts(corpus):
    manifest = read_manifest(corpus[0])
    (corpus[0] / "in,side.wav").touch()
    manifest.check_files(manifest.clips[:1])
    with pytest.raises(AumError) as caught:
        manifest.check_files(manifest.clips)
    assert "1 of 2 sound files" in caught.value.problem and "/else/where.wav (row 3)" in caught.value.problem
    assert "aum prepare" in caught.value.fix and caught.value.exit_code == 1


def test_group_is_optional_and_columns_may_be_in_any_order(corpus):
    (corpus[0] / "manifest.csv").write_text("split,labels,path,stop_s,start_s\ntrain,/m/2,x.wav,2,\n", "utf-8-sig")
    assert read_manifest(corpus[0]).clips == [Clip(corpus[0] / "x.wav", None, 2.0, ("/m/2",), "train")]


@pytest.mark.parametrize(
    "rows, words",
    [
        ("a.wav,,,/m/9,train\n", ["row 2", "unknown label '/m/9'"]),
        ("a.wav,,,/m/1,train\nb.wav,x,,/m/1,train\n", ["row 3", "not a number", "'x'"]),
        ("a.wav,2,1,/m/1,train\n", ["row 2", "start_s"]),
        ("a.wav,-1,,/m/1,train\n", ["row 2", "start_s"]),
        ("a.wav,nan,,/m/1,train\n", ["row 2", "start_s"]),
        ("a.wav,0,inf,/m/1,train\n", ["row 2", "start_s"]),
        ("a.wav,,,/m/1;/m/1,train\n", ["row 2", "twice"]),
        ("a.wav,,,/m/1,\n", ["row 2", "no split"]),
        (",,,/m/1,train\n", ["row 2", "no path"]),
        ("a.wav,,,/m/1\n", ["row 2", "4 values for 5 columns"]),
        ("a.wav,,,q,train\n" * 9, ["row 2", "row 6", "and 4 more"]),
        ("", ["lists no clips"]),
    ],
)
def test_wrong_rows(corpus, rows, words):
    (corpus[0] / "manifest.csv").write_text(HEADER + rows)
    raises(corpus[0], "manifest.csv", *words)


def test_missing_columns_and_files(corpus, tmp_path):
    (corpus[0] / "manifest.csv").write_text("path,labels\na.wav,/m/1\n")
    raises(corpus[0], "lacks the columns start_s, stop_s, split")
    (corpus[0] / "manifest.csv").write_bytes(b"path,start_s,stop_s,labels,split\n\xff\xfe,,,/m/1,train\n")
    raises(corpus[0], "UTF-8")
    (corpus[0] / "manifest.csv").unlink()
    raises(corpus[0], "manifest.csv doesn't exist")
    raises(tmp_path / "nothing", "not a prepared corpus", "aum prepare")


@pytest.mark.parametrize(
    "rows, word",
    [
        ("0,a,A\n1,a,B\n", "twice"),
        ("0,a,A\n1,b,A\n", "twice"),
        ("0,a,A\n2,b,B\n", "its place is 1"),
        ("0,a;b,A\n", "';'"),
        ("0,,A\n", "empty"),
        ("x,a,A\n", "row 2"),
        ("0,a\n", "row 2"),
        ("", "no labels"),
    ],
)
def test_wrong_labels(corpus, rows, word):
    (corpus[0] / "labels.csv").write_text("index,id,name\n" + rows)
    raises(corpus[0], "labels.csv", word)


@pytest.mark.parametrize(
    "clip",
    [
        Clip(Path("/a.wav"), labels=("nope",), split="train"),
        Clip(Path("/a.wav"), labels=("/m/1",)),
    ],
)
def test_writing_nonsense_is_refused_and_leaves_the_old(corpus, clip):
    before = {path.name: path.read_bytes() for path in corpus[0].iterdir()}
    with pytest.raises(AumError):
        write_manifest(corpus[0], [clip], LABELS, {})
    with pytest.raises(AumError, match="no clips"):
        write_manifest(corpus[0], [], LABELS, {})
    with pytest.raises(AumError, match="';'"):
        write_manifest(corpus[0], corpus[1], [Label(0, "a;b", "x")], {})
    assert {path.name: path.read_bytes() for path in corpus[0].iterdir()} == before

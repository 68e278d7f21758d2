"""Speech Commands, VoxCeleb and ESC-50 on faithful miniatures; what all corpora have in common."""

import re

import pytest
from archives import tar_with, zip_with
from corpora import prepared, splits, write
from tiny import sound

from aumcli.data.labels import read_labels
from aumcli.data.sources import esc50, load, names, speechcommands, voxceleb
from aumcli.errors import AumError
from aumcli.prepare import prepare
from aumcli.utils.files import file_sha256

pytest_plugins = ["aum_fixtures"]


def test_every_corpus_has_a_source():
    assert set(names()) == {
        "annotations",
        "synth",
        "fsdd",
        "folder",
        "speechcommands",
        "audioset",
        "as20k",
        "vggsound",
        "voxceleb1",
        "epic_sounds",
        "esc50",
        "csv",
        "ast-json",
    }
    assert all(callable(load(name).index) for name in names())


def test_every_corpus_is_named_by_help_and_errors(aum):
    help, error = aum("prepare", "--help"), aum("prepare", "nope")
    assert (help.code, error.code) == (0, 2)
    for name in names():
        assert re.search(rf"\b{name}\b", help.out) and re.search(rf"\b{name}\b", error.err)


@pytest.mark.parametrize(
    "name, words",
    [
        ("audioset", ["Google", "eval_segments.csv", "unbalanced_train_segments.csv", "YTID.wav"]),
        ("as20k", ["balanced_train_segments.csv"]),
        ("vggsound", ["robots.ox.ac.uk", "vggsound.csv"]),
        ("voxceleb1", ["iden_split.txt", "id10001/VIDEO/00001.wav"]),
        ("epic_sounds", ["EPIC_audio.hdf5", "EPIC_Sounds_train.csv"]),
    ],
)
def test_what_cannot_be_downloaded_is_asked_for(tmp_path, name, words):
    with pytest.raises(AumError) as caught:
        prepare(name, tmp_path / "data" / name)
    for word in [*words, str(tmp_path / "data" / name)]:  # what, from whom, and where to
        assert word in str(caught.value)


# Speech Commands


def commands(root):
    for word in ("yes", "no"):
        for number, speaker in enumerate(("0a7c2a8d", "1b4c9b89", "0a7c2a8d")):
            sound(root / word / f"{speaker}_nohash_{number}.wav", 300.0, seed=number, rate_hz=16000)
    sound(root / "_background_noise_" / "white_noise.wav", None, rate_hz=16000)
    write(root / "validation_list.txt", "yes/1b4c9b89_nohash_1.wav\n")
    write(root / "testing_list.txt", "yes/0a7c2a8d_nohash_2.wav\nno/0a7c2a8d_nohash_2.wav\nno/gone_nohash_0.wav\n")
    return root


def test_speechcommands(tmp_path):
    root = commands(tmp_path / "sc")
    report, clips = prepared("speechcommands", tmp_path / "out", source=root)
    assert splits(report) == {"train": 3, "val": 1, "test": 2} and list(report.classes) == ["no", "yes"]
    clip = clips[str(root / "yes" / "1b4c9b89_nohash_1.wav")]
    assert (clip.labels, clip.split, clip.group) == (("yes",), "val", "1b4c9b89")
    assert report.missing == {"test": {"listed": 3, "missing": 1}} and report.failures == 1
    assert "gone_nohash_0.wav,,,no,test" in (tmp_path / "out" / "missing.csv").read_text()
    assert report.classes["no"]["test"] == {"clips": 1, "seconds": 0.5, "missing": 1}
    assert any(
        "2 of 2 speakers occur in several splits (1 in test and train, 1 in train and val)" in text
        for text in report.warnings
    )
    assert any("published corpus has 84,843" in text for text in report.warnings)
    with pytest.raises(AumError, match="lacks testing_list.txt"):
        (root / "testing_list.txt").unlink()
        prepare("speechcommands", tmp_path / "out2", source=root)


def test_speechcommands_is_downloaded_verified_and_kept(tmp_path, monkeypatch):
    root = commands(tmp_path / "sc")
    archive = tar_with(
        tmp_path / "sc.tar.gz",
        {"./" + path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()},
    )
    monkeypatch.setattr(speechcommands, "URL", archive.as_uri())
    monkeypatch.setattr(speechcommands, "SIZE", archive.stat().st_size)
    with pytest.raises(AumError, match="another SHA-256"):
        prepare("speechcommands", tmp_path / "out")
    monkeypatch.setattr(speechcommands, "SHA256", file_sha256(archive))
    first = prepare("speechcommands", tmp_path / "out")
    archive.unlink()  # no second download
    assert prepare("speechcommands", tmp_path / "out") == first and splits(first)["test"] == 2
    assert not list((tmp_path / "out").glob("*.gz*"))


def test_speechcommands_labels(annotations):
    labels = read_labels(annotations / "speechcommands_class_labels_indices.csv")
    assert (
        len(labels) == speechcommands.CLASSES == len({label.name for label in labels}) and labels[0].name == "backward"
    )
    assert sum(speechcommands.CLIPS.values()) == 105_829


# VoxCeleb


def test_voxceleb(tmp_path):
    rows = [
        (1, "id10001/1zcIwhmdeo4/00001.wav"),
        (1, "id10002/0_laIeN-Q44/00001.wav"),
        (2, "id10001/7w0IBEWc9Qw/00002.wav"),
        (3, "id10002/6WO410QOeuo/00003.wav"),
        (3, "id10001/7w0IBEWc9Qw/00004.wav"),
        (1, "id10003/na8-QEFmj44/00003.wav"),
    ]
    write(tmp_path / "vox" / "iden_split.txt", "".join(f"{split} {name}\n" for split, name in rows))
    for number, (_, name) in enumerate(rows[:5]):
        sound(tmp_path / "vox" / ("dev/wav" if number % 2 else "wav") / name, 300.0, seed=number, rate_hz=16000)
    report, clips = prepared("voxceleb1", tmp_path / "out", source=tmp_path / "vox")
    assert splits(report) == {"train": 2, "val": 1, "test": 2} and list(report.classes) == [
        "id10001",
        "id10002",
        "id10003",
    ]
    assert clips[str(tmp_path / "vox/dev/wav" / rows[1][1])].group == "id10002/0_laIeN-Q44"
    assert report.missing == {"train": {"listed": 3, "missing": 1}}
    assert any("1 of 4 videos occurs in several splits (1 in test and val)" in text for text in report.warnings)
    for text in ("4 id10001/x/00001.wav\n", "1 ../../etc/passwd\n", "1 id10001/../00001.wav/\n", ""):
        with pytest.raises(AumError):
            voxceleb.read_split(write(tmp_path / "iden_split.txt", text))


# ESC-50


def esc(root, folds=5, classes=2):
    names = ["dog", "rooster"]
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, folds + 1):
        for target in range(classes):
            name = f"{fold}-{fold}0{target}-A-{target}.wav"
            sound(root / "audio" / name, 300.0, seed=fold, rate_hz=44100)
            lines.append(f"{name},{fold},{target},{names[target]},True,{fold}0{target},A")
    write(root / "meta" / "esc50.csv", "\n".join(lines) + "\n")
    return root


@pytest.fixture
def small_esc(monkeypatch):
    monkeypatch.setattr(esc50, "CLIPS", 10)
    monkeypatch.setattr(esc50, "CLASSES", 2)


def test_esc50_folds(tmp_path, small_esc):
    root = esc(tmp_path / "esc")
    report, clips = prepared("esc50", tmp_path / "out", source=root)
    assert splits(report) == {"train": 6, "val": 2, "test": 2} and report.warnings == []
    assert {(clip.group, clip.split) for clip in clips.values()} == {
        ("1", "train"),
        ("2", "train"),
        ("3", "train"),
        ("4", "val"),
        ("5", "test"),
    }
    _, clips = prepared("esc50", tmp_path / "out", source=root, settings=["test=1", "val=2"])
    assert {clip.group for clip in clips.values() if clip.split == "test"} == {"1"}
    for wrong in (["test=6"], ["test=4"], ["val=x"]):
        with pytest.raises(AumError, match="are not two of 1 to 5"):
            prepare("esc50", tmp_path / "out", source=root, settings=wrong)
    archive = zip_with(
        tmp_path / "ESC-50-master.zip",
        {
            "ESC-50-master/" + path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("*.*")
            if path.is_file()
        },
    )
    assert splits(prepare("esc50", tmp_path / "zipped", source=archive)) == splits(report)
    assert sorted(path.name for path in (tmp_path / "zipped" / "ESC-50").iterdir()) == ["audio", "meta"]


def test_esc50_that_contradicts_itself(tmp_path, small_esc):
    root = esc(tmp_path / "esc")
    table = (root / "meta" / "esc50.csv").read_text()
    for text, words in (
        (table.replace("101,A", "100,A", 1), "contradicts"),
        (table.replace("rooster", "dog"), "of 2 classes, published"),
        (table.rsplit("\n", 2)[0], "9 clips"),
        (table.replace("fold,", "folds,"), "lacks the column fold"),
    ):
        write(root / "meta" / "esc50.csv", text)
        with pytest.raises(AumError, match=words):
            prepare("esc50", tmp_path / "out", source=root)
    write(root / "meta" / "esc50.csv", table)
    (root / "audio" / "3-300-A-0.wav").unlink()
    with pytest.raises(AumError, match="audio/3-300-A-0.wav is missing"):
        prepare("esc50", tmp_path / "out", source=root)

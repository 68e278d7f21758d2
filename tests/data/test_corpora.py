"""The paper's corpora: faithful miniatures, made here, and the real annotation files."""

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archives import tar_with, zip_with
from tiny import sound

from aumcli.data import fetch
from aumcli.data.audio import load_audio
from aumcli.data.manifest import read_manifest
from aumcli.data.sources import epic_sounds, esc50, load, names, speechcommands, vggsound, voxceleb, youtube
from aumcli.data.tables import read_labels
from aumcli.errors import AumError
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def splits(report):
    return {name: cell["clips"] for name, cell in report.splits.items()}


def prepared(name, out, **how):
    report = prepare(name, out, workers=2, **how)
    return report, {clip.path.as_posix() + f"@{clip.start_s}" * (clip.start_s is not None): clip for clip in read_manifest(out).clips}


def test_every_corpus_has_a_source():
    assert set(names()) == {"synth", "fsdd", "folder", "speechcommands", "audioset", "as20k", "vggsound", "voxceleb1", "epic_sounds",
                            "esc50", "csv", "ast-json"}
    assert all(callable(load(name).index) for name in names())


def test_every_corpus_is_named_by_help_and_errors(aum):
    help, error = aum("prepare", "--help"), aum("prepare", "nope")
    assert (help.code, error.code) == (0, 2)
    for name in names():
        assert re.search(rf"\b{name}\b", help.out) and re.search(rf"\b{name}\b", error.err)


@pytest.mark.parametrize("name, words", [
    ("audioset", ["Google", "eval_segments.csv", "unbalanced_train_segments.csv", "YTID.wav"]),
    ("as20k", ["balanced_train_segments.csv"]), ("vggsound", ["robots.ox.ac.uk", "vggsound.csv"]),
    ("voxceleb1", ["iden_split.txt", "id10001/VIDEO/00001.wav"]), ("epic_sounds", ["EPIC_audio.hdf5", "EPIC_Sounds_train.csv"])])
def test_what_cannot_be_downloaded_is_asked_for(tmp_path, name, words):
    with pytest.raises(AumError) as caught:
        prepare(name, tmp_path / "data" / name)
    for word in [*words, str(tmp_path / "data" / name)]:                              # what, from whom, and where to
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
    assert any("2 of 2 speakers occur in several splits (1 in test and train, 1 in train and val)" in text for text in report.warnings)
    assert any("published corpus has 84,843" in text for text in report.warnings)
    with pytest.raises(AumError, match="lacks testing_list.txt"):
        (root / "testing_list.txt").unlink()
        prepare("speechcommands", tmp_path / "out2", source=root)


def test_speechcommands_is_downloaded_verified_and_kept(tmp_path, monkeypatch):
    root = commands(tmp_path / "sc")
    archive = tar_with(tmp_path / "sc.tar.gz", {"./" + path.relative_to(root).as_posix(): path.read_bytes()
                                               for path in root.rglob("*") if path.is_file()})
    monkeypatch.setattr(speechcommands, "URL", archive.as_uri())
    monkeypatch.setattr(speechcommands, "SIZE", archive.stat().st_size)
    with pytest.raises(AumError, match="another SHA-256"):
        prepare("speechcommands", tmp_path / "out")
    monkeypatch.setattr(speechcommands, "SHA256", fetch.digest(archive))
    first = prepare("speechcommands", tmp_path / "out")
    archive.unlink()                                                                   # no second download
    assert prepare("speechcommands", tmp_path / "out") == first and splits(first)["test"] == 2
    assert not list((tmp_path / "out").glob("*.gz*"))


def test_speechcommands_labels(annotations):
    labels = read_labels(annotations / "speechcommands_class_labels_indices.csv")
    assert len(labels) == speechcommands.CLASSES == len({label.name for label in labels}) and labels[0].name == "backward"
    assert sum(speechcommands.CLIPS.values()) == 105_829


# AudioSet

IDS = ["--4gqARaEJE", "a_b-c_d-e_f", "Yabcdefghij", "0123456789_", "_30_40abcde"]
LABELS = "index,mid,display_name\n0,/m/09x0r,\"Speech\"\n1,/m/05zppz,\"Male speech, man speaking\"\n2,/t/dd00003,\"Male singing\"\n"
COMMENTS = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=20371, num_segs=20371\n# YTID, start_seconds, end_seconds, positive_labels\n"


def audioset_folder(root):
    write(root / "class_labels_indices.csv", LABELS)
    write(root / "balanced_train_segments.csv", COMMENTS + "".join(
        f'{video}, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n' for video in IDS))
    write(root / "unbalanced_train_segments.csv", COMMENTS + 'unbalanced1, 0.000, 10.000, "/t/dd00003"\n')
    write(root / "eval_segments.csv", COMMENTS + 'evaluation1, 0.000, 10.000, "/t/dd00003"\nevaluation2, 5.000, 15.000, "/m/09x0r"\n')
    for name in ("balanced/--4gqARaEJE.wav", "balanced/00/a_b-c_d-e_f_30.000_40.000.flac", "YYabcdefghij.wav", "0123456789__30000.wav",
                 "balanced/_30_40abcde_30.wav", "u/unbalanced1_0_10.wav", "eval/Yevaluation1.wav", "other/zzzzzzzzzzz.wav"):
        sound(root / name, 400.0, seconds=0.2, seed=len(name))
    return root


def test_audioset_in_all_the_names_that_people_use(tmp_path):
    root = audioset_folder(tmp_path / "as")
    report, clips = prepared("audioset", tmp_path / "out", source=root)
    assert splits(report) == {"train": 6, "test": 1} and report.multi_label
    assert {clip.group for clip in clips.values()} == {*IDS, "unbalanced1", "evaluation1"}
    assert clips[str(root / "YYabcdefghij.wav")].labels == ("/m/09x0r", "/m/05zppz")
    assert report.missing == {"test": {"listed": 2, "missing": 1}} and report.classes["Speech"]["test"]["missing"] == 1
    assert list(report.classes) == ["Speech", "Male speech, man speaking", "Male singing"]
    assert any("1 sounds belong to no row" in text for text in report.warnings)
    assert "evaluation2,5.0,,/m/09x0r,test,evaluation2" in (tmp_path / "out" / "missing.csv").read_text()
    with pytest.raises(AumError, match="1 clips can't be used.*\n.*evaluation2: no such file"):
        prepare("audioset", tmp_path / "strict", source=root, strict=True)


def test_as20k_is_the_balanced_part(tmp_path):
    root = audioset_folder(tmp_path / "as")
    (root / "unbalanced_train_segments.csv").unlink()
    assert splits(prepare("as20k", tmp_path / "out", source=root)) == {"train": 5, "test": 1}
    shutil.move(root / "eval_segments.csv", write(tmp_path / "tables" / "x", "").parent)
    for name in ("balanced_train_segments.csv", "class_labels_indices.csv"):
        shutil.move(root / name, tmp_path / "tables")
    report = prepare("as20k", tmp_path / "out", source=root, annotations=tmp_path / "tables", settings=["val=40"])
    counts = splits(report)
    assert counts["train"] + counts["val"] == 5 and counts["val"] >= 1                # a hash of the video decides
    assert not any("validation" in text for text in report.warnings)
    with pytest.raises(AumError, match="no setting vall; it has val"):
        prepare("as20k", tmp_path / "out", source=root, settings=["vall=5"])
    with pytest.raises(AumError, match="no percentage"):
        prepare("as20k", tmp_path / "out", source=root, annotations=tmp_path / "tables", settings=["val=100"])


def test_audioset_files_that_are_not_the_segment(tmp_path):
    root = audioset_folder(tmp_path / "as")
    shutil.move(root / "balanced" / "_30_40abcde_30.wav", root / "balanced" / "_30_40abcde_90.wav")
    sound(root / "again" / "--4gqARaEJE.flac", 400.0)
    sound(root / "eval" / "evaluation2.wav", 400.0, seconds=15.1)
    report, clips = prepared("audioset", tmp_path / "out", source=root)
    reasons = [item.reason for item in report.left_out]
    assert len(reasons) == 2 and "begins at another time" in reasons[0] and "it may be the whole video" in reasons[1]
    assert any("1 sounds occur twice" in text for text in report.warnings)


@pytest.mark.parametrize("table, words", [
    ("# a\n# b\n# c\nabc, 0.0, 10.0, \"/m/09x0r\"\n", "row 4: .* is not YTID, start, end and known classes"),
    (COMMENTS + 'abcdefghijk, 0.0, 10.0, "/m/unknown"\n', "known classes"), (COMMENTS + "abcdefghijk, x, 10.0, /m/09x0r\n", "row 4"),
    (COMMENTS + "abcdefghijk,/m/09x0r\n", "row 4")])
def test_audioset_wrong_tables(tmp_path, table, words):
    write(audioset_folder(tmp_path) / "eval_segments.csv", table)
    with pytest.raises(AumError, match=words):
        prepare("audioset", tmp_path / "out", source=tmp_path)


def test_names_of_youtube_clips():
    for video in IDS:
        for stem, time in ((video, None), (f"Y{video}", None), (f"{video}_30", 30), (f"{video}_30.000_40.000", 30),
                           (f"Y{video}_30000_40000", 30000), (f"{video}_000030", 30), (f"{video}_30-40", 30)):
            assert youtube.parse_name(stem) == (video, time), stem
    for stem in ("short", "abcdefghijk-30", "abcdefghijk_x", "XXabcdefghijk", "abcdefghijk_30_40_50"):
        assert youtube.parse_name(stem) is None, stem


def test_audioset_labels(annotations):
    labels = read_labels(annotations / "audioset_class_labels_indices.csv")
    assert len(labels) == 527 and labels[0].id == "/m/09x0r" and labels[1].name == "Male speech, man speaking"
    assert labels[526].index == 526 and len({label.id for label in labels}) == 527


# VGGSound

def test_vggsound_official_table(tmp_path):
    root = tmp_path / "vgg"
    write(root / "vggsound.csv", "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
                                 "twiceABCDEF,30,\"bee, wasp, etc. buzzing\",train\ntwiceABCDEF,60,people marching,train\n")
    for name in ("---g-f_I2yQ_000001.wav", "train/--0PQM4-hqg_30_40.flac", "train/twiceABCDEF_000060.wav"):
        sound(root / name, 300.0, seed=len(name))
    report, clips = prepared("vggsound", tmp_path / "out", source=root)
    assert splits(report) == {"train": 2, "test": 1} and report.missing == {"train": {"listed": 3, "missing": 1}}
    assert list(report.classes) == ["bee, wasp, etc. buzzing", "people marching", "waterfall burbling"]
    assert clips[str(root / "train" / "twiceABCDEF_000060.wav")].labels == ("people marching",)
    write(root / "vggsound.csv", "youtube id,start seconds,label,split\n")
    with pytest.raises(AumError, match="row 1.*is not YTID, start, label and split"):
        prepare("vggsound", tmp_path / "out", source=root)


def test_vggsound_real_tables(annotations, tmp_path):
    rows = list(vggsound.read_table(annotations / "vggsound_test.csv", "test"))
    labels = read_labels(annotations / "vggsound_class_labels_indices.csv")
    assert len(rows) == 15446 and len(labels) == 309
    assert {row.labels[0] for row in rows} == {label.name for label in labels}
    assert rows[0] == youtube.Segment("glLQrEijrKg", 300.0, ("playing hammond organ",), "test")
    for row in rows[:3]:
        sound(tmp_path / f"{row.video}_{int(row.start_s):06d}.wav", 300.0, seed=int(row.start_s))
    shutil.copy(annotations / "vggsound_class_labels_indices.csv", tmp_path)
    shutil.copy(annotations / "vggsound_test.csv", tmp_path)
    report = prepare("vggsound", tmp_path / "out", source=tmp_path)
    assert report.missing == {"test": {"listed": 15446, "missing": 15443}} and splits(report) == {"test": 3}
    assert list(report.classes) == [label.name for label in labels]                   # in the table's order
    assert len((tmp_path / "out" / "missing.csv").read_text().splitlines()) == 15444
    with pytest.raises(AumError, match="row 1"):
        list(vggsound.read_table(annotations / "audioset_class_labels_indices.csv", "test"))


# VoxCeleb

def test_voxceleb(tmp_path):
    rows = [(1, "id10001/1zcIwhmdeo4/00001.wav"), (1, "id10002/0_laIeN-Q44/00001.wav"), (2, "id10001/7w0IBEWc9Qw/00002.wav"),
            (3, "id10002/6WO410QOeuo/00003.wav"), (3, "id10001/7w0IBEWc9Qw/00004.wav"), (1, "id10003/na8-QEFmj44/00003.wav")]
    write(tmp_path / "vox" / "iden_split.txt", "".join(f"{split} {name}\n" for split, name in rows))
    for number, (split, name) in enumerate(rows[:5]):
        sound(tmp_path / "vox" / ("dev/wav" if number % 2 else "wav") / name, 300.0, seed=number, rate_hz=16000)
    report, clips = prepared("voxceleb1", tmp_path / "out", source=tmp_path / "vox")
    assert splits(report) == {"train": 2, "val": 1, "test": 2} and list(report.classes) == ["id10001", "id10002", "id10003"]
    assert clips[str(tmp_path / "vox/dev/wav" / rows[1][1])].group == "id10002/0_laIeN-Q44"
    assert report.missing == {"train": {"listed": 3, "missing": 1}}
    assert any("1 of 4 videos occur in several splits (1 in test and val)" in text for text in report.warnings)
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
        ("1", "train"), ("2", "train"), ("3", "train"), ("4", "val"), ("5", "test")}
    _, clips = prepared("esc50", tmp_path / "out", source=root, settings=["test=1", "val=2"])
    assert {clip.group for clip in clips.values() if clip.split == "test"} == {"1"}
    for wrong in (["test=6"], ["test=4"], ["val=x"]):
        with pytest.raises(AumError, match="are not two of 1 to 5"):
            prepare("esc50", tmp_path / "out", source=root, settings=wrong)
    archive = zip_with(tmp_path / "ESC-50-master.zip", {"ESC-50-master/" + path.relative_to(root).as_posix(): path.read_bytes()
                                                        for path in root.rglob("*.*") if path.is_file()})
    assert splits(prepare("esc50", tmp_path / "zipped", source=archive)) == splits(report)
    assert sorted(path.name for path in (tmp_path / "zipped" / "ESC-50").iterdir()) == ["audio", "meta"]


def test_esc50_that_contradicts_itself(tmp_path, small_esc):
    root = esc(tmp_path / "esc")
    table = (root / "meta" / "esc50.csv").read_text()
    for text, words in ((table.replace("101,A", "100,A", 1), "contradicts"), (table.replace("rooster", "dog"), "of 2 classes, published"),
                        (table.rsplit("\n", 2)[0], "9 clips"), (table.replace("fold,", "folds,"), "lacks the column fold")):
        write(root / "meta" / "esc50.csv", text)
        with pytest.raises(AumError, match=words):
            prepare("esc50", tmp_path / "out", source=root)
    write(root / "meta" / "esc50.csv", table)
    (root / "audio" / "3-300-A-0.wav").unlink()
    with pytest.raises(AumError, match="audio/3-300-A-0.wav is missing"):
        prepare("esc50", tmp_path / "out", source=root)


# EPIC-SOUNDS

def test_epic_sounds_validation_is_consistent(annotations):
    rows = list(epic_sounds.read_annotations(annotations / "EPIC_Sounds_validation.csv"))
    assert len(rows) == 8035
    classes = {(int(row["class_id"]), row["class"]) for row in rows}
    assert sorted(number for number, _ in classes) == list(range(44)) and len({name for _, name in classes}) == 44
    slices = [epic_sounds.slice_of(row) for row in rows]
    assert not [problem for *_, problem in slices if problem]
    assert all(round(start_s * 24000) == int(row["start_sample"]) and round(stop_s * 24000) == int(row["stop_sample"])
               for row, (start_s, stop_s, _) in zip(rows, slices))                    # to the sample
    moved = {**rows[0], "start_sample": "49000"}
    assert "timestamps are 0.027 s apart" in epic_sounds.slice_of(moved)[2]
    with pytest.raises(AumError, match="lacks the columns class, class_id"):
        list(epic_sounds.read_annotations(annotations / "EPIC_Sounds_recognition_test_timestamps.csv"))


@pytest.fixture
def kitchen(annotations, tmp_path):
    """The first 6 rows of the real validation table, as if of train and val, and 60 s of sound for their video."""
    with open(annotations / "EPIC_Sounds_validation.csv") as file:
        lines = file.read().splitlines()
    write(tmp_path / "epic" / "EPIC_Sounds_train.csv", "\n".join(lines[:4]) + "\n")
    write(tmp_path / "epic" / "EPIC_Sounds_validation.csv", "\n".join([lines[0], *lines[4:7]]) + "\n")
    rng = np.random.default_rng(0)
    return tmp_path / "epic", rng.integers(-3000, 3000, 60 * 24000).astype(np.int16)


@pytest.mark.parametrize("kind", ["hdf5", "wav", "flac"])
def test_epic_sounds(kitchen, tmp_path, kind):
    root, samples = kitchen
    if kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(root / "EPIC_audio.hdf5", "w") as file:
            file["P01_11"] = samples.astype(np.float32) / 32768
            file["P99_01"] = np.zeros(10, np.float32)
    else:
        soundfile.write(write(root / "audio" / "x", "").parent / f"P01_11.{kind}", samples, 24000)
    report, clips = prepared("epic_sounds", tmp_path / "out", source=root)
    assert splits(report) == {"train": 3, "val": 3} and report.left_out == []
    clip = read_manifest(tmp_path / "out").clips[0]
    assert (clip.labels, clip.group, clip.split) == (("ceramic / wood collision",), "P01", "train")
    waveform, rate_hz = load_audio(clip.path, None, clip.start_s, clip.stop_s)
    assert rate_hz == 24000
    np.testing.assert_array_equal(waveform * 32768, samples[49656:71832])             # to the sample
    assert any("1 of 1 videos occur in several splits" in text for text in report.warnings)
    assert report.normalisation["clips"] == 3


def test_epic_sounds_without_some_videos_and_beyond_their_end(kitchen, tmp_path):
    root, samples = kitchen
    soundfile.write(root / "P01_11.wav", samples[: 30 * 24000], 24000)
    table = root / "EPIC_Sounds_train.csv"
    write(table, table.read_text().replace("P01_11,00:00:03.065", "P02_01,00:00:03.065"))
    report, _ = prepared("epic_sounds", tmp_path / "out", source=root)
    assert report.missing == {"train": {"listed": 3, "missing": 1}}
    assert len(report.left_out) == 3 and all("doesn't lie inside the file" in item.reason for item in report.left_out)
    write(table, table.read_text().replace(",34\n", ",4\n"))
    with pytest.raises(AumError, match="contradicts other rows"):
        prepare("epic_sounds", tmp_path / "out", source=root)


def test_epic_sounds_pickles(kitchen, tmp_path):
    pandas = pytest.importorskip("pandas")
    root, samples = kitchen
    soundfile.write(root / "P01_11.flac", samples, 24000)
    with pandas.option_context("future.infer_string", False):                         # as pandas 1 wrote the published ones
        for name in ("train", "validation"):
            frame = pandas.read_csv(root / f"EPIC_Sounds_{name}.csv")
            (frame.set_index("annotation_id") if name == "train" else frame).to_pickle(root / f"EPIC_Sounds_{name}.pkl", protocol=4)
    from_csv, _ = prepared("epic_sounds", tmp_path / "csv", source=root)
    for path in root.glob("*.csv"):
        path.unlink()
    from_pickle, _ = prepared("epic_sounds", tmp_path / "pkl", source=root)
    assert replace(from_pickle, folder="", warnings=[]) == replace(from_csv, folder="", warnings=[])
    assert (tmp_path / "csv" / "manifest.csv").read_bytes() == (tmp_path / "pkl" / "manifest.csv").read_bytes()


class Attack:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("attack", ["system", "eval", "getattr", "partial", "frame", "text", "list"])
def test_pickles_that_run_code_are_refused(kitchen, tmp_path, attack):
    import functools
    import os
    pandas = pytest.importorskip("pandas")
    root, _ = kitchen
    mark = tmp_path / "ran"
    table = root / "EPIC_Sounds_train.pkl"
    (root / "EPIC_Sounds_train.csv").unlink()
    content = {"system": Attack(os.system, f"touch {mark}"), "eval": Attack(eval, f"open({str(mark)!r}, 'w')"),
               "getattr": Attack(getattr, Path(mark), "touch"), "partial": Attack(functools.partial, os.system, f"touch {mark}"),
               "list": [1, 2]}
    with pandas.option_context("future.infer_string", False):
        content["frame"] = pandas.DataFrame({"annotation_id": [Attack(os.system, f"touch {mark}")]})
    table.write_bytes(b"hello" if attack == "text" else pickle.dumps(content[attack]))
    sound(root / "P01_11.wav", None)
    with pytest.raises(AumError, match="can be trusted|not of a table"):
        prepare("epic_sounds", tmp_path / "out", source=root)
    assert not mark.exists()


# csv

def test_csv_with_all_columns(tmp_path):
    for number in range(4):
        sound(tmp_path / "sounds" / f"{number}.wav", 300.0, seconds=2.0, seed=number)
    table = write(tmp_path / "sounds" / "mine.csv", "fname,tags,onset,end,subset,speaker,remark\n0.wav,dog|cat,0.5,1.5,Training,ann,x\n"
                  "1.wav,cat,,,validation,bob,\n2.wav,dog,1,,test,ann,\n3.wav,,,,train,eve,\n")
    report, clips = prepared("csv", tmp_path / "out", source=table, settings=["separator=|"])
    assert splits(report) == {"train": 1, "val": 1, "test": 1} and report.multi_label
    clip = clips[str(tmp_path / "sounds" / "0.wav") + "@0.5"]
    assert (clip.stop_s, clip.labels, clip.split, clip.group) == (1.5, ("dog", "cat"), "train", "ann")
    assert [item.reason for item in report.left_out] == ["row 5 of mine.csv gives it no label"]
    assert any("1 of 2 groups occur in several splits" in text for text in report.warnings)
    moved = write(tmp_path / "elsewhere" / "mine.csv", table.read_text())
    assert splits(prepare("csv", tmp_path / "out2", source=tmp_path / "sounds", annotations=moved)) == splits(report)


def test_csv_without_split_keeps_groups_together(tmp_path):
    rows = ["path,label,speaker"]
    for number in range(60):
        sound(tmp_path / f"{number}.wav", 300.0, seconds=0.1, seed=number)
        rows.append(f"{number}.wav,{'ab'[number % 2]},s{number % 12}")
    table = write(tmp_path / "t.csv", "\n".join(rows) + "\n")
    report, clips = prepared("csv", tmp_path / "out", source=table, split="50/25/25", seed=2)
    assert sum(splits(report).values()) == 60 and len(splits(report)) == 3 and not report.warnings
    assert len({(clip.group, clip.split) for clip in clips.values()}) == 12
    with pytest.raises(AumError, match="its column 'speaker' says the splits"):
        prepare("csv", tmp_path / "out", source=table, split="80/10/10", settings=["split=speaker"])


@pytest.mark.parametrize("text, settings, words", [
    ("a,b\n1,2\n", [], "no column that could be the path or the label; it has a, b"), ("", [], "no first line"),
    ("path,label\nx.wav\n", [], "row 2: 1 values for 2 columns"), ("path,label\n,a\n", [], "row 2: no path"),
    ("path,label,start\nx.wav,a,soon\n", [], "row 2: could not convert"), ("path,label\n", ["label=kind"], "has no column kind"),
    ("path,label,split\nx.wav,a,\n", [], "row 2: no split"), ("path,label\n", ["colour=red"], "no setting colour"),
    ("path,label\nx.wav,\"a\n" + "x" * 2_000_000, [], "not a CSV file"), ("path,label\nx.wav,a;\x00\n", ["label"], "not key=value")])
def test_csv_mistakes(tmp_path, text, settings, words):
    with pytest.raises(AumError, match=words) as caught:
        prepare("csv", tmp_path / "out", source=write(tmp_path / "t.csv", text), settings=settings)
    assert caught.value.fix


# AST's lists

def lists(root):
    for number in range(4):
        sound(root / "audio" / f"{number}.wav", 300.0, seed=number)
    write(root / "class_labels_indices.csv", LABELS)
    write(root / "balanced_train_data.json", json.dumps({"data": [
        {"wav": "audio/0.wav", "labels": "/m/09x0r,/m/05zppz"}, {"wav": str(root / "audio" / "1.wav"), "labels": "/t/dd00003"}]}))
    write(root / "eval_data.json", json.dumps({"data": [{"wav": "audio/2.wav", "labels": "/m/09x0r"}]}))
    write(root / "esc_valid.json", json.dumps({"data": [{"wav": "audio/3.wav", "labels": "Male speech, man speaking"}]}))
    return root


def test_ast_json(tmp_path, monkeypatch):
    root = lists(tmp_path / "esc")
    monkeypatch.chdir(tmp_path)
    report = prepare("ast-json", source=root)
    assert report.folder == str(tmp_path / "data" / "esc") and splits(report) == {"train": 2, "val": 1, "test": 1}
    clips = read_manifest("data/esc").clips
    assert clips[0].labels == ("/m/09x0r", "/m/05zppz") and clips[1].path == root / "audio" / "1.wav"
    assert clips.of_split("val")[0].labels == ("/m/05zppz",)
    only = prepare("ast-json", tmp_path / "two", source=root, settings=["train=eval_data.json", "labels=class_labels_indices.csv"])
    assert splits(only) == {"train": 1}


@pytest.mark.parametrize("name, text, words", [
    ("eval_data.json", "[]", "is not"), ("eval_data.json", '{"data": [{"wav": "x"}]}', "item 0 has no wav or no labels"),
    ("eval_data.json", '{"data": [{"wav": "x", "labels": "/m/other"}]}', "lacks the label /m/other"), ("eval_data.json", "{", "is not"),
    ("test.json", '{"data": []}', "several files for test"), ("class_labels_indices.csv", "mid,name\n", "lacks the column index"),
    ("eval_data.json", "[" * 100_000, "is not")])
def test_ast_json_mistakes(tmp_path, name, text, words):
    write(lists(tmp_path / "x") / name, text)
    with pytest.raises(AumError, match=words):
        prepare("ast-json", tmp_path / "out", source=tmp_path / "x")

"""AudioSet, AS-20K and VGGSound: clips under all the names that people use, on miniatures and the real tables."""

import shutil

import pytest
from corpora import prepared, splits, write
from tiny import sound

from aumcli.data.labels import read_labels
from aumcli.data.sources import vggsound, youtube
from aumcli.errors import AumError
from aumcli.prepare import prepare

# AudioSet

IDS = ["--4gqARaEJE", "a_b-c_d-e_f", "Yabcdefghij", "0123456789_", "_30_40abcde"]
LABELS = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
    '2,/t/dd00003,"Male singing"\n'
)
COMMENTS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=20371, num_segs=20371\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)


def audioset_folder(root):
    write(root / "class_labels_indices.csv", LABELS)
    write(
        root / "balanced_train_segments.csv",
        COMMENTS + "".join(f'{video}, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n' for video in IDS),
    )
    write(root / "unbalanced_train_segments.csv", COMMENTS + 'unbalanced1, 0.000, 10.000, "/t/dd00003"\n')
    write(
        root / "eval_segments.csv",
        COMMENTS + 'evaluation1, 0.000, 10.000, "/t/dd00003"\nevaluation2, 5.000, 15.000, "/m/09x0r"\n',
    )
    for name in (
        "balanced/--4gqARaEJE.wav",
        "balanced/00/a_b-c_d-e_f_30.000_40.000.flac",
        "YYabcdefghij.wav",
        "0123456789__30000.wav",
        "balanced/_30_40abcde_30.wav",
        "u/unbalanced1_0_10.wav",
        "eval/Yevaluation1.wav",
        "other/zzzzzzzzzzz.wav",
    ):
        sound(root / name, 400.0, seconds=0.2, seed=len(name))
    return root


def test_audioset_in_all_the_names_that_people_use(tmp_path):
    root = audioset_folder(tmp_path / "as")
    report, clips = prepared("audioset", tmp_path / "out", source=root, settings=["train=full"])
    assert splits(report) == {"train": 6, "test": 1} and report.multi_label
    assert {clip.group for clip in clips.values()} == {*IDS, "unbalanced1", "evaluation1"}
    assert clips[str(root / "YYabcdefghij.wav")].labels == ("/m/09x0r", "/m/05zppz")
    assert report.missing == {"test": {"listed": 2, "missing": 1}} and report.classes["Speech"]["test"]["missing"] == 1
    assert list(report.classes) == ["Speech", "Male speech, man speaking", "Male singing"]
    assert any("1 sound belongs to no row" in text for text in report.warnings)
    assert "evaluation2,5.0,,/m/09x0r,test,evaluation2" in (tmp_path / "out" / "missing.csv").read_text()
    with pytest.raises(AumError, match="1 clip can't be used.*\n.*evaluation2: no such file"):
        prepare("audioset", tmp_path / "strict", source=root, strict=True)


def test_audioset_is_trained_on_the_unbalanced_segments_as_published(tmp_path):
    root = audioset_folder(tmp_path / "as")
    (root / "YYabcdefghij.wav").unlink()
    report, clips = prepared("audioset", tmp_path / "out", source=root)
    assert splits(report) == {"train": 1, "test": 1} and report.missing == {"test": {"listed": 2, "missing": 1}}
    assert {clip.group for clip in clips.values()} == {"unbalanced1", "evaluation1"}
    said = "\n".join(report.warnings)  # nothing vanishes
    assert "the 5 of balanced_train_segments.csv, 4 of which have a file, are not trained on: --set train=full" in said
    assert "1 sound belongs to no row" in said  # the balanced ones are no strangers
    (root / "balanced_train_segments.csv").unlink()
    report = prepare("audioset", tmp_path / "again", source=root)
    assert splits(report) == {"train": 1, "test": 1}
    assert any("unbalanced_train_segments.csv alone, as in the published runs" in text for text in report.warnings)
    with pytest.raises(AumError, match="no training set 'all'; it has unbalanced, full"):
        prepare("audioset", tmp_path / "again", source=root, settings=["train=all"])
    with pytest.raises(AumError, match="no setting train; it has val"):
        prepare("as20k", tmp_path / "again", source=root, settings=["train=full"])


def test_as20k_is_the_balanced_part(tmp_path):
    root = audioset_folder(tmp_path / "as")
    (root / "unbalanced_train_segments.csv").unlink()
    assert splits(prepare("as20k", tmp_path / "out", source=root)) == {"train": 5, "test": 1}
    shutil.move(root / "eval_segments.csv", write(tmp_path / "tables" / "x", "").parent)
    for name in ("balanced_train_segments.csv", "class_labels_indices.csv"):
        shutil.move(root / name, tmp_path / "tables")
    report = prepare("as20k", tmp_path / "out", source=root, annotations=tmp_path / "tables", settings=["val=40"])
    counts = splits(report)
    assert counts["train"] + counts["val"] == 5 and counts["val"] >= 1  # a hash of the video decides
    assert not any("validation" in text for text in report.warnings)
    with pytest.raises(AumError, match="no setting vall; it has val"):
        prepare("as20k", tmp_path / "out", source=root, settings=["vall=5"])
    with pytest.raises(AumError, match="no percentage"):
        prepare("as20k", tmp_path / "out", source=root, annotations=tmp_path / "tables", settings=["val=100"])


@pytest.mark.parametrize(
    "corpus, settings, tables",
    [
        ("as20k", [], ["balanced"]),
        ("audioset", [], ["unbalanced"]),
        ("audioset", ["train=full"], ["balanced", "unbalanced"]),
    ],
)
def test_the_tables_that_are_asked_for_are_those_that_are_read(tmp_path, corpus, settings, tables):
    with pytest.raises(AumError, match=f"has no {tables[0]}_train_segments.csv") as caught:
        prepare(corpus, tmp_path / "out", source=tmp_path, settings=settings)
    wanted = [*(f"{name}_train_segments.csv" for name in tables), "eval_segments.csv", "class_labels_indices.csv"]
    assert f"Into {tmp_path} put" in caught.value.fix and f": {', '.join(wanted)}\n" in caught.value.fix


def test_audioset_files_that_are_not_the_segment(tmp_path):
    root = audioset_folder(tmp_path / "as")
    shutil.move(root / "balanced" / "_30_40abcde_30.wav", root / "balanced" / "_30_40abcde_90.wav")
    sound(root / "again" / "--4gqARaEJE.flac", 400.0)
    sound(root / "eval" / "evaluation2.wav", 400.0, seconds=15.1)
    report, clips = prepared("audioset", tmp_path / "out", source=root, settings=["train=full"])
    reasons = [item.reason for item in report.skipped]
    assert len(reasons) == 2 and "begins at another time" in reasons[0] and "it may be the whole video" in reasons[1]
    assert any("1 sound occurs twice" in text for text in report.warnings)


@pytest.mark.parametrize(
    "table, words",
    [
        ('# a\n# b\n# c\nabc, 0.0, 10.0, "/m/09x0r"\n', "row 4: .* is not YTID, start, end and known classes"),
        (COMMENTS + 'abcdefghijk, 0.0, 10.0, "/m/unknown"\n', "known classes"),
        (COMMENTS + "abcdefghijk, x, 10.0, /m/09x0r\n", "row 4"),
        (COMMENTS + "abcdefghijk,/m/09x0r\n", "row 4"),
    ],
)
def test_audioset_wrong_tables(tmp_path, table, words):
    write(audioset_folder(tmp_path) / "eval_segments.csv", table)
    with pytest.raises(AumError, match=words):
        prepare("audioset", tmp_path / "out", source=tmp_path)


def test_names_of_youtube_clips():
    for video in IDS:
        for stem, time in (
            (video, None),
            (f"Y{video}", None),
            (f"{video}_30", 30),
            (f"{video}_30.000_40.000", 30),
            (f"Y{video}_30000_40000", 30000),
            (f"{video}_000030", 30),
            (f"{video}_30-40", 30),
        ):
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
    write(
        root / "vggsound.csv",
        "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
        'twiceABCDEF,30,"bee, wasp, etc. buzzing",train\ntwiceABCDEF,60,people marching,train\n',
    )
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
    assert list(report.classes) == [label.name for label in labels]  # in the table's order
    assert len((tmp_path / "out" / "missing.csv").read_text().splitlines()) == 15444
    with pytest.raises(AumError, match="row 1"):
        list(vggsound.read_table(annotations / "audioset_class_labels_indices.csv", "test"))

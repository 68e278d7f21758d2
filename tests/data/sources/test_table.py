"""Tables as people, their programs and corpora write them, read to the end."""

import csv
import io
import os
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from corpora import prepared, splits, write
from tiny import sound

from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.prepare import prepare


def rows_of(report):
    """The manifest's rows, without paths' folders and splits."""
    return [(clip.path.name, clip.start_s, clip.stop_s, *clip.labels) for clip in read_manifest(report.folder).clips]


@pytest.fixture
def two(tmp_path):
    """Two sounds of 60 s, in a folder for tables."""
    for number, name in enumerate(("a.wav", "b.wav")):
        sound(tmp_path / name, 300.0, seconds=60, seed=number)
    return tmp_path


@pytest.mark.parametrize(
    "text, expected",
    [
        ("file,offset,duration,species\na.wav,30,2,owl\nb.wav,1.5,2,cat\n", (30, 32, 1.5, 3.5)),
        ("file,start_time,end_time,species\na.wav,30,32,owl\nb.wav,1.5,3.5,cat\n", (30, 32, 1.5, 3.5)),
        ("file;begin_ms;end_ms;species\na.wav;30000;32000,5;owl\nb.wav;1500;3500;cat\n", (30, 32.0005, 1.5, 3.5)),
        (
            "file\tstart_sample\tend_sample\tspecies\na.wav\t8000\t16000\towl\nb.wav\t4\t804\tcat\n",
            (1, 2, 0.0005, 0.1005),
        ),
        ("file,begin,end,species\na.wav,0:00:30.5,00:00:32,owl\nb.wav,0:01,1:00,cat\n", (30.5, 32, 1, 60)),
        ("file;start;end;species\na.wav;0,5;1,25;owl\nb.wav;1;2;cat\n", (0.5, 1.25, 1, 2)),
        ("file,start,end,species\na.wav,NA,nan,owl\nb.wav,,2,cat\n", (None, None, None, 2)),
        ("file,onset,length,species\na.wav,,2,owl\nb.wav,58,2,cat\n", (0, 2, 58, 60)),
    ],
)
def test_csv_times_as_people_write_them(two, text, expected):
    report = prepare("csv", two / "out", source=write(two / "t.csv", text), workers=2)
    assert rows_of(report) == [("a.wav", *expected[:2], "owl"), ("b.wav", *expected[2:], "cat")] and not report.skipped


def test_csv_of_raven(two):
    table = (
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin Path\tFile Offset (s)\tSpecies\n"
        "1\tWaveform 1\t60.5\t62.1\tD:\\rec\\b.wav\t0.5\towl\n1\tSpectrogram 1\t60.5\t62.1\tD:\\rec\\b.wav\t0.5\towl\n"
        "2\tSpectrogram 1\t7\t9\tD:\\rec\\a.wav\t7\tcat\n"
    )
    report = prepare("csv", two / "out", source=write(two / "t.txt", table))
    assert rows_of(report) == [("b.wav", 0.5, 2.1, "owl"), ("a.wav", 7, 9, "cat")]
    assert any("path = Begin Path" in note and "not used: Selection, View" in note for note in report.notes)
    assert any("count once: 1" in note for note in report.notes) and any(
        "D:\\rec\\b.wav" in note for note in report.notes
    )


def test_csv_of_audacity_and_birdnet_by_the_tables_name(two):
    write(two / "labels" / "x.txt", "")
    label = write(two / "a.txt", "0.5\t1.5\towl\n\\\t100.0\t2000.0\n3\t4,5\tcat\n5\t5\tcat\n")
    report = prepare("csv", two / "out", source=label)
    assert rows_of(report) == [("a.wav", 0.5, 1.5, "owl"), ("a.wav", 3, 4.5, "cat")]
    assert "point in time" in report.skipped[0].reason and any(
        f"{two / 'a.wav'} for a.txt" in note for note in report.notes
    )
    birdnet = "Start (s),End (s),Scientific name,Common name,Confidence\n0.0,3.0,Strix aluco,Tawny Owl,0.9\n"
    other = write(two / "b.BirdNET.results.csv", birdnet)
    assert rows_of(prepare("csv", two / "out", source=other)) == [("b.wav", 0, 3, "Tawny Owl")]
    moved = write(two / "labels" / "any.csv", birdnet)
    with pytest.raises(AumError, match="no column that could be the path.*\n.*--source SOUND.wav"):
        prepare("csv", two / "out", source=moved)
    report = prepare("csv", two / "out", annotations=moved, source=two / "b.wav")
    assert rows_of(report) == [("b.wav", 0, 3, "Tawny Owl")] and set(splits(report)) == {"train"}
    write(two / "README.txt", "Labels by Ann\n")
    report = prepare("csv", two / "out", source=two)  # all tables of a folder
    assert len(rows_of(report)) == 3 and [item.path for item in report.skipped] == [
        str(two / "README.txt"),
        str(label),
    ]


def test_csv_slices_that_are_files_already(tmp_path):
    for fold in range(1, 5):
        sound(tmp_path / "audio" / f"fold{fold}" / f"{fold}-3.wav", 300.0, seed=fold)
    table = write(
        tmp_path / "metadata" / "UrbanSound8K.csv",
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        + "".join(
            f"{fold}-3.wav,{fold},{fold - 1}.0,{fold - 0.5},1,{fold},3,{'dog' if fold % 2 else 'cat'}\n"
            for fold in range(1, 5)
        ),
    )
    report, clips = prepared("csv", tmp_path / "out", source=table)
    assert all(clip.start_s is None and clip.stop_s is None for clip in clips.values())
    assert {clip.group: clip.split for clip in clips.values()} == {"1": "train", "2": "train", "3": "val", "4": "test"}
    assert any("times are those of the recordings" in note for note in report.notes) and any(
        "fold 4 for test" in note for note in report.notes
    )
    shared = prepared("csv", tmp_path / "out", source=table, split="80/10/10")[1]
    assert {clip.group for clip in shared.values()} == {"1", "2", "3", "4"}


def test_csv_of_fsd50k(tmp_path):
    for number in range(2):
        sound(tmp_path / "FSD50K.dev_audio" / f"{number}.wav", 300.0, seed=number)
    text = 'fname,labels,mids,split\n0,"Guitar,Music","/m/1,/m/2",train\n1,Music,/m/2,val\n'
    report = prepare("csv", tmp_path / "out", source=write(tmp_path / "FSD50K.ground_truth" / "dev.csv", text))
    assert (
        rows_of(report) == [("0.wav", None, None, "Guitar", "Music"), ("1.wav", None, None, "Music")]
        and report.multi_label
    )
    assert any("joined by ','" in note for note in report.notes) and not report.warnings


def test_csv_separators_that_are_none(two):
    table = write(two / "t.csv", 'file,label\na.wav,"lamp,river"\nb.wav,lamp\n')
    report = prepare("csv", two / "out", source=table)
    (warning,) = [text for text in report.warnings if "several labels in one" in text]
    assert (
        "'lamp,river'" in warning and "--set separator=," in warning and list(report.classes) == ["lamp", "lamp,river"]
    )
    report = prepare("csv", two / "out", source=table, settings=["separator=,"])
    assert (
        report.multi_label
        and list(report.classes) == ["lamp", "river"]
        and not any("several labels" in text for text in report.warnings)
    )
    report = prepare(
        "csv",
        two / "out",
        source=write(two / "t.csv", "file,label\na.wav,lamp;river\nb.wav,lamp\n"),
        settings=["separator="],
    )
    assert len(report.skipped) == 1 and "--set 'separator=;'" in report.skipped[0].fix
    assert prepare(
        "csv",
        two / "out",
        source=write(two / "t.csv", "file,label\na.wav,lamp river\nb.wav,lamp\n"),
        settings=["separator= "],
    ).multi_label


def test_csv_the_same_sound_under_two_labels_or_in_two_splits(tmp_path):
    for number in range(4):
        sound(tmp_path / f"{number}.wav", 300.0, seed=number)
    (tmp_path / "soft.wav").symlink_to(tmp_path / "0.wav")
    os.link(tmp_path / "1.wav", tmp_path / "hard.wav")
    shutil.copy(tmp_path / "2.wav", tmp_path / "copy.wav")
    table = write(
        tmp_path / "t.csv",
        "path,label,split\n0.wav,dog,train\nsoft.wav,dog,test\n1.wav,cat,train\nhard.wav,cat,val\n"
        "2.wav,dog,train\ncopy.wav,cat,train\n3.wav,dog,val\n",
    )
    classes, between = prepare("csv", tmp_path / "out", source=table).warnings
    assert (
        "1 sound occurs several times under different classes" in classes
        and "2.wav = " in classes
        and "joined by ;" in classes
    )
    assert (
        "2 sounds occur several times in different splits" in between
        and "soft.wav" in between
        and "hard.wav" in between
    )
    slices = write(
        tmp_path / "s.csv",
        "path,label,split,start,stop\n0.wav,dog,train,0,0.2\nsoft.wav,cat,test,0.2,0.4\n3.wav,dog,val,0,0.2\n",
    )
    assert any(
        "1 of 2 files occurs in several splits (1 in test and train)" in text
        for text in prepare("csv", tmp_path / "out", source=slices).warnings
    )
    names = ("0", "soft", "1", "hard", "2", "copy", "3")
    open_ = write(
        tmp_path / "o.csv", "path,label\n" + "".join(f"{name}.wav,{'dog' if name < '2' else 'cat'}\n" for name in names)
    )
    chosen = {clip.path.name[:-4]: clip.split for clip in prepared("csv", tmp_path / "out", source=open_)[1].values()}
    assert (
        all(chosen[one] == chosen[two] for one, two in (("0", "soft"), ("1", "hard"), ("2", "copy")))
        and len(chosen) == 7
    )


def test_csv_few_groups_leave_no_split_empty(tmp_path):
    rows = []
    for number in range(6):
        sound(tmp_path / f"{number}.wav", 300.0, seed=number)
        rows.append(f"{number}.wav,{'ab'[number % 2]},s{number // 2}\n")
    for seed in range(8):
        table = write(tmp_path / "t.csv", "path,label,speaker\n" + "".join(rows))
        assert splits(prepare("csv", tmp_path / "out", source=table, seed=seed)) == {"train": 2, "val": 2, "test": 2}
    assert set(
        splits(
            prepare(
                "csv", tmp_path / "out", source=write(tmp_path / "t.csv", "path,label,speaker\n" + "".join(rows[:2]))
            )
        )
    ) == {"train"}


def test_csv_wrong_rows_are_named_and_the_rest_is_done(tmp_path):
    sound(tmp_path / "0.wav", 300.0)
    rows = [
        "0.wav,dog,0,0.2",
        "0.wav,cat,0.2,0.2",
        "0.wav,cat,0.4,0.2",
        ",cat,0,1",
        "0.wav,,0,1",
        "0.wav,cat,-1,1",
        "0.wav,cat,soon,1",
        "0.wav,cat,0,1,9",
        "0.wav,cat,0",
        "0.wav,cat,inf,",
        "x\0.wav,cat,0,1",
        "",
        "0.wav,a;b\0,0,1",
        "0.wav,cat,0:61,2",
        "0.wav,dog,0.3,0.4",
    ]
    report = prepare(
        "csv", tmp_path / "out", source=write(tmp_path / "t.csv", "path,label,start,stop\n" + "\n".join(rows) + "\n")
    )
    assert rows_of(report) == [("0.wav", 0, 0.2, "dog"), ("0.wav", 0.3, 0.4, "dog")]
    found = {int(re.search(r"row (\d+)", item.reason)[1]): item.reason for item in report.skipped}
    for row, what in {
        3: "a point in time",
        4: "no stretch of time",
        5: "no path",
        6: "gives it no label",
        7: "no stretch",
        8: "start 'soon'",
        9: "5 values for 4 columns",
        10: "3 values",
        11: "start 'inf'",
        12: "NUL",
        14: "NUL",
        15: "start '0:61'",
    }.items():
        assert what in found[row], row
    assert len(found) == 12 and all(item.fix for item in report.skipped)


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "path,label\nx.wav,a\ny.wav,b\n",
            "none of the 2 sounds .* lie below .*: x.wav, y.wav\n.*--annotations .* --source FOLDER",
        ),
        (
            "path,label,start,stop\n0.wav,a,1000,2000\n0.wav,b,3000,4000\n0.wav,b,5000,6000\n",
            "the times lie outside the files: .*0.wav lasts 0.5 s.*\n.*--set start= takes whole files.*_ms",
        ),
        ("file,offset,label\n0.wav,3,a\n", "could be a start or an end"),
        ("# only\n# comments\n", "no first line"),
    ],
)
def test_csv_that_cannot_be_meant(tmp_path, text, words):
    sound(tmp_path / "0.wav", 300.0)
    with pytest.raises(AumError, match=words):
        prepare("csv", tmp_path / "out", source=write(tmp_path / "t.csv", text))


def test_csv_that_is_not_there(tmp_path):
    write(tmp_path / "table.csv", "")
    for source, words in (
        (tmp_path / "tabel.csv", "tabel.csv doesn't exist; did you mean table.csv?"),
        (tmp_path / "out.txt", "doesn't exist"),
        (None, "which table"),
        (sound(tmp_path / "x" / "1.wav", 300.0).parent, "a folder without tables"),
    ):
        with pytest.raises(AumError, match=re.escape(words)) as caught:
            prepare("csv", tmp_path / "out", source=source)
        assert "aum prepare csv TABLE.csv" in caught.value.fix
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(AumError, match="several times"):
        prepare("csv", tmp_path / "out", source=tmp_path / "pipe.csv")
    with pytest.raises(AumError, match="for the corpus itself, aum prepare vggsound"):
        prepare("csv", tmp_path / "out", source=write(tmp_path / "vggsound.csv", "---g-f_I2yQ,1,people,test\n"))


WORDS = [
    "start",
    "end",
    "onset",
    "offset",
    "duration",
    "path",
    "file",
    "label",
    "labels",
    "species",
    "fold",
    "split",
    "group",
    "Begin Time (s)",
    "File Offset (s)",
    "start_ms",
    "end_sample",
    "t0",
    "t1",
    "slice_file_name",
    "",
    "x y",
    "Ä",
    "#a",
    "to",
    "from",
    "frame_start",
    "id",
]
VALUES = [
    "",
    "a.wav",
    "b.wav",
    "./a.wav",
    "x/..//b.wav",
    "sub\\a.wav",
    "C:\\x\\b.wav",
    "0",
    "1.5",
    "1,5",
    "2",
    "-1",
    "nan",
    "NA",
    "1e400",
    "0:01",
    "99:99",
    "dog",
    "dog;cat",
    "dog,cat",
    "['a', 'b']",
    "[[[",
    "train",
    "\\",
    "é",
    '"',
    "a\nb",
    "\0",
    " ",
    "=1+1",
    "9" * 400,
    "::",
    "a.h5::x",
    "..",
    "/",
]


@pytest.mark.parametrize("part", range(6))
def test_csv_whatever_it_holds_there_is_no_stack_trace(tmp_path, part):
    """Random tables: a clip list or an error with a fix, nothing else."""
    from aumcli.data.sources import PrepareRequest, table

    for number, name in enumerate(("a.wav", "b.wav")):
        sound(tmp_path / name, 300.0, seconds=2, seed=number)
    ended = Counter()
    for number in range(100):
        rng = np.random.default_rng([part, number])
        width, delimiter = int(rng.integers(1, 7)), rng.choice([",", ";", "\t", "|"])
        lines = [[WORDS[i] for i in rng.integers(len(WORDS), size=width)] if rng.random() < 0.8 else []]
        if rng.random() < 0.5 and width > 1:
            lines[0] = ["path", "label", *lines[0][2:]]
        lines += [
            [
                VALUES[i]
                for i in rng.integers(len(VALUES), size=max(0, width + int(rng.integers(-1, 2) * (rng.random() < 0.1))))
            ]
            for _ in range(rng.integers(0, 6))
        ]
        if len(lines[0]) > 1 and lines[0][0] == "path":
            lines[1:] = [[rng.choice(["a.wav", "./b.wav", "x//a.wav"]), *line[1:]] for line in lines[1:]]
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter).writerows(lines)
        data = text.getvalue().encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1"]), "replace")
        path = tmp_path / "t.csv"
        path.write_bytes(data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.1 else data)
        settings = {
            WORDS[i] if rng.random() < 0.2 else rng.choice(["start", "label", "separator", "stop"]): WORDS[j]
            for i, j in rng.integers(len(WORDS), size=(int(rng.random() < 0.3), 2))
        }
        try:
            index = table.index(PrepareRequest("csv", tmp_path / "out", path, settings=settings))
            clips, _ = index.arrange(index.clips, index.skipped)
            assert all(clip.split and clip.labels for clip in clips)
            ended["read"] += bool(clips)
        except AumError as error:
            assert error.fix and "t.csv" in error.problem or "no setting" in error.problem, error
            ended["refused"] += 1
    assert ended["read"] >= 5 and ended["refused"] >= 20, ended

"""One's own data as a table or as AST's JSON lists, good ones and wrong ones."""

import json
import shutil

import pytest
from corpora import prepared, splits, write
from tiny import sound

from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.prepare import prepare

LABELS = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n'
    '2,/t/dd00003,"Male singing"\n'
)

# csv


def test_csv_with_all_columns(tmp_path):
    for number in range(4):
        sound(tmp_path / "sounds" / f"{number}.wav", 300.0, seconds=2.0, seed=number)
    table = write(
        tmp_path / "sounds" / "mine.csv",
        "fname,tags,onset,end,subset,speaker,remark\n0.wav,dog|cat,0.5,1.5,Training,ann,x\n"
        "1.wav,cat,,,validation,bob,\n2.wav,dog,1,,test,ann,\n3.wav,,,,train,eve,\n",
    )
    report, clips = prepared("csv", tmp_path / "out", source=table, settings=["separator=|"])
    assert splits(report) == {"train": 1, "val": 1, "test": 1} and report.multi_label
    clip = clips[str(tmp_path / "sounds" / "0.wav") + "@0.5"]
    assert (clip.stop_s, clip.labels, clip.split, clip.group) == (1.5, ("dog", "cat"), "train", "ann")
    assert [item.reason for item in report.skipped] == ["row 5 of mine.csv gives it no label"]
    assert any("1 of 2 groups occurs in several splits" in text for text in report.warnings)
    moved = write(tmp_path / "elsewhere" / "mine.csv", table.read_text())
    assert splits(prepare("csv", tmp_path / "out2", source=tmp_path / "sounds", annotations=moved)) == splits(report)


def test_data_without_validation_is_warned_of(tmp_path):
    table = "path,label,split\n0.wav,dog,train\n1.wav,cat,train\n2.wav,dog,{}\n"
    for number in range(3):
        sound(tmp_path / f"{number}.wav", 300.0, seed=number)
    report = prepare("csv", tmp_path / "out", source=write(tmp_path / "t.csv", table.format("test")))
    (warning,) = [text for text in report.warnings if "no clips for validation" in text]
    assert "--split 80/10/10" in warning and "data.val_fraction=0.1" in warning
    assert prepare("csv", tmp_path / "out", source=write(tmp_path / "t.csv", table.format("val"))).warnings == []


def test_csv_without_split_keeps_groups_together(tmp_path):
    rows = ["path,label,speaker"]
    for number in range(60):
        sound(tmp_path / f"{number}.wav", 300.0, seconds=0.1, seed=number)
        rows.append(f"{number}.wav,{'ab'[number % 2]},s{number % 12}")
    table = write(tmp_path / "t.csv", "\n".join(rows) + "\n")
    report, clips = prepared("csv", tmp_path / "out", source=table, split="50/25/25", seed=2)
    assert sum(splits(report).values()) == 60 and len(splits(report)) == 3 and not report.warnings
    assert len({(clip.group, clip.split) for clip in clips.values()}) == 12
    with pytest.raises(AumError, match="'speaker'"):
        prepare("csv", tmp_path / "out", source=table, split="80/10/10", settings=["split=speaker"])


@pytest.mark.parametrize(
    "text, settings, words",
    [
        ("a,b\n1,2\n", [], "no column that could be the path or the label; it has a, b"),
        ("", [], "no first line"),
        ("path,label\nx.wav\n", [], "row 2: 1 value for 2 columns"),
        ("path,label\n,a\n", [], "row 2: no path"),
        ("path,label,start\nx.wav,a,soon\n", [], "row 2: could not convert"),
        ("path,label\n", ["label=kind"], "has no column kind"),
        ("path,label,split\nx.wav,a,\n", [], "row 2: no split"),
        ("path,label\n", ["colour=red"], "no setting colour"),
        ('path,label\nx.wav,"a\n' + "x" * 2_000_000, [], "not a CSV file"),
        ("path,label\nx.wav,a;\x00\n", ["label"], "not key=value"),
    ],
)
def test_csv_mistakes(tmp_path, text, settings, words):
    with pytest.raises(AumError, match=words) as caught:
        prepare("csv", tmp_path / "out", source=write(tmp_path / "in" / "t.csv", text), settings=settings)
    assert caught.value.fix


# AST's lists


def lists(root):
    for number in range(4):
        sound(root / "audio" / f"{number}.wav", 300.0, seed=number)
    write(root / "class_labels_indices.csv", LABELS)
    write(
        root / "balanced_train_data.json",
        json.dumps(
            {
                "data": [
                    {"wav": "audio/0.wav", "labels": "/m/09x0r,/m/05zppz"},
                    {"wav": str(root / "audio" / "1.wav"), "labels": "/t/dd00003"},
                ]
            }
        ),
    )
    write(root / "eval_data.json", json.dumps({"data": [{"wav": "audio/2.wav", "labels": "/m/09x0r"}]}))
    write(
        root / "esc_valid.json", json.dumps({"data": [{"wav": "audio/3.wav", "labels": "Male speech, man speaking"}]})
    )
    return root


def test_ast_json(tmp_path, monkeypatch):
    root = lists(tmp_path / "esc")
    monkeypatch.chdir(tmp_path)
    report = prepare("ast-json", source=root)
    assert report.folder == str(tmp_path / "data" / "esc") and splits(report) == {"train": 2, "val": 1, "test": 1}
    clips = read_manifest("data/esc").clips
    assert clips[0].labels == ("/m/09x0r", "/m/05zppz") and clips[1].path == root / "audio" / "1.wav"
    assert clips.of_split("val")[0].labels == ("/m/05zppz",)
    only = prepare(
        "ast-json", tmp_path / "two", source=root, settings=["train=eval_data.json", "labels=class_labels_indices.csv"]
    )
    assert splits(only) == {"train": 1}


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("eval_data.json", "[]", "is not"),
        ("eval_data.json", '{"data": [{"wav": "x"}]}', "item 0 has no wav or no labels"),
        ("eval_data.json", '{"data": [{"wav": "x", "labels": "/m/other"}]}', "lacks the label /m/other"),
        ("eval_data.json", "{", "is not"),
        ("test.json", '{"data": []}', "several files for test"),
        ("class_labels_indices.csv", "mid,name\n", "lacks the column index"),
        ("eval_data.json", "[" * 100_000, "is not"),
    ],
)
def test_ast_json_mistakes(tmp_path, name, text, words):
    write(lists(tmp_path / "x") / name, text)
    with pytest.raises(AumError, match=words):
        prepare("ast-json", tmp_path / "out", source=tmp_path / "x")


def test_ast_json_gets_these_checks_too(tmp_path):
    root = lists(tmp_path / "x")
    shutil.copy(root / "audio" / "0.wav", root / "audio" / "2.wav")
    assert any("in different splits" in text for text in prepare("ast-json", tmp_path / "out", source=root).warnings)

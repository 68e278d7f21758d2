"""Published checkpoints of every corpus.

From the .pth and the authors' table of classes to figures on prepared data.
"""

import csv
import json

import pytest
import torch
from tiny import sound

from aumcli.checkpoints import read_config
from aumcli.config import AudioMambaConfig
from aumcli.core.audio_mamba import AudioMamba
from aumcli.data.labels import read_labels

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture
def annotations(shared):
    return shared / "data" / "annotations"


def checkpoint(path, n_classes: int, winner: int):
    """A small model under the authors' names that says class `winner` of everything."""
    torch.manual_seed(0)
    tensors = AudioMamba(
        AudioMambaConfig(width=32, depth=1, n_classes=n_classes, n_mels=128, frames=128, state_size=4)
    ).state_dict()
    tensors["head.weight"].zero_()
    tensors["head.bias"].copy_(torch.where(torch.arange(n_classes) == winner, 10.0, -10.0))
    torch.save({f"module.{name}": x for name, x in tensors.items()}, path)
    return path


def vggsound(source, annotations):
    with open(annotations / "vggsound_test.csv", newline="") as file:
        files = {label: name for name, label in csv.reader(file)}
    classes = ("zebra braying", "waterfall burbling", "airplane")
    for seed, label in enumerate(classes):
        sound(source / "clips" / files[label].replace(".mp4", ".wav"), 300.0, rate_hz=16000, seed=seed)
    (source / "test.csv").write_text("".join(f"{files[label]},{label}\n" for label in classes))
    return annotations / "vggsound_class_labels_indices.csv", "zebra braying"


def speechcommands(source, annotations):
    for word in ("zero", "bed", "yes"):
        sound(source / word / "0a7c2a8d_nohash_0.wav", 300.0, rate_hz=16000)
    (source / "validation_list.txt").write_text("")
    (source / "testing_list.txt").write_text(
        "".join(f"{word}/0a7c2a8d_nohash_0.wav\n" for word in ("zero", "bed", "yes"))
    )
    return annotations / "speechcommands_class_labels_indices.csv", "zero"


def voxceleb1(source, annotations):
    """Its table numbers the speakers: /m/voxclb0003 is id10003, as the authors' lists have it."""
    files = [f"id{speaker}/abcdefghijk/00001.wav" for speaker in (11251, 10003, 10700)]
    for file in files:
        sound(source / "wav" / file, 300.0, rate_hz=16000)
    (source / "iden_split.txt").write_text("".join(f"3 {file}\n" for file in files))
    table = source / "class_labels_indices.csv"
    table.write_text("index,mid,display_name\n" + "".join(f"{i},/m/voxclb{i + 1:04d},{i}\n" for i in range(1251)))
    return table, "id10003"


def epic_sounds(source, annotations):
    """It has no table of classes; its annotations of either split have all 44."""
    lines = (annotations / "EPIC_Sounds_validation.csv").read_text().splitlines()
    sound(source / "P01_11.wav", 300.0, rate_hz=24000, seconds=40)
    (source / "EPIC_Sounds_validation.csv").write_text("\n".join(lines[:4]) + "\n")
    return annotations / "EPIC_Sounds_validation.csv", "rustle"


def audioset(source, annotations):
    table = annotations / "audioset_class_labels_indices.csv"
    (source / "class_labels_indices.csv").write_bytes(table.read_bytes())
    for name, rows in (
        ("eval", ['--4gqARaEJE, 0.000, 10.000, "/m/068hy"', '--BfvyPmVMo, 0.000, 10.000, "/m/03l9g,/m/068hy"']),
        ("balanced_train", []),
        ("unbalanced_train", []),
    ):
        (source / f"{name}_segments.csv").write_text("\n".join(["# 1", "# 2", "# 3", *rows]) + "\n")
    for video in ("--4gqARaEJE", "--BfvyPmVMo"):
        sound(source / "wav" / f"Y{video}.wav", 300.0, rate_hz=16000)
    return table, "Hammer"


@pytest.mark.parametrize(
    "corpus, split",
    [(vggsound, "test"), (speechcommands, "test"), (voxceleb1, "test"), (epic_sounds, "val"), (audioset, "test")],
)
def test_from_a_published_checkpoint_to_figures(annotations, tmp_path, aum, corpus, split):
    name, source, model, data = corpus.__name__, tmp_path / "source", tmp_path / "model", tmp_path / "data"
    source.mkdir()
    table, label = corpus(source, annotations)
    assert aum("prepare", name, "--source", source, "--out", data).code == 0
    labels = read_labels(table)
    winner = [each.name for each in labels].index(label)
    path = checkpoint(tmp_path / "best_audio_model.pth", len(labels), winner)
    done = aum("convert", path, model, "--recipe", name, "--labels", table)
    assert done.code == 0, done.err
    assert read_config(model).labels[winner] == label
    done = aum("eval", model, "--data", data, "--split", split, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "out" / f"eval-{split}.json").read_text())
    rows = {row["label"]: row for row in result["metrics"]["per_class"]}
    support = {row["label"]: row["support"] for row in rows.values() if row["support"]}
    predicted = {row["label"] for row in rows.values() if row["predicted"]}
    assert result["classes"]["matched_by"] == "name" and len(rows) == len(labels) and len(support) < len(labels)
    assert len(result["classes"]["without_clips"]) == len(labels) - len(support) and label in support
    assert predicted == {label} and rows[label]["recall"] == 1
    assert rows[label]["precision"] == pytest.approx(support[label] / result["clips"])
    assert result["classes"]["reordered"] is (name in ("vggsound", "speechcommands"))


def test_voxceleb_by_the_authors_lists(tmp_path, aum):
    """Prepared from lists in AST's form, the classes have the speakers' names too."""
    source = tmp_path / "lists"
    table, _ = voxceleb1(tmp_path / "lists", None)
    (source / "iden_split.txt").unlink()
    items = [
        {"wav": f"wav/id1{number}/abcdefghijk/00001.wav", "labels": f"/m/voxclb{number}"} for number in ("0003", "1251")
    ]
    (source / "test_data.json").write_text(json.dumps({"data": items}))
    assert aum("prepare", "ast-json", source, "--out", tmp_path / "data").code == 0
    path = checkpoint(tmp_path / "best_audio_model.pth", 1251, 2)
    assert aum("convert", path, tmp_path / "model", "--recipe", "voxceleb1", "--labels", table).code == 0
    done = aum("eval", tmp_path / "model", "--data", tmp_path / "data", "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["accuracy"] == 0.5 and result["metrics"]["confusion"]["id11251"] == {"id10003": 1}

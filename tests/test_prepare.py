"""aum prepare from end to end: the manifest, the report, and what happens to bad files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from archives import zip_with
from tiny import sound, sounds

from aumcli.data import sources
from aumcli.data.manifest import Clip, Label, read_manifest
from aumcli.data.sources import CorpusIndex, synth
from aumcli.errors import AumError
from aumcli.prepare import parse_shares, prepare

pytest_plugins = ["aum_fixtures"]

ARCHIVE = Path(os.environ.get("AUM_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "fsdd.tar.gz"


@pytest.fixture
def pets(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            soundfile.write(tmp_path / "pets" / name / f"{number}.wav", 0.1 * rng.standard_normal(800), 8000)
    return tmp_path / "pets"


def spoil(pets):
    """Four unusable files: cut, empty, silent, text."""
    cut = pets / "cat" / "0.wav"
    cut.write_bytes(cut.read_bytes()[:500])
    (pets / "cat" / "1.wav").write_bytes(b"")
    soundfile.write(pets / "dog" / "2.wav", np.zeros(800), 8000)
    (pets / "dog" / "text.WAV").write_text("hello")


def test_folder_end_to_end(pets, tmp_path):
    report = prepare("folder", tmp_path / "out", source=pets, split="60/20/20", seed=3)
    manifest = read_manifest(tmp_path / "out")
    assert manifest.label_names == ["cat", "dog"]
    assert {name: len(manifest.split(name)) for name in manifest.split_names} == {"train": 12, "val": 4, "test": 4}
    assert {clip.path for clip in manifest.clips} == set(pets.rglob("*.wav"))
    manifest.check_files(manifest.clips)
    assert report.splits["train"] == {"clips": 12, "seconds": 1.2}
    assert report.classes["dog"]["val"] == {"clips": 2, "seconds": 0.2}
    assert (report.skipped, report.warnings, report.sample_rates_hz) == ([], [], {"8000": 20})
    assert (report.longest_s, report.shortest_s, report.multi_label) == (0.1, 0.1, False)
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["seed"] == 3 and stored["split"] == [60, 20, 20] and stored["origin"] == str(pets)
    assert stored["version"] and stored["splits"] == report.splits


def test_normalisation_is_that_of_the_training_split(pets, tmp_path):
    from aumcli.config import FrontendConfig
    from aumcli.data.infer import measure_normalisation

    report = prepare("folder", tmp_path / "out", source=pets)
    mean, std = measure_normalisation(FrontendConfig(), read_manifest(tmp_path / "out").split("train"))
    assert report.normalisation == {"mean": mean, "std": std, "clips": 16}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["normalisation"]["mean"] == mean


def test_of_a_long_clip_a_part_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("aumcli.prepare.MEASURED_S", 0.5)
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "x" / name).mkdir(parents=True)
        wave = np.concatenate([0.1 * rng.standard_normal(4000), np.full(80000, 0.01)])
        soundfile.write(tmp_path / "x" / name / "1.wav", wave, 8000)
    whole = prepare("folder", tmp_path / "part", source=tmp_path / "x").normalisation["mean"]
    monkeypatch.undo()
    assert prepare("folder", tmp_path / "all", source=tmp_path / "x").normalisation["mean"] < whole - 5


def test_same_call_same_bytes(pets, tmp_path):
    files = ("manifest.csv", "labels.csv")
    prepare("folder", tmp_path / "1", source=pets)
    prepare("folder", tmp_path / "2", source=pets)
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in files)


def test_default_folder(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = prepare("folder", source="pets/")
    assert report.folder == str(tmp_path / "data" / "pets")
    assert len(read_manifest("data/pets").clips) == 20


def test_sounds_that_lie_in_the_data_folder_themselves(pets):
    prepare("folder", pets, source=pets)
    prepare("folder", pets, source=pets)  # its own files are no sounds
    assert "\ncat/0.wav,,,cat," in (pets / "manifest.csv").read_text()


def test_bad_files_are_skipped_and_named(pets, tmp_path):
    spoil(pets)
    report = prepare("folder", tmp_path / "out", source=pets)
    assert {Path(item.path).name: item.reason.split(" ", 1)[1][:12] for item in report.skipped} == {
        "0.wav": "is truncated",
        "1.wav": "is empty (0 ",
        "2.wav": "is silent: i",
        "text.WAV": "is not audio",
    }
    assert all(item.fix for item in report.skipped)
    assert len(read_manifest(tmp_path / "out").clips) == 17
    assert len(json.loads((tmp_path / "out" / "report.json").read_text())["skipped"]) == 4


def test_strict_lists_all_and_writes_no_manifest(pets, tmp_path):
    spoil(pets)
    with pytest.raises(AumError) as caught:
        prepare("folder", tmp_path / "out", source=pets, strict=True)
    for word in ("4 clips", "cat/0.wav", "cat/1.wav", "dog/2.wav", "text.WAV"):
        assert word in caught.value.problem
    assert caught.value.exit_code == 1 and [path.name for path in (tmp_path / "out").iterdir()] == [".prepare.journal"]


def test_a_clip_of_another_scale_is_named_and_a_setting_keeps_it(pets, tmp_path):
    plain = prepare("folder", tmp_path / "out", source=pets).normalisation
    for name, factor in (("loud", 9830), ("hot", 3)):
        wave = factor * np.random.default_rng(factor).uniform(-1, 1, 800)
        soundfile.write(pets / "dog" / f"{name}.wav", wave, 8000, subtype="FLOAT")
    report = prepare("folder", tmp_path / "out", source=pets)
    (item,) = report.skipped
    assert item.path == str(pets / "dog" / "loud.wav")
    assert "times full scale" in item.reason and "--set keep=loud" in item.fix
    assert report.failures == 1 and abs(report.normalisation["mean"] - plain["mean"]) < 0.5
    report = prepare("folder", tmp_path / "out", source=pets, settings=["keep=loud"])
    assert report.failures == 0 and report.settings == {"keep": "loud"} and "loud.wav" in report.notes[0]
    assert report.normalisation["mean"] > plain["mean"] + 0.5
    for path in pets.rglob("*.wav"):
        soundfile.write(path, 20000 * np.random.default_rng(len(path.name)).uniform(-1, 1, 800), 8000, subtype="FLOAT")
    with pytest.raises(AumError, match="nothing is left.*times full scale.*\n.*--set keep=loud"):
        prepare("folder", tmp_path / "out", source=pets)


def test_a_class_of_digital_silence(pets, tmp_path):
    (pets / "silence").mkdir()
    for number in range(10):
        soundfile.write(pets / "silence" / f"{number}.wav", np.zeros(800), 8000)
    with pytest.raises(AumError, match="no sound of class 'silence' can be used: .* is silent.*\n.*--set keep=silent"):
        prepare("folder", tmp_path / "out", source=pets)
    report = prepare("folder", tmp_path / "out", source=pets, settings=["keep=silent"])
    counts = {split: cell["clips"] for split, cell in report.classes["silence"].items()}
    assert counts == {"train": 8, "val": 1, "test": 1}
    assert report.skipped == [] and report.warnings == [] and "10 silent clips" in report.notes[0]
    with pytest.raises(AumError, match="silent or loud"):
        prepare("folder", tmp_path / "out", source=pets, settings=["keep=quiet"])


def test_the_unused_band_is_noted(tmp_path):
    for rate_hz, name in ((250000, "bats"), (192000, "music"), (16000, "dogs")):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            wave = 0.1 * np.random.default_rng(0).standard_normal(rate_hz // 10)
            soundfile.write(tmp_path / name / label / "1.wav", wave, rate_hz)
    (note,) = prepare("folder", tmp_path / "out", source=tmp_path / "music").notes
    assert "96 kHz" in note and "8 kHz" in note and "--set frontend.sample_rate_hz=192000" in note
    (note,) = prepare("folder", tmp_path / "out", source=tmp_path / "bats").notes
    assert "begins at 8 kHz" in note and "--set frontend.low_hz=20" in note
    assert prepare("folder", tmp_path / "out", source=tmp_path / "dogs").notes == []


def test_class_without_usable_sound(pets, tmp_path):
    for path in (pets / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(AumError, match="no sound of class 'cat' can be used: .*0 bytes.* and 5 more"):
        prepare("folder", tmp_path / "out", source=pets)
    for path in (pets / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(AumError, match="nothing is left of folder: .*0 bytes"):
        prepare("folder", tmp_path / "out", source=pets)


def test_slices_groups_and_several_labels(pets, tmp_path, monkeypatch):
    """A source with slices, as EPIC-SOUNDS or AudioSet would be: bad slices are found one by one."""
    path = pets / "cat" / "0.wav"
    clips = [
        Clip(path, 0.0, 0.05, ("a", "b"), "train", "ann"),
        Clip(path, 0.05, 0.5, ("a",), "train", "bob"),
        Clip(path, 0.05, None, ("b",), "test", "bob"),
        Clip(pets / "gone.wav", None, None, ("a",), "test"),
    ]
    labels = [Label(0, "a", "Alpha"), Label(1, "b", "Beta"), Label(2, "c", "Gamma")]

    class Source:
        index = staticmethod(lambda request: CorpusIndex(clips, labels, "made up"))

    monkeypatch.setattr(sources, "load", lambda corpus: Source)
    report = prepare("made_up", tmp_path / "out")
    assert read_manifest(tmp_path / "out").clips == [clips[0], clips[2]]
    assert [(item.start_s, item.stop_s) for item in report.skipped] == [(0.05, 0.5), (None, None)]
    assert "doesn't lie inside" in report.skipped[0].reason and "doesn't exist" in report.skipped[1].reason
    assert report.multi_label and report.classes["Beta"] == {
        "train": {"clips": 1, "seconds": 0.05},
        "test": {"clips": 1, "seconds": 0.05},
    }
    assert report.warnings == ["1 class has no clip in train: Gamma"]


def test_synth_end_to_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(synth, "CLIPS_PER_KIND", {"train": 4, "val": 1, "test": 2})
    report = prepare("synth", tmp_path / "synth")
    assert report.splits == {
        "train": {"clips": 40, "seconds": 40.0},
        "val": {"clips": 10, "seconds": 10.0},
        "test": {"clips": 20, "seconds": 20.0},
    }
    assert report.skipped == [] and report.sample_rates_hz == {"16000": 70}
    assert "\ntrain/siren-000.wav,,,siren,train," in (tmp_path / "synth" / "manifest.csv").read_text()
    assert capfd.readouterr() == ("", "")  # no bar without a terminal


@pytest.mark.skipif(not ARCHIVE.exists(), reason=f"{ARCHIVE} is not here: set AUM_SHARED")
def test_fsdd_end_to_end(tmp_path):
    report = prepare("fsdd", tmp_path / "fsdd", source=ARCHIVE)
    assert {name: cell["clips"] for name, cell in report.splits.items()} == {"train": 2400, "val": 300, "test": 300}
    assert report.skipped == [] and report.sample_rates_hz == {"8000": 3000}
    assert (
        len(report.warnings) == 1
        and "6 of 6 speakers occur in several splits (6 in test and train and val)" in report.warnings[0]
    )
    assert {clip.group for clip in read_manifest(tmp_path / "fsdd").clips} == {
        "george",
        "jackson",
        "lucas",
        "nicolas",
        "theo",
        "yweweler",
    }


@pytest.mark.parametrize(
    "text, shares",
    [
        ("80/10/10", (80, 10, 10)),
        ("70/30/0", (70, 30, 0)),
        (None, None),
        ("33.4/33.3/33.3", (33.4, 33.3, 33.3)),
        ("0/0/100", (0, 0, 100)),
    ],
)
def test_shares(text, shares):
    assert parse_shares(text) == shares


@pytest.mark.parametrize(
    "text", ["80/20", "80/10/20", "0/50/50", "0/100/0", "a/b/c", "", "110/-5/-5", "nan/50/50", "80,10,10"]
)
def test_wrong_shares(text):
    with pytest.raises(AumError, match="three percentages") as caught:
        parse_shares(text)
    assert caught.value.exit_code == 2 and "80/10/10" in caught.value.fix


@pytest.mark.parametrize("corpus", ["esc50", "fsdd", "speechcommands"])
def test_a_wrong_archive_leaves_nothing_behind(tmp_path, corpus):
    archive = zip_with(tmp_path / "wrong.zip", {"a.txt": b"nothing of the kind"})
    with pytest.raises(AumError):
        prepare(corpus, tmp_path / "data" / corpus, source=archive)
    assert list(tmp_path.iterdir()) == [archive]
    (tmp_path / "data").mkdir()  # what was there stays
    with pytest.raises(AumError):
        prepare(corpus, tmp_path / "data" / corpus, source=archive)
    assert (tmp_path / "data").is_dir() and not list((tmp_path / "data").iterdir())


def test_mistakes_in_the_call(tmp_path):
    with pytest.raises(AumError, match="unknown corpus 'fsd'") as caught:
        prepare("fsd", tmp_path)
    assert caught.value.exit_code == 2
    with pytest.raises(AumError, match="0 workers"):
        prepare("synth", tmp_path, workers=0)
    with pytest.raises(AumError, match="doesn't exist"):
        prepare("vggsound", tmp_path, annotations=tmp_path / "no.csv")
    with pytest.raises(AumError, match="negative"):
        prepare("synth", tmp_path, seed=-1)
    assert list(tmp_path.iterdir()) == []


def test_long_clips_are_noted(tmp_path):
    for name, hz, seconds in (("a", 300.0, 1), ("b", 2000.0, 1)):
        for i in range(4):
            sound(tmp_path / "sounds" / name / f"{i}.wav", hz, seconds, seed=i)
    assert not any(
        "longer than 30 s" in note for note in prepare("folder", tmp_path / "short", source=tmp_path / "sounds").notes
    )
    sound(tmp_path / "sounds" / "a" / "long.wav", 300.0, 40)
    (note,) = [
        note
        for note in prepare("folder", tmp_path / "long", source=tmp_path / "sounds").notes
        if "longer than 30 s" in note
    ]
    assert note.startswith("1 clip ") and "30 s" in note and "40 s" in note


@pytest.mark.parametrize("corpus", ["folder", "csv"])
def test_a_test_set_alone(pets, tmp_path, corpus):
    table = tmp_path / "pets.csv"
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in sorted(pets.rglob("*.wav"))))
    long = np.random.default_rng(1).standard_normal(8000 * 40) * 0.1
    soundfile.write(pets / "cat" / "0.wav", long, 8000)
    report = prepare(corpus, tmp_path / "out", source={"folder": pets, "csv": table}[corpus], split="0/0/100")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.split_names == ["test"] and len(manifest.split("test")) == 20
    assert report.warnings == [] and not any("train" in note for note in report.notes) and report.normalisation == {}


def test_groups_and_doubles_are_tested_too_where_nothing_is_trained_on(pets, tmp_path):
    (pets / "dog" / "copy.wav").write_bytes((pets / "cat" / "0.wav").read_bytes())
    report = prepare("folder", tmp_path / "out", source=pets, split="0/0/100", settings=[r"group=^(\w)"])
    assert read_manifest(tmp_path / "out").split_names == ["test"] and report.splits["test"]["clips"] == 21
    prepare("folder", tmp_path / "out", source=pets, split="60/20/20")  # and again with others to train on
    assert report.splits.keys() == {"test"} and "train" in read_manifest(tmp_path / "out").split_names


def test_on_a_test_set_alone_a_model_is_evaluated_and_none_trained(trained, tmp_path, aum, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = aum("prepare", "folder", sounds(tmp_path / "sounds", 2), "--split", "0/0/100", "--out", "data/new")
    assert result.code == 0 and "warning" not in result.out
    result = aum("eval", trained, "--data", "data/new", "--out", "result")
    assert result.code == 0 and "test split" in result.out
    for more in ((), ("--dry-run",), ("--set", "data.val_fraction=0.5")):
        result = aum("train", "--data", "data/new", *more)
        assert result.code == 2 and "no clips to train on" in result.err and "--split 80/10/10" in result.err
        assert "aum eval" in result.err
    assert not Path("runs").exists()


def test_one_is_singular(pets, tmp_path):
    (pets / "cat" / "readme.doc").write_text("hello")
    (pets / "dog" / "copy.wav").write_bytes((pets / "dog" / "0.wav").read_bytes())
    first, second = prepare("folder", tmp_path / "out", source=pets).warnings
    assert first.startswith("1 file ") and " was " in first
    assert second.startswith("1 sound occurs several times")

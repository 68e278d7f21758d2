"""EPIC-SOUNDS: the real validation table, videos as HDF5 and as files."""

import numpy as np
import pytest
import soundfile
from corpora import prepared, splits, write
from tiny import sound

from aumcli.config import DataConfig
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import read_manifest
from aumcli.data.sources import epic_sounds
from aumcli.data.splits import split_clips, training_splits
from aumcli.errors import AumError
from aumcli.prepare import prepare
from aumcli.recipe import load_recipe
from aumcli.utils.csv import csv_rows


def test_epic_sounds_validation_is_consistent(annotations):
    rows = list(csv_rows(annotations / "EPIC_Sounds_validation.csv", epic_sounds.COLUMNS))
    assert len(rows) == 8035
    classes = {(int(row["class_id"]), row["class"]) for row in rows}
    assert sorted(number for number, _ in classes) == list(range(44)) and len({name for _, name in classes}) == 44
    slices = [epic_sounds.slice_of(row) for row in rows]
    assert not [problem for *_, problem in slices if problem]
    assert all(
        round(start_s * 24000) == int(row["start_sample"]) and round(stop_s * 24000) == int(row["stop_sample"])
        for row, (start_s, stop_s, _) in zip(rows, slices)
    )  # to the sample
    moved = {**rows[0], "start_sample": "49000"}
    assert "timestamps are 0.027 s apart" in epic_sounds.slice_of(moved)[2]
    with pytest.raises(AumError, match="lacks the columns class, class_id"):
        list(csv_rows(annotations / "EPIC_Sounds_recognition_test_timestamps.csv", epic_sounds.COLUMNS))


@pytest.fixture
def kitchen(annotations, tmp_path):
    """The first 6 rows of the real validation table, as if of train and val, and 60 s of sound for their video."""
    with open(annotations / "EPIC_Sounds_validation.csv") as file:
        lines = file.read().splitlines()
    write(tmp_path / "epic" / "EPIC_Sounds_train.csv", "\n".join(lines[:4]) + "\n")
    write(tmp_path / "epic" / "EPIC_Sounds_validation.csv", "\n".join([lines[0], *lines[4:7]]) + "\n")
    rng = np.random.default_rng(0)
    return tmp_path / "epic", rng.integers(-3000, 3000, 60 * 24000).astype(np.int16)


def test_both_tables_are_missed(tmp_path):
    with pytest.raises(AumError, match=r"EPIC_Sounds_train.csv.*EPIC_Sounds_validation.csv"):
        prepare("epic_sounds", tmp_path / "out", source=tmp_path)


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
    assert splits(report) == {"train": 3, "val": 3} and report.skipped == []
    clip = read_manifest(tmp_path / "out").clips[0]
    assert (clip.labels, clip.group, clip.split) == (("ceramic / wood collision",), "P01_11", "train")
    waveform, rate_hz = load_audio(clip.path, None, clip.start_s, clip.stop_s)
    assert rate_hz == 24000
    np.testing.assert_array_equal(waveform * 32768, samples[49656:71832])  # to the sample
    assert any("1 of 1 video occurs in several splits" in text for text in report.warnings)
    assert report.normalisation["clips"] == 3


COLUMNS = ",".join((*epic_sounds.COLUMNS[:7], "description", *epic_sounds.COLUMNS[7:]))


def many_videos(root, participants=6, videos=10, each=20):
    """Tables of made-up rows: so many clips of each video, and a second of sound for every one."""
    rows = []
    for person in range(1, participants + 1):
        for number in range(1, videos + 1):
            video = f"P{person:02d}_{number:02d}"
            sound(root / f"{video}.wav", None, seconds=1.0, seed=len(rows), rate_hz=24000)
            times = [f"00:00:00.{i:03d},00:00:00.500,{24 * i},12000" for i in range(each)]
            rows += [
                f"{video}_{i},P{person:02d},{video},{when},tap,class {i % 3},{i % 3}" for i, when in enumerate(times)
            ]
    write(root / "EPIC_Sounds_train.csv", "\n".join((COLUMNS, *rows)) + "\n")
    return root


def test_the_share_kept_out_of_training_is_made_of_whole_videos_of_many_people(tmp_path):
    prepare("epic_sounds", tmp_path / "out", source=many_videos(tmp_path / "epic"))
    recipe = load_recipe("epic_sounds", ["data.val_fraction=0.1"])
    train, val = training_splits(read_manifest(tmp_path / "out"), recipe.data)
    assert len(val) == 120 and len(train) == 1080
    videos, people = ([{name.path.stem[:size] for name in clips} for clips in (train, val)] for size in (6, 3))
    assert not videos[0] & videos[1] and len(videos[1]) == 6
    assert len(people[1]) > 1 and people[1] <= people[0]  # nobody's kitchen is held back whole


def test_a_participant_can_be_held_out(tmp_path):
    root = many_videos(tmp_path / "epic", participants=2, videos=2, each=2)
    prepare("epic_sounds", tmp_path / "out", source=root, settings=["group=participant"])
    manifest = read_manifest(tmp_path / "out")
    train, val = training_splits(manifest, DataConfig(test_group="P02", val="train"))
    test = split_clips(manifest, "test", "P02")
    assert {clip.group for clip in train} == {"P01"} and {clip.group for clip in test} == {"P02"}
    with pytest.raises(AumError, match="no group 'kitchen'; it has video, participant"):
        prepare("epic_sounds", tmp_path / "again", source=root, settings=["group=kitchen"])


def test_epic_sounds_without_some_videos_and_beyond_their_end(kitchen, tmp_path):
    root, samples = kitchen
    soundfile.write(root / "P01_11.wav", samples[: 30 * 24000], 24000)
    table = root / "EPIC_Sounds_train.csv"
    write(table, table.read_text().replace("P01_11,00:00:03.065", "P02_01,00:00:03.065"))
    report, _ = prepared("epic_sounds", tmp_path / "out", source=root)
    assert report.missing == {"train": {"listed": 3, "missing": 1}}
    assert len(report.skipped) == 3 and all("doesn't lie inside the file" in item.reason for item in report.skipped)
    write(table, table.read_text().replace(",34\n", ",4\n"))
    with pytest.raises(AumError, match="contradicts other rows"):
        prepare("epic_sounds", tmp_path / "out", source=root)

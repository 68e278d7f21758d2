"""`aum prepare folder --set group=...`: speakers and recordings stay in one split."""

from collections import Counter, defaultdict

import pytest
from tiny import CLASSES, sound

from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.prepare import prepare

SPEAKERS = {"ada": 12, "bob": 9, "cleo": 6, "dan": 5, "eve": 4, "fay": 4}


@pytest.fixture
def names(tmp_path):
    """Sounds whose names begin with a speaker."""
    for name, hz in CLASSES.items():
        for seed, (speaker, clips) in enumerate(SPEAKERS.items()):
            for number in range(clips):
                sound(tmp_path / "x" / name / f"{speaker}_{number}.wav", hz, seed=100 * seed + number)
    return tmp_path / "x"


@pytest.fixture
def folders(tmp_path):
    """The same in folders of speakers."""
    for name, hz in CLASSES.items():
        for seed, speaker in enumerate(SPEAKERS):
            sound(tmp_path / "y" / name / speaker / "deep" / "1.wav", hz, seed=seed)
    return tmp_path / "y"


def splits_of_groups(folder) -> dict[str, set[str]]:
    splits = defaultdict(set)
    for clip in read_manifest(folder).clips:
        splits[clip.group].add(clip.split)
    return splits


def test_a_pattern_in_the_name(names, tmp_path):
    report = prepare("folder", tmp_path / "out", source=names, settings=["group=^([a-z]+)_"])
    splits = splits_of_groups(tmp_path / "out")
    assert splits.keys() == SPEAKERS.keys() and all(len(each) == 1 for each in splits.values())
    assert {name for each in splits.values() for name in each} == {"train", "val", "test"}
    assert report.splits["train"]["clips"] > report.splits["test"]["clips"] > 0
    assert any("6 groups" in note and "ada" in note for note in report.notes)


def test_shares_are_met_as_well_as_groups_allow(names, tmp_path):
    prepare("folder", tmp_path / "out", source=names, settings=["group=([a-z]+)_"], split="50/25/25")
    clips = Counter((clip.split, clip.labels) for clip in read_manifest(tmp_path / "out").clips)
    for label in {label for _, label in clips}:
        assert [clips[split, label] for split in ("train", "val", "test")] == pytest.approx([20, 10, 10], abs=1)


def test_a_folder_below_the_class(folders, tmp_path):
    prepare("folder", tmp_path / "out", source=folders, settings=["group=folder"])
    assert splits_of_groups(tmp_path / "out").keys() == SPEAKERS.keys()


def test_a_table(names, tmp_path):
    rows = [f"{path.relative_to(names).as_posix()},{path.stem[0]}-home" for path in sorted(names.rglob("*.wav"))]
    (tmp_path / "who.csv").write_text("path,group\n" + "\n".join(rows) + "\n")
    prepare("folder", tmp_path / "out", source=names, settings=[f"group={tmp_path / 'who.csv'}"])
    splits = splits_of_groups(tmp_path / "out")
    assert splits.keys() == {f"{name[0]}-home" for name in SPEAKERS} and all(len(each) == 1 for each in splits.values())


@pytest.mark.parametrize(
    "group, words",
    [
        ("^(ada|bob)_", "finds no group in 57 of 120 clips"),
        ("[a-z]+", "no parentheses"),
        ("(", "regular expression"),
        ("folder", "120 of 120 clips"),
        ("none.csv", "none.csv"),
    ],
)
def test_what_is_no_group_is_refused(names, tmp_path, group, words):
    with pytest.raises(AumError) as error:
        prepare("folder", tmp_path / "out", source=names, settings=[f"group={group}"])
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_groups_stay_where_they_were_when_others_come(names, tmp_path):
    prepare("folder", tmp_path / "out", source=names, settings=["group=^([a-z]+)_"])
    before = splits_of_groups(tmp_path / "out")
    for name, hz in CLASSES.items():
        for number in range(30):
            sound(names / name / f"gus_{number}.wav", hz, seed=1000 + number)
            sound(names / name / f"ada_{100 + number}.wav", hz, seed=2000 + number)
    prepare("folder", tmp_path / "out", source=names, settings=["group=^([a-z]+)_"])
    after = splits_of_groups(tmp_path / "out")
    assert {name: after[name] for name in before} == before and len(after) == 7


def test_a_group_in_two_split_folders_is_said(tmp_path):
    for split in ("train", "test"):
        for name, hz in CLASSES.items():
            for number, speaker in enumerate(("ada", "bob")):
                sound(tmp_path / "z" / split / name / f"{speaker}_1.wav", hz, seed=number + 10 * (split == "test"))
    report = prepare("folder", tmp_path / "out", source=tmp_path / "z", settings=["group=^([a-z]+)_"])
    assert any("groups occur in several splits" in warning for warning in report.warnings)


def test_groups_that_are_new_to_the_folder_draw_splits_anew(names, tmp_path):
    prepare("folder", tmp_path / "out", source=names)
    prepare("folder", tmp_path / "out", source=names, settings=["group=^([a-z]+)_"])
    assert all(len(each) == 1 for each in splits_of_groups(tmp_path / "out").values())

"""Finding the sounds that a table from elsewhere names."""

import os
import unicodedata

import pytest

from aumcli.data.sources.audio_finder import AudioFinder


@pytest.fixture
def finder(tmp_path):
    def make(*files, below=""):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return AudioFinder(tmp_path / below)

    return make


@pytest.mark.parametrize(
    "name, found",
    [
        ("a.wav", "a.wav"),
        ("sub/b.wav", "sub/b.wav"),
        ("sub\\b.wav", "sub/b.wav"),
        (".\\sub\\b.wav", "sub/b.wav"),
        ("C:\\Users\\me\\sub\\b.wav", "sub/b.wav"),
        ("/data/old/sub/b.wav", "sub/b.wav"),
        ("b.wav", "sub/b.wav"),
        ("c", "c.flac"),
        ("C.FLAC", "c.flac"),
        ("other\\d.wav", "other/d.wav"),
        ("x/other/d.wav", "other/d.wav"),
        ("sub/e", "sub/e.WAV"),
        ("notes.txt", "notes.txt"),
        ("a.wav::1", "a.wav::1"),
        ("a.mp3", None),
        ("nope.wav", None),
        ("sub\\nope.wav", None),
        ("notes", None),
    ],
)
def test_where_sounds_are_found(tmp_path, finder, name, found):
    here = finder("a.wav", "sub/b.wav", "c.flac", "other/d.wav", "third/d.wav", "sub/e.WAV", "notes.txt")
    path = here.path(name)
    assert (path == str(tmp_path / found)) if found else name in here.missing and not os.path.exists(path)
    assert (name in here.moved) == (found is not None and found != name) and here.path(name) == path
    if "\\" in name and not found:
        assert path == str(tmp_path / "sub" / "nope.wav")


def test_two_that_fit_equally_well(tmp_path, finder):
    here = finder("one/a.wav", "two/a.wav", "two/A.wav")
    with pytest.raises(ValueError, match="'x/a.wav' could be .*one/a.wav or .*two/a.wav"):
        here.path("x/a.wav")
    assert here.path("two\\a.wav") == str(tmp_path / "two" / "a.wav") and here.path("old/two/A.wav") == str(
        tmp_path / "two" / "A.wav"
    )


def test_accents_are_the_same_however_they_are_written(tmp_path, finder):
    composed, apart = unicodedata.normalize("NFC", "Ä.wav"), unicodedata.normalize("NFD", "Ä.wav")
    here = finder(composed)
    assert here.path(apart) == str(tmp_path / composed)


@pytest.mark.parametrize(
    "folder, found", [("meta", True), ("Annotations", True), ("FSD50K.ground_truth", True), ("x", False)]
)
def test_tables_lie_beside_the_sounds(tmp_path, finder, folder, found):
    here = finder("audio/fold1/a.wav", f"{folder}/t.csv", below=folder)
    assert here.path("a.wav") == str(tmp_path / ("audio/fold1/a.wav" if found else f"{folder}/a.wav"))
    assert ("a.wav" in here.missing) != found


@pytest.mark.parametrize(
    "table, found",
    [
        ("night.txt", "night.wav"),
        ("night.Table.1.selections.txt", "night.wav"),
        ("night.BirdNET.results.csv", "night.wav"),
        ("night.wav.txt", "night.wav"),
        ("sub/night.txt", "sub/night.wav"),
        ("other/night.txt", "night.wav"),
        ("day.txt", None),
        (".txt", None),
    ],
)
def test_the_sound_of_a_tables_name(tmp_path, finder, table, found):
    here = finder("night.wav", "sub/night.wav", "nightly.wav")
    assert here.of_table(tmp_path / table) == (found and str(tmp_path / found))

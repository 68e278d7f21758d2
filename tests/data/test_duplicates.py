"""The same sound under several names."""

import os
import shutil

import numpy as np
import pytest
import soundfile
from tiny import sound

from aumcli.data import duplicates
from aumcli.data.clips import Clip
from aumcli.data.duplicates import HEAD_BYTES, content_digest, distinguish_silent, duplicate_file_warnings, same_files


def test_copies_and_links_are_found_and_little_is_read(tmp_path, monkeypatch):
    one, two, short = (sound(tmp_path / f"{n}.wav", 300.0, seed=n, seconds=10 if n < 2 else 0.1) for n in range(3))
    assert one.stat().st_size == two.stat().st_size > HEAD_BYTES
    copy = shutil.copy(one, tmp_path / "copy.wav")
    (tmp_path / "soft.wav").symlink_to(two)
    os.link(two, tmp_path / "hard.wav")
    near = tmp_path / "near.wav"
    near.write_bytes(one.read_bytes()[:-1] + b"x")  # differs at its end only
    read = []
    monkeypatch.setattr(
        duplicates, "content_digest", lambda path: read.append(os.path.basename(path)) or content_digest(path)
    )
    names = [
        str(tmp_path / name)
        for name in ("0.wav", "1.wav", "2.wav", "copy.wav", "soft.wav", "hard.wav", "near.wav", "gone.wav")
    ]
    found = {os.path.basename(path): os.path.basename(first) for path, first in same_files(names).items()}
    assert found == {
        "0.wav": "0.wav",
        "1.wav": "1.wav",
        "2.wav": "2.wav",
        "copy.wav": "0.wav",
        "soft.wav": "1.wav",
        "hard.wav": "1.wav",
        "near.wav": "near.wav",
        "gone.wav": "gone.wav",
    }
    assert sorted(read) == ["0.wav", "copy.wav", "near.wav"] and short.exists() and copy


def test_data_sets_of_one_file_are_different_sounds(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"x" * 10)
    shutil.copy(tmp_path / "a.h5", tmp_path / "b.h5")
    paths = [f"{tmp_path}/a.h5::1", f"{tmp_path}/a.h5::2", f"{tmp_path}/b.h5::1"]
    assert same_files(paths) == {paths[0]: paths[0], paths[1]: paths[1], paths[2]: paths[0]}


def test_silence_may_occur_often(tmp_path):
    for name, wave in (
        ("a", np.zeros(800)),
        ("b", np.zeros(800)),
        ("c", np.ones(800) * 0.5),
        ("d", np.ones(800) * 0.5),
        ("e", np.arange(800) / 800),
        ("f", np.arange(800) / 800),
    ):
        soundfile.write(tmp_path / f"{name}.wav", wave, 8000)
    apart = distinguish_silent(same_files(str(tmp_path / f"{name}.wav") for name in "abcdef"))
    assert len(set(apart.values())) == 5  # only e and f are the same sound


@pytest.mark.parametrize(
    "labels, splits, words",
    [
        ("xx", ("train", "train"), ["in one class and split"]),
        ("xy", ("train", "train"), ["under different classes, ask"]),
        ("xx", ("train", "test"), ["in different splits"]),
        ("xy", ("val", "test"), ["under different classes, ask", "in different splits"]),
    ],
)
def test_what_is_said_of_doubled_clips(tmp_path, labels, splits, words):
    path = sound(tmp_path / "a.wav", 300.0)
    (tmp_path / "b.wav").symlink_to(path)
    clips = [
        Clip(path, 0.0, 0.1, (labels[0],), splits[0]),
        Clip(tmp_path / "b.wav", 0.0, 0.1, (labels[1],), splits[1]),
        Clip(path, 0.1, 0.2, (labels[0],), splits[0]),
    ]
    warnings = duplicate_file_warnings(clips, False, ", ask")
    assert len(warnings) == len(words) and all(word in text for word, text in zip(words, warnings))
    assert (
        f"1 sound occurs several times {words[0]}" in warnings[0]
        and f"{path} from 0 s to 0.1 s = {tmp_path}/b.wav from 0 s" in warnings[0]
    )

"""Sounds in HDF5 files: every command takes them, and of a slice only the slice is read."""

import json

import numpy as np
import pytest
from tiny import one_thread, tiny

from aumcli.data.decoding import hdf5
from aumcli.data.decoding.audio import audio_info, check_clip, load_audio
from aumcli.data.decoding.hdf5 import Hdf5Sound, open_hdf5, split_dataset
from aumcli.errors import AumError

h5py = pytest.importorskip("h5py")
pytest_plugins = ["aum_fixtures"]
RATE_HZ = 24000


def tones(path, videos, seconds=4):
    """Half-second tones, 300 and 2000 Hz in turn, of several videos."""
    rng = np.random.default_rng(0)
    t = np.arange(RATE_HZ // 2) / RATE_HZ
    with h5py.File(path, "w") as file:
        for video in videos:
            parts = [
                0.3 * np.sin(2 * np.pi * (2000 if n % 2 else 300) * t) + 0.02 * rng.standard_normal(len(t))
                for n in range(2 * seconds)
            ]
            file[video] = np.concatenate(parts).astype(np.float32)
    return path


def test_paths():
    assert [str(part) for part in split_dataset("a/EPIC_audio.hdf5::P01_11")] == ["a/EPIC_audio.hdf5", "P01_11"]
    assert split_dataset("x.H5::a/b::c")[1] == "a/b::c"
    for plain in ("a::b.wav", "x.hdf5", "x.hdf5::", "a.wav"):
        assert str(split_dataset(plain)[0]) == plain and split_dataset(plain)[1] is None


def test_decoding(tmp_path, monkeypatch):
    stereo = np.stack([np.linspace(-0.5, 0.5, 4800), np.zeros(4800)], axis=1).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mono"], file["stereo"] = stereo[:, 0], stereo
        file["short"] = np.arange(-2000, 2000, dtype=np.int16)
        file["slow"] = stereo[:, 0]
        file["slow"].attrs["sample_rate_hz"] = 8000
        file["bad"], file["empty"], file["text"], file["zero"] = (
            np.array([1, np.nan]),
            np.zeros(0),
            "hello",
            np.zeros(2400),
        )
    read = []
    original = Hdf5Sound.buffer_read_into
    monkeypatch.setattr(
        Hdf5Sound,
        "buffer_read_into",
        lambda self, buffer, dtype: read.append(len(buffer)) or original(self, buffer, dtype),
    )
    waveform, rate_hz = load_audio(f"{tmp_path}/a.h5::mono", None, 0.1, 0.15)
    assert rate_hz == RATE_HZ and read == [1200]  # the slice, nothing else
    np.testing.assert_array_equal(waveform, stereo[2400:3600, 0])
    np.testing.assert_array_equal(load_audio(f"{tmp_path}/a.h5::stereo")[0], stereo.mean(1))
    np.testing.assert_array_equal(load_audio(f"{tmp_path}/a.h5::short")[0] * 32768, np.arange(-2000, 2000))
    assert len(load_audio(f"{tmp_path}/a.h5::mono", 16000)[0]) == 3200
    assert (
        audio_info(f"{tmp_path}/a.h5::slow").duration_s == 0.6 and check_clip(f"{tmp_path}/a.h5::stereo").channels == 2
    )
    for name, words in (
        ("bad", "not numbers"),
        ("empty", "0 samples"),
        ("text", "is not a sound"),
        ("gone", "has no data set 'gone'"),
        ("zero", "silent"),
    ):
        with pytest.raises(AumError, match=words) as caught:
            check_clip(f"{tmp_path}/a.h5::{name}")
        assert caught.value.fix and caught.value.exit_code == 1
    with pytest.raises(AumError, match="doesn't lie inside"):
        load_audio(f"{tmp_path}/a.h5::mono", None, 0.1, 9)


def test_files_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "a.hdf5").write_text("hello")
    (tmp_path / "b.hdf5").write_text("")
    for name, words in (("a", "HDF5 file"), ("b", "0 bytes"), ("c", "doesn't exist")):
        with pytest.raises(AumError, match=words):
            load_audio(f"{tmp_path}/{name}.hdf5::x")

    def missing():
        raise AumError("needs the package h5py", fix="pip install 'aumcli[data]'")

    monkeypatch.setattr(hdf5, "import_h5py", missing)
    with pytest.raises(AumError, match="h5py"), open_hdf5(tmp_path / "a.hdf5", "x"):
        pass


def test_from_preparing_to_predicting(aum, tmp_path, monkeypatch):
    """A table of slices of an HDF5 file: prepare, train, eval and predict take it."""
    monkeypatch.chdir(tmp_path)
    tones(tmp_path / "EPIC_audio.hdf5", ["P01_11", "P02_01", "P03_01"])
    rows = ["path,start,stop,label,split"] + [
        f"EPIC_audio.hdf5::{video},{n / 2},{n / 2 + 0.5},{'low' if n % 2 == 0 else 'high'},{split}"
        for video, split in (("P01_11", "train"), ("P02_01", "val"), ("P03_01", "test"))
        for n in range(8)
    ]
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    result = aum("prepare", "csv", "table.csv", "--json")
    assert result.code == 0 and json.loads(result.out)["splits"]["train"] == {"clips": 8, "seconds": 4.0}
    assert "../../EPIC_audio" not in (tmp_path / "data/table/manifest.csv").read_text()
    from aumcli.train import train

    with one_thread():
        train(tiny("train.epochs=2"), tmp_path / "run", tmp_path / "data" / "table")
        assert aum("eval", tmp_path / "run").code == 0
        result = aum("predict", tmp_path / "EPIC_audio.hdf5::P01_11", "--model", tmp_path / "run", "--format", "json")
    assert result.code == 0 and json.loads(result.out)["clips"][0]["duration_s"] == 4.0
    (tmp_path / "EPIC_audio.hdf5").rename(tmp_path / "gone")
    result = aum("eval", tmp_path / "run")
    assert result.code == 1 and "EPIC_audio.hdf5::P03_01 (row" in result.err

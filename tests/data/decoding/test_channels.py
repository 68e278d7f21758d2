"""One channel instead of the mean: by path, by option, remembered in what was prepared; and channels that cancel."""

import json

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, sound

from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.audio import check_clip, load_audio, open_audio
from aumcli.data.decoding.channels import Balance, is_channel, split_channel, with_channel
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.manifest import read_manifest
from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.prepare import prepare

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
RATE_HZ = 8000
RNG = np.random.default_rng(0)
TONE = (0.3 * np.sin(np.arange(RATE_HZ) * 0.2) + 0.01 * RNG.standard_normal(RATE_HZ)).astype(np.float32)
HISS = (0.1 * RNG.standard_normal(RATE_HZ)).astype(np.float32)


def write(path, *channels):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack(channels, axis=1), RATE_HZ, "FLOAT", format="WAV")
    return path


@pytest.mark.parametrize(
    "channel, expected",
    [
        ("left", TONE),
        ("1", TONE),
        ("right", HISS),
        ("2", HISS),
        ("3", 2 * TONE),
        ("max", 2 * TONE),
        ("mean", (TONE + HISS + 2 * TONE) / np.float32(3)),
    ],
)
def test_a_path_names_a_channel(tmp_path, channel, expected):
    path = f"{write(tmp_path / 'a.wav', TONE, HISS, 2 * TONE)}::{channel}"
    np.testing.assert_array_equal(load_audio(path)[0], expected)
    np.testing.assert_array_equal(load_audio(path, start_s=0.25, stop_s=0.5)[0], expected[2000:4000])
    with open_audio(path) as (info, blocks):
        np.testing.assert_array_equal(np.concatenate([*blocks]), expected)
    assert info.channels == 3 and check_clip(path).duration_s == 1


def test_the_loudest_is_that_of_the_slice(tmp_path):
    loud_first, loud_last = (
        TONE * np.linspace(1, 0, RATE_HZ, dtype=np.float32),
        TONE * np.linspace(0, 1, RATE_HZ, dtype=np.float32),
    )
    path = f"{write(tmp_path / 'a.wav', loud_first, loud_last)}::max"
    np.testing.assert_array_equal(load_audio(path, start_s=0, stop_s=0.25)[0], loud_first[:2000])
    np.testing.assert_array_equal(load_audio(path, start_s=0.75)[0], loud_last[6000:])


def test_a_channel_that_is_not_there(tmp_path):
    path = write(tmp_path / "a.wav", TONE, HISS)
    with pytest.raises(AumError, match="has 2 channels, so not number 3") as caught:
        load_audio(f"{path}::3")
    assert caught.value.exit_code == 1 and "--channel 2" in caught.value.fix
    np.testing.assert_array_equal(
        load_audio(f"{sound(tmp_path / 'mono.wav', 300.0)}::left")[0], load_audio(tmp_path / "mono.wav")[0]
    )


@pytest.mark.parametrize(
    "text, known",
    [
        ("mean", True),
        ("left", True),
        ("12", True),
        ("max", True),
        ("0", False),
        ("-1", False),
        ("first", False),
        ("", False),
        ("²", False),
    ],
)
def test_names_of_channels(text, known):
    assert is_channel(text) == known


def test_paths_are_split(tmp_path):
    assert split_channel("a.wav::left") == ("a.wav", "left") and split_channel("a.wav") == ("a.wav", "mean")
    assert split_dataset("a.wav::left") == ("a.wav", None) and split_dataset(tmp_path / "a.wav::2") == (
        tmp_path / "a.wav",
        None,
    )
    assert split_channel("x.h5::2") == ("x.h5::2", "mean") and split_channel("x.h5::P01::2") == ("x.h5::P01", "2")
    assert with_channel("a.wav", "mean") == "a.wav" and with_channel("a.wav::left", "right") == "a.wav::left"
    assert split_channel("a.wav::other") == ("a.wav::other", "mean")
    odd = tmp_path / "a.wav::left"  # a file that is really called so
    soundfile.write(str(odd), TONE, RATE_HZ, format="WAV")
    assert split_channel(str(odd)) == (str(odd), "mean") and len(load_audio(odd)[0]) == RATE_HZ


def test_a_channel_of_a_data_set(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_dataset("2", data=np.stack([TONE, HISS], axis=1))
    np.testing.assert_array_equal(load_audio(f"{tmp_path / 'all.h5'}::2::right")[0], HISS)
    np.testing.assert_allclose(load_audio(f"{tmp_path / 'all.h5'}::2")[0], (TONE + HISS) / 2, atol=1e-7)


# channels that cancel


@pytest.mark.parametrize(
    "others, cancels",
    [
        ([-TONE], True),
        ([-0.99 * TONE], True),
        ([0.02 * HISS - TONE], True),
        ([TONE], False),
        ([HISS], False),
        ([0 * TONE], False),
        ([-TONE, HISS], False),
        ([-0.5 * TONE], False),
        ([HISS - 0.8 * TONE], False),
        ([-TONE, TONE, -TONE], True),
        ([1 - TONE], True),
    ],
)
def test_channels_that_cancel_are_noticed(tmp_path, others, cancels):
    path, balance = write(tmp_path / "a.wav", TONE, *others), Balance()
    with open_audio(path, balance=balance) as (_, blocks):
        for _ in blocks:
            pass
    assert balance.cancels == cancels
    if load_audio(path)[0].std() > 1e-6:
        assert check_clip(path).cancels == cancels
        assert not check_clip(f"{path}::left").cancels


def test_unrelated_channels_do_not_cancel_however_many(tmp_path):
    path = write(tmp_path / "a.wav", *(0.1 * RNG.standard_normal((64, RATE_HZ))).astype(np.float32))
    assert not check_clip(path).cancels


def test_a_mean_of_nothing_names_the_mend(tmp_path):
    path = write(tmp_path / "a.wav", TONE, -TONE)
    with pytest.raises(AumError, match="the mean of its channels never changes") as caught:
        check_clip(path)
    assert "--channel left" in caught.value.fix
    assert check_clip(f"{path}::right").duration_s == 1


@pytest.fixture
def stereo(tmp_path):
    """Class folders of stereo: a tone on the left that the right nearly cancels."""
    for name, hz in CLASSES.items():
        for number in range(10):
            path = sound(tmp_path / "in" / name / f"{number}.wav", hz, seed=number)
            waveform, _ = load_audio(path)
            write(path, waveform, 0.001 * HISS[: len(waveform)] - waveform)
    return tmp_path / "in"


def test_prepare_remembers_the_channel(stereo, tmp_path):
    report = prepare("folder", tmp_path / "mean", source=stereo)
    assert any(
        "the channels of 30 clips cancel each other" in text and "--channel left" in text for text in report.warnings
    )
    report = prepare("folder", tmp_path / "left", source=stereo, channel="left")
    assert not report.warnings and not report.skipped
    mean, left = (read_manifest(tmp_path / name) for name in ("mean", "left"))
    assert [f"{path}::left" for path in mean.clips.paths()] == [*left.clips.paths()]
    assert [clip.split for clip in mean.clips] == [clip.split for clip in left.clips]  # the channel moves nothing
    left.check_files(left.clips)
    np.testing.assert_array_equal(
        Waveforms(left.clips, RATE_HZ, 0)[3], soundfile.read(mean.clips[3].path, dtype="float32")[0][:, 0]
    )
    stored = [
        json.loads((tmp_path / name / "report.json").read_text())["normalisation"]["mean"] for name in ("mean", "left")
    ]
    assert stored[1] > stored[0] + 3  # the mean of the channels is next to silence
    with pytest.raises(AumError, match="no channel 'first'"):
        prepare("folder", tmp_path / "x", source=stereo, channel="first")


def test_training_and_evaluation_hear_the_same(stereo, tmp_path, trained):
    prepare("folder", tmp_path / "left", source=stereo, split="60/20/20", channel="left")
    prepare("folder", tmp_path / "mean", source=stereo, split="60/20/20")
    assert (
        evaluate(trained, tmp_path / "left").metrics.accuracy
        > 0.8
        > evaluate(trained, tmp_path / "mean").metrics.accuracy
    )


def test_shards_hold_the_channel(stereo, tmp_path):
    pytest.importorskip("webdataset")
    from aumcli.data.datasets.shards import read_index, read_shard

    prepare("folder", tmp_path / "left", source=stereo, channel="left", shards=True)
    index = read_index(tmp_path / "left")
    items = [item for shard in index.shards for item in read_shard(index.url(shard))]
    assert len(items) == 30
    for clip, waveform, _ in items:
        np.testing.assert_array_equal(waveform, load_audio(clip.path)[0])
        assert str(clip.path).endswith("::left")


def test_prepare_by_command(aum, stereo, tmp_path):
    result = aum("prepare", "folder", stereo, "--out", tmp_path / "out", "--channel", "right")
    assert result.code == 0 and "cancel" not in result.out + result.err
    assert all(path.endswith("::right") for path in read_manifest(tmp_path / "out").clips.paths())
    result = aum("prepare", "folder", stereo, "--out", tmp_path / "mean")
    assert "cancel each other" in " ".join((result.out + result.err).split()) and "--channel left" in " ".join(
        (result.out + result.err).split()
    )

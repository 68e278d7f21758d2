"""Decoding: every format and every way in which a file can be bad."""

import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from baselines import import_torchaudio

from aumcli.data.decoding.audio import AUDIO_SUFFIXES, audio_info, check_clip, find_audio, load_audio
from aumcli.data.decoding.resample import resample
from aumcli.errors import AumError

RATE_HZ = 16000
TONE = (0.4 * np.sin(np.arange(RATE_HZ) * 0.2)).astype(np.float32)  # 1 s


def write(path, sound=TONE, rate_hz=RATE_HZ, **options):
    soundfile.write(path, sound, rate_hz, **options)
    return path


def refused(path, *words, call=load_audio, **arguments):
    with pytest.raises(AumError) as caught:
        call(path, **arguments)
    assert caught.value.exit_code == 1 and caught.value.fix and path.name in caught.value.problem
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def cut(path, share=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize(
    "name", ["a.wav", "a.WAV", "a.flac", "a.Flac", "a.ogg", "a.mp3", "a.MP3", "a.aiff", "a.AIFF", "a.au", "a.caf"]
)
def test_reads_every_format_in_any_case(tmp_path, name):
    waveform, rate_hz = load_audio(write(tmp_path / name))
    assert (waveform.dtype, waveform.shape, rate_hz) == (np.float32, (RATE_HZ,), RATE_HZ)
    assert np.abs(waveform - TONE)[2000:-2000].mean() < 0.02  # mp3 and ogg lose a little


def test_reads_opus(tmp_path):
    write(tmp_path / "a.opus", format="OGG", subtype="OPUS")
    assert load_audio(tmp_path / "a.opus")[0].shape == (RATE_HZ,)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_sample_formats_have_the_same_scale(tmp_path, subtype):
    assert np.abs(load_audio(write(tmp_path / "a.wav", subtype=subtype))[0] - TONE).max() < 0.03


def test_channels_are_averaged(tmp_path):
    channels = np.stack([TONE, 0.5 * TONE, np.zeros_like(TONE)], axis=1)
    waveform, _ = load_audio(write(tmp_path / "a.wav", channels, subtype="FLOAT"))
    np.testing.assert_allclose(waveform, channels.mean(axis=1), atol=1e-7)


def test_slice_reads_exactly_those_samples(tmp_path):
    path = write(tmp_path / "a.wav", subtype="FLOAT")
    slices = ((0.25, 0.5, TONE[4000:8000]), (None, 0.1, TONE[:1600]), (0.9, None, TONE[14400:]))
    for start_s, stop_s, expected in slices:
        np.testing.assert_array_equal(load_audio(path, start_s=start_s, stop_s=stop_s)[0], expected)


def test_slice_may_end_a_rounding_error_after_the_file(tmp_path):
    path = write(tmp_path / "a.wav", TONE[:15993])  # 0.9995625 s, annotated as 1.000
    assert len(load_audio(path, start_s=0.5, stop_s=1.0)[0]) == 15993 - 8000


@pytest.mark.parametrize(
    "start_s, stop_s",
    [
        (0.5, 1.2),
        (1.5, None),
        (1.0, None),
        (-0.1, 0.5),
        (0.5, 0.5),
        (0.6, 0.5),
        (float("nan"), None),
        (None, float("inf")),
    ],
)
def test_slice_outside_the_file(tmp_path, start_s, stop_s):
    refused(write(tmp_path / "a.wav"), "inside the file", "1.000 s", start_s=start_s, stop_s=stop_s)


@pytest.mark.parametrize("rate_hz", [8000, 11025, 22050, 44100, 48000])
def test_resamples_as_torchaudio_does(rate_hz):
    theirs = import_torchaudio("functional")
    sound = np.random.default_rng(0).standard_normal(40001).astype(np.float32)
    got = resample(sound, rate_hz, RATE_HZ)
    np.testing.assert_allclose(got, theirs.resample(torch.from_numpy(sound).double(), rate_hz, RATE_HZ), atol=3e-6)
    # in float32 torchaudio rounds phases: 3e-8 of up to 441 samples, so a tap is off by up to 4e-5; samples reach 4
    np.testing.assert_allclose(got, theirs.resample(torch.from_numpy(sound), rate_hz, RATE_HZ), atol=2e-4)


@pytest.mark.parametrize("rate_hz", [16001, 44101])
def test_resamples_rates_without_a_common_divisor(tmp_path, rate_hz):
    tone = 0.4 * np.sin(2 * np.pi * 500 * np.arange(rate_hz) / rate_hz)
    waveform, got_hz = load_audio(write(tmp_path / "a.wav", tone, rate_hz), RATE_HZ)
    expected = 0.4 * np.sin(2 * np.pi * 500 * np.arange(RATE_HZ) / RATE_HZ)
    assert (len(waveform), got_hz, waveform.dtype) == (RATE_HZ, RATE_HZ, np.float32)
    np.testing.assert_allclose(waveform[100:-100], expected[100:-100], atol=2e-3)


def test_no_torch_without_resampling(tmp_path):
    path = write(tmp_path / "a.wav")
    code = (
        "import sys; from aumcli.data.decoding.audio import load_audio; import aumcli.data.manifest; "
        f"load_audio({str(path)!r}, {RATE_HZ}); "
        "print([name for name in ('torch', 'torchaudio', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_missing_folder_and_empty(tmp_path):
    refused(tmp_path / "no.wav", "doesn't exist")
    refused(tmp_path, "folder")
    (tmp_path / "empty.wav").touch()
    refused(tmp_path / "empty.wav", "0 bytes")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac", "a.raw"])
def test_text_under_an_audio_name(tmp_path, name):
    (tmp_path / name).write_text("this is not a sound\n" * 50)
    refused(tmp_path / name, "not audio")


@pytest.mark.parametrize(
    "name, content, converted",
    [
        ("a.m4a", b"\0\0\0\x20ftypM4A ", "a.wav"),
        ("b.WMA", b"\x30\x26\xb2\x75", "b.wav"),
        ("renamed.wav", b"\0\0\0\x20ftypisom", "renamed-converted.wav"),
        ("two words; $HOME 'q'.m4a", b"", "two words; $HOME 'q'.wav"),
        ("-y.m4a", b"", "-y.wav"),
    ],
)
def test_formats_to_convert_name_the_command(tmp_path, monkeypatch, name, content, converted):
    folder = tmp_path / "my sounds"
    folder.mkdir()
    (folder / name).write_bytes(content + bytes(500))
    command = refused(folder / name).fix.partition("convert it: ")[2]
    assert shlex.split(command) == ["ffmpeg", "-i", str(folder / name), str(folder / converted)]
    monkeypatch.chdir(folder)  # neither an option nor a protocol of ffmpeg's
    assert shlex.split(refused(Path(name)).fix.partition("convert it: ")[2])[2].endswith(("./-y.m4a", name))


def test_no_samples(tmp_path):
    refused(write(tmp_path / "a.wav", TONE[:0]), "0 samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, bad):
    sound = TONE.copy()
    sound[12345] = bad
    path = write(tmp_path / "a.wav", sound, subtype="FLOAT")
    refused(path, "NaN")
    refused(path, "NaN", call=check_clip)
    assert len(load_audio(path, stop_s=0.5)[0]) == 8000  # the bad sample lies elsewhere


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize("call", [load_audio, check_clip])
def test_truncated(tmp_path, name, call):
    noise = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE_HZ)
    refused(cut(write(tmp_path / name, noise)), "truncated", call=call)


@pytest.mark.parametrize("options", [dict(format="WAVEX"), dict(format="RF64"), dict(endian="BIG")])
def test_truncated_relatives_of_wav(tmp_path, options):
    path = write(tmp_path / "a.wav", **options)
    assert len(load_audio(path)[0]) == RATE_HZ
    refused(cut(path), "truncated")


def test_ogg_cut_between_two_pages(tmp_path):
    path = write(tmp_path / "a.ogg", np.random.default_rng(0).standard_normal(10 * RATE_HZ) * 0.1)
    data = path.read_bytes()
    path.write_bytes(data[: data.rfind(b"OggS")])
    refused(path, "truncated")


def with_data_size(path, size):
    data = path.read_bytes()
    at = data.index(b"data") + 4
    path.write_bytes(data[:4] + struct.pack("<I", size) + data[8:at] + struct.pack("<I", size) + data[at + 4 :])
    return path


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe_is_whole(tmp_path, size):
    path = with_data_size(write(tmp_path / "a.wav", subtype="FLOAT"), size)
    np.testing.assert_array_equal(load_audio(path)[0], TONE)
    assert check_clip(path).duration_s == 1


def test_empty_wav_with_a_chunk_behind_is_no_pipe(tmp_path):
    path = write(tmp_path / "a.wav", TONE[:0])
    path.write_bytes(path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO")
    refused(path, "0 samples")


def test_wav_with_chunks_before_and_behind_the_sound(tmp_path):
    path = write(tmp_path / "a.wav")
    data = path.read_bytes()
    path.write_bytes(
        data[:12] + b"junk" + struct.pack("<I", 3) + b"abc\0" + data[12:] + b"LIST" + struct.pack("<I", 5) + b"INFOx"
    )  # the last padding byte is missing
    assert len(load_audio(path)[0]) == RATE_HZ


def without_index(path):
    """Remove the first frame, which holds the Xing header."""
    data = path.read_bytes()
    path.write_bytes(data[data.index(data[:2], data.index(b"Xing") if b"Xing" in data[:200] else 4) :])
    return path


def test_mp3_of_variable_rate_without_index_is_whole(tmp_path):
    sound = 0.2 * np.random.default_rng(0).standard_normal(10 * RATE_HZ)
    sound[: 5 * RATE_HZ] = 0.3 * np.sin(np.arange(5 * RATE_HZ) * 0.05)
    path = tmp_path / "a.mp3"
    variable = dict(format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    with soundfile.SoundFile(path, "w", RATE_HZ, 1, **variable) as file:
        file.write(sound)
    assert len(load_audio(path)[0]) == len(sound)
    without_index(path)
    assert soundfile.info(path).frames < 0.8 * len(sound)  # what libsndfile guesses
    samples = len(load_audio(path)[0])
    assert len(sound) < samples < len(sound) + 4 * 1152 and samples % 576 == 0


def test_check_clip_tells_length_and_finds_silence(tmp_path):
    stereo = np.stack([TONE, TONE], axis=1)
    info = check_clip(write(tmp_path / "a.wav", stereo), 0.25, 0.75)
    assert (info.duration_s, info.sample_rate_hz, info.channels) == (0.5, RATE_HZ, 2)
    refused(write(tmp_path / "zero.wav", 0 * TONE), "silent", call=check_clip)
    refused(write(tmp_path / "constant.wav", 0 * TONE + 0.25), "silent", call=check_clip)
    write(tmp_path / "opposite.wav", stereo * [1, -1], subtype="FLOAT")
    refused(tmp_path / "opposite.wav", "silent", "mean of its channels", call=check_clip)
    sound = TONE.copy()
    sound[:8000] = 0
    refused(write(tmp_path / "half.wav", sound), "silent", call=check_clip, start_s=0, stop_s=0.5)
    assert check_clip(tmp_path / "half.wav").duration_s == 1
    assert load_audio(tmp_path / "zero.wav")[0].shape == (RATE_HZ,)  # only prepare minds silence


def test_check_clip_reads_long_files_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("aumcli.data.decoding.audio.BLOCK_S", 0.1)
    sound = np.zeros(RATE_HZ)
    sound[-1] = 0.5  # only the last block isn't silent
    assert check_clip(write(tmp_path / "a.wav", sound)).duration_s == 1
    np.testing.assert_array_equal(load_audio(write(tmp_path / "b.wav", subtype="FLOAT"))[0], TONE)


def test_very_short_clips_are_good(tmp_path):
    assert check_clip(write(tmp_path / "a.wav", TONE[:20])).duration_s == 20 / RATE_HZ


def test_audio_info(tmp_path):
    info = audio_info(write(tmp_path / "a.flac", np.stack([TONE] * 2, axis=1), 22050))
    assert (info.duration_s, info.sample_rate_hz, info.channels) == (RATE_HZ / 22050, 22050, 2)


def test_find_audio(tmp_path):
    for name in ("b.WAV", "a.wav", "sub/c.Mp3", "sub/deep/d.m4a", "._a.wav", ".hidden/e.wav", "notes.txt", "wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in find_audio(tmp_path)]
    assert found == ["a.wav", "b.WAV", "sub/c.Mp3", "sub/deep/d.m4a"]
    assert ".m4a" in AUDIO_SUFFIXES
    with pytest.raises(AumError, match="not a folder"):
        find_audio(tmp_path / "nowhere")

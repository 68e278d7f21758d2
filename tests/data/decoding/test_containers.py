"""A container is believed only where the bytes agree; what is there is read whole, what is not is named."""

import io
import shutil
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_files import (
    COUNTED,
    FORMATS,
    ID3V1,
    MP2,
    MP2_SAMPLES,
    ape,
    chunk,
    encoded,
    id3v2,
    mean_of,
    mp3_frames,
    ogg_flac,
    ogg_page,
    ogg_pages,
    replaced,
    saying,
    sized,
    summed,
    wrapped,
)

from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.audio import audio_info, check_clip, decode_audio, file_content, load_audio
from aumcli.data.manifest import Clip, read_manifest, write_manifest
from aumcli.errors import AumError
from aumcli.plan import infer_frontend
from aumcli.prepare import prepare
from aumcli.recipe import load_recipe

SECONDS = 2.0


@pytest.fixture
def file(tmp_path):
    """Writes a file and gives its path."""

    def write(name, data):
        path = tmp_path / f"sound.{name}"
        path.write_bytes(data)
        return path

    return write


def refused(path, *words, without_decoding=True):
    """Every way in must refuse a file, name it and say how to mend it."""
    for call in (load_audio, check_clip, *([audio_info] if without_decoding else [])):
        with pytest.raises(AumError) as caught:
            call(path)
        assert caught.value.exit_code == 1 and caught.value.fix and path.name in caught.value.problem
        assert any(word in caught.value.problem for word in words), caught.value.problem


def same(path, expected):
    """A file decodes to just these samples, as a whole, in the middle and from memory."""
    waveform, rate_hz = load_audio(path)
    np.testing.assert_allclose(waveform, expected, atol=1e-6)
    assert audio_info(path).duration_s == check_clip(path).duration_s == len(expected) / rate_hz
    start, stop = len(expected) // 3, len(expected) // 2
    np.testing.assert_allclose(
        load_audio(path, start_s=start / rate_hz, stop_s=stop / rate_hz)[0], expected[start:stop], atol=1e-6
    )
    np.testing.assert_allclose(decode_audio(path.read_bytes(), path.name)[0], expected, atol=1e-6)


def without_index(data):
    return b"".join(mp3_frames(data)[1:])


# streams joined


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "nist.wav"])
@pytest.mark.parametrize("seconds", [SECONDS, 0.7])
def test_two_files_joined(file, name, seconds):
    refused(
        file(name, encoded(name, channels=1) + encoded(name, seconds, seed=1)), "holds more sound", "missing", "damaged"
    )


@pytest.mark.parametrize(
    "first, second",
    [
        ("ogg", "opus"),
        ("opus", "ogg"),
        ("flac", "ogg"),
        ("ogg", "flac"),
        ("mp3", "flac"),
        ("wav", "aiff"),
        ("w64", "wav"),
        ("caf", "caf"),
        ("aiff", "wav"),
        ("au", "wav"),
        ("flac", "wav"),
        ("mp3", "wav"),
    ],
)
def test_files_of_two_formats_joined(file, first, second):
    refused(file(first, encoded(first) + encoded(second)), "holds more sound", "damaged")


def test_ogg_streams_side_by_side(file):
    one, two = (ogg_pages(encoded("ogg", seed=seed)) for seed in (0, 1))
    two = [summed(replaced(page, 14, b"abcd")) for page in two]
    refused(file("ogg", b"".join([one[0], two[0], *one[1:], *two[1:]])), "2 streams side by side")
    skeleton = ogg_page(2, 0, 99, 0, bytes([16]), b"fishead\0" + bytes(8)), ogg_page(4, 0, 99, 1, bytes([0]), b"")
    path = file(
        "oga", b"".join([one[0], skeleton[0], *one[1:3], skeleton[1], *one[3:]])
    )  # pictures, subtitles and the like are no sound
    same(path, mean_of(encoded("ogg")))


def test_mpeg_streams_without_index_joined_are_one(file):
    frames = [without_index(encoded("mp3", seed=seed)) for seed in (0, 1)]
    count = sum(len(mp3_frames(each)) for each in frames)
    assert len(load_audio(file("mp3", b"".join(frames)))[0]) == count * 576
    refused(file("mp3", encoded("mp3") + frames[1]), "holds more sound")


# less, and more, than the header says


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.77, 0.95, 0.999])
def test_truncated(file, name, share):
    data = encoded(name)
    # where a FLAC frame ends only decoding tells
    refused(
        file(name, data[: int(share * len(data))]),
        "truncated",
        "damaged",
        "can't be decoded",
        "not audio",
        without_decoding=name != "flac",
    )


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.1, 2, 10])
def test_header_says_another_length(file, name, share):
    data = encoded(name)
    samples = soundfile.info(io.BytesIO(data)).frames
    refused(file(name, saying(name, data, round(samples * share))), "holds more sound" if share < 1 else "truncated")


def test_recorder_that_crashed_says_how_much_it_had(file):
    path = file("wav", saying("wav", encoded("wav", 10.0), 16000))
    with pytest.raises(AumError, match=r"says 1\.000 s, 9\.000 s stand behind") as caught:
        load_audio(path)
    assert f"ffmpeg -ignore_length 1 -i {path} " in caught.value.fix


def test_aiff_whose_two_counts_differ(file):
    data = encoded("aiff")
    refused(file("aiff", replaced(data, data.index(b"COMM") + 10, struct.pack(">I", 16000))), "holds more sound")
    refused(file("aiff", replaced(data, data.index(b"COMM") + 10, struct.pack(">I", 64000))), "truncated")


def test_alac_whose_packets_are_not_all_there(file):
    data = encoded("alac.caf")
    at = data.index(b"pakt") + 12
    packets, valid, priming, remainder = struct.unpack(">qqii", data[at : at + 24])
    refused(
        file("caf", replaced(data, at, struct.pack(">qqii", packets - 1, valid - 4096, priming, remainder))), "damaged"
    )
    refused(file("caf", replaced(data, at, struct.pack(">qqii", packets, valid - 4096, priming, remainder))), "damaged")


# lengths that nobody knew


@pytest.mark.parametrize(
    "size", [0, 0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 2_000_000_000, 1_999_999_964]
)
@pytest.mark.parametrize("name", ["wav", "24.wav", "float.wav", "au", "aiff"])
def test_unknown_size(file, name, size):
    data = encoded(name, channels=2)
    same(file(name, sized(name, data, size)), mean_of(data))


@pytest.mark.parametrize(
    "name, size",
    [
        ("caf", -1),
        ("caf", 0),
        ("w64", 2**64 - 1),
        ("w64", 2**63 - 25),
        ("w64", 0),
        ("rf64", 0),
        ("rf64", 2**64 - 1),
        ("aiff", 0x7F000000),
    ],
)
def test_unknown_size_of_the_long_formats(file, name, size):
    data = encoded(name, channels=2)
    same(file(name, sized(name, data, size)), mean_of(data))


def test_unknown_size_of_aiff_in_both_chunks(file):
    data = encoded("aiff")
    lying = sized("aiff", replaced(data, data.index(b"COMM") + 10, bytes(4)), 0)
    same(file("aiff", replaced(lying, 4, bytes(4))), mean_of(data))


def test_big_endian_wav_from_a_pipe(file):
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(0).standard_normal(8000), 8000, format="WAV", endian="BIG")
    data = buffer.getvalue()
    same(file("wav", replaced(data, data.index(b"data") + 4, b"\xff" * 4)), mean_of(data))
    refused(file("wav", replaced(data, data.index(b"data") + 4, struct.pack(">I", 1600))), "holds more sound")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0])
def test_more_than_4_gib_from_a_pipe(tmp_path, size):
    """A sparse file: silence, but for the end."""
    path, seconds = tmp_path / "long.wav", 2**32 // 88200 + 1000
    data = sized("wav", encoded("wav", 0.1), size)
    with open(path, "wb") as out:
        out.write(data[:44] if size else data)
        out.seek(44 + 88200 * seconds - 2000)
        out.write(struct.pack("<1000h", *range(1, 1001)))
    with open(path, "r+b") as out:
        out.seek(24)
        out.write(struct.pack("<II", 44100, 88200))
    assert audio_info(path).duration_s == seconds
    np.testing.assert_array_equal(
        load_audio(path, start_s=seconds - 1)[0][-1000:], np.arange(1, 1001, dtype=np.float32) / 32768
    )


@pytest.mark.parametrize("total", [0, None])
def test_flac_in_ogg(file, total):
    data = encoded("flac")
    same(file("oga", ogg_flac(data, total)), mean_of(data))


def test_flac_from_a_pipe(file):
    data = encoded("flac")
    same(file("flac", saying("flac", data, 0)), mean_of(data))
    refused(file("flac", saying("flac", data, 0)[: -len(data) // 4]), "truncated", without_decoding=False)


# behind and before the sound


@pytest.mark.parametrize(
    "behind",
    [
        chunk(b"LIST", b"INFOISFT\x04\0\0\0abc\0"),
        chunk(b"id3 ", id3v2(50)),
        chunk(b"bext", bytes(602)),
        chunk(b"cue ", bytes(28)),
        chunk(b"odd ", b"xyz") + chunk(b"LIST", b"INFO"),
        chunk(b"odd ", b"xyz")[:-1],
        b"LIST" + struct.pack("<I", 400) + b"INFO",
        id3v2(99),
        ID3V1,
        ape() + ID3V1,
        bytes(5000),
        b"\n",
        chunk(b"LIST", b"INFO") + bytes(100) + ID3V1,
    ],
)
@pytest.mark.parametrize("name", ["wav", "ulaw.wav"])
def test_metadata_behind_wav(file, name, behind):
    data = encoded(name)
    if name == "wav" or len(behind) > 1:  # of one byte, it is a sample
        same(file(name, data + behind), mean_of(data))


@pytest.mark.parametrize(
    "name, behind",
    [
        ("aiff", chunk(b"NAME", b"abc", ">")),
        ("aiff", chunk(b"ID3 ", id3v2(30), ">")),
        ("au", ID3V1),
        ("au", bytes(512)),
        ("caf", b"info" + struct.pack(">q", 4) + bytes(4)),
        ("w64", b"LIST" + bytes(12) + struct.pack("<Q", 32) + bytes(8)),
        ("flac", ID3V1),
        ("flac", ape()),
        ("ogg", ID3V1),
        ("ogg", bytes(300)),
        ("opus", ape() + ID3V1),
        ("nist.wav", bytes(99)),
    ],
)
def test_metadata_behind_others(file, name, behind):
    data = encoded(name)
    same(file(name, data + behind), mean_of(data))


def test_padding_that_was_forgotten(file):
    data = encoded("8.wav", 0.5)
    odd = sized("8.wav", data, 7999)[: 44 + 7999]
    same(file("wav", odd + chunk(b"LIST", b"INFO")), mean_of(data)[:7999])
    same(file("wav", odd + b"\0" + chunk(b"LIST", b"INFO")), mean_of(data)[:7999])


@pytest.mark.parametrize(
    "behind",
    [
        b"\1\2\3\4" * 300,
        chunk(b"data", b"\1\2" * 800),
        b"RIFFwxyz" + bytes(9) + b"\1" * 999,
        b"LIST" + struct.pack("<I", 8) + b"\1" * 99,
    ],
)
def test_sound_behind_the_sound(file, behind):
    refused(file("wav", encoded("wav") + behind), "holds more sound")


@pytest.mark.parametrize("name", ["wav", "flac", "ogg", "aiff", "mp3"])
def test_tag_in_front(file, name):
    data = encoded(name)
    same(file(name, id3v2(1000) + data), mean_of(data))


# damage in the middle


@pytest.mark.parametrize("name", ["ogg", "opus", "flac", "mp3"])
@pytest.mark.parametrize("how", ["removed", "repeated", "inserted"])
def test_bytes_missing_or_added_within_a_stream(file, name, how):
    data, rng = encoded(name, 10.0), np.random.default_rng(3)
    for at in rng.integers(len(data) // 5, len(data) * 4 // 5, 5):
        count = int(rng.integers(100, 600))
        middle = {
            "removed": b"",
            "repeated": data[at : at + count] * 2,
            "inserted": rng.bytes(50) + data[at : at + count],
        }[how]
        refused(
            file(name, data[:at] + middle + data[at + count :]),
            "damaged",
            "truncated",
            "holds more sound",
            without_decoding=name != "flac",
        )


@pytest.mark.parametrize("name", ["ogg", "opus", "flac"])
def test_bytes_changed_within_a_stream(file, name):
    data, rng = encoded(name, 10.0), np.random.default_rng(4)
    for at in rng.integers(len(data) // 5, len(data) * 4 // 5, 5):
        for count in (1, 300):
            changed = bytes(byte ^ 0x55 for byte in data[at : at + count])
            path = file(name, replaced(data, int(at), changed))
            with pytest.raises(AumError, match="damaged|truncated"):
                load_audio(path)


def test_bytes_changed_within_mp3_move_nothing(file):
    data, rng = encoded("mp3", 10.0), np.random.default_rng(5)
    whole, kept = mean_of(data), 0
    for at in rng.integers(len(data) // 5, len(data) // 2, 20):
        path = file("mp3", replaced(data, int(at), rng.bytes(60)))
        try:
            waveform, _ = load_audio(path)
        except AumError as error:  # it hit a frame's header
            assert "damaged" in error.problem or "holds more sound" in error.problem
            continue
        kept += 1
        assert len(waveform) == len(whole)
        np.testing.assert_allclose(waveform[-len(whole) // 3 :], whole[-len(whole) // 3 :], atol=1e-6)
    assert kept


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_ogg_pages_missing_in_the_middle(file, name):
    pages = ogg_pages(encoded(name, 10.0))
    refused(file(name, b"".join(pages[:4] + pages[5:])), "pages are missing")
    refused(file(name, b"".join(pages[:4] + [pages[4], pages[4]] + pages[5:])), "pages are missing")
    later = [summed(replaced(page, 18, struct.pack("<I", number - 1))) for number, page in enumerate(pages[5:], 5)]
    with pytest.raises(AumError, match="truncated"):  # numbered anew, but the positions tell
        load_audio(file(name, b"".join(pages[:4] + later)))


def test_ogg_positions_that_do_not_go_on(file):
    pages = ogg_pages(encoded("ogg", 10.0))
    pages[-1] = summed(replaced(pages[-1], 6, struct.pack("<q", 1600)))
    refused(file("ogg", b"".join(pages)), "positions don't go on")
    pages = ogg_pages(encoded("ogg", 10.0))
    doubled = [
        summed(replaced(page, 18, struct.pack("<I", number))) for number, page in enumerate(pages[:5] + pages[4:])
    ]
    refused(file("ogg", b"".join(doubled)), "positions don't go on")


def test_ogg_with_several_last_pages(file):
    """As some encoders write it."""
    data = encoded("ogg", 5.0)
    pages = ogg_pages(data)
    pages[-2] = summed(replaced(pages[-2], 5, bytes([pages[-2][5] | 4])))
    same(file("ogg", b"".join(pages)), mean_of(data))


def test_opus_that_promises_a_few_samples_too_many(file):
    """As opusenc 0.1.10 does."""
    pages = ogg_pages(encoded("opus", 3.0))
    position = struct.unpack("<q", pages[-1][6:14])[0]
    for more in (160, 320, 640, 959):
        longer = summed(replaced(pages[-1], 6, struct.pack("<q", position + more)))
        assert 0 <= len(load_audio(file("opus", b"".join(pages[:-1] + [longer])))[0]) - 3 * 48000 <= more
    longer = summed(replaced(pages[-1], 6, struct.pack("<q", position + 9600)))
    with pytest.raises(AumError, match="truncated"):  # more than a packet: one is lost
        load_audio(file("opus", b"".join(pages[:-1] + [longer])))


@pytest.mark.parametrize("first", [True, False])
def test_flac_frame_missing(file, first):
    data = encoded("flac", 10.0)
    frames = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xf8" and data[at + 4] in (5, 6)]
    start, stop = next((a, b) for a, b in pairwise(frames) if data[a + 4] == 5 and data[b + 4] == 6)
    lacking = data[:start] + data[stop:]
    refused(file("flac", lacking if first else saying("flac", lacking, 0)), "missing")


# good files that libsndfile refuses, or guesses


@pytest.mark.parametrize(
    "name, payload",
    [
        ("mp2", MP2),
        ("mp3", MP2),
        ("wav", wrapped(0x50, MP2, 16000)),
        ("wav", wrapped(0x50, MP2, 16000, 0xFFFFFFFF)),
        ("mp2", b"\0\1\2" + MP2),
        ("mp2", id3v2(20) + MP2 + ID3V1),
    ],
)
def test_mp2(file, name, payload):
    waveform, rate_hz = load_audio(file(name, payload))
    spectrum = np.abs(np.fft.rfft(waveform[1000:-1000]))
    assert (len(waveform), rate_hz) == (MP2_SAMPLES, 16000)
    assert spectrum.argmax() * rate_hz / (len(waveform) - 2000) == pytest.approx(300, abs=5)
    refused(file("mp2", MP2[:-9]), "truncated")


@pytest.mark.parametrize("size", [None, 0, 0xFFFFFFFF, 2_000_000_000])
@pytest.mark.parametrize("index", [True, False])
def test_mp3_within_wav(file, index, size):
    data = encoded("mp3") if index else without_index(encoded("mp3"))
    same(file("wav", wrapped(0x55, data, 16000, size)), load_audio(file("mp3", data))[0])


def test_mp3_within_wav_that_is_cut(file):
    data = encoded("mp3")
    refused(file("wav", wrapped(0x55, data, 16000)[: -len(data) // 2]), "truncated")
    refused(file("wav", wrapped(0x55, data[: len(data) // 2], 16000)), "truncated")
    refused(file("wav", wrapped(0x55, bytes(3000), 16000)), "no MPEG audio")


@pytest.mark.parametrize(
    "before",
    [
        b"\0",
        b"\1\2\3\4\5",
        b"x" * 40,
        bytes(5000),
        id3v2(300) + id3v2(7),
        id3v2(300, footer=True),
        id3v2(10) + bytes(700),
        id3v2(10) + b"\r\n",
        ape(),
    ],
)
@pytest.mark.parametrize(
    "behind",
    [
        b"",
        ID3V1,
        ape() + ID3V1,
        ape(header=False),
        bytes(3000),
        b"LYRICSBEGININD0000200000000020LYRICS200" + ID3V1,
        id3v2(40, footer=True),
        b"--end--",
    ],
)
@pytest.mark.parametrize("index", [True, False])
def test_mp3_with_something_around_it(file, before, behind, index):
    data = encoded("mp3") if index else without_index(encoded("mp3"))
    if index:
        expected = mean_of(data)
    else:
        expected = load_audio(file("mp3", data))[0]
        assert len(expected) == 576 * len(mp3_frames(data))
    waveform, _ = load_audio(file("mp3", before + data + behind))
    np.testing.assert_allclose(waveform, expected, atol=1e-6)


def test_mp3_of_one_frame_is_quiet_on_standard_error(file, capfd):
    frames = mp3_frames(encoded("mp3"))
    for count in (1, 2, 3):
        assert len(load_audio(file("mp3", b"".join(frames[1 : 1 + count])))[0]) == 576 * count
    assert capfd.readouterr().err == ""


def test_frames_that_are_missing_at_the_beginning(file):
    frames = mp3_frames(encoded("mp3"))
    refused(file("mp3", b"\1" * len(b"".join(frames[:4])) + b"".join(frames[4:])), "damaged")


def test_index_that_counts_itself(file):
    """Of an encoder that names itself nowhere: as some old ones did."""
    frames = mp3_frames(encoded("mp3"))
    frames[0] = frames[0].replace(b"LAME", b"none").replace(b"Lavf", b"none").replace(b"Lavc", b"none")
    plain = b"".join(frames)
    assert len(load_audio(file("mp3", saying("mp3", plain, 576 * len(frames))))[0]) == 576 * (len(frames) - 1)
    refused(file("mp3", saying("mp3", plain, 576 * (len(frames) + 1))), "truncated")


def test_vbri_index(file):
    frames = mp3_frames(without_index(encoded("mp3")))
    index = frames[0][:4] + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 0, 0, len(frames)) + bytes(64)
    index = index[: len(frames[0])].ljust(len(frames[0]), b"\0")
    assert len(load_audio(file("mp3", index + b"".join(frames)))[0]) == 576 * len(frames)
    refused(file("mp3", index + b"".join(frames[: len(frames) // 2])), "truncated")
    refused(file("mp3", index + b"".join(frames * 2)), "holds more sound")


def test_alac_whose_flags_were_left_out(file):
    """As ffmpeg does."""
    data = encoded("alac.caf")
    same(file("caf", replaced(data, data.index(b"alac") + 4, bytes(4))), mean_of(data))


def test_slices_of_codecs_without_seeking(file):
    data = encoded("gsm.wav", 4.0)
    path = file("wav", data)
    whole, rate_hz = load_audio(path)
    assert len(whole) == -(-32000 // 320) * 320
    np.testing.assert_array_equal(load_audio(path, start_s=1.3, stop_s=2.2)[0], whole[10400:17600])


def test_sphere(file):
    """The format of TIMIT, whose files are called .wav."""
    data = encoded("nist.wav", channels=2)
    same(file("wav", data), mean_of(data))


@pytest.mark.parametrize("kind", ["VOC", "PVF", "IRCAM", "AVR", "SVX", "MAT5"])
def test_formats_whose_length_nobody_checks(tmp_path, kind):
    path = tmp_path / f"sound.{kind.lower()}"
    soundfile.write(path, np.zeros(2000), 8000, "PCM_16", format=kind)
    refused(path, "not audio")


def test_content_is_given_only_where_others_can_read_it(file):
    data = encoded("wav")
    assert file_content(file("wav", data)) == data and file_content(file("wav", sized("wav", data, 0))) is None
    assert file_content(f"{file('wav', data)}::left") is None


def test_a_scan_is_remembered_until_the_file_changes(file, monkeypatch):
    from aumcli.data.decoding import containers

    path, scans, scan = file("ogg", encoded("ogg")), [], containers.scan
    monkeypatch.setattr(containers, "scan", lambda *how: scans.append(how) or scan(*how))
    for _ in range(3):
        load_audio(path, start_s=0.5, stop_s=0.6)
    assert len(scans) == 1
    bad = path.read_bytes()[:-10]
    path.write_bytes(bad)
    for _ in range(3):
        refused(path, "truncated")
    assert len(scans) == 2


# through the commands


def corpus(folder, bad):
    """Class folders, a few of whose sounds hold something else than they say."""
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            (folder / name / f"{number}.wav").write_bytes(encoded("wav", 0.5, seed=number))
    for name, data in bad.items():
        (folder / "one" / name).write_bytes(data)
    return folder


BAD = {
    "joined.ogg": encoded("ogg") + encoded("ogg", seed=1),
    "joined.mp3": encoded("mp3") + encoded("mp3", seed=1),
    "crashed.wav": saying("wav", encoded("wav", 10.0), 16000),
    "half.w64": encoded("w64")[:33000],
}


def test_prepare_counts_them_as_unusable(tmp_path):
    report = prepare("folder", tmp_path / "out", source=corpus(tmp_path / "in", BAD), split="60/20/20")
    reasons = {Path(item.path).name: item for item in report.skipped}
    assert set(reasons) == set(BAD) and report.failures == len(BAD)
    assert all(item.fix and ("holds more" in item.reason or "truncated" in item.reason) for item in reasons.values())
    good = {"pipe.wav": sized("wav", encoded("wav", seed=20), 2_000_000_000), "layer2.mp2": MP2}
    report = prepare("folder", tmp_path / "good", source=corpus(tmp_path / "in2", good), split="60/20/20")
    assert not report.skipped and report.longest_s == 2


@pytest.mark.parametrize("name", BAD)
def test_training_and_evaluation_name_them(tmp_path, name):
    prepare("folder", tmp_path / "out", source=corpus(tmp_path / "in", {}), split="60/20/20")
    manifest = read_manifest(tmp_path / "out")
    (tmp_path / name).write_bytes(BAD[name])
    clips = [*manifest.clips, Clip(tmp_path / name, labels=("one",), split="train")]
    write_manifest(tmp_path / "bad", clips, manifest.labels, {})
    with pytest.raises(AumError, match=f"{name} (holds more|is truncated)"):
        infer_frontend(load_recipe("quickstart"), read_manifest(tmp_path / "bad").split("train"), 2, False)
    (loaded,) = Waveforms(clips[-1:], 16000, 0).load([[(0, 0.0)]], 1)
    assert isinstance(loaded[0], AumError) and name in loaded[0].problem


# what other programs write, where they are installed


@pytest.mark.parametrize(
    "command, suffix",
    [
        ("ffmpeg -loglevel error -i {} -f wav -", "wav"),
        ("ffmpeg -loglevel error -i {} -f w64 -", "w64"),
        ("ffmpeg -loglevel error -i {} -f caf -", "caf"),
        ("ffmpeg -loglevel error -i {} -f aiff -", "aiff"),
        ("ffmpeg -loglevel error -i {} -rf64 always -f wav -", "wav"),
        ("ffmpeg -loglevel error -i {} -f flac -", "flac"),
        ("ffmpeg -loglevel error -i {} -f ogg -c:a flac -", "oga"),
        ("sox {} -t raw - | sox -t raw -r 16000 -e signed -b 16 -c 1 - -t wav -", "wav"),
        ("sox {} -t raw - | sox -t raw -r 16000 -e signed -b 16 -c 1 - -t aiff -", "aiff"),
        ("sox {} -t raw - | sox -t raw -r 16000 -e signed -b 16 -c 1 - -t au -", "au"),
        ("cat {} | flac --silent -", "flac"),
        ("flac --silent --ogg --stdout {}", "oga"),
    ],
)
def test_streams_of_other_programs_are_whole(file, command, suffix):
    programs = {part.split()[0] for part in command.split("|")}
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        pytest.skip(f"{missing[0]} is not installed; the same headers are built byte by byte in the tests above")
    data = encoded("wav", 1.3)
    path = file("wav", data)
    made = subprocess.run(command.format(path), shell=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    same(file(f"made.{suffix}", made), mean_of(data))

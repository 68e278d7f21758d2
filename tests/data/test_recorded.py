"""When and where recordings began, by their names and headers as recorders write them."""

import struct
from datetime import UTC, datetime, timedelta, timezone

import pytest
import soundfile
from training import problem

from aumcli.data.recorded import Recorded, check_pattern, when_recorded

AT = datetime(2024, 5, 1, 4, 30)


@pytest.mark.parametrize(
    ("name", "at", "site"),
    [
        ("20240501_043000.WAV", AT, ""),
        ("north/SITE-7_20240501_043000.wav", AT, "SITE-7"),
        ("SMA01234_20240501_043000_extra.flac", AT, "SMA01234"),
        ("pond 2024-05-01 04-30-00.mp3", AT, "pond"),
        ("2024-05-01T04:30:00Z.wav", AT.replace(tzinfo=UTC), ""),
        ("a_20240501T043000+0530.wav", AT.replace(tzinfo=timezone(timedelta(hours=5, minutes=30))), "a"),
        ("a_20240501_043000-03:00.wav", AT.replace(tzinfo=timezone(timedelta(hours=-3))), "a"),
        ("20241301_043000.wav", None, ""),  # no such month
        ("20240501.wav", None, ""),
        ("x120240501_043000.wav", None, ""),
        ("20240501_0430001.wav", None, ""),
        ("owl.wav", None, ""),
    ],
)
def test_names(name, at, site):
    assert when_recorded(name, "gone.wav") == Recorded(at, site)


@pytest.mark.parametrize(
    ("pattern", "path", "at", "site"),
    [
        ("{site}-%d.%m.%Y-%Hh%M", "rec/pond-01.05.2024-04h30.wav", AT, "pond"),
        ("{site}/*/%Y%m%d-%H%M%S", "rec/pond/card1/20240501-043000.wav", AT, "pond"),
        ("*_%Y%m%d", "rec/x_20240501.wav", datetime(2024, 5, 1), ""),
        ("%Y%m%d", "rec/x_20240501.wav", None, ""),  # the whole name
        ("%Y%m%d_%H%M%S", "20240501_993000.wav", None, ""),
    ],
)
def test_patterns_of_ones_own(pattern, path, at, site):
    assert when_recorded(path, "gone.wav", pattern) == Recorded(at, site)


@pytest.mark.parametrize("pattern", ["%Y%m", "%Q%Y%m%d", "%Y%Y%m%d", "{site}{site}%Y%m%d"])
def test_wrong_patterns(pattern):
    assert repr(pattern) in problem(check_pattern, pattern).problem


def chunk(path, name, content):
    """Add a chunk behind the samples of a WAV file."""
    soundfile.write(path, [0.0] * 101, 8000, "PCM_U8")  # an odd number of bytes, which are padded
    body = path.read_bytes()[8:]
    body += b"" if len(body) % 2 == 0 else b"\0"
    body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return str(path)


def entry(number, text):
    return struct.pack("<HI", number, len(text)) + text


COMMENT = (
    b"Recorded at 04:30:00 01/05/2024 (UTC%s) by AudioMoth 24F3190361DD0C3A at medium gain while battery was 4.1V."
)


@pytest.mark.parametrize(
    ("name", "content", "at", "site"),
    [
        (b"LIST", b"INFOICMT" + struct.pack("<I", 120) + COMMENT % b"", AT.replace(tzinfo=UTC), ""),
        (b"LIST", b"INFOICMT" + COMMENT % b"-3", AT.replace(tzinfo=timezone(timedelta(hours=-3))), ""),
        (b"LIST", b"INFOICMT" + COMMENT % b"+5:30", AT.replace(tzinfo=timezone(timedelta(minutes=330))), ""),
        (b"guan", b"GUANO|Version: 1.0\nMake: x\nTimestamp: 2024-05-01T04:30:00+02:00\nTE: 1",
         AT.replace(tzinfo=timezone(timedelta(hours=2))), ""),
        (b"guan", b"Timestamp: yesterday", None, ""),
        (b"wamd", entry(0, b"\1\0") + entry(4, b"POND\0") + entry(5, b"2024-05-01 04:30:00"), AT, "POND"),
        (b"wamd", entry(5, b"2024-05-01 04:30:00")[:-30], None, ""),
        (b"LIST", b"INFOISFT" + b"Lavf", None, ""),
    ],
)  # fmt: skip
def test_headers(tmp_path, name, content, at, site):
    file = chunk(tmp_path / "ABCD.wav", name, content)
    assert when_recorded("ABCD.wav", file) == Recorded(at, site)
    assert when_recorded("ABCD.wav", f"{file}::left") == Recorded(at, site)  # as --channel opens it
    assert when_recorded("20200101_000000.wav", file).at == datetime(2020, 1, 1)  # a name was given by a person


def test_no_sound_at_all(tmp_path):
    for name, content in (
        ("a.wav", b""),
        ("b.wav", b"RIFF"),
        ("c.wav", b"no sound, but long enough"),
        ("d.flac", b"fLaC"),
    ):
        (tmp_path / name).write_bytes(content)
        assert when_recorded(name, str(tmp_path / name)) == Recorded()


def test_later():
    assert Recorded(AT).after(90) == "2024-05-01T04:31:30" and Recorded().after(1) is None
    assert Recorded(AT.replace(tzinfo=UTC)).after(0.4881) == "2024-05-01T04:30:00.488+00:00"

"""When and where a sound was recorded, by its name or by what the recorder wrote into it."""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache

from aumcli.data.decoding.channels import split_channel
from aumcli.errors import AumError

# 20240501_043000, SITE_20240501_043000, 2024-05-01T04:30:00+0200, 20240501T043000Z
NAME = re.compile(
    r"(?:^|(?P<site>.*?)[_. -])(?P<Y>(?:19|20)\d\d)(?P<dash>-?)(?P<m>\d\d)(?P=dash)(?P<d>\d\d)[_T -]"
    r"(?P<H>\d\d)(?P<colon>[-:.]?)(?P<M>\d\d)(?P=colon)(?P<S>\d\d)(?!\d)(?P<z>Z|[+-]\d\d:?\d\d)?"
)
AUDIOMOTH = re.compile(
    rb"Recorded at (?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?:\.\d+)? "
    rb"(?P<d>\d\d)/(?P<m>\d\d)/(?P<Y>\d{4}) \(UTC(?P<z>[+-]\d+(?::\d\d)?)?\)"
)
GUANO = re.compile(rb"^Timestamp: *(\S+)", re.MULTILINE)
PARTS = {  # of a pattern
    "%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d\d)", "%d": r"(?P<d>\d\d)", "%H": r"(?P<H>\d\d)", "%M": r"(?P<M>\d\d)",
    "%S": r"(?P<S>\d\d)", "%z": r"(?P<z>Z|[+-]\d\d:?\d\d)", "{site}": r"(?P<site>[^/]+?)", "*": r"[^/]*?",
}  # fmt: skip
PREFIX, TIMESTAMP = 4, 5  # entries of a wamd chunk
MOST_BYTES = 2**16  # of a chunk that is read


@dataclass(frozen=True)
class Recorded:
    """When a recording begins, with the offset to UTC where that is known, and the site; None and "" where unknown."""

    at: datetime | None = None
    site: str = ""

    def after(self, seconds: float) -> str | None:
        """The time so many seconds later, in ISO 8601; with milliseconds where it isn't a whole second."""
        if self.at is None:
            return None
        moment = self.at + timedelta(seconds=round(seconds, 3))
        return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def when_recorded(path: str, file: str, pattern: str = "") -> Recorded:
    """Tell when and where a sound was recorded.

    Args:
        path: as people know it.
        file: what is opened, if its name has no time: WAV files of AudioMoth (a comment), with a GUANO chunk (bat
            detectors), or of Song Meter (a wamd chunk). One that can't be read has no time.
        pattern: how the end of a path reads, without its suffix: %Y, %m, %d, %H, %M, %S, %z, {site} and * for anything;
            "": NAME.

    Raises:
        AumError: the pattern is wrong.
    """
    stem = os.path.splitext(path)[0].replace(os.sep, "/")
    found = _regex(pattern).search(stem) if pattern else NAME.match(stem.rpartition("/")[2])
    if found:
        at = _moment(found.groupdict())
        if at is not None:
            return Recorded(at, (found.groupdict().get("site") or "").strip("_-. "))
    file = split_channel(file)[0]
    return _from_header(file) if not pattern and file.lower().endswith(".wav") else Recorded()


def check_pattern(pattern: str) -> None:
    """Raise an AumError if it is not as `when_recorded` takes it."""
    if pattern:
        _regex(pattern)


@cache
def _regex(pattern: str) -> "re.Pattern[str]":
    """A pattern as a regular expression for the end of a path."""
    tokens = re.split("(%.|\\{site\\}|\\*)", pattern)
    wrong = [token for token in tokens[1::2] if token not in PARTS]
    twice = {token for token in tokens[1::2] if token != "*" and tokens[1::2].count(token) > 1}
    missing = {"%Y", "%m", "%d"} - {*tokens}
    if wrong or twice or missing:
        what = f"has {', '.join(wrong)}" if wrong else f"has {', '.join(twice)} twice" if twice else "has no whole date"
        raise AumError(
            f"the pattern of recording times {pattern!r} {what}",
            fix="it is made of %Y %m %d %H %M %S %z {site} and *, such as {site}_%Y%m%d_%H%M%S",
        )
    return re.compile("(?:^|/)" + "".join(PARTS.get(token, re.escape(token)) for token in tokens) + "$")


def _moment(parts: dict[str, str | None]) -> datetime | None:
    """A time of its parts; None where there is no such."""
    numbers = [int(parts.get(name) or 0) for name in "YmdHMS"]
    try:
        return datetime(*numbers, tzinfo=_zone(parts.get("z")))  # type: ignore[arg-type, misc]
    except ValueError:
        return None


def _zone(text: str | None) -> timezone | None:
    """Z, +0200, +02:00, -3 as an offset."""
    if not text:
        return None
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "")
    hours, minutes = (digits[:-2], digits[-2:]) if len(digits) > 2 else (digits, "0")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if text[0] == "-" else offset)


def _from_header(file: str) -> Recorded:
    """What the recorder wrote into a WAV file."""
    try:
        for name, content in _chunks(file):
            if name == b"LIST" and (found := AUDIOMOTH.search(content)):
                parts = {key: (value or b"Z").decode() for key, value in found.groupdict().items()}  # only z may lack
                return Recorded(_moment({**parts}))
            if name == b"guan" and (stamp := GUANO.search(content)):
                return Recorded(datetime.fromisoformat(stamp[1].decode()))
            if name == b"wamd":
                entries = dict(_wamd(content))
                if TIMESTAMP in entries:
                    return Recorded(datetime.fromisoformat(entries[TIMESTAMP]), entries.get(PREFIX, ""))
    except (OSError, ValueError, struct.error):  # damaged: the decoder says so, or a time that is none
        pass
    return Recorded()


def _chunks(file: str) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a WAV file that may hold its time: name and content."""
    with open(file, "rb") as wav:
        if wav.read(4) not in (b"RIFF", b"RF64") or wav.read(8)[4:] != b"WAVE":
            return
        while len(head := wav.read(8)) == 8:
            name, size = head[:4], struct.unpack("<I", head[4:])[0]
            if name in (b"LIST", b"guan", b"wamd"):
                yield name, wav.read(min(size, MOST_BYTES))
                wav.seek(max(0, size - MOST_BYTES) + size % 2, os.SEEK_CUR)
            else:
                wav.seek(size + size % 2, os.SEEK_CUR)


def _wamd(content: bytes) -> Iterator[tuple[int, str]]:
    """The entries of Wildlife Acoustics' chunk: number and text."""
    place = 0
    while place + 6 <= len(content):
        number, size = struct.unpack_from("<HI", content, place)
        place += 6
        yield number, content[place : place + size].rstrip(b"\0").decode("utf-8", "replace").strip()
        place += size

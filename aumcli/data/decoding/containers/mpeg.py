"""MPEG audio, layers I to III: frames whose headers say how long they are, and often an index in the first one."""

import functools
import re
from dataclasses import dataclass

from aumcli.data.decoding.containers.errors import COPY, another_file, convert_fix, damaged, left_over, truncated
from aumcli.data.decoding.containers.joined import another_begins
from aumcli.data.decoding.containers.region import Contents, Region, Zeros
from aumcli.data.decoding.containers.tags import ID3V1_BYTES, behind_tag, behind_tags, behind_zeros, is_padding

# kbit/s by MPEG version (1, or 2 and 2.5) and layer
_KBPS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[2, 3] = _KBPS[2, 2]
_HZ = (44100, 48000, 32000)
_LENGTH_BITS = 0xFFFEFE00  # of a header: all that its frame's length depends on
_MODE_BITS, _MONO = 0xC0, 0xC0
SEARCHED_BYTES = 2**16  # for the first frame,
SEARCHED_BEHIND_BYTES = 2**20  # and for others behind the last,
CHAIN = 3  # further frames that must follow
LONGEST_FREE_FRAME = 8192
_EXACT_WRITERS = re.compile(rb"LAME|Lav[fc]")


@dataclass(frozen=True)
class _Frame:
    """What a frame's header says; length 0: of a free bit rate, so that only the next header tells."""

    length: int
    samples: int
    rate_hz: int
    kind: int  # version, layer, rate: what all frames of a stream have in common
    padding: int


_NO_FRAME = _Frame(0, 0, 1, 0, 0)


@functools.lru_cache(maxsize=4096)
def _frame(word: int) -> _Frame | None:
    """The frame of a header, of which only `_LENGTH_BITS` are given; None where it is none."""
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)  # version 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate_index, hz_index, padding = word >> 12 & 15, word >> 10 & 3, word >> 9 & 1
    if word >> 21 != 0x7FF or layer == 4 or version == 1 or rate_index == 15 or hz_index == 3:
        return None
    first = version == 3
    rate_hz = _HZ[hz_index] >> {3: 0, 2: 1, 0: 2}[version]
    samples = {1: 384, 2: 1152, 3: 1152 if first else 576}[layer]
    slot = 4 if layer == 1 else 1  # bytes
    bits_per_s = 1000 * _KBPS[1 if first else 2, layer][rate_index]
    length = (samples // 8 // slot * bits_per_s // rate_hz + padding) * slot if rate_index else 0
    return _Frame(length, samples, rate_hz, word >> 17 << 2 | hz_index, padding * slot)


@dataclass
class _Stream:
    """Frames that follow one another without a gap, all of one kind."""

    start: int
    end: int  # behind the last whole frame
    frame: _Frame  # the first one; _NO_FRAME where there is none
    count: int = 0
    shortest: int = LONGEST_FREE_FRAME
    longest: int = 0
    cut: bool = False  # whether the end of the region cuts a frame

    @property
    def seconds(self) -> float:
        return self.count * self.frame.samples / self.frame.rate_hz


def scan(region: Region, path: str, wrapped: bool = False) -> Contents | None:
    """Walk from frame to frame and compare their number with the index, where there is one.

    Args:
        region: the file, or what a WAV file wraps.
        path: for errors.
        wrapped: whether the region is a part of a file, and must hold frames.

    Returns:
        The length, and the frames without tags and junk around them, which libsndfile would trip over; None where this
        is no MPEG audio.

    Raises:
        AumError: frames are missing, damaged or more than the index says, or a last one is cut.
    """
    begin = behind_zeros(region, behind_tags(region, 0))
    start = begins(region, begin, SEARCHED_BYTES)
    if start is None:
        if wrapped:
            raise damaged(path, "there is no MPEG audio in it, though its header says so", convert_fix(path))
        return None
    stream = _walk(region, start)
    length = _walk(region, stream.start, 1).longest
    index = _index(region, stream, length)
    agrees = index is not None and index.frames == stream.count - 1
    _check_rest(region, path, stream, agrees)
    if index is not None and index.frames is not None and not agrees:
        _compare(path, stream, index.frames, index.is_exact)
    if stream.start - begin >= length and not agrees:  # there is room for a frame that was lost
        raise damaged(path, f"{stream.start - begin:,} bytes at its beginning are not sound", convert_fix(path))
    if index is not None and agrees and index.is_read:
        # libsndfile passes over one tag in front by itself, and one of ID3's first version behind
        plain = (
            not wrapped
            and stream.start in (0, behind_tag(region, 0) if region.read(0, 3) == b"ID3" else 0)
            and region.size - stream.end in (0, ID3V1_BYTES)
        )
        return Contents(None, () if plain else (region.span(stream.start, stream.end),))
    first = stream.start + (index.length if index is not None else 0)
    count = stream.count - (index is not None)
    # without an index libsndfile guesses the length from that of the file, and reads no more: the guess must not be too
    # low; and it looks for one frame more than it decodes
    another = region.span(first, first + (_walk(region, first, 1).longest if index is not None else length))
    padding = Zeros(max(0, (count + 2) * stream.longest - (stream.end - first)))
    return Contents(count * stream.frame.samples, (region.span(first, stream.end), another, padding))


def begins(region: Region, begin: int, within: int = SEARCHED_BEHIND_BYTES) -> int | None:
    """The first place from `begin` on, at most `within` bytes behind it, where frames start; None where there is none.

    A few frames with nothing behind them are believed only if they start at `begin`: bytes can look like one by chance.
    """
    head = region.read(begin, within + 4)
    at = head.find(b"\xff")
    while 0 <= at <= min(within, len(head) - 4):
        if _frame(int.from_bytes(head[at : at + 4]) & _LENGTH_BITS) is not None:
            stream = _walk(region, begin + at, CHAIN + 1)
            if stream.count > CHAIN or not at and stream.count and is_padding(region, stream.end):
                return begin + at
        at = head.find(b"\xff", at + 1)
    return None


def _walk(region: Region, start: int, most: int | None = None) -> _Stream:
    """Follow the frames from `start` on, at most `most`."""
    word = int.from_bytes(region.read(start, 4))
    first, mono, free = _frame(word & _LENGTH_BITS) or _NO_FRAME, word & _MODE_BITS == _MONO, 0
    stream = _Stream(start, start, first)
    while most is None or stream.count < most:
        head = region.read(stream.end, 4)
        word = int.from_bytes(head)
        frame = _frame(word & _LENGTH_BITS) if len(head) == 4 else None
        if frame is None or frame.kind != first.kind or (word & _MODE_BITS == _MONO) != mono:
            break
        if not frame.length and not free:
            free = _free_length(region, stream.end, frame)
            if not free:
                break
        length = frame.length or free + frame.padding
        if stream.end + length > region.size:
            stream.cut = True
            break
        stream.end, stream.count = stream.end + length, stream.count + 1
        stream.shortest, stream.longest = min(stream.shortest, length), max(stream.longest, length)
    return stream


def _free_length(region: Region, start: int, first: _Frame) -> int:
    """The length of frames of a free bit rate without padding: up to the next header of the same kind; 0 for none."""
    head = region.read(start, LONGEST_FREE_FRAME + 4)
    at = head.find(b"\xff", 4)
    while 0 <= at <= len(head) - 4:
        frame = _frame(int.from_bytes(head[at : at + 4]) & _LENGTH_BITS)
        if frame is not None and frame.kind == first.kind and not frame.length:
            return at - first.padding
        at = head.find(b"\xff", at + 1)
    return 0


@dataclass(frozen=True)
class _Index:
    """What the first frame says of the others instead of holding sound: Xing's and LAME's, or Fraunhofer's VBRI."""

    frames: int | None  # how many others there are
    length: int  # of the frame in bytes
    is_exact: bool  # whether its writer counts as all should
    is_read: bool  # whether libsndfile understands it


def _index(region: Region, stream: _Stream, length: int) -> _Index | None:
    head = region.read(stream.start, length)
    for mark in (b"Xing", b"Info"):
        at = head.find(mark, 4, 64)  # behind the side information, of 9 to 32 bytes
        if at > 0:
            frames = int.from_bytes(head[at + 8 : at + 12]) if head[at + 7] & 1 and len(head) >= at + 12 else 0
            is_exact = _EXACT_WRITERS.search(head, at) is not None
            return _Index(frames or None, length, is_exact, is_read=frames > 0)  # 0: the writer never came back
    if head[36:40] == b"VBRI" and len(head) >= 54:
        return _Index(int.from_bytes(head[50:54]), length, is_exact=False, is_read=False)
    return None


def _compare(path: str, stream: _Stream, promised_frames: int, is_exact: bool) -> None:
    """Raise what is wrong where the index names another number of frames than there are."""
    frames = stream.count - 1
    if abs(promised_frames - frames) <= 1 and not is_exact:
        return  # some old encoders counted the index too
    promised, there = (count * stream.frame.samples / stream.frame.rate_hz for count in (promised_frames, frames))
    if frames < promised_frames:
        raise truncated(path, f"its header promises {promised:.3f} s of sound, {there:.3f} s are there")
    why = f"its header says {promised:.3f} s, {there:.3f} s are there (two files joined?)"
    raise left_over(path, why, convert_fix(path))


def _check_rest(region: Region, path: str, stream: _Stream, agrees: bool) -> None:
    """What stands behind the last frame must not be sound."""
    where = f"{stream.seconds:.3f} s"
    if stream.cut:
        fix = f"{COPY}; if it is meant to end there, {convert_fix(path)}"
        raise truncated(path, f"its last frame, after {where}, is cut", fix)
    if is_padding(region, stream.end):
        return
    if begins(region, behind_zeros(region, behind_tags(region, stream.end))) is not None:
        why = f"after {where} its frames break off, and others follow (joined, or damaged there)"
        raise left_over(path, why, convert_fix(path))
    if another_begins(region, stream.end):
        raise another_file(path, where)
    rest = region.size - stream.end
    if rest >= stream.shortest and not agrees:
        raise damaged(path, f"after {where} follow {rest:,} bytes that are not sound", convert_fix(path))

"""FLAC: a header with the number of samples, then frames, which are numbered."""

import re
from dataclasses import dataclass

from aumcli.data.decoding.containers import mpeg
from aumcli.data.decoding.containers.errors import another_file, convert_fix, damaged, left_over, truncated
from aumcli.data.decoding.containers.joined import another_begins
from aumcli.data.decoding.containers.region import Contents, Region

MOST_BLOCKS = 10_000
LONGEST_HEADER, LONGEST_FRAME = 16, 2**18  # of a frame, in bytes
HEAD_BYTES = 4 + 4 + 34  # the magic word and the block STREAMINFO
_TOTAL_AT = 4 + 4 + 13  # the byte that holds the highest 4 of 36 bits of the number of samples
_SYNC = re.compile(rb"\xff[\xf8\xf9]")


def _crc_table(bits: int, polynomial: int) -> tuple[int, ...]:
    """What each value of the highest byte does to a checksum of `bits` bits."""
    table = []
    for crc in range(0, 1 << bits, 1 << bits - 8):
        for _ in range(8):
            crc = (crc << 1 ^ (polynomial if crc >> bits - 1 else 0)) & (1 << bits) - 1
        table.append(crc)
    return tuple(table)


_CRC8, _CRC16 = _crc_table(8, 0x07), _crc_table(16, 0x8005)


@dataclass(frozen=True)
class _Frame:
    """A frame's header: its number or first sample, and how many samples it holds."""

    number: int
    samples: int


def scan(region: Region, path: str) -> Contents:
    """Follow the frames by their numbers, and compare their samples with the header.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
    """
    start = _first_frame(region, path)
    rate_hz = int.from_bytes(region.read(_TOTAL_AT - 3, 3)) >> 4
    promised = total_of(region.read(0, HEAD_BYTES))
    samples, last = _follow(region, path, start, rate_hz)
    there_s, promised_s = samples / max(1, rate_hz), promised / max(1, rate_hz)
    if another_begins(region, last) or mpeg.begins(region, last) is not None:
        raise another_file(path, f"{there_s:.3f} s")
    if promised and samples < promised:
        raise truncated(path, f"its header promises {promised_s:.3f} s, frames follow one another for {there_s:.3f} s")
    if promised and samples > promised:
        raise left_over(path, f"its header says {promised_s:.3f} s, {there_s:.3f} s are there", convert_fix(path))
    if promised or not samples:
        return Contents()
    return Contents(samples, (with_total(region.read(0, HEAD_BYTES), samples), region.span(HEAD_BYTES, region.size)))


def with_total(head: bytes, samples: int) -> bytes:
    """A stream's first HEAD_BYTES bytes with the number of samples, without which libsndfile stumbles at the end."""
    total = (head[_TOTAL_AT] & 0xF0 | samples >> 32).to_bytes() + (samples & 2**32 - 1).to_bytes(4)
    return head[:_TOTAL_AT] + total + head[_TOTAL_AT + len(total) :]


def total_of(head: bytes) -> int:
    """The number of samples that the first HEAD_BYTES bytes promise; 0 where it was not known."""
    return int.from_bytes(head[_TOTAL_AT : _TOTAL_AT + 5]) & 2**36 - 1


def _first_frame(region: Region, path: str) -> int:
    """Where the first frame starts, behind the blocks of metadata."""
    at = 4
    for _ in range(MOST_BLOCKS):
        head = region.read(at, 4)
        if len(head) < 4:
            break
        at += 4 + int.from_bytes(head[1:])
        if head[0] & 0x80:  # the last block
            return at
    raise truncated(path, "it ends before the sound begins")


def _follow(region: Region, path: str, start: int, rate_hz: int) -> tuple[int, int]:
    """Samples of the frames that follow one another from `start` on, and where the last of them starts."""
    head = region.read(start, LONGEST_HEADER)
    if not _SYNC.match(head):
        return 0, start
    sync, variable = re.compile(re.escape(head[:2])), head[1] & 1
    samples, count, last, stray = 0, 0, start, start
    for place, block in region.blocks(start, overlap=LONGEST_HEADER):
        for match in sync.finditer(block):
            at, frame = place + match.start(), _header(block[match.start() : match.start() + LONGEST_HEADER])
            if frame is None or samples and at <= stray:  # the end of the block before, again
                continue
            if frame.number == (samples if variable else count):
                samples, count, last, stray = samples + frame.samples, count + 1, at, at
            # within a frame a header may occur by chance, but not where a frame ends
            elif _is_frame(region, last, at) or _is_frame(region, stray, at):
                where = f"{samples / max(1, rate_hz):.3f} s"
                raise damaged(path, f"frames are missing, doubled or changed after {where}", convert_fix(path))
            else:
                stray = at
    return samples, last


def _is_frame(region: Region, start: int, stop: int) -> bool:
    """Whether just one frame stands there: its checksum is right."""
    if not 0 < stop - start <= LONGEST_FRAME:
        return False
    crc = 0
    for byte in region.read(start, stop - start):
        crc = (crc << 8 & 0xFFFF) ^ _CRC16[crc >> 8 ^ byte]
    return crc == 0


def _header(head: bytes) -> _Frame | None:
    """What a frame's header says; None where it is none, or its sum is wrong."""
    if len(head) < 6 or head[2] >> 4 == 0 or head[2] & 15 == 15 or head[3] >> 4 > 10 or head[3] & 1:
        return None
    ones = 8 - (head[4] ^ 0xFF).bit_length()  # the number is written as UTF-8 writes letters
    if ones in (1, 8):
        return None
    at = 4 + max(1, ones)
    number = head[4] & 0x7F >> ones
    for byte in head[5:at]:
        number = number << 6 | byte & 0x3F
    code, rate_code = head[2] >> 4, head[2] & 15
    size_bytes, rate_bytes = {6: 1, 7: 2}.get(code, 0), {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if code in (6, 7):
        samples = 1 + int.from_bytes(head[at : at + size_bytes])
    else:
        samples = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
    at += size_bytes + rate_bytes
    crc = 0
    for byte in head[:at]:
        crc = _CRC8[crc ^ byte]
    return _Frame(number, samples) if at < len(head) and crc == head[at] else None

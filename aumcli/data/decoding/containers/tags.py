"""Tags that programs put before and behind a sound whatever its container: ID3, APE, Lyrics3."""

import re
import struct

from aumcli.data.decoding.containers.region import BLOCK_BYTES, Region

ID3V1_BYTES, ID3V1_MORE_BYTES, APE_BYTES = 128, 227, 32
MOST_LYRICS = 2**20
_ZEROS, _NOT_ZERO = bytes(BLOCK_BYTES), re.compile(rb"[^\0]")


def behind_tags(region: Region, at: int) -> int:
    """The place behind all tags that follow one another from `at` on."""
    while (end := behind_tag(region, at)) is not None:
        at = end
    return at


def behind_tag(region: Region, at: int) -> int | None:
    """The place behind the tag that stands at `at`; None where there is none."""
    head = region.read(at, APE_BYTES)
    end = None
    if head[:3] == b"ID3" and len(head) >= 10 and head[3] < 0xFF and not any(byte & 0x80 for byte in head[6:10]):
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))  # 7 bits a byte
        end = at + 10 + size + (10 if head[5] & 0x10 else 0)  # bit 4: a footer
    elif head[:8] == b"APETAGEX" and len(head) == APE_BYTES:
        _, size, _, flags = struct.unpack("<4I", head[8:24])
        end = at + (size + APE_BYTES if flags & 1 << 29 else APE_BYTES)  # bit 29: header, not footer
    elif head[:11] == b"LYRICSBEGIN":
        text = region.read(at, MOST_LYRICS)
        ends = [place + 9 for mark in (b"LYRICS200", b"LYRICSEND") if (place := text.find(mark)) > 0]
        end = at + min(ends) if ends else None
    elif head[:3] == b"TAG" and region.size - at in (ID3V1_BYTES, ID3V1_BYTES + ID3V1_MORE_BYTES):
        end = region.size
    return end if end is not None and end <= region.size else None


def is_padding(region: Region, at: int) -> bool:
    """Whether only tags and zeros stand from `at` on: nothing that could be sound."""
    while at < region.size and not _headless_ape(region, at):
        end = behind_zeros(region, behind_tags(region, at))
        if end == at:
            return False
        at = end
    return True


def behind_zeros(region: Region, at: int) -> int:
    """The place of the first byte from `at` on that is not zero, or the end."""
    for place, block in region.blocks(at):
        if block != _ZEROS[: len(block)] and (first := _NOT_ZERO.search(block)):
            return place + first.start()
    return max(at, region.size)


def _headless_ape(region: Region, at: int) -> bool:
    """Whether an APE tag that has its size in a footer only fills the rest, or all of it but an ID3v1 tag."""
    for end in (region.size, region.size - ID3V1_BYTES):
        foot = region.read(end - APE_BYTES, APE_BYTES) if end - APE_BYTES >= at else b""
        if foot[:8] == b"APETAGEX" and end - struct.unpack("<I", foot[12:16])[0] == at:
            return end == region.size or region.read(end, 3) == b"TAG"
    return False

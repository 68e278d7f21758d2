"""Ogg: pages with a checksum, a number and a position in the sound each; Vorbis, Opus or FLAC in them."""

import struct
import zlib
from dataclasses import dataclass, field

from aumcli.data.containers import flac
from aumcli.data.containers.errors import convert_fix, damaged, left_over, truncated
from aumcli.data.containers.region import Contents, Region
from aumcli.data.containers.tags import is_padding

HEAD_BYTES = 27
CONTINUED, FIRST, LAST = 1, 2, 4        # flags of a page
NO_POSITION = -1                        # of a page on which no packet ends
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex", b"\x80theora": "", b"fishead\0": ""}
FLAC_HEAD_BYTES = 9                     # before FLAC's own beginning
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    """A logical stream, page after page."""

    codec: str
    first: int                          # number of the first page
    number: int                         # and of the last so far
    position: int | None = None         # behind the last packet that has ended, in samples (Opus: at 48 kHz)
    ended: bool = False                 # its last page was marked so
    runs: list[range] = field(default_factory=list)     # where its pages stand


def scan(region: Region, path: str) -> Contents:
    """Check every page's sum and number, and that the file holds one sound.

    Args, returns and raises as `aumcli.data.containers.wave.scan`.
    """
    streams: dict[int, _Stream] = {}
    bodies: list[range] = []            # of FLAC's pages
    at = 0
    while at < region.size:
        head = region.read(at, HEAD_BYTES + 255)
        if head[:4] != b"OggS":
            if all(stream.ended for stream in streams.values()) and is_padding(region, at):
                break
            raise _lost(path, region, at, streams)
        lacing = head[HEAD_BYTES : HEAD_BYTES + head[26]] if len(head) >= HEAD_BYTES else b""
        body = at + HEAD_BYTES + len(lacing)
        end = body + sum(lacing)
        if len(head) < HEAD_BYTES or len(lacing) < head[26] or end > region.size:
            raise truncated(path, "its last page is cut")
        _, flags, position, serial, number, _, _ = struct.unpack("<BBqIIIB", head[4:HEAD_BYTES])
        page = region.read(at, end - at)
        if not _sum_is_right(page):
            raise _lost(path, region, at, streams)
        if flags & FIRST:
            if any(stream.number != stream.first for stream in streams.values()):
                raise left_over(path, f"a second stream follows the first after {_where(streams)}", convert_fix(path))
            streams[serial] = _Stream(_codec(page[body - at :]), number, number)
        elif serial not in streams or number != streams[serial].number + 1 & 0xFFFFFFFF or streams[serial].ended:
            raise damaged(path, f"pages are missing after {_where(streams)}", convert_fix(path))
        stream = streams[serial]
        if position != NO_POSITION:
            if stream.position and position < stream.position:
                raise damaged(path, f"its positions go back after {_where(streams)}", convert_fix(path))
            stream.position = position
        stream.number, stream.ended = number, bool(flags & LAST)
        span = region.span(at, end)
        if stream.runs and stream.runs[-1].stop == span.start:
            span = range(stream.runs.pop().start, span.stop)
        stream.runs.append(span)
        if stream.codec == "FLAC":
            bodies.append(region.span(body + (FLAC_HEAD_BYTES if flags & FIRST else 0), end))
        at = end
    return _contents(region, path, streams, bodies)


def _contents(region: Region, path: str, streams: dict[int, _Stream], bodies: list[range]) -> Contents:
    sounds = [stream for stream in streams.values() if stream.codec]
    if len(sounds) > 1:
        raise left_over(path, f"there are {len(sounds)} streams side by side", convert_fix(path))
    if not sounds:
        return Contents()               # libsndfile says what it thinks of it
    sound = sounds[0]
    if not sound.ended:
        raise truncated(path, "its last page is not marked as the last", "copy or download it again; if it is meant to end there, " + convert_fix(path))
    if sound.codec == "FLAC":           # libsndfile reads it only without the pages around it
        return _flac(region, path, bodies, sound.position or 0)
    return Contents(None, tuple(sound.runs) if len(streams) > 1 else ())


def _flac(region: Region, path: str, bodies: list[range], samples: int) -> Contents:
    """The FLAC stream in Ogg's pages; its own number of samples, where it has one, must be theirs."""
    head = region.read(bodies[0].start - region.span(0, 0).start, len(bodies[0]))
    promised = flac.total_of(head)
    if len(head) != flac.HEAD_BYTES:
        raise damaged(path, "its first page is no FLAC header", convert_fix(path))
    if promised > samples:
        raise truncated(path, f"its header promises {promised:,} samples, {samples:,} are there")
    if promised and promised < samples:
        raise left_over(path, f"its header says {promised:,} samples, {samples:,} are there", convert_fix(path))
    return Contents(samples, (flac.with_total(head, samples), *bodies[1:]))


def _codec(packet: bytes) -> str:
    """Which sound a stream's first packet announces; "" for none, such as pictures."""
    return next((name for mark, name in CODECS.items() if packet.startswith(mark)), "")


def _sum_is_right(page: bytes) -> bool:
    """Whether a page has the checksum that stands in it: a CRC-32 whose bits go the other way than zlib's."""
    mirrored = page.translate(_REVERSED)
    crc = zlib.crc32(mirrored[26:], zlib.crc32(b"\0\0\0\0", zlib.crc32(mirrored[:22], 0xFFFFFFFF))) ^ 0xFFFFFFFF
    return crc == int.from_bytes(mirrored[22:26])


def _where(streams: dict[int, _Stream]) -> str:
    """How far the sound has come, for people."""
    sound = next((stream for stream in streams.values() if stream.codec), None)
    return f"{sound.position:,} samples" if sound is not None and sound.position is not None else "its beginning"


def _lost(path: str, region: Region, at: int, streams: dict[int, _Stream]) -> Exception:
    """The error that no good page stands at `at`: at the end of the file, or with others behind it."""
    others = any(b"OggS" in block for _, block in region.blocks(at + 1, overlap=3))
    if not others:
        return truncated(path, f"no whole page follows {_where(streams)}")
    return damaged(path, f"the bytes after {_where(streams)} are changed or missing", convert_fix(path))

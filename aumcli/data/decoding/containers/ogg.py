"""Ogg: pages with a checksum, a number and a position in the sound each; Vorbis, Opus or FLAC in them."""

import struct
import zlib
from dataclasses import dataclass, field

from aumcli.data.decoding.containers import flac
from aumcli.data.decoding.containers.errors import COPY, another_file, convert_fix, damaged, left_over, truncated
from aumcli.data.decoding.containers.joined import another_begins
from aumcli.data.decoding.containers.region import Contents, Part, Region
from aumcli.data.decoding.containers.tags import is_padding

HEAD = struct.Struct("<4sBBqII4sB")  # mark, version, flags, position, stream, number, checksum, count of lengths
MOST_LENGTHS = 255
FIRST, LAST = 2, 4  # flags of a page
NO_POSITION = -1  # of a page on which no packet ends
CODECS = {b"\x01vorbis": "Vorbis", b"OpusHead": "Opus", b"\x7fFLAC": "FLAC", b"Speex   ": "Speex"}
FLAC_MARK_BYTES = 9  # before FLAC's own beginning
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_OPUS_MS = (
    ((10, 20, 40, 60),) * 3 + ((10, 20, 10, 20),) + ((2.5, 5, 10, 20),) * 4
)  # of a frame, by coding mode and size


@dataclass(frozen=True)
class _Page:
    """A page: where it stands, what its head says, and its bytes."""

    start: int
    flags: int
    position: int
    serial: int
    number: int
    body: int  # where its packets begin, behind the head
    lengths: bytes  # of their parts; below 255: a packet ends
    content: bytes

    @property
    def end(self) -> int:
        return self.start + len(self.content)

    @property
    def is_intact(self) -> bool:
        """Whether the checksum in it is right."""
        return self.content[22:26] == _checksum(self.content)

    def with_head(self, flags: int, position: int) -> bytes:
        """The same page with other flags and another position."""
        content = self.content[:5] + struct.pack("<Bq", flags, position) + self.content[14:]
        return content[:22] + _checksum(content) + content[26:]


@dataclass
class _Stream:
    """A logical stream, page after page."""

    codec: str  # "" for no sound
    first: int  # number of the first page
    page: _Page  # the last so far
    position: int | None = None  # behind the last packet that has ended, in samples (Opus: at 48 kHz)
    opus: int = 0  # samples at 48 kHz of a packet that continues on the next page
    spans: list[tuple[int, int]] = field(default_factory=list)  # where its pages stand


def scan(region: Region, path: str) -> Contents:
    """Check every page's sum and number, and that the file holds one sound.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
    """
    streams: dict[int, _Stream] = {}
    bodies: list[range] = []  # of FLAC's pages
    patches: dict[int, bytes] = {}
    at = 0
    while at < region.size:
        page = _page_at(region, path, at)
        if page is None:
            if streams and all(stream.page.flags & LAST for stream in streams.values()) and is_padding(region, at):
                break
            if another_begins(region, at):
                raise another_file(path, _where(streams))
            raise _lost(path, region, at, streams)
        if page.flags & FIRST:
            if any(stream.page.number != stream.first for stream in streams.values()):
                raise left_over(path, f"a second stream follows the first after {_where(streams)}", convert_fix(path))
            streams[page.serial] = _Stream(_codec(page.content[page.body :]), page.number, page)
        elif page.serial not in streams or page.number != streams[page.serial].page.number + 1:
            raise damaged(path, f"pages are missing after {_where(streams)}", convert_fix(path))
        stream = streams[page.serial]
        before = stream.page
        if before is not page and before.flags & LAST:  # some encoders mark several pages so
            patches[before.start] = before.with_head(before.flags & ~LAST, before.position)
        _advance(path, streams, stream, page, patches)
        if stream.codec == "FLAC":
            bodies.append(region.span(at + page.body + (FLAC_MARK_BYTES if page.flags & FIRST else 0), page.end))
        at = page.end
    return _contents(region, path, streams, bodies, patches)


def _page_at(region: Region, path: str, at: int) -> _Page | None:
    """The page at `at`; None where there is none, or it is damaged."""
    head = region.read(at, HEAD.size + MOST_LENGTHS)
    if head[:4] != b"OggS":
        return None
    if len(head) >= HEAD.size:
        _, _, flags, position, serial, number, _, count = HEAD.unpack(head[: HEAD.size])
        lengths = head[HEAD.size : HEAD.size + count]
        content = region.read(at, HEAD.size + count + sum(lengths))
        if len(content) == HEAD.size + count + sum(lengths) and len(lengths) == count:
            page = _Page(at, flags, position, serial, number, HEAD.size + count, lengths, content)
            return page if page.is_intact else None
    return None


def _advance(path: str, streams: dict[int, _Stream], stream: _Stream, page: _Page, patches: dict[int, bytes]) -> None:
    """Take a page into its stream."""
    samples = 0
    if stream.codec == "Opus":
        ended, stream.opus = _opus_samples(page, stream.opus)
        samples = sum(ended)
        lacking = page.position - (stream.position or page.position) - samples
        # old opusenc promised a few samples more than it wrote
        if page.flags & LAST and ended and 0 < lacking < max(ended):
            patches[page.start] = page.with_head(page.flags, page.position - lacking)
    if page.position != NO_POSITION:
        stays = page.position == stream.position and not page.flags & LAST  # the last one may be cut to nothing
        if stream.position and (page.position < stream.position or stays):
            raise damaged(path, f"its positions don't continue after {_where(streams)}", convert_fix(path))
        stream.position = page.position
    stream.page = page
    start = stream.spans.pop()[0] if stream.spans and stream.spans[-1][1] == page.start else page.start
    stream.spans.append((start, page.end))


def _opus_samples(page: _Page, begun: int) -> tuple[list[int], int]:
    """Samples at 48 kHz of the packets that end on a page, and of one that continues; of `begun`, before it."""
    ended, at, starts = [], page.body, not begun
    for length in page.lengths:
        if starts and length:
            begun = _opus_packet(page.content[at : at + 2])
        at, starts = at + length, length < 255
        if starts:
            ended.append(begun)
            begun = 0
    return ended, begun


def _opus_packet(head: bytes) -> int:
    """Samples at 48 kHz of a packet that begins with these two bytes."""
    mode = head[0] >> 3
    frames = (1, 2, 2, head[1] & 63 if len(head) > 1 else 0)[head[0] & 3]
    return int(48 * _OPUS_MS[mode >> 2][mode & 3]) * frames


def _contents(
    region: Region, path: str, streams: dict[int, _Stream], bodies: list[range], patches: dict[int, bytes]
) -> Contents:
    sounds = [stream for stream in streams.values() if stream.codec]
    if len(sounds) > 1:
        raise left_over(path, f"there are {len(sounds)} streams side by side", convert_fix(path))
    if not sounds:
        return Contents()  # libsndfile says what it thinks of it
    sound = sounds[0]
    if not sound.page.flags & LAST:
        fix = f"{COPY}; if it is meant to end there, {convert_fix(path)}"
        raise truncated(path, "its last page is not marked as the last", fix)
    if sound.codec == "FLAC":  # libsndfile reads it only without the pages around it
        return _flac(region, path, bodies, sound.position or 0)
    if len(streams) == 1 and not patches:
        return Contents()
    parts: list[Part] = []
    for start, stop in sound.spans:
        own = {place - start: patch for place, patch in patches.items() if start <= place < stop}
        parts += region.part(start, stop).patched(own)
    return Contents(None, tuple(parts))


def _flac(region: Region, path: str, bodies: list[range], samples: int) -> Contents:
    """The FLAC stream in Ogg's pages; its own number of samples, where it has one, must be theirs."""
    head = region.read(bodies[0].start - region.span(0, 0).start, len(bodies[0]))
    if len(head) != flac.HEAD_BYTES:
        raise damaged(path, "its first page is not a FLAC header", convert_fix(path))
    promised = flac.total_of(head)
    if promised > samples:
        raise truncated(path, f"its header promises {promised:,} samples, {samples:,} are there")
    if promised and promised < samples:
        raise left_over(path, f"its header says {promised:,} samples, {samples:,} are there", convert_fix(path))
    return Contents(samples, (flac.with_total(head, samples), *bodies[1:]))


def _codec(packet: bytes) -> str:
    """Which sound a stream's first packet announces; "" for none, such as pictures."""
    return next((name for mark, name in CODECS.items() if packet.startswith(mark)), "")


def _checksum(page: bytes) -> bytes:
    """A page's checksum as it stands in it: a CRC-32 whose bits go the other way than zlib's."""
    mirrored = page.translate(_REVERSED)
    crc = zlib.crc32(mirrored[26:], zlib.crc32(b"\0\0\0\0", zlib.crc32(mirrored[:22], 0xFFFFFFFF))) ^ 0xFFFFFFFF
    return crc.to_bytes(4).translate(_REVERSED)


def _where(streams: dict[int, _Stream]) -> str:
    """The position in the sound, in words."""
    sound = next((stream for stream in streams.values() if stream.codec), None)
    return f"{sound.position:,} samples" if sound is not None and sound.position is not None else "its beginning"


def _lost(path: str, region: Region, at: int, streams: dict[int, _Stream]) -> Exception:
    """The error that no good page stands at `at`: at the end of the file, or with others behind it."""
    if any(b"OggS" in block for _, block in region.blocks(at + 1, overlap=3)):
        return damaged(path, f"the bytes after {_where(streams)} are changed or missing", convert_fix(path))
    return truncated(path, f"no complete page follows {_where(streams)}")

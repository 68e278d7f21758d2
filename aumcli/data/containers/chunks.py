"""Files made of chunks, each with a name and a size: WAV, RF64, W64, AIFF, CAF."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from aumcli.data.containers.errors import damaged, truncated
from aumcli.data.containers.region import Region
from aumcli.data.containers.tags import is_padding

MOST_CHUNKS = 10_000
# All ones, or half of that: ffmpeg, sox, arecord, espeak; sox in AIFF; 2e9. The headers' bytes may be added or taken off
PLACEHOLDERS, MOST_HEAD_BYTES = (2**32 - 1, 2**31 - 1, 0x7F000000, 2_000_000_000, 2**63 - 1, 2**64 - 1), 4096
_NAME = re.compile(rb"[ -~]{4}")
_SOUND = {b"data", b"SSND", b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff", b"wavl"}
_METADATA = {b"LIST", b"list", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"fact", b"PEAK", b"JUNK", b"junk", b"iXML", b"axml", b"free",
             b"info", b"uuid", b"guan", b"MARK", b"COMT", b"NAME", b"ANNO", b"AUTH", b"APPL", b"(c) "}


@dataclass(frozen=True)
class Layout:
    """How chunks follow one another."""

    first: int                          # where the first one starts
    head: Struct                        # its name and its size
    align: int                          # chunks start at multiples of this
    head_counts: bool = False           # whether the size is that of the head too

    @property
    def size_bytes(self) -> int:
        return self.head.size - self.name_bytes

    @property
    def name_bytes(self) -> int:
        return int(self.head.format[1:].partition("s")[0])

    def pack_size(self, size: int) -> bytes:
        """A size as it stands in a head."""
        return self.head.pack(b"", size + self.head.size * self.head_counts)[self.name_bytes :]


RIFF, RIFX, FORM = Layout(12, Struct("<4sI"), 2), Layout(12, Struct(">4sI"), 2), Layout(12, Struct(">4sI"), 2)
W64, CAF = Layout(40, Struct("<16sQ"), 8, head_counts=True), Layout(8, Struct(">4sq"), 1)


@dataclass(frozen=True)
class Chunk:
    """A chunk: the first four letters of its name, where its size, its body and the next one start, its body's length."""

    name: bytes
    size_at: int
    start: int
    size: int
    behind: int


def chunk_at(region: Region, layout: Layout, at: int) -> Chunk | None:
    """The chunk whose head stands at `at`; None where that is no head."""
    head = region.read(at, layout.head.size)
    if len(head) < layout.head.size or not _NAME.match(head):
        return None
    name, size = layout.head.unpack(head)
    size -= layout.head.size * layout.head_counts
    start = at + layout.head.size
    return Chunk(name[:4], at + layout.name_bytes, start, size, start + max(0, size + -size % layout.align))


def chunks(path: str, region: Region, layout: Layout) -> Iterator[Chunk]:
    """Give the chunks of a file one after the other; the last one may promise more than is there."""
    at = layout.first
    for _ in range(MOST_CHUNKS):
        chunk = chunk_at(region, layout, at)
        if chunk is None:
            return
        yield chunk
        at = chunk.behind
    raise damaged(path, f"it has more than {MOST_CHUNKS:,} chunks")


def no_sound(path: str) -> Exception:
    """The error that the chunks end before there was one with sound."""
    return truncated(path, "it ends, or its chunks can't be followed, before the sound begins")


def is_placeholder(size: int) -> bool:
    """Whether a size is one of those that stand in a header whose writer, into a pipe, could not go back to fill it in."""
    return any(abs(size - mark) <= MOST_HEAD_BYTES for mark in PLACEHOLDERS)


def is_metadata(region: Region, layout: Layout, at: int) -> bool:
    """Whether from `at` on only whole chunks without sound, tags and zeros follow."""
    for _ in range(MOST_CHUNKS):
        chunk = chunk_at(region, layout, at)
        if chunk is None or chunk.name in _SOUND or chunk.size < 0:
            break
        end = chunk.start + chunk.size
        if end > region.size:
            return chunk.name in _METADATA      # cut, but no sound is lost
        # some writers forget the padding
        at = end if chunk_at(region, layout, chunk.behind) is None and chunk_at(region, layout, end) else chunk.behind
    return at >= region.size or is_padding(region, at)


def ends_with_chunks(region: Region, layout: Layout, at: int) -> bool:
    """Whether at least one chunk stands at `at`, or nothing, so that a size of 0 before it means an empty sound."""
    return at >= region.size or chunk_at(region, layout, at) is not None and is_metadata(region, layout, at)

"""Files made of chunks, each with a name and a size: WAV, RF64, W64, AIFF, CAF."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from aumcli.data.decoding.containers.errors import damaged, truncated
from aumcli.data.decoding.containers.extent import Extent, compare
from aumcli.data.decoding.containers.region import Region
from aumcli.data.decoding.containers.tags import is_padding

MOST_CHUNKS = 10_000
_NAME = re.compile(rb"[ -~]{4}")
_SOUND = re.compile(rb"data|SSND|RIFF|RIFX|RF64|BW64|FORM|riff|caff|wavl")
_METADATA = re.compile(
    rb"LIST|list|id3 |ID3 |bext|cue |smpl|fact|PEAK|JUNK|junk|iXML|axml|free|info|uuid|guan|MARK|COMT|NAME|ANNO|AUTH"
)


@dataclass(frozen=True)
class Layout:
    """How chunks follow one another."""

    first: int  # where the first one starts
    head: Struct  # its name and its size
    align: int  # chunks start at multiples of this
    head_counts: bool = False  # whether the size is that of the head too

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
    """A chunk."""

    name: bytes  # the first four letters
    size_at: int  # where its size stands,
    start: int  # and its body
    size: int  # of the body in bytes


def chunk_at(region: Region, layout: Layout, at: int) -> Chunk | None:
    """The chunk whose head stands at `at`; None where that is no head."""
    head = region.read(at, layout.head.size)
    if len(head) < layout.head.size or not _NAME.match(head):
        return None
    name, size = layout.head.unpack(head)
    size -= layout.head.size * layout.head_counts
    return Chunk(name[:4], at + layout.name_bytes, at + layout.head.size, size)


def chunks(path: str, region: Region, layout: Layout) -> Iterator[Chunk]:
    """Give the chunks of a file one after the other; the last one may promise more than is there."""
    chunk = chunk_at(region, layout, layout.first)
    for _ in range(MOST_CHUNKS):
        if chunk is None:
            return
        yield chunk
        chunk = next_chunk(region, layout, chunk.start + max(0, chunk.size), chunk.size)
    raise damaged(path, f"it has more than {MOST_CHUNKS:,} chunks")


def no_sound(path: str) -> Exception:
    """The error that the chunks end before there was one with sound."""
    return truncated(path, "it ends, or its chunks can't be followed, before the sound begins")


def next_chunk(region: Region, layout: Layout, end: int, size: int) -> Chunk | None:
    """The chunk behind one of `size` bytes that ends at `end`; some writers forget the padding between them."""
    return chunk_at(region, layout, end + -size % layout.align) or chunk_at(region, layout, end)


def is_metadata(region: Region, layout: Layout, end: int, size: int) -> bool:
    """Whether only whole chunks without sound, tags and zeros stand behind a chunk of `size` bytes, from `end` on."""
    for _ in range(MOST_CHUNKS):
        padded, chunk = end + -size % layout.align, next_chunk(region, layout, end, size)
        if chunk is None or _SOUND.match(chunk.name) or chunk.size < 0:
            places = {place for place in (padded, end) if place < region.size}
            return end >= region.size or any(is_padding(region, place) for place in places)
        size, end = chunk.size, chunk.start + chunk.size
        if end > region.size:  # cut, but no sound is lost; or no chunk at all
            return bool(_METADATA.match(chunk.name)) or is_padding(region, padded)
    return False


def extent(region: Region, layout: Layout, start: int, size: int, frame_bytes: int) -> Extent:
    """Compare the size of a chunk with sound, whose body is at `start`, with what is there."""
    if size <= 0:  # a sound without samples, or one whose writer never came back
        has_chunks = chunk_at(region, layout, start) is not None and is_metadata(region, layout, start, 0)
        return Extent.WHOLE if start >= region.size or has_chunks else Extent.UNKNOWN
    return compare(region, start, size, frame_bytes, lambda end: is_metadata(region, layout, end, size))

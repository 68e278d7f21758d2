"""WAV and its relatives of more than 4 GiB: RIFF, RIFX (big-endian), RF64, BW64, Sony's W64."""

import struct

from aumcli.data.decoding.containers import mpeg
from aumcli.data.decoding.containers.chunks import RIFF, RIFX, W64, Chunk, Layout, chunks, extent, no_sound
from aumcli.data.decoding.containers.errors import convert_fix, left_over, too_long, truncated, whole_fix
from aumcli.data.decoding.containers.extent import ALL_ONES, Extent
from aumcli.data.decoding.containers.region import Contents, Part, Region

LAYOUTS = {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": RIFX, b"riff": W64}
EXTENSIBLE, UNCOMPRESSED, GSM, MPEG = 0xFFFE, (1, 3, 6, 7), 0x31, (0x50, 0x55)  # format tags
GSM_BYTES, GSM_SAMPLES = 65, 320  # of a block
LONGEST_RIFF = 2**32 - 2**16


def scan(region: Region, path: str) -> Contents:
    """Find the sound in a WAV file and compare its size with the bytes that are there.

    Args:
        region: the file.
        path: for errors.

    Returns:
        What libsndfile has to read: the size filled in where it was unknown, and an MPEG stream without its wrapping.

    Raises:
        AumError: less or more sound is there than the header promises.
    """
    layout, fmt, long_size = LAYOUTS[region.read(0, 4)], b"", None
    for chunk in chunks(path, region, layout):
        if chunk.name == b"fmt ":
            fmt = region.read(chunk.start, min(chunk.size, 40))
        elif chunk.name == b"ds64" and chunk.size >= 16:  # RF64: sizes of the file and of the sound
            at = chunk.start + 8
            long_size = at, int.from_bytes(region.read(at, 8), "little")
        elif chunk.name == b"data":
            long_size = long_size if chunk.size == ALL_ONES else None
            return _sound(region, path, layout, chunk, long_size, _Format(layout, fmt))
    raise no_sound(path)


class _Format:
    """What the chunk fmt says."""

    def __init__(self, layout: Layout, fmt: bytes):
        order = layout.head.format[0]
        self.tag, channels, _, self.bytes_per_s, self.block_bytes, bits = struct.unpack(
            order + "HHIIHH", fmt[:16].ljust(16, b"\0")
        )
        if self.tag == EXTENSIBLE and len(fmt) >= 26:
            self.tag = struct.unpack(order + "H", fmt[24:26])[0]
        is_plain = self.tag in UNCOMPRESSED and self.block_bytes == channels * ((bits + 7) // 8)
        self.frame_bytes = self.block_bytes if is_plain else 0  # of a sample of all channels; 0: not known

    def text(self, size: int) -> str:
        """So many bytes as a length in time."""
        return f"{size / self.bytes_per_s:.3f} s" if self.bytes_per_s else f"{size:,} bytes"


LongSize = tuple[int, int] | None  # where the size of RF64's sound stands, and the size


def _sound(region: Region, path: str, layout: Layout, chunk: Chunk, long_size: LongSize, fmt: _Format) -> Contents:
    size, rest = long_size[1] if long_size else chunk.size, region.size - chunk.start
    parts: tuple[Part, ...] = ()
    there = extent(region, layout, chunk.start, size, fmt.frame_bytes)
    if there is Extent.UNKNOWN:
        size = rest
        parts = _filled_in(region, path, layout, chunk, long_size)
    elif there is Extent.LESS:
        raise truncated(path, f"its header promises {fmt.text(size)} of sound, {fmt.text(rest)} are there")
    elif there is Extent.MORE:
        why = f"its header says {fmt.text(size)}, {fmt.text(rest - size)} more follow"
        convert = "if all of it is sound, " + convert_fix(path, "-ignore_length 1")
        raise left_over(path, why, whole_fix(path) if layout is W64 else convert)
    if fmt.tag in MPEG:
        found = mpeg.scan(region.part(chunk.start, chunk.start + size), path, wrapped=True)
        assert found is not None  # where something else is wrapped, `scan` raises
        return found
    # libsndfile takes chunks behind W64's sound for sound, and a byte of GSM's padding for one more block
    if fmt.frame_bytes:
        return Contents(size // fmt.frame_bytes, parts)
    return Contents(size // GSM_BYTES * GSM_SAMPLES if (fmt.tag, fmt.block_bytes) == (GSM, GSM_BYTES) else None, parts)


def _filled_in(region: Region, path: str, layout: Layout, chunk: Chunk, long_size: LongSize) -> tuple[Part, ...]:
    """The file with the size of its sound, which goes up to the end, in the header; of more than 4 GiB as RF64."""
    size = region.size - chunk.start
    if long_size is not None:
        return region.patched({long_size[0]: struct.pack("<Q", size)})
    if layout is W64:
        return region.patched({chunk.size_at: layout.pack_size(size)})
    if region.size < LONGEST_RIFF:
        return region.patched({4: layout.pack_size(region.size - 8), chunk.size_at: layout.pack_size(size)})
    if layout is RIFX:
        raise too_long(path)
    head = struct.pack("<4sI4s4sIQQQI", b"RF64", ALL_ONES, b"WAVE", b"ds64", 28, region.size + 28, size, 0, 0)
    rest = region.part(layout.first, region.size)
    return (head, *rest.patched({chunk.size_at - layout.first: ALL_ONES.to_bytes(4)}))

"""WAV and its relatives of more than 4 GiB: RIFF, RIFX (big-endian), RF64, BW64, Sony's W64."""

import struct

from aumcli.data.containers import mpeg
from aumcli.data.containers.chunks import RIFF, RIFX, W64, Chunk, Layout, chunks, extent, no_sound
from aumcli.data.containers.errors import convert_fix, left_over, too_long, truncated, whole_fix
from aumcli.data.containers.extent import Extent
from aumcli.data.containers.region import Contents, Part, Region

LAYOUTS = {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": RIFX, b"riff": W64}
EXTENSIBLE, UNCOMPRESSED, GSM, MPEG = 0xFFFE, (1, 3, 6, 7), 0x31, (0x50, 0x55)          # format tags
GSM_BYTES, GSM_SAMPLES = 65, 320                                # of a block
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
        elif chunk.name == b"ds64" and chunk.size >= 16:        # RF64: sizes of the file and of the sound
            long_size = Chunk(b"data", chunk.start + 8, 0, struct.unpack("<Q", region.read(chunk.start + 8, 8).ljust(8, b"\0"))[0], 0)
        elif chunk.name == b"data":
            return _sound(region, path, layout, chunk, long_size if chunk.size == 0xFFFFFFFF else None, _Format(layout, fmt))
    raise no_sound(path)


class _Format:
    """What the fmt chunk says."""

    def __init__(self, layout: Layout, fmt: bytes):
        order = layout.head.format[0]
        self.tag, self.channels, self.rate_hz, self.bytes_per_s, self.block_bytes = struct.unpack(order + "HHIIH", fmt[:14].ljust(14, b"\0"))
        if self.tag == EXTENSIBLE and len(fmt) >= 26:
            self.tag = struct.unpack(order + "H", fmt[24:26])[0]

    def text(self, size: int) -> str:
        """So many bytes as a length in time."""
        return f"{size / self.bytes_per_s:.3f} s" if self.bytes_per_s else f"{size:,} bytes"


def _sound(region: Region, path: str, layout: Layout, chunk: Chunk, long_size: Chunk | None, fmt: _Format) -> Contents:
    size, rest, parts = (long_size or chunk).size, region.size - chunk.start, ()
    there = extent(region, layout, chunk.start, size, fmt.block_bytes)
    if there is Extent.UNKNOWN:
        size = rest
        parts = _filled_in(region, path, layout, chunk, long_size, size)
    elif there is Extent.LESS:
        raise truncated(path, f"its header promises {fmt.text(size)} of sound, {fmt.text(rest)} are there")
    elif there is Extent.MORE:
        raise left_over(path, f"its header says {fmt.text(size)}, {fmt.text(rest - size)} stand behind that",
                        whole_fix(path) if layout is W64 else "if all of it is sound, " + convert_fix(path, "-ignore_length 1"))
    if fmt.tag in MPEG:
        return mpeg.scan(region.part(chunk.start, chunk.start + size), path, wrapped=True)
    # libsndfile takes chunks behind W64's sound for sound, and a byte of GSM's padding for one more block
    if fmt.tag in UNCOMPRESSED and fmt.block_bytes:
        return Contents(size // fmt.block_bytes, parts)
    return Contents(size // GSM_BYTES * GSM_SAMPLES if (fmt.tag, fmt.block_bytes) == (GSM, GSM_BYTES) else None, parts)


def _filled_in(region: Region, path: str, layout: Layout, chunk: Chunk, long_size: Chunk | None, size: int) -> tuple[Part, ...]:
    """The file with the size of its sound in the header; of more than 4 GiB as RF64."""
    stop = chunk.start + size
    if long_size is not None:
        return region.patched({long_size.size_at: struct.pack("<Q", size)}, stop)
    if layout is W64:
        return region.patched({chunk.size_at: layout.pack_size(size)}, stop)
    if layout is RIFX and stop >= LONGEST_RIFF:
        raise too_long(path)
    if stop < LONGEST_RIFF:
        return region.patched({4: layout.pack_size(stop - 8), chunk.size_at: layout.pack_size(size)}, stop)
    sizes = struct.pack("<4sI4s4sIQQQI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28, stop + 28, size, 0, 0)
    return (sizes, *region.part(layout.first, region.size).patched({chunk.size_at - layout.first: b"\xff" * 4}, stop - layout.first))

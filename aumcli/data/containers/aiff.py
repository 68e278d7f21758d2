"""AIFF and AIFF-C: the number of samples stands in the chunk COMM, their bytes in SSND."""

import struct

from aumcli.data.containers.chunks import FORM, Chunk, chunks, extent, no_sound
from aumcli.data.containers.errors import left_over, too_long, truncated, whole_fix
from aumcli.data.containers.extent import Extent
from aumcli.data.containers.region import Contents, Region

UNCOMPRESSED = {b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"23ni", b"42ni", b"fl32", b"FL32", b"fl64", b"FL64"}
COMPANDED = {b"ulaw", b"ULAW", b"alaw", b"ALAW"}
HEAD_BYTES = 8                          # of SSND, before the sound: offset and block size


def scan(region: Region, path: str) -> Contents:
    """Find the sound in an AIFF file and compare its size and its number of samples with the bytes that are there.

    Args, returns and raises as `aumcli.data.containers.wave.scan`.
    """
    comm, sound = None, None
    for chunk in chunks(path, region, FORM):
        if chunk.name == b"COMM" and comm is None:
            comm = chunk
        elif chunk.name == b"SSND" and sound is None:
            sound = chunk
    if sound is None or comm is None:
        raise no_sound(path)
    return _sound(region, path, comm, sound)


def _sound(region: Region, path: str, comm: Chunk, sound: Chunk) -> Contents:
    channels, frames, bits = struct.unpack(">HIH", region.read(comm.start, 8).ljust(8, b"\0"))
    codec = region.read(comm.start + 18, 4) if region.read(8, 4) == b"AIFC" else b"NONE"
    width = (bits + 7) // 8 if codec in UNCOMPRESSED else codec in COMPANDED            # bytes of a value; 0: not known
    frame_bytes = channels * int(width)
    size, rest = sound.size, region.size - sound.start
    there = extent(region, FORM, sound.start, size, frame_bytes)
    if there is Extent.UNKNOWN:
        size = rest
        stop = sound.start + size
        if stop >= 2**32:
            raise too_long(path)
        frames = (size - HEAD_BYTES) // frame_bytes if frame_bytes else frames
        return Contents(None, region.patched({4: FORM.pack_size(stop - 8), comm.start + 2: struct.pack(">I", frames),
                                              sound.size_at: FORM.pack_size(size)}, stop))
    if there is Extent.LESS:
        raise truncated(path, f"its header promises {size:,} bytes of sound, {rest:,} are there")
    if there is Extent.MORE:
        raise left_over(path, f"its header says {size:,} bytes, {rest - size:,} stand behind that", whole_fix(path))
    held = (size - HEAD_BYTES - struct.unpack(">I", region.read(sound.start, 4).ljust(4, b"\0"))[0]) // frame_bytes if frame_bytes else frames
    if held < frames:
        raise truncated(path, f"its header promises {frames:,} samples, {held:,} are there")
    if held > frames:
        raise left_over(path, f"its header says {frames:,} samples, {held:,} are there", whole_fix(path))
    return Contents(frames if frame_bytes else None)

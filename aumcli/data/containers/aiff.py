"""AIFF and AIFF-C: the number of samples stands in the chunk COMM, their bytes in SSND."""

import struct

from aumcli.data.containers.chunks import FORM, Chunk, chunks, ends_with_chunks, is_metadata, is_placeholder, no_sound
from aumcli.data.containers.errors import left_over, truncated, whole_fix
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
    unknown = (size == 0 and rest > HEAD_BYTES and not ends_with_chunks(region, FORM, sound.start)) or size > rest and is_placeholder(size)
    if unknown:
        size = rest
        frames = (size - HEAD_BYTES) // frame_bytes if frame_bytes else frames
        stop = sound.start + size
        return Contents(None, region.patched({4: FORM.pack_size(min(stop - 8, 2**32 - 1)), comm.start + 2: struct.pack(">I", frames),
                                              sound.size_at: FORM.pack_size(min(size, 2**32 - 1))}, stop))
    if size > rest:
        raise truncated(path, f"its header promises {size:,} bytes of sound, {rest:,} are there")
    if rest - size >= max(1, frame_bytes) and not is_metadata(region, FORM, sound.start + size):
        raise left_over(path, f"its header says {size:,} bytes, {rest - size:,} stand behind that", whole_fix(path))
    there = (size - HEAD_BYTES - struct.unpack(">I", region.read(sound.start, 4).ljust(4, b"\0"))[0]) // frame_bytes if frame_bytes else frames
    if there < frames:
        raise truncated(path, f"its header promises {frames:,} samples, {there:,} are there")
    if there > frames:
        raise left_over(path, f"its header says {frames:,} samples, {there:,} are there", whole_fix(path))
    return Contents()

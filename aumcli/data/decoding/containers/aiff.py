"""AIFF and AIFF-C: the number of samples stands in the chunk COMM, their bytes in SSND."""

import re
import struct

from aumcli.data.decoding.containers.chunks import FORM, Chunk, chunks, extent, no_sound
from aumcli.data.decoding.containers.errors import left_over, too_long, truncated, whole_fix
from aumcli.data.decoding.containers.extent import Extent
from aumcli.data.decoding.containers.region import Contents, Region
from aumcli.utils.text import counted

UNCOMPRESSED = re.compile(rb"NONE|sowt|twos|raw |in24|in32|23ni|42ni|fl32|FL32|fl64|FL64")
COMPANDED = re.compile(rb"ulaw|ULAW|alaw|ALAW")
HEAD_BYTES = 8  # of SSND, before the sound: offset and block size


def scan(region: Region, path: str) -> Contents:
    """Find the sound in an AIFF file and compare its size and its number of samples with the bytes that are there.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
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
    # of a sample of all channels; 0: not known
    frame_bytes = channels * ((bits + 7) // 8 if UNCOMPRESSED.match(codec) else bool(COMPANDED.match(codec)))
    size, rest = sound.size, region.size - sound.start
    there = extent(region, FORM, sound.start, size, frame_bytes)
    if there is Extent.LESS:
        raise truncated(path, f"its header promises {counted(size, 'byte')} of sound, {rest:,} are there")
    if there is Extent.MORE:
        raise left_over(
            path,
            f"its header says {counted(size, 'byte')}, {counted(rest - size, 'stands', 'stand')} behind that",
            whole_fix(path),
        )
    size = rest if there is Extent.UNKNOWN else size
    offset = int.from_bytes(region.read(sound.start, 4))
    held = (size - HEAD_BYTES - offset) // frame_bytes if frame_bytes else frames
    samples = held if frame_bytes else None
    if there is Extent.UNKNOWN:
        if region.size >= 2**32:
            raise too_long(path)
        sizes = {4: FORM.pack_size(region.size - 8), sound.size_at: FORM.pack_size(size)}
        return Contents(samples, region.patched(sizes | {comm.start + 2: struct.pack(">I", max(0, held))}))
    if held < frames:
        raise truncated(path, f"its header promises {frames:,} samples, {held:,} are there")
    if held > frames:
        raise left_over(path, f"its header says {frames:,} samples, {held:,} are there", whole_fix(path))
    return Contents(samples)

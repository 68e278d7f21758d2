"""Apple's Core Audio Format, of any length; with ALAC the lengths of the packets stand in the chunk pakt."""

import struct

from aumcli.data.decoding.containers.chunks import CAF, Chunk, chunks, extent, no_sound
from aumcli.data.decoding.containers.errors import cut_fix, damaged, left_over, truncated
from aumcli.data.decoding.containers.extent import Extent
from aumcli.data.decoding.containers.region import Contents, Region
from aumcli.utils.text import counted

EDIT_BYTES = 4  # of the chunk data, before the sound
ALAC_FLAGS = {16: 1, 20: 2, 24: 3, 32: 4}  # by bits; ffmpeg leaves them out, and libsndfile needs them
MOST_TABLE_BYTES = 2**28


def scan(region: Region, path: str) -> Contents:
    """Find the sound in a CAF file and compare its size with the bytes that are there.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
    """
    found: dict[bytes, Chunk] = {}
    for chunk in chunks(path, region, CAF):
        found.setdefault(chunk.name, chunk)
    if b"data" not in found or b"desc" not in found:
        raise no_sound(path)
    desc = region.read(found[b"desc"].start, 32).ljust(32, b"\0")
    _, codec, flags, packet_bytes, packet_samples, channels, bits = struct.unpack(">d4s5I", desc)
    sound = found[b"data"]
    size, rest, patches = sound.size, region.size - sound.start, {}
    # -1: up to the end
    there = Extent.UNKNOWN if size < 0 else extent(region, CAF, sound.start, size, packet_bytes)
    if there is Extent.LESS:
        raise truncated(path, f"its header promises {counted(size, 'byte')} of sound, {rest:,} are there")
    if there is Extent.MORE:
        why = f"its header says {counted(size, 'byte')}, {counted(rest - size, 'stands', 'stand')} behind that"
        raise left_over(path, why, cut_fix(path, sound.start + size))
    if there is Extent.UNKNOWN:
        size = rest
        patches[sound.size_at] = CAF.pack_size(size)
    if codec == b"alac":
        _check_packets(region, path, found.get(b"pakt"), size - EDIT_BYTES, packet_samples)
        alac_bits = _alac_bits(region, found.get(b"kuki"))
        if flags == 0 and alac_bits in ALAC_FLAGS:
            patches[found[b"desc"].start + 12] = struct.pack(">I", ALAC_FLAGS[alac_bits])
    is_plain = packet_samples == 1 and packet_bytes and packet_bytes == channels * ((bits + 7) // 8)
    samples = (size - EDIT_BYTES) // packet_bytes if is_plain else None
    return Contents(samples, region.patched(patches) if patches else ())


def _check_packets(region: Region, path: str, chunk: Chunk | None, size: int, packet_samples: int) -> None:
    """The packets must fill `size` bytes, and hold as many samples as the header says."""
    table = region.read(chunk.start, min(chunk.size, MOST_TABLE_BYTES)) if chunk is not None else b""
    if len(table) < 24:
        raise damaged(path, "it has no table of its packets")
    packets, valid, priming, remainder = struct.unpack(">qqii", table[:24])
    if packets * packet_samples != valid + priming + remainder:
        held = packets * packet_samples
        raise damaged(path, f"its {packets:,} packets hold {held:,} samples, its header says {valid:,}")
    total, value, count = 0, 0, 0
    for byte in table[24:]:  # lengths in groups of 7 bits, the last of which has no bit 7
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            total, value, count = total + value, 0, count + 1
            if count == packets:
                break
    if (total, count) != (size, packets):
        raise damaged(path, f"its {packets:,} packets fill {total:,} bytes, {size:,} are there")


def _alac_bits(region: Region, chunk: Chunk | None) -> int:
    """Bits per sample, as ALAC's own header says, with the atoms around it that old files have or without."""
    cookie = region.read(chunk.start, 64) if chunk is not None else b""
    at = 24 if cookie[4:8] == b"frma" else 0
    return cookie[at + 5] if len(cookie) > at + 5 else 0

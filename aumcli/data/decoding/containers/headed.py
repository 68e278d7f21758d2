"""Files of a header and then samples up to the end: AU, and NIST's SPHERE, in which TIMIT came."""

import struct
from functools import partial

from aumcli.data.decoding.containers.errors import convert_fix, damaged, left_over, truncated, whole_fix
from aumcli.data.decoding.containers.extent import ALL_ONES, Extent, compare
from aumcli.data.decoding.containers.region import Contents, Region
from aumcli.data.decoding.containers.tags import is_padding
from aumcli.utils.text import counted

AU_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}  # bytes of a value by encoding


def scan_au(region: Region, path: str) -> Contents:
    """Compare the size in the header of an AU file with the bytes that are there.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
    """
    order = ">" if region.read(0, 4) == b".snd" else "<"
    start, size, encoding, _, channels = struct.unpack(order + "5I", region.read(4, 20).ljust(20, b"\0"))
    rest = region.size - start
    if rest < 0 or start < 24:
        raise truncated(path, "it ends before the sound begins")
    frame_bytes = AU_WIDTHS.get(encoding, 0) * channels
    there = compare(region, start, size, frame_bytes, partial(is_padding, region))
    if size == 0 and rest:
        there = Extent.UNKNOWN
    _check(path, there, size, rest)
    held = rest if there is Extent.UNKNOWN else size
    parts = region.patched({8: ALL_ONES.to_bytes(4)}) if there is Extent.UNKNOWN and size != ALL_ONES else ()
    return Contents(held // frame_bytes if frame_bytes else None, parts)


def scan_nist(region: Region, path: str) -> Contents:
    """Compare the number of samples in a SPHERE file's header with the bytes that are there.

    Args, returns and raises as `aumcli.data.decoding.containers.wave.scan`.
    """
    lines = region.read(0, 16).split(b"\n")
    length = int(lines[1]) if len(lines) > 1 and lines[1].strip().isdigit() else 0
    fields = {}
    for line in region.read(0, min(length, 2**16)).split(b"end_head")[0].splitlines()[2:]:
        words = line.split(None, 2)
        if len(words) == 3 and words[1] == b"-i" and words[2].strip().isdigit() and len(words[2]) < 20:
            fields[words[0]] = int(words[2])
    frame_bytes = fields.get(b"channel_count", 1) * fields.get(b"sample_n_bytes", 0)
    if not frame_bytes or b"sample_count" not in fields:
        raise damaged(path, "its header doesn't say how much sound follows", fix=convert_fix(path))
    size = fields[b"sample_count"] * frame_bytes
    _check(path, compare(region, length, size, frame_bytes, partial(is_padding, region)), size, region.size - length)
    return Contents(fields[b"sample_count"])


def _check(path: str, there: Extent, size: int, rest: int) -> None:
    """Raise what is wrong where the header says `size` bytes and `rest` follow it."""
    if there is Extent.LESS:
        raise truncated(path, f"its header promises {counted(size, 'byte')} of sound, {max(0, rest):,} are there")
    if there is Extent.MORE:
        raise left_over(
            path,
            f"its header says {counted(size, 'byte')}, {counted(rest - size, 'stands', 'stand')} behind that",
            whole_fix(path),
        )

"""The size of a sound, as its header says, beside the bytes that are there."""

from collections.abc import Callable
from enum import Enum, auto

from aumcli.data.decoding.containers.region import Region

# Sizes in headers whose writers, into a pipe, could not go back to fill them in: all ones, or half of that (ffmpeg,
# sox, arecord, espeak), 0x7f000000 (sox, for AIFF), 2e9. Some add the header's bytes or take them off
PLACEHOLDERS = (2**32 - 1, 2**31 - 1, 0x7F000000, 2_000_000_000, 2**63 - 1, 2**64 - 1)
MOST_HEADER_BYTES = 4096
ALL_ONES = 2**32 - 1


class Extent(Enum):
    """How much is there of what the header says."""

    WHOLE = auto()
    LESS = auto()
    MORE = auto()
    UNKNOWN = auto()  # the header doesn't say: all up to the end is sound


def compare(region: Region, start: int, size: int, frame_bytes: int, is_no_sound: Callable[[int], bool]) -> Extent:
    """Compare a size in a header with what is there.

    Args:
        region: the file.
        start: where the sound begins.
        size: its bytes, as the header says.
        frame_bytes: of a sample of all channels; fewer that are left over are not sound. 0: not known.
        is_no_sound: whether what begins at a place, behind the sound, is none.
    """
    rest = region.size - start
    is_placeholder = any(abs(size - mark) <= MOST_HEADER_BYTES for mark in PLACEHOLDERS)
    if size == ALL_ONES:
        return Extent.UNKNOWN
    if size > rest:
        return Extent.UNKNOWN if is_placeholder else Extent.LESS
    if rest - size < max(1, frame_bytes) or is_no_sound(start + size):
        return Extent.WHOLE
    return Extent.UNKNOWN if is_placeholder else Extent.MORE

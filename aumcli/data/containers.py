"""What a file's container promises, checked against the bytes that are there.

libsndfile shortens a truncated WAV, AIFF or Ogg file without a word, reads nothing from a WAV whose writer could not go
back to fill in its size, and stops early in a variable-rate MP3 without an index. These checks find all four.
"""

import io
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aumcli.errors import AumError
from aumcli.names import shell_quoted

_CHUNKED = {b"RIFF": "<", b"RF64": "<", b"BW64": "<", b"RIFX": ">", b"FORM": ">"}    # byte order of the sizes
_OGG_PAGE_BYTES = 27 + 255 + 255 * 255                                               # the longest page there is
_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)     # layer III
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG1_HZ = (44100, 48000, 32000)


def convert_fix(path: Path | str) -> str:
    """The command that turns `path` into something every tool reads."""
    path = Path(path)
    converted = path.with_name(f"{path.stem}{'-converted' if path.suffix.lower() == '.wav' else ''}.wav")
    return f"convert it: ffmpeg -i {shell_quoted(path)} {shell_quoted(converted)}"


def checked_source(path: str) -> str | io.RawIOBase:
    """Check that a file's container is whole and say what to hand to libsndfile.

    Args:
        path: an existing file that is not empty.

    Returns:
        The path; or, of a WAV whose header says 0 (written to a pipe), a file object with the size filled in.

    Raises:
        AumError: the header promises more than the file holds.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic in _CHUNKED:
            return _checked_chunks(path, file, magic)
        if magic == b"OggS":
            _check_ogg(path, file)
    return path


def _checked_chunks(path: str, file: BinaryIO, magic: bytes) -> str | io.RawIOBase:
    """WAV (RIFF, RF64) and AIFF (FORM): compare the sound chunk's size with the bytes behind its header."""
    end, order = os.fstat(file.fileno()).st_size, _CHUNKED[magic]
    long_size = None
    for name, start, size in _chunks(file, order, end):
        if name == b"ds64" and 16 <= size <= end - start:       # RF64: sizes beyond 4 GiB, data's is the second
            file.seek(start)
            long_size = struct.unpack("<QQ", file.read(16))[1]
        if name not in (b"data", b"SSND"):
            continue
        if size == 0xFFFFFFFF and long_size is not None:
            size = long_size
        if size == 0 and magic == b"RIFF" and not _chunks_end_at(file, order, start, end):
            sizes = (min(end - place, 0xFFFFFFFF) for place in (8, start))    # of the file and of the sound
            return _Patched(path, {place: struct.pack("<I", size) for place, size in zip((4, start - 4), sizes)})
        if size > end - start and not _is_placeholder(size):
            raise AumError(f"{path} is truncated: its header promises {size} bytes of sound, {end - start} are there",
                           fix="copy or download it again, or remove it", exit_code=1)
        break
    return path


def _is_placeholder(size: int) -> bool:
    """Sizes that ffmpeg, sox and arecord write into a header when they write to a pipe: all ones or half of it."""
    return 2**32 - 4096 <= size < 2**32 or 2**31 - 4096 <= size <= 2**31


def _chunks(file: BinaryIO, order: str, end: int, start: int = 12) -> Iterator[tuple[bytes, int, int]]:
    """Give (name, start, size) of each chunk from `start` on; chunks are padded to an even length."""
    while start + 8 <= end:
        file.seek(start)
        name, size = struct.unpack(order + "4sI", file.read(8))
        yield name, start + 8, size
        start += 8 + size + size % 2


def _chunks_end_at(file: BinaryIO, order: str, start: int, end: int) -> bool:
    """Whether nothing, or only whole chunks, stand between `start` and `end`: then size 0 means an empty sound."""
    for _, body, size in _chunks(file, order, end, start):
        start = body + size + size % 2
    return start in (end, end + 1)                              # the last padding byte is often forgotten


class _Patched(io.RawIOBase):
    """A file of which a few bytes read otherwise than they are; it is never in memory as a whole."""

    def __init__(self, path: str, patches: dict[int, bytes]):
        self._file, self._patches = open(path, "rb"), patches

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer) -> int:
        start, view = self._file.tell(), memoryview(buffer).cast("B")
        count = self._file.readinto(view)
        for place, patch in self._patches.items():
            for i, byte in enumerate(patch, place - start):
                if 0 <= i < count:
                    view[i] = byte
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _check_ogg(path: str, file: BinaryIO) -> None:
    """The last page of an Ogg file must be whole and marked as the last."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - _OGG_PAGE_BYTES))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")):]
    segments = page[26] if len(page) > 26 else 0
    length = 27 + segments + sum(page[27:27 + segments])
    if len(page) < length or not page[5] & 4:
        raise AumError(f"{path} is truncated: its last page is cut or not marked as the last",
                       fix="copy or download it again; if it is meant to end there, " + convert_fix(path), exit_code=1)


def mp3_samples(source: str | io.BytesIO) -> int | None:
    """Count the samples of an MP3 that has no index (Xing, Info or VBRI), whose length decoders can only guess.

    Args:
        source: an MP3 file, or its content.

    Returns:
        Samples per channel, summed over the frames; None when the file has an index, or no frame was found.
    """
    if isinstance(source, io.BytesIO):
        return _count_mp3_samples(source.getvalue())
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _count_mp3_samples(data)


def _count_mp3_samples(data: bytes | mmap.mmap) -> int | None:
    at = 0
    if data[:3] == b"ID3":                                      # a tag: 10 bytes, its length in 7-bit bytes
        at = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0)))
    at = data.find(b"\xff", at)
    samples = 0
    while 0 <= at < len(data) - 4 and (frame := _mpeg_frame(data[at:at + 4])):
        length, frame_samples = frame
        if not samples and any(mark in data[at:at + length] for mark in (b"Xing", b"Info", b"VBRI")):
            return None
        samples += frame_samples
        at += length
    return samples or None


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Length in bytes and samples of the layer III frame with this header; None where it is no such header."""
    word = int.from_bytes(header, "big")
    version, layer = word >> 19 & 3, word >> 17 & 3             # version 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    rate_index, hz_index = word >> 12 & 15, word >> 10 & 3
    if word >> 21 != 0x7FF or layer != 1 or version == 1 or rate_index in (0, 15) or hz_index == 3:
        return None
    first = version == 3
    kbps = (_MPEG1_KBPS if first else _MPEG2_KBPS)[rate_index]
    rate_hz = _MPEG1_HZ[hz_index] >> {3: 0, 2: 1, 0: 2}[version]
    return (144 if first else 72) * kbps * 1000 // rate_hz + (word >> 9 & 1), 1152 if first else 576

"""Bytes of a sound file: where they stand, and how libsndfile is shown others in their place."""

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK_BYTES = 2**20


class Region:
    """A part of an open file, its bytes counted from 0.

    Args:
        file: open for reading, seekable.
        begin: first byte of the file that belongs to it.
        end: the one behind the last.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int):
        self._file, self._begin, self.size = file, begin, end - begin

    def read(self, at: int, count: int) -> bytes:
        """Up to `count` bytes from `at` on; fewer at the end."""
        count = min(count, self.size - at)
        if count <= 0:
            return b""
        self._file.seek(self._begin + at)
        return self._file.read(count)

    def blocks(self, at: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """Place and bytes of one block after another; each begins with the last `overlap` bytes of the one before."""
        while at < self.size:
            block = self.read(at, BLOCK_BYTES + overlap)
            yield at, block
            if at + len(block) >= self.size or len(block) <= overlap:
                return
            at += len(block) - overlap

    def part(self, start: int, stop: int) -> "Region":
        """The bytes from `start` to `stop`."""
        return Region(self._file, self._begin + start, self._begin + stop)

    def span(self, start: int, stop: int) -> range:
        """The same as places in the file: for `Contents.parts`."""
        return range(self._begin + start, self._begin + stop)

    def patched(self, patches: dict[int, bytes]) -> tuple["Part", ...]:
        """All bytes, with other ones at some places: for `Contents.parts`."""
        parts: list[Part] = []
        at = 0
        for place, patch in sorted(patches.items()):
            parts += [self.span(at, place), patch]
            at = place + len(patch)
        return (*parts, self.span(at, self.size))


@dataclass(frozen=True)
class Zeros:
    """So many zero bytes."""

    count: int

    def __len__(self) -> int:
        return self.count


Part = bytes | range | Zeros  # bytes that the file doesn't hold, places in it, or zeros


@dataclass(frozen=True)
class Contents:
    """What a scan found: how much sound is there, and what libsndfile has to read to decode it."""

    samples: int | None = None  # per channel; None: as many as libsndfile says
    parts: tuple[Part, ...] = ()  # one after another instead of the file; (): the file as it is


class Reassembled(io.RawIOBase):
    """A file that consists of parts of another one; it is never in memory as a whole.

    Args:
        file: the other one; is closed with this one.
        parts: see `Contents`.
    """

    def __init__(self, file: io.BufferedIOBase, parts: Sequence[Part]):
        self._file, self._parts = file, parts
        self._ends, self._at = [*accumulate(map(len, parts))], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        return self._at

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and 0 <= self._at < self._ends[-1]:
            which = bisect_right(self._ends, self._at)
            count = min(len(view) - done, self._ends[which] - self._at)
            begin = self._at - self._ends[which] + len(self._parts[which])
            got = self._copy(self._parts[which], begin, view[done : done + count])
            self._at, done = self._at + got, done + got
            if got < count:  # the file is shorter than it was when it was scanned
                break
        return done

    def _copy(self, part: Part, begin: int, target: memoryview) -> int:
        if isinstance(part, range):
            self._file.seek(part.start + begin)
            return self._file.readinto(target)
        target[:] = bytes(len(target)) if isinstance(part, Zeros) else part[begin : begin + len(target)]
        return len(target)

    def close(self) -> None:
        self._file.close()
        super().close()

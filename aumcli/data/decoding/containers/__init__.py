"""What a sound file really holds: one forward scan of its container, whose promises are checked against the bytes.

libsndfile believes a header. It shortens a truncated file without a word, reads the first of two streams, passes over
what is damaged within one, so that everything behind comes early, and guesses the length of MPEG audio that has no
index. A scan finds all of that, and what libsndfile has to be shown instead of the file where it would refuse a good
one: see `Contents`.

A header that says less or more than there is, is an error. A length that its writer could not know is not checked.
Complete chunks of metadata, tags and zeros may follow the sound; anything else counts as sound.
"""

import os
from threading import Lock
from typing import BinaryIO

from aumcli.data.decoding.containers import aiff, caf, flac, headed, mpeg, ogg, wave
from aumcli.data.decoding.containers.region import Contents, Region
from aumcli.data.decoding.containers.tags import behind_tags
from aumcli.errors import AumError

REMEMBERED = 4096  # scans, for files that are read slice by slice;
MOST_PARTS = 64  # those with more parts take too much memory
_SCANS = {
    b"fLaC": flac.scan,
    b"OggS": ogg.scan,
    b"caff": caf.scan,
    b".snd": headed.scan_au,
    b"dns.": headed.scan_au,
    b"NIST": headed.scan_nist,
}

_remembered: dict[tuple[str, int, int, int, int], tuple[Contents | AumError | None]] = {}  # in a tuple, for `get`
_lock = Lock()


def scan_file(path: str, status: os.stat_result) -> Contents | None:
    """Scan an existing file; one that has not changed since is not scanned again.

    Args:
        path: the file.
        status: of the file; with size and time it tells whether that has changed.

    Returns:
        How much sound is there and what libsndfile has to read; None where this is no format that is read here.

    Raises:
        AumError: less or more sound is there than the header promises.
    """
    key = path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    remembered = _remembered.get(key)
    found = _scanned(path) if remembered is None else remembered[0]
    if remembered is None and (not isinstance(found, Contents) or len(found.parts) <= MOST_PARTS):
        with _lock:
            _remembered[key] = (found,)
            if len(_remembered) > REMEMBERED:
                del _remembered[next(iter(_remembered))]  # the oldest
    if isinstance(found, AumError):
        raise AumError(found.problem, found.fix, found.exit_code)
    return found


def _scanned(path: str) -> Contents | AumError | None:
    try:
        with open(path, "rb") as file:
            return scan(file, path)
    except AumError as error:
        return error


def scan(file: BinaryIO, name: str) -> Contents | None:
    """The same for an open file, or for bytes in memory; `name` is for errors."""
    whole = Region(file, 0, file.seek(0, os.SEEK_END))
    start = behind_tags(whole, 0)
    region = whole.part(start, whole.size)
    head = region.read(0, 12)
    kind = head[8:12]
    found: Contents
    if head[:4] in wave.LAYOUTS and (kind == b"WAVE" or head[:4] == b"riff"):
        found = wave.scan(region, name)
    elif head[:4] == b"FORM" and kind in (b"AIFF", b"AIFC"):
        found = aiff.scan(region, name)
    elif head[:4] in _SCANS:
        found = _SCANS[head[:4]](region, name)
    else:
        return mpeg.scan(whole, name)
    return Contents(found.samples, (region.span(0, region.size),)) if start and not found.parts else found

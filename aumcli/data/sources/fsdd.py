"""Free Spoken Digit Dataset: 3000 recordings of the digits 0 to 9 by six speakers, 8 kHz.

Source: https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0. Test split as its README defines it:
recordings 0 to 4 of each speaker and digit. We take 5 to 9 for validation.
"""

import hashlib
import os
import re
from pathlib import Path

from aumcli.data.clips import Clip
from aumcli.data.labels import Label
from aumcli.data.sources import CorpusIndex, PrepareRequest
from aumcli.errors import AumError
from aumcli.utils.csv import listed
from aumcli.utils.download import download, unpack

COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
URL = f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{COMMIT}.tar.gz"
DIGEST = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"  # of content_digest()
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TAKES = 50  # recordings of each digit by each speaker
TEST_TAKES, VAL_TAKES = range(5), range(5, 10)
NAMES = [f"{digit}_{speaker}_{take}.wav" for digit in range(10) for speaker in SPEAKERS for take in range(TAKES)]

_MEMBER = re.compile(r"(?:^|/)recordings/([0-9]_[a-z]+_[0-9]+\.wav)$")
_LIMIT_BYTES = 2**28  # the archive holds 30 MB


def index(request: PrepareRequest) -> CorpusIndex:
    """List the recordings, taken from `request.source` (archive or folder) or downloaded; all are verified.

    Args:
        request: `source` is the archive from GitHub (.tar.gz or .zip) or a folder with the recordings.

    Returns:
        3000 clips; the group is the speaker.

    Raises:
        AumError: no network, or the recordings are not the published ones.
    """
    request.known_settings()
    request.refuse(
        annotations="its labels are in the files' names",
        split="its test split is defined by its authors",
        seed="nothing in it is random",
    )
    source, own = request.source, request.out / "recordings"
    if source is None:
        origin = URL
        if not (own.is_dir() and content_digest(own) == DIGEST):
            _fetch(request.out)
        folder = own
    elif source.is_dir():
        origin = str(source)
        folder = source / "recordings" if (source / "recordings").is_dir() else source
        _verify(folder, origin)
    else:
        origin, folder = str(source), own
        _take(source, own)
    labels = [Label(index, name, name) for index, name in enumerate(DIGITS)]
    return CorpusIndex(
        [_clip(folder, name) for name in NAMES], labels, origin, identities={"speaker": lambda clip: clip.group}
    )


def content_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the recordings in a folder: GitHub's archives aren't stable, these are."""
    whole = hashlib.sha256()
    for name in sorted(NAMES):
        path = folder / name
        if path.is_file():
            whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _clip(folder: Path, name: str) -> Clip:
    digit, speaker, take = name.removesuffix(".wav").split("_")
    split = "test" if int(take) in TEST_TAKES else "val" if int(take) in VAL_TAKES else "train"
    return Clip(Path(os.path.abspath(folder / name)), labels=(DIGITS[int(digit)],), split=split, group=speaker)


def _fetch(out: Path) -> None:
    """Download the archive and unpack it; an archive that turns out wrong is removed, or it would be met again."""
    archive = out / f"fsdd-{COMMIT[:7]}.tar.gz"
    if not archive.exists():
        download(URL, archive)
    try:
        _take(archive, out / "recordings")
    finally:
        archive.unlink()


def _take(archive: Path, folder: Path) -> None:
    unpack(
        archive,
        folder,
        _recording,
        _LIMIT_BYTES,
        set(NAMES).__contains__,
        lambda unpacked: _verify(unpacked, str(archive)),
    )


def _recording(member: str) -> str | None:
    match = _MEMBER.search(member)
    return match and match[1]


def _verify(folder: Path, origin: str) -> None:
    missing = [name for name in NAMES if not (folder / name).is_file()]
    if missing:
        raise AumError(
            f"{origin} lacks {len(missing)} of the {len(NAMES)} recordings of FSDD: {listed(missing)}",
            fix=f"take the archive {URL}",
            exit_code=1,
        )
    if content_digest(folder) != DIGEST:
        raise AumError(
            f"the recordings in {origin} are not those of FSDD at commit {COMMIT[:7]}: at least one differs",
            fix=f"take the archive {URL}",
            exit_code=1,
        )

"""Downloads and archives: resumed, verified, and never written outside the folder they are meant for."""

import gzip
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from aumcli.errors import AumError
from aumcli.utils.csv import listed
from aumcli.utils.files import disk_error, file_sha256
from aumcli.utils.logging import get_logger
from aumcli.utils.progress import progress

logger = get_logger(__name__)

CHUNK_BYTES = 2**18
TIMEOUT_S = 30
TAIL_BYTES = 2**24  # of zeros after the last member; more are not read
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


def download(url: str, path: Path, size: int | None = None, sha256: str | None = None) -> None:
    """Fetch a file; a part that an earlier call left behind is continued where the server allows it.

    Args:
        url: where the file is published.
        path: where it shall lie; until complete and verified it is called `<path>.part`.
        size: its bytes, if known.
        sha256: its digest, if known.

    Raises:
        AumError: no network, no space, the server refuses, the transfer broke off (a further call continues it), or
            what came is another file (it is removed).
    """
    part = path.with_name(path.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        if size is None or have < size:
            request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
            logger.debug(f"fetching {url} from byte {have:,} on")
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                _receive(answer, part, have, size)
        _verify(part, url, size, sha256)
        part.replace(path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if getattr(error, "code", None) == 416:  # the part is not a beginning of the file
            part.unlink()
        reason = getattr(error, "reason", None) or error
        raise AumError(
            f"can't fetch {url}: {reason}",
            fix="check the network and run the same command again; or fetch it elsewhere and pass it with --source",
            exit_code=1,
        ) from error
    except OSError as error:
        raise disk_error(path, error) from error


def _receive(answer: http.client.HTTPResponse, part: Path, have: int, size: int | None) -> None:
    """Append what the server sends to what is there; or begin again, if it sends all."""
    continued = answer.status == 206
    total = int(answer.headers.get("Content-Length") or 0)
    check_space(part.parent, (size - have if size and continued else size or total), f"fetching {part.stem}")
    limit = None if size is None else size - (have if continued else 0)
    received = 0
    with open(part, "ab" if continued else "wb") as file:
        blocks = iter(lambda: answer.read(CHUNK_BYTES), b"")
        for block in progress(blocks, f"fetching {part.stem}", total // CHUNK_BYTES or None, unit="block"):
            received += file.write(block)
            if limit is not None and received > limit:
                break  # another file: its size is told below
    if received < total and (limit is None or received < limit):
        raise urllib.error.URLError(f"broke off after {received} of {total} bytes")


def _verify(path: Path, url: str, size: int | None, sha256: str | None) -> None:
    have = path.stat().st_size
    if size is not None and have != size:
        path.unlink()
        raise AumError(
            f"{url} gave {have} bytes, {size} were expected: it is another file or was changed on the way; removed",
            fix="run the same command again; if it stays so, fetch the file elsewhere and pass it with --source",
            exit_code=1,
        )
    if sha256 is not None and file_sha256(path) != sha256:
        path.unlink()
        raise AumError(
            f"what came from {url} has another SHA-256 than {sha256[:12]}...: removed",
            fix="run the same command again; if it stays so, fetch the file elsewhere and pass it with --source",
            exit_code=1,
        )


def check_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise an AumError if the disk of a folder, which need not exist yet, has less free space than needed."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise AumError(
            f"{what} needs {needed_bytes / 2**30:.1f} GiB of disk, {folder} has {free / 2**30:.1f} GiB free",
            fix="free some space, or choose another folder with --out",
            exit_code=1,
        )


def unpack(
    archive: Path,
    folder: Path,
    rename: Callable[[str], str | None],
    limit_bytes: int,
    own: Callable[[str], bool],
    verify: Callable[[Path], None],
) -> None:
    """Unpack files of an archive, verify them, and only then put them at `folder`.

    Args:
        archive: .tar, .tar.gz and the like, or .zip.
        folder: where the files shall lie afterwards; an earlier one is replaced.
        rename: member's name -> path below `folder`, or None for a member that isn't wanted.
        limit_bytes: the archive may hold this much, unpacked.
        own: see `replace_folder`.
        verify: gets the unpacked folder; raises an AumError if it isn't what it should be.

    Raises:
        AumError: no archive, damaged, or larger than allowed; a member would lie outside, or a wanted one is no plain
            file; no space; or what `verify` raises. Nothing is left behind.
    """
    if not archive.is_file():
        raise AumError(
            f"{archive} doesn't exist",
            fix="name the archive or the folder with --source, or leave --source out to download it",
        )
    unpacked = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(unpacked, ignore_errors=True)
        unpacked.mkdir(parents=True)
        for name, file in progress(members(archive, rename, limit_bytes), f"unpacking {archive.name}", unit="file"):
            target = unpacked / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(file, out, CHUNK_BYTES)
        try:
            verify(unpacked)
        except AumError as error:  # the user knows the archive, not where it was unpacked
            raise AumError(
                error.problem.replace(str(unpacked), str(archive)), fix=error.fix, exit_code=error.exit_code
            ) from error
        replace_folder(unpacked, folder, own)
    except DAMAGED as error:
        reason = str(error).partition("\n")[0].rstrip(":")  # tarfile adds a line for each compression that it tried
        raise AumError(
            f"{archive} is not an archive, or is damaged: {reason}", fix="download it again", exit_code=1
        ) from error
    except OSError as error:
        raise disk_error(folder, error) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def members(archive: Path, rename: Callable[[str], str | None], limit_bytes: int) -> Iterator[tuple[str, IO[bytes]]]:
    """Give the new name and the opened content of each wanted file in an archive; see `unpack`."""
    total = 0
    for name, size, plain, opened in (_zip if zipfile.is_zipfile(archive) else _tar)(archive):
        total += size
        if total > limit_bytes:
            raise AumError(
                f"{archive} would unpack to more than {limit_bytes / 2**30:.1f} GiB: it is another archive",
                fix="take the archive that its publisher offers",
                exit_code=1,
            )
        new = rename(_inside(archive, name))
        if new is None:
            continue
        if not plain:
            raise AumError(
                f"{archive}: {name} is a link or a device, not a file",
                fix="take the archive that its publisher offers",
                exit_code=1,
            )
        with opened() as file:
            yield _inside(archive, new), file


def _inside(archive: Path, name: str) -> str:
    """The name, if it lies below the folder that is unpacked into."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise AumError(
            f"{archive}: {name!r} would be written outside its folder; nothing was unpacked",
            fix="don't trust this archive; take the one that its publisher offers",
            exit_code=1,
        )
    return name


Member = tuple[str, int, bool, Callable[[], IO[bytes]]]  # name, bytes, whether it is a plain file, and what opens it


def _zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if not member.is_dir():
                kind = member.external_attr >> 28  # of a Unix file's mode: 8 plain, 10 a link, 0 unknown
                yield member.filename, member.file_size, kind in (0, 8), partial(packed.open, member)


def _tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as packed:
        for member in packed:
            if not member.isdir():
                yield member.name, member.size, member.isreg(), partial(member_content, packed, member)
            forget_members(packed)  # Speech Commands has 105,829
        for _ in range(TAIL_BYTES // CHUNK_BYTES):  # the compressor's checksum stands behind tar's own end
            if packed.fileobj is None or not packed.fileobj.read(CHUNK_BYTES):
                break


def member_content(packed: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Open the content of a plain file."""
    content = packed.extractfile(member)
    assert content is not None  # only that of a plain file is asked for
    return content


def forget_members(packed: tarfile.TarFile) -> None:
    """Drop the members that a tar file has listed so far, all of which it would keep in memory."""
    packed.members.clear()  # type: ignore[attr-defined]  # of every Python, but not of its type stubs


def replace_folder(new: Path, old: Path, own: Callable[[str], bool]) -> None:
    """Put a finished folder where an earlier run may have left one.

    Args:
        new: is moved to `old`.
        old: is removed first, if it is there.
        own: whether a file of that name in `old` is ours to remove.

    Raises:
        AumError: `old` holds something that no run of ours has put there; it is left alone.
    """
    foreign = sorted(path.name for path in old.iterdir() if not own(path.name)) if old.is_dir() else []
    if foreign:
        raise AumError(
            f"{old} would be replaced, but holds files from elsewhere: {listed(foreign)}",
            fix="move them away, or choose another folder with --out",
        )
    if old.is_dir():
        shutil.rmtree(old)
    new.rename(old)

"""Writing files so that a crash leaves the old one or the new one, never half of either.

A link is followed: what it leads to is replaced, and it stays. A FIFO, a device or a descriptor of the process itself
(`-` and /dev/stdout, /dev/fd/63 of a shell's `>(gzip > a.gz)`) is handed what was written, when that is complete.
"""

import errno
import hashlib
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from aumcli.errors import AumError
from aumcli.utils.text import ESCAPE, shown, to_json

STDOUT = "-"
FILE_SUFFIXES = frozenset(
    [
        ".bin",
        ".ckpt",
        ".csv",
        ".flac",
        ".gz",
        ".html",
        ".jpg",
        ".json",
        ".jsonl",
        ".md",
        ".mp3",
        ".npy",
        ".npz",
        ".ogg",
        ".onnx",
        ".parquet",
        ".pdf",
        ".png",
        ".pt",
        ".pt2",
        ".pth",
        ".safetensors",
        ".svg",
        ".tar",
        ".tflite",
        ".tgz",
        ".toml",
        ".tsv",
        ".txt",
        ".wav",
        ".xlsx",
        ".yaml",
        ".yml",
        ".zip",
    ]
)
NAME_BYTES = 255  # of a file's name, where the file system doesn't say how many it allows
FEWEST_NAME_BYTES = 143  # that any file system allows: encrypted ones
CUT_BYTES = 40  # are left free behind a name that is cut, for digest and ending
COPY_BYTES = 2**20
_DESCRIPTOR = re.compile(r"/(?:proc/(?:self|thread-self|\d+)|dev)/fd/(\d+)")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it over `path`, or over what this links to.

    Args:
        path: the file that shall exist afterwards; its folder is made. A FIFO, a device or "-" (standard output) is
            written to.

    Yields:
        The temporary path to write to.

    Raises:
        AumError: the folder can't be written or the disk is full; an older `path` is untouched.
    """
    path = Path(path)
    if is_stream(path):
        with _copied_to_stream(path) as output:
            yield output
        return
    temporary: Path | None = None
    try:
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))  # who may read the old file may read the new one
        os.replace(temporary, target)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def temporary_path(target: Path) -> Path:
    """Where a file is written until it is complete: beside it, by a name that is short however long its own is."""
    digest = zlib.crc32(target.name.encode("utf-8", "surrogateescape"))
    return target.parent / f".{digest:08x}.{os.getpid()}.part"


def beside(path: Path, ending: str, room_for: str = "") -> Path:
    """The file that belongs to `path` and is called like it with an ending.

    A name that is too long for the ending, or for `room_for`, is cut and told apart by its digest.
    """
    name = path.name.encode("utf-8", "surrogateescape")
    needed = len(name) + max(len(ending.encode()), len(room_for))
    if needed <= FEWEST_NAME_BYTES or needed <= (room := _name_bytes(path.parent)):
        return path.parent / (path.name + ending)
    import hashlib

    kept = name[: room - CUT_BYTES].decode("utf-8", "ignore")
    return path.parent / f"{kept}-{hashlib.blake2s(name, digest_size=6).hexdigest()}{ending}"


def _name_bytes(folder: Path) -> int:
    """Bytes that a file's name may have in a folder, which need not exist yet."""
    there = next((each for each in (folder, *folder.parents) if os.path.isdir(each)), Path("."))
    try:
        return min(NAME_BYTES, os.pathconf(there, "PC_NAME_MAX"))
    except (OSError, ValueError, AttributeError):  # AttributeError: Windows
        return NAME_BYTES


def is_stream(path: Path | str) -> bool:
    """Whether a path is no file that can be replaced: a FIFO, a device, a descriptor of this process,
    "-" for standard output.
    """
    if descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def descriptor(path: Path | str) -> int | None:
    """The number of the open file that a path such as /dev/stdout or /dev/fd/63 means, 1 for "-";
    None for other paths.
    """
    path = os.fspath(path)
    if path == STDOUT:
        return 1
    for _ in range(10):  # links: /dev/stdout -> /proc/self/fd/1
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        if found := _DESCRIPTOR.fullmatch(path):
            own = not path.startswith("/proc/") or path.split("/")[2] in ("self", "thread-self", str(os.getpid()))
            return int(found[1]) if own else None
        if not os.path.islink(path):
            return None
        path = os.path.join(os.path.dirname(path), os.readlink(path))
    return None


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _target(path: Path) -> Path:
    """The file that is replaced: `path`, or what it links to, which need not exist. An OSError says why it can't be."""
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not _may_write(path):  # its folder may be writable, but the file is protected
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except FileNotFoundError:
        pass
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def _copied_to_stream(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success copy its content to a FIFO, a device or a descriptor."""
    import shutil

    with scratch_folder() as folder:
        temporary = folder / "output"
        try:
            yield temporary
        except OSError as error:
            raise no_scratch(error) from error
        try:
            with open(temporary, "rb") as file, _opened_stream(path) as out:
                shutil.copyfileobj(file, out, COPY_BYTES)
        except OSError as error:
            raise disk_error(path, error) from error


@contextmanager
def _opened_stream(path: Path) -> Iterator[BinaryIO]:
    """A FIFO, a device or a descriptor, open for bytes."""
    number = descriptor(path)
    if number != 1:
        with open(path, "wb") if number is None else os.fdopen(os.dup(number), "wb") as out:
            yield out
        return
    if sys.stdout is None:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.flush()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is needed for a while only, in the one that TMPDIR names.

    Raises:
        AumError: there is none that can be written.
    """
    import tempfile

    try:
        folder = tempfile.TemporaryDirectory(prefix="aum-", ignore_cleanup_errors=True)
    except OSError as error:
        raise no_scratch(error) from error
    with folder as name:
        yield Path(name)


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Give a path to a file for a library that takes only names in UTF-8: itself, or a link to it."""
    if shown(str(path)) == str(path):
        yield path
        return
    with scratch_folder() as folder:
        link = folder / "link"
        link.symlink_to(os.path.abspath(path))
        yield link


def no_scratch(error: OSError) -> AumError:
    """The error of a folder for temporary files that can't be written."""
    return AumError(
        f"there is no place for temporary files: {error.strerror or error}",
        fix="free some space, or let TMPDIR name a folder with space: export TMPDIR=/var/tmp",
        exit_code=1,
    )


@contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """On failure remove `folder` and those above it that weren't there before and are empty."""
    new = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
    try:
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):  # one that holds something stays, and so do those above it
                each.rmdir()
        raise


def check_writable(path: Path | str) -> None:
    """Raise the AumError that writing `path` would raise, before the work whose result it shall hold."""
    path = Path(path)
    try:
        if is_stream(path):
            if descriptor(path) is None and not _may_write(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.lstat(target)  # of a name that is too long, too
        probe = temporary_path(target).with_suffix(".probe.part")
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise disk_error(path, error) from error


def check_folder(path: Path | str | None) -> None:
    """Raise the AumError of an --out that can't be meant for a folder; None passes."""
    if path is None:
        return
    if os.fspath(path) == STDOUT:
        raise AumError("a folder is written, and - is standard output", fix="name a folder")
    if Path(path).suffix.lower() in FILE_SUFFIXES and not os.path.isdir(path):
        raise AumError(
            f"a folder is written, and {path} is named like a file",
            fix=f"name a folder, such as {Path(path).with_suffix('')}",
        )


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=ESCAPE)


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON to `path`, atomically; NaN and infinity are refused."""
    write_text(path, to_json(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that a command of ours has written.

    Raises:
        AumError: it is missing or damaged, as by a loss of power.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AumError(
            f"can't read {path}: {error}",
            fix="remove it, and write it again with the command that wrote it",
            exit_code=1,
        ) from error
    if not isinstance(value, dict):
        raise AumError(
            f"{path} is damaged: it holds no JSON object",
            fix="remove it, and write it again with the command that wrote it",
            exit_code=1,
        )
    return value


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def disk_error(path: Path | str, error: OSError) -> AumError:
    """Say what an operating system error means for the person who waits for `path`."""
    reason = error.strerror or error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AumError(
            f"no space left on the disk while saving {path}; what was there before is untouched",
            fix="free some space and run the same command again (train: with --resume)",
            exit_code=1,
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR):
        return AumError(f"can't write {path}: {reason}", fix="choose another name")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return AumError(
            f"can't write {path}: {reason}",
            fix="choose a folder you may write to with --out, or change its permissions",
        )
    if error.errno == errno.EPIPE:
        return AumError(f"can't write {path}: the program that reads it has ended", fix="see what it says", exit_code=1)
    return AumError(f"can't save {path}: {reason}", fix="check the path and the disk", exit_code=1)

"""Writing files so that a crash leaves the old one or the new one, never half of either."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aumcli.errors import AumError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it over `path`.

    Args:
        path: the file that shall exist afterwards; its folder is made.

    Yields:
        The temporary path to write to.

    Raises:
        AumError: the folder can't be written or the disk is full; an older `path` is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None


@contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """On failure remove `folder` and those above it that weren't there before and are empty."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    except BaseException:
        for each in new:
            with suppress(OSError):             # one that holds something stays, and so do those above it
                each.rmdir()
        raise


def check_writable(path: Path | str) -> None:
    """Raise the AumError that writing `path` would raise, before the work whose result it shall hold."""
    path = Path(path)
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise disk_error(path, error) from error


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `path`, atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write `value` as indented JSON to `path`, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def disk_error(path: Path, error: OSError) -> AumError:
    """Say what an operating system error means for the person who waits for `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AumError(f"no space left on the disk while saving {path}; what was there before is untouched",
                        fix="free some space and run the same command again (train: with --resume)", exit_code=1)
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return AumError(f"can't write {path}: {error.strerror}",
                        fix="choose a folder you may write to with --out, or change its permissions")
    return AumError(f"can't save {path}: {error.strerror or error}", fix="check the path and the disk", exit_code=1)

"""One writer at a time. The operating system holds the locks, so that a process that dies leaves none behind."""

import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path

from aumcli.errors import AumError
from aumcli.utils.files import disk_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

NAME = ".lock"
LOCKED_BYTE = 2**31 - 2  # on Windows


class LockTaken(Exception):
    """Another process has the lock."""


def open_locked(path: Path) -> tuple[int, str]:
    """Open a file, which is made where there is none, and lock it until it is closed.

    Args:
        path: the file.

    Returns:
        Its descriptor, for reading and writing, and "" or why its file system can't lock.

    Raises:
        LockTaken: another open file has the lock.
    """
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            problem = _lock(number)
            if problem or os.path.samestat(os.fstat(number), os.stat(path)):
                return number, problem
        except FileNotFoundError:  # who had it has just removed it
            pass
        except BaseException:
            os.close(number)
            raise
        os.close(number)


def _lock(number: int) -> str:
    try:
        if sys.platform == "win32":  # where nobody else may read what is locked: a byte that no file has
            os.lseek(number, LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
            finally:
                os.lseek(number, 0, os.SEEK_SET)
        else:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:  # the latter: Windows, and NFS
        raise LockTaken from error
    except OSError as error:  # of network folders
        return error.strerror or str(error)
    return ""


def remove_locked(path: Path, close: Callable[[], None]) -> None:
    """Remove a locked file and close it, in this order: else it would be another's that is removed."""
    if sys.platform == "win32":  # which removes no open file
        close()
    with suppress(OSError):
        path.unlink()
    if sys.platform != "win32":
        close()


@contextmanager
def locked(folder: Path, what: str) -> Iterator[str]:
    """Keep a folder for this process.

    Args:
        folder: is made.
        what: the activity, such as "training".

    Yields:
        "", or a sentence that says why the folder can't be locked and what that means.

    Raises:
        AumError: another process has it, or it can't be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number, problem = open_locked(path)
    except LockTaken as error:
        raise AumError(
            f"another {what} writes to {folder}{_holder(path)}",
            fix="wait until it has ended, or choose another folder with --out",
        ) from error
    except OSError as error:
        raise disk_error(folder, error) from error
    with suppress(OSError):  # of a full disk: it is only told to people
        os.truncate(number, 0)
        os.write(
            number, f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M}\n".encode()
        )
    try:
        yield problem and f"{folder} can't be locked ({problem}): nothing keeps a second {what} from writing there"
    finally:
        remove_locked(path, partial(os.close, number))


def _holder(path: Path) -> str:
    """Who holds a lock, according to its file."""
    try:
        return f": {path.read_text(encoding='utf-8').strip()}"
    except (OSError, ValueError):  # ValueError: not written yet, or by another program
        return ""

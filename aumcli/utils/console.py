"""Standard output and standard error of the command line.

Whatever a console can't show is escaped, and a failure says what failed.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from aumcli.errors import AumError, debugging
from aumcli.utils.files import no_scratch
from aumcli.utils.text import ESCAPE, one_line

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
REASONS = {  # errno -> what to do
    errno.ENOSPC: "free some space and run the same command again",
    errno.EDQUOT: "free some space and run the same command again",
    errno.EMFILE: "allow this shell more open files, ulimit -n 4096, or use fewer --workers",
    errno.ENFILE: "end other programs: this machine has no more open files to give",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EIO: "check the disk, or the network that it lies in",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOMEM: "end other programs, or ask for less at a time",
}

RED, GREEN = 31, 32  # of terminals


class _Output(io.FileIO):
    """Standard output, whose failures are messages."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            raise output_error(error) from error


class _Messages(io.FileIO):
    """Standard error: a message that can't be written ends no work."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def output_error(error: OSError) -> AumError:
    """The error of a standard output that can't be written."""
    what, fix = {
        errno.EPIPE: ("the program that reads it has ended", "write into a file: --out or > FILE"),
        errno.EBADF: ("it is closed", "leave it open, or send it elsewhere: > FILE, > /dev/null"),
        errno.ENOSPC: ("no space left on the disk", "free some space and run the same command again"),
    }.get(error.errno or 0, (error.strerror or str(error), "send it elsewhere: > FILE"))
    return AumError(f"can't write to standard output: {what}", fix=fix, exit_code=1)


def open_streams() -> None:
    """Make standard output and error fit for any text.

    Those that are closed are opened, so that no other file gets their number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(
                os.devnull, os.O_WRONLY if number == 2 else os.O_RDONLY
            )  # the lowest number that is free; to write to 1 fails
    sys.stdout = _stream(sys.stdout, 1, _Output)
    sys.stderr = _stream(sys.stderr, 2, _Messages)


def _stream(stream: Any, number: int, raw_type: Callable[..., io.FileIO]) -> Any:
    """A text stream of a descriptor; another kind (a Windows console, a test's) is only told to escape."""
    if stream is not None and (
        type(getattr(stream.buffer, "raw", stream.buffer)) is not io.FileIO or stream.fileno() != number
    ):
        stream.reconfigure(errors=ESCAPE)
        return stream
    raw = raw_type(number, "wb", closefd=False)
    if stream is None:
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors=ESCAPE, line_buffering=True)
    stream.flush()
    buffer = raw if stream.write_through else io.BufferedWriter(raw)
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=ESCAPE,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def close_output() -> None:
    """Write what standard output holds back; where that fails, drop it, so that Python doesn't try again at its end.

    Raises:
        AumError: it can't be written.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
        raise


def echo(text: str, end: str = "\n") -> None:
    """Print to standard output at once."""
    print(text, end=end, flush=True)


def say(text: str) -> None:
    """Print a message to standard error at once; names in it can't command the terminal."""
    print("\n".join(map(one_line, text.split("\n"))), file=sys.stderr, flush=True)


def print_error(error: AumError) -> None:
    """Print what is wrong and how to mend it; that the user stopped the work is no error."""
    if error.exit_code >= 128:
        return say(error.problem + (f"\n  {error.fix}" if error.fix else ""))
    problem, fix = ("\n".join(map(one_line, text.split("\n"))) for text in (error.problem, error.fix))
    text = f"{_coloured('error:', RED)} {problem}" + (f"\n  {_coloured('fix:', GREEN)} {fix}" if fix else "")
    print(text, file=sys.stderr, flush=True)


def _coloured(word: str, colour: int) -> str:
    """A word in a terminal's colour; as it is where nobody sees colours, or wants none (no-color.org)."""
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return word
    return f"\033[1;{colour}m{word}\033[0m"


def as_message(error: Exception) -> AumError:
    """What another library or the operating system raised, as a message.

    With AUM_DEBUG=1 it is raised again, for its stack trace.
    """
    if debugging():
        raise error
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(
        error
    ):  # of tempfile, wherever it is called
        return no_scratch(error)
    if isinstance(error, OSError) and error.errno is not None:
        file = f": {error.filename}" if error.filename is not None else ""
        fix = REASONS.get(error.errno, "check the path and the disk; AUM_DEBUG=1 shows where it happened")
        return AumError(f"{error.strerror or error}{file}", fix=fix, exit_code=1)
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(words in text.lower() for words in OUT_OF_MEMORY):
        return AumError(
            "out of memory",
            fix="ask for less at a time: a shorter --window, a smaller --batch or train.batch_size",
            exit_code=1,
        )
    if "can't start new thread" in text:
        return AumError(
            "this machine gives no more threads", fix="ask for fewer --workers, or end other programs", exit_code=1
        )
    return AumError(
        f"unexpected {type(error).__name__}{': ' if text else ''}{text[:300]}",
        exit_code=1,
        fix="this is a mistake in aumcli: please report it with the command and what it says "
        "with AUM_DEBUG=1 before it",
    )

"""What the command line says where nothing goes as foreseen.

Consoles, closed and full outputs, other libraries' errors, Ctrl-C.
"""

import errno
import os
import subprocess
import sys

import pytest

from aumcli.utils.console import as_message

pytest_plugins = ["aum_fixtures"]
needs_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
posix = pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")


def shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a line of bash, in which $AUM is the command; its exit code is that of the first program of a pipe."""
    return subprocess.run(
        ["bash", "-c", command + "; exit ${PIPESTATUS[0]}"],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=os.environ | {"AUM": f"{sys.executable} -m aumcli", "AUM_DEBUG": ""} | environment,
    )


# standard output and error


@needs_full
@pytest.mark.parametrize(
    "arguments",
    ["info", "info recipes", "info digests --json", "info digits --json", "--help", "--version", "train --help"],
)
def test_a_full_standard_output(arguments):
    result = shell(f"$AUM {arguments} > /dev/full")
    if "digests" in arguments:
        assert result.returncode == 2 and "did you mean digits" in result.stderr
        return
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: can't write to standard output: no space left on the disk\n"
        "  fix: free some space and run the same command again\n"
    )


@posix
@pytest.mark.parametrize("arguments", ["info", "info digits --json"])
def test_a_closed_standard_output(arguments):
    result = shell(f"$AUM {arguments} >&-")
    assert result.returncode == 1 and result.stderr.startswith(
        "error: can't write to standard output: it is closed\n  fix: "
    )
    assert result.stderr.count("\n") == 2


@posix
@pytest.mark.parametrize("arguments", ["info recipes", "info", "info digits --json"])
def test_a_reader_that_ends_early(arguments):
    result = shell(f"$AUM {arguments} | true")
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith("error: can't write to standard output: the program that reads it has ended\n")
    assert result.stderr.count("\n") == 2


@posix
def test_a_file_never_takes_the_place_of_a_closed_output(tmp_path):
    """Descriptors 0 to 2 are given to the next files that are opened, where they are free."""
    code = (
        "import os; from aumcli.utils.console import open_streams; open_streams()\n"
        f"print(os.open({str(tmp_path / 'x')!r}, os.O_CREAT | os.O_RDWR) > 2, "
        f"file=open({str(tmp_path / 'said')!r}, 'w'))"
    )
    subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" <&- >&- 2>&-', code], check=True)
    assert (tmp_path / "said").read_text() == "True\n"


@needs_full
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_messages_that_can_not_be_written_end_nothing(trained, clips, redirection):
    result = shell(f"$AUM predict {clips} --model {trained} --top 1 {redirection}")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 4


@posix
@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    ],
)
def test_a_console_that_can_not_show_a_name(trained, clips, variables):
    for name in (b"caf\xe9.wav", "☃.wav".encode()):
        (clips / "low.wav").rename(clips / os.fsdecode(name))
        result = shell(f"$AUM predict {clips} {clips}/gone☃.wav --model {trained}", **variables)
        assert result.returncode == 1 and "gone" in result.stderr and result.stderr.count("error: ") == 1, result.stderr
        assert len(result.stdout.splitlines()) == 4 and any(
            text in result.stdout for text in ("caf", "☃", "\\u2603", "\\xe2\\x98\\x83")
        )
        (clips / os.fsdecode(name)).rename(clips / "low.wav")


def test_a_name_can_not_command_a_terminal(aum, trained, clips):
    (clips / "low.wav").rename(clips / "\x1b[31mred\r\n.wav")
    (clips / "\x1b]0;title\x07.wav").write_text("no sound")
    result = aum("predict", clips, "--model", trained)
    assert not {"\x1b", "\r", "\x07"} & {*(result.out + result.err)}
    assert "\\x1b[31mred\\x0d\\x0a.wav" in result.out and "\\x1b]0;title\\x07.wav is not audio" in result.err


# what nobody foresaw


@pytest.fixture
def raising(aum, monkeypatch):
    """`raising(error)`: `aum info` where something within raises it."""

    def run(error: BaseException, debug: str = ""):
        def fail():
            raise error

        monkeypatch.setenv("AUM_DEBUG", debug)
        monkeypatch.setattr("aumcli.info.installed", fail)
        return aum("info")

    return run


@pytest.mark.parametrize(
    "error, words",
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            ("No space left on device: /x/y", "free some space"),
        ),
        (OSError(errno.EMFILE, "Too many open files"), ("Too many open files", "ulimit -n")),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), ("Permission denied: /x", "permissions")),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), ("Broken pipe", "AUM_DEBUG")),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/x']"),
            ("no place for temporary files", "TMPDIR"),
        ),
        (MemoryError(), ("out of memory", "--batch")),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            ("out of memory", "--window"),
        ),
        (RuntimeError("CUDA out of memory. Tried"), ("out of memory", "--batch")),
    ],
)
def test_what_the_machine_lacks_is_said(raising, error, words):
    result = raising(error)
    assert (
        result.code == 1
        and result.out == ""
        and result.err.startswith("error: ")
        and all(word in result.err for word in words)
    ), result.err
    assert len(result.err.splitlines()) == 2


def test_a_mistake_of_ours_is_short_and_asks_for_a_report(raising):
    result = raising(KeyError("place"))
    assert result.code == 1 and result.err.splitlines()[0] == "error: unexpected KeyError: 'place'"
    assert "report" in result.err and "AUM_DEBUG=1" in result.err


@pytest.mark.parametrize("error", [KeyError("place"), OSError(errno.EIO, "Input/output error")])
def test_debugging_shows_where(raising, error):
    with pytest.raises(type(error)):
        raising(error, debug="1")


def test_tests_debug():
    """Or else a mistake of ours would look like a user's."""
    with pytest.raises(KeyError):
        as_message(KeyError("place"))
    assert shell("$AUM info", AUM_DEBUG="1").returncode == 0


def test_ctrl_c_is_no_error(raising):
    result = raising(KeyboardInterrupt(), debug="1")
    assert (result.code, result.out, result.err) == (130, "", "stopped\n")


def test_a_stop_says_how_to_go_on(aum, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("aumcli.prepare.prepare", interrupt)
    result = aum("prepare", "folder", tmp_path)
    assert result == type(result)(130, "", "stopped; what was opened is remembered\n  go on with the same command\n")

"""A crash while writing leaves the old file or the new one."""

import errno
import json
import os
import stat
import subprocess
import tempfile
import threading

import pytest

from aumcli.errors import AumError
from aumcli.utils import files
from aumcli.utils.files import (
    atomic_path,
    beside,
    check_folder,
    check_writable,
    descriptor,
    is_stream,
    read_json,
    scratch_folder,
    temporary_path,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill_disk(path):
    """Make writing to `path` meet a disk that is really full: its temporary name leads to /dev/full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_path(path).symlink_to("/dev/full")


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    write_text(path, "grüße\n")
    write_text(path, "second\n")
    assert path.read_bytes() == b"second\n"
    assert names(path.parent) == ["note.txt"]


def test_nothing_appears_before_the_end(tmp_path):
    path = tmp_path / "note.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent  # a rename works only within one file system
    assert path.read_text() == "new"


def test_synced_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda *args: (calls.append("fsync"), fsync(*args))[1])
    monkeypatch.setattr(files.os, "replace", lambda *args: (calls.append("replace"), replace(*args))[1])
    write_text(tmp_path / "note.txt", "new")
    assert calls.index("fsync") < calls.index("replace")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_an_interruption_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "note.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "note.txt"
    path.write_text("old")
    fill_disk(path)
    with pytest.raises(AumError, match="no space left on the disk while saving .*note.txt") as caught:
        write_text(path, "new" * 10_000)
    assert caught.value.exit_code == 1 and "free some space" in caught.value.fix
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_at_the_last_moment(tmp_path, monkeypatch, number, call):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "note.txt"
    path.write_text("old")
    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(AumError, match="no space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_failing_disk_is_an_error_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(
        files.os, "fsync", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error"))
    )
    with pytest.raises(AumError, match="note.txt: Input/output error") as caught:
        write_text(tmp_path / "note.txt", "new")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("where", ["file/note.txt", "file/deeper/note.txt"])
def test_a_folder_that_cannot_be(tmp_path, where):
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(AumError, match="can't write") as caught:
        write_text(tmp_path / where, "new")
    assert caught.value.exit_code == 2 and "--out" in caught.value.fix
    assert names(tmp_path) == ["file"]


def test_a_path_that_is_a_folder(tmp_path):
    (tmp_path / "note.txt").mkdir()
    with pytest.raises(AumError, match="note.txt"):
        write_text(tmp_path / "note.txt", "new")
    assert names(tmp_path) == ["note.txt"]


def test_json_is_json(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, 2.5, None, "x"]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, 2.5, None, "x"]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"bad": float("nan")})
    assert "ü" in json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))


# what is written to

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no FIFOs, and links only for some")


@posix
@pytest.mark.parametrize("write", [write_text, write_json])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, write, there):
    target, link = tmp_path / "elsewhere" / "real.txt", tmp_path / "link"
    if there:
        target.parent.mkdir()
        target.write_text("old")
    link.symlink_to("elsewhere/real.txt")
    check_writable(link)
    assert not target.exists() or target.read_text() == "old"
    write(link, "new")
    assert os.readlink(link) == "elsewhere/real.txt" and "new" in target.read_text()
    assert names(tmp_path) == ["elsewhere", "link"] and names(target.parent) == ["real.txt"]


@posix
def test_what_a_link_leads_to_survives_an_interruption(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link").symlink_to("real.txt")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "link") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "link").read_text() == "old" and names(tmp_path) == ["link", "real.txt"]


@posix
def test_links_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for function in (check_writable, lambda path: write_text(path, "new")):
        with pytest.raises(AumError, match="can't write .*a: .*symbolic links") as caught:
            function(tmp_path / "a")
        assert caught.value.exit_code == 2
    assert (tmp_path / "a").is_symlink() and names(tmp_path) == ["a", "b"]


@posix
def test_a_fifo_is_written_and_stays(tmp_path):
    path, got = tmp_path / "fifo", []
    os.mkfifo(path)
    check_writable(path)
    for text in ("first", "x" * 200_000):  # more than a pipe holds
        reader = threading.Thread(target=lambda: got.append(path.read_text()))
        reader.start()
        write_text(path, text)
        reader.join(10)
        assert got.pop() == text and stat.S_ISFIFO(os.stat(path).st_mode)
    assert names(tmp_path) == ["fifo"]


@posix
def test_a_failure_hands_nothing_on(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with (
        pytest.raises(ValueError),
        atomic_path(tmp_path / "fifo") as temporary,
    ):  # would wait for a reader if it opened the FIFO
        temporary.write_text("half")
        raise ValueError
    assert names(tmp_path) == ["fifo"]


@posix
def test_devices_stay_devices(tmp_path):
    write_text("/dev/null", "anything")
    (tmp_path / "link").symlink_to("/dev/null")
    write_text(tmp_path / "link", "anything")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and (tmp_path / "link").is_symlink()
    if os.path.exists("/dev/full"):
        with pytest.raises(AumError, match="no space left on the disk while saving /dev/full"):
            write_text("/dev/full", "anything")


@posix
@pytest.mark.parametrize("path", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output(path, capsys):
    if path.startswith("/proc") and not os.path.exists(path):
        pytest.skip("this system has no /proc")
    print("before")
    write_text(path, "grüße\n")
    print("behind")
    assert capsys.readouterr().out == "before\ngrüße\nbehind\n"


@posix
def test_a_descriptor_that_a_shell_opened(tmp_path):
    """What >(command) and 3> FILE give: written where the descriptor stands, nothing before it is cut off."""
    with open(tmp_path / "log", "w") as file:
        file.write("head\n")
        file.flush()
        write_text(f"/dev/fd/{file.fileno()}", "one\n")
        write_text(f"/dev/fd/{file.fileno()}", "two\n")
        file.write("tail\n")
    assert (tmp_path / "log").read_text() == "head\none\ntwo\ntail\n"


@posix
def test_descriptors_are_told_from_files(tmp_path):
    (tmp_path / "out").symlink_to("/dev/stdout")
    assert [*map(descriptor, ("-", "/dev/stdout", "/dev/fd/63", tmp_path / "out"))] == [1, 1, 63, 1]
    for path in ("./-x", "dev/fd/1", "/dev/null", tmp_path / "fd" / "1", f"/proc/{os.getppid()}/fd/1", ""):
        assert descriptor(path) is None
    assert (
        is_stream("/dev/null")
        and not is_stream(tmp_path)
        and not is_stream(tmp_path / "none")
        and not is_stream("a\0b")
    )


# long names


@pytest.mark.parametrize("name", ["x" * 249, "x" * 251 + ".txt", "x" * 255, "é" * 125 + ".wav", "☃" * 85, "😀" * 63])
def test_names_as_long_as_can_be(tmp_path, name):
    path = tmp_path / name
    check_writable(path)
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        assert len(os.fsencode(temporary.name)) < 40
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == [name]


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "😀" * 64])
def test_names_that_are_too_long(tmp_path, name):
    for function in (check_writable, lambda path: write_text(path, "new")):
        with pytest.raises(AumError, match="can't write .*: File name too long") as caught:
            function(tmp_path / name)
        assert caught.value.exit_code == 2 and names(tmp_path) == []


def test_files_beside_one_with_a_long_name(tmp_path):
    short, long, longer = (tmp_path / name for name in ("a.csv", "é" * 120 + ".csv", "é" * 120 + "x.csv"))
    assert beside(short, ".journal") == tmp_path / "a.csv.journal"
    found = {beside(path, ending) for path in (long, longer) for ending in (".journal-1-of-2", ".journal-2-of-2")}
    assert len(found) == 4
    for path in found:
        assert path.parent == tmp_path and path.suffix.startswith(".journal") and path.write_text("x") != 0
        path.name.encode("utf-8")  # no character was cut in its middle
    assert (
        beside(tmp_path / ("x" * 240), ".part-1-of-2", "." * 20).name.startswith("xxx")
        and len(beside(tmp_path / ("x" * 240), ".p", "." * 20).name) < 240
    )
    raw = os.fsdecode(b"\xff" * 250)
    assert len(os.fsencode(beside(tmp_path / raw, ".json").name)) <= 255


# folders that can't be written


@pytest.mark.parametrize(
    "number, code",
    [(errno.EACCES, 2), (errno.EROFS, 2), (errno.EPERM, 2), (errno.ENOSPC, 1), (errno.EIO, 1), (errno.EMFILE, 1)],
)
def test_a_file_that_can_not_be_opened_leaves_the_old_one(tmp_path, monkeypatch, number, code):
    def refuse(path, *args, **kwargs):
        raise OSError(number, os.strerror(number), str(path))

    path = tmp_path / "note.txt"
    path.write_text("old")
    with monkeypatch.context() as patch, pytest.raises(AumError) as caught:
        patch.setattr("pathlib.Path.write_text", refuse)
        write_text(path, "new")
    assert "note.txt" in caught.value.problem and caught.value.exit_code == code and caught.value.fix
    assert path.read_text() == "old" and names(tmp_path) == ["note.txt"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.name == "nt"
        or os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("only root mounts")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(small_disk):
    path = small_disk / "note.txt"
    write_text(path, "old")
    with pytest.raises(AumError, match="no space left on the disk while saving .*note.txt") as caught:
        write_text(path, "x" * 2**17)
    assert caught.value.exit_code == 1 and path.read_text() == "old" and names(small_disk) == ["note.txt"]
    write_text(path, "new")
    assert path.read_text() == "new"


def test_no_place_for_temporary_files(small_disk, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with pytest.raises(AumError, match="no place for temporary files: No space left") as caught:
        write_text("/dev/null", "x" * 2**17)
    assert "TMPDIR" in caught.value.fix and caught.value.exit_code == 1 and names(small_disk) == []
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk / "none"))
    with pytest.raises(AumError, match="no place for temporary files: No such file"), scratch_folder():
        pass


@pytest.mark.parametrize(
    "name, words", [("-", "standard output"), ("results.json", "named like a file"), ("run.PT", "named like a file")]
)
def test_names_that_are_no_folders(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AumError, match=words):
        check_folder(name)
    for good in (None, "runs/v1.5", "mice.2024", "a"):
        check_folder(good)
    os.mkdir("results.json")
    check_folder("results.json")


# whose file it is


@posix
def test_who_may_read_the_old_file_may_read_the_new_one(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "old")
    for mode in (0o600, 0o664, 0o640):
        os.chmod(path, mode)
        write_text(path, "new")
        assert stat.S_IMODE(os.stat(path).st_mode) == mode


@posix
def test_a_protected_file_is_not_replaced(tmp_path):
    path, user = tmp_path / "note.txt", os.geteuid()
    path.write_text("old")
    os.chmod(path, 0o444)
    os.chmod(tmp_path, 0o777)
    folder = os.open(tmp_path, os.O_RDONLY)
    here = os.getcwd()
    try:
        os.chdir(folder)
        os.seteuid(user or 65534)  # root may write all
        for function in (check_writable, lambda name: write_text(name, "new")):
            with pytest.raises(AumError, match="can't write note.txt: Permission denied") as caught:
                function("note.txt")
            assert caught.value.exit_code == 2
    finally:
        os.seteuid(user)
        os.chdir(here)
        os.close(folder)
    assert path.read_text() == "old" and names(tmp_path) == ["note.txt"]


@pytest.mark.parametrize("content", [b"", bytes(100), b"[1]", b'{"a": ', b"\xff\xfe"])
def test_a_damaged_file_of_ours_is_named(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(AumError, match="report.json") as caught:
        read_json(tmp_path / "report.json")
    assert caught.value.exit_code == 1 and "write it again" in caught.value.fix
    with pytest.raises(AumError, match="can't read .*none.json"):
        read_json(tmp_path / "none.json")
    write_json(tmp_path / "report.json", {"a": 1})
    assert read_json(tmp_path / "report.json") == {"a": 1}

"""A crash while writing leaves the old file or the new one."""

import errno
import json
import os

import pytest

from aumcli import files
from aumcli.errors import AumError
from aumcli.files import atomic_path, temporary_path, write_json, write_text


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
        assert not path.exists() and temporary.parent == path.parent     # a rename works only within one file system
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
    monkeypatch.setattr(files.os, "fsync", lambda *args: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
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

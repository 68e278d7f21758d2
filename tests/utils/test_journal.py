"""Results by key in one file: all of a batch or none, whatever happens to the process, the disk or the file."""

import os
import sqlite3

import pytest

from aumcli.errors import AumError
from aumcli.utils import lock
from aumcli.utils.journal import SUFFIX, VERSION, DamagedJournal, Journal

HEADER = {"model": "digits", "top": 5}


def filled(path, header=HEADER, count=200, **how):
    """A closed journal of `count` entries, put ten at a time."""
    with Journal(path, header, **how) as journal:
        for begin in range(0, count, 10):
            journal.put([(key, {"path": f"{key}.wav", "labels": ["x" * 100]}) for key in range(begin, begin + 10)])
    return path


@pytest.mark.parametrize("how", [{}, {"lock": True, "durable": False}])
def test_what_was_put_is_there_again(tmp_path, how):
    path = tmp_path / "in" / "it.journal"
    with Journal(path, HEADER, **how) as journal:
        assert journal.is_new and journal.header == HEADER and journal.get([1, "a"]) == [None, None]
        journal.put([(2, [1.5, None, "é\udce9"]), ("sound\udce9 é", {"a": 1}), (1, "one")])
        journal.put([(2, "two")])
    with Journal(path, {"other": 1}, **how) as journal:
        assert not journal.is_new and journal.header == HEADER
        assert journal.get(["sound\udce9 é", 2, 3]) == [{"a": 1}, "two", None]
        assert list(journal.entries()) == [(1, "one"), (2, "two"), ("sound\udce9 é", {"a": 1})]
    assert os.listdir(path.parent) == [path.name]
    journal = Journal(path, **how)
    journal.remove()
    assert os.listdir(path.parent) == []


def test_a_batch_is_put_as_one(tmp_path):
    with Journal(tmp_path / "j", HEADER) as journal:
        with pytest.raises(TypeError):
            journal.put([(1, "one"), (2, object())])
        journal._db.execute("PRAGMA max_page_count=4")
        with pytest.raises(AumError, match="no space left") as caught:
            journal.put([(key, "x" * 5000) for key in range(20)])
        assert caught.value.exit_code == 1 and not list(journal.entries())
        journal._db.execute("PRAGMA max_page_count=1000")
        journal.put([(1, "one")])
        assert list(journal.entries()) == [(1, "one")]


@pytest.mark.parametrize("count", [0, 7, 199, 200])
def test_the_first_entries_are_kept(tmp_path, count):
    path = filled(tmp_path / "j", lock=True)
    with Journal(path, HEADER, lock=True) as journal:
        journal.keep(count)
        journal.put([(1000, "more")])
    with Journal(path, lock=True) as journal:
        assert [key for key, _ in journal.entries()] == [*range(count), 1000] and journal.header == HEADER


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
        lambda data: data[: len(data) // 2] + b"\xff" * (len(data) // 2),
    ],
)
def test_of_a_damaged_journal_the_beginning_is_kept(tmp_path, damage):
    path = filled(tmp_path / "j", lock=True)
    path.write_bytes(damage(path.read_bytes()))
    with Journal(path, HEADER, lock=True) as journal:
        good = []
        with pytest.raises(DamagedJournal):
            for key, _ in journal.entries():
                good.append(key)
        assert good == [*range(len(good))] and 20 < len(good) < 200
        journal.keep(len(good))
        journal.put([(len(good), "next")])
    with Journal(path, HEADER, lock=True) as journal:
        assert [key for key, _ in journal.entries()] == [*range(len(good) + 1)]


@pytest.mark.parametrize("content", [bytes(9000), b"hello\n", b"SQLite format 3\0" + bytes(4080)])
@pytest.mark.parametrize("lock", [False, True])
def test_another_file_is_replaced_only_where_no_header_is_lost(tmp_path, content, lock):
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(DamagedJournal) as caught:
        Journal(path, HEADER, lock=lock)
    assert str(path) in caught.value.fix and path.read_bytes() == content
    with Journal(path, lock=lock) as journal:
        assert journal.is_new
        journal.put([("a", 1)])
    with Journal(path, lock=lock) as journal:
        assert journal.get(["a"]) == [1]


def test_a_journal_of_another_version(tmp_path):
    path = filled(tmp_path / "j")
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()
    with pytest.raises(DamagedJournal):
        Journal(path, HEADER)
    with Journal(path) as journal:
        assert journal.get([1]) == [None]


def test_what_sqlite_left_of_a_removed_journal_is_ignored(tmp_path):
    path = filled(tmp_path / "j", lock=True)
    with Journal(path, HEADER, lock=True) as journal:
        journal._db.execute("PRAGMA cache_size=1")
        journal._db.execute("BEGIN")
        journal._db.executemany(
            "INSERT OR REPLACE INTO results VALUES (?, ?)", [(key, "1" * 900) for key in range(900)]
        )
        left = path.with_name(path.name + SUFFIX).read_bytes()
    path.unlink()
    path.with_name(path.name + SUFFIX).write_bytes(left)
    with Journal(path, HEADER, lock=True) as journal:
        assert journal.is_new and not list(journal.entries())


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "j"
    with Journal(path, HEADER, lock=True) as journal:
        with pytest.raises(AumError, match="another call") as caught:
            Journal(path, HEADER, lock=True)
        assert caught.value.exit_code == 2
        path.write_bytes(b"damage" * 1000)
        journal._restart()  # the file stays locked
        with pytest.raises(AumError, match="another call"):
            Journal(path, HEADER, lock=True)
    Journal(path, HEADER, lock=True).remove()
    assert not path.exists()


def test_where_nothing_can_be_locked_a_note_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", lambda number: "No locks available")
    with Journal(tmp_path / "j", HEADER, lock=True) as journal:
        assert "No locks available" in journal.notes[0]
        journal.put([(1, 2)])
        assert journal.get([1]) == [2]


def test_where_no_journal_can_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "j", tmp_path / "folder"):
        for how in ({}, {"lock": True}):
            with pytest.raises(AumError, match="can't write") as caught:
                Journal(path, HEADER, **how)
            assert caught.value.exit_code == 2 and caught.value.fix
    with pytest.raises(AumError, match="too long") as caught:
        Journal(tmp_path / ("x" * 250) / ("y" * 250) / "j")
    assert caught.value.exit_code == 2


def test_a_folder_of_any_name(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9 ?mode=ro#1%41") / "j"
    filled(path)
    with Journal(path, lock=True) as journal:
        assert len(list(journal.entries())) == 200 and path.exists()

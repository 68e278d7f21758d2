"""A journal of finished work: key -> JSON value in one SQLite file, kept through interruptions, kills and full disks.

Entries that are put together are one transaction: whatever happens, all of them are there afterwards, or none.
"""

import errno
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

from aumcli.errors import AumError
from aumcli.utils.files import disk_error
from aumcli.utils.lock import LockTaken, open_locked, remove_locked
from aumcli.utils.text import shell_quoted

VERSION = 4  # of what is stored; a journal of another version is not believed
SUFFIX = "-journal"  # of SQLite's own file beside an open journal
MOST_PATH_BYTES = 500  # SQLite opens no file by a longer path, its own suffix included
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: a table is missing
READ_ONLY = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
Key = int | str


class DamagedJournal(AumError):
    """A journal can't be read, or another version of aumcli wrote it."""


class Journal:
    """Entries by key.

    Args:
        path: the file; it is made, and its folder.
        header: how the entries are made. None: their keys say it, so that a damaged journal is simply begun anew.
        lock: refuse a second writer.
        durable: `put` waits for the disk, so that not even a loss of power loses what was put.

    Raises:
        DamagedJournal: it has a header, and can't be read; it is not changed.
        AumError: another process writes it, or it can't be written.
    """

    def __init__(self, path: Path, header: object = None, lock: bool = False, durable: bool = True):
        self.path, self.header, self.is_new = path, header, False
        self.notes: list[str] = []  # sentences for the user
        self._durable, self._lock, self._db = durable, -1, sqlite3.connect(":memory:")
        if len(os.fsencode(path.absolute())) + len(SUFFIX) > MOST_PATH_BYTES:
            raise AumError(
                f"the path is too long for a journal: {path.absolute()}", fix="name a folder with a shorter path"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if lock:
                self._lock, problem = open_locked(path)
                if problem:
                    self.notes.append(
                        f"{path} can't be locked ({problem}): nothing keeps a second call from writing there"
                    )
        except LockTaken as error:
            raise AumError(
                f"another call is writing {path}", fix="wait until it has ended, or name another output"
            ) from error
        except OSError as error:
            raise disk_error(path, error) from error
        try:
            try:
                self._open()
            except DamagedJournal:
                if header is not None:
                    raise
                self._restart()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> None:
        """Open the file, and make the tables where it is empty."""
        self._db.close()
        with self._errors():
            self._db = self._connect()
            self.is_new = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
            if self.is_new:
                _create(self._db, self.header)
                return
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            stored = self._db.execute("SELECT value FROM header").fetchone()
            if version != VERSION or stored is None:
                raise self._damaged()
            self.header = _parsed(stored[0])

    def _connect(self) -> sqlite3.Connection:
        own_lock = self._lock >= 0  # then SQLite needs none, and file systems without locks will do
        uri = self.path.absolute().as_uri() + ("?nolock=1" if own_lock else "")
        database = sqlite3.connect(uri, uri=True, isolation_level=None)
        database.text_factory = bytes
        if own_lock:
            database.execute("PRAGMA writable_schema=ON")  # so that of a file that was cut short the rest is read
            database.execute("PRAGMA locking_mode=EXCLUSIVE")  # nobody else writes: pages stay in memory
        if not self._durable:
            # What a process has written outlives its death, without waiting for the disk. A loss of power may damage
            # the file, or cut it short: then what can't be read is done again, as the reader of a journal does anyway.
            database.execute("PRAGMA synchronous=OFF")
        return database

    def get(self, keys: Iterable[Key]) -> list[object]:
        """What is stored under each key, None where nothing is."""
        keys = list(keys)
        find = "SELECT value FROM results WHERE key = ?"
        try:
            with self._errors():
                found = [self._db.execute(find, (_stored(key),)).fetchone() for key in keys]
                return [None if row is None else _parsed(row[0]) for row in found]
        except DamagedJournal:
            if self.header is not None:
                raise
            self._restart()
            return [None] * len(keys)

    def put(self, items: Sequence[tuple[Key, object]]) -> None:
        """Store (key, value) pairs, values as JSON: after a kill all of them are there, or none."""
        rows = [(_stored(key), json.dumps(value).encode()) for key, value in items]
        try:
            self._put(rows)
        except DamagedJournal:
            if self.header is not None:
                raise
            self._restart()
            self._put(rows)

    def _put(self, rows: Sequence[tuple[int | bytes, bytes]]) -> None:
        with self._errors(), self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)

    def entries(self, first: Key | None = None, last: Key | None = None) -> Iterator[tuple[Key, object]]:
        """All (key, value) pairs, by key; or those from one key to another, both included.

        Raises:
            DamagedJournal: the next one can't be read.
        """
        of_keys, ends = "", []
        if first is not None and last is not None:
            of_keys, ends = "WHERE key BETWEEN ? AND ?", [_stored(first), _stored(last)]
        with self._errors():
            for key, value in self._db.execute(f"SELECT key, value FROM results {of_keys} ORDER BY key", ends):
                yield _key(key), _parsed(value)

    def keep(self, count: int) -> None:
        """Keep the first entries by key, and drop the others, those that can't be read included."""
        with self._errors(), closing(sqlite3.connect("", isolation_level=None)) as kept:  # a file that nobody sees
            _create(kept, self.header)
            first = self._db.execute("SELECT key, value FROM results ORDER BY key LIMIT ?", (count,))
            with kept:
                kept.execute("BEGIN")
                kept.executemany("INSERT INTO results VALUES (?, ?)", first)
            self._db.close()
            self._empty()
            self._db = self._connect()
            kept.backup(self._db)

    def _restart(self) -> None:
        """Put an empty journal in the place of a damaged one: nothing is lost but time."""
        self._db.close()
        self._empty()
        self._open()

    def _empty(self) -> None:
        """Empty the file, which stays locked; SQLite ignores what lies beside an empty one."""
        try:
            os.truncate(self.path, 0)
        except OSError as error:
            raise disk_error(self.path, error) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say what SQLite's errors mean."""
        try:
            yield
        except ValueError as error:  # no JSON, no UTF-8
            raise self._damaged() from error
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more about it
            if code in DAMAGED:
                raise self._damaged() from error
            if code == sqlite3.SQLITE_FULL:
                raise disk_error(self.path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
            if code in READ_ONLY:
                raise disk_error(self.path, OSError(errno.EACCES, str(error))) from error
            raise disk_error(self.path, OSError(errno.EIO, str(error))) from error

    def _damaged(self) -> DamagedJournal:
        return DamagedJournal(
            f"{self.path} is damaged, or another version of aumcli wrote it",
            fix=f"remove it and run the same command again: rm {shell_quoted(self.path)}",
            exit_code=1,
        )

    def close(self) -> None:
        """Close the file; it stays."""
        with suppress(sqlite3.Error):
            self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """All is done: close the file and remove it."""
        self._db.close()
        if self._lock >= 0:
            remove_locked(self.path, partial(os.close, self._lock))
            self._lock = -1
        else:
            self.path.unlink(missing_ok=True)


def _create(database: sqlite3.Connection, header: object) -> None:
    with database:
        database.execute("BEGIN")
        database.execute("CREATE TABLE header (value)")
        database.execute("CREATE TABLE results (key PRIMARY KEY, value) WITHOUT ROWID")
        database.execute("INSERT INTO header VALUES (?)", (json.dumps(header).encode(),))
        database.execute(f"PRAGMA user_version = {VERSION}")


def _stored(key: Key) -> int | bytes:
    """A key as it is stored; names in it may be any bytes."""
    return key if isinstance(key, int) else key.encode("utf-8", "surrogateescape")


def _key(stored: object) -> Key:
    """A key as it was put; a ValueError where it is damaged, as by zeros."""
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "surrogateescape")
    if not isinstance(stored, int):
        raise ValueError(f"{stored!r} is no key")
    return stored


def _parsed(value: object) -> object:
    """A value as it was put; a ValueError where it is damaged."""
    if not isinstance(value, bytes):
        raise ValueError(f"{value!r} is no JSON")
    return json.loads(value)

"""What an interrupted `aum prepare` has already done.

A small SQLite file beside the manifest, removed when all is done.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from aumcli.errors import AumError

NAME = ".prepare.journal"
VERSION = 3  # of what is stored; a journal of another version is not believed


class Journal:
    """Results by key, kept through interruptions and kills.

    Args:
        folder: where it lies; is made.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except (OSError, sqlite3.OperationalError) as error:
            raise AumError(
                f"can't write {self.path}: {error}",
                fix="choose a folder you may write to with --out, or free some space",
                exit_code=1 if "full" in str(error) else 2,
            ) from error

    def _open(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(self.path)
            fits = database.execute("PRAGMA user_version").fetchone()[0] in (0, VERSION)
        except sqlite3.DatabaseError:  # damaged, or something else: nothing is lost but time
            fits = False
        if not fits:
            database.close()
            self.path.unlink(missing_ok=True)
            database = sqlite3.connect(self.path)
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        database.commit()
        return database

    def get(self, keys: Iterable[str]) -> list[object]:
        """What is stored under each key, None where nothing is."""
        keys = list(keys)
        try:
            found = [self._db.execute("SELECT value FROM results WHERE key = ?", (key,)).fetchone() for key in keys]
            return [row and json.loads(row[0]) for row in found]
        except sqlite3.OperationalError as error:
            raise self._unwritable(error) from error
        except (sqlite3.DatabaseError, ValueError):  # damaged within
            self._start_again()
            return [None] * len(keys)

    def put(self, items: Sequence[tuple[str, object]]) -> None:
        """Store (key, value) pairs, values as JSON; they are on disk when this returns."""
        try:
            try:
                self._put(items)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                self._start_again()
                self._put(items)
        except sqlite3.OperationalError as error:
            raise self._unwritable(error) from error

    def _put(self, items: Sequence[tuple[str, object]]) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO results VALUES (?, ?)", [(key, json.dumps(value)) for key, value in items]
        )
        self._db.commit()

    def _start_again(self) -> None:
        """Put an empty journal in the place of a damaged one: nothing is lost but time."""
        self._db.close()
        self.path.unlink(missing_ok=True)
        self._db = self._open()

    def _unwritable(self, error: sqlite3.OperationalError) -> AumError:
        return AumError(
            f"can't write {self.path}: {error}", fix="free some space and run the same command again", exit_code=1
        )

    def close(self) -> None:
        """Close the file; it stays."""
        self._db.close()

    def remove(self) -> None:
        """All is done: close the file and remove it."""
        self._db.close()
        self.path.unlink(missing_ok=True)

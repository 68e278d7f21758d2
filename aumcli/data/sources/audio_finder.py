"""Finding the sounds that a user's table names, anywhere below a folder.

Tables come from other machines: with `\\` between folders, with paths of another disk, without suffixes, in a folder
beside the sounds'. A file is used if exactly one fits best, and a note tells that its path is not the table's.
"""

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from aumcli.data.decoding.audio import AUDIO_SUFFIXES, walk_files
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.errors import AumError

BESIDE = re.compile(
    "meta|annot|label|truth|eval|table|csv|split", re.IGNORECASE
)  # folders of tables, beside those of the sounds


class AudioFinder:
    """Finds the path of each sound that a table names.

    Args:
        folder: relative paths are below it; others are searched for there.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.moved: dict[str, str] = {}  # as the table has it -> where it was found instead
        self.missing: set[str] = set()  # as the table has it
        self._known: dict[str, str] = {}
        self._files: dict[str, list[str]] | None = None  # folded name, or stem -> paths

    def path(self, name: str) -> str:
        """Find a sound; if there is none, return the path that it should have.

        Raises:
            ValueError: several files fit equally well.
        """
        if name not in self._known:
            self._known[name] = str(Path(self._find(name)))  # as a clip's path is spelt
        return self._known[name]

    def of_table(self, table: Path) -> str | None:
        """The sound of a table that names none: night.txt, night.Table.1.selections.txt, night.BirdNET.results.csv.

        Args:
            table: its path.

        Returns:
            night.wav, of several the one whose last folders are most like the table's, then one in a folder above it;
            None where there is none.

        Raises:
            AumError: several are equally alike.
        """
        stem, own = table.name, os.path.abspath(table).split(os.sep)
        while "." in stem:
            stem = stem.rpartition(".")[0]
            fitting = self._index().get(_folded(stem), []) if stem else []
            ranks = {path: (_alike(path, own)[0], _is_above(path, own)) for path in fitting}
            ranked = sorted(ranks, key=lambda path: ranks[path], reverse=True)
            if len(ranked) > 1 and ranks[ranked[0]] == ranks[ranked[1]]:
                raise AumError(
                    f"{table} could be of {ranked[1]} or {ranked[0]}",
                    fix="put it beside its recording, or add a column that names it",
                )
            if ranked:
                return ranked[0]
        return None

    def sounds(self) -> set[str]:
        """The paths of all sounds below the folder."""
        return {path for paths in self._index().values() for path in paths}

    def _find(self, name: str) -> str:
        plain = os.path.join(self.folder, name)
        if os.path.exists(split_dataset(plain)[0]):
            return plain
        parts = [
            part
            for part in re.split(r"[/\\]", name)
            if part not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", part)
        ]
        swapped = os.path.join(self.folder, *parts)
        if "\\" in name and os.path.exists(split_dataset(swapped)[0]):
            self.moved[name] = swapped
            return swapped
        fitting = self._index().get(_folded(parts[-1]), []) if parts else []
        ranked = sorted(((_alike(path, parts), path) for path in fitting), reverse=True)
        if not ranked:
            self.missing.add(name)
            return swapped if "\\" in name else plain
        best = [path for rank, path in ranked if rank == ranked[0][0]]
        if len(best) > 1:
            raise ValueError(f"{name!r} could be {best[1]} or {best[0]}", f"write its path below {self.folder}")
        self.moved[name] = best[0]
        return best[0]

    def _index(self) -> dict[str, list[str]]:
        if self._files is None:
            self._files = self._walk(self.folder)
            if not self._files and BESIDE.search(self.folder.name):
                self._files = self._walk(self.folder.parent)
        return self._files

    @staticmethod
    def _walk(folder: Path) -> dict[str, list[str]]:
        files = defaultdict(list)
        for path in walk_files(folder, unreadable=[]) if folder.is_dir() else ():
            stem, suffix = os.path.splitext(os.path.basename(path))
            if suffix.lower() in AUDIO_SUFFIXES:
                files[_folded(stem + suffix)].append(path)
                files[_folded(stem)].append(path)
        return files


def _folded(name: str) -> str:
    """A name as other systems may write it: in any case, its accents composed or not."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_above(path: str, own: list[str]) -> bool:
    """Whether a sound's folder holds, at any depth, what lies at `own`."""
    folders = path.split(os.sep)[:-1]
    return own[: len(folders)] == folders


def _alike(path: str, parts: list[str]) -> tuple[int, bool]:
    """How many folders, from the end, a path has in common with a table's; and whether its name is exactly the same."""
    own = path.split(os.sep)
    folders = 0
    for one, two in zip(reversed(own[:-1]), reversed(parts[:-1])):
        if _folded(one) != _folded(two):
            break
        folders += 1
    return folders, own[-1] == parts[-1]

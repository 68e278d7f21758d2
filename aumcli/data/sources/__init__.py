"""Corpora that `aum prepare` knows.

The module of a corpus defines `index(request: PrepareRequest) -> CorpusIndex`, which finds or downloads the files and
lists clips and labels. It opens no sound file; `aumcli.prepare` opens all of them, the same way for every corpus.
"""

import hashlib
import importlib
import os
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from aumcli.data.clips import Clip, Clips
from aumcli.data.labels import Label, read_labels
from aumcli.errors import AumError, did_you_mean
from aumcli.utils.csv import listed
from aumcli.utils.text import counted

CORPORA = {  # name -> module
    "annotations": "annotations",
    "as20k": "audioset",
    "ast-json": "ast_json",
    "audioset": "audioset",
    "csv": "table",
    "epic_sounds": "epic_sounds",
    "esc50": "esc50",
    "folder": "folder",
    "fsdd": "fsdd",
    "speechcommands": "speechcommands",
    "synth": "synth",
    "vggsound": "vggsound",
    "voxceleb1": "voxceleb",
}
SPLITS = ("train", "val", "test")
TEST_ONLY = (0, 0, 100)  # --split 0/0/100: nothing is trained on
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
KEPT = {"silent": "whose waveform never changes", "loud": "far above full scale"}  # --set keep=... -> clips
LABEL_TABLE = "class_labels_indices.csv"


@dataclass(frozen=True)
class SkippedClip:
    """A clip or file that could not be used: its path, the reason, and a fix."""

    path: str
    reason: str
    fix: str = ""
    start_s: float | None = None
    stop_s: float | None = None


@dataclass(frozen=True)
class PrepareRequest:
    """The arguments of `prepare`.

    `source` holds the sounds, `annotations` (a file or a folder; None: `source`) the tables about them; `shares` are
    percent of train, val and test, None for the corpus's own; `settings` are what only some corpora have; `keep` says
    which implausible clips are used nevertheless (see `KEPT`).
    """

    corpus: str
    out: Path
    source: Path | None = None
    shares: tuple[float, float, float] | None = None
    seed: int = 0
    annotations: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    keep: frozenset[str] = frozenset()
    channel: str = "mean"  # of sounds with several channels
    earlier: Mapping[str, str] = field(
        default_factory=dict
    )  # path -> split, of an earlier call that drew splits likewise

    def refuse(self, **reasons: str) -> None:
        """Raise an AumError if an option is set that this corpus has no use for.

        Args:
            reasons: option (source, split, seed or annotations) -> why the corpus has no use for it.
        """
        given = {
            "source": self.source is not None,
            "split": self.shares is not None,
            "seed": self.seed != 0,
            "annotations": self.annotations is not None,
        }
        for option, reason in reasons.items():
            if given[option]:
                raise AumError(f"--{option} can't be used with {self.corpus}: {reason}", fix=f"leave --{option} out")

    def known_settings(self, **defaults: str) -> dict[str, str]:
        """The settings with their defaults; an AumError names those that the corpus doesn't have."""
        self.check_settings(defaults)
        return defaults | dict(self.settings)

    def check_settings(self, known: Collection[str]) -> None:
        """Raise an AumError that names the settings that the corpus doesn't have."""
        unknown = [key for key in self.settings if key not in known]
        if unknown:
            raise AumError(
                f"{self.corpus} has no setting {listed(unknown)}; it has {', '.join([*known, 'keep'])}",
                fix="correct --set",
            )

    @property
    def sounds(self) -> Path:
        """The folder of the sounds: `source`, else where the corpus is prepared."""
        return self.out if self.source is None else self.source

    def table(self, names: Sequence[str], get: str) -> Path:
        """Find a file that comes with the corpus.

        Args:
            names: what it may be called.
            get: what to fetch, from whom, and where to put it.

        Returns:
            The first that is there, in `annotations` (or is `annotations` itself), else among the sounds.

        Raises:
            AumError: there is none; it says `get`.
        """
        found = self.optional_table(names)
        if found is None:
            where = self.annotations or self.sounds
            raise AumError(f"{where} has no {' or '.join(names)}", fix=get.format(folder=where))
        return found

    def optional_table(self, names: Sequence[str]) -> Path | None:
        """As `table`, but None where there is none."""
        if self.annotations is not None and self.annotations.is_file():
            return self.annotations if self.annotations.name in names else None
        folders = [self.sounds] if self.annotations is None else [self.annotations, self.sounds]
        paths = [folder / part / name for folder in folders for part in ("", "annotations", "meta") for name in names]
        return next((path for path in paths if path.is_file()), None)


@dataclass(frozen=True)
class CorpusIndex:
    """The clips and labels of a source, before any clip was opened.

    Args:
        clips: those that have a file.
        labels: the classes.
        origin: the source, as it is shown to the user.
        skipped: files that can't be clips.
        missing: clips that the corpus's tables list and that have no file; their paths are what the tables call them.
        warnings: likely mistakes.
        identities: what -> the identity of a clip in this respect, such as speaker -> its group; splits shouldn't share
            any.
        longest_s: the longest that a clip of the corpus can be; longer ones are skipped. None: no limit.
        arrange: gets the usable and the skipped clips, and returns the clips with their splits and further warnings:
            for sources whose splits depend on which clips are usable.
        notes: how the source was understood, and which files were ignored as usual.
        background: folders of sounds of no class, each with its split, "" where that is yet to be chosen.
        events: annotated stretches of the recordings, with their splits, where all of them are known; without labels
            where something unknown is.
        band_hz: the frequencies that annotated events of train have; None: not known.
    """

    clips: Sequence[Clip]
    labels: list[Label]
    origin: str
    skipped: list[SkippedClip] = field(default_factory=list)
    missing: Clips = field(default_factory=Clips)
    warnings: list[str] = field(default_factory=list)
    identities: Mapping[str, Callable[[Clip], str]] = field(default_factory=dict)
    longest_s: float | None = None
    arrange: Callable[[Sequence[Clip], list[SkippedClip]], tuple[Sequence[Clip], list[str]]] | None = None
    notes: list[str] = field(default_factory=list)
    background: list[tuple[Path, str]] = field(default_factory=list)
    events: Clips = field(default_factory=Clips)
    band_hz: tuple[float, float] | None = None


def not_found(path: Path) -> str:
    """Say that a path doesn't exist, with similar names in its folder: "doesn't exist; did you mean x.csv?"."""
    try:
        near = did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        near = ""
    return f"doesn't exist{'; ' + near.strip() if near else ''}"


def names() -> list[str]:
    """Names of all corpora, sorted."""
    return sorted(CORPORA)


def load(corpus: str) -> ModuleType:
    """Import the module of a corpus.

    Args:
        corpus: one of `names()`.

    Returns:
        The module, which has `index(request)`.

    Raises:
        AumError: there is no such corpus.
    """
    if corpus not in CORPORA:
        raise AumError(
            f"unknown corpus {corpus!r}; known are {', '.join(names())}",
            fix=f"{did_you_mean(corpus, names())}for your own sounds: aum prepare folder DIR, "
            "with one sub-folder per class",
        )
    return importlib.import_module(f"{__name__}.{CORPORA[corpus]}")


def labels_for(request: PrepareRequest, ids: Iterable[str]) -> list[Label]:
    """Classes of a corpus: in the order of a class_labels_indices.csv where one is given, else sorted.

    Args:
        request: may have such a table among its annotations.
        ids: names of all classes that clips have.

    Raises:
        AumError: the table lacks a class.
    """
    ids = sorted(set(ids))
    first: dict[str, str] = {}
    for name in ids:
        if (other := first.setdefault(unicodedata.normalize("NFC", name), name)) != name:
            raise AumError(
                f"two labels look the same and are written with different characters: {other!a} and {name!a}",
                fix="write both in the same way",
            )
    table = request.optional_table([LABEL_TABLE, f"{request.corpus}_{LABEL_TABLE}"])
    if table is None:
        return [Label(place, name, name) for place, name in enumerate(ids)]
    labels = [Label(label.index, label.name, label.name) for label in read_labels(table)]
    unknown = sorted(set(ids) - {label.name for label in labels})
    if unknown:
        raise AumError(
            f"{table} lacks {counted(len(unknown), 'class')}: {listed(unknown)}",
            fix=f"take the table that belongs to {request.corpus}, or remove it",
        )
    return labels


def hash_percent(identity: str, seed: int) -> float:
    """A number from 0 to 100 that is derived from the hash of a name."""
    return (
        int.from_bytes(hashlib.sha256(f"{seed}:{identity}".encode("utf-8", "surrogateescape")).digest()[:8], "big")
        / 2**64
        * 100
    )


def split_by_hash(identity: str, shares: tuple[float, float, float], seed: int) -> str:
    """Derive a split from the hash of what may not be divided, such as a speaker, by percent of train, val, test."""
    place = hash_percent(identity, seed)
    return "train" if place < shares[0] else "val" if place < shares[0] + shares[1] else "test"


def no_val_warning(request: PrepareRequest, val: float) -> list[str]:
    """A warning for corpora that come without a validation split, unless `val` percent of train become one."""
    return (
        []
        if val
        else [
            f"{request.corpus} comes without a validation split: --set val=5 takes 5 % of the training videos; "
            "the published runs chose the best epoch on the test split (data.val=test)"
        ]
    )

"""Sounds of no class, which can be added to any corpus: what a model shall answer with nothing."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from aumcli.data.clips import Clip
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, audio_info, walk_files
from aumcli.data.sources import SPLITS
from aumcli.errors import AumError
from aumcli.utils.text import counted

FOLDER = "_background"  # beside the folders of the classes
SLICE_S = 10.0  # longer recordings are cut into pieces of this length
MANY_SLICES = 10  # of a recording that is shared among the splits
SHARES = (80.0, 10.0, 10.0)  # percent of train, val, test


def background_clips(folders: Iterable[tuple[Path, str]]) -> list[Clip]:
    """The sounds below some folders, without labels; long ones in slices.

    Args:
        folders: each with the split of its sounds, "" where that is yet to be chosen.

    Raises:
        AumError: a folder can't be listed, or there are no sounds.
    """
    clips: list[Clip] = []
    for folder, split in folders:
        files = [Path(path) for path in walk_files(folder) if Path(path).suffix.lower() in AUDIO_SUFFIXES]
        if not files:
            raise AumError(
                f"{folder} holds no sounds of no class", fix=f"put sounds there ({', '.join(sorted(AUDIO_SUFFIXES))})"
            )
        for path in files:
            clips += _slices(Path(os.path.abspath(path)), split)
    return clips


def _slices(path: Path, split: str) -> list[Clip]:
    """A recording as clips of SLICE_S; what is left at its end belongs to the last one."""
    try:
        slices = int(audio_info(path).duration_s / SLICE_S)
    except AumError:
        slices = 0  # whoever opens the clip says why it can't be read
    if slices < 2:
        return [Clip(path, split=split)]
    starts = [SLICE_S * i for i in range(slices)]
    return [Clip(path, start, stop, split=split) for start, stop in zip(starts, [*starts[1:], None])]


def with_splits(clips: Sequence[Clip], splits: Iterable[str], shares: tuple[float, float, float] | None) -> list[Clip]:
    """The clips with splits, those that the corpus has.

    A recording of many slices is cut where a share of it ends, so that every split has some of it; the split of
    another follows from a hash of its name. So what was in a split stays there when more recordings are added.

    Args:
        clips: those that have a split keep it.
        splits: of the corpus.
        shares: wanted percent of train, val and test; None: SHARES.
    """
    wanted = {name: share for name, share in zip(SPLITS, shares or SHARES) if name in {*splits} and share}
    wanted = wanted or {"train": 1.0}
    ends = dict(zip(wanted, accumulate(share / sum(wanted.values()) for share in wanted.values())))
    slices = Counter(clip.path for clip in clips)
    placed, seen = [], Counter[Path]()
    for clip in clips:
        many = slices[clip.path] >= MANY_SLICES
        digest = hashlib.sha256(clip.path.name.encode("utf-8", "surrogateescape")).digest()
        place = (seen[clip.path] + 0.5) / slices[clip.path] if many else int.from_bytes(digest[:6], "big") / 2**48
        seen[clip.path] += 1
        split = next((name for name, end in ends.items() if place < end), [*ends][-1])
        placed.append(clip if clip.split else replace(clip, split=split))
    if "train" in wanted and not any(clip.split == "train" for clip in placed):  # a few short recordings
        placed = [clip if own.split else replace(clip, split="train") for own, clip in zip(clips, placed)]
    return placed


def background_note(clips: Sequence[Clip]) -> list[str]:
    """How many there are."""
    files = len({clip.path for clip in clips})
    return [f"{counted(len(clips), 'clip')} of no class, of {counted(files, 'file')}"] if clips else []

"""Sounds of no class, which can be added to any corpus: what a model shall answer with nothing."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from aumcli.data.clips import Clip
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, audio_info, walk_files
from aumcli.data.sources import SPLITS
from aumcli.errors import AumError
from aumcli.utils.text import counted

FOLDER = "_background"  # beside the folders of the classes
SLICE_S = 10.0  # longer recordings are cut into pieces of this length
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def background_clips(folders: Iterable[Path]) -> list[Clip]:
    """The sounds below some folders, without labels and splits; long ones in slices.

    Raises:
        AumError: a folder can't be listed, or there are no sounds.
    """
    clips: list[Clip] = []
    for folder in folders:
        files = [Path(path) for path in walk_files(folder) if Path(path).suffix.lower() in AUDIO_SUFFIXES]
        if not files:
            raise AumError(
                f"{folder} holds no sounds of no class", fix=f"put sounds there ({', '.join(sorted(AUDIO_SUFFIXES))})"
            )
        for path in files:
            clips += _slices(Path(os.path.abspath(path)))
    return clips


def _slices(path: Path) -> list[Clip]:
    """A recording as clips of SLICE_S; what is left at its end belongs to the last one."""
    try:
        slices = int(audio_info(path).duration_s / SLICE_S)
    except AumError:
        slices = 0  # whoever opens the clip says why it can't be read
    if slices < 2:
        return [Clip(path)]
    starts = [SLICE_S * i for i in range(slices)]
    return [Clip(path, start, stop) for start, stop in zip(starts, [*starts[1:], None])]


def with_splits(clips: Sequence[Clip], splits: Iterable[str]) -> list[Clip]:
    """The clips with those of the splits that the corpus has, one piece of the list each.

    So a recording is in two splits at most, and then cut in one place.
    """
    shares = {name: SHARES[name] for name in SPLITS if name in {*splits}} or {"train": 1.0}
    total, done, ends = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        done += share / total
        ends[name] = round(done * len(clips))
    return [replace(clip, split=next(name for name, end in ends.items() if i < end)) for i, clip in enumerate(clips)]


def background_note(clips: Sequence[Clip]) -> list[str]:
    """How many there are."""
    files = len({clip.path for clip in clips})
    return [f"{counted(len(clips), 'clip')} of no class, of {counted(files, 'file')}"] if clips else []

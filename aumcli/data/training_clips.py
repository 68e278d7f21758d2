"""Which clips a model was trained on, as 8-byte hashes in its run, to warn when it is tested on them.

A clip is identified by the names of its file and of the file's folder, by the file's size, and by its times where it is
a slice: corpora may be moved and prepared again. A converted copy is not recognised.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clip, Clips
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.errors import AumError
from aumcli.utils.files import atomic_path
from aumcli.utils.text import counted

TRAINING_CLIPS = "train-clips.npy"


def clip_hashes(clips: Sequence[Clip]) -> np.ndarray:
    """Hash each clip: (clips,) uint64."""
    columns, sizes = Clips.of(clips).columns(), {}
    hashes = np.empty(len(clips), dtype=np.uint64)
    for i, (path, start_s, stop_s) in enumerate(zip(columns["path"], columns["start_s"], columns["stop_s"])):
        file, name = split_dataset(path)
        file = os.fspath(file)
        if file not in sizes:
            sizes[file] = _bytes_of(file)
        folder, own = os.path.split(file)
        text = f"{os.path.basename(folder)}/{own}/{name} {sizes[file]} {start_s} {stop_s}"
        hashes[i] = int.from_bytes(
            hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little"
        )
    return hashes


def _bytes_of(file: str) -> int:
    try:
        return os.stat(file).st_size
    except OSError:  # streamed from shards, or gone: opening it raises the error
        return -1


def write_training_clips(folder: Path, clips: Sequence[Clip], before: np.ndarray | None) -> None:
    """Write the hashes of a run's training clips, joined with those of the weights that it starts from (`before`)."""
    hashes = clip_hashes(clips)
    hashes = np.unique(hashes if before is None else np.concatenate([hashes, before]))
    with atomic_path(folder / TRAINING_CLIPS) as temporary, open(temporary, "wb") as file:
        np.save(file, hashes, allow_pickle=False)


def read_training_clips(model: Path | str | None) -> np.ndarray | None:
    """Read the hashes of the clips that a run, or a model directory in a run, was trained on.

    Returns:
        (clips,) uint64; None where they are not known.

    Raises:
        AumError: the file is damaged.
    """
    for folder in (Path(model), Path(model).parent) if model else ():
        path = folder / TRAINING_CLIPS
        if path.is_file() and (folder / "recipe.toml").is_file():
            try:
                hashes: np.ndarray = np.load(path, allow_pickle=False).astype(np.uint64)
                return hashes
            except (OSError, ValueError) as error:
                raise AumError(
                    f"can't read {path}: {error}",
                    fix="remove it; then there is no warning when training clips are tested on",
                    exit_code=1,
                ) from error
    return None


def seen_in_training(trained_on: np.ndarray | None, clips: Sequence[Clip], model: Path | str, split: str) -> list[str]:
    """A warning if a model was trained on clips of the split, by the hashes of `read_training_clips`."""
    if trained_on is None or not len(clips):
        return []
    known = int(np.isin(clip_hashes(clips), trained_on).sum())
    return (
        [
            f"{model} was trained on {known:,} of the {counted(len(clips), 'clip')} of the {split} "
            "split, so its figures there say nothing about new sounds"
        ]
        if known
        else []
    )

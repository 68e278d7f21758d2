"""Which clips of a corpus are trained on, which choose the epoch, which are tested."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aumcli.config import DataConfig
from aumcli.data.clips import Clip, Clips
from aumcli.data.datasets.shards import ShardIndex
from aumcli.data.datasets.stream import local_folder
from aumcli.data.manifest import Manifest, read_manifest
from aumcli.data.share import validation_subset
from aumcli.errors import AumError
from aumcli.recipe import Recipe
from aumcli.utils.csv import listed
from aumcli.utils.text import shell_quoted

SHOWN_GROUPS = 12  # a corpus may have millions


def split_clips(manifest: Manifest, split: str, test_group: str) -> list[Clip]:
    """Clips of a split.

    Where a group was held out from training, all of its clips are the test split and no other's.
    """
    if not test_group:
        return manifest.split(split)
    groups = {clip.group for clip in manifest.clips}
    if test_group not in groups:
        known = listed(sorted(groups - {""}), SHOWN_GROUPS)
        raise AumError(
            f"{manifest.folder} has no group {test_group!r} to hold out",
            fix=f"data.test_group can be one of: {known or 'none, this corpus has no groups'}",
        )
    if split == "test":
        return [clip for clip in manifest.clips if clip.group == test_group]
    clips = [clip for clip in manifest.split(split) if clip.group != test_group]
    if not clips:
        raise AumError(
            f"without the group {test_group!r} nothing is left of the split {split!r} of {manifest.folder}",
            fix="hold out another group, or prepare the corpus with more groups in each split",
        )
    return clips


def corpus_folder(recipe: Recipe, data: Path | str | None) -> Path:
    """The prepared folder that a training reads.

    `data`, else data/<the recipe's corpus>; of the URL of shards, data/NAME.

    Raises:
        AumError: neither is given.
    """
    if data is None and recipe.data.corpus is None:
        raise AumError("the recipe names no corpus and no data was given", fix="name prepared data with --data")
    return local_folder(data or Path("data") / recipe.data.corpus)


def open_corpus(recipe: Recipe, data: Path | str | None) -> Manifest:
    """Read the corpus that a training is about.

    Raises:
        AumError: it is not prepared, or its manifest is wrong.
    """
    folder = corpus_folder(recipe, data)
    if data is None and not (folder / "manifest.csv").exists():
        raise AumError(
            f"{folder} is not a prepared corpus: it has no manifest.csv",
            fix=f"run `aum prepare {recipe.data.corpus}`, or name a prepared folder with --data",
        )
    return read_manifest(folder)


def training_splits(manifest: Manifest, config: DataConfig) -> tuple[Sequence[Clip], Sequence[Clip]]:
    """Clips to train on and clips that choose the best epoch.

    The latter are the corpus' validation split. A corpus without one keeps a share of its training split back instead
    of choosing on the split that it is tested on (see `aumcli.data.share`).

    Args:
        manifest: the prepared corpus.
        config: train, val, val_fraction and test_group are read.

    Raises:
        AumError: a split is missing or nothing is left of it.
    """
    if config.train not in manifest.split_names:
        raise AumError(
            f"{manifest.folder} has no clips to train on, which are the split {config.train!r}; it has "
            f"{listed(manifest.split_names)}",
            fix="prepare the sounds with a split to train on: --split 80/10/10; or, to test a model on these: "
            f"aum eval MODEL --data {shell_quoted(manifest.folder)}",
        )
    clips = split_clips(manifest, config.train, config.test_group)
    if not config.val_fraction:
        return clips, split_clips(manifest, config.val, config.test_group)
    clips = Clips.of(clips)
    kept = validation_subset(clips, config.val_fraction)  # (clips,)
    if not kept.any():
        raise AumError(
            f"the split {config.train!r} of {manifest.folder} is one group: no share of it can be kept out of training",
            fix="prepare more sounds, or name a validation split: --set data.val_fraction=0 --set data.val=NAME",
        )
    return clips.take(np.flatnonzero(~kept)), clips.take(np.flatnonzero(kept))


def reported_clips(manifest: Manifest, config: DataConfig, index: ShardIndex | None = None) -> int:
    """How many clips there are to report results on; 0 where the corpus has no such split.

    Args:
        manifest: the prepared corpus.
        config: test and test_group are read.
        index: the shards that are streamed, where there are no sound files.
    """
    if config.test_group:
        return manifest.clips.columns()["group"].count(config.test_group)
    return int(manifest.clips.is_of_split(config.test).sum()) if index is None else index.splits.get(config.test, 0)

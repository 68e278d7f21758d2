"""Which clips of a corpus are trained on, which choose the best epoch, which are tested."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from aumcli.config import DataConfig
from aumcli.data.clips import Clip, Clips
from aumcli.data.datasets.shards import ShardIndex
from aumcli.data.manifest import Manifest
from aumcli.errors import AumError
from aumcli.utils.csv import listed
from aumcli.utils.text import shell_quoted

SHOWN_GROUPS = 12  # a corpus may have millions
SLACK = 1.2  # a validation share may grow to this many times its size, since groups are not divided


def split_clips(manifest: Manifest, split: str, test_group: str) -> Clips:
    """Clips of a split.

    Where a group is tested on, its clips are the test split and belong to no other.
    """
    if not test_group:
        return manifest.split(split)
    groups = np.array(manifest.clips.columns()["group"])  # (clips,)
    if test_group not in groups:
        known = listed(sorted({*groups.tolist()} - {""}), SHOWN_GROUPS)
        raise AumError(
            f"{manifest.folder} has no group {test_group!r} to test on",
            fix=f"data.test_group can be one of: {known or 'none, this corpus has no groups'}",
        )
    if split == "test":
        return manifest.clips.take(np.flatnonzero(groups == test_group))
    manifest.split(split)  # which must exist
    clips = manifest.clips.take(np.flatnonzero(manifest.clips.is_of_split(split) & (groups != test_group)))
    if not clips:
        raise AumError(
            f"without the group {test_group!r} nothing is left of the split {split!r} of {manifest.folder}",
            fix="test on another group, or prepare the corpus with more groups in each split",
        )
    return clips


def training_splits(manifest: Manifest, config: DataConfig) -> tuple[Clips, Clips]:
    """Clips to train on and clips that choose the best epoch.

    The latter are the corpus' validation split. Of a corpus without one, a share of the training split is kept out of
    training instead, so that the epoch is not chosen on the split that is tested on.

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
    is_val = validation_subset(clips, config.val_fraction)  # (clips,)
    if not is_val.any():
        raise AumError(
            f"the split {config.train!r} of {manifest.folder} is one group: no share of it can be kept out of training",
            fix="prepare more sounds, or name a validation split: --set data.val_fraction=0 --set data.val=NAME",
        )
    return clips.take(np.flatnonzero(~is_val)), clips.take(np.flatnonzero(is_val))


def validation_subset(clips: Sequence[Clip], fraction: float) -> np.ndarray:
    """Choose groups, or files where no groups are known, so that none is both trained on and validated on.

    Groups are taken in the order of a hash of their names: the choice depends on the corpus alone. Those that would
    make the subset much larger than asked for are skipped, unless only such are left: then the smallest are taken.

    Args:
        clips: of the training split.
        fraction: of them, 0 to 1.

    Returns:
        (clips,) bool: those to validate on; none if all clips are of one group.
    """
    groups = [_group(clip) for clip in clips]
    chosen = _choose_groups(Counter(groups), fraction * len(groups))
    return np.array([group in chosen for group in groups], dtype=bool)


def _choose_groups(sizes: Mapping[str, int], wanted: float) -> set[str]:
    """Groups that have as many clips as wanted; one group at least stays out."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    chosen: set[str] = set()
    count = 0
    for name in order[:-1]:
        if count < wanted and count + sizes[name] <= SLACK * wanted:
            chosen.add(name)
            count += sizes[name]
    rest = sorted((name for name in order if name not in chosen), key=sizes.__getitem__)
    for name in rest[:-1]:
        if count < wanted:
            chosen.add(name)
            count += sizes[name]
    return chosen


def _group(clip: Clip) -> str:
    """Who or what was recorded; where that is unknown, the file, by a name that doesn't tell where the corpus lies."""
    return clip.group or f"{clip.path.parent.name}/{clip.path.name}"


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

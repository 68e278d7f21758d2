"""Which training clips are kept back to choose the best epoch, where a corpus has no validation split."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from aumcli.data.clips import Clip

SLACK = 1.2  # a share may grow to so many times what was asked for, since groups stay whole


def validation_subset(clips: Sequence[Clip], share: float) -> np.ndarray:
    """Choose whole groups, or files where nothing is known about groups, so that nobody is on both sides.

    Groups are taken in the order of a hash of their names: the choice depends on the corpus alone. Those that would
    make the share much larger than asked for are passed over, unless only such are left: then the smallest are taken.

    Args:
        clips: of the training split.
        share: of them, 0 to 1.

    Returns:
        (clips,) bool: those to keep back; none if all clips are of one group.
    """
    groups = [_group(clip) for clip in clips]
    kept = _choose(Counter(groups), share * len(groups))
    return np.array([group in kept for group in groups], dtype=bool)


def _choose(sizes: Mapping[str, int], wanted: float) -> set[str]:
    """Groups that have as many clips as wanted; one group at least stays out."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    kept: set[str] = set()
    count = 0
    for name in order[:-1]:
        if count < wanted and count + sizes[name] <= SLACK * wanted:
            kept.add(name)
            count += sizes[name]
    rest = sorted((name for name in order if name not in kept), key=sizes.__getitem__)
    for name in rest[:-1]:
        if count < wanted:
            kept.add(name)
            count += sizes[name]
    return kept


def _group(clip: Clip) -> str:
    """Who or what was recorded; where that is unknown, the file, by a name that doesn't tell where the corpus lies."""
    return clip.group or f"{clip.path.parent.name}/{clip.path.name}"

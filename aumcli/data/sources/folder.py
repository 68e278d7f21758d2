"""The user's own sounds: a folder with one sub-folder per class, or with train, val and test holding those.

A sub-folder `_background` has sounds of no class (see `aumcli.data.sources.background`).

The files stay where they are. Without split folders, the split of a file follows from its content: the sounds of a
class are ranked by a hash, so the same sounds give the same splits on any machine and under any name, and identical
files never stand on both sides. Known groups, such as speakers, are not divided. A later call with more
sounds leaves those that had a split where they were.
"""

import hashlib
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clip
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, is_ignored, walk_files
from aumcli.data.duplicates import content_digest, distinguish_silent, duplicate_warnings
from aumcli.data.sources import (
    LABEL_TABLE,
    SPLIT_NAMES,
    SPLITS,
    CorpusIndex,
    PrepareRequest,
    SkippedClip,
    labels_for,
    not_found,
)
from aumcli.data.sources.background import FOLDER
from aumcli.errors import AumError
from aumcli.utils.csv import csv_reader, listed, sniff
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, plural, shell_quoted, shown

SHARES = (80.0, 10.0, 10.0)  # percent of train, val, test
ALL_TESTED = {"test": 1.0}
LAYOUT = "expected is one sub-folder per class, at least two: DIR/dog/1.wav, DIR/cat/2.flac, ..."
GROUPS = (
    "what stays in one split, such as a speaker: --set group=folder for the folders below the class's; "
    "--set 'group=^([^_]+)_' for what stands before the first _ in the file's name; "
    "or --set group=TABLE.csv with the columns path and group"
)
OWN_FILES = ("manifest.csv", "manifest.parquet", "labels.csv", "report.json", "missing.csv", "annotated_events.csv")


def index(request: PrepareRequest) -> CorpusIndex:
    """List the sounds of a folder, labelled by sub-folder.

    Args:
        request: `source` is the folder.

    Returns:
        Its clips; where there are no split folders, `arrange` chooses the splits. Classes are in the order of a
        class_labels_indices.csv in the folder, else sorted.

    Raises:
        AumError: the layout is another, a class is empty, or has a name that can't be a class's.
    """
    group = request.known_settings(group="")["group"]
    request.refuse(annotations="a sound's class is its folder")
    root = request.source
    if root is None:
        raise AumError("which folder? None was given", fix="aum prepare folder DIR")
    root = Path(os.path.abspath(root))
    if not root.is_dir():
        raise AumError(
            f"{root} {'is not a folder' if root.exists() else not_found(root)}",
            fix="aum prepare folder DIR; " + LAYOUT,
        )
    if request.out != root and request.out.is_relative_to(root):
        raise AumError(f"{request.out} lies inside {root} and would look like a class", fix="choose another --out")
    parents = _split_folders(root)
    if parents and request.shares:
        raise AumError(
            f"--split can't be used with {root}: it has split folders ({', '.join(parents)})",
            fix="leave --split out, or point at a folder without them",
        )
    found = _Found()
    for split, parent in (parents or {"": root}).items():
        _class_folders(parent, split, found)
    clips, skipped = _grouped(found.clips, group, root, parents), found.skipped + found.unreadable
    warnings = found.warnings + _same_names(parents.values() or [root])
    classes = sorted({clip.labels[0] for clip in clips})
    if len(classes) < 2:
        raise AumError(
            f"{root} has {counted(len(classes), 'class folder')} with sounds{': ' + classes[0] if classes else ''}"
            + "".join(f"; {item.reason}" for item in found.unreadable[:3]),
            fix=_readable(root) if found.unreadable else LAYOUT,
            exit_code=1 if found.unreadable else 2,
        )
    shares = dict(zip(SPLITS, request.shares or SHARES))
    carved = [split for split in SPLITS[1:] if split not in parents and shares[split] > 0]
    if parents and carved:
        warnings.append(
            f"{root} has no folder for {' and '.join(carved)}: taken from train, "
            + ", ".join(f"{shares[split]:g} % for {split}" for split in carved)
        )
    labels = labels_for(request, classes)
    arrange = partial(
        _arrange,
        shares={split: shares[split] / 100 for split in carved},
        classes=classes,
        seed=request.seed,
        silent="silent" in request.keep,
        earlier=request.earlier,
    )
    return CorpusIndex(
        clips,
        labels,
        str(root),
        skipped,
        warnings=warnings,
        arrange=arrange,
        identities={"group": lambda clip: clip.group} if group else {},
        notes=_ignored_note(found.ignored, root) + _group_note(clips, group),
        background=found.background,
    )


@dataclass
class _Found:
    """What the class folders hold."""

    clips: list[Clip] = field(default_factory=list)
    skipped: list[SkippedClip] = field(default_factory=list)
    unreadable: list[SkippedClip] = field(default_factory=list)  # folders
    warnings: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)  # hidden, or the system's
    background: list[tuple[Path, str]] = field(default_factory=list)  # folders of sounds of no class, and their split


def _ignored_note(paths: list[str], root: Path) -> list[str]:
    """A note about hidden files and those of the system."""
    if not paths:
        return []
    return [
        f"ignored, hidden or the system's: {len(paths)}, "
        + listed(shown(str(Path(path).relative_to(root))) for path in sorted(paths))
    ]


def _entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise AumError(
            f"{shown(str(folder))} can't be listed: {error.strerror or error}", fix=_readable(folder), exit_code=1
        ) from error


def _readable(folder: Path | str) -> str:
    """What makes a folder readable."""
    return f"chmod -R u+rX {shell_quoted(folder)}, or move it away"


def _sub_folders(folder: Path) -> list[Path]:
    return [
        path
        for path in _entries(folder)
        if os.path.isdir(path) and not is_ignored(path.name) and not os.path.exists(path / "shards.json")
    ]  # our own, where sounds lie in the data folder


def _split_folders(root: Path) -> dict[str, Path]:
    """Split -> folder, if the sub-folders are splits; empty if they are classes."""
    folders = _sub_folders(root)
    if not folders:
        raise AumError(f"{root} has no sub-folders", fix=LAYOUT)
    splits = defaultdict(list)
    for folder in folders:
        splits[SPLIT_NAMES.get(folder.name.lower())].append(folder)
    others = splits.pop(None, [])
    if "train" not in splits or not _sub_folders(splits["train"][0]):
        return {}  # a class may be called train: those, or dogs that one trains
    if others and len(splits) == 1:
        return {}
    if others:
        raise AumError(
            f"{root} has split folders ({listed(path.name for same in splits.values() for path in same)}) beside "
            f"others ({listed(path.name for path in others)})",
            fix="move the others away",
        )
    for split, same in splits.items():
        if len(same) > 1:
            raise AumError(
                f"{root} has several folders for {split}: {listed(path.name for path in same)}",
                fix="keep one of them, or put their classes together",
            )
    return {split: splits[split][0] for split in SPLITS if split in splits}


def _class_folders(parent: Path, split: str, found: _Found) -> None:
    """Add the clips of the class folders in `parent`, sounds without a class, and warnings about other files."""
    other = []
    for path in _entries(parent):
        if is_ignored(path.name):
            found.ignored.append(str(path))
        elif os.path.isdir(path):
            continue
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            found.skipped.append(
                SkippedClip(
                    shown(str(path)),
                    "lies beside the class folders, so it has no class",
                    "move it into the folder of its class",
                )
            )
        elif path.name not in (*OWN_FILES, LABEL_TABLE):
            other.append(path)
    for folder in _sub_folders(parent):
        if folder.name == FOLDER:
            found.background.append((folder, split))
            continue
        unreadable: list[OSError] = []
        files = sorted(map(Path, walk_files(folder, found.ignored, unreadable)))
        for error in unreadable:
            name = shown(str(error.filename))
            reason = f"{name} can't be listed: {error.strerror or error}"
            found.unreadable.append(SkippedClip(name, reason, _readable(error.filename)))
        sounds = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
        other += [path for path in files if path.suffix.lower() not in AUDIO_SUFFIXES]
        _check_class(folder, sounds or unreadable, split)
        found.clips += [Clip(path, labels=(class_name(folder),), split=split) for path in sounds]
    if other:
        are_none = plural(len(other), "is not a sound and was", "are not sounds and were")
        found.warnings.append(
            f"{counted(len(other), 'file')} in {parent} {are_none} ignored: "
            + listed(shown(str(path.relative_to(parent))) for path in other)
        )


def _check_class(folder: Path, sounds: Sequence[object], split: str) -> None:
    if ";" in folder.name or folder.name != folder.name.strip():
        raise AumError(
            f"{folder} can't be the name of a class: it contains ';' or begins or ends with a space",
            fix="rename the folder",
        )
    if not sounds and not split:
        raise AumError(
            f"the class folder {folder} holds no sounds",
            fix=f"put sounds there ({', '.join(sorted(AUDIO_SUFFIXES))}), or move it away",
        )


def class_name(folder: Path) -> str:
    """The class that a folder stands for: its name, where an é is one character however it was typed;
    see `aumcli.utils.text.shown`.
    """
    return unicodedata.normalize("NFC", shown(folder.name))


def _same_names(parents: Iterable[Path]) -> list[str]:
    """A warning where folders that look the same and are not became one class: macOS writes é as e and an accent."""
    spelt = defaultdict(set)
    for parent in parents:
        for folder in _sub_folders(parent):
            spelt[class_name(folder)].add(folder.name)
    same = [
        f"{name} ({' and '.join(map(ascii, sorted(names)))})" for name, names in sorted(spelt.items()) if len(names) > 1
    ]
    return (
        [
            "folders that look the same, and whose names are written with different characters, are one class each: "
            f"{listed(same)}"
        ]
        if same
        else []
    )


def _grouped(clips: list[Clip], group: str, root: Path, parents: dict[str, Path]) -> list[Clip]:
    """The clips with their groups, as `--set group=` says.

    Args:
        clips: of all classes.
        group: "" for none; `folder`, the folder below the class's; a table with the columns path and group; or a
            regular expression whose first parentheses find the group in the path below the class folder.
        root: what the table's paths are relative to.
        parents: split folders.

    Raises:
        AumError: a clip has no group, or the setting is none of these.
    """
    if not group:
        return clips
    bases = [*parents.values()] or [root]
    below = [
        next("/".join(clip.path.relative_to(base).parts[1:]) for base in bases if clip.path.is_relative_to(base))
        for clip in clips
    ]
    if Path(group).suffix.lower() in (".csv", ".tsv"):
        with csv_reader(
            Path(group),
            ("path", "group"),
            dialect=sniff(Path(group), lambda header: len({"path", "group"} & set(header))),
        ) as (reader, header):
            places = header.index("path"), header.index("group")
            known = {row[places[0]]: row[places[1]].strip() for row in reader if len(row) > max(places)}
        names = [known.get(clip.path.relative_to(root).as_posix()) or known.get(clip.path.name) or "" for clip in clips]
        what = f"{group} has no row with a group for"
    else:
        expression = "([^/]+)/" if group == "folder" else group
        try:
            pattern = re.compile(expression)
        except re.error as error:
            raise AumError(f"--set group={group} is not a regular expression: {error}", fix=GROUPS) from error
        if not pattern.groups:
            raise AumError(f"--set group={group} has no parentheses around what is the group", fix=GROUPS)
        names = [(match[1] or "") if (match := pattern.search(name)) else "" for name in below]
        what = (
            "there is no folder between the class's and"
            if group == "folder"
            else f"--set group={group} finds no group in"
        )
    if without := [shown(str(clip.path.relative_to(root))) for clip, name in zip(clips, names) if not name]:
        raise AumError(f"{what} {len(without):,} of {counted(len(clips), 'clip')}: {listed(without)}", fix=GROUPS)
    return [replace(clip, group=name) for clip, name in zip(clips, names)]


def _group_note(clips: list[Clip], group: str) -> list[str]:
    """A note that names the groups, so that a wrong pattern is seen."""
    names = sorted({clip.group for clip in clips})
    return [f"{counted(len(names), 'group')}, each in one split: {listed(names)}"] if group else []


def _arrange(
    clips: list[Clip],
    skipped: list[SkippedClip],
    shares: dict[str, float],
    classes: list[str],
    seed: int,
    silent: bool,
    earlier: Mapping[str, str],
) -> tuple[list[Clip], list[str]]:
    """Give splits to the usable clips: those without one, and those of train where val or test have no folder.

    Args:
        clips: usable clips; split "" or the one of the folder.
        skipped: what could not be used, to tell why a class is empty.
        shares: split -> share of the class that it shall get; train gets the rest.
        classes: every class.
        seed: another seed gives other splits.
        silent: whether silent clips are kept: then each is a sound of its own.
        earlier: path -> split that a clip keeps.

    Returns:
        The clips with their splits, and warnings.
    """
    content = {str(clip.path): content_digest(clip.path) for clip in progress(clips, "comparing", len(clips))}
    content = distinguish_silent(content) if silent else content
    with_sounds = {clip.labels[0] for clip in clips if _is_open(clip)}
    for name in classes:
        if name not in with_sounds:
            raise _no_train(name, clips, skipped)
    key = {clip.path: clip.group or content[str(clip.path)] for clip in clips}  # what has to stay together
    kept = {
        key[clip.path]: earlier[str(clip.path)]
        for clip in clips
        if _is_open(clip) and earlier.get(str(clip.path)) in ("train", *shares)
    }
    share_out = _by_group if any(clip.group for clip in clips) else _by_class
    chosen = kept | share_out(clips, key, shares, classes, seed, kept)
    if shares == ALL_TESTED:
        chosen = dict.fromkeys(key.values(), "test")
    arranged = [replace(clip, split=chosen.get(key[clip.path], "train")) if _is_open(clip) else clip for clip in clips]
    return arranged, duplicate_warnings(arranged, [content[str(clip.path)] for clip in arranged]) + _thin(
        arranged, classes, shares
    )


def _is_open(clip: Clip) -> bool:
    """Whether a clip's split is not fixed by a folder: it has none, or is in train, from which others are taken."""
    return clip.split in ("", "train")


def _by_class(
    clips: list[Clip],
    key: Mapping[Path, str],
    shares: dict[str, float],
    classes: list[str],
    seed: int,
    kept: Mapping[str, str],
) -> dict[str, str]:
    """Content -> split, for what is not trained on: of each class the first by hash,
    after those that stay where they were.
    """
    in_classes = defaultdict(set)  # content -> classes: a sound in two of them must not be tested on
    for clip in clips:
        in_classes[key[clip.path]].add(clip.labels[0])
    chosen: dict[str, str] = {}
    own = {key[clip.path] for clip in clips if _is_open(clip)}
    for name in classes:
        single = [digest for digest in own if in_classes[digest] == {name}]
        single.sort(key=lambda digest: _hash(digest, seed))
        new = [digest for digest in single if digest not in kept]
        for split, count in _counts(len(single), shares).items():
            count = max(0, count - sum(kept.get(digest) == split for digest in single))
            chosen |= dict.fromkeys(new[:count], split)
            new = new[count:]
    return chosen


def _by_group(
    clips: list[Clip],
    key: Mapping[Path, str],
    shares: dict[str, float],
    classes: list[str],
    seed: int,
    kept: Mapping[str, str],
) -> dict[str, str]:
    """Group -> split.

    Large groups come first, each to where it brings the classes' shares closest to what is wanted.
    """
    place = {name: i for i, name in enumerate(classes)}
    sizes: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(classes)))  # group -> clips of each class
    for clip in filter(_is_open, clips):
        sizes[key[clip.path]][place[clip.labels[0]]] += 1
    names = ["train", *shares]
    wanted = np.array([1 - sum(shares.values()), *shares.values()])  # (splits,)
    total = np.maximum(sum(sizes.values()), 1)  # (classes,)
    have, groups = np.zeros((len(names), len(classes))), np.zeros(len(names), dtype=int)
    for group, split in kept.items():
        have[names.index(split)] += sizes[group]
        groups[names.index(split)] += 1
    chosen = {}
    open_groups = sorted(sizes.keys() - kept.keys(), key=lambda group: (-sizes[group].sum(), _hash(group, seed)))
    for number, group in enumerate(open_groups):
        lack = wanted[:, None] - have / total  # (splits, classes)
        gain = (2 * lack * sizes[group] / total - (sizes[group] / total) ** 2).sum(
            axis=1
        )  # how much less the squared error gets
        empty = [i for i in np.flatnonzero(wanted > 0).tolist() if not groups[i]]
        candidates = empty if len(empty) >= len(open_groups) - number else range(len(names))
        best = max(candidates, key=gain.__getitem__)
        have[best] += sizes[group]
        groups[best] += 1
        chosen[group] = names[best]
    return chosen


def _hash(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode("utf-8", "surrogateescape")).digest()


def _counts(sounds: int, shares: dict[str, float]) -> dict[str, int]:
    """How many of a class's different sounds go to val and test: by share, at least one each if all can have one."""
    least = 1 if sounds > len(shares) else 0
    counts = {split: max(least, math.floor(sounds * share + 0.5)) for split, share in shares.items()}
    while counts and sum(counts.values()) >= max(sounds, 1) and max(counts.values()):
        counts[max(counts, key=counts.__getitem__)] -= 1  # one must remain for train
    return counts


def _no_train(name: str, clips: list[Clip], skipped: list[SkippedClip]) -> AumError:
    if any(clip.labels[0] == name for clip in clips):
        return AumError(
            f"class {name!r} has no sound to train on: it only occurs in other splits",
            fix="add sounds to its train folder, or remove the class from the other splits",
        )
    own = [item for item in skipped if name in map(class_name, map(Path, Path(item.path).parts))]
    fixes = dict.fromkeys(item.fix for item in own)
    return AumError(
        f"no sound of class {name!r} can be used: {listed(item.reason for item in own)}",
        fix=listed([*fixes, "remove the class"], 3, "; or "),
        exit_code=1,
    )


def _thin(clips: list[Clip], classes: list[str], shares: dict[str, float]) -> list[str]:
    """Warnings about classes that have no clip in a split which should have some."""
    have = {(clip.labels[0], clip.split) for clip in clips}
    wanted = dict.fromkeys([*shares, *(clip.split for clip in clips)])
    lacking = {split: [name for name in classes if (name, split) not in have] for split in wanted}
    return [
        f"{counted(len(names), 'class has', 'classes have')} no clip in {split}: {listed(names)}"
        for split, names in lacking.items()
        if names
    ]

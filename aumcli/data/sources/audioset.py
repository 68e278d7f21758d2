"""AudioSet (Gemmeke et al. 2017) and AS-20K, its balanced part.

10 s clips of YouTube videos, 527 classes, several per clip.

Train is Google's unbalanced segments, for the published runs train on these alone (their list is unbalanced.json; the
paper says "full"), and with `--set train=full` the balanced ones too; of as20k it is the balanced ones. Test is the
evaluation segments.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clips
from aumcli.data.labels import read_labels
from aumcli.data.sources import LABEL_TABLE, CorpusIndex, PrepareRequest, no_val_warning, split_by_hash
from aumcli.data.sources.youtube import LONGEST_S, Segment, find_clips
from aumcli.errors import AumError
from aumcli.utils.csv import csv_reader, raise_problems

BALANCED, UNBALANCED, EVAL = "balanced_train_segments.csv", "unbalanced_train_segments.csv", "eval_segments.csv"
TRAIN = {"unbalanced": (UNBALANCED,), "full": (BALANCED, UNBALANCED)}  # of audioset: setting -> tables
ASIDE = "aside"  # temporary split of the balanced segments, which are removed before training
COMMENT_LINES = 3
URL = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"
GET = """AudioSet's sounds are YouTube's and can't be downloaded here. Into {folder} put
  from Google, {url}: {tables}
  and, in sub-folders of any name, the clips: YTID.wav, YTID_START_STOP.flac, YYTID.wav or YTID_START.wav"""


def index(request: PrepareRequest) -> CorpusIndex:
    """List the clips of a folder that Google's tables name.

    Args:
        request: `source` is the folder of the clips, `annotations` that of the tables. Settings: `val`, percent of the
            training videos that become the validation split, 0 unless given; of audioset also `train`, unbalanced or
            full.

    Returns:
        The clips, and those without a file.

    Raises:
        AumError: a table is missing or wrong, or there is no folder of clips.
    """
    is_20k = request.corpus == "as20k"
    settings = request.known_settings(**({} if is_20k else {"train": "unbalanced"}), val="0")
    val, trained = percent(request, "val", settings["val"]), settings.get("train", "")
    if not is_20k and trained not in TRAIN:
        raise AumError(f"audioset has no training set {trained!r}; it has {', '.join(TRAIN)}", fix="--set train=full")
    request.refuse(split="its splits are published; --set val=5 takes 5 % of train for validation")
    tables = dict.fromkeys((BALANCED,) if is_20k else TRAIN[trained], "train") | {EVAL: "test"}
    get = GET.format(folder="{folder}", url=URL, tables=", ".join((*tables, LABEL_TABLE)))
    paths = {request.table([name], get): split for name, split in tables.items()}
    if trained == "unbalanced" and (balanced := request.optional_table([BALANCED])):
        paths[balanced] = ASIDE
    names = [LABEL_TABLE, f"audioset_{LABEL_TABLE}"]
    labels = read_labels(request.table(names, get))
    if not request.sounds.is_dir():
        raise AumError(f"{request.sounds} is not a folder", fix=get.format(folder=request.sounds))
    known = {label.id for label in labels}
    segments = (
        with_val(each, val, request.seed) for path, split in paths.items() for each in read_segments(path, split, known)
    )
    clips, missing, skipped, warnings = find_clips(Path(os.path.abspath(request.sounds)), segments)
    warnings += no_val_warning(request, val)
    if trained == "unbalanced":
        (clips, found), (missing, absent) = map(_without_aside, (clips, missing))
        warnings.append(_aside_note(found, absent))
    return CorpusIndex(
        clips, labels, str(request.sounds), skipped, missing, warnings, {"video": lambda clip: clip.group}, LONGEST_S
    )


def _without_aside(clips: Clips) -> tuple[Clips, int]:
    """The clips without those of the split ASIDE, and the number of these."""
    aside = clips.is_of_split(ASIDE)
    return clips.take(np.flatnonzero(~aside)), int(aside.sum())


def _aside_note(found: int, absent: int) -> str:
    """A warning that the balanced segments, with (`found`) or without (`absent`) a file, are not trained on."""
    what = "the balanced segments are"
    if found + absent:
        what = f"the {found + absent:,} of {BALANCED}, {found:,} of which have a file, are"
    return (
        f"train is the segments of {UNBALANCED} alone, as in the published runs; {what} not trained on: "
        "--set train=full takes both"
    )


def read_segments(path: Path, split: str, known: set[str]) -> Iterator[Segment]:
    """Read a table of segments: three comment lines, then YTID, start, end and quoted ids of classes.

    Args:
        path: such as eval_segments.csv.
        split: what its segments are for.
        known: ids of classes.

    Raises:
        AumError: the table is none of these; the first few wrong rows are named, and all counted.
    """
    problems = []
    with csv_reader(path, None, fix=f"take it from {URL}", skip=COMMENT_LINES, spaces=True) as (reader, _):
        for row in filter(None, reader):
            try:
                video, start, stop, ids = row
                labels = tuple(dict.fromkeys(ids.split(",")))
                start_s, stop_s = float(start), float(stop)
                unknown = [label for label in labels if label not in known]
                if len(video) != 11 or not 0 <= start_s < stop_s or unknown:
                    raise ValueError
            except ValueError:
                problems.append(
                    f"row {reader.line_num + COMMENT_LINES}: {', '.join(row)!r} is not YTID, start, end and known "
                    "classes"
                )
                continue
            yield Segment(video, start_s, labels, split)
    raise_problems(path, problems, f"take it from {URL}")


def percent(request: PrepareRequest, name: str, text: str) -> float:
    """Read a setting in percent; an AumError if it is no percentage."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise AumError(f"{request.corpus}: {name} {text!r} is no percentage below 100", fix=f"--set {name}=5")
    return value


def with_val(segment: Segment, val: float, seed: int) -> Segment:
    """The segment; as validation, if it is for training and its video falls into that many percent."""
    if not val or segment.split != "train" or split_by_hash(segment.video, (100 - val, val, 0), seed) == "train":
        return segment
    return replace(segment, split="val")

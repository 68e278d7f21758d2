"""VGGSound (Chen et al. 2020, arXiv 2004.14368; CC BY 4.0): 10 s clips of YouTube videos, 309 classes, one per clip.

Two layouts of its tables are read: the official vggsound.csv (YTID, start, label, train or test), and train.csv and
test.csv with rows such as `glLQrEijrKg_000300.mp4,playing hammond organ`, where 000300 is the start in seconds.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from aumcli.data.sources import SPLIT_NAMES, CorpusIndex, PrepareRequest, labels_for, no_val_warning
from aumcli.data.sources.audioset import percent, with_val
from aumcli.data.sources.youtube import LONGEST_S, Segment, find_clips, parse_name
from aumcli.errors import AumError
from aumcli.utils.csv import csv_reader, raise_problems

TABLE = "vggsound.csv"
SPLIT_TABLES = {split: (f"vggsound_{split}.csv", f"{split}.csv") for split in ("train", "test")}
GET = """VGGSound's sounds are YouTube's and can't be downloaded here. Into {folder} put
  from its authors, https://www.robots.ox.ac.uk/~vgg/data/vggsound/: vggsound.csv (or train.csv and test.csv)
  and, in sub-folders of any name, the clips: YTID_START.wav, YTID_START_STOP.flac, YTID.wav or YYTID.wav"""
FIX = "take it from https://www.robots.ox.ac.uk/~vgg/data/vggsound/"


def index(request: PrepareRequest) -> CorpusIndex:
    """List the clips of a folder that the table names.

    Args:
        request: `source` is the folder of the clips, `annotations` the table or its folder. Setting: `val`, percent of
            the training videos that become the validation split, 0 unless given.

    Returns:
        The clips, and those without a file.

    Raises:
        AumError: the table is missing or wrong, or there is no folder of clips.
    """
    val = percent(request, "val", request.known_settings(val="0")["val"])
    request.refuse(split="its splits are published; --set val=5 takes 5 % of train for validation")
    segments = [with_val(segment, val, request.seed) for segment in _segments(request)]
    if not request.sounds.is_dir():
        raise AumError(f"{request.sounds} is not a folder", fix=GET.format(folder=request.sounds))
    clips, missing, skipped, warnings = find_clips(Path(os.path.abspath(request.sounds)), segments)
    labels = labels_for(request, {segment.labels[0] for segment in segments})
    return CorpusIndex(
        clips,
        labels,
        str(request.sounds),
        skipped,
        missing,
        warnings + no_val_warning(request, val),
        {"video": lambda clip: clip.group},
        LONGEST_S,
    )


def _segments(request: PrepareRequest) -> Iterator[Segment]:
    official = request.optional_table([TABLE])
    tables = {split: request.optional_table(names) for split, names in SPLIT_TABLES.items()}
    if official is None and not any(tables.values()):
        request.table([TABLE, "train.csv and test.csv"], GET)
    for split, path in ({"": official} if official else tables).items():
        if path is not None:
            yield from read_table(path, split)


def read_table(path: Path, split: str = "") -> Iterator[Segment]:
    """Read one of VGGSound's tables, none of which has a header.

    Args:
        path: the table.
        split: what its clips are for; "" where the table says it in its fourth column.

    Raises:
        AumError: it is another table; the first few wrong rows are named, and all counted.
    """
    problems = []
    with csv_reader(path, None, fix=FIX) as (reader, _):
        for row in filter(None, reader):
            try:
                if split:
                    file, label = row
                    (video, start_s), kind = parse_name(file.rpartition(".")[0]) or ("", None), split
                else:
                    video, start, label, kind = row
                    start_s = float(start)
                if len(video) != 11 or start_s is None or not label.strip():
                    raise ValueError
                yield Segment(video, start_s, (label.strip(),), SPLIT_NAMES[kind.strip()])
            except (ValueError, KeyError):
                what = "YTID_START.mp4 and label" if split else "YTID, start, label and split"
                problems.append(f"row {reader.line_num}: {','.join(row)!r} is not {what}")
    raise_problems(path, problems, FIX)

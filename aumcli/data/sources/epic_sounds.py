"""EPIC-SOUNDS (Huh et al. 2023, arXiv 2302.00646): sounds in kitchens.

44 classes; each clip is a slice of a long video.

Annotations are read as CSV. The audio is EPIC-KITCHENS-100's, as EPIC_audio.hdf5 (one data set per video, see
`aumcli.data.decoding.hdf5`) or as VIDEO.wav, .flac, ... at any rate. Splits are train and val; the labels of the
authors' test split are secret. The group is the video, which splits must not share, so a validation share of the
training clips (`data.val_fraction`) is made of whole videos; `--set group=participant` makes it the participant, so
that `data.test_group=P01` tests on a kitchen that was not trained on.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import READABLE_SUFFIXES, walk_files
from aumcli.data.decoding.channels import HDF5_SUFFIXES, SEPARATOR
from aumcli.data.decoding.hdf5 import hdf5_names
from aumcli.data.labels import Label
from aumcli.data.sources import CorpusIndex, PrepareRequest, SkippedClip
from aumcli.errors import AumError
from aumcli.utils.csv import csv_rows

TABLES = {"train": "EPIC_Sounds_train.csv", "val": "EPIC_Sounds_validation.csv"}
COLUMNS = (
    "annotation_id",
    "participant_id",
    "video_id",
    "start_timestamp",
    "stop_timestamp",
    "start_sample",
    "stop_sample",
    "class",
    "class_id",
)
GROUPS = {"video": "video_id", "participant": "participant_id"}  # setting -> column
RATE_HZ = 24000
TOLERANCE_SAMPLES = 24  # timestamps have milliseconds
PAGE = "https://github.com/epic-kitchens/epic-sounds-annotations"
FIX = f"take it from {PAGE}"
GET = f"""EPIC-SOUNDS can't be downloaded here. Into {{folder}} put
  from its authors, {PAGE}: EPIC_Sounds_train.csv and EPIC_Sounds_validation.csv
  and EPIC-KITCHENS-100's audio (https://epic-kitchens.github.io, its terms): EPIC_audio.hdf5, or one \
VIDEO.wav or .flac per video"""


def index(request: PrepareRequest) -> CorpusIndex:
    """List the annotated slices of the videos that are there.

    Args:
        request: `source` is the folder of the audio (or the HDF5 file), `annotations` that of the tables. Setting:
            `group`, video (default) or participant, what the group of a clip is.

    Returns:
        The clips, and those whose video is missing.

    Raises:
        AumError: a table is missing or wrong, tables contradict each other, or there is no audio.
    """
    group = request.known_settings(group="video")["group"]
    if group not in GROUPS:
        raise AumError(f"epic_sounds has no group {group!r}; it has {', '.join(GROUPS)}", fix="--set group=participant")
    request.refuse(split="its splits are published", seed="nothing in it is random")
    paths = {split: request.optional_table([name]) for split, name in TABLES.items()}
    if not any(paths.values()):
        request.table([" and no ".join(TABLES.values())], GET)
    audio = find_videos(request.sounds) if request.sounds.exists() else {}
    if not audio:
        raise AumError(f"{request.sounds} has no audio of a video", fix=GET.format(folder=request.sounds), exit_code=1)
    clips, missing = Clips(), Clips()
    skipped: list[SkippedClip] = []
    names: dict[int, str] = {}
    for split, path in paths.items():
        if path is None:
            continue
        for row in csv_rows(path, COLUMNS, fix=FIX):
            _add_class(names, row, path)
            start_s, stop_s, problem = slice_of(row)
            ids, video = (row["class"],), row["video_id"]
            if problem:
                skipped.append(SkippedClip(f"{path} {row['annotation_id']}", problem, FIX, start_s, stop_s))
            elif video not in audio:
                missing.append(video, start_s, stop_s, ids, split, row[GROUPS[group]])
            else:
                clips.append(audio[video], start_s, stop_s, ids, split, row[GROUPS[group]])
    labels = [Label(place, names[index], names[index]) for place, index in enumerate(sorted(names))]
    warnings = [f"no table for {split}: {TABLES[split]}" for split, path in paths.items() if path is None]
    return CorpusIndex(
        clips, labels, str(request.sounds), skipped, missing, warnings, {"video": lambda clip: video_of(clip.path)}
    )


def slice_of(row: Mapping[str, str]) -> tuple[float | None, float | None, str]:
    """Start and stop of a row's clip.

    Args:
        row: of an annotation table.

    Returns:
        Start and stop in s, exact to the sample at 24 kHz, and what is wrong with them ("" for nothing).
    """
    try:
        first, last = int(row["start_sample"]), int(row["stop_sample"])
        stamps = [_seconds(row[f"{end}_timestamp"]) for end in ("start", "stop")]
    except ValueError:
        return None, None, "its times are not numbers"
    apart = max(abs(stamp * RATE_HZ - sample) for stamp, sample in zip(stamps, (first, last)))
    problem = ""
    if not 0 <= first < last:
        problem = f"samples {first} to {last} are no stretch of time"
    elif apart > TOLERANCE_SAMPLES:
        problem = f"samples {first} to {last} and its timestamps are {apart / RATE_HZ:.3f} s apart"
    return first / RATE_HZ, last / RATE_HZ, problem


def find_videos(source: Path) -> dict[str, str]:
    """Video -> path of its sound, of a folder (searched with sub-folders) or an HDF5 file."""
    files = [os.path.abspath(source)] if source.is_file() else walk_files(os.path.abspath(source))
    found: dict[str, str] = {}
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))
        if suffix.lower() in HDF5_SUFFIXES:
            found |= {name: f"{path}{SEPARATOR}{name}" for name in hdf5_names(Path(path))}
        elif suffix.lower() in READABLE_SUFFIXES:
            found.setdefault(stem, path)
    return found


def video_of(path: Path) -> str:
    """The video that a clip's path belongs to."""
    name = path.name.rpartition(SEPARATOR)[2]
    return name if SEPARATOR in path.name else path.stem


def _add_class(names: dict[int, str], row: Mapping[str, str], path: Path) -> None:
    try:
        number = int(row["class_id"])
    except ValueError:
        number = -1
    if number < 0 or names.setdefault(number, row["class"]) != row["class"] or not row["class"]:
        raise AumError(
            f"{path}: {row['annotation_id']}: class {row['class']!r} with id {row['class_id']!r} "
            "contradicts other rows",
            fix=FIX,
        )


def _seconds(stamp: str) -> float:
    hours, minutes, seconds = stamp.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

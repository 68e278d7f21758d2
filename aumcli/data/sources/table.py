"""`aum prepare csv TABLE`: any table with a column of paths and one of labels; optionally start, stop, split and group.

Columns are found by the names that people give them, or named with --set: `--set path=fname --set label=category`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from aumcli.data.clips import Clip, Clips
from aumcli.data.sources import SPLIT_NAMES, Index, LeftOut, Request, labels_for, shared_out
from aumcli.data.tables import csv_reader, csv_rows, listed, raise_problems
from aumcli.errors import AumError
from aumcli.names import shown

COLUMNS = {                             # what -> names that it goes by
    "path": ("path", "file", "filename", "file_name", "filepath", "fname", "wav", "audio"),
    "label": ("label", "labels", "class", "category", "target", "tags"),
    "start": ("start_s", "start", "onset", "begin"), "stop": ("stop_s", "stop", "end_s", "end", "offset"),
    "split": ("split", "set", "subset", "partition"), "group": ("group", "speaker", "speaker_id", "subject", "video", "session")}
NEEDED = ("path", "label")
SHARES = (80.0, 10.0, 10.0)


def index(request: Request) -> Index:
    """List the clips of a table.

    Args:
        request: `annotations`, or else `source`, is the table; where both are given, paths are relative to `source`, else to
            the table's folder. Settings: `path`, `label`, `start`, `stop`, `split` and `group` name columns; `separator`
            stands between several labels (;).

    Returns:
        The clips. Without a column for the split, clips go to train, val and test by a hash of their group, or else their path:
        whatever belongs together stays together.

    Raises:
        AumError: no table, or it lacks a column, or a time is no number.
    """
    settings = request.known_settings(**dict.fromkeys(COLUMNS, ""), separator=";")
    path = request.annotations or request.source
    if path is None or not path.is_file():
        raise AumError(f"{path} is not a table" if path else "which table? None was given",
                       fix="aum prepare csv TABLE.csv, whose first line names a path and a label column")
    root = Path(os.path.abspath(path.parent if request.annotations is None or request.source is None else request.source))
    columns = _columns(path, settings)
    if "split" in columns and request.shares:
        raise AumError(f"--split can't be used with {path}: its column {columns['split']!r} says the splits",
                       fix="leave --split out")
    clips, left_out, problems = Clips(), [], []
    for number, row in enumerate(csv_rows(path, list(columns.values()), any_bytes=True), start=2):
        try:
            clip = _clip(request, {what: row[column].strip() for what, column in columns.items()}, settings["separator"], root)
        except ValueError as error:
            problems.append(f"row {number}: {error}")
            continue
        if clip.labels:
            clips.append(str(clip.path), clip.start_s, clip.stop_s, clip.labels, clip.split, clip.group)
        else:
            left_out.append(LeftOut(str(clip.path), f"row {number} of {path.name} gives it no label", "label it, or remove the row"))
    raise_problems(path, problems, "correct it")
    labels = labels_for(request, {label for ids in clips.label_sets for label in ids})
    identities = {"file": lambda clip: str(clip.path)} | ({"group": lambda clip: clip.group} if "group" in columns else {})
    return Index(clips, labels, str(path), left_out, identities=identities)


def _columns(path: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What -> column of the table, for what it has."""
    with csv_reader(path, (), any_bytes=True) as (_, header):
        columns = {what: settings[what] or next((name for name in header if name.strip().lower() in names), "")
                   for what, names in COLUMNS.items()}
    lacking = [what for what in NEEDED if not columns[what]]
    absent = [name for name in columns.values() if name and name not in header]
    if lacking or absent:
        problem = f"has no column {listed(absent)}" if absent else f"has no column that could be the {' or the '.join(lacking)}"
        raise AumError(f"{path} {problem}; it has {', '.join(header) or 'no first line'}",
                       fix="name it: --set path=COLUMN --set label=COLUMN")
    return {what: name for what, name in columns.items() if name}


def _clip(request: Request, row: Mapping[str, str], separator: str, root: Path) -> Clip:
    """The clip of a row; a ValueError says what is wrong with it."""
    if not row["path"]:
        raise ValueError("no path")
    times = [float(row[end]) if row.get(end) else None for end in ("start", "stop")]
    labels = tuple(dict.fromkeys(filter(None, (shown(label.strip()) for label in row["label"].split(separator)))))
    split = row.get("split")
    if split is None:
        split = shared_out(row.get("group") or row["path"], request.shares or SHARES, request.seed)
    elif not split:
        raise ValueError("no split")
    return Clip(root / row["path"], *times, labels, SPLIT_NAMES.get(split.lower(), shown(split)), row.get("group", ""))

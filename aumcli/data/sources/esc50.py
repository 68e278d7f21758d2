"""ESC-50 (Piczak 2015): 2000 recordings of 50 kinds of environmental sound.

5 s at 44.1 kHz, in five folds; CC BY-NC 3.0.

The group of a clip is its fold, so `data.test_group=3` trains without fold 3 and tests on it. The published protocol is
that, five times. Splits for a single run: test is fold 5 and validation fold 4, unless set otherwise.
"""

import os
import re
from pathlib import Path

from aumcli.data.clips import Clip
from aumcli.data.labels import Label
from aumcli.data.sources import CorpusIndex, PrepareRequest
from aumcli.errors import AumError
from aumcli.utils.csv import csv_rows, raise_problems
from aumcli.utils.download import check_space, download, unpack
from aumcli.utils.text import counted

# GitHub's archives of a branch aren't byte-stable and name no digest, so the content is verified instead: every row of
# the table has its file, file names repeat the row (fold, source, class), and folds and classes are as many and as
# large as published.
URL = "https://github.com/karolpiczak/ESC-50/archive/master.zip"
ARCHIVE_BYTES, UNPACKED_BYTES = 700 * 2**20, 2 * 2**30
CLIPS, CLASSES, FOLDS = 2000, 50, 5
COLUMNS = ("filename", "fold", "target", "category", "src_file")
TABLE = "meta/esc50.csv"
_MEMBER = re.compile(r"(?:^|/)(meta/esc50\.csv|audio/\d-\d+-[A-Z]-\d+\.wav)$")


def index(request: PrepareRequest) -> CorpusIndex:
    """List the recordings, taken from `request.source` (archive or folder) or downloaded; the content is verified.

    Args:
        request: `source` is the archive from GitHub or its unpacked folder. Settings: `test` and `val`, each a fold.

    Returns:
        2000 clips; the group is the fold.

    Raises:
        AumError: no network, or the content is not the published one, or a setting is no fold.
    """
    request.refuse(split="its splits are folds: --set test=5 --set val=4", seed="nothing in it is random")
    settings = request.known_settings(test="5", val="4")
    folds = {settings["val"]: "val", settings["test"]: "test"}
    if len(folds) < 2 or not set(folds) <= {str(fold) for fold in range(1, FOLDS + 1)}:
        raise AumError(
            f"folds test={settings['test']}, val={settings['val']} are not two of 1 to {FOLDS}",
            fix="--set test=5 --set val=4",
        )
    own = request.out / "ESC-50"
    if request.source is not None and request.source.is_dir():
        folder, origin = request.source, str(request.source)
    elif request.source is not None:
        folder, origin = own, str(request.source)
        _take(request.source, own)
    else:
        folder, origin = own, URL
        if not (own / TABLE).is_file():
            _fetch(request.out)
    rows = _verified(folder)
    names = {int(row["target"]): row["category"] for row in rows}
    clips = [
        Clip(
            Path(os.path.abspath(folder / "audio" / row["filename"])),
            labels=(row["category"],),
            split=folds.get(row["fold"], "train"),
            group=row["fold"],
        )
        for row in rows
    ]
    sources = {row["filename"]: row["src_file"] for row in rows}
    return CorpusIndex(
        clips,
        [Label(place, names[place], names[place]) for place in sorted(names)],
        origin,
        identities={"source recording": lambda clip: sources[clip.path.name]},
    )


def _fetch(out: Path) -> None:
    archive = out / "ESC-50-master.zip"
    check_space(out, UNPACKED_BYTES + ARCHIVE_BYTES, "ESC-50, fetched and unpacked,")
    if not archive.exists():
        download(URL, archive)
    try:
        _take(archive, out / "ESC-50")
    finally:
        archive.unlink()


def _take(archive: Path, folder: Path) -> None:
    unpack(archive, folder, _wanted, UNPACKED_BYTES, {"audio", "meta"}.__contains__, _verify)


def _verify(folder: Path) -> None:
    _verified(folder)


def _wanted(member: str) -> str | None:
    match = _MEMBER.search(member)
    return match and match[1]


def _verified(folder: Path) -> list[dict[str, str]]:
    """Rows of meta/esc50.csv, after a look whether all is there and nothing contradicts."""
    rows = list(csv_rows(folder / TABLE, COLUMNS, fix=f"take the archive {URL}"))
    problems = []
    for row in rows:
        fold, rest = row["fold"], f"-{row['target']}.wav"
        if not row["filename"].startswith(f"{fold}-{row['src_file']}-") or not row["filename"].endswith(rest):
            problems.append(
                f"{row['filename']!r} contradicts fold {fold}, source {row['src_file']} or class {row['target']} of "
                "its row"
            )
        elif not (folder / "audio" / row["filename"]).is_file():
            problems.append(f"audio/{row['filename']} is missing")
    counts = {(row["fold"], row["target"]) for row in rows}
    names = {row["target"]: row["category"] for row in rows}
    if len(rows) != CLIPS or len(counts) != FOLDS * CLASSES or len(set(names.values())) != CLASSES:
        problems.append(
            f"it has {counted(len(rows), 'clip')} of {counted(len(names), 'class')}, published are {CLIPS} of "
            f"{CLASSES} in {FOLDS} folds"
        )
    raise_problems(folder / TABLE, problems, f"take the archive {URL}")
    return rows

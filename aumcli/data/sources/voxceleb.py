"""VoxCeleb1 (Nagrani et al. 2017, arXiv 1706.08612): who speaks?

153,516 utterances of 1251 speakers, the identification split.

A class is a speaker, so all splits have all speakers; what they must not share is a video, which is the group.
"""

import os
import re
from pathlib import Path

from aumcli.data.clips import Clips
from aumcli.data.labels import Label
from aumcli.data.sources import SPLITS, CorpusIndex, PrepareRequest
from aumcli.errors import AumError
from aumcli.utils.csv import raise_problems
from aumcli.utils.text import counted

TABLE = "iden_split.txt"
FOLDERS = ("", "wav", "dev/wav", "test/wav", "vox1_dev_wav/wav", "vox1_test_wav/wav")
PAGE = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
GET = f"""VoxCeleb1 is given out on request only. Into {{folder}} put
  from its authors, {PAGE}: {TABLE} and, unpacked, the archives vox1_dev_wav and vox1_test_wav
  so that there is {{folder}}/wav/id10001/VIDEO/00001.wav"""
_ROW = re.compile(r"([123]) (id\d{5}/([^/\s]+)/\d{5}\.wav)")


def index(request: PrepareRequest) -> CorpusIndex:
    """List the utterances that the identification split names.

    Args:
        request: `source` is the folder with the wav tree, `annotations` the split file or its folder.

    Returns:
        The clips, and those without a file.

    Raises:
        AumError: the split file is missing or wrong, or there is no wav tree.
    """
    request.known_settings()
    request.refuse(split="its splits are published", seed="nothing in it is random")
    rows = read_split(request.table([TABLE], GET))
    root = Path(os.path.abspath(request.sounds))
    folders = [str(root / part) for part in FOLDERS if (root / part).is_dir()]
    clips, missing = Clips(), Clips()
    for split, name, video in rows:
        speaker = name[:7]
        path = next((path for path in (os.path.join(folder, name) for folder in folders) if os.path.exists(path)), None)
        if path is None:
            missing.append(name, None, None, (speaker,), split, f"{speaker}/{video}")
        else:
            clips.append(path, None, None, (speaker,), split, f"{speaker}/{video}")
    if not clips:
        raise AumError(
            f"{root} has none of the {counted(len(rows), 'utterance')} of {TABLE}",
            fix=GET.format(folder=root),
            exit_code=1,
        )
    labels = [Label(place, speaker, speaker) for place, speaker in enumerate(sorted({name[:7] for _, name, _ in rows}))]
    return CorpusIndex(clips, labels, str(root), missing=missing, identities={"video": lambda clip: clip.group})


def read_split(path: Path) -> list[tuple[str, str, str]]:
    """Read iden_split.txt: rows such as `1 id10003/na8-QEFmj44/00003.wav`, with 1 for train, 2 for val, 3 for test.

    Args:
        path: the file.

    Returns:
        (split, path below the wav tree, video) of each row.

    Raises:
        AumError: it is another file; the first few wrong rows are named, and all counted.
    """
    rows, problems = [], []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            match = _ROW.fullmatch(line.strip())
            if match:
                rows.append((SPLITS[int(match[1]) - 1], match[2], match[3]))
            elif line.strip():
                problems.append(f"row {number}: {line.strip()[:80]!r} is not 1, 2 or 3 and idNNNNN/VIDEO/NNNNN.wav")
    raise_problems(path, problems or ([] if rows else ["it has no rows"]), f"take {TABLE} from {PAGE}")
    return rows

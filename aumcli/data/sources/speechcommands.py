"""Speech Commands v0.02: 105,829 recordings of 35 words, 1 s at 16 kHz (Warden 2018, arXiv 1804.03209; CC BY 4.0).

The validation and test splits are the lists in the archive; the group of a clip is its speaker, the hash at the
beginning of its name. `_background_noise_` is no class.
"""

import os
from pathlib import Path

from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import walk_files
from aumcli.data.sources import CorpusIndex, PrepareRequest, SkippedClip, labels_for
from aumcli.errors import AumError
from aumcli.utils.download import check_space, download, unpack
from aumcli.utils.text import counted

URL = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
SIZE, SHA256 = 2_428_923_189, "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
UNPACKED_BYTES = 5 * 2**30
CLIPS = {"train": 84_843, "val": 9_981, "test": 11_005}  # table 1 of the paper's version 2: 105,829 in all
CLASSES = 35
LISTS = {"val": "validation_list.txt", "test": "testing_list.txt"}
NOISE = "_background_noise_"
FOLDER = "speech_commands_v0.02"


def index(request: PrepareRequest) -> CorpusIndex:
    """List the recordings, taken from `request.source` (archive or folder) or downloaded.

    Args:
        request: `source` is the archive or its unpacked folder.

    Returns:
        The clips of all three splits.

    Raises:
        AumError: no network, not the published archive, or a folder without the two lists.
    """
    request.known_settings()
    request.refuse(split="its splits are published lists", seed="nothing in it is random")
    own = request.out / FOLDER
    if request.source is not None and request.source.is_dir():
        folder, origin = request.source, str(request.source)
        _check_lists(folder)
    elif request.source is not None:
        folder, origin = own, str(request.source)
        _take(request.source, own)
    else:
        folder, origin = own, URL
        if not (own / LISTS["test"]).is_file():
            _fetch(request.out)
    return _index_folder(request, Path(os.path.abspath(folder)), origin)


def _fetch(out: Path) -> None:
    archive = out / f"{FOLDER}.tar.gz"
    check_space(out, UNPACKED_BYTES + (0 if archive.exists() else SIZE), "Speech Commands, fetched and unpacked,")
    if not archive.exists():
        download(URL, archive, SIZE, SHA256)
    _take(archive, out / FOLDER)
    archive.unlink()


def _take(archive: Path, folder: Path) -> None:
    if archive.is_file() and archive.stat().st_size == SIZE:
        check_space(folder.parent, UNPACKED_BYTES, f"unpacking {archive}")
    unpack(archive, folder, lambda name: name.removeprefix("./"), UNPACKED_BYTES, lambda name: True, _check_lists)


def _check_lists(folder: Path) -> None:
    lacking = [name for name in LISTS.values() if not (folder / name).is_file()]
    if lacking:
        raise AumError(
            f"{folder} lacks {' and '.join(lacking)}: it is not Speech Commands as published",
            exit_code=1,
            fix=f"take {URL}, or its unpacked folder",
        )


def _index_folder(request: PrepareRequest, folder: Path, origin: str) -> CorpusIndex:
    splits = {
        line: split for split, name in LISTS.items() for line in (folder / name).read_text(encoding="utf-8").split()
    }
    clips, missing, skipped, found = Clips(), Clips(), [], set()
    for path in walk_files(folder):
        name = Path(path).relative_to(folder).as_posix()
        word, _, file = name.rpartition("/")
        if not file.endswith(".wav") or word == NOISE:
            continue
        speaker, mark, _ = file.partition("_nohash_")
        if not mark or not word or "/" in word:
            skipped.append(SkippedClip(path, "is not named WORD/SPEAKER_nohash_N.wav", "move it away"))
            continue
        found.add(name)
        clips.append(path, None, None, (word,), splits.get(name, "train"), speaker)
    for name, split in splits.items():
        if name not in found:
            missing.append(
                name, None, None, (name.split("/")[0],), split, name.rpartition("/")[2].partition("_nohash_")[0]
            )
    classes = {labels[0] for labels in clips.label_sets}
    return CorpusIndex(
        clips,
        labels_for(request, classes | {labels[0] for labels in missing.label_sets}),
        origin,
        skipped,
        missing,
        _differences(clips, classes),
        {"speaker": lambda clip: clip.group},
    )


def _differences(clips: Clips, classes: set[str]) -> list[str]:
    """Warnings where a folder isn't the complete corpus, by its counts; a download is verified by its SHA-256."""
    found = {split: len(clips.of_split(split)) for split in CLIPS}
    warnings = [
        f"{counted(found[split], 'clip')} in {split}, the published corpus has {count:,}"
        for split, count in CLIPS.items()
        if found[split] != count
    ]
    return warnings + (
        [f"{counted(len(classes), 'word')}, the published corpus has {CLASSES}"] if len(classes) != CLASSES else []
    )

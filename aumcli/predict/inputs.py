"""What the command is given: files, folders, patterns, lists, standard input, a microphone."""

import functools
import glob
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli.data.audio import find_audio
from aumcli.errors import AumError

BLOCK_SAMPLES = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A sound to label."""

    path: str                   # as people know it
    name: str                   # below a folder of results
    file: str                   # what is opened

    @staticmethod
    def of(path: "Path | str | Source") -> "Source":
        """A file as a source."""
        return path if isinstance(path, Source) else Source(str(path), os.path.basename(path), str(path))


def find_clips(paths: Iterable[Path | str], listed: Path | str | None = None) -> list[Source]:
    """Say which sounds are meant.

    Args:
        paths: files; folders, searched at any depth; patterns such as `rec/**/*.wav`; "-" for a sound file on standard input.
        listed: a text file that names further files and folders, one a line.

    Returns:
        One source for each, in the order named; files below a folder are sorted.

    Raises:
        AumError: a folder holds no sound file, a pattern matches nothing, or the list can't be read.
    """
    found: list[Source] = []
    for path in [*map(str, paths), *(_lines(listed) if listed is not None else [])]:
        if path == "-":
            found.append(_standard_input())
        elif glob.has_magic(path) and not os.path.lexists(path):
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                raise AumError(f"nothing matches {path}", fix="check the pattern; ** stands for folders at any depth")
            for match in matches:
                found += _in_folder(match) if os.path.isdir(match) else [Source.of(match)]
        else:
            found += _in_folder(path) if os.path.isdir(path) else [Source.of(path)]
    return found


def _in_folder(folder: str) -> Iterator[Source]:
    clips = find_audio(folder)
    if not clips:
        raise AumError(f"{folder} holds no sound files", fix="name files, or a folder with wav, flac, ogg or mp3 files")
    for clip in clips:
        yield Source(str(clip), clip.relative_to(folder).as_posix(), str(clip))


def _lines(path: Path | str) -> list[str]:
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AumError(f"can't read the list {path}: {error}", fix="name a text file in UTF-8 with one path a line") from error
    return [line for line in lines if line.strip()]


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that goes when the program ends."""
    return tempfile.TemporaryDirectory(prefix="aum-")


def _standard_input() -> Source:
    """Sound files are read back and forth, which a pipe can't do: it goes through a file."""
    if sys.stdin is None or sys.stdin.isatty():
        raise AumError("- means a sound file on standard input, and there is none", fix="aum predict - < clip.wav")
    file = os.path.join(_scratch().name, "stdin")
    with open(file, "wb") as out:
        shutil.copyfileobj(sys.stdin.buffer, out)
    return Source("-", "stdin", file)


def record(seconds: float) -> Source:
    """Record from the default microphone.

    Args:
        seconds: for so long.

    Raises:
        AumError: the package sounddevice is missing, or there is no microphone that can be used.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:               # OSError: the package is there, PortAudio is not
        raise AumError(f"can't record: {error}", fix="pip install 'aumcli[mic]'; on Linux also install PortAudio: "
                       "apt-get install libportaudio2") from error
    import soundfile

    file = os.path.join(_scratch().name, "microphone.wav")
    try:
        rate_hz = int(sounddevice.query_devices(kind="input")["default_samplerate"])
        with sounddevice.InputStream(rate_hz, channels=1, dtype="float32") as stream, \
                soundfile.SoundFile(file, "w", rate_hz, 1, "FLOAT") as out:
            left = max(1, round(seconds * rate_hz))
            while left:
                block, _ = stream.read(min(left, BLOCK_SAMPLES))
                out.write(block)
                left -= len(block)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AumError(f"can't record from the microphone: {error}", fix="connect one, and allow its use", exit_code=1) from error
    return Source("microphone", "microphone", file)


def check_names(sources: Sequence[Source], out: Path) -> None:
    """Refuse sounds whose results would overwrite each other in a folder of results."""
    names = Counter(source.name for source in sources)
    doubled = [source.path for source in sources if names[source.name] > 1]
    if doubled:
        raise AumError(f"{doubled[0]} and {doubled[1]} would both be written to {out / names.most_common(1)[0][0]}",
                       fix="name the folder that holds them instead, or one file for all results")


def share(sources: Sequence[Source]) -> tuple[Sequence[Source], int, int]:
    """The part of this process among those that torchrun started: (every n-th sound, which process, n)."""
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
    return sources[rank::processes], rank, processes

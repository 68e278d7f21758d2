"""What the command is given: files, folders, patterns, lists, standard input, a microphone."""

import functools
import glob
import os
import shutil
import stat
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from aumcli.data.decoding.audio import find_audio
from aumcli.errors import AumError
from aumcli.utils import csv as tables
from aumcli.utils.files import no_scratch
from aumcli.utils.processes import rank_and_world_size
from aumcli.utils.text import one_line

BLOCK_SAMPLES = 4096
SHOWN_CHARACTERS = 80  # of a damaged line
PIPED = "send sound that can be read: ffmpeg -i FILE -f wav - | aum predict -"


@dataclass(frozen=True, slots=True)
class Source:
    """A sound to label; `problem` and `fix` instead where what was named is none."""

    path: str  # as people know it
    name: str  # below a folder of results
    file: str  # what is opened
    problem: str = ""
    fix: str = ""

    @staticmethod
    def of(path: "Path | str | Source") -> "Source":
        """A file as a source."""
        return path if isinstance(path, Source) else Source(str(path), os.path.basename(path), str(path))

    @property
    def is_copy(self) -> bool:
        """Whether what is opened is a copy of ours, which nobody else knows."""
        return self.file != self.path


def find_clips(paths: Iterable[Path | str], listed: Path | str | None = None) -> list[Source]:
    """Say which sounds are meant.

    Args:
        paths: files; folders, searched at any depth; patterns such as `rec/**/*.wav`; "-" for a sound file on standard
            input.
        listed: a text file that names further files and folders, one a line; "-" for standard input.

    Returns:
        One source for each, in the order named; files below a folder are sorted. What names no sound, beside others
        that do, is a source with a problem.

    Raises:
        AumError: nothing that is named is there, or the list can't be read.
    """
    names = [*map(str, paths)]
    if listed is not None and os.fspath(listed) == "-" in names:
        raise AumError("standard input is either a sound, -, or a list, --from -", fix="name the sound's file")
    found: list[Source] = []
    problems: list[AumError] = []

    def add(path: str, sources: Callable[[str], Iterable]) -> list:
        try:
            return [*sources(path)]
        except AumError as error:
            problems.append(error)
            found.append(Source(path, os.path.basename(path), path, error.problem, error.fix))
            return []

    for name in [*names, *(_entries(listed) if listed is not None else [])]:
        for path in add(name, _matches):
            found += add(path, _sounds)
    if len(problems) == len(found) > 0:
        raise AumError(tables.listed(error.problem for error in problems), problems[0].fix, problems[0].exit_code)
    return found


def _matches(path: str) -> list[str]:
    """What an argument or a line of a list names: itself, or what matches it."""
    if "\0" in path:
        raise AumError(
            f"no name contains NUL: {one_line(path)[:SHOWN_CHARACTERS]}", fix="correct the list", exit_code=1
        )
    if not glob.has_magic(path) or os.path.lexists(path):
        return [path]
    if matches := sorted(glob.glob(path, recursive=True)):
        return matches
    raise AumError(f"nothing matches {path}", fix="check the pattern; ** stands for folders at any depth")


def _sounds(path: str) -> Iterable[Source]:
    """The sounds that a path means."""
    if path == "-":
        return [_standard_input()]
    if os.path.isdir(path):
        return _in_folder(path)
    return [_copied(path) if _is_pipe(path) else Source.of(path)]


def _in_folder(folder: str) -> list[Source]:
    clips = find_audio(folder)
    if not clips:
        raise AumError(f"{folder} holds no sound files", fix="name files, or a folder with wav, flac, ogg or mp3 files")
    return [Source(str(clip), clip.relative_to(folder).as_posix(), str(clip)) for clip in clips]


def _entries(path: Path | str) -> list[str]:
    """The lines of a list, names as the bytes they are; or what `find -print0` writes, or PowerShell in UTF-16.

    A line that begins with # is a comment, unless a file is called so.
    """
    try:
        data = sys.stdin.buffer.read() if os.fspath(path) == "-" else Path(path).read_bytes()
    except OSError as error:
        raise AumError(
            f"can't read the list {path}: {error.strerror or error}", fix="name a text file with one path a line"
        ) from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    data = data.removeprefix(b"\xef\xbb\xbf")
    separated = data.endswith(b"\0") and b"\0\0" not in data and not data.endswith(b"\n\0")  # else NULs are damage
    lines = [os.fsdecode(line) for line in data.split(b"\0" if separated else b"\n")]
    if not separated:  # a name may end in CR, a line of Windows always does
        lines = [line if line.endswith("\r") and os.path.lexists(line) else line.removesuffix("\r") for line in lines]
    lines = [
        line for line in lines if line.strip() and (separated or not line.startswith("#") or os.path.lexists(line))
    ]
    if not separated and b"\0" in data and not any(os.path.lexists(line) for line in lines if "\0" not in line):
        raise AumError(
            f"{path} is no list of files: it contains NULs, and names nothing that is there",
            fix="name a text file with one path a line",
        )
    return lines


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory:
    """A folder that goes when the program ends."""
    try:
        return tempfile.TemporaryDirectory(prefix="aum-", ignore_cleanup_errors=True)
    except OSError as error:
        raise no_scratch(error) from error


def _is_pipe(path: str) -> bool:
    """Whether a path can be read once only, from its beginning to its end.

    A FIFO, a shell's <(command). A device is no sound.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise AumError(f"{path} is a device, not a sound file", fix="name files or folders", exit_code=1)
    return stat.S_ISFIFO(mode)


def _standard_input() -> Source:
    if sys.stdin is None or sys.stdin.isatty():
        raise AumError("- means a sound file on standard input, and there is none", fix="aum predict - < clip.wav")
    return _copy(sys.stdin.buffer, "-", "stdin")


def _copied(path: str) -> Source:
    try:
        with open(path, "rb") as pipe:
            return _copy(pipe, path, os.path.basename(path))
    except OSError as error:
        raise AumError(
            f"can't read {path}: {error.strerror or error}", fix="check its permissions", exit_code=1
        ) from error


def _copy(pipe: BinaryIO, path: str, name: str) -> Source:
    """Sound files are read back and forth, which a pipe can't do: it goes through a file."""
    try:
        number, file = tempfile.mkstemp(dir=_scratch().name)
        with open(number, "wb") as out:
            shutil.copyfileobj(pipe, out)
    except OSError as error:
        raise no_scratch(error) from error
    return Source(path, name, file)


def record(seconds: float) -> Source:
    """Record from the default microphone.

    Args:
        seconds: for so long.

    Raises:
        AumError: the package sounddevice is missing, or there is no microphone that can be used.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio is not
        raise AumError(
            f"can't record: {error}",
            fix="pip install 'aumcli[mic]'; on Linux also install PortAudio: apt-get install libportaudio2",
        ) from error
    import soundfile

    file = os.path.join(_scratch().name, "microphone.wav")
    try:
        rate_hz = int(sounddevice.query_devices(kind="input")["default_samplerate"])
        with (
            sounddevice.InputStream(rate_hz, channels=1, dtype="float32") as stream,
            soundfile.SoundFile(file, "w", rate_hz, 1, "FLOAT") as out,
        ):
            left = max(1, round(seconds * rate_hz))
            while left:
                block, _ = stream.read(min(left, BLOCK_SAMPLES))
                out.write(block)
                left -= len(block)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise AumError(
            f"can't record from the microphone: {error}", fix="connect one, and allow its use", exit_code=1
        ) from error
    return Source("microphone", "microphone", file)


def check_names(sources: Sequence[Source], out: Path) -> None:
    """Refuse sounds whose results would overwrite each other in a folder of results."""
    names = Counter(source.name for source in sources if not source.problem)
    doubled = [source.path for source in sources if names[source.name] > 1]
    if doubled:
        raise AumError(
            f"{doubled[0]} and {doubled[1]} would both be written to {out / names.most_common(1)[0][0]}",
            fix="name the folder that holds them instead, or one file for all results",
        )


def share(sources: Sequence[Source]) -> tuple[Sequence[Source], int, int]:
    """The part of this process among those that torchrun started: (every n-th sound, which process, n)."""
    rank, processes = rank_and_world_size()
    return sources[rank::processes], rank, processes

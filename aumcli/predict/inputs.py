"""What the command is given: files, folders, patterns, lists, standard input, a microphone."""

import functools
import glob
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from aumcli.data.decoding.audio import find_audio
from aumcli.errors import AumError
from aumcli.utils import csv as tables
from aumcli.utils.files import no_scratch
from aumcli.utils.processes import rank_and_world_size
from aumcli.utils.text import one_line

T = TypeVar("T")
BLOCK_SAMPLES = 4096
BLOCK_FILES, BLOCK_BYTES = 128, 2**24  # most files of a block, and of what size together
LEAST_BLOCKS = 16  # of a list that has so many files
SHOWN_CHARACTERS = 80  # of a damaged line
PIPED = "send sound that can be read: ffmpeg -i FILE -f wav - | aum predict -"


@dataclass(frozen=True, slots=True)
class Source:
    """A sound to label; `problem` and `fix` instead where a name means no sound."""

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
        """Whether what is opened is a temporary copy."""
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

    def add(path: str, sources: Callable[[str], Iterable[T]]) -> list[T]:
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
def _scratch() -> tempfile.TemporaryDirectory[str]:
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


@dataclass(frozen=True)
class Share:
    """What one of several processes labels of a list.

    Attributes:
        sources: its sounds, in the list's order.
        blocks: the block of each in the whole list: sounds of one are labelled together, and no others with them, so
            that scores are the same to the last bit however the list is shared out.
        rank, processes: which of how many it is.
        digest: of several, SHA-256 of the whole list's names.
    """

    sources: Sequence[Source]
    blocks: Sequence[int]
    rank: int = 0
    processes: int = 1
    digest: str = ""


def share(sources: Sequence[Source], part: tuple[int, int] | None = None) -> Share:
    """The share of this process: of the blocks of a list every n-th.

    Args:
        sources: the whole list.
        part: which process of how many it is, from 0; None: as torchrun says, else the only one.

    Raises:
        AumError: both say it.
    """
    rank, processes = rank_and_world_size()
    if part is not None and processes > 1:
        raise AumError("--part and torchrun both share the list out", fix="use one of them")
    rank, processes = part or (rank, processes)
    blocks = _blocks(sources)
    if processes == 1:
        return Share(sources, blocks)
    digest = hashlib.sha256()
    for source in sources:
        digest.update(source.path.encode("utf-8", "surrogateescape") + b"\0")
    own = [i for i, block in enumerate(blocks) if block % processes == rank]
    return Share([sources[i] for i in own], [blocks[i] for i in own], rank, processes, digest.hexdigest())


def _blocks(sources: Sequence[Source]) -> "array[int]":
    """The number of each source's block: small files fill one together, a long recording is one of its own."""
    most = min(BLOCK_FILES, max(1, len(sources) // LEAST_BLOCKS))
    numbers, number, files, size = array("Q"), 0, 0, 0
    for source in sources:
        try:
            own = os.stat(source.file).st_size
        except (OSError, ValueError):  # a data set of an HDF5 file, or what will be named when it is opened
            own = 0
        if files and (files == most or size + own > BLOCK_BYTES):
            number, files, size = number + 1, 0, 0
        numbers.append(number)
        files, size = files + 1, size + own
    return numbers


def part_of(text: str) -> tuple[int, int]:
    """Read --part: which process of how many, from 0.

    Args:
        text: "3/40", counted from 1; or "slurm", for a task of an array job.

    Raises:
        AumError: it is neither, or this is no array job.
    """
    if text == "slurm":
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
        try:
            number, first, last, count = (int(os.environ[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise AumError(f"this is no task of a Slurm array job: {error}", fix="sbatch --array=1-40 ...") from error
        if last - first + 1 != count:
            raise AumError(
                f"the array job has {count} tasks, numbered {first} to {last}", fix=f"sbatch --array=1-{count} ..."
            )
        return number - first, count
    place, _, of = text.partition("/")
    if not (place.isascii() and place.isdigit() and of.isascii() and of.isdigit() and 0 < int(place) <= int(of)):
        raise AumError(
            f"--part {text} is not one of several, such as 3/40, nor slurm", fix="--part 1/40 to --part 40/40"
        )
    return int(place) - 1, int(of)

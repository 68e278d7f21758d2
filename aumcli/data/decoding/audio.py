"""Sound files to waveforms: decode, mix to mono, resample; and everything that can be wrong with a sound file."""

import io
import math
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from aumcli.data.decoding.channels import LOUDEST, MEAN, Balance, channel_place, split_channel
from aumcli.data.decoding.containers import scan, scan_file
from aumcli.data.decoding.containers.errors import convert_fix
from aumcli.data.decoding.containers.region import Contents, Reassembled
from aumcli.data.decoding.hdf5 import Hdf5Sound, open_hdf5, split_dataset
from aumcli.data.decoding.resample import resample_blocks
from aumcli.errors import AumError
from aumcli.utils.text import one_line

READABLE_SUFFIXES = frozenset(
    {
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".aiff",
        ".aif",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".w64",
        ".rf64",
    }
)
CONVERT_SUFFIXES = frozenset(
    {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".mkv", ".mov", ".avi", ".3gp", ".amr", ".ape", ".wv", ".ac3"}
)
AUDIO_SUFFIXES = READABLE_SUFFIXES | CONVERT_SUFFIXES  # the latter are found too, so that an error can name them

SILENCE = 1e-6  # full scale is 1; one step of 16 bit is 3e-5
SYSTEM_NAMES = frozenset(
    {
        "__MACOSX",
        "@eaDir",
        "@Recycle",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "Thumbs.db",
        "desktop.ini",
    }
)  # files that operating systems create
ROUNDING_S = 0.001  # annotations round times to the millisecond, sometimes to past the file's end
BLOCK_S = 30.0  # files are decoded in blocks of this length,
BLOCK_VALUES = 2**22  # and of at most this many values, whatever rate and channels
LOWEST_HZ, HIGHEST_HZ, MOST_CHANNELS, LONGEST_S = 1, 1_000_000, 256, 31 * 86_400.0  # beyond lie damaged headers


@dataclass(frozen=True)
class AudioInfo:
    """What a file, or a slice of it, holds: length in seconds, rate in Hz and channels as stored.

    Where it was decoded, `lowest` and `highest` are the extremes of the mono waveform; full scale is -1 to 1.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    lowest: float = 0.0
    highest: float = 0.0
    cancels: bool = False  # whether the channels are nearly each other's opposite, and their mean next to silent


def load_audio(
    path: Path | str, sample_rate_hz: int | None = None, start_s: float | None = None, stop_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode a sound file, or a slice of it, to mono.

    Args:
        path: a file that libsndfile reads (wav, flac, ogg, mp3, aiff, ...) at any rate with any number of channels, or
            a data set in an HDF5 file (see `aumcli.data.decoding.hdf5`); it may name a channel (see
            `aumcli.data.decoding.channels`).
        sample_rate_hz: the rate to resample to; None for the file's own.
        start_s: first second of the slice; None for the beginning.
        stop_s: end of the slice in seconds; None for the end of the file.

    Returns:
        The mean of the channels, or the one that the path names, (samples,) float32 in -1..1, and its rate in Hz.

    Raises:
        AumError: the file is missing, empty, no audio, truncated, damaged or not finite, holds more sound than its
            header says, has no such channel, or the slice lies outside it.
    """
    path = os.fspath(path)
    with _open(path) as sound:
        rate_hz = sound.samplerate
        to_hz = sample_rate_hz or rate_hz
        blocks = _waveform(path, sound, *_span(path, sound, start_s, stop_s))
        first, *others = blocks if to_hz == rate_hz else resample_blocks(blocks, rate_hz, to_hz)
    return np.concatenate([first, *others]) if others else first, to_hz


def load_channels(path: Path | str, start_s: float, stop_s: float) -> tuple[np.ndarray, int, str]:
    """Decode a slice of a sound file as it was recorded.

    Args:
        path: as of `load_audio`; a channel that it names is of no account.
        start_s, stop_s: of the slice.

    Returns:
        (samples, channels) float32 in -1..1, the rate in Hz, and the file's encoding as libsndfile calls it.

    Raises:
        AumError: as `load_audio`.
    """
    path = split_channel(os.fspath(path))[0]
    with _open(path) as sound:
        blocks = [*_blocks(path, sound, *_span(path, sound, start_s, stop_s))]
        return np.concatenate(blocks), sound.samplerate, sound.subtype


@contextmanager
def open_audio(
    path: Path | str,
    sample_rate_hz: int | None = None,
    start_s: float | None = None,
    stop_s: float | None = None,
    balance: Balance | None = None,
) -> Iterator[tuple[AudioInfo, Iterator[np.ndarray]]]:
    """Open a sound file to decode it block by block, in bounded memory however long it is.

    Args:
        path, sample_rate_hz, start_s, stop_s: as for `load_audio`.
        balance: counts the blocks where their channels are averaged.

    Yields:
        How long it is, and the blocks, (samples,) float32 each: one after another they are what `load_audio` gives.

    Raises:
        AumError: as `load_audio`; what is wrong further behind in the file is raised by its block.
    """
    path = os.fspath(path)
    with _open(path) as sound:
        first, last = _span(path, sound, start_s, stop_s)
        rate_hz = sound.samplerate
        to_hz = sample_rate_hz or rate_hz
        blocks = _waveform(path, sound, first, last, balance)
        yield (
            AudioInfo((last - first) / rate_hz, rate_hz, sound.channels),
            blocks if to_hz == rate_hz else resample_blocks(blocks, rate_hz, to_hz),
        )


def decode_audio(data: bytes, name: str) -> tuple[np.ndarray, int]:
    """Decode the content of a sound file that `load_audio` can read, as it would.

    Args:
        data: the content.
        name: what to call it in errors.

    Returns:
        The mean of the channels, (samples,) float32 in -1..1, and its rate in Hz.

    Raises:
        AumError: it is damaged.
    """
    found = scan(io.BytesIO(data), name)
    if found is None:
        raise AumError(f"{name} is not a sound, or damaged at its beginning", fix="write it again", exit_code=1)
    try:
        with _Decoder(name, io.BytesIO(data), found) as sound:
            _, last = _span(name, sound, None, None)
            return np.concatenate([*_waveform(name, sound, 0, last)]), sound.samplerate  # (samples,)
    except soundfile.LibsndfileError as error:
        raise AumError(f"{name} is damaged at its beginning", fix="write it again", exit_code=1) from error


def file_content(path: Path | str) -> bytes | None:
    """All bytes of a sound file; None where libsndfile can't read it as it is, or its path names a channel."""
    path, channel = split_channel(os.fspath(path))
    found = scan_file(path, os.stat(path))
    return Path(path).read_bytes() if channel == MEAN and found is not None and not found.parts else None


def audio_info(path: Path | str) -> AudioInfo:
    """Find out a sound file's length, rate and channels.

    Args:
        path: the file.

    Returns:
        What its container holds; the sound itself is not decoded.

    Raises:
        AumError: the file is missing, empty, no audio, or holds less or more than its header promises.
    """
    path = os.fspath(path)
    with _open(path) as sound:
        _, last = _span(path, sound, None, None)
        return AudioInfo(last / sound.samplerate, sound.samplerate, sound.channels)


def check_clip(
    path: Path | str, start_s: float | None = None, stop_s: float | None = None, silent: bool = False
) -> AudioInfo:
    """Decode a clip once, in blocks, to know that it can be used.

    Args:
        path: the file.
        start_s: first second of the clip; None for the beginning.
        stop_s: end of the clip in seconds; None for the end of the file.
        silent: whether the clip may be silent.

    Returns:
        The clip's length and extremes, and the file's rate and channels.

    Raises:
        AumError: whatever `load_audio` would raise, or that the clip is silent.
    """
    path = os.fspath(path)
    lowest, highest, balance = math.inf, -math.inf, Balance()
    with _open(path) as sound:
        first, last = _span(path, sound, start_s, stop_s)
        for waveform in _waveform(path, sound, first, last, balance):  # (samples,)
            lowest, highest = min(lowest, float(waveform.min())), max(highest, float(waveform.max()))
        info = AudioInfo(
            (last - first) / sound.samplerate, sound.samplerate, sound.channels, lowest, highest, balance.cancels
        )
    if highest - lowest < SILENCE and not silent:
        what = "the mean of its channels" if info.channels > 1 and split_channel(path)[1] == MEAN else "it"
        fix = "take one channel: --channel left" if info.cancels else "remove it, or record it again"
        raise AumError(
            f"{path}{_slice_text(start_s, stop_s)} is silent: {what} never changes",
            fix=f"{fix}; --set keep=silent keeps silent clips",
            exit_code=1,
        )
    return info


def find_audio(folder: Path | str) -> list[Path]:
    """List the sound files below a folder.

    Args:
        folder: searched with all its sub-folders; links are followed, each folder is entered once.

    Returns:
        Paths, sorted, whose suffix in any case is in AUDIO_SUFFIXES; hidden files and folders (macOS writes `._name`)
        are passed over.

    Raises:
        AumError: the folder doesn't exist.
    """
    return [path for path in find_files(folder) if path.suffix.lower() in AUDIO_SUFFIXES]


def find_files(folder: Path | str) -> list[Path]:
    """List all files below a folder that are not hidden, sorted; links are followed, each folder is entered once."""
    return sorted(map(Path, walk_files(folder)))


def walk_files(
    folder: Path | str, ignored: list[str] | None = None, unreadable: list[OSError] | None = None
) -> Iterator[str]:
    """Give what `find_files` lists one by one, folder by folder: AudioSet has 2 million.

    Args:
        folder: where to begin.
        ignored: gets hidden files and folders, and those of SYSTEM_NAMES.
        unreadable: gets what can't be listed; None: that is an AumError.
    """
    if not os.path.isdir(folder):
        raise AumError(f"{folder} is not a folder", fix="name an existing folder with sound files", exit_code=1)
    entered = set()
    on_error = _unreadable_folder if unreadable is None else unreadable.append
    for here, folders, names in os.walk(folder, onerror=on_error, followlinks=True):
        entered.add(os.path.realpath(here))
        if ignored is not None:
            ignored += (os.path.join(here, name) for name in sorted(folders + names) if is_ignored(name))
        folders[:] = sorted(
            name
            for name in folders
            if not is_ignored(name) and os.path.realpath(os.path.join(here, name)) not in entered
        )
        yield from (os.path.join(here, name) for name in sorted(names) if not is_ignored(name))


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or created by the operating system."""
    return name.startswith(".") or name in SYSTEM_NAMES


def _unreadable_folder(error: OSError) -> None:
    raise AumError(
        f"can't list {error.filename}: {error.strerror}", fix="change its permissions or move it away", exit_code=1
    ) from error


class _Decoder:
    """A sound file that libsndfile has opened, as long as its scan found it, with that part of its interface we use.

    Args:
        path: for errors.
        file: the file, or its content.
        found: what the scan found in it.

    Raises:
        soundfile.LibsndfileError: libsndfile doesn't know the format.
        AumError: it would not decode all that is there.
    """

    def __init__(self, path: str, file: str | io.BytesIO, found: Contents):
        opened: io.BytesIO | Reassembled | None = None if isinstance(file, str) else file
        if found.parts:
            whole = open(file, "rb") if isinstance(file, str) else file  # noqa: SIM115  open while it is read
            opened = Reassembled(whole, found.parts)
        # as bytes, since soundfile can't encode a name that is not UTF-8
        name = os.fsencode(file) if isinstance(file, str) and os.name != "nt" else file
        self._file, self._sound = opened, soundfile.SoundFile(opened or name)
        sound = self._sound
        self.frames = sound.frames if found.samples is None else found.samples
        self.samplerate, self.channels, self.subtype = sound.samplerate, sound.channels, sound.subtype
        self.buffer_read_into = sound.buffer_read_into
        if sound.frames < self.frames:
            raise AumError(
                f"{path} can't be decoded to its end: {sound.frames:,} of {self.frames:,} samples would be read",
                fix=convert_fix(path),
                exit_code=1,
            )

    def __enter__(self) -> "_Decoder":
        return self

    def __exit__(self, *exception: object) -> None:
        self._sound.close()
        if self._file is not None:
            self._file.close()

    def seek(self, sample: int) -> None:
        """Go to a sample, for the first time; by decoding all before it where the codec can't do otherwise (GSM)."""
        if self._sound.seekable():
            self._sound.seek(sample)
            return
        passed = np.empty((min(sample, BLOCK_VALUES // self.channels), self.channels), np.float32)
        while sample > 0 and (count := self.buffer_read_into(passed[:sample], "float32")):
            sample -= count


@contextmanager
def _open(path: str) -> Iterator[_Decoder | Hdf5Sound]:
    """Open a sound file, or say what it is instead."""
    file, name = split_dataset(path)
    if "\0" in path:
        raise AumError(f"{one_line(path)} can't be a file: no name contains NUL", fix="correct the name", exit_code=1)
    sound: _Decoder | Hdf5Sound
    with ExitStack() as opened:
        try:
            status = os.stat(file)
            if stat.S_ISDIR(status.st_mode):
                raise AumError(f"{path} is a folder, not a sound file", fix="name the files in it", exit_code=1)
            if status.st_size == 0:
                raise AumError(f"{file} is empty (0 bytes)", fix="copy or download it again, or remove it", exit_code=1)
            if name:
                sound = opened.enter_context(open_hdf5(file, name))
            else:
                sound = opened.enter_context(_sound_file(path, file, scan_file(file, status)))
        except FileNotFoundError as error:
            raise AumError(f"{path} doesn't exist", fix="check the path", exit_code=1) from error
        except OSError as error:
            raise AumError(
                f"can't read {path}: {error.strerror or error}", fix="check its permissions and the disk", exit_code=1
            ) from error
        yield sound


def _sound_file(path: str, file: str, found: Contents | None) -> _Decoder:
    if found is None or file.lower().endswith(".raw"):  # by this name soundfile expects no header
        raise _unknown_format(Path(file))
    try:
        return _Decoder(path, file, found)
    except soundfile.LibsndfileError as error:
        raise AumError(
            f"{path} can't be decoded: {error.error_string}",
            fix="remove it; if it does play elsewhere, " + convert_fix(file),
            exit_code=1,
        ) from error


def _unknown_format(path: Path) -> AumError:
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        magic = file.read(8)
    if suffix in CONVERT_SUFFIXES or magic[4:] == b"ftyp":  # the latter: MP4 under another name
        return AumError(
            f"{path} is in a format that can't be read here ({suffix or 'mp4'})", fix=convert_fix(path), exit_code=1
        )
    return AumError(
        f"{path} is not audio, or damaged at its beginning",
        fix="remove it; if it does play elsewhere, " + convert_fix(path),
        exit_code=1,
    )


def _slice_text(start_s: float | None, stop_s: float | None) -> str:
    if start_s is None and stop_s is None:
        return ""
    return f" from {start_s or 0:g} s to {'its end' if stop_s is None else f'{stop_s:g} s'}"


def _span(path: str, sound: _Decoder | Hdf5Sound, start_s: float | None, stop_s: float | None) -> tuple[int, int]:
    """First sample and the one after the last of a slice, which must lie inside the file."""
    rate_hz, samples = sound.samplerate, sound.frames
    if samples == 0:
        raise AumError(f"{path} has 0 samples", fix="remove it, or record it again", exit_code=1)
    _check_limits(path, rate_hz, sound.channels, samples)
    begin = 0.0 if start_s is None else start_s * rate_hz
    end = float(samples) if stop_s is None else stop_s * rate_hz
    if not (0 <= begin < end <= samples + ROUNDING_S * rate_hz) or round(begin) >= samples:
        raise AumError(
            f"{path}: the slice{_slice_text(start_s, stop_s) or ' of it'} doesn't lie inside the file, "
            f"which lasts {samples / rate_hz:.3f} s",
            fix="correct its start and stop",
            exit_code=1,
        )
    first = round(begin)
    return first, max(min(round(end), samples), first + 1)  # a slice shorter than a sample is that sample


def _check_limits(path: str, rate_hz: int, channels: int, samples: int) -> None:
    """Refuse what only a damaged header says, before time and memory are spent on it."""
    file = split_dataset(path)[0]
    for what, value, lowest, highest, fix in (
        ("a rate in Hz", rate_hz, LOWEST_HZ, HIGHEST_HZ, convert_fix(file, out=f"-ar {HIGHEST_HZ}")),
        ("channels", channels, 1, MOST_CHANNELS, convert_fix(file, out="-ac 1")),
        ("a length in s", samples / rate_hz, 0, LONGEST_S, convert_fix(file, out=f"-t {LONGEST_S:.0f}")),
    ):
        if not lowest <= value <= highest:
            raise AumError(
                f"{path}: its header says {what} of {value:,.0f}; {lowest:,} to {highest:,.0f} can be read here",
                fix="the file is damaged; if it does play elsewhere, " + fix,
                exit_code=1,
            )


def _waveform(
    path: str, sound: _Decoder | Hdf5Sound, first: int, last: int, balance: Balance | None = None
) -> Iterator[np.ndarray]:
    """Decode samples `first` to `last`, (samples,) float32 a block: the mean of the channels, or the one named."""
    channel = split_channel(path)[1]
    place = None
    if channel == LOUDEST and sound.channels > 1:
        levels = Balance()
        for block in _blocks(path, sound, first, last):
            levels.add(block, block[:, 0])
        place = levels.loudest
        sound.seek(first)
    elif channel not in (MEAN, LOUDEST):
        place = channel_place(path, channel, sound.channels)
    for block in _blocks(path, sound, first, last):
        if place is None:
            mean = _mono(block)
            if balance is not None and sound.channels > 1:
                balance.add(block, mean)
            yield mean
        else:
            yield block[:, place].copy()  # so that the others are let go


def _blocks(path: str, sound: _Decoder | Hdf5Sound, first: int, last: int) -> Iterator[np.ndarray]:
    """Decode samples `first` to `last`; every block is (samples, channels) float32, finite and complete."""
    dtype = "int16" if sound.subtype == "PCM_16" else "float32"
    step = max(1, min(int(BLOCK_S * sound.samplerate), BLOCK_VALUES // sound.channels))
    try:
        if first:
            sound.seek(first)
        count = wanted = 0
        while first < last and count == wanted:  # after a short read libsndfile continues at another place
            wanted = min(step, last - first)
            block = np.empty((wanted, sound.channels), dtype)
            count = sound.buffer_read_into(block, dtype)  # asks libsndfile less than read() does
            block = block[:count]
            if not count:
                break
            if dtype == "int16":  # several times as fast as libsndfile converts them
                block = block.astype(np.float32)
                block *= np.float32(1 / 32768)
            elif not np.isfinite(block).all():
                raise AumError(
                    f"{path} has samples that are not numbers (NaN or infinity)",
                    fix="export it again, or remove it",
                    exit_code=1,
                )
            first += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise AumError(
            f"{path} is damaged or truncated: decoding fails after {first / sound.samplerate:.3f} s of "
            f"{sound.frames / sound.samplerate:.3f} s",
            fix="copy or download it again, or remove it",
            exit_code=1,
        ) from error
    if first < last:
        raise AumError(
            f"{path} is truncated: its header promises {sound.frames / sound.samplerate:.3f} s, the sound "
            f"ends after {first / sound.samplerate:.3f} s",
            fix="copy or download it again, or remove it",
            exit_code=1,
        )


def _mono(block: np.ndarray) -> np.ndarray:
    """Mean of the channels: (samples, channels) -> (samples,), float32."""
    if block.shape[1] == 1:
        return block[:, 0]
    total = block[:, 0].copy()
    for channel in block.T[1:]:  # several times as fast as NumPy's mean over an axis this short
        total += channel
    return total / np.float32(block.shape[1])

"""Which channel of a sound is used: the mean of all, unless its path names one, as in `call.wav::left`.

Behind `::` stands left, right, a number from 1 on, or max: the one with the most power. A clip's path takes that along
from `aum prepare`, by way of the manifest, to training and evaluation.
"""

import os
from pathlib import Path
from typing import TypeVar

import numpy as np

from aumcli.errors import AumError

SEPARATOR = "::"
HDF5_SUFFIXES = (".hdf5", ".h5")
MEAN, LOUDEST = "mean", "max"
NAMED = {"left": 1, "right": 2}
# Below this share of the power that the mean of unrelated channels has, they cancel each other. Of 5,820 stereo files
# from Debian's packages (music, speech, effects) 5,816 have 0.76 or more, and 4 with an inverted channel 0.0003 or less
LEAST_LEFT = 0.02

P = TypeVar("P", str, Path)


def is_channel(text: str) -> bool:
    """Whether a text names a channel."""
    return text in (MEAN, LOUDEST) or text in NAMED or text.isascii() and text.isdecimal() and int(text) > 0


def check_channel(text: str) -> str:
    """Give a text back that names a channel; raise an AumError where it names none."""
    if not is_channel(text):
        raise AumError(
            f"there is no channel {text!r}",
            fix="--channel takes mean, left, right, a number from 1 on, or max for the loudest",
        )
    return text


def with_channel(path: Path | str, channel: str) -> str:
    """The path of one channel of a sound; the path itself for their mean, or where it names one already."""
    path = os.fspath(path)
    return path if channel == MEAN or split_channel(path)[1] != MEAN else f"{path}{SEPARATOR}{channel}"


def split_channel(path: P) -> tuple[P, str]:
    """Split a path into that of a sound and its channel."""
    sound, separator, channel = os.fspath(path).rpartition(SEPARATOR)
    # what stands behind an HDF5 file is a data set, whatever its name; and a file may be called so
    if (
        separator
        and sound
        and is_channel(channel)
        and not sound.lower().endswith(HDF5_SUFFIXES)
        and not os.path.lexists(path)
    ):
        return type(path)(sound), channel
    return path, MEAN


def channel_place(path: str, channel: str, channels: int) -> int:
    """The place of a channel, named or numbered, among those that a file has, from 0 on.

    Raises:
        AumError: the file has no such channel.
    """
    number = NAMED.get(channel) or int(channel)
    if number > channels:
        raise AumError(
            f"{path} has {channels} channel{'s' * (channels > 1)}, so not number {number}",
            fix=f"choose another: --channel {channels}, or mean",
            exit_code=1,
        )
    return number - 1


class Balance:
    """Powers of the channels of a sound and of their mean, constant parts left out, summed up block by block."""

    def __init__(self) -> None:
        self._samples = 0
        self._sums = self._squares = np.zeros(1)  # of each channel; of the mean at last

    def add(self, block: np.ndarray, mean: np.ndarray) -> None:
        """Count a block, (samples, channels) float32, and the mean of its channels, (samples,)."""
        columns = [*block.T, mean]
        with np.errstate(over="ignore"):  # of samples beyond 1e19: then nothing is said
            squares = [float(np.dot(column, column)) for column in columns]
        self._squares = self._squares + np.array(squares)  # (channels + 1,)
        self._sums = self._sums + np.array([float(column.sum(dtype=np.float64)) for column in columns])
        self._samples += len(block)

    @property
    def powers(self) -> np.ndarray:
        """Power of each channel and, last, of the mean: (channels + 1,)."""
        samples = max(1, self._samples)
        return np.maximum(self._squares / samples - (self._sums / samples) ** 2, 0)

    @property
    def loudest(self) -> int:
        """Place of the channel with the most power."""
        return int(self.powers[:-1].argmax())

    @property
    def cancels(self) -> bool:
        """Whether the mean has lost nearly all power, since the channels are each other's opposite."""
        *channels, mean = self.powers.tolist()
        return len(channels) > 1 and sum(channels) > 0 and mean < LEAST_LEFT * sum(channels) / len(channels) ** 2

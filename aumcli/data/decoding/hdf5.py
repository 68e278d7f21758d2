"""Sounds inside an HDF5 file: the path `EPIC_audio.hdf5::P01_11` means the data set P01_11 of EPIC_audio.hdf5.

A data set is (samples,) or (samples, channels), float in -1..1 or int16. Its rate is its attribute `sample_rate_hz`,
else that of the file, else 24 kHz: EPIC-KITCHENS's own file, which says none, has that. Of a slice only its samples are
read.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from aumcli.data.decoding.channels import HDF5_SUFFIXES, SEPARATOR, P, split_channel
from aumcli.errors import AumError

if TYPE_CHECKING:
    import h5py

RATE_HZ = 24000


def split_dataset(path: P) -> tuple[P, str | None]:
    """Split a path into its file and the data set in it, None unless it is an HDF5 file; a channel is dropped."""
    if SEPARATOR in os.fspath(path):
        path, _ = split_channel(path)
        file, _, name = os.fspath(path).partition(SEPARATOR)
        if name and file.lower().endswith(HDF5_SUFFIXES):
            return type(path)(file), name
    return path, None


class Hdf5Sound:
    """A data set, with the part of soundfile.SoundFile's interface that decoding needs."""

    format = "HDF5"
    subtype = "FLOAT"

    def __init__(self, data: "h5py.Dataset", rate_hz: int):
        self._data, self._at = data, 0
        self.samplerate, self.frames = rate_hz, len(data)
        self.channels = 1 if data.ndim == 1 else data.shape[1]

    def seek(self, sample: int) -> None:
        """Go to a sample."""
        self._at = sample

    def buffer_read_into(self, buffer: np.ndarray, dtype: str = "float32") -> int:
        """Fill (samples, channels) float32; return the number of samples, fewer at the end."""
        block = self._data[self._at : self._at + len(buffer)]  # (samples,) or (samples, channels)
        self._at += len(block)
        scale = 1 / 32768 if block.dtype == np.int16 else 1
        np.multiply(block.reshape(len(block), self.channels).astype(dtype), np.float32(scale), out=buffer[: len(block)])
        return len(block)


@contextmanager
def open_hdf5(file: Path | str, name: str) -> Iterator[Hdf5Sound]:
    """Open one sound of an HDF5 file.

    Args:
        file: an existing HDF5 file.
        name: the data set in it.

    Raises:
        AumError: h5py is not installed, the file is none or damaged, or the data set doesn't exist or is no sound.
    """
    h5py = import_h5py()
    try:
        with h5py.File(file, "r") as stored:
            data = stored.get(name)
            if not isinstance(data, h5py.Dataset):
                raise AumError(
                    f"{file} has no data set {name!r}", fix="check its name, or fetch the file again", exit_code=1
                )
            sound = (
                data.ndim in (1, 2) and (data.dtype.kind == "f" or data.dtype == np.int16) and 0 not in data.shape[1:]
            )
            if not sound:
                raise AumError(
                    f"{file}{SEPARATOR}{name} is no sound: {data.dtype} of shape {data.shape}",
                    fix="store (samples,) or (samples, channels), float or int16",
                    exit_code=1,
                )
            rate_hz = data.attrs.get("sample_rate_hz", stored.attrs.get("sample_rate_hz", RATE_HZ))
            yield Hdf5Sound(data, int(rate_hz))
    except OSError as error:
        raise AumError(
            f"{file} is no HDF5 file, or damaged: {error}", fix="copy or download it again", exit_code=1
        ) from error


def hdf5_names(file: Path) -> list[str]:
    """Names of the data sets at the top of an HDF5 file, in its order."""
    h5py = import_h5py()
    try:
        with h5py.File(file, "r") as stored:
            return [name for name, item in stored.items() if isinstance(item, h5py.Dataset)]
    except OSError as error:
        raise AumError(
            f"{file} is no HDF5 file, or damaged: {error}", fix="copy or download it again", exit_code=1
        ) from error


def import_h5py() -> ModuleType:
    """The optional package h5py, or an AumError that says how to install it."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise AumError("reading HDF5 files needs the package h5py", fix="pip install 'aumcli[data]'") from error

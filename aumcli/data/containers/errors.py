"""What is said of a file that holds less than its header promises, or more."""

import os
import shlex
from pathlib import Path

from aumcli.errors import AumError

COPY = "copy or download it again, or remove it"


def convert_fix(path: Path | str, how: str = "", out: str = "") -> str:
    """The command that turns `path` into something every tool reads, with ffmpeg's options for input and output."""
    path = Path(path)
    target = path.with_name(path.stem + ("-converted" if path.suffix.lower() == ".wav" else "") + ".wav")
    name, target = (os.path.join(".", each) if each.startswith("-") else each for each in (str(path), str(target)))
    return " ".join(["convert it: ffmpeg", *filter(None, [how]), "-i", shlex.quote(name), *filter(None, [out]), shlex.quote(target)])


def truncated(path: str, why: str, fix: str = COPY) -> AumError:
    """The error that less is there than was promised."""
    return AumError(f"{path} is truncated: {why}", fix=fix, exit_code=1)


def damaged(path: str, why: str, fix: str = COPY) -> AumError:
    """The error that something within the sound is lost."""
    return AumError(f"{path} is damaged: {why}", fix=fix, exit_code=1)


def left_over(path: str, why: str, fix: str) -> AumError:
    """The error that more sound is there than would be decoded."""
    return AumError(f"{path} holds more sound than would be read: {why}", fix=fix, exit_code=1)

"""What is said of a file that holds less than its header promises, or more."""

from pathlib import Path

from aumcli.errors import AumError
from aumcli.utils.text import shell_quoted

COPY = "copy or download it again, or remove it"


def convert_fix(path: Path | str, how: str = "", out: str = "") -> str:
    """The command that turns `path` into something every tool reads, with ffmpeg's options for input and output."""
    source, target = _quoted(path)
    return " ".join(["convert it: ffmpeg", *filter(None, [how]), "-i", source, *filter(None, [out]), target])


def whole_fix(path: str) -> str:
    """The command that takes all that stands in a file for sound, whatever its header says."""
    return "if all of it is sound, convert it: sox --ignore-length " + " ".join(_quoted(path))


def cut_fix(path: str, size: int) -> str:
    """The command that cuts off what follows the first `size` bytes."""
    out = shell_quoted(_beside(path, "-cut"))
    return f"if what follows is not sound, cut it off: head -c {size} {_quoted(path)[0]} > {out}"


def _quoted(path: Path | str) -> tuple[str, str]:
    """A file and one beside it to convert it to, for a shell."""
    path = Path(path)
    return shell_quoted(path), shell_quoted(
        _beside(path.with_suffix(".wav"), "-converted" if path.suffix.lower() == ".wav" else "")
    )


def _beside(path: Path | str, mark: str) -> Path:
    path = Path(path)
    return path.with_name(path.stem + mark + path.suffix)


def truncated(path: str, why: str, fix: str = COPY) -> AumError:
    """The error that less is there than was promised."""
    return AumError(f"{path} is truncated: {why}", fix=fix, exit_code=1)


def too_long(path: str) -> AumError:
    """The error that a header has no room for the size of the sound that is there."""
    return AumError(f"{path} is longer than its format allows: more than 4 GiB", fix=whole_fix(path), exit_code=1)


def damaged(path: str, why: str, fix: str = COPY) -> AumError:
    """The error that something within the sound is lost."""
    return AumError(f"{path} is damaged: {why}", fix=fix, exit_code=1)


def another_file(path: str, where: str) -> AumError:
    """The error that a second sound file begins behind the first."""
    return left_over(path, f"another file begins behind the first, which ends after {where}", convert_fix(path))


def left_over(path: str, why: str, fix: str) -> AumError:
    """The error that more sound is there than would be decoded."""
    return AumError(f"{path} holds more sound than would be read: {why}", fix=fix, exit_code=1)

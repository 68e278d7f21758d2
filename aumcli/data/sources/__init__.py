"""Corpora that `aum prepare` knows: every module in this package is one, under its own name.

A module `<corpus>.py` defines `index(request: Request) -> Index`: it takes or fetches the files and says which clips
there are and what they are called. It judges no sound file; `aumcli.prepare` opens them all, the same way for all.
"""

import http.client
import importlib
import pkgutil
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from aumcli.data.manifest import Clip, Label
from aumcli.errors import AumError
from aumcli.progress import progress

CHUNK_BYTES = 2**18
TIMEOUT_S = 30


@dataclass(frozen=True)
class LeftOut:
    """A clip that could not be used, or a file that is none: where it lies, why, and what would mend it."""

    path: str
    reason: str
    fix: str = ""
    start_s: float | None = None
    stop_s: float | None = None


@dataclass(frozen=True)
class Request:
    """What the caller of `prepare` wants: `shares` are percent of train, val and test, None for the corpus's own."""

    corpus: str
    out: Path
    source: Path | None = None
    shares: tuple[float, float, float] | None = None
    seed: int = 0

    def refuse(self, **reasons: str) -> None:
        """Raise an AumError if an option is set that this corpus has no use for.

        Args:
            reasons: option (source, split or seed) -> why it can't be used.
        """
        given = {"source": self.source is not None, "split": self.shares is not None, "seed": self.seed != 0}
        for option, reason in reasons.items():
            if given[option]:
                raise AumError(f"--{option} can't be used with {self.corpus}: {reason}", fix=f"leave --{option} out")


@dataclass(frozen=True)
class Index:
    """What a source offers before any clip was opened.

    `arrange`, if set, gets the usable clips and the list of those left out, and returns the clips with their splits and
    further warnings: for sources whose splits depend on what can be used.
    """

    clips: list[Clip]
    labels: list[Label]
    origin: str
    left_out: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    arrange: Callable[[list[Clip], list[LeftOut]], tuple[list[Clip], list[str]]] | None = None


def names() -> list[str]:
    """Names of all corpora, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(corpus: str) -> ModuleType:
    """Import the module of a corpus.

    Args:
        corpus: one of `names()`.

    Returns:
        The module, which has `index(request)`.

    Raises:
        AumError: there is no such corpus.
    """
    if corpus not in names():
        raise AumError(f"unknown corpus {corpus!r}; known are {', '.join(names())}",
                       fix="for your own sounds: aum prepare folder DIR, with one sub-folder per class")
    return importlib.import_module(f"{__name__}.{corpus}")


def listed(names: Iterable[object], most: int = 5) -> str:
    """The first few of many names, and how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def replace_folder(new: Path, old: Path, own: Callable[[str], bool]) -> None:
    """Put a finished folder where an earlier run may have left one.

    Args:
        new: is moved to `old`.
        old: is removed first, if it is there.
        own: whether a file of that name in `old` is ours to remove.

    Raises:
        AumError: `old` holds something that no run of ours has put there; it is left alone.
    """
    foreign = sorted(path.name for path in old.iterdir() if not own(path.name)) if old.is_dir() else []
    if foreign:
        raise AumError(f"{old} would be replaced, but holds files from elsewhere: {listed(foreign)}",
                       fix="move them away, or choose another folder with --out")
    if old.is_dir():
        shutil.rmtree(old)
    new.rename(old)


def unwritable(path: Path, error: OSError) -> AumError:
    """What to tell when files of a corpus can't be written at `path`."""
    return AumError(f"can't write {path}: {error.strerror or error}",
                    fix="free some space, or choose another folder with --out", exit_code=1)


def download(url: str, path: Path) -> None:
    """Fetch a file; a part that an earlier call left behind is continued where the server allows it.

    Args:
        url: where the file is published.
        path: where it shall lie; until complete it is called `<path>.part`.

    Raises:
        AumError: no network, the server refuses, or the transfer broke off (a further call continues it).
    """
    part = path.with_name(path.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            continued = answer.status == 206
            total = int(answer.headers.get("Content-Length") or 0)
            with open(part, "ab" if continued else "wb") as file:
                blocks = iter(lambda: answer.read(CHUNK_BYTES), b"")
                received = sum(file.write(block) for block in progress(
                    blocks, f"fetching {path.name}", total // CHUNK_BYTES or None, unit="block"))
        if received < total:
            raise urllib.error.URLError(f"broke off after {received} of {total} bytes")
        part.replace(path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        if getattr(error, "code", None) == 416:                 # the part is no beginning of the file
            part.unlink()
        reason = getattr(error, "reason", None) or error
        raise AumError(f"can't fetch {url}: {reason}", fix="check the network and run the same command again; or fetch "
                       "it elsewhere and pass it with --source", exit_code=1) from error
    except OSError as error:
        raise unwritable(path, error) from error

"""aum prepare: take or fetch a corpus, open every clip once, and write the manifest."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from aumcli.data import sources
from aumcli.data.audio import AudioInfo, check_clip
from aumcli.data.manifest import Clip, write_manifest
from aumcli.data.sources import Index, LeftOut, Request
from aumcli.errors import AumError
from aumcli.progress import progress

DATA = Path("data")
BATCH_CLIPS = 4096                      # so many are handed to the threads at a time: AudioSet has 2e6 clips


@dataclass(frozen=True)
class PrepareReport:
    """What report.json holds: clips and seconds by split and by class and split, and everything that was left out."""

    corpus: str
    folder: str
    origin: str
    version: str
    seed: int
    split: tuple[float, float, float] | None
    multi_label: bool
    splits: dict[str, dict[str, float]]                 # split -> {"clips", "seconds"}
    classes: dict[str, dict[str, dict[str, float]]]     # class name -> split -> {"clips", "seconds"}
    sample_rates_hz: dict[str, int]                     # rate -> clips
    longest_s: float
    shortest_s: float
    left_out: list[LeftOut]
    warnings: list[str]


def prepare(corpus: str, out: Path | str | None = None, *, source: Path | str | None = None, split: str | None = None,
            seed: int = 0, strict: bool = False) -> PrepareReport:
    """Prepare a corpus: write manifest.csv, labels.csv and report.json.

    Args:
        corpus: one of `aumcli.data.sources.names()`.
        out: where to; None for data/<corpus>, for `folder` data/<name of the folder>.
        source: archive or folder to take the sounds from; `folder` needs it.
        split: percent of train, val and test, such as "80/10/10"; None for the corpus's own splits.
        seed: chooses among random splits, or random sounds.
        strict: a clip that can't be used is an error and nothing is written; else it is left out and reported.

    Returns:
        What was found, as in report.json; where `left_out` is not empty some inputs failed.

    Raises:
        AumError: unknown corpus, wrong option, unusable source, no usable clip, or any unusable one where `strict`.
    """
    module = sources.load(corpus)
    source = None if source is None else Path(source)
    name = corpus if corpus != "folder" or source is None else Path(os.path.abspath(source)).name
    out = Path(os.path.abspath(DATA / name if out is None else out))
    if seed < 0:
        raise AumError(f"seed {seed} is negative", fix="choose 0 or more")
    request = Request(corpus, out, source, parse_shares(split), seed)
    index = module.index(request)
    usable, infos, left_out = _open_all(index)
    if strict and left_out:
        raise _strict_error(left_out)
    if not usable:
        raise AumError(f"nothing is left of {corpus}: " + _first_reasons(left_out), fix="repair the files or take "
                       "others", exit_code=1)
    warnings = list(index.warnings)
    if index.arrange is not None:
        usable, more = index.arrange(usable, left_out)
        warnings += more
    report = _report(request, index, usable, infos, left_out, warnings)
    write_manifest(out, usable, index.labels, asdict(report))
    return report


def parse_shares(text: str | None) -> tuple[float, float, float] | None:
    """Read percentages of train, val and test.

    Args:
        text: such as "80/10/10"; None passes.

    Returns:
        Three numbers that add up to 100, the first above 0.

    Raises:
        AumError: it is anything else.
    """
    if text is None:
        return None
    try:
        shares = tuple(float(part) for part in text.split("/"))
    except ValueError:
        shares = ()
    in_range = len(shares) == 3 and shares[0] > 0 and min(shares) >= 0          # NaN is neither
    if not in_range or not abs(sum(shares) - 100) < 1e-6:
        raise AumError(f"split {text!r} is not three percentages that add up to 100, the first above 0",
                       fix="for train, val and test: --split 80/10/10")
    return shares


def _open_all(index: Index) -> tuple[list[Clip], list[AudioInfo], list[LeftOut]]:
    """Open every clip once; give the usable ones, what is known of each, and the others, in the index's order."""
    usable, infos, left_out = [], [], list(index.left_out)
    with ThreadPoolExecutor(os.cpu_count()) as threads:         # libsndfile decodes outside Python's lock
        def results():
            for begin in range(0, len(index.clips), BATCH_CLIPS):
                yield from threads.map(_try_clip, index.clips[begin:begin + BATCH_CLIPS])

        checked = progress(results(), "opening", len(index.clips))
        for clip, result in zip(index.clips, checked, strict=True):
            if isinstance(result, AudioInfo):
                usable.append(clip)
                infos.append(result)
            else:
                left_out.append(LeftOut(str(clip.path), result.problem, result.fix, clip.start_s, clip.stop_s))
    return usable, infos, left_out


def _try_clip(clip: Clip) -> AudioInfo | AumError:
    try:
        return check_clip(clip.path, clip.start_s, clip.stop_s)
    except AumError as error:
        return error


def _first_reasons(left_out: Sequence[LeftOut]) -> str:
    return sources.listed((_reason(item) for item in left_out), 3) or "the source offers no clips"


def _reason(item: LeftOut) -> str:
    """Problem with the file's name in front, unless it says it already."""
    return item.reason if item.path in item.reason else f"{item.path}: {item.reason}"


def _strict_error(left_out: list[LeftOut]) -> AumError:
    return AumError(f"{len(left_out)} clips can't be used and nothing was written:\n"
                    + "\n".join(f"  {_reason(item)} ({item.fix})" for item in left_out),
                    fix="repair or remove them, or leave --strict out to prepare the rest", exit_code=1)


def _report(request: Request, index: Index, clips: list[Clip], infos: list[AudioInfo], left_out: list[LeftOut],
            warnings: list[str]) -> PrepareReport:
    """Count clips and seconds; `infos` belong to `clips`, which `arrange` may have changed but not reordered."""
    names = {label.id: label.name for label in index.labels}
    splits: dict[str, dict[str, float]] = {}
    classes: dict[str, dict[str, dict[str, float]]] = {label.name: {} for label in index.labels}
    for clip, info in zip(clips, infos, strict=True):
        for table in (splits, *(classes[names[label]] for label in clip.labels)):
            cell = table.setdefault(clip.split, {"clips": 0, "seconds": 0.0})
            cell["clips"] += 1
            cell["seconds"] += info.duration_s
    for table in (splits, *classes.values()):
        for cell in table.values():
            cell["seconds"] = round(cell["seconds"], 3)
    untrained = [name for name, table in classes.items() if "train" not in table]
    if untrained:
        warnings = [*warnings, f"{len(untrained)} classes have no clip in train: {sources.listed(untrained)}"]
    rates = Counter(info.sample_rate_hz for info in infos)
    return PrepareReport(
        corpus=request.corpus, folder=str(request.out), origin=index.origin, version=metadata.version("aumcli"),
        seed=request.seed, split=request.shares, multi_label=any(len(clip.labels) > 1 for clip in clips),
        splits=splits, classes=classes, sample_rates_hz={str(rate): rates[rate] for rate in sorted(rates)},
        longest_s=round(max(info.duration_s for info in infos), 3),
        shortest_s=round(min(info.duration_s for info in infos), 6), left_out=left_out, warnings=warnings)

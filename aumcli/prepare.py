"""aum prepare: find or download a corpus, open every clip once, and write the manifest."""

import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from aumcli.config import FrontendConfig
from aumcli.data import sources
from aumcli.data.clips import Clip, Clips
from aumcli.data.datasets.shards import write_shards
from aumcli.data.decoding.audio import AudioInfo
from aumcli.data.decoding.channels import MEAN, check_channel, split_channel
from aumcli.data.decoding.integrity import implausible, open_clips
from aumcli.data.decoding.windows import LONG_CLIP_S
from aumcli.data.manifest import read_manifest, write_clips, write_events, write_manifest
from aumcli.data.sources import KEPT, TEST_ONLY, CorpusIndex, PrepareRequest, SkippedClip
from aumcli.data.sources.background import background_clips, background_note, with_splits
from aumcli.errors import AumError
from aumcli.utils.csv import listed
from aumcli.utils.files import no_empty_folders
from aumcli.utils.journal import Journal
from aumcli.utils.lock import locked
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, plural

DATA = Path("data")
OWN_NAMES = ("annotations", "folder", "csv", "ast-json")  # the user's own data: prepared under the name of its source
MISSING = "missing.csv"
JOURNAL = ".prepare.journal"  # what an interrupted call has done already
NO_VAL = (
    "there are no clips for validation, which chooses the best epoch: train with --set data.val_fraction=0.1, "
    "which validates on a share of train; or, where the data has no splits of its own, prepare with --split 80/10/10"
)
MEASURED_S = 30.0  # the beginning of a longer clip that normalisation is measured on: memory stays bounded


@dataclass(frozen=True)
class PrepareReport:
    """What report.json holds: clips and seconds by split and by class and split, and all skipped clips."""

    corpus: str
    folder: str
    origin: str
    version: str
    seed: int
    split: tuple[float, float, float] | None
    settings: dict[str, str]
    multi_label: bool
    splits: dict[str, dict[str, float]]  # split -> {"clips", "seconds"}
    classes: dict[str, dict[str, dict[str, float]]]  # class name -> split -> {"clips", "seconds"[, "missing"]}
    sample_rates_hz: dict[str, int]  # rate -> clips
    longest_s: float
    shortest_s: float
    normalisation: dict[str, float]  # of the training split's log-mel energies: {"mean", "std", "clips"}
    skipped: list[SkippedClip]
    missing: dict[str, dict[str, int]]  # split -> {"listed", "missing"}; missing.csv names each
    warnings: list[str]
    notes: list[str]  # how the source was understood
    band_hz: tuple[float, float] | None = None  # where the annotated events of train are, if their tables say it

    @property
    def failures(self) -> int:
        """How many clips were skipped or have no file."""
        return len(self.skipped) + sum(cell["missing"] for cell in self.missing.values())


def prepare(
    corpus: str,
    out: Path | str | None = None,
    *,
    source: Path | str | None = None,
    split: str | None = None,
    seed: int = 0,
    strict: bool = False,
    annotations: Path | str | None = None,
    settings: Sequence[str] = (),
    workers: int | None = None,
    shards: bool = False,
    channel: str = MEAN,
    background: Sequence[Path | str] = (),
) -> PrepareReport:
    """Prepare a corpus: write manifest.csv, labels.csv and report.json. An interrupted call is resumed.

    Args:
        corpus: one of `aumcli.data.sources.names()`.
        out: where to; None for data/<corpus>, for data of one's own data/<name of the source>.
        source: archive or folder of the sounds; `folder`, `csv` and `ast-json` need it.
        split: percent of train, val and test, such as "80/10/10"; None for the corpus's own splits.
        seed: chooses among random splits, or random sounds.
        strict: a clip that can't be used is an error and no manifest is written; else it is skipped and reported.
        annotations: tables about the sounds, or the folder of them; None: they lie with the sounds.
        settings: "key=value" each, for what only some corpora have; and `keep`: `silent`, `loud` or both, joined by a
            comma, for implausible clips that are used nevertheless.
        workers: threads that open clips; None for as many as there are cores.
        shards: write tar files for streaming too (see `aumcli.data.datasets.shards`).
        channel: what is used of sounds with several channels: their mean, or one (see `aumcli.data.decoding.channels`).
        background: folders of sounds of no class, which are added; long ones are cut up.

    Returns:
        What was found, as in report.json; where `failures` is not 0 some inputs failed.

    Raises:
        AumError: unknown corpus, wrong option, unusable source, no usable clip, or any unusable one where `strict`.
    """
    check_channel(channel)
    request = replace(_request(corpus, out, source, split, seed, annotations, settings), channel=channel)
    if workers is not None and workers < 1:
        raise AumError(f"{workers} workers can't open a clip", fix="choose 1 or more")
    with no_empty_folders(request.out), locked(request.out, "aum prepare") as doubt:
        folders = [(Path(folder), "") for folder in background]
        return _prepare(request, strict, workers or os.cpu_count() or 1, shards, [doubt] if doubt else [], folders)


def _prepare(
    request: PrepareRequest,
    strict: bool,
    workers: int,
    shards: bool,
    doubts: list[str],
    background: list[tuple[Path, str]],
) -> PrepareReport:
    """Prepare in a folder that is locked."""
    earlier = (
        _earlier(request.out) if request.corpus in OWN_NAMES else _Earlier({}, {})
    )  # other corpora have fixed splits
    index = sources.load(request.corpus).index(
        replace(request, earlier=earlier.splits if earlier.drawn_like(request) else {})
    )
    index.warnings.extend(doubts)
    unlabelled = background_clips([*index.background, *background])
    clips = Clips.of([*index.clips, *unlabelled] if unlabelled else index.clips)
    journal = Journal(request.out / JOURNAL)
    try:
        found = _open_all(clips, index, journal, workers, request.keep, request.channel)
        report = _finish(request, index, clips, found, strict, earlier)
        if shards:
            write_shards(request.out, found.clips, index.labels, request.seed, workers, journal)
    except BaseException:
        journal.close()
        raise
    journal.remove()
    return report


@dataclass(frozen=True)
class _Earlier:
    """What an earlier call wrote to the folder."""

    splits: Mapping[str, str]  # path without its channel -> split; of a file that isn't cut up
    report: Mapping[str, object]

    def drawn_like(self, request: PrepareRequest) -> bool:
        """Whether it drew its random splits in the same way."""
        values = (self.report.get(key) for key in ("corpus", "seed", "split", "settings"))
        return [*values] == [request.corpus, request.seed, request.shares and [*request.shares], dict(request.settings)]


def _earlier(out: Path) -> _Earlier:
    """What an earlier call wrote; empty where there is nothing or it can't be read."""
    try:
        clips, report = read_manifest(out).clips, json.loads((out / "report.json").read_text(encoding="utf-8"))
        columns = clips.columns()
        whole = (start_s is stop_s is None for start_s, stop_s in zip(columns["start_s"], columns["stop_s"]))
        return _Earlier(
            {
                os.fspath(split_channel(path)[0]): split
                for path, split, is_whole in zip(columns["path"], columns["split"], whole)
                if is_whole
            },
            report if isinstance(report, dict) else {},
        )
    except (AumError, OSError, ValueError):
        return _Earlier({}, {})


def _moved(earlier: Mapping[str, str], clips: Clips) -> list[str]:
    """A warning where clips of an earlier test split are in train now."""
    columns = clips.columns()
    moved = [
        path
        for path, split in zip(columns["path"], columns["split"])
        if split == "train" and earlier.get(path) == "test"
    ]
    clips_are = counted(len(moved), "clip of the earlier test split is", "clips of the earlier test split are")
    return (
        [f"{clips_are} in train now: figures of models trained before and after don't compare: {listed(moved)}"]
        if moved
        else []
    )


def _request(corpus: str, out, source, split, seed, annotations, settings) -> PrepareRequest:
    """The arguments of `prepare`, checked."""
    sources.load(corpus)
    source = None if source is None else Path(source)
    annotations = None if annotations is None else Path(annotations)
    if annotations is not None and not annotations.exists():
        raise AumError(f"{annotations} doesn't exist", fix="name the tables, or their folder, with --annotations")
    main = source or annotations
    name = Path(os.path.abspath(main)).stem if corpus in OWN_NAMES and main is not None else corpus
    name = Path(os.path.abspath(main)).name if name != corpus and main.is_dir() else name
    if seed < 0:
        raise AumError(f"seed {seed} is negative", fix="choose 0 or more")
    wrong = [text for text in settings if not text.partition("=")[0].strip() or "=" not in text]
    if wrong:
        raise AumError(f"--set {wrong[0]} is not key=value", fix="such as --set val=5")
    values = {key.strip(): value.strip() or value for key, _, value in (text.partition("=") for text in settings)}
    keep = frozenset(filter(None, values.pop("keep", "").split(",")))
    if not keep <= KEPT.keys():
        raise AumError(
            f"--set keep={','.join(sorted(keep))}: clips can be kept that are {' or '.join(KEPT)}",
            fix="--set keep=silent",
        )
    return PrepareRequest(
        corpus,
        Path(os.path.abspath(DATA / name if out is None else out)),
        source,
        parse_shares(split),
        seed,
        annotations,
        values,
        keep,
    )


def parse_shares(text: str | None) -> tuple[float, float, float] | None:
    """Read percentages of train, val and test.

    Args:
        text: such as "80/10/10"; None passes.

    Returns:
        Three numbers that add up to 100, the first above 0, or else all of it for tests: (0, 0, 100).

    Raises:
        AumError: it is anything else.
    """
    if text is None:
        return None
    try:
        train, val, test = map(float, text.split("/"))
    except ValueError:
        train = val = test = math.nan
    shares = train, val, test
    in_range = (train > 0 or shares == TEST_ONLY) and val >= 0 and test >= 0  # NaN is neither
    if not in_range or not abs(sum(shares) - 100) < 1e-6:
        raise AumError(
            f"split {text!r} is not three percentages that add up to 100, the first above 0",
            fix="for train, val and test: --split 80/10/10; for tests only: --split 0/0/100",
        )
    return shares


@dataclass
class _Found:
    """The usable clips, their durations and sample rates, and the skipped ones."""

    clips: Clips
    durations_s: array
    sample_rates_hz: array
    skipped: list[SkippedClip]
    kept: dict[str, list[str]]  # silent or loud -> paths of such clips
    cancelling: list[str]  # paths of clips whose channels cancel each other


def _open_all(
    clips: Clips, index: CorpusIndex, journal: Journal, workers: int, keep: frozenset[str], channel: str
) -> _Found:
    """Open every clip once."""
    places, durations_s, rates, skipped, cancelling = array("q"), array("d"), array("q"), list(index.skipped), []
    kept: dict[str, list[str]] = {what: [] for what in KEPT if what in keep}
    results = progress(
        open_clips(clips.with_channel(channel), journal, workers, index.longest_s, keep), "opening", len(clips)
    )
    for place, result in enumerate(results):
        if isinstance(result, AudioInfo):
            places.append(place)
            durations_s.append(result.duration_s)
            rates.append(result.sample_rate_hz)
            for what in implausible(result) & keep:
                kept[what].append(clips.slice_at(place)[0])
            if result.cancels:
                cancelling.append(clips.slice_at(place)[0])
        else:
            skipped.append(result)
    return _Found(clips.take(np.array(places, dtype=np.int64)), durations_s, rates, skipped, kept, cancelling)


def _finish(
    request: PrepareRequest, index: CorpusIndex, clips: Clips, found: _Found, strict: bool, earlier: _Earlier
) -> PrepareReport:
    """Write manifest and report; `found.clips` get their final splits."""
    if strict and (found.skipped or index.missing):
        raise _strict_error(found.skipped, index.missing)
    if not found.clips:
        raise AumError(
            f"nothing is left of {request.corpus}: {_first_reasons(index, found.skipped)}",
            fix=listed(dict.fromkeys(item.fix for item in found.skipped if item.fix), 3, "; or ")
            or "repair the files or take others",
            exit_code=1,
        )
    warnings = list(index.warnings)
    has_labels = found.clips.has_labels()
    of_classes: Sequence[Clip] = found.clips.take(np.flatnonzero(has_labels))
    if index.arrange is not None:
        of_classes, more = index.arrange(of_classes, found.skipped)
        warnings += more
    rest = found.clips.take(np.flatnonzero(~has_labels))
    others = with_splits(rest, Clips.of(of_classes).splits, request.shares)
    if index.arrange is not None or others:
        found.clips = Clips.of([*of_classes, *others])  # in this order they were listed
    warnings += _moved(earlier.splits, found.clips)
    for what, identity in index.identities.items():
        warnings += leaks(what, found.clips, identity)
    if found.cancelling:
        warnings.append(
            f"the channels of {counted(len(found.cancelling), 'clip')} cancel each other, "
            f"and their mean is next to silent: {listed(found.cancelling)}; take one with --channel left"
        )
    found.clips = found.clips.with_channel(request.channel)
    report = _report(request, index, clips, found, warnings)
    write_events(request.out, index.events.with_channel(request.channel))
    write_manifest(request.out, found.clips, index.labels, asdict(report))
    if index.missing:
        write_clips(request.out / MISSING, index.missing.columns())
    else:
        (request.out / MISSING).unlink(missing_ok=True)  # of an earlier call
    return report


def leaks(what: str, clips: Iterable[Clip], identity) -> list[str]:
    """A warning if splits share what they shouldn't.

    Args:
        what: a word for it, such as speaker.
        clips: of all splits.
        identity: gives a clip's; "" where it isn't known.

    Returns:
        Nothing, or one sentence.
    """
    splits: dict[str, tuple[str, ...]] = {}
    for clip in clips:
        name = identity(clip)
        known = splits.setdefault(name, (clip.split,)) if name else (clip.split,)
        if clip.split not in known:
            splits[name] = (*known, clip.split)
    shared = {name: found for name, found in splits.items() if len(found) > 1}
    if not shared:
        return []
    between = Counter(" and ".join(sorted(found)) for found in shared.values())
    pairs = ", ".join(f"{count} in {names}" for names, count in sorted(between.items()))
    return [
        f"{len(shared):,} of {counted(len(splits), what)} {plural(len(shared), 'occurs', 'occur')} in several splits "
        f"({pairs}), so figures tell less about new {what}s: {listed(sorted(shared), 3)}"
    ]


def _first_reasons(index: CorpusIndex, skipped: Sequence[SkippedClip]) -> str:
    missing = (
        f"{counted(len(index.missing), 'clip has', 'clips have')} no file"
        if index.missing
        else "the source offers no clips"
    )
    return listed((_reason(item) for item in skipped), 3) or missing


def _reason(item: SkippedClip) -> str:
    """The problem, after the file's name unless it contains that already."""
    return item.reason if item.path in item.reason else f"{item.path}: {item.reason}"


def _strict_error(skipped: list[SkippedClip], missing: Clips) -> AumError:
    lines = [f"  {_reason(item)} ({item.fix})" for item in skipped] + [
        f"  {path}: no such file" for path in missing.paths()
    ]
    return AumError(
        f"{counted(len(lines), 'clip')} can't be used and no manifest was written:\n" + "\n".join(lines),
        fix="repair or remove them, or omit --strict to prepare the rest",
        exit_code=1,
    )


def _training_notes(
    request: PrepareRequest, found: _Found, rates: Mapping[int, int], band_hz: tuple[float, float] | None
) -> list[str]:
    """Notes about what a training does not use."""
    return [*_unused_band_note(request, rates, band_hz), *_long_clip_note(request, found)]


def _long_clip_note(request: PrepareRequest, found: _Found) -> list[str]:
    """A note about clips of which an epoch uses a crop; not of published corpora, whose lengths are fixed."""
    long = [duration_s for duration_s in found.durations_s if duration_s > LONG_CLIP_S]
    if not long or request.corpus not in OWN_NAMES:
        return []
    return [
        f"{counted(len(long), 'clip lasts', 'clips last')} longer than {LONG_CLIP_S:g} s, "
        f"the longest {max(long):,.0f} s: an epoch trains on one random crop of each, as long as the model's input "
        "(10 s at most at the usual hop, unless frontend.frames sets more); a table with start and stop makes several "
        "clips of one file: aum prepare csv"
    ]


def _report(
    request: PrepareRequest, index: CorpusIndex, clips: Clips, found: _Found, warnings: list[str]
) -> PrepareReport:
    """Count clips and seconds, and what is missing of each split and class."""
    names = {label.id: label.name for label in index.labels}
    splits: dict[str, dict[str, float]] = {}
    classes: dict[str, dict[str, dict[str, float]]] = {label.name: {} for label in index.labels}
    for clip, duration_s in zip(found.clips, found.durations_s, strict=True):
        for table in (splits, *(classes[names[label]] for label in clip.labels)):
            cell = table.setdefault(clip.split, {"clips": 0, "seconds": 0.0})
            cell["clips"] += 1
            cell["seconds"] += duration_s
    absent = {split: index.missing.of_split(split).columns()["labels"] for split in index.missing.splits}
    for split, joined in absent.items():
        for label, count in Counter(label for labels in joined for label in labels.split(";")).items():
            classes[names[label]].setdefault(split, {"clips": 0, "seconds": 0.0})["missing"] = count
    for table in (splits, *classes.values()):
        for cell in table.values():
            cell["seconds"] = round(cell["seconds"], 3)
    to_train = request.shares != TEST_ONLY
    untrained = [name for name, table in classes.items() if not table.get("train", {}).get("clips")]
    if untrained and to_train:
        warnings = [
            *warnings,
            f"{counted(len(untrained), 'class has', 'classes have')} no clip in train: {listed(untrained)}",
        ]
    if request.corpus in OWN_NAMES and "val" not in splits and to_train:  # the corpora say what their publishers did
        warnings = [*warnings, NO_VAL]
    rates = Counter(found.sample_rates_hz)
    return PrepareReport(
        corpus=request.corpus,
        folder=str(request.out),
        origin=index.origin,
        version=metadata.version("aumcli"),
        seed=request.seed,
        split=request.shares,
        settings=dict(request.settings) | _keep_setting(request),
        multi_label=any(len(labels) > 1 for labels in found.clips.label_sets),
        splits=splits,
        classes=classes,
        band_hz=index.band_hz,
        sample_rates_hz={str(rate): rates[rate] for rate in sorted(rates)},
        longest_s=round(max(found.durations_s), 3),
        shortest_s=round(min(found.durations_s), 6),
        normalisation=_normalisation(found),
        skipped=found.skipped,
        missing={
            split: {"listed": len(clips.of_split(split)) + len(rows), "missing": len(rows)}
            for split, rows in absent.items()
        },
        warnings=warnings,
        notes=[
            *index.notes,
            *background_note(found.clips.take(np.flatnonzero(~found.clips.has_labels()))),
            *_kept(found),
            *(_training_notes(request, found, rates, index.band_hz) if to_train else ()),
        ],
    )


def _kept(found: _Found) -> list[str]:
    """Notes about implausible clips that are used because of --set keep."""
    return [
        f"{counted(len(paths), f'{what} clip')} ({KEPT[what]}) {plural(len(paths), 'is', 'are')} kept by "
        f"--set keep={what}: {listed(paths, 3)}"
        for what, paths in found.kept.items()
        if paths
    ]


def _keep_setting(request: PrepareRequest) -> dict[str, str]:
    return {"keep": ",".join(sorted(request.keep))} if request.keep else {}


def _unused_band_note(
    request: PrepareRequest, rates: Mapping[int, int], band_hz: tuple[float, float] | None
) -> list[str]:
    """Which band is above the input of a model of the corpus' own recipe, else of quickstart."""
    from aumcli.data.infer import inferred_input, unused_band  # torch: late
    from aumcli.recipe import load_recipe, recipe_names

    recipe = load_recipe(request.corpus if request.corpus in recipe_names() else "quickstart")
    if "sample_rate" in recipe.data.infer:
        lost = unused_band(rates, *inferred_input(rates, band_hz), band_hz)
    else:
        lost = unused_band(rates, recipe.frontend.sample_rate_hz, recipe.frontend.low_hz)
    return [lost] if lost else []


def _normalisation(found: _Found) -> dict[str, float]:
    """Mean and standard deviation of the training split at the default frontend.

    From a bounded, evenly spaced sample.
    """
    from aumcli.data.infer import (  # torch: late, so that mistakes are told at once
        MEASURED_CLIPS,
        measure_normalisation,
    )

    rows = np.flatnonzero(found.clips.is_of_split("train"))
    if not len(rows):
        return {}
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MEASURED_CLIPS)).astype(int)]
    clips = [
        replace(clip, stop_s=(clip.start_s or 0) + MEASURED_S) if found.durations_s[row] > MEASURED_S else clip
        for row, clip in zip(rows.tolist(), found.clips.take(rows))
    ]
    mean, std = measure_normalisation(FrontendConfig(), clips)
    return {"mean": mean, "std": std, "clips": len(clips)}

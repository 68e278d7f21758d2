"""`aum prepare annotations DIR`: recordings of any length with labelled stretches, cut into windows.

The labels are label tracks of Audacity, selection tables of Raven, or tables of onset, offset and label, read as those
of `aum prepare csv`: one beside each recording, or one for all that names them. Settings, `--set NAME=VALUE`:

- `window`, `hop`: seconds of a window, 3, and from one to the next, as many unless given; the last one ends with the
  recording.
- `inside`: a window has the label of each stretch of which it holds at least this share, 0.5, or which fills this share
  of it. One that holds less of a stretch, and has no label, is left out.
- `empty`: windows without labels in training, as a share of those with labels: 1, those with labels of other classes
  first. The other splits keep all of theirs, and all keep those in which a row says `(nothing)`, such as an event that
  was rejected: from these a model learns most.
- `unlabelled`: what is where nothing is labelled: `nothing`, so that such windows are of no class, or `unknown`: they
  are left out.
- `classes`: names, separated by commas. Only these are labels, and other labelled stretches are of no class.
- the columns' names, as of `aum prepare csv`, where they aren't recognised: `label=Species`; `low` and `high` are the
  lowest and the highest frequency.

The frequencies of the training recordings' events, in columns or in rows of a label track, are the band of the input of
a model that infers it.
"""

import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import audio_info, walk_files
from aumcli.data.sources import (
    CorpusIndex,
    PrepareRequest,
    SkippedClip,
    hash_percent,
    labels_for,
    not_found,
    split_by_hash,
)
from aumcli.data.sources.audio_finder import AudioFinder
from aumcli.data.sources.column_names import looks_like_time
from aumcli.data.sources.columns import ROLES
from aumcli.data.sources.folder import OWN_FILES
from aumcli.data.sources.label_values import label_warnings
from aumcli.data.sources.table import (
    SEPARATOR,
    SHARES,
    TABLES,
    NoSoundError,
    folds_of,
    read_table,
    sounds_of,
    splits_by_hash,
)
from aumcli.data.sources.table_rows import FOLD, Rows
from aumcli.errors import AumError, did_you_mean
from aumcli.utils.csv import listed
from aumcli.utils.text import counted

SETTINGS = {"window": "3", "hop": "", "inside": "0.5", "empty": "1", "unlabelled": "nothing", "classes": ""}
SCORE = re.compile(r" [01]\.\d{3}$")  # behind the labels of a label track that `aum predict` wrote
MEANINGS = ("nothing", "unknown")  # of what has no label
BEYOND_S = 0.05  # how far behind the end of its recording a stretch may end: programs round
ROUNDING_S = 1e-6
REJECTED, OTHERS, EMPTY = range(3)  # windows without labels, by how much is learned from them
BEYOND = 0.05  # share of a class's events below the band, and above it: a box drawn too large doesn't decide
BOXED, ENOUGH = 0.5, 10  # share of a class's events that have frequencies, or how many: else nobody knows its band
SHORT = 20  # times as long as half of the events at most is a good window
Row = tuple[str, float | None, float | None, tuple[str, ...], str, str]  # see `Clips.append`
CALL = "aum prepare annotations DIR, a folder of recordings with their label files"


@dataclass(frozen=True)
class Event:
    """A labelled stretch of a recording, in s.

    Attributes:
        labels: those that are classes.
        doubtful: its row is wrong, so that nobody knows what is there.
        others: whether it has labels that aren't classes.
    """

    start_s: float
    stop_s: float
    labels: tuple[str, ...]
    doubtful: bool = False
    others: bool = False


@dataclass
class Window:
    """A window of a recording: where it starts in s, its labels, and why it has none.

    Attributes:
        partial: it may hold what it has no label of.
        rejected: somebody says that there is nothing.
        others: it has labels that aren't classes.
    """

    start_s: float
    labels: set[str] = field(default_factory=set)
    partial: bool = False
    rejected: bool = False
    others: bool = False


@dataclass(frozen=True)
class Windows:
    """How a recording is cut, in s, and when a window has a label; see the module."""

    size_s: float
    hop_s: float
    inside: float

    def starts(self, duration_s: float) -> np.ndarray:
        """Where windows of a recording start, in s: (n,); the last one ends with it."""
        last = max(0.0, duration_s - self.size_s)
        starts = np.arange(math.floor(last / self.hop_s + 1e-9) + 1) * self.hop_s
        return np.round(np.append(starts, last) if last - starts[-1] > ROUNDING_S else starts, 6)

    def labelled(self, events: Sequence[Event], duration_s: float) -> list[Window]:
        """The windows of a recording."""
        starts = self.starts(duration_s)
        windows = [Window(start_s) for start_s in starts.tolist()]
        for event in events:
            is_nothing = not (event.labels or event.others or event.doubtful)
            if is_nothing and event.stop_s - event.start_s >= duration_s - ROUNDING_S:
                continue  # the recording was listened to
            first = np.searchsorted(starts, event.start_s - self.size_s, side="right")
            stop = np.searchsorted(starts, event.stop_s)
            held = np.minimum(event.stop_s, starts[first:stop] + self.size_s) - np.maximum(
                event.start_s, starts[first:stop]
            )
            least = self.inside * min(event.stop_s - event.start_s, self.size_s)
            for i, seconds in enumerate(held.tolist(), int(first)):
                if event.doubtful or seconds < least - ROUNDING_S:
                    windows[i].partial |= event.doubtful or bool(event.labels)
                else:
                    windows[i].labels.update(event.labels)
                    windows[i].rejected |= is_nothing
                    windows[i].others |= event.others
        return windows


def index(request: PrepareRequest) -> CorpusIndex:
    """List the windows of annotated recordings.

    Args:
        request: `annotations`, or else `source`, is the folder of the tables, or a table; where both are given,
            `source` is the folder of the recordings. Settings: see the module.

    Returns:
        The windows; all of a recording are in one split, by a hash of its group or else its name.

    Raises:
        AumError: no table, no event, or a setting is wrong.
    """
    request.check_settings([*SETTINGS, *ROLES, "separator"])
    settings = SETTINGS | dict(request.settings)
    windows, empty = _windows(settings), _number(settings, "empty", 0.0)
    if settings["unlabelled"] not in MEANINGS:
        raise AumError(
            f"--set unlabelled={settings['unlabelled']}: what has no label is {' or '.join(MEANINGS)}",
            fix=f"--set unlabelled={MEANINGS[0]}",
        )
    path = request.annotations or request.source
    if path is None:
        raise AumError("which recordings? None were given", fix=CALL)
    finder, sound = sounds_of(request, path)
    unlabelled = Clips()
    rows, events, annotated = Rows(unlabelled=unlabelled), _Events(finder.folder), []
    for table in _tables(path):
        first, skipped = len(rows.clips), len(rows.skipped)
        try:
            if not table.read_bytes().strip() and (empty_of := finder.of_table(table)):
                annotated.append(empty_of)  # somebody listened, and there was nothing
                continue
            columns = _columns(table)
            read_table(request, table, columns | dict(request.settings), finder, sound, rows)
        except NoSoundError:
            rows.skipped.append(
                SkippedClip(
                    str(table),
                    f"{table}: there is no recording of its name, and no column names one",
                    "put the recording beside it, or name the folder of the recordings: --source FOLDER "
                    "--annotations TABLES",
                )
            )
            continue
        except AumError as error:
            rows.skipped.append(SkippedClip(str(table), error.problem, f"{error.fix}; or move it away"))
            continue
        events.add(rows, first, table, scored=bool(columns))
        rows.skipped[skipped:] = [_with_table(each, table) for each in rows.skipped[skipped:]]
    annotated += [*rows.sounds.values(), *unlabelled.paths()]
    events.doubt(unlabelled)
    return _corpus_index(request, path, finder, rows, events, annotated, windows, empty, settings)


def _with_table(skipped: SkippedClip, table: Path) -> SkippedClip:
    return skipped if str(table) in skipped.reason else SkippedClip(str(table), skipped.reason, skipped.fix)


def _number(settings: Mapping[str, str], name: str, least: float, most: float = math.inf) -> float:
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not least <= value <= most or math.isinf(value):
        within = f"from {least:g} on" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise AumError(f"--set {name}={settings[name]} is not a number {within}", fix=f"--set {name}={SETTINGS[name]}")
    return value


def _windows(settings: Mapping[str, str]) -> Windows:
    size_s = _number(settings, "window", 0.01)
    hop_s = _number(settings, "hop", 0.01) if settings["hop"] else size_s
    if hop_s > size_s:
        raise AumError(f"windows of {size_s:g} s every {hop_s:g} s leave gaps", fix=f"--set hop={size_s:g}")
    return Windows(size_s, hop_s, _number(settings, "inside", 0.01, 1.0))


def _tables(path: Path) -> list[Path]:
    """The table, or all below a folder."""
    if not path.exists():
        raise AumError(f"{path} {not_found(path)}", fix=CALL)
    if path.is_file():
        return [path]
    found = map(Path, walk_files(path))
    tables = [each for each in found if each.suffix.lower() in TABLES and each.name not in OWN_FILES]
    if not tables:
        raise AumError(
            f"below {path} there are no tables of labels ({', '.join(TABLES)})",
            fix="export the labels into the folder, under the recording's name: night.txt for night.wav",
        )
    return tables


def _columns(table: Path) -> dict[str, str]:
    """The columns of a label track, which has no header: start, stop and label, separated by tabs."""
    with open(table, encoding="utf-8-sig", errors="replace") as file:
        cells = next((line for line in file if line.strip()), "").split("\t")
    return {"start": "1", "stop": "2", "label": "3"} if len(cells) > 2 and all(map(looks_like_time, cells[:2])) else {}


class _Events:
    """Events by recording, and which could not be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.of: dict[str, list[Event]] = defaultdict(list)
        self.splits: dict[str, str] = {}
        self.groups: dict[str, str] = {}
        self.durations_s: dict[str, float] = {}
        self.skipped: list[SkippedClip] = []
        self.scores = 0  # labels with one behind them
        self.doubts = 0  # stretches without a label
        self.rejected: set[int] = set()  # places of rows beyond their recording's end
        self._lost: set[str] = set()

    def add(self, rows: Rows, first: int, table: Path, scored: bool) -> None:
        """Add the rows of a table, which are the ones from `first` on; its labels may be `scored`, see SCORE."""
        for place in range(first, len(rows.clips)):
            clip, number = rows.clips[place], rows.numbers[place]
            path = str(clip.path)
            if not self.measure(path, f"named by {table}"):
                continue
            if clip.split:
                self.splits[path] = clip.split
            self.groups[path] = clip.group or self.groups.get(path, "")
            end_s = self.durations_s[path]
            start_s, stop_s = clip.start_s or 0.0, end_s if clip.stop_s is None else clip.stop_s
            if start_s >= end_s or stop_s > end_s + BEYOND_S:
                self.skipped.append(
                    SkippedClip(
                        str(table),
                        f"{table}: row {number}: from {start_s:g} s to {stop_s:g} s, but {path} ends at {end_s:g} s",
                        "correct the row, or take the recording that it is of",
                    )
                )
                self.of[path].append(Event(min(start_s, end_s), end_s, (), doubtful=True))
                self.rejected.add(place)
                continue
            labels = tuple(SCORE.sub("", label) for label in clip.labels) if scored else clip.labels
            self.scores += labels != clip.labels
            self.of[path].append(Event(start_s, min(stop_s, end_s), labels))

    def doubt(self, rows: Clips) -> None:
        """Note stretches of which their rows don't say what they are; a row without times is of no stretch."""
        for clip in rows:
            path = str(clip.path)
            if clip.start_s is None or not self.measure(path, "annotated"):
                continue
            self.doubts += 1
            end_s = self.durations_s[path]
            stop_s = end_s if clip.stop_s is None else clip.stop_s
            self.of[path].append(Event(min(clip.start_s, end_s), min(stop_s, end_s), (), doubtful=True))

    def key(self, path: str) -> str:
        """What decides a recording's split: its group, else its path below the folder, which no machine changes."""
        return self.groups.get(path) or Path(os.path.relpath(path, self._folder)).as_posix()

    def measure(self, path: str, why: str) -> bool:
        """Measure a recording, once; whether it can be read, which is said once, too."""
        if path in self.durations_s or path in self._lost:
            return path in self.durations_s
        try:
            self.durations_s[path] = audio_info(path).duration_s
        except AumError as error:
            self._lost.add(path)
            self.skipped.append(SkippedClip(path, f"{error.problem} ({why})", error.fix))
            return False
        return True


def _corpus_index(
    request: PrepareRequest,
    path: Path,
    finder: AudioFinder,
    rows: Rows,
    events: _Events,
    annotated: Sequence[str],
    windows: Windows,
    empty: float,
    settings: Mapping[str, str],
) -> CorpusIndex:
    """The windows of all recordings, with their labels and splits."""
    for sound in annotated:
        events.measure(sound, "annotated")
    ids = {label for each in events.of.values() for event in each for label in event.labels}
    if not ids:
        first = [*events.skipped, *rows.skipped]
        raise AumError(
            f"{path} has no labelled stretch of a recording" + (f": {first[0].reason}" if first else ""),
            fix=first[0].fix if first else CALL,
        )
    chosen = _chosen(settings["classes"], ids)
    splits = _splits(request, events, folds_of(rows.clips), chosen)
    clips, left_out, labelled, stretches = Clips(), 0, 0, Clips()
    unlabelled: list[tuple[int, float, Row]] = []  # by how much is learned from it, then by hash
    for sound, split in sorted(splits.items()):
        duration_s = events.durations_s[sound]
        of_chosen = [
            replace(
                event,
                labels=tuple(label for label in event.labels if label in chosen),
                others=not chosen.issuperset(event.labels),
            )
            for event in events.of.get(sound, [])
        ]
        group = events.groups.get(sound, "")
        stretches.append(sound, None, None, (), split, group)
        for event in of_chosen:
            if event.labels or event.doubtful:
                stretches.append(sound, event.start_s, event.stop_s, event.labels, split, group)
        for window in windows.labelled(of_chosen, duration_s):
            start_s, labels = window.start_s, window.labels
            whole = duration_s <= windows.size_s + ROUNDING_S
            span = (None, None) if whole else (start_s, round(start_s + windows.size_s, 6))
            clip: Row = (sound, *span, tuple(sorted(labels)), split, group)
            if labels:
                labelled += 1
                clips.append(*clip)
            elif window.partial or settings["unlabelled"] == "unknown" and not (window.rejected or window.others):
                left_out += 1
            else:
                rank = REJECTED if window.rejected else OTHERS if window.others else EMPTY
                unlabelled.append((rank, hash_percent(f"{events.key(sound)} {start_s:g}", request.seed), clip))
    kept = _kept(unlabelled, round(empty * int(clips.is_of_split("train").sum())))
    for clip in kept:
        clips.append(*clip)
    sliced = f"{windows.size_s:g} s" + (f" every {windows.hop_s:g} s" if windows.hop_s != windows.size_s else "")
    band_hz, of_band = _band_hz(rows, events, splits, chosen)
    count = sum(bool(event.labels) for each in events.of.values() for event in each)
    note = (
        f"{counted(count, 'labelled stretch', 'labelled stretches')} in {counted(len(splits), 'recording')}; windows "
        f"of {sliced}: {labelled:,} with labels, {len(kept):,} without of {len(unlabelled):,}"
        + (f"; {left_out:,} left out" if left_out else "")
    )
    if events.doubts:
        note += f"; {counted(events.doubts, 'stretch', 'stretches')} in doubt, of which nothing is claimed"
    scores = [f"scores behind labels are not part of them: {events.scores:,}"] if events.scores else []
    return CorpusIndex(
        clips,
        labels_for(request, chosen),
        str(path),
        [*rows.skipped, *events.skipped],
        identities={"group": lambda clip: clip.group} if rows.grouped else {},
        notes=[note, *of_band, *_too_long(windows, events), *rows.notes, *scores],
        events=stretches if settings["unlabelled"] == "nothing" else Clips(),
        band_hz=band_hz,
        warnings=[
            *label_warnings(ids, settings.get("separator", SEPARATOR)),
            *_without_labels(finder, splits),
            *_without_band(rows.no_bands),
        ],
    )


def _band_hz(
    rows: Rows, events: _Events, splits: Mapping[str, str], chosen: set[str]
) -> tuple[tuple[float, float] | None, list[str]]:
    """The band of the events of train in Hz, None where nobody knows it; and a note about it.

    It holds all but BEYOND of the events of each class on either side. A box from 0 Hz on is one that nobody drew:
    Raven and `aum predict` write it for what has none.
    """
    bounds: dict[str, list[tuple[float, float]]] = defaultdict(list)
    boxed = set()
    for place, low_hz, high_hz in rows.bands_hz:
        clip = rows.clips[place]
        if low_hz and place not in events.rejected and splits.get(str(clip.path)) == "train":
            labels = chosen & {name for label in clip.labels for name in (label, SCORE.sub("", label))}
            boxed |= {place} if labels else set()
            for label in labels:
                bounds[label].append((low_hz, high_hz))
    if not bounds:
        return None, []
    of_class = Counter(
        label
        for sound, each in events.of.items()
        if splits.get(sound) == "train"
        for event in each
        for label in chosen.intersection(event.labels)
    )
    count = f"{len(boxed):,} of {counted(of_class.total(), 'training event')} with frequencies"
    if unknown := [
        label for label, events_of in of_class.items() if len(bounds[label]) < min(BOXED * events_of, ENOUGH)
    ]:
        return None, [f"{count}, too few of {listed(sorted(unknown))}: they don't decide which band a model hears"]
    edges = [np.sort(np.array(each), axis=0).T for each in bounds.values() if each]  # (2, events)
    low_hz = min(float(low[int(BEYOND * len(low))]) for low, _ in edges)
    high_hz = max(float(high[-1 - int(BEYOND * len(high))]) for _, high in edges)
    return (round(low_hz, 3), round(high_hz, 3)), [f"{count}: {low_hz:,g} to {high_hz:,g} Hz"]


def _too_long(windows: Windows, events: _Events) -> list[str]:
    """A note about windows that are very much longer than the events in them."""
    lengths = [event.stop_s - event.start_s for each in events.of.values() for event in each if event.labels]
    half_s = float(np.median(lengths))
    if 2 * SHORT * half_s >= windows.size_s:
        return []
    return [
        f"half of the events last at most {half_s:.2g} s, and windows {windows.size_s:g} s: shorter ones say better "
        f"when, and take less to compute: --set window={SHORT * half_s:.1g}"
    ]


def _without_band(rows: Sequence[str]) -> list[str]:
    """A warning about frequencies that can't be used; the rows' labels can."""
    return [f"frequencies are not used: {listed(rows, 3)}"] if rows else []


def _splits(request: PrepareRequest, events: _Events, folds: Mapping[str, str], chosen: set[str]) -> dict[str, str]:
    """The split of each recording: as its table says, else by the hash of its key.

    Args:
        request: its shares and seed are read.
        events: of all recordings.
        folds: fold -> split.
        chosen: the classes.
    """
    said = {
        sound: folds.get(split.removeprefix(FOLD), "") if split.startswith(FOLD) else split
        for sound, split in events.splits.items()
    }
    keys, shares = {sound: events.key(sound) for sound in events.durations_s}, request.shares or SHARES
    drawn = [sound for sound in keys if not said.get(sound)]
    with_labels = {keys[sound] for sound in drawn if any(chosen & {*event.labels} for event in events.of[sound])}
    splits = splits_by_hash(with_labels, shares, request.seed)
    for sound in drawn:  # the others can't fill a split
        splits.setdefault(keys[sound], split_by_hash(keys[sound], shares, request.seed))
    return {sound: said.get(sound) or splits[key] for sound, key in keys.items()}


def _chosen(text: str, ids: set[str]) -> set[str]:
    """The classes that labels are taken of."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - ids):
        raise AumError(
            f"no label is {listed(map(repr, unknown))}", fix=f"{did_you_mean(unknown[0], ids)}correct --set classes"
        )
    return names or ids


def _kept(unlabelled: list[tuple[int, float, Row]], most: int) -> list[Row]:
    """Windows without labels: all but those of train, of which all that were rejected, and of the others the first.

    Args:
        unlabelled: rank, hash and row.
        most: how many of train, if there are not more that were rejected.
    """
    train = sorted(each for each in unlabelled if each[2][4] == "train")
    train = train[: max(most, sum(rank == REJECTED for rank, _, _ in train))]
    others = [each for each in unlabelled if each[2][4] != "train"]
    return sorted((clip for _, _, clip in (*train, *others)), key=lambda clip: (clip[0], clip[1] or 0.0))


def _without_labels(finder: AudioFinder, used: Mapping[str, str]) -> list[str]:
    """A warning about recordings that no table is of."""
    others = sorted(finder.sounds() - used.keys())
    if not others:
        return []
    return [
        f"{counted(len(others), 'recording')} without labels, which {'is' if len(others) == 1 else 'are'} not used: "
        f"{listed(others)}; where there is nothing in one, an empty table of its name says so"
    ]

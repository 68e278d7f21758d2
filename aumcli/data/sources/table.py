"""`aum prepare csv TABLE`: a table that says which sounds, or which parts of them, have which labels.

Columns are recognised by their names (see `aumcli.data.sources.columns`), or named with --set:
`--set path=fname --set label=category`; `--set start=` says that there is none. How the table was understood is noted
in the report.
"""

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

from aumcli.data.clips import Clip, Clips
from aumcli.data.decoding.audio import audio_info
from aumcli.data.duplicates import clip_keys, duplicate_warnings, files_of
from aumcli.data.sources import (
    CORPORA,
    SPLIT_NAMES,
    SPLITS,
    CorpusIndex,
    PrepareRequest,
    SkippedClip,
    hash_percent,
    labels_for,
    not_found,
    split_by_hash,
)
from aumcli.data.sources.audio_finder import AudioFinder
from aumcli.data.sources.column_names import known_columns
from aumcli.data.sources.columns import FREQUENCIES, ROLES, find_columns, is_headerless
from aumcli.data.sources.folder import OWN_FILES
from aumcli.data.sources.label_values import label_warnings
from aumcli.data.sources.table_rows import FOLD, RowReader, Rows
from aumcli.errors import AumError
from aumcli.utils.csv import SNIFFED, csv_reader, listed, sniff
from aumcli.utils.text import counted

TABLES = (".csv", ".tsv", ".txt")  # of a folder of tables
SHARES = (80.0, 10.0, 10.0)
SEPARATOR = ";"
IN_KHZ = 500  # frequencies in a column without a unit that are all lower may be in kHz
OF_ABOVE = "\\"  # first in a row of Audacity's labels: the frequencies of the one above
FSD50K = {"fname", "labels", "mids"}  # a table whose labels are joined by commas
SEVERAL = " (where a sound has all of them, one row should, joined by ;)"
SAMPLED = 30  # slices that are compared with their files' lengths before all are opened
CALL = "aum prepare csv TABLE.csv, whose first line names a path and a label column"


class NoSoundError(AumError):
    """No column of a table names its sounds, and none has its name."""


def index(request: PrepareRequest) -> CorpusIndex:
    """List the clips of a table, or of all tables in a folder.

    Args:
        request: `annotations`, or else `source`, is the table; where both are given, paths are relative to `source`
            (or all rows are of it, where it is a sound), else to the table's folder. Settings: the names of columns
            (ROLES), and `separator`, what stands between several labels.

    Returns:
        The clips. Without a column for the split, clips go to train, val and test by a hash of their group, or else
        their path: whatever belongs together stays together. With folds instead, the last one is for tests and the
        one before for validation.

    Raises:
        AumError: no table, or its columns can't be told, or its times belong to other files.
    """
    roles = [role for role in ROLES if role not in FREQUENCIES]
    request.check_settings([*roles, "separator"])
    settings = dict.fromkeys(FREQUENCIES, "") | dict(request.settings)  # clips of tables have no band
    path = request.annotations or request.source
    if path is None:
        raise AumError("which table? None was given", fix=CALL)
    tables = tables_of(path)
    finder, sound = sounds_of(request, path)
    rows = Rows()
    for table in tables:
        try:
            read_table(request, table, settings, finder, sound, rows)
        except AumError as error:
            if len(tables) == 1:
                raise AumError(error.problem, error.fix + _of_corpus(table), error.exit_code) from error
            rows.skipped.append(SkippedClip(str(table), error.problem, f"{error.fix}; or move it away"))
    return _corpus_index(request, path, settings.get("separator"), finder, rows)


def tables_of(path: Path) -> list[Path]:
    """The table, or those of a folder."""
    if not path.exists():
        raise AumError(f"{path} {not_found(path)}", fix=CALL)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise AumError(f"{path} is not a file that can be read several times", fix="save the table to a file first")
    tables = sorted(each for each in path.iterdir() if each.suffix.lower() in TABLES and each.name not in OWN_FILES)
    if not tables:
        raise AumError(f"{path} is a folder without tables ({', '.join(TABLES)})", fix=CALL)
    return tables


def _of_corpus(table: Path) -> str:
    """A hint for a table that a corpus comes with."""
    names = [name for name in CORPORA if len(name) > len("csv") and name in table.stem.lower()]
    return f"; for the corpus itself, aum prepare {names[0]}" if names else ""


def sounds_of(request: PrepareRequest, path: Path) -> tuple[AudioFinder, str | None]:
    """Where the sounds lie; and the one that all rows are of, where the caller names one."""
    source = request.source if request.annotations is not None else None
    if source is None:
        return AudioFinder(Path(os.path.abspath(path if path.is_dir() else path.parent))), None
    if not source.exists():
        raise AumError(f"{source} {not_found(source)}", fix="name the folder of the sounds with --source")
    if source.is_dir():
        return AudioFinder(Path(os.path.abspath(source))), None
    return AudioFinder(Path(os.path.abspath(source.parent))), os.path.abspath(source)


def read_table(
    request: PrepareRequest,
    table: Path,
    settings: Mapping[str, str],
    finder: AudioFinder,
    sound: str | None,
    rows: Rows,
) -> None:
    """Add the rows of one table."""
    dialect = sniff(table, known_columns)
    with csv_reader(table, None, "prepare that", spaces=True, dialect=dialect) as (reader, _):
        numbered = ((number, row) for number, row in enumerate(reader, 1 + dialect.skip) if any(row))
        sample = list(islice(numbered, SNIFFED))
        if not sample:
            raise AumError(f"{table} has no column that could be the path or the label; it has no first line", fix=CALL)
        first = sample[0][1]
        header = [] if is_headerless(first) else [first[0].lstrip("# "), *first[1:]]
        sample = sample[bool(header) :]
        values = [row for _, row in sample if row[0] != OF_ABOVE]
        columns = find_columns(table, header, values, settings, SPLIT_NAMES)
        if sound is not None and settings.get("path") is None:
            columns.places.pop("path", None)
        if "path" not in columns.places and sound is None:
            sound = rows.sounds[str(table)] = _sound_of(table, columns.header, finder)
        if "split" in columns.places and request.shares:
            name = columns.header[columns.places["split"]]
            raise AumError(
                f"--split can't be used with {table}: its column {name!r} has the splits",
                fix="leave --split out, or the column: --set split=",
            )
        separator = settings.get("separator")
        if separator is None:
            separator = "," if set(columns.header) >= FSD50K else SEPARATOR
        reading = RowReader(
            table,
            columns,
            finder,
            sound,
            separator,
            decimal_comma=dialect.delimiter != ",",
            follow_folds=request.shares is None,
        )
        above, bands = 0, len(rows.bands_hz)
        for number, row in chain(sample, numbered):
            try:
                if row[0] == OF_ABOVE:
                    reading.add_band(row[1:], above, rows)
                    continue
                above = number
                reading.add(row, number, rows)
            except AumError as error:  # the sound's own
                rows.skipped.append(SkippedClip(str(table), error.problem, error.fix))
            except ValueError as error:
                problem, fix = (*error.args, "correct the row")[:2]
                rows.skipped.append(SkippedClip(str(table), f"{table}: row {number}: {problem}", fix))
    highest_hz = max((high for _, _, high in rows.bands_hz[bands:]), default=math.inf)
    if all(role in columns.places and columns.hertz(role) is None for role in FREQUENCIES) and highest_hz < IN_KHZ:
        del rows.bands_hz[bands:]
        low, high = (columns.header[columns.places[role]] for role in FREQUENCIES)
        rows.no_bands.append(f"{table}: {low} and {high} may be in kHz: rename them {low}_khz and {high}_khz, or _hz")
    delimiter = {"\t": ", separated by tabs", ",": ""}.get(dialect.delimiter, f", separated by {dialect.delimiter}")
    several = any(len(labels) > 1 for labels in rows.clips.label_sets)
    joined = f"; several labels are joined by {separator!r}" if several else ""
    note = f"columns{delimiter}: {columns.describe()}{joined}"
    rows.notes += [] if note in rows.notes else [note]


def _sound_of(table: Path, header: Sequence[str], finder: AudioFinder) -> str:
    """The sound that has the name of a table without paths."""
    sound = finder.of_table(table)
    if sound is None:
        raise NoSoundError(
            f"{table} has no column that could be the path; it has {', '.join(header)}",
            fix="name it: --set path=COLUMN; or, where all rows are of one sound: aum prepare csv "
            f"--annotations {shlex.quote(str(table))} --source SOUND.wav",
        )
    return sound


def _corpus_index(
    request: PrepareRequest, path: Path, separator: str | None, finder: AudioFinder, rows: Rows
) -> CorpusIndex:
    """The clips of all rows, with their labels and splits."""
    if finder.missing and len(finder.missing) == len(set(rows.names)):
        raise AumError(
            f"none of the {counted(len(finder.missing), 'sound')} that {path} names lie below {finder.folder}: "
            f"{listed(sorted(finder.missing), 3)}",
            exit_code=1,
            fix=f"aum prepare csv --annotations {shlex.quote(str(path))} --source FOLDER looks for them "
            f"elsewhere{_of_corpus(path)}",
        )
    _check_times(path, rows.clips)
    folds = folds_of(rows.clips)
    ids = {label for labels in rows.clips.label_sets for label in labels}
    files: dict[str, str] = {}  # path -> what all of its copies and links share; known once the clips are
    identities = {"group": lambda clip: clip.group} if rows.grouped else {}
    identities |= {"file": lambda clip: files.get(str(clip.path), "")} if rows.sliced else {}
    names = dict(zip(rows.clips.paths(), rows.names))

    def arrange(clips: Sequence[Clip], _: list[SkippedClip]) -> tuple[Clips, list[str]]:
        files.update(files_of(clips, "silent" in request.keep))
        arranged = _with_splits(Clips.of(clips), files, names, folds, request)
        return arranged, duplicate_warnings(arranged, clip_keys(arranged, files), SEVERAL)

    return CorpusIndex(
        rows.clips,
        labels_for(request, ids),
        str(path),
        rows.skipped,
        identities=identities,
        arrange=arrange,
        notes=[*rows.notes, *_notes(rows, finder, folds)],
        warnings=label_warnings(ids, SEPARATOR if separator is None else separator),
    )


def _notes(rows: Rows, finder: AudioFinder, folds: Mapping[str, str]) -> list[str]:
    """Notes about rows that were merged, sounds that were found elsewhere, and folds."""
    notes = []
    if rows.repeated:
        notes.append(f"repeated rows, which count once: {rows.repeated:,}")
    if finder.moved:
        name, found = next(iter(finder.moved.items()))
        notes.append(
            f"sounds found at another path than the table's: {len(finder.moved):,}, such as {found} for {name}"
        )
    if rows.sounds:
        name, found = next(iter(rows.sounds.items()))
        notes.append(
            f"no column names the sound, so the one named like the table is used: {found} for {Path(name).name}"
            + (f", and so for {counted(len(rows.sounds) - 1, 'more table')}" if len(rows.sounds) > 1 else "")
        )
    if folds:
        chosen = ", ".join(f"fold {fold} for {split}" for fold, split in folds.items() if split != "train")
        notes.append(f"splits follow the folds: {chosen}, the others for train; --split 80/10/10 ignores them")
    return notes


def _check_times(path: Path, clips: Clips) -> None:
    """Refuse times that are outside all sampled files: they are in other units, or of other recordings."""
    outside, checked = [], 0
    for clip in clips[:: max(1, len(clips) // SAMPLED)]:
        last = clip.start_s if clip.stop_s is None else clip.stop_s
        if last is None:
            continue
        try:
            duration_s = audio_info(clip.path).duration_s
        except AumError:  # reported when it is opened
            continue
        checked += 1
        if last > duration_s + 1 or (clip.start_s or 0) >= duration_s:
            outside.append(f"{clip.path} lasts {duration_s:.3g} s, the clip ends at {last:g} s")
    if len(outside) >= 3 and len(outside) == checked:
        raise AumError(
            f"{path}: the times lie outside the files: {listed(outside, 1)}",
            fix="--set start= uses complete files; if the times are milliseconds or samples, let the columns' "
            "names end in _ms or _samples",
        )


def folds_of(clips: Clips) -> dict[str, str]:
    """Fold -> split, for clips of which only the fold is known: the last for tests, the one before for validation."""
    folds = sorted(
        {split.removeprefix(FOLD) for split in clips.splits if split.startswith(FOLD)},
        key=lambda fold: (len(fold), fold) if fold.isdigit() else (math.inf, fold),
    )
    return dict.fromkeys(folds, "train") | {folds[-2]: "val", folds[-1]: "test"} if len(folds) > 2 else {}


def _with_splits(
    clips: Clips, files: Mapping[str, str], names: Mapping[str, str], folds: Mapping[str, str], request: PrepareRequest
) -> Clips:
    """The clips, each with a split.

    Args:
        clips: usable ones, some with a split.
        files: path -> the first with the same content.
        names: path -> what the table calls it, which doesn't depend on the machine.
        folds: fold -> split.
        request: its shares and seed are read.
    """
    columns = clips.columns()
    said = [folds.get(split.removeprefix(FOLD), "") if split.startswith(FOLD) else split for split in columns["split"]]
    keys = [group or names.get(files[path], names[path]) for group, path in zip(columns["group"], columns["path"])]
    chosen = splits_by_hash(
        {key for key, split in zip(keys, said) if not split}, request.shares or SHARES, request.seed
    )
    arranged = Clips()
    splits = [split or chosen[key] for key, split in zip(keys, said)]
    for row in zip(columns["path"], columns["start_s"], columns["stop_s"], clips.labels(), splits, columns["group"]):
        arranged.append(*row)
    return arranged


def splits_by_hash(keys: set[str], shares: tuple[float, float, float], seed: int) -> dict[str, str]:
    """Give the split of each key by its hash; where few keys leave one empty that has a share, a key goes there."""
    order = sorted(keys, key=lambda key: hash_percent(key, seed))
    chosen = {key: split_by_hash(key, shares, seed) for key in order}
    if order and shares[0] and "train" not in chosen.values():
        chosen[order[0]] = "train"
    for split, share in zip(SPLITS, shares):
        keys_of = Counter(chosen.values())
        spare = [key for key in order if keys_of[chosen[key]] > 1]
        if share and spare and not keys_of[split]:
            chosen[spare[-1]] = split
    return chosen

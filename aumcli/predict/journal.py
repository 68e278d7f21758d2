"""The journal beside an output: every result as it comes, so that an interruption loses nothing and --resume continues.

Its header says how the results were made. Results are numbered as they come, a group of files at a time, the last of a
group marked: where a journal is damaged, it is cut behind the last complete group, and the rest is computed again in
the same batches.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from aumcli.errors import AumError
from aumcli.predict.decoding import fingerprint
from aumcli.predict.inputs import Source
from aumcli.predict.prediction import Record
from aumcli.utils import journal
from aumcli.utils.files import beside
from aumcli.utils.journal import DamagedJournal
from aumcli.utils.text import shell_quoted

OPTIONS = {
    "model": "--model",
    "device": "--device",
    "window_s": "--window",
    "hop_s": "--hop",
    "smooth": "--smooth",
    "top": "--top",
    "threshold": "--threshold",
    "max_gap_s": "--max-gap",
    "min_duration_s": "--min-duration",
    "batch_size": "--batch",
}  # what the header calls what options say
OWN_KEYS = ("size", "mtime_ns", "ends_group")  # that a result has in the journal only
LONGEST = f".journal-99999-of-99999{journal.SUFFIX}"


class ResultsJournal:
    """Results on disk, in any order; given back in the order of the sources.

    Args:
        path: the journal.
        header: how results are made.
        sources: what is labelled.
        resume: continue an earlier journal.
        stored: how many windows the `WindowStore` beside it has, where there is one: results of further ones are
            computed again.

    Raises:
        AumError: there is a journal already and `resume` is False, or it was made in another way.
    """

    def __init__(self, path: Path, header: Record, sources: Sequence[Source], resume: bool, stored: int = 0):
        self.path, self.sources = path, sources
        self.windows, self._stored = 0, stored  # windows in the store that earlier results have
        self._keys = array("q", [-1]) * len(sources)  # of each source's result; -1: there is none
        try:
            # Not durable: it is written while clips are scored, which needn't wait for the disk.
            self._journal = journal.Journal(path, header, lock=True, durable=False)
        except DamagedJournal as error:
            raise self._no_header() from error
        self.notes = self._journal.notes  # sentences for the user
        self._next = 0  # key of the next result
        try:
            if resume:
                self._continue(header)
            elif not self._journal.is_new:
                raise AumError(
                    f"{path} holds results of a call that was interrupted, or that is to be continued",
                    fix=f"continue with --resume; or start again: rm {shell_quoted(path)}",
                )
        except BaseException:
            self._journal.close()
            raise

    def __enter__(self) -> "ResultsJournal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.close()

    def _no_header(self) -> AumError:
        return AumError(
            f"{self.path} is damaged at its beginning, or of another version: nobody knows how its results were made",
            fix=f"start again: rm {shell_quoted(self.path)}",
        )

    def _continue(self, header: Record) -> None:
        """Compare how the earlier results were made, and find out which of them are of files as they are now."""
        before = self._journal.header
        if not isinstance(before, dict):
            raise self._no_header()
        different = [name for name in {**header, **before} if before.get(name) != header.get(name)]
        if different:
            raise AumError(
                f"{self.path} was made {_difference(different, before, header)}",
                fix=f"repeat the call as it was, with --resume; or start again: rm {shell_quoted(self.path)}",
            )
        if not self._read():
            self._journal.keep(self._next)

    def _read(self) -> bool:
        """Read all results; False where only those before `_next` can be used."""
        place_of = {source.path: i for i, source in enumerate(self.sources)}
        group: list[tuple[int, int]] = []  # place and key
        count = windows = 0
        try:
            for key, record in self._journal.entries():
                if key != count or not isinstance(record, dict):
                    raise KeyError(key)
                known, ends_group = (record["size"], record["mtime_ns"]), record["ends_group"]
                place = place_of.get(record["path"])
                if "first_window" in record:
                    windows = max(windows, record["first_window"] + record["windows"])
                if windows > self._stored:
                    self.notes.append("the scores of some windows were lost: they are computed again")
                    return False
                if place is not None and fingerprint(self.sources[place]) == known:
                    group.append((place, count))
                count += 1
                if ends_group:
                    for place, of_result in group:
                        self._keys[place] = of_result
                    group, self._next, self.windows = [], count, windows
        except (DamagedJournal, KeyError, TypeError):
            self.notes.append(f"{self.path} is damaged from result {count + 1:,} on: the rest is computed again")
            return False
        return self._next == count

    def missing(self) -> list[int]:
        """Places of the sources that have no result yet."""
        return [i for i, key in enumerate(self._keys) if key < 0]

    def append(self, records: Sequence[Record], places: Sequence[int], fingerprints: Sequence[tuple[int, int]]) -> None:
        """Add the results of a group of sources.

        Args:
            records: the results.
            places: of the sources in the list.
            fingerprints: of the files when they were read.
        """
        keys = range(self._next, self._next + len(records))
        self._journal.put(
            [
                (key, {**record, "size": size, "mtime_ns": mtime_ns, "ends_group": key == keys[-1]})
                for key, record, (size, mtime_ns) in zip(keys, records, fingerprints, strict=True)
            ]
        )
        self._next += len(records)
        for place, key in zip(places, keys, strict=True):
            self._keys[place] = key

    def records(self) -> Iterator[Record]:
        """The results of the sources, in their order."""
        for first, last in _runs(self._keys):
            for _, record in self._journal.entries(first, last):
                assert isinstance(record, dict)  # as `append` put it
                for name in OWN_KEYS:
                    del record[name]
                yield record

    def remove(self) -> None:
        """Everything is written elsewhere: close the file and remove it."""
        self._journal.remove()


def _runs(keys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of keys that follow one another: such results are read in one go."""
    first = 0
    for i in range(1, len(keys) + 1):
        if i == len(keys) or keys[i] != keys[i - 1] + 1:
            yield keys[first], keys[i - 1]
            first = i


def _difference(names: Sequence[str], before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """How another call was made, and this one: "with --top 3, this call says 5"."""
    if "weights" in names and "model" not in names:  # by which its windows and thresholds may differ too
        return f"when {before.get('model')} had other weights"
    whole = [values.get("window_s") is None for values in (before, now)]
    if whole[0] != whole[1]:  # then there are other windows, or none
        return f"with{'' if whole[0] else 'out'} --whole"
    said = [
        f"with {OPTIONS[name]} {_value(before[name])}, this call says {_value(now[name])}"
        for name in OPTIONS
        if name in names and name in before and name in now
    ]
    said += [
        f"with{'' if before.get(name) else 'out'} --{name}"
        for name in ("embed", "embed-windows", "scores", "html")
        if name in names
    ]
    if "folder" in names:
        said.append(
            "for {}, this call for {}".format(
                *(f"a folder of {each}" if each else "one file" for each in (before.get("folder"), now.get("folder")))
            )
        )
    return "; ".join(said) or f"under other conditions: {', '.join(names)} differ"  # else these follow from the others


def _value(value: object) -> str:
    """A value as people write it."""
    if isinstance(value, dict):  # for each class
        return "as the model has it"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else shell_quoted(value)


def journal_path(out: Path, rank: int, processes: int) -> Path:
    """Where the results are while they come, of one process or of one of several."""
    return beside(out, ".journal" + (f"-{rank + 1}-of-{processes}" if processes > 1 else ""), LONGEST)

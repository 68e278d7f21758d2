"""Where results go: which files are written, whether they can be, and writing them."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from aumcli.errors import AumError
from aumcli.predict import writers
from aumcli.predict.clips import ClipFolder, sample_events, write_event_clips
from aumcli.predict.hours import count_hours, write_hours
from aumcli.predict.inputs import Source, check_names
from aumcli.predict.page import write_page
from aumcli.predict.parquet import check_parquet
from aumcli.predict.prediction import Record
from aumcli.predict.score_files import write_window_embeddings
from aumcli.predict.window_store import WindowStore
from aumcli.predict.writers import Format, is_folder
from aumcli.utils.csv import listed
from aumcli.utils.files import beside, check_writable, descriptor, is_stream
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, one_line

logger = get_logger(__name__)


@dataclass(frozen=True)
class Outputs:
    """Where results go: a file or folder, a page, embeddings of clips or of windows, scores of windows.

    Without a file or folder, or where it is "-", they are printed.
    """

    out: str | None = None
    format: Format | None = None
    html: Path | None = None
    embed: Path | None = None
    scores: Path | None = None
    embed_windows: bool = False
    clips: ClipFolder | None = None  # events cut out
    review: int = 0  # the page has so many of the events; 0: all
    hours: Path | None = None  # a table of events by hour of the day, and a picture beside it

    @property
    def keeps_windows(self) -> bool:
        """Whether anything is written of each window."""
        return self.scores is not None or self.embed_windows

    @property
    def path(self) -> Path | None:
        """The file or folder of results; None: they go to standard output and nowhere else."""
        return None if self.out is None or descriptor(self.out) == 1 else Path(self.out)

    @property
    def kind(self) -> Format:
        """The format: as asked for, else as the file's name says, else a table."""
        if self.format is not None:
            return self.format
        return Format.TABLE if self.out is None or self.path is None else Format.of(self.out)

    @property
    def folder(self) -> Path | None:
        """The folder of results, where each sound gets a file of its own."""
        return self.path if self.out is not None and self.path is not None and is_folder(self.out) else None

    @property
    def anchor(self) -> Path | None:
        """The output that the journal and the parts stand beside.

        None where nothing is written but to standard output, FIFOs and devices.
        """
        paths = [self.path, self.html, self.embed, self.scores, self.hours, self.clips.folder if self.clips else None]
        return next((path for path in paths if path is not None and not is_stream(path)), None)

    @property
    def files(self) -> list[Path]:
        """All files that are written, without those in a folder of results."""
        out = None if self.folder else self.path
        index = writers.embeddings_index(self.embed) if self.embed is not None else None
        picture = None if self.hours is None else self.hours.with_suffix(".png")
        written = (out, self.html, self.embed, index, self.scores, self.hours, picture)
        return [path for path in written if path is not None]

    def check(self, sources: Sequence[Source], processes: int) -> None:
        """Raise the AumError of an output that can't be written, before the work whose result it holds."""
        writers.check_format(self.kind, None if self.path is None else self.out, len(sources))
        if self.embed is None:
            if self.embed_windows:
                raise AumError("--embed-windows needs --embed", fix="add --embed FILE.parquet")
        elif self.embed_windows:
            check_parquet(self.embed, "embeddings of windows")
        else:
            writers.check_embeddings(self.embed)
        if self.scores is not None:
            check_parquet(self.scores, "scores of windows")
        if processes > 1 and self.keeps_windows:
            raise AumError(
                f"{processes} processes can't write windows into one file",
                fix="leave out --scores and --embed-windows, or make calls with a list and a file for each",
            )
        if self.clips is not None and processes > 1:
            raise AumError(f"{processes} processes can't cut events out", fix="add --clips to --join instead")
        self.check_extras()
        if self.folder is not None:
            check_names(sources, self.folder)
        if processes > 1 and self.anchor is None:
            raise AumError(f"{processes} processes can't print into each other", fix="name a file with --out")
        self._check_apart(sources)
        for path in (*([self.folder / "x"] if self.folder else []), *self.files):
            check_writable(path)

    def check_extras(self) -> None:
        """Raise the AumError of events by hour, of a review or of a folder of events that can't be."""
        if self.review and self.html is None:
            raise AumError("--review is of the page", fix="add --html FILE.html")
        if self.hours is not None and self.hours.suffix.lower() != ".csv":
            raise AumError(f"events by hour are a table, not {self.hours.name}", fix="name a .csv file with --hours")
        if self.clips is None:
            return
        self.clips.check()
        folder = os.path.realpath(self.clips.folder)
        for path in (self.folder, *self.files):
            if path is not None and (os.path.realpath(path) + os.sep).startswith(folder + os.sep):
                raise AumError(f"{path} lies where events are cut out to", fix="give --clips a folder of its own")

    def _check_apart(self, sources: Sequence[Source]) -> None:
        """Refuse to write one output over another, or over a sound."""
        files = [path for path in self.files if not is_stream(path)]
        places = [os.path.realpath(path) for path in files]
        places += ["-" for path in self.files if descriptor(path) == 1]
        places += ["-"] if self.out and self.path is None else []
        if len(set(places)) < len(places):
            raise AumError(
                f"{next(place for place in places if places.count(place) > 1)} would be written twice",
                fix="give each output a name of its own; an .npy has a .json beside it, --hours a picture",
            )
        there = {real: path for path, real in zip(files, places) if os.path.exists(real)}
        for source in sources if there else ():
            if (path := there.get(os.path.realpath(source.file))) is not None:
                raise AumError(f"{path} is one of the sounds and would be overwritten", fix="name another file")

    def warn_of_cut_names(self, sources: Sequence[Source]) -> None:
        """Log which names are too long for a file of results that is called like the sound."""
        if self.folder is None:
            return
        cut = [
            one_line(path.name)
            for source in sources
            if (path := _own_path(self.folder, self.kind, source)).name
            != os.path.basename(source.name) + self.kind.suffix
        ]
        if cut:
            logger.warning(
                f"{counted(len(cut), 'name is', 'names are')} too long for files of results that are called so, "
                f"which get shortened names: {listed(cut, 1)}"
            )

    def write_own(self, source: Source, header: Record, record: Record) -> None:
        """Write a sound's own file of results, where there is a folder of them.

        Where the format has no place for a failure there is none: an empty one would say that nothing was found.
        """
        if self.folder is None or source.problem:  # no sound: it is named with the others that failed
            return
        path = _own_path(self.folder, self.kind, source)
        if "problem" in record and self.kind in writers.WITHOUT_FAILURES:
            return path.unlink(missing_ok=True)
        writers.write(path, self.kind, header, [record])

    def write_all(
        self,
        header: Record,
        records: Callable[[], Iterator[Record]],
        write: Callable[[str], object],
        sources: Sequence[Source] = (),
        store: WindowStore | None = None,
    ) -> None:
        """Write or print everything that was asked for but scores and a sound's own files.

        Args:
            header: how the results were made.
            records: gives them, in order.
            write: takes the text for standard output.
            sources: tell where sounds are that have no path.
            store: has the embeddings of windows, where these are asked for.
        """
        if self.path is None:
            if not any(descriptor(path) == 1 for path in self.files):
                for text in writers.printed(self.kind, header, records()):
                    write(text)
        elif self.folder is None:
            writers.write(self.path, self.kind, header, records())
        if self.embed is not None:
            if self.embed_windows and store is not None:
                write_window_embeddings(self.embed, header, records(), store)
            else:
                writers.write_embeddings(self.embed, header, records())
        files = {source.path: source.file for source in sources if source.path != source.file}
        hours = count_hours(records()) if self.html is not None or self.hours is not None else None
        if self.html is not None:
            shown = sample_events(records, self.review) if self.review else records()
            write_page(self.html, header, shown, files, hours)
        if self.hours is not None and hours is not None:
            write_hours(self.hours, hours)
        for path in [*([self.out] if self.folder else []), *self.files]:
            if path is not None and descriptor(path) != 1:
                logger.info(f"wrote {path}")
        if self.clips is not None:
            write_event_clips(self.clips, records, files)


def _own_path(folder: Path, kind: Format, source: Source) -> Path:
    """Where a sound's own file of results is."""
    return beside(folder / source.name, kind.suffix)

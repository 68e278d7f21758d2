"""What the command does: label sounds, keep the results as they come, write them, say how quick it was."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aumcli.classifier import Classifier
from aumcli.config import PredictConfig
from aumcli.data.decoding.channels import MEAN
from aumcli.errors import AumError
from aumcli.predict import writers
from aumcli.predict.inputs import Source, check_names, share
from aumcli.predict.journal import LONGEST_JOURNAL, Journal, Record, journal_path, part_path, read_parts, write_part
from aumcli.predict.page import write_page
from aumcli.predict.postprocess import PostProcessor
from aumcli.predict.prediction import DECIMALS, SCHEMA, Prediction
from aumcli.predict.score_files import ScoresFile, check_parquet, write_scores, write_window_embeddings
from aumcli.predict.scoring import model_thresholds, predict_groups, thresholds, window_samples
from aumcli.predict.window_store import WindowStore
from aumcli.predict.writers import Format, is_folder
from aumcli.utils.csv import listed
from aumcli.utils.files import beside, check_writable, descriptor, is_stream, scratch_folder
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, one_line

HEADER = (
    "schema",
    "model",
    "backend",
    "device",
    "dtype",
    "sample_rate_hz",
    "window_s",
    "hop_s",
    "smooth",
    "top",
    "max_gap_s",
    "min_duration_s",
    "channel",
    "threshold",
)  # what outputs say of how they were made, in order


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

    @property
    def keeps_windows(self) -> bool:
        """Whether anything is written of each window."""
        return self.scores is not None or self.embed_windows

    @property
    def is_printed(self) -> bool:
        """Whether results go to standard output and nowhere else."""
        return self.out is None or descriptor(self.out) == 1

    @property
    def kind(self) -> Format:
        """The format: as asked for, else as the file's name says, else a table."""
        return self.format or (Format.TABLE if self.is_printed else Format.of(self.out))

    @property
    def folder(self) -> Path | None:
        """The folder of results, where each sound shall have a file of its own."""
        return Path(self.out) if not self.is_printed and is_folder(self.out) else None

    @property
    def anchor(self) -> Path | None:
        """The output that the journal and the parts stand beside.

        None where nothing is written but to standard output, FIFOs and devices.
        """
        paths = [None if self.is_printed else Path(self.out), self.html, self.embed, self.scores]
        return next((path for path in paths if path is not None and not is_stream(path)), None)

    @property
    def embed_index(self) -> Path | None:
        """The file that names the rows of an .npy."""
        return (
            self.embed.with_suffix(".json") if self.embed is not None and self.embed.suffix.lower() == ".npy" else None
        )

    @property
    def files(self) -> list[Path]:
        """All files that are written, without those in a folder of results."""
        out = None if self.is_printed or self.folder else Path(self.out)
        return [path for path in (out, self.html, self.embed, self.embed_index, self.scores) if path is not None]

    def check(self, sources: Sequence[Source], processes: int) -> None:
        """Raise the AumError of an output that can't be written, before the work whose result it shall hold."""
        writers.check_format(self.kind, None if self.is_printed else self.out, len(sources))
        if self.embed_windows and self.embed is None:
            raise AumError("--embed-windows says what --embed writes", fix="add --embed FILE.parquet")
        if self.embed is not None:
            writers.check_embeddings(self.embed)
        if self.embed_windows:
            check_parquet(self.embed, "embeddings of windows")
        if self.scores is not None:
            check_parquet(self.scores, "scores of windows")
        if processes > 1 and self.keeps_windows:
            raise AumError(
                f"{processes} processes can't write windows into one file",
                fix="leave out --scores and --embed-windows, or make calls with a list and a file for each",
            )
        if self.folder is not None:
            check_names(sources, self.folder)
        if processes > 1 and self.anchor is None:
            raise AumError(f"{processes} processes can't print into each other", fix="name a file with --out")
        self._check_apart(sources)
        for path in (*([self.folder / "x"] if self.folder else []), *self.files):
            check_writable(path)

    def _check_apart(self, sources: Sequence[Source]) -> None:
        """Refuse to write one output over another, or over a sound."""
        files = [path for path in self.files if not is_stream(path)]
        places = [os.path.realpath(path) for path in files]
        places += ["-" for path in self.files if descriptor(path) == 1] + [
            "-" for _ in [self.out] if self.out and self.is_printed
        ]
        if len(set(places)) < len(places):
            raise AumError(
                f"{next(place for place in places if places.count(place) > 1)} would be written twice",
                fix="give --out, --html, --embed and --scores names of their own; an .npy has a .json beside it",
            )
        there = {real: path for path, real in zip(files, places) if os.path.exists(real)}
        for source in sources if there else ():
            if (path := there.get(os.path.realpath(source.file))) is not None:
                raise AumError(f"{path} is one of the sounds and would be overwritten", fix="name another file")


@dataclass
class Progress:
    """What was done so far in this call."""

    clips: int = 0
    sound_s: float = 0.0
    failed: list[Record] = field(default_factory=list)
    warned: list[Record] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    def add(self, prediction: Prediction) -> Record:
        """Count a prediction and turn it into a record."""
        self.clips, self.sound_s = self.clips + (not prediction.problem), self.sound_s + prediction.duration_s
        record = prediction.to_record()
        if prediction.problem:
            self.failed.append(record)
        if prediction.warning:
            self.warned.append(record)
        return record

    def __str__(self) -> str:
        took_s = time.perf_counter() - self.started
        factor = f", real-time factor {took_s / self.sound_s:.4f}" if self.sound_s else ""
        return (
            f"{counted(self.clips, 'clip')}, {self.sound_s:,.1f} s of sound in {took_s:.1f} s: "
            f"{self.clips / took_s:,.1f} clips/s{factor}"
        )


def run(
    classifier: Classifier,
    sources: Sequence[Source],
    config: PredictConfig,
    outputs: Outputs,
    resume: bool = False,
    emit: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Label sounds and write the results.

    Where torchrun started several processes, each labels every n-th sound and leaves a part (see `join`).

    Args:
        classifier: see `aumcli.load_model`.
        sources: see `find_clips`.
        config: how.
        outputs: where to.
        resume: go on with a call that was broken off: what is in its journal and unchanged on disk is not done again.
        emit: is given the text that is printed.
        say: is given a line about the work now and then.

    Returns:
        The records of those that failed; none of a process of several, since torchrun stops all when one ends with an
        exit code: `join` names them.

    Raises:
        AumError: an output can't be written, or a journal is in the way.
    """
    sources, rank, processes = share(sources)
    outputs.check(sources, processes)
    header, tally = describe(classifier, config), Progress()
    if outputs.anchor is None and resume:
        raise AumError("--resume has nothing to go on from: printed results are not kept", fix="name a file with --out")
    if outputs.anchor is None and not outputs.files:
        with progress(None, "predicting", len(sources)) as bar:
            groups = predict_groups(classifier, sources, config, at=bar.set_postfix_str)
            for text in writers.printed(
                outputs.kind, header, (tally.add(each) for group in groups for each in _counted(group, bar))
            ):
                emit(text)
        _say_warnings(tally.warned, say)
        say(str(tally))
        return tally.failed
    with ExitStack() as stack:
        if outputs.anchor is not None:
            path = journal_path(outputs.anchor, rank, processes)
        else:  # of what goes into a FIFO or a device nothing is kept
            path = stack.enter_context(scratch_folder()) / "journal"
        how = {
            **header,
            "batch_size": config.batch_size,
            "weights": _digest(classifier),
            "embed": outputs.embed is not None,
            "html": outputs.html is not None,
            "folder": outputs.folder is not None and outputs.kind.value,
            "max_gap_s": config.max_gap_s,
            "min_duration_s": config.min_duration_s,
            "scores": outputs.scores is not None,
            "embed-windows": outputs.embed_windows,
        }
        store = stack.enter_context(_window_store(classifier, outputs, path)) if outputs.keeps_windows else None
        journal = stack.enter_context(Journal(path, how, sources, resume, store.windows if store else 0))
        if store is not None:
            store.keep(journal.windows)
        for note in [*journal.notes, *_cut_names(outputs, sources)]:
            say(note)
        _label(classifier, journal, config, outputs, header, tally, store)
        say(str(tally))
        _say_warnings(journal.records(), say)
        failed = [record for record in journal.records() if "problem" in record]
        if processes == 1:
            if outputs.scores is not None:
                facts = {
                    **header,
                    "labels": classifier.labels,
                    "model_threshold": model_thresholds(classifier).tolist(),
                }
                write_scores(outputs.scores, facts, journal.records, sources, store)
            write_outputs(outputs, header, journal.records, emit, say, sources, store)
        else:
            part = part_path(outputs.anchor, rank, processes)
            write_part(part, header, journal.records())
            say(
                f"wrote {part}, {len(failed)} failed; when all {processes} parts are there: "
                f"aum predict --join --out {outputs.anchor}"
            )
            failed = []
        if not resume:
            journal.remove()
            if store is not None:
                store.remove()
    return failed


def _window_store(classifier: Classifier, outputs: Outputs, journal: Path) -> WindowStore:
    """Where scores and embeddings of windows are kept until they are written."""
    anchor = outputs.anchor
    path = journal.with_name("windows") if anchor is None else beside(anchor, ".windows", LONGEST_JOURNAL)
    return WindowStore(
        path,
        len(classifier.labels) if outputs.scores is not None else 0,
        classifier.config.model.width if outputs.embed_windows else 0,
    )


def run_from_scores(
    scores: Path,
    config: PredictConfig,
    outputs: Outputs,
    emit: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> list[Record]:
    """Write results from the scores of windows that an earlier call kept; nothing is decoded or scored.

    Args:
        scores: what `--scores` wrote.
        config: how; of it top, smooth, threshold, max_gap_s and min_duration_s.
        outputs: where to; embeddings and scores can't be among them.
        emit, say: see `run`.

    Returns:
        The records of those that failed.

    Raises:
        AumError: there are no such scores, or an output can't be written.
    """
    if outputs.embed is not None or outputs.scores is not None:
        raise AumError("a file of scores has no embeddings, and is written once", fix="leave out --embed and --scores")
    file = ScoresFile(scores)
    sources = file.sources()
    if any(os.path.realpath(path) == os.path.realpath(scores) for path in outputs.files):
        raise AumError(f"{scores} is read by this call and would be overwritten", fix="name another file")
    outputs.check(sources, 1)
    least = file.model_thresholds
    if config.threshold is not None:
        least = np.full(len(file.labels), config.threshold, dtype=np.float32)
    header = _header(file.header, config, file.labels, least)
    post = PostProcessor(file.labels, file.rate_hz, least, config, outputs.html is not None)
    say(f"scores of {len(sources):,} sounds by {header['model']}, from {scores}")
    for note in _cut_names(outputs, sources):
        say(note)

    def records() -> Iterator[Record]:
        return (prediction.to_record() for prediction in file.predictions(post))

    if outputs.folder is not None:
        for source, record in zip(sources, records()):
            _write_own(outputs, source, header, record)
    write_outputs(outputs, header, records, emit, say)
    return [{name: each[name] for name in ("path", "problem", "fix")} for each in file.failed]


def _say_warnings(records: Iterable[Record], say: Callable[[str], None]) -> None:
    for record in records:
        if "warning" in record:
            say(f"warning: {record['warning']}")


def _label(
    classifier: Classifier,
    journal: Journal,
    config: PredictConfig,
    outputs: Outputs,
    header: Record,
    tally: Progress,
    store: WindowStore | None,
) -> None:
    """Label what has no result yet.

    Every result is in the journal, and in a folder of results, as soon as it is there.
    """
    sources, todo, done = journal.sources, journal.missing(), 0
    bar = progress(None, "predicting", len(todo))
    try:
        embed, curves = outputs.embed is not None, outputs.html is not None
        todo_sources = (sources[i] for i in todo)
        for group in predict_groups(classifier, todo_sources, config, embed, curves, store, bar.set_postfix_str):
            records, places = [tally.add(prediction) for prediction in group], todo[done : done + len(group)]
            done += len(group)
            if outputs.folder is not None:
                for record, i in zip(records, places):
                    _write_own(outputs, sources[i], header, record)
            journal.append(records, places, [prediction.stamp for prediction in group])
            _counted(group, bar)
    except KeyboardInterrupt:
        if outputs.anchor is None:
            raise
        raise AumError(
            f"stopped; {len(sources) - len(journal.missing()):,} of {counted(len(sources), 'result')} "
            f"are in {journal.path}",
            fix="go on with the same command and --resume",
            exit_code=130,
        ) from None
    finally:
        bar.close()


def _counted(group: list, bar) -> list:
    """A group of results, which the bar has counted."""
    bar.set_postfix_str("", refresh=False)
    bar.update(len(group))
    return group


def _own_path(outputs: Outputs, source: Source) -> Path:
    """Where a sound's own file of results is."""
    return beside(outputs.folder / source.name, outputs.kind.suffix)


def _cut_names(outputs: Outputs, sources: Sequence[Source]) -> list[str]:
    """A sentence about sounds whose names are too long for a file of results that is called like them."""
    if outputs.folder is None:
        return []
    cut = [
        one_line(path.name)
        for source in sources
        if (path := _own_path(outputs, source)).name != os.path.basename(source.name) + outputs.kind.suffix
    ]
    return (
        [
            f"{counted(len(cut), 'name is', 'names are')} too long for files of results that are called so, "
            f"which have names that are cut: {listed(cut, 1)}"
        ]
        if cut
        else []
    )


def _write_own(outputs: Outputs, source: Source, header: Record, record: Record) -> None:
    """Write a sound's own file of results.

    Where the format has no place for a failure there is none: an empty one would say that nothing was heard.
    """
    if source.problem:  # no sound: it is named with the others that failed
        return
    path = _own_path(outputs, source)
    if "problem" in record and outputs.kind in writers.WITHOUT_FAILURES:
        return path.unlink(missing_ok=True)
    writers.write(path, outputs.kind, header, [record])


def join(outputs: Outputs, emit: Callable[[str], None] = print, say: Callable[[str], None] = print) -> list[Record]:
    """Write, from the parts that several processes left, what one process would have written; the parts are removed.

    Args:
        outputs: as the processes were given them; the format may be another.
        emit, say: see `run`.

    Returns:
        The records of those that failed.

    Raises:
        AumError: a part is missing, or the parts don't belong together.
    """
    if outputs.anchor is None:
        raise AumError("--join needs the --out that the processes were given", fix="add it")
    if outputs.keeps_windows:
        raise AumError("parts of several processes hold no windows", fix="leave out --scores and --embed-windows")
    writers.check_format(outputs.kind, outputs.out, 1)
    header, records, paths = read_parts(outputs.anchor)
    write_outputs(outputs, header, records, emit, say)
    failed = [record for record in records() if "problem" in record]
    for path in paths:
        path.unlink()
    return failed


def write_outputs(
    outputs: Outputs,
    header: Record,
    records: Callable[[], Iterator[Record]],
    emit: Callable[[str], None],
    say: Callable[[str], None],
    sources: Sequence[Source] = (),
    store: WindowStore | None = None,
) -> None:
    """Write or print everything that was asked for but scores.

    `sources` tells where sounds are that have no path, `store` has the embeddings of windows.
    """
    if outputs.is_printed and not any(descriptor(path) == 1 for path in outputs.files):
        for text in writers.printed(outputs.kind, header, records()):
            emit(text)
    elif not outputs.is_printed and outputs.folder is None:
        writers.write(Path(outputs.out), outputs.kind, header, records())
    if outputs.embed_windows:
        write_window_embeddings(outputs.embed, header, records(), store)
    elif outputs.embed is not None:
        writers.write_embeddings(outputs.embed, header, records())
    if outputs.html is not None:
        write_page(
            outputs.html,
            header,
            records(),
            {source.path: source.file for source in sources if source.path != source.file},
        )
    for path in [*([outputs.out] if outputs.folder else []), *outputs.files]:
        if descriptor(path) != 1:
            say(f"wrote {path}")


def describe(classifier: Classifier, config: PredictConfig) -> Record:
    """How results are made: the head of every output."""
    rate_hz, (size, hop) = classifier.config.frontend.sample_rate_hz, window_samples(classifier, config)
    made = {
        "schema": SCHEMA,
        "model": classifier.source,
        "backend": classifier.backend,
        "device": str(classifier.device),
        "dtype": "float32",
        "sample_rate_hz": rate_hz,
        "window_s": size and size / rate_hz,
        "hop_s": hop / rate_hz if size else None,
        **({} if config.channel == MEAN else {"channel": config.channel}),
    }
    return _header(made, config, classifier.labels, thresholds(classifier, config))


def _header(made: Record, config: PredictConfig, labels: Sequence[str], least: np.ndarray) -> Record:
    """How scores were made, and what is said of them: the head of every output, always in the same order."""
    each = dict(zip(labels, least.astype(float).round(DECIMALS).tolist()))
    merged = {"max_gap_s": config.max_gap_s or None, "min_duration_s": config.min_duration_s or None}  # 0: not done
    values = {
        **made,
        "smooth": config.smooth,
        "top": config.top,
        **merged,
        "threshold": each if len(set(each.values())) > 1 else next(iter(each.values())),
    }
    return {name: values[name] for name in HEADER if name in values and not (name in merged and values[name] is None)}


def _digest(classifier: Classifier) -> str:
    """SHA-256 of the weights: results of another model are not gone on with, whatever its name."""
    digest = hashlib.sha256()
    for name, weights in classifier.network.state_dict().items():
        digest.update(name.encode())
        digest.update(weights.detach().cpu().contiguous().view(-1).numpy())
    return digest.hexdigest()

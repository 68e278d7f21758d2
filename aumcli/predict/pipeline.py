"""What the command does: label sounds, keep the results as they come, write them, say how quick it was."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aumcli.classifier import Classifier
from aumcli.config import PredictConfig
from aumcli.errors import AumError
from aumcli.predict import writers
from aumcli.predict.header import header_of, journal_header, with_postprocessing
from aumcli.predict.inputs import Share, Source, share
from aumcli.predict.journal import LONGEST, ResultsJournal, journal_path
from aumcli.predict.outputs import Outputs
from aumcli.predict.parts import part_path, read_parts, write_part
from aumcli.predict.postprocess import PostProcessor
from aumcli.predict.prediction import Prediction, Record
from aumcli.predict.score_files import ScoresFile, write_scores
from aumcli.predict.scoring import predict_groups
from aumcli.predict.thresholds import class_thresholds
from aumcli.predict.window_store import WindowStore
from aumcli.utils.files import beside, scratch_folder
from aumcli.utils.logging import get_logger
from aumcli.utils.progress import progress
from aumcli.utils.text import counted

if TYPE_CHECKING:
    from tqdm import tqdm

logger = get_logger(__name__)


@dataclass
class Progress:
    """What was done so far in this call."""

    clips: int = 0
    sound_s: float = 0.0
    with_messages: list[Record] = field(default_factory=list)  # those with a problem or a warning
    started: float = field(default_factory=time.perf_counter)

    def add(self, prediction: Prediction) -> Record:
        """Count a prediction and turn it into a record."""
        self.clips, self.sound_s = self.clips + (not prediction.problem), self.sound_s + prediction.duration_s
        record = prediction.to_record()
        if prediction.problem or prediction.warning:
            self.with_messages.append(record)
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
    write: Callable[[str], object],
    resume: bool = False,
    part: tuple[int, int] | None = None,
) -> list[Record]:
    """Label sounds and write the results.

    One of several processes labels its share of the sounds and leaves a part (see `join`).

    Args:
        classifier: see `aumcli.load_model`.
        sources: see `find_clips`.
        config: how.
        outputs: where to.
        write: takes the text for standard output.
        resume: continue an interrupted call: what is in its journal and unchanged on disk is not computed again.
        part: which process of how many this is, from 0; None: as torchrun says, else the only one.

    Returns:
        The records of those that failed; none of a process of several, since launchers stop all when one ends with an
        exit code: `join` names them.

    Raises:
        AumError: an output can't be written, or there is a journal already.
    """
    own = share(sources, part)
    sources, rank, processes = own.sources, own.rank, own.processes
    outputs.check(sources, processes)
    header = header_of(classifier, config)
    if outputs.anchor is None and resume:
        raise AumError("--resume has nothing to continue: printed results are not kept", fix="name a file with --out")
    if outputs.anchor is None and not outputs.files and outputs.clips is None:
        return _print_at_once(classifier, own, config, outputs, header, write)
    with ExitStack() as stack:
        if outputs.anchor is not None:
            path = journal_path(outputs.anchor, rank, processes)
        else:  # of what goes into a FIFO or a device nothing is kept
            path = stack.enter_context(scratch_folder()) / "journal"
        store = stack.enter_context(_window_store(classifier, outputs, path)) if outputs.keeps_windows else None
        how = journal_header(header, classifier, config, outputs)
        journal = stack.enter_context(ResultsJournal(path, how, sources, resume, store.windows if store else 0))
        if store is not None:
            store.keep(journal.windows)
        for note in journal.notes:
            logger.warning(note)
        outputs.warn_of_cut_names(sources)
        done = Progress()
        _label(classifier, journal, own.blocks, config, outputs, header, done, store)
        logger.info(str(done))
        failed = _failed(journal.records())
        if processes == 1 or outputs.anchor is None:
            if outputs.scores is not None and store is not None:
                facts = {"labels": classifier.labels, "model_threshold": classifier.thresholds.tolist()}
                write_scores(outputs.scores, {**header, **facts}, journal.records, sources, store)
            outputs.write_all(header, journal.records, write, sources, store)
        else:
            path = part_path(outputs.anchor, rank, processes)
            write_part(path, {"header": header, "list": own.digest}, own.blocks, journal.records())
            logger.info(
                f"wrote {path}, {len(failed)} failed; when all {processes} parts are there: "
                f"aum predict --join --out {outputs.anchor}"
            )
            failed = []
        if not resume:
            journal.remove()
            if store is not None:
                store.remove()
    return failed


def _print_at_once(
    classifier: Classifier,
    own: Share,
    config: PredictConfig,
    outputs: Outputs,
    header: Record,
    write: Callable[[str], object],
) -> list[Record]:
    """Label sounds and print each result as it comes; the records of those that failed."""
    done = Progress()
    with progress(None, "predicting", len(own.sources)) as bar:
        groups = predict_groups(classifier, own.sources, config, at=bar.set_postfix_str, blocks=own.blocks)
        records = (done.add(each) for group in groups for each in _counted(group, bar))
        for text in writers.printed(outputs.kind, header, records):
            write(text)
    failed = _failed(done.with_messages)
    logger.info(str(done))
    return failed


def _window_store(classifier: Classifier, outputs: Outputs, journal: Path) -> WindowStore:
    """Where scores and embeddings of windows are kept until they are written."""
    anchor = outputs.anchor
    path = journal.with_name("windows") if anchor is None else beside(anchor, ".windows", LONGEST)
    return WindowStore(
        path,
        len(classifier.labels) if outputs.scores is not None else 0,
        classifier.config.model.width if outputs.embed_windows else 0,
    )


def _label(
    classifier: Classifier,
    journal: ResultsJournal,
    blocks: Sequence[int],
    config: PredictConfig,
    outputs: Outputs,
    header: Record,
    done: Progress,
    store: WindowStore | None,
) -> None:
    """Label what has no result yet.

    Every result is in the journal, and in a folder of results, as soon as it is there.
    """
    sources, places = journal.sources, journal.missing()
    with progress(None, "predicting", len(places)) as bar, _interruptible(journal, outputs):
        groups = predict_groups(
            classifier,
            (sources[i] for i in places),
            config,
            embed=outputs.embed is not None,
            curves=outputs.html is not None,
            store=store,
            at=bar.set_postfix_str,
            blocks=(blocks[i] for i in places),
        )
        first = 0
        for group in groups:
            own = places[first : first + len(group)]
            first += len(group)
            records = [done.add(prediction) for prediction in group]
            for record, i in zip(records, own):
                outputs.write_own(sources[i], header, record)
            journal.append(records, own, [prediction.fingerprint for prediction in group])
            _counted(group, bar)


@contextmanager
def _interruptible(journal: ResultsJournal, outputs: Outputs) -> Iterator[None]:
    """Of an interruption say what is kept, and how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        if outputs.anchor is None:
            raise
        total = len(journal.sources)
        raise AumError(
            f"stopped; {total - len(journal.missing()):,} of {counted(total, 'result')} are in {journal.path}",
            fix="continue with the same command and --resume",
            exit_code=130,
        ) from None


def _counted(group: list[Prediction], bar: "tqdm") -> list[Prediction]:
    """A group of results, which the bar has counted."""
    bar.set_postfix_str("", refresh=False)
    bar.update(len(group))
    return group


def _failed(records: Iterable[Record]) -> list[Record]:
    """The records of sounds that failed; warnings of the others are logged."""
    failed = []
    for record in records:
        if "problem" in record:
            failed.append(record)
        elif "warning" in record:
            logger.warning(record["warning"])
    return failed


def run_from_scores(
    scores: Path, config: PredictConfig, outputs: Outputs, write: Callable[[str], object]
) -> list[Record]:
    """Write results from the scores of windows that an earlier call kept; nothing is decoded or scored.

    Args:
        scores: what `--scores` wrote.
        config: how; of it top, reject, smooth, threshold, max_gap_s and min_duration_s.
        outputs: where to; embeddings and scores can't be among them.
        write: takes the text for standard output.

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
    thresholds = class_thresholds(file.labels, file.model_thresholds, config)
    header = with_postprocessing(file.header, config, file.labels, thresholds)
    background = bool(file.header.get("background"))
    post = PostProcessor(file.labels, file.rate_hz, thresholds, config, outputs.html is not None, background)
    logger.info(f"scores of {len(sources):,} sounds by {header['model']}, from {scores}")
    outputs.warn_of_cut_names(sources)

    def records() -> Iterator[Record]:
        return (prediction.to_record() for prediction in file.predictions(post))

    if outputs.folder is not None:
        for source, record in zip(sources, records()):
            outputs.write_own(source, header, record)
    outputs.write_all(header, records, write)
    return [{name: each[name] for name in ("path", "problem", "fix")} for each in file.failed]


def join(outputs: Outputs, write: Callable[[str], object]) -> list[Record]:
    """Write, from the parts that several processes left, what one process would have written; the parts are removed.

    Args:
        outputs: as the processes were given them; the format may be another.
        write: takes the text for standard output.

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
    outputs.check_extras()
    header, records, paths = read_parts(outputs.anchor)
    outputs.write_all(header, records, write)
    failed = [record for record in records() if "problem" in record]
    for path in paths:
        path.unlink()
    return failed

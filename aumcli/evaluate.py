"""aum eval: score a split and say how good the scores are."""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np

from aumcli.calibration import NEVER, calibration_error, reliability, thresholds_for_precision
from aumcli.classifier import Classifier, load_model
from aumcli.data.clips import Clip, Clips
from aumcli.data.corpus import local_folder
from aumcli.data.datasets.clip_source import ClipSource, Crop, LongClip
from aumcli.data.datasets.stream import ShardStream, index_of_shards, split_stream
from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, find_files
from aumcli.data.manifest import Manifest, read_events, read_manifest
from aumcli.data.splits import split_clips
from aumcli.data.training_clips import read_training_clips, seen_in_training
from aumcli.errors import AumError
from aumcli.event_scores import EventScores, annotated_spans, score_events
from aumcli.false_alarms import FalseAlarms, ScoredRecording, count_false_alarms, score_recordings
from aumcli.metrics import Metrics, class_indices, evaluate_scores, plain
from aumcli.report.environment import environment
from aumcli.report.plots import drawn, plot_confusion, plot_false_alarms, plot_reliability
from aumcli.utils.csv import listed, write_table
from aumcli.utils.files import atomic_path, check_writable, write_json
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted, plural, unescaped

logger = get_logger(__name__)
BATCH_CLIPS = 64
SCORES = "scores-{}.npz"  # of a split


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split, and how they were computed; all classes in the model's order."""

    model: str
    data: str
    split: str
    metrics: Metrics
    provenance: dict[str, object]
    clips: tuple[str, ...]  # of each score: path, below the data's folder where it lies there, and start
    scores: np.ndarray  # (clips, classes), float32
    targets: np.ndarray  # (clips,) class indices, -1 for none, or (clips, classes) zeros and ones
    notes: tuple[str, ...] = ()  # what was done to the classes, and which have no clip
    no_picture: str = ""  # why a plot couldn't be drawn
    background: bool = False  # whether the model can answer nothing
    reliability: tuple[tuple[float, float, int], ...] = ()  # see `aumcli.calibration`; of data with one label per clip
    false_alarms: FalseAlarms | None = None
    events: EventScores | None = None  # of annotated recordings
    thresholds: tuple[dict[str, object], ...] = ()  # for a wanted precision: label, threshold, precision, recall

    @property
    def pictures(self) -> list[str]:
        """Names of the plots that `write_evaluation` drew."""
        kinds = {
            "confusion": self.metrics.confusion is not None,
            "reliability": bool(self.reliability),
            "false-alarms": self.false_alarms is not None,
        }
        names = [f"{kind}-{self.split}.png" for kind, wanted in kinds.items() if wanted]
        return [name for name in names if name not in self.no_picture]

    @property
    def calibration_error(self) -> float | None:
        """The expected calibration error; None for clips of several labels."""
        return calibration_error(self.reliability) if self.reliability else None


@dataclass(frozen=True)
class MatchedLabels:
    """Where the data's classes stand among the model's, and by what they were matched: name or id."""

    places: np.ndarray  # (the data's classes,) indices of the model's
    by: str

    @property
    def reordered(self) -> bool:
        """Whether the data has its classes in another order than the model."""
        return bool((np.diff(self.places) < 0).any())

    def targets(self, targets: np.ndarray, n_classes: int) -> np.ndarray:
        """Targets (clips, the data's classes) as (clips, n_classes) in the model's order."""
        ours = np.zeros((len(targets), n_classes), targets.dtype)
        ours[:, self.places] = targets
        return ours


def evaluate(
    model: Path | str,
    data: Path | str | None = None,
    split: str | None = None,
    out: Path | str | None = None,
    device: str = "cpu",
    background: Path | str | None = None,
    precision: float | None = None,
    tolerance_s: float = 0.0,
) -> Evaluation:
    """Evaluate a model on a split of prepared data.

    Args:
        model: a run, a model directory or a packaged model's name.
        data: a prepared folder, or the URL of shards; None: what the model was trained on. Where only the shards of a
            folder are left they are streamed.
        split: train, val, test or another of the data's splits; None: the one that the model's recipe reports on, else
            test. A run that held a group out means that group by "test".
        out: folder for `eval-<split>.json`, `scores-<split>.npz`, the plots and `thresholds-<split>.csv`; None: nothing
            is written.
        device: where to compute.
        background: a folder of recordings that hold none of the classes: false alarms per hour are counted in them.
        precision: choose for each class the lowest threshold that has this precision on the clips of the split, and on
            the windows of `background` where it is given.
        tolerance_s: of annotated recordings, how far an event may be from an annotated one that it is taken for.

    Returns:
        The metrics.

    Raises:
        AumError: the model, the data or the split doesn't exist, the data has classes that the model doesn't know, or a
            clip can't be read.
    """
    classifier = load_model(model, device)
    split = split or str(classifier.config.provenance.get("test", "test"))
    folder = local_folder(data or _trained_on(classifier))
    manifest = read_manifest(folder)
    matched = match_labels(classifier, manifest)
    clips, stream = _clips_of(manifest, split, classifier)
    recordings = None if background is None else _recordings(Path(background))
    if out is not None:
        check_writable(Path(out) / SCORES.format(split))
    scores = np.concatenate(list(score_clips(classifier, clips if stream is None else stream.clips, stream)))
    scores = scores if stream is None else scores[np.argsort(stream.rows)]  # in the manifest's order
    targets = matched.targets(manifest.targets(clips).astype(np.uint8), len(classifier.labels))
    targets = targets if manifest.multi_label else class_indices(targets)
    metrics = evaluate_scores(scores, targets, classifier.labels, intervals=True, background=classifier.has_background)
    positive = targets.astype(bool) if targets.ndim == 2 else targets[:, None] == np.arange(scores.shape[1])
    windows, hours = ([], 0.0) if recordings is None else score_recordings(classifier, recordings)
    result = Evaluation(
        str(model),
        str(folder),
        split,
        metrics,
        {
            "clips": metrics.clips,
            "views": classifier.config.views,
            "seed": classifier.config.provenance.get("seed"),
            "backend": classifier.backend,
            "device": str(classifier.device),
            "dtype": "float32",
            "environment": environment(),
            "classes": {
                "order": "the model's",
                "matched_by": matched.by,
                "reordered": matched.reordered,
                "without_clips": [row.label for row in metrics.per_class if not row.support],
            },
        },
        tuple(_name(clip, folder) for clip in clips),
        scores,
        targets,
        _notes(matched, manifest, metrics, split),
        background=classifier.has_background,
        reliability=() if metrics.multi_label else tuple(reliability(scores, targets, classifier.has_background)),
        false_alarms=count_false_alarms(windows, hours, scores, positive, classifier.thresholds, classifier.labels)
        if windows
        else None,
        thresholds=_thresholds(classifier.labels, scores, positive, windows, precision) if precision else (),
        events=None if stream is not None else _events(classifier, manifest, clips, matched, tolerance_s),
    )
    if result.events is None and (tolerance_s or stream is not None and read_events(manifest) is not None):
        why = "they aren't of annotated recordings" if stream is None else "the recordings are there as shards only"
        logger.warning(f"events are not compared with annotated ones: {why}")
    if split != "train":
        for warning in seen_in_training(read_training_clips(model), clips, model, split):
            logger.warning(warning)
    if out is not None:
        result = replace(result, no_picture=write_evaluation(result, Path(out)))
        if result.no_picture:
            logger.warning(result.no_picture)
    return result


def _events(
    classifier: Classifier, manifest: Manifest, clips: Sequence[Clip], matched: MatchedLabels, tolerance_s: float
) -> EventScores | None:
    """How the model's events agree with those of annotated recordings, where the clips are of some."""
    events = read_events(manifest)
    if events is None:
        return None
    index = {label.id: int(place) for label, place in zip(manifest.labels, matched.places)}
    annotated = annotated_spans(events, Clips.of(clips), index)
    if not annotated:
        return None
    recordings, hours = score_recordings(classifier, [Path(path) for path in annotated])
    rate_hz, scored = classifier.config.frontend.sample_rate_hz, dict(zip(annotated, recordings))
    return score_events(scored, annotated, classifier.thresholds, classifier.labels, rate_hz, hours, tolerance_s)


def _recordings(folder: Path) -> list[Path]:
    """The sounds in a folder."""
    paths = [path for path in find_files(folder) if path.suffix.lower() in AUDIO_SUFFIXES]
    if not paths:
        raise AumError(f"{folder} holds no recordings", fix="name a folder with sounds that hold none of the classes")
    return paths


def _thresholds(
    labels: Sequence[str], scores: np.ndarray, positive: np.ndarray, others: Sequence[ScoredRecording], precision: float
) -> tuple[dict[str, object], ...]:
    """The thresholds of a wanted precision, with what they reach on the clips and on windows of no class."""
    every = np.concatenate([scores, *(each.scores for each in others)])
    truth = np.concatenate([positive, np.zeros((len(every) - len(scores), positive.shape[1]), dtype=bool)])
    rows: list[dict[str, object]] = []
    for i, (label, value) in enumerate(zip(labels, thresholds_for_precision(every, truth, precision))):
        given = every[:, i] >= (np.inf if value is None else value)
        hits = int((given & truth[:, i]).sum())
        rows.append(
            {
                "label": label,
                "threshold": NEVER if value is None else value,
                "precision": round(hits / int(given.sum()), 4) if given.any() else None,
                "recall": round(hits / int(truth[:, i].sum()), 4) if truth[:, i].any() else None,
                "clips": int(truth[:, i].sum()),
            }
        )
    return tuple(rows)


def _clips_of(manifest: Manifest, split: str, classifier: Classifier) -> tuple[Sequence[Clip], ShardStream | None]:
    """The clips of a split, in the manifest's order, and what streams them, if anything.

    They are streamed where there are shards and no sound files.
    """
    test_group, index = classifier.config.provenance.get("test_group", ""), index_of_shards(manifest)
    if index is None:
        clips = split_clips(manifest, split, test_group)
        manifest.check_files(clips)
        return clips, None
    if test_group:
        raise AumError(
            f"the run held out {test_group}, and {manifest.folder} has shards only, which are not made by groups",
            fix="evaluate on the sound files",
        )
    stream = split_stream(manifest, index, split, classifier.config.frontend.sample_rate_hz)
    return manifest.clips.take(np.sort(stream.rows)), stream


def score_clips(
    classifier: Classifier, clips: Sequence[Clip], waveforms: ClipSource | None = None, highest: bool = False
) -> Iterator[np.ndarray]:
    """Score clips in their order, those windows of long ones that the model's `views` ask for.

    Args:
        classifier: the model.
        clips: what to score.
        waveforms: decodes or streams just these clips; None: from their files.
        highest: give the highest score among the windows of a clip instead of their mean.

    Yields:
        Scores of at most BATCH_CLIPS clips, (b, classes) float32.

    Raises:
        AumError: a clip can't be read.
    """
    decoded = decoded_clips(classifier, clips, waveforms)
    while batch := list(islice(decoded, BATCH_CLIPS)):
        if classifier.config.views == "all":
            yield classifier.score(batch, highest)
        else:
            yield classifier.score_windows(cast(list[np.ndarray], batch))  # a cropped clip is never a long one


def decoded_clips(
    classifier: Classifier, clips: Sequence[Clip], waveforms: ClipSource | None = None
) -> Iterator[np.ndarray | LongClip]:
    """What `score_clips` scores of each clip, decoded a batch at a time."""
    config = classifier.config
    waveforms = waveforms or Waveforms(clips, config.frontend.sample_rate_hz, cache_mb=0)
    crop = None if config.views == "all" else Crop(config.frontend.clip_samples, config.views)
    items = [(i, clip_place(clip) if config.views == "epic_sounds" else 0.0) for i, clip in enumerate(clips)]
    for batch in waveforms.load(
        (items[start : start + BATCH_CLIPS] for start in range(0, len(items), BATCH_CLIPS)), 0, crop
    ):
        for item in batch:
            if isinstance(item, AumError):
                raise item
            yield item


def clip_place(clip: Clip, *purpose: int) -> float:
    """A number in [0, 1) that belongs to a clip, wherever its file lies and whatever is computed beside it.

    Another one for each `purpose`.
    """
    name = " ".join(map(str, (clip.path.name, clip.start_s, clip.stop_s, *purpose)))
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big") / 2**48


def match_labels(classifier: Classifier, manifest: Manifest) -> MatchedLabels:
    """Find the data's classes among the model's, by name or else by id.

    Args:
        classifier: may know more classes than occur.
        manifest: may have its classes in any order.

    Raises:
        AumError: the model doesn't know all of them.
    """
    index = {name: place for place, name in enumerate(classifier.labels)}
    for by in ("name", "id"):
        own = [getattr(label, by) for label in manifest.labels]
        numbers = by == "id" and any(map(str.isdigit, own))  # are no identity: digits are called so too
        if all(each in index for each in own) and not numbers:
            return MatchedLabels(np.array([index[each] for each in own]), by)
    unknown = [name for name in manifest.label_names if name not in index]
    absent = sorted(index.keys() - set(manifest.label_names), key=index.__getitem__)
    differences = f"{len(unknown)} that the model doesn't know: {listed(map(repr, unknown))}"
    differences += f"; {len(absent)} of the model's that the data hasn't: {listed(map(repr, absent))}" if absent else ""
    unnamed = classifier.labels[0] == "class 0"
    raise AumError(
        f"the classes of {manifest.folder} ({len(manifest.labels)}) are not those of {classifier.source} "
        f"({len(classifier.labels)}): {differences}",
        fix="the model's classes have no names: convert its checkpoint again, with --labels TABLE"
        if unnamed
        else "evaluate on data prepared with the model's labels",
    )


def _notes(matched: MatchedLabels, manifest: Manifest, metrics: Metrics, split: str) -> tuple[str, ...]:
    """What was done to the classes, and which have no clip."""
    notes = []
    if matched.by == "id":
        notes.append(f"the classes' names differ, and were matched by the ids in {manifest.folder / 'labels.csv'}")
    if matched.reordered:
        notes.append(
            f"{manifest.folder / 'labels.csv'} has the classes in another order; all figures are in the model's"
        )
    if without := [row.label for row in metrics.per_class if not row.support]:
        notes.append(
            f"{len(without):,} of the model's {counted(metrics.classes, 'class')} "
            f"{plural(len(without), 'has', 'have')} no clip in the {split} split: "
            f"{listed(map(repr, without))}"
        )
    return tuple(notes)


def write_evaluation(result: Evaluation, out: Path) -> str:
    """Write eval-<split>.json, each clip's scores, the plots that there are figures for, and chosen thresholds.

    All have the classes in the model's order; scores-<split>.npz names them as `labels`.

    Returns:
        "", or why a plot couldn't be drawn.
    """
    labels = [row.label for row in result.metrics.per_class]
    with atomic_path(out / SCORES.format(result.split)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            clips=np.array(result.clips),
            scores=result.scores,
            targets=result.targets,
            labels=np.array(labels),
            background=np.array(result.background),
        )
    write_json(out / f"eval-{result.split}.json", as_json(result))
    if result.thresholds:
        write_table(out / f"thresholds-{result.split}.csv", result.thresholds)
    title = f"{Path(result.model).name} on {Path(result.data).name}, {result.split} split"
    problems = []
    if result.metrics.confusion is not None:
        picture = out / f"confusion-{result.split}.png"
        problems.append(
            drawn(plot_confusion, result.metrics.confusion, result.metrics.confusion_labels, picture, title)
        )
    if result.reliability:
        picture = out / f"reliability-{result.split}.png"
        problems.append(drawn(plot_reliability, result.reliability, result.calibration_error, picture, title))
    if result.false_alarms is not None:
        picture = out / f"false-alarms-{result.split}.png"
        problems.append(drawn(plot_false_alarms, result.false_alarms, picture, title))
    return "; ".join(filter(None, problems))


def as_json(result: Evaluation) -> dict[str, object]:
    """The evaluation as plain values."""
    return {
        "model": result.model,
        "data": result.data,
        "split": result.split,
        **result.provenance,
        "metrics": result.metrics.to_dict(),
        **({"calibration_error": result.calibration_error} if result.reliability else {}),
        **({"reliability": [list(each) for each in result.reliability]} if result.reliability else {}),
        **({"false_alarms": _plain(result.false_alarms)} if result.false_alarms else {}),
        **({"thresholds": list(result.thresholds)} if result.thresholds else {}),
        **({"events": result.events.to_dict()} if result.events else {}),
    }


def _plain(found: FalseAlarms) -> dict[str, object]:
    """False alarms as JSON can hold them: a recall without clips is None."""
    values = {name: plain(value) for name, value in vars(found).items()}
    own = found.own_thresholds._asdict()
    return {**values, "own_thresholds": {name: plain(value) for name, value in own.items()}}


def read_scores(path: Path | str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read a scores-<split>.npz: clips, scores and targets as in `Evaluation`.

    Where the model can answer nothing, or a clip is of no class, the score of nothing stands behind those of the
    classes: -inf for a model that can't answer it.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            scores, targets = arrays["scores"], arrays["targets"]
            if arrays.get("background"):
                scores = np.column_stack([scores, 1 - scores.sum(axis=1)])
            elif (targets < 0).any():
                scores = np.column_stack([scores, np.full(len(scores), -np.inf, scores.dtype)])
            return arrays["clips"].tolist(), scores, targets
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AumError(f"can't read {path}: {error}", fix="remove it and evaluate again") from error


def _name(clip: Clip, folder: Path) -> str:
    path = clip.path.relative_to(folder) if clip.path.is_relative_to(folder) else clip.path
    return path.as_posix() + ("" if clip.start_s is None else f"@{clip.start_s:g}")


def _trained_on(classifier: Classifier) -> str:
    data = classifier.config.provenance.get("data")
    if not data:
        raise AumError(f"{classifier.source} doesn't say on which data it was trained", fix="name the data with --data")
    return unescaped(str(data))

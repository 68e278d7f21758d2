"""aum eval: score a split and say how good the scores are."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aumcli.classifier import Classifier, load_model
from aumcli.data.dataset import Waveforms
from aumcli.data.manifest import Clip, Manifest, read_manifest
from aumcli.data.splits import split_clips
from aumcli.data.stream import ShardStream, index_of_shards, local_folder, split_stream
from aumcli.errors import AumError
from aumcli.files import atomic_path, check_writable, write_json
from aumcli.metrics import Metrics, evaluate_scores
from aumcli.names import unescaped
from aumcli.report import drawn, environment, plot_confusion

BATCH_CLIPS = 64
SCORES = "scores-{}.npz"       # of a split


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a model on a split, with what one needs to know to trust them."""

    model: str
    data: str
    split: str
    metrics: Metrics
    provenance: dict[str, object]
    clips: tuple[str, ...]      # of each score: path, below the data's folder where it lies there, and start
    scores: np.ndarray          # (clips, classes), float32
    targets: np.ndarray         # (clips,) class indices, or (clips, classes) zeros and ones
    no_picture: str = ""        # why the confusion plot couldn't be drawn


def evaluate(model: Path | str, data: Path | str | None = None, split: str = "test", out: Path | str | None = None,
             device: str = "cpu") -> Evaluation:
    """Evaluate a model on a split of prepared data.

    Args:
        model: a run, a model directory or a packaged model's name.
        data: a prepared folder, or the URL of shards; None: what the model was trained on. Where only the shards of a folder
            are left they are streamed.
        split: train, val, test or another of the data's splits. A run that held a group out means that group by "test".
        out: folder for `eval-<split>.json`, `scores-<split>.npz` and `confusion-<split>.png`; None: nothing is written.
        device: where to compute.

    Returns:
        The metrics.

    Raises:
        AumError: the model, the data or the split doesn't exist, their labels differ, or a clip can't be read.
    """
    classifier = load_model(model, device)
    folder = local_folder(data or _trained_on(classifier))
    manifest = read_manifest(folder)
    check_labels(classifier, manifest)
    clips, stream = _clips_of(manifest, split, classifier)
    if out is not None:
        check_writable(Path(out) / SCORES.format(split))
    scores = np.concatenate(list(score_clips(classifier, clips if stream is None else stream.clips, stream)))
    scores = scores if stream is None else scores[np.argsort(stream.rows)]                 # in the manifest's order
    targets = manifest.targets(clips).astype(np.uint8)
    targets = targets if manifest.multi_label else targets.argmax(1)
    metrics = evaluate_scores(scores, targets, classifier.labels)
    result = Evaluation(str(model), str(folder), split, metrics, {
        "clips": metrics.clips, "seed": classifier.config.provenance.get("seed"), "backend": classifier.backend,
        "device": str(classifier.device), "dtype": "float32", "environment": environment()},
        tuple(_name(clip, folder) for clip in clips), scores, targets)
    if out is not None:
        result = replace(result, no_picture=write_evaluation(result, Path(out)))
    return result


def _clips_of(manifest: Manifest, split: str, classifier: Classifier) -> tuple[Sequence[Clip], ShardStream | None]:
    """The clips of a split, in the manifest's order, and what streams them where there are shards and no sound files."""
    hold_out, index = classifier.config.provenance.get("hold_out", ""), index_of_shards(manifest)
    if index is None:
        clips = split_clips(manifest, split, hold_out)
        manifest.check_files(clips)
        return clips, None
    if hold_out:
        raise AumError(f"the run held out {hold_out}, and {manifest.folder} has shards only, which are not made by groups",
                       fix="evaluate on the sound files")
    stream = split_stream(manifest, index, split, classifier.config.frontend.sample_rate_hz)
    return manifest.clips.take(np.sort(stream.rows)), stream


def score_clips(classifier: Classifier, clips: Sequence[Clip], waveforms: Waveforms | ShardStream | None = None) -> Iterator[np.ndarray]:
    """Score clips batch by batch in their order: (at most BATCH_CLIPS, classes) float32 each."""
    config = classifier.config.frontend
    waveforms = waveforms or Waveforms(clips, config.sample_rate_hz, cache_mb=0)
    batches = [[*range(start, min(start + BATCH_CLIPS, len(clips)))] for start in range(0, len(clips), BATCH_CLIPS)]
    for batch in waveforms.load(batches, 0):
        if failed := [item for item in batch if isinstance(item, AumError)]:
            raise failed[0]
        yield classifier.score(batch)


def check_labels(classifier: Classifier, manifest: Manifest) -> None:
    """Refuse data whose classes are not the model's."""
    if manifest.label_names != classifier.labels:
        missing = [name for name in manifest.label_names if name not in classifier.labels]
        what = f"{missing[0]!r} is no class of the model" if missing else "they are other classes, or in another order"
        raise AumError(f"the labels of {manifest.folder} ({len(manifest.labels)}) are not those of {classifier.source} "
                       f"({len(classifier.labels)}): {what}", fix="evaluate on data prepared with the model's labels")


def write_evaluation(result: Evaluation, out: Path) -> str:
    """Write eval-<split>.json, each clip's scores and, for data with one label per clip, confusion-<split>.png; "", or why that
    couldn't be drawn."""
    with atomic_path(out / SCORES.format(result.split)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, clips=np.array(result.clips), scores=result.scores, targets=result.targets)
    write_json(out / f"eval-{result.split}.json", as_json(result))
    if result.metrics.confusion is None:
        return ""
    labels = [row.label for row in result.metrics.per_class]
    return drawn(plot_confusion, result.metrics.confusion, labels, out / f"confusion-{result.split}.png",
                 f"{Path(result.model).name} on {Path(result.data).name}, {result.split} split")


def as_json(result: Evaluation) -> dict[str, object]:
    """The evaluation as plain values."""
    return {"model": result.model, "data": result.data, "split": result.split, **result.provenance,
            "metrics": result.metrics.to_dict()}


def read_scores(path: Path | str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Read a scores-<split>.npz: clips, scores and targets as in `Evaluation`."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["clips"].tolist(), arrays["scores"], arrays["targets"]
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

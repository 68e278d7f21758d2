"""aum predict: labels for sound files and folders of them; a bad file is named and never stops the others."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aumcli.classifier import Classifier
from aumcli.data.audio import find_audio, load_audio
from aumcli.errors import AumError

BATCH_WINDOWS = 32


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file; `problem` and `fix` instead of labels where it could not be read."""

    path: str
    duration_s: float = 0.0
    windows: int = 0                                # overlapping windows that a long file was scored in
    labels: tuple[tuple[str, float], ...] = ()      # best first
    problem: str = ""
    fix: str = ""

    def to_dict(self) -> dict[str, object]:
        """The prediction as plain values."""
        if self.problem:
            return {"path": self.path, "problem": self.problem, "fix": self.fix}
        return {"path": self.path, "duration_s": round(self.duration_s, 3), "windows": self.windows,
                "labels": [{"label": label, "score": score} for label, score in self.labels]}


def find_clips(paths: Sequence[Path | str]) -> list[Path]:
    """Replace each folder by the sound files in it, at any depth.

    Raises:
        AumError: a folder holds no sound file.
    """
    clips: list[Path] = []
    for path in map(Path, paths):
        found = find_audio(path) if path.is_dir() else [path]
        if not found:
            raise AumError(f"{path} holds no sound files", fix="name files, or a folder with wav, flac, ogg or mp3 files")
        clips += found
    return clips


def predict_files(classifier: Classifier, paths: Iterable[Path | str], top: int = 5) -> Iterator[Prediction]:
    """Label files in order, several in one batch.

    A file longer than the model's clip is scored in overlapping windows whose scores are averaged.

    Args:
        classifier: see `aumcli.load_model`.
        paths: sound files of any rate and length that fits into memory.
        top: how many labels to give for each.

    Yields:
        A prediction for each path, in order.
    """
    waiting: list[Prediction] = []
    windows: list[np.ndarray] = []
    for path in paths:
        prediction, waveform = _decode(classifier, path)
        waiting.append(prediction)
        windows += classifier.windows(waveform) if waveform is not None else []
        if len(windows) >= BATCH_WINDOWS:
            yield from _score(classifier, waiting, windows, top)
            waiting, windows = [], []
    yield from _score(classifier, waiting, windows, top)


def _decode(classifier: Classifier, path: Path | str) -> tuple[Prediction, np.ndarray | None]:
    try:
        waveform, rate_hz = load_audio(path, classifier.config.frontend.sample_rate_hz)
    except AumError as error:
        return Prediction(str(path), problem=error.problem, fix=error.fix), None
    return Prediction(str(path), len(waveform) / rate_hz, len(classifier.windows(waveform))), waveform


def _score(classifier: Classifier, waiting: list[Prediction], windows: list[np.ndarray], top: int) -> Iterator[Prediction]:
    """Fill in the labels of predictions whose windows lie one after another in `windows`."""
    parts = [classifier.score_windows(windows[i : i + BATCH_WINDOWS]) for i in range(0, len(windows), BATCH_WINDOWS)]
    scores, start = np.concatenate(parts) if parts else np.empty((0, 0)), 0
    for prediction in waiting:
        if prediction.problem:
            yield prediction
            continue
        mean = scores[start : start + prediction.windows].mean(0)                   # (classes,)
        start += prediction.windows
        yield Prediction(prediction.path, prediction.duration_s, prediction.windows, tuple(classifier.best(mean, top)))

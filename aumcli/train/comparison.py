"""What a finished training is compared with: a linear model of the same clips, and its own training clips."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.core.frontend import LogMel, build_frontend
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.clips import Clip
from aumcli.data.datasets.clip_source import LongClip
from aumcli.data.datasets.stream import ShardStream
from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.windows import LONG_CLIP_S
from aumcli.data.manifest import Manifest
from aumcli.evaluate import score_clips
from aumcli.train.setup import TrainState
from aumcli.train.validation import validation_metrics
from aumcli.utils.text import percent

T = TypeVar("T")
MOST_CLIPS = 5000  # that a linear model is fitted to, or judged by
SCORED_CLIPS = 500  # training clips that the network is judged by
UNDERFIT = 0.9  # of a network that has seen them often, a lower accuracy on these says that it can't learn them
ITERATIONS = 200  # of L-BFGS


@dataclass(frozen=True)
class Comparison:
    """What else the validation metric reaches.

    Attributes:
        metric: its name, accuracy or mAP.
        network: of the trained network, on the validation clips.
        linear: of a linear model of the mean spectra, fitted to the same training clips, on the same clips.
        training: of the network on training clips, without augmentation.
        clips: how many of these.
        frozen: whether only the network's head was trained.
    """

    metric: str
    network: float
    linear: float
    training: float
    clips: int
    frozen: bool = False

    def lines(self) -> list[tuple[int, str]]:
        """What people should know, as (logging level, line)."""
        told = (
            f"a linear model of mean spectra: {self.metric} {percent(self.linear)} on the same clips, "
            f"this network {percent(self.network)}"
        )
        better = self.linear > self.network
        lines = [(logging.WARNING if better else logging.INFO, told + (", which is worse" if better else ""))]
        if self.training < UNDERFIT:
            mend = "train longer (--set train.epochs=N) or augment less (--set augment.policy=gentle)"
            if self.frozen:
                mend = "the frozen network may not tell these sounds apart; train all of it (aum train --init MODEL)"
            lines.append(
                (
                    logging.WARNING,
                    f"the network underfits: on {self.clips:,} of its own training clips, not augmented, its "
                    f"{self.metric} is only {percent(self.training)}; {mend}",
                )
            )
        return lines


def compare(state: TrainState, network: SpectrogramNetwork, reached: float) -> Comparison | None:
    """Compare a finished training.

    Args:
        state: of the training.
        network: its best weights.
        reached: their validation metric.

    Returns:
        None where clips are streamed, there are too many to be done within seconds, or the metric is undefined.

    Raises:
        AumError: a clip can't be read.
    """
    manifest, metric = state.manifest, state.metric[4:]
    if isinstance(state.train, ShardStream) or len(state.val_clips) > MOST_CLIPS:
        return None

    def judged(scores: np.ndarray, clips: Sequence[Clip]) -> float:
        metrics = validation_metrics(state, scores, manifest.targets(clips))
        value = metrics.mean_average_precision if manifest.multi_label else metrics.accuracy
        return math.nan if value is None else float(value)

    readable = [i for i in range(len(state.train)) if i not in state.unreadable_clips]
    train = state.train.clips.take(readable)
    if not readable:
        return None
    linear = linear_scores(state.classifier.frontend, manifest, train, state.val_clips)
    chosen = _evenly(readable, SCORED_CLIPS)
    some, classifier = state.train.clips.take(chosen), state.classifier.with_network(network)
    if state.embeddings is None:
        scores = np.concatenate([*score_clips(classifier, some)])
    else:
        scores = classifier.head_scores(state.embeddings.view(0, chosen))
    figures = reached, judged(linear, state.val_clips), judged(scores, some)
    return (
        Comparison(metric, *figures, len(some), state.embeddings is not None)
        if all(map(math.isfinite, figures))
        else None
    )


def linear_scores(frontend: LogMel, manifest: Manifest, train: Sequence[Clip], test: Sequence[Clip]) -> np.ndarray:
    """Scores of a linear model of the mean and the standard deviation of each mel band over a clip's frames.

    Logistic regression with an L2 penalty of one half, as scikit-learn's by default, on standardised features. One
    binary regression for each class where a clip can have several.

    Args:
        frontend: computes the log-mel energies; normalisation doesn't matter.
        manifest: has the labels.
        train: clips to fit to, but for those of no class; of more than MOST_CLIPS, that many evenly spaced ones.
        test: clips to score.

    Returns:
        (len(test), classes) float32 in 0..1.

    Raises:
        AumError: a clip can't be read.
    """
    train = _evenly(train if manifest.multi_label else [clip for clip in train if clip.labels], MOST_CLIPS)
    x, y = band_statistics(frontend, train), torch.from_numpy(manifest.targets(train)).double()
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    weight, bias = _fit((x - mean) / std, y, manifest.multi_label)
    logits = (band_statistics(frontend, test) - mean) / std @ weight + bias
    scores = logits.sigmoid() if manifest.multi_label else logits.softmax(1)
    return scores.float().numpy()


def _evenly(values: Sequence[T], most: int) -> list[T]:
    """All values, or evenly spaced ones."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(len(values), most)).astype(int)]


def band_statistics(frontend: LogMel, clips: Sequence[Clip]) -> Tensor:
    """Mean and standard deviation of the log energy of each mel band over a clip: (clips, 2 mels) float64."""
    frontend = build_frontend(frontend.config)  # on the CPU
    rate_hz = frontend.config.sample_rate_hz
    waveforms, piece = Waveforms(clips, rate_hz, cache_mb=0), int(LONG_CLIP_S * rate_hz)
    rows = []
    for i in range(len(clips)):
        clip = waveforms[i]
        pieces = clip.windows(piece, piece) if isinstance(clip, LongClip) else [clip]
        energies = torch.cat([frontend.energies(torch.from_numpy(samples)[None])[0] for samples in pieces]).double()
        rows.append(torch.cat([energies.mean(0), energies.std(0, correction=0)]))
    return torch.stack(rows)


def _fit(x: Tensor, y: Tensor, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Weights (features, classes) and biases (classes) of logistic regression of y (n, classes) on x (n, features)."""
    weight = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(y.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weight + bias
        if multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, y, reduction="sum")
        else:
            loss = F.cross_entropy(logits, y, reduction="sum")
        loss = (loss + weight.square().sum() / 2) / len(x)
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight.detach(), bias.detach()

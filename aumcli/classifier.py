"""A model with its frontend and labels: from a sound to named scores, the same for validation, eval and predict."""

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aumcli.checkpoints import read_model
from aumcli.checkpoints.lookup import find_model
from aumcli.config import NOTHING, ModelConfig
from aumcli.core import at_length
from aumcli.core.frontend import build_frontend
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.datasets.clip_source import LongClip
from aumcli.data.datasets.waveforms import padded
from aumcli.data.decoding.audio import decode_audio, open_audio
from aumcli.data.decoding.resample import resample
from aumcli.data.decoding.windows import cut_windows
from aumcli.errors import AumError
from aumcli.utils.text import counted

BATCH_WINDOWS = 64  # in one go
DEFAULT_THRESHOLD = 0.5
DEVICES = ("cpu", "cuda", "mps")
Sound = Path | str | BinaryIO | np.ndarray | Tensor
S = TypeVar("S", bound=Sound)
Labels = list[tuple[str, float]]  # with their scores, best first


class Classifier:
    """A network together with what it takes to use it.

    Args:
        network: the model; moved to `device`.
        config: its configuration, with labels, frontend and activation.
        source: where it came from, for people.
        device: "cpu", "cuda", "cuda:1", "mps" or "auto".
    """

    def __init__(
        self, network: SpectrogramNetwork, config: ModelConfig, source: str, device: str | torch.device = "cpu"
    ):
        self.device = pick_device(device)
        self.network = network.to(self.device)
        self.frontend = build_frontend(config.frontend).to(self.device)
        self.config, self.source = config, source

    def with_network(self, network: SpectrogramNetwork) -> "Classifier":
        """The same with another network of the same configuration."""
        return Classifier(network, self.config, self.source, self.device)

    def __repr__(self) -> str:
        rate_hz, clip_s = self.config.frontend.sample_rate_hz, self.config.frontend.clip_s
        return (
            f"<Classifier {self.source}: {self.config.model.describe()}, {counted(len(self.labels), 'class')}, "
            f"{clip_s:.2f} s at {rate_hz} Hz, {self.device}>"
        )

    @property
    def labels(self) -> list[str]:
        """Names of the classes, by index."""
        return list(self.config.labels)

    @property
    def has_background(self) -> bool:
        """Whether the model has a background class, so that it can answer nothing."""
        return self.config.activation == "softmax_background"

    @property
    def thresholds(self) -> np.ndarray:
        """Least score of an event where none is asked for, (classes,) float32: the model's own, else 0.5."""
        return np.array(self.config.thresholds or [DEFAULT_THRESHOLD] * len(self.labels), dtype=np.float32)

    @property
    def backend(self) -> str:
        """The kernel backend that this model's calls run."""
        return self.network.backend_on(self.device)

    def logits(self, features: Tensor) -> Tensor:
        """Map normalised log-mel features (b, frames, mels) to logits (b, classes)."""
        return self._forward(self.network, features)

    def embed(self, features: Tensor) -> Tensor:
        """Map normalised log-mel features (b, frames, mels) to classification tokens after the last norm, (b, d)."""
        return self._forward(self.network.forward_features, features)

    def _forward(self, function: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
        if any(module.training for module in self.network.modules()):  # telling all of them takes longer than asking
            self.network.eval()
        with torch.inference_mode():
            return function(features.to(self.device))

    def windows(self, clip: np.ndarray | LongClip) -> Iterable[np.ndarray]:
        """Cut a clip, (samples,), into the windows that are scored, overlapping by half (see `cut_windows`)."""
        if isinstance(clip, LongClip):
            return clip.windows(*self.window_samples)
        return [window for _, window in cut_windows([clip], *self.window_samples)]

    @property
    def window_samples(self) -> tuple[int, int]:
        """Samples of a window, and from one to the next, where nothing else is asked for."""
        size = self.config.frontend.clip_samples
        return size, max(1, size // 2)

    def at_length(self, samples: int) -> "Classifier":
        """This model for windows of `samples`: itself, or for longer ones than its own with its positions resized.

        Raises:
            AumError: the network has no positions that could be resized.
        """
        frontend, model = self.config.frontend, self.config.model
        frames = model.whole_frames(self.frontend.n_frames(samples))
        if samples <= frontend.clip_samples or frames <= model.frames:
            return self
        network = at_length(self.network, frames)
        if network is None:
            raise AumError(
                f"{self.source} takes clips of {frontend.clip_s:.3f} s only", fix="use windows of at most that length"
            )
        config = self.config.model_copy(
            update={"model": network.config, "frontend": frontend.model_copy(update={"frames": frames})}
        )
        return Classifier(network, config, self.source, self.device)

    def score_windows(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Score windows (at most clip_samples each) as one batch: (windows, classes) probabilities, float32."""
        return self._probabilities(self.logits(self._features(windows)))

    def encode_windows(self, windows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Scores as `score_windows` gives them, and the embeddings that they come from, (windows, d)."""
        embeddings = self.embed(self._features(windows))
        return self.head_scores(embeddings), embeddings.float().cpu().numpy()

    def embed_windows(self, windows: Sequence[np.ndarray]) -> np.ndarray:
        """Embeddings of windows, (windows, d) float32."""
        return self.embed(self._features(windows)).float().cpu().numpy()

    def head_scores(self, embeddings: Tensor) -> np.ndarray:
        """Scores of embeddings (b, d), as `score_windows` gives them: (b, classes) float32."""
        return self._probabilities(self._forward(self.network.classify, embeddings))

    def _features(self, windows: Sequence[np.ndarray]) -> Tensor:
        """Windows to normalised log-mel features, (windows, frames, mels)."""
        lengths = [len(window) for window in windows]
        with torch.inference_mode():
            return self.frontend(
                padded(windows, max(lengths)).to(self.device), torch.tensor(lengths, device=self.device)
            )

    def _probabilities(self, logits: Tensor) -> np.ndarray:
        return activate(logits.float(), self.config.activation).cpu().numpy()

    def score(self, clips: Sequence[np.ndarray | LongClip], highest: bool = False) -> np.ndarray:
        """Score clips of any length, the scores of a clip's windows averaged: (clips, classes), float32.

        Args:
            clips: (samples,) float32 at the model's sample rate, or long ones, which are decoded window by window.
            highest: give the highest of the windows' scores instead.
        """
        totals, counts = np.zeros((len(clips), len(self.labels))), np.zeros(len(clips), dtype=np.int64)
        windows = ((i, window) for i, clip in enumerate(clips) for window in self.windows(clip))
        while batch := list(islice(windows, BATCH_WINDOWS)):
            of, cut = zip(*batch)
            (np.maximum if highest else np.add).at(totals, list(of), self.score_windows(cut))
            np.add.at(counts, list(of), 1)
        return (totals if highest else totals / counts[:, None]).astype(np.float32)

    @overload
    def predict(self, sound: Sound, rate_hz: int | None = None, *, top: int = 5) -> Labels: ...

    @overload
    def predict(self, sound: list[S] | tuple[S, ...], rate_hz: int | None = None, *, top: int = 5) -> list[Labels]: ...

    def predict(
        self, sound: Sound | list[S] | tuple[S, ...], rate_hz: int | None = None, *, top: int = 5
    ) -> Labels | list[Labels]:
        """Give the likeliest labels of a sound of any length, the scores of its windows averaged.

        Args:
            sound: a sound file's path; a binary file object; samples, which need `rate_hz`: an array or a tensor,
                (samples,), or with channels as a second axis, the shorter one, floats in -1..1 or integers; or a list
                of such sounds.
            rate_hz: of samples.
            top: most labels.

        Returns:
            [(label, score)], best first; of a list one such list for each sound. ("(nothing)", score) is the first
            where a model with a background class answers that.

        Raises:
            AumError: a sound can't be read, or samples are no sound.
        """
        if isinstance(sound, list | tuple):
            return [self.predict(each, rate_hz, top=top) for each in sound]
        to_hz, is_file = (
            self.config.frontend.sample_rate_hz,
            isinstance(sound, str | os.PathLike) or hasattr(sound, "read"),
        )
        if is_file and rate_hz is not None:
            raise AumError(f"{sound} knows its own rate", fix="leave rate_hz out; the number of labels is top=")
        if isinstance(sound, str | os.PathLike):
            with open_audio(sound, to_hz) as (_, blocks):
                return self._predict_blocks(blocks, top)
        if hasattr(sound, "read"):
            waveform, rate_hz = decode_audio(sound.read(), str(getattr(sound, "name", "the file object")))
        else:
            waveform = mono_samples(sound)
            if rate_hz is None:
                raise AumError("samples were given without their rate", fix="model.predict(samples, rate_hz)")
        return self._predict_blocks([resample(waveform, rate_hz, to_hz)], top)

    def _predict_blocks(self, blocks: Iterable[np.ndarray], top: int) -> Labels:
        total: np.ndarray | float = 0.0
        count = 0
        windows = (window for _, window in cut_windows(blocks, *self.window_samples))
        while batch := list(islice(windows, BATCH_WINDOWS)):
            total = total + self.score_windows(batch).sum(0, dtype=np.float64)
            count += len(batch)
        return self.best(np.asarray(total / count, dtype=np.float32), top)

    def best(self, scores: np.ndarray, top: int) -> Labels:
        """The `top` likeliest labels with their scores, best first; before them NOTHING where that is likelier."""
        order = np.argsort(-scores, kind="stable")[:top]
        labels = [(self.config.labels[i], float(scores[i])) for i in order]
        rest = 1 - float(scores.sum())
        if not self.has_background or rest <= labels[0][1]:
            return labels
        return [(NOTHING, rest), *(labels if top > 1 else ())]


def activate(logits: Tensor, activation: str) -> Tensor:
    """Logits (b, classes) as scores in 0..1 (see `ModelConfig.activation`)."""
    if activation == "sigmoid":
        return logits.sigmoid()
    return logits.softmax(-1) if activation == "softmax" else with_background(logits).softmax(-1)[:, :-1]


def with_background(logits: Tensor) -> Tensor:
    """Logits (b, classes) with that of the background class behind them, (b, classes + 1).

    It is 0: softmax doesn't change when a number is added to all logits, so that nothing is lost by not learning it.
    """
    return F.pad(logits, (0, 1))


def mono_samples(samples: np.ndarray | Tensor) -> np.ndarray:
    """Bring samples to one channel, (samples,) float32 in -1..1; see `Classifier.predict` for what is taken.

    Raises:
        AumError: they are empty, have more than two axes, or are not finite.
    """
    samples = np.asarray(samples.detach().cpu() if isinstance(samples, Tensor) else samples)
    if samples.ndim not in (1, 2) or not samples.size or samples.dtype.kind not in "iuf":
        raise AumError(
            f"samples of shape {samples.shape} and type {samples.dtype} are no sound",
            fix="give (samples,) or (samples, channels), floats or integers",
        )
    if samples.dtype.kind in "iu":
        middle = 0 if samples.dtype.kind == "i" else 1 << (8 * samples.itemsize - 1)
        samples = (samples.astype(np.float64) - middle) / (1 << (8 * samples.itemsize - 1))
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float64)
    if not np.isfinite(samples).all():
        raise AumError("samples are not finite (NaN or infinity)", fix="remove them before: numpy.nan_to_num(samples)")
    return np.ascontiguousarray(samples, dtype=np.float32)


def pick_device(name: str | torch.device) -> torch.device:
    """Turn a device's name into a device; "auto" takes a GPU where there is one.

    Raises:
        AumError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()  # read back: "meta" is a device that holds no numbers
    except (RuntimeError, AssertionError) as error:
        known = str(name).partition(":")[0] in DEVICES
        reason = (
            str(error).splitlines()[0]
            if known
            else f"devices are {', '.join(DEVICES)}, auto, and cuda:1 for the second GPU"
        )
        raise AumError(f"can't use device {name}: {reason}", fix="--device cpu works everywhere") from error
    return device


def load_model(model: Path | str, device: str = "cpu", backend: str = "auto") -> Classifier:
    """Load a model to use it.

    Args:
        model: a run (its best weights are taken), a model directory, the name of a packaged model, or `hf://owner/name`,
            with `@revision` or without, for a model on the Hugging Face hub.
        device: see `Classifier`.
        backend: kernel backend, see `aumcli.core.kernels`.

    Raises:
        AumError: there is no such model, it is damaged, or the device or backend can't be used.
    """
    folder = find_model(model)
    network, config = read_model(folder, backend)
    classifier = Classifier(network, config, str(model), device)
    _ = classifier.backend  # a named backend that can't run fails now, not at the first clip
    return classifier

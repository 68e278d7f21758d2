"""From a manifest's clips to batches of waveforms, in an order that depends on the seed and the epoch alone."""

import signal
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aumcli.data.audio import load_audio
from aumcli.data.manifest import Clip
from aumcli.errors import AumError


def stream_seed(*keys: int) -> int:
    """A seed for one purpose, from the run's seed, the epoch, the step and the like: no state to save or restore."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


class Waveforms(Dataset):
    """Decoded clips, mono, at one sample rate; kept in memory while they fit.

    Args:
        clips: what to decode.
        sample_rate_hz: the rate to resample to.
        cache_mb: decoded clips are kept, up to this many megabytes.
    """

    def __init__(self, clips: Sequence[Clip], sample_rate_hz: int, cache_mb: int):
        self.clips, self.sample_rate_hz = clips, sample_rate_hz
        self._cache: dict[int, np.ndarray] = {}
        self._room = cache_mb * 2**20

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode clip `index`: (samples,) float32. Raises AumError, naming the file, where that fails."""
        if index in self._cache:
            return self._cache[index]
        clip = self.clips[index]
        waveform, _ = load_audio(clip.path, self.sample_rate_hz, clip.start_s, clip.stop_s)
        if waveform.nbytes <= self._room:
            self._cache[index] = waveform
            self._room -= waveform.nbytes
        return waveform


def epoch_batches(clips: int, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[list[int]]:
    """Shuffle clip indices into batches; the last one may be smaller.

    Args:
        clips: how many there are.
        batch_size: of all batches but the last.
        seed, epoch: decide the order.
        weights: draw as many clips with these probabilities (clips,), with replacement; None: each clip once.
    """
    random = np.random.default_rng(stream_seed(seed, epoch))
    order = random.permutation(clips) if weights is None else random.choice(clips, clips, p=weights)
    order = order.tolist()
    return [order[i : i + batch_size] for i in range(0, clips, batch_size)]


def balanced_weights(clips: Sequence[Clip]) -> np.ndarray:
    """How likely each clip is drawn in balanced sampling: the sum over its labels of 1 / (count of the label + 0.01).

    Returns:
        (clips,) float64, sum 1.

    Source: gen_weight_file.py in the AST authors' code.
    """
    counts = Counter(label for clip in clips for label in clip.labels)
    weights = np.array([sum(1 / (counts[label] + 0.01) for label in clip.labels) for clip in clips])
    return weights / weights.sum()


def load_batches(waveforms: Waveforms, batches: list[list[int]], workers: int) -> Iterator[list[np.ndarray | AumError]]:
    """Decode batches in order, in `workers` processes (0: here), which work ahead. The result doesn't depend on their number.

    Yields:
        For each clip its waveform, or why it can't be read.
    """
    yield from DataLoader(_Reported(waveforms), batch_sampler=batches, collate_fn=list, num_workers=workers, worker_init_fn=_leave_signals)


def _leave_signals(worker: int) -> None:
    """A signal to all processes of a program is the main one's to act on: it needs the workers until the step is finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _Reported(Dataset):
    """Clips, or the errors they raised: a worker process can pass an error on whole only as a value."""

    def __init__(self, waveforms: Waveforms):
        self.waveforms = waveforms

    def __getitem__(self, index: int) -> np.ndarray | AumError:
        try:
            return self.waveforms[index]
        except AumError as error:
            return error


def crop_and_pad(waveforms: Sequence[np.ndarray], samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bring clips to one length for training: a random part of a longer one, zeros behind a shorter one.

    Args:
        waveforms: (samples,) float32 each.
        samples: length of the result.
        generator: chooses the parts.

    Returns:
        (b, samples) float32, and how many of them belong to each clip, (b,) int64.
    """
    batch = torch.zeros(len(waveforms), samples)
    lengths = torch.tensor([min(len(waveform), samples) for waveform in waveforms])
    places = torch.rand(len(waveforms), generator=generator)
    for row, waveform, place in zip(batch, waveforms, places.tolist()):
        start = int(place * (len(waveform) - samples + 1)) if len(waveform) > samples else 0
        part = waveform[start : start + samples]
        row[: len(part)] = torch.from_numpy(part)
    return batch, lengths

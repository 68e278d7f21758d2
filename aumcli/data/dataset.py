"""From a manifest's clips to batches of waveforms, in an order that depends on the seed and the epoch alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from aumcli.data.audio import load_audio
from aumcli.data.clips import Clip, Clips
from aumcli.errors import AumError
from aumcli.threads import decoders, map_in_parts


def stream_seed(*keys: int) -> int:
    """A seed for one purpose, from the run's seed, the epoch, the step and the like: no state to save or restore."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


class Waveforms:
    """Decoded clips, mono, at one sample rate; kept in memory while they fit.

    Args:
        clips: what to decode.
        sample_rate_hz: the rate to resample to.
        cache_mb: decoded clips are kept, up to this many megabytes.
    """

    def __init__(self, clips: Sequence[Clip], sample_rate_hz: int, cache_mb: int):
        self.clips, self.sample_rate_hz = Clips.of(clips), sample_rate_hz
        self._cache: dict[int, np.ndarray] = {}
        self._room, self._lock = cache_mb * 2**20, Lock()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode clip `index`: (samples,) float32. Raises AumError, naming the file, where that fails."""
        if index in self._cache:
            return self._cache[index]
        path, start_s, stop_s = self.clips.place(index)
        waveform, _ = load_audio(path, self.sample_rate_hz, start_s, stop_s)
        with self._lock:
            if waveform.nbytes <= self._room and index not in self._cache:
                self._cache[index] = waveform
                self._room -= waveform.nbytes
        return waveform

    def batches(self, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[list[int]]:
        """See `epoch_batches`."""
        return epoch_batches(len(self), batch_size, seed, epoch, weights)

    def load(self, batches: list[list[int]], workers: int, *key: int) -> Iterator[list[np.ndarray | AumError]]:
        """See `load_batches`; seed and epoch make no difference."""
        return load_batches(self, batches, workers)

    def part(self, rank: int, size: int) -> "Waveforms":
        """Every size-th clip, from the rank-th on; the room for decoded clips is each one's own."""
        return Waveforms(self.clips[rank::size], self.sample_rate_hz, self._room // 2**20)


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
    """Decode batches in order, in `workers` threads (0: see `decoders`), one batch ahead.

    The result doesn't depend on their number.

    Yields:
        For each clip its waveform, or why it can't be read.
    """
    def decoded(clip: int) -> np.ndarray | AumError:
        try:
            return waveforms[clip]
        except AumError as error:
            return error

    workers = workers or decoders()
    with ThreadPoolExecutor(workers) as threads:
        ahead: Iterator[np.ndarray | AumError] = iter(())
        for number, batch in enumerate([*batches, []]):
            here, ahead = ahead, map_in_parts(threads, workers, decoded, batch)
            if number:
                yield list(here)


def crop_and_pad(waveforms: Sequence[np.ndarray], samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bring clips to one length for training: a random part of a longer one, zeros behind a shorter one.

    Args:
        waveforms: (samples,) float32 each.
        samples: length of the result.
        generator: chooses the parts.

    Returns:
        (b, samples) float32, and how many of them belong to each clip, (b,) int64.
    """
    places = torch.rand(len(waveforms), generator=generator)
    starts = [int(place * max(1, len(waveform) - samples + 1)) for waveform, place in zip(waveforms, places.tolist())]
    parts = [waveform[start : start + samples] for waveform, start in zip(waveforms, starts)]
    return padded(parts, samples), torch.tensor([len(part) for part in parts])


def padded(waveforms: Sequence[np.ndarray], samples: int) -> Tensor:
    """Waveforms of at most so many samples as the rows of one tensor, (b, samples) float32, with zeros behind them.

    One operation copies all: copied one by one, each would wait for a thread that decodes to let go of Python's lock.
    """
    silence, pieces = torch.zeros(samples), []
    for waveform in waveforms:
        if not (waveform.dtype == np.float32 and waveform.flags.forc and waveform.flags.writeable):
            waveform = np.array(waveform, dtype=np.float32)
        pieces.append(torch.from_numpy(waveform))
        if len(waveform) < samples:
            pieces.append(silence[len(waveform):])
    return torch.cat(pieces).view(len(waveforms), samples)

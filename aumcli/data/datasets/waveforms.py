"""From a manifest's clips to batches of waveforms, in an order that depends on the seed and the epoch alone."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock

import numpy as np
import torch
from torch import Tensor

from aumcli.data.clips import Clip, Clips
from aumcli.data.datasets.clip_source import Crop, Decoded, Item, LongClip, decode_ahead
from aumcli.data.decoding.audio import audio_info, load_audio, open_audio
from aumcli.data.decoding.windows import LONG_CLIP_S
from aumcli.errors import AumError


def stream_seed(*keys: int) -> int:
    """A seed for one purpose, from the run's seed, the epoch, the step and the like: no state to save or restore."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)


class Waveforms:
    """Decoded clips, mono, at one sample rate; kept in memory while they fit.

    Args:
        clips: what to decode.
        sample_rate_hz: the rate to resample to.
        cache_mb: decoded clips are kept, up to this many megabytes; not those of more than LONG_CLIP_S.
    """

    def __init__(self, clips: Sequence[Clip], sample_rate_hz: int, cache_mb: int):
        self.clips, self.sample_rate_hz = Clips.of(clips), sample_rate_hz
        self._cache: dict[int, np.ndarray] = {}
        self._room, self._lock = cache_mb * 2**20, Lock()

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> np.ndarray | LongClip:
        """Decode clip `index`: (samples,) float32, unless it is long.

        Raises AumError, naming the file, where that fails.
        """
        if index in self._cache:
            return self._cache[index]
        path, start_s, stop_s = self.clips.slice_at(index)
        with open_audio(path, self.sample_rate_hz, start_s, stop_s) as (info, blocks):
            if info.duration_s > LONG_CLIP_S:
                return LongClip(path, start_s, stop_s, self.sample_rate_hz)
            first, *others = blocks
        waveform = np.concatenate([first, *others]) if others else first
        with self._lock:
            if waveform.nbytes <= self._room and index not in self._cache:
                self._cache[index] = waveform
                self._room -= waveform.nbytes
        return waveform

    def part(self, index: int, crop: Crop, place: float) -> np.ndarray:
        """Decode at most `crop.samples` of clip `index`, (samples,) float32; of a long clip nothing else is decoded."""
        clip = self[index]
        if isinstance(clip, np.ndarray):
            start = crop.start(len(clip), place, self.sample_rate_hz)
            return clip[start : start + crop.samples]
        begin_s = clip.start_s or 0.0
        stop_s = clip.stop_s or audio_info(clip.path).duration_s
        start = crop.start(math.ceil((stop_s - begin_s) * self.sample_rate_hz), place, self.sample_rate_hz)
        begin_s += start / self.sample_rate_hz
        stop_s = min(
            stop_s, begin_s + (crop.samples + 1) / self.sample_rate_hz
        )  # one more, for the rounding of both ends
        return load_audio(clip.path, self.sample_rate_hz, begin_s, stop_s)[0][: crop.samples]

    def batches(self, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[list[int]]:
        """See `epoch_batches`."""
        return epoch_batches(len(self), batch_size, seed, epoch, weights)

    def load(
        self,
        batches: Iterable[Sequence[Item]],
        workers: int,
        crop: Crop | None = None,
        seed: int | None = None,
        epoch: int | None = None,
    ) -> Iterator[list[Decoded]]:
        """See `ClipSource.load`; seed and epoch make no difference here. Long are clips of more than LONG_CLIP_S."""

        def decode(item: Item) -> Decoded:
            clip, place = item
            try:
                return self[clip] if crop is None else self.part(clip, crop, place)
            except AumError as error:
                return error

        return decode_ahead(batches, lambda batch: batch, decode, workers)

    def share(self, rank: int, size: int) -> "Waveforms":
        """Every size-th clip, from the rank-th on; the room for decoded clips is each one's own."""
        return Waveforms(self.clips[rank::size], self.sample_rate_hz, self._room // 2**20)


def epoch_batches(
    clips: int, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None
) -> list[list[int]]:
    """Shuffle clip indices into batches; the last one may be smaller.

    Args:
        clips: how many there are.
        batch_size: of all batches but the last.
        seed, epoch: decide the order.
        weights: draw as many clips with these probabilities (clips,), with replacement; None: each clip once.
    """
    random = np.random.default_rng(stream_seed(seed, epoch))
    order = random.permutation(clips) if weights is None else random.choice(clips, clips, p=weights)
    indices: list[int] = order.tolist()
    return [indices[i : i + batch_size] for i in range(0, clips, batch_size)]


def balanced_weights(clips: Sequence[Clip]) -> np.ndarray:
    """How likely each clip is drawn in balanced sampling: the sum over its labels of 1 / (count of the label + 0.01).

    Clips of no class count as a class.

    Returns:
        (clips,) float64, sum 1.

    Source: gen_weight_file.py in the AST authors' code.
    """
    label_sets = [clip.labels or ("",) for clip in clips]
    counts = Counter(label for labels in label_sets for label in labels)
    weights = np.array([sum(1 / (counts[label] + 0.01) for label in labels) for labels in label_sets])
    normalised: np.ndarray = weights / weights.sum()
    return normalised


def padded(waveforms: Sequence[np.ndarray], samples: int) -> Tensor:
    """Waveforms of at most `samples` samples as the rows of one tensor, (b, samples) float32, with zeros behind them.

    One operation copies all: copied one by one, each would wait for a thread that decodes to let go of Python's lock.
    """
    silence, pieces = torch.zeros(samples), []
    for waveform in waveforms:
        if not (waveform.dtype == np.float32 and waveform.flags.forc and waveform.flags.writeable):
            waveform = np.array(waveform, dtype=np.float32)
        pieces.append(torch.from_numpy(waveform))
        if len(waveform) < samples:
            pieces.append(silence[len(waveform) :])
    return torch.cat(pieces).view(len(waveforms), samples)

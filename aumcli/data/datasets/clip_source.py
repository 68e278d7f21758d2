"""What training and evaluation read clips from: sound files (`Waveforms`) or shards (`ShardStream`)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from aumcli.data.clips import Clips
from aumcli.data.decoding.audio import open_audio
from aumcli.data.decoding.windows import cut_windows
from aumcli.errors import AumError
from aumcli.utils.threads import default_workers, map_in_parts

EPIC_SOUNDS_CLIP_S = 10.0  # of a longer clip a crop of this length is drawn, whose beginning the model gets


@dataclass(frozen=True)
class Crop:
    """Which part of a clip is decoded where it is longer than `samples` (see `DataConfig.crop`)."""

    samples: int
    kind: str  # random, first or epic_sounds

    def start(self, length: int, place: float, sample_rate_hz: int) -> int:
        """First sample of the part of a clip of `length` samples; `place`, in [0, 1), chooses where there is a choice.

        Source: for epic_sounds get_start_end_idx in audio_loader_epicsounds.py, which draws a part of 10 s whose first
        frames are then taken.
        """
        if self.kind == "first":
            return 0
        if self.kind == "epic_sounds":
            return int(place * max(0, length - int(EPIC_SOUNDS_CLIP_S * sample_rate_hz)))
        return int(place * max(1, length - self.samples + 1))


@dataclass(frozen=True)
class LongClip:
    """A clip that is too long to be held in memory."""

    path: str
    start_s: float | None
    stop_s: float | None
    sample_rate_hz: int

    def windows(self, size: int, hop: int) -> Iterator[np.ndarray]:
        """Decode it window by window (see `cut_windows`)."""
        with open_audio(self.path, self.sample_rate_hz, self.start_s, self.stop_s) as (_, blocks):
            for _, window in cut_windows(blocks, size, hop):
                yield window


Item = tuple[int, float]  # a clip's index, and a number in [0, 1) that chooses the part to be decoded
Decoded = np.ndarray | LongClip | AumError


class ClipSource(Protocol):
    """Clips that are decoded batch by batch, in an order that depends on seed and epoch alone."""

    @property
    def clips(self) -> Clips:
        """The clips; batches hold their indices."""
        ...

    def __len__(self) -> int:
        """How many clips there are."""
        ...

    def share(self, rank: int, size: int) -> "ClipSource":
        """Every size-th clip, from the rank-th on."""
        ...

    def batches(self, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[list[int]]:
        """Shuffle clip indices into batches, the last of which may be smaller.

        Args:
            batch_size: of all batches but the last.
            seed, epoch: decide the order.
            weights: draw as many clips with these probabilities (clips,), with replacement; None: each clip once.
        """
        ...

    def load(
        self,
        batches: Iterable[Sequence[Item]],
        workers: int,
        crop: Crop | None = None,
        seed: int | None = None,
        epoch: int | None = None,
    ) -> Iterator[list[Decoded]]:
        """Decode batches in order, in threads, one batch ahead.

        Args:
            batches: what `batches` gave, or the rest of it, or shares of these; or all clips in order. A mixup partner
                is read with the batch, so shards need it to be of the same batch.
            workers: threads that decode; 0: see `default_workers`. The result doesn't depend on their number.
            crop: which part of a longer clip is kept; None: all of it.
            seed, epoch: those that `batches` was given; None: the clips are in order.

        Yields:
            For each clip its waveform, (samples,) float32, or why it can't be decoded; without `crop` a file may
            give a `LongClip`.

        Raises:
            AumError: a shard can't be read or is damaged.
        """
        ...


Read = TypeVar("Read")


def decode_ahead(
    batches: Iterable[Sequence[Item]],
    read: Callable[[Sequence[Item]], Sequence[Read]],
    decode: Callable[[Read], Decoded],
    workers: int,
) -> Iterator[list[Decoded]]:
    """Decode batches in order, one batch ahead of the caller.

    Args:
        batches: what to decode.
        read: makes of a batch what `decode` takes; called in one thread, in order.
        decode: is called in `workers` threads.
        workers: 0: see `default_workers`.
    """
    workers = workers or default_workers()
    with ThreadPoolExecutor(workers) as decoders, ThreadPoolExecutor(1) as reader:

        def submit(batch: Sequence[Item]) -> Iterator[Decoded]:
            return map_in_parts(decoders, workers, decode, read(batch))

        ahead: Future[Iterator[Decoded]] | None = None
        for batch in batches:
            current, ahead = ahead, reader.submit(submit, batch)
            if current is not None:
                yield list(current.result())
        if ahead is not None:
            yield list(ahead.result())

"""Clips streamed from shards, on disk or in object storage, in an order that depends on seed and epoch alone.

The order is known before anything is read: shards in random order, a few of them interleaved, then a shuffle buffer. So
training resumes in the middle of an epoch by reading without decoding, processes that share a batch agree on it, and
the number of workers changes nothing. In memory are the encoded sounds of the shuffle buffer and two decoded batches.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from aumcli.config import AugmentConfig, DataConfig
from aumcli.data.clips import Clips
from aumcli.data.datasets.clip_source import Crop, Decoded, Item, decode_ahead
from aumcli.data.datasets.shards import INDEX, Sample, Shard, ShardIndex, read_index, read_samples
from aumcli.data.datasets.waveforms import stream_seed
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.decoding.resample import resample
from aumcli.data.manifest import Manifest
from aumcli.data.splits import validation_subset
from aumcli.errors import AumError
from aumcli.utils.files import file_sha256
from aumcli.utils.text import counted, plural

INTERLEAVED_SHARDS = 4  # neighbours in one of them are not neighbours in training
MOST_LOST = 0.25  # share of the training clips that may be dropped because validation shards hold clips of their groups
FILES_CHECKED = 100  # of a corpus that has shards too: does any exist?
AGAIN = "write the shards again: aum prepare ... --shards"
ORDER_PURPOSE, SHUFFLE_PURPOSE = 1, 2


class ShardStream:
    """Clips in shards (see `ClipSource`).

    Args:
        index: of the shards.
        shards: those to read.
        clips: all of the manifest.
        chosen: which of them belong to this stream, (clips,) bool.
        sample_rate_hz: the rate to resample to.
        shuffle_buffer_clips: size of the shuffle buffer.
    """

    def __init__(
        self,
        index: ShardIndex,
        shards: Sequence[Shard],
        clips: Clips,
        chosen: np.ndarray,
        sample_rate_hz: int,
        shuffle_buffer_clips: int,
    ):
        self._index, self._all, self._rate, self._buffer = index, clips, sample_rate_hz, shuffle_buffer_clips
        self._rows = [np.array(shard.rows) for shard in shards]  # of the manifest, as the shard has them
        self._chosen = [chosen[rows] for rows in self._rows]
        self._shards = shards
        sizes = [int(each.sum()) for each in self._chosen]
        self._ends = np.cumsum(sizes)  # this stream's clips, shard after shard
        self.rows = np.concatenate([rows[each] for rows, each in zip(self._rows, self._chosen)])
        self.clips = clips.take(self.rows)

    def __len__(self) -> int:
        return len(self.clips)

    def share(self, rank: int, size: int) -> "ShardStream":
        """Every size-th clip, from the rank-th on."""
        chosen = np.zeros(len(self._all), dtype=bool)
        chosen[self.rows[rank::size]] = True
        return ShardStream(self._index, self._shards, self._all, chosen, self._rate, self._buffer)

    def batches(self, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None) -> list[list[int]]:
        """See `ClipSource.batches`."""
        order, random = (
            self._reading_order(seed, epoch),
            np.random.default_rng(stream_seed(seed, epoch, SHUFFLE_PURPOSE)),
        )
        if weights is not None:
            drawn = np.bincount(random.choice(len(self), len(self), p=weights), minlength=len(self))
            order = np.repeat(order, drawn[order])
        shuffled = _through_buffer(order, self._buffer, random)
        return [shuffled[i : i + batch_size] for i in range(0, len(shuffled), batch_size)]

    def load(
        self,
        batches: Iterable[Sequence[Item]],
        workers: int,
        crop: Crop | None = None,
        seed: int | None = None,
        epoch: int | None = None,
    ) -> Iterator[list[Decoded]]:
        """See `ClipSource.load`; what is read ahead of its batch is held undecoded."""
        batches = list(batches)
        indices = np.array([clip for batch in batches for clip, _ in batch], dtype=np.int64)
        left = np.bincount(indices, minlength=len(self))  # (clips,): how often each is still needed
        queues = [self._samples(shards, left) for shards in self._queues(seed, epoch)]
        samples = heapq.merge(*queues, key=lambda item: item[0])
        held: dict[int, Sample] = {}

        def read(batch: Sequence[Item]) -> list[tuple[Sample, float]]:
            for clip, _ in batch:
                while clip not in held:
                    _, number, sample = next(samples)
                    if left[number]:
                        held[number] = sample
            found = [(held[clip], place) for clip, place in batch]
            for clip, _ in batch:
                left[clip] -= 1
                if not left[clip]:
                    del held[clip]
            return found

        def decode(item: tuple[Sample, float]) -> np.ndarray | AumError:
            sample, place = item
            waveform = self._decode(sample)
            if crop is None or isinstance(waveform, AumError):
                return waveform
            start = crop.start(len(waveform), place, self._rate)
            return waveform[start : start + crop.samples].copy()  # the rest must not stay in memory

        return decode_ahead(batches, read, decode, workers)

    def _queues(self, seed: int | None, epoch: int | None) -> list[list[int]]:
        """Shards in reading order, in one queue for each shard that is open at a time; queues are interleaved."""
        if seed is None or epoch is None:
            return [[*range(len(self._shards))]]
        order = np.random.default_rng(stream_seed(seed, epoch, ORDER_PURPOSE)).permutation(len(self._shards)).tolist()
        return [order[queue::INTERLEAVED_SHARDS] for queue in range(INTERLEAVED_SHARDS)]

    def _clips_in(self, shards: Sequence[int]) -> np.ndarray:
        """Indices of this stream's clips in some shards, one shard after the other."""
        return np.concatenate(
            [np.arange(self._ends[i] - self._chosen[i].sum(), self._ends[i]) for i in shards] or [np.empty(0, int)]
        )

    def _reading_order(self, seed: int, epoch: int) -> np.ndarray:
        """Indices of all clips as `heapq.merge` orders the queues: the first of each queue, the second of each, ..."""
        queues = [self._clips_in(shards) for shards in self._queues(seed, epoch)]
        positions = np.concatenate([np.arange(len(queue)) for queue in queues])
        return np.concatenate(queues)[np.argsort(positions, kind="stable")]

    def _samples(self, shards: Sequence[int], left: np.ndarray) -> Iterator[tuple[int, int, Sample]]:
        """Position in the queue, clip and sample of the clips in some shards; only needed shards are opened."""
        position = 0
        for i in shards:
            first, count = int(self._ends[i] - self._chosen[i].sum()), int(self._chosen[i].sum())
            if left[first : first + count].any():
                yield from self._samples_of_shard(i, first, position)
            position += count

    def _samples_of_shard(self, i: int, clip: int, position: int) -> Iterator[tuple[int, int, Sample]]:
        shard, url = self._shards[i], self._index.url(self._shards[i])
        for place, sample in enumerate(read_samples(url, shard.sha256)):
            if place >= len(self._rows[i]) or sample.row != self._rows[i][place]:
                raise AumError(f"{url} has other clips than the index says", fix=AGAIN, exit_code=1)
            if self._chosen[i][place]:
                yield position, clip, sample
                position, clip = position + 1, clip + 1

    def _decode(self, sample: Sample) -> np.ndarray | AumError:
        try:
            _, waveform, rate_hz = sample.decoded()
            return resample(waveform, rate_hz, self._rate)
        except AumError as error:
            return error


def _through_buffer(order: np.ndarray, size: int, random: np.random.Generator) -> list[int]:
    """What a shuffle buffer makes of an order: for each clip that enters the full buffer, a random one leaves it."""
    held, rest = order[:size].tolist(), order[size:].tolist()
    given: list[int] = []
    for clip, place in zip(rest, random.integers(0, max(1, len(held)), len(rest)).tolist()):
        given.append(held[place])
        held[place] = clip
    given += random.permutation(np.array(held, dtype=np.int64)).tolist()
    return given


def index_of_shards(manifest: Manifest) -> ShardIndex | None:
    """The shards to train from, where a prepared folder has them and no sound files.

    Raises:
        AumError: the shards are not those of the manifest, or some are missing.
    """
    some = manifest.clips.take(
        np.linspace(0, len(manifest.clips) - 1, min(FILES_CHECKED, len(manifest.clips))).astype(int)
    )
    if not (manifest.folder / INDEX).exists() or any(split_dataset(clip.path)[0].exists() for clip in some):
        return None
    index = read_index(manifest.folder)
    if index.manifest_sha256 != file_sha256(manifest.folder / "manifest.csv"):
        raise AumError(f"the shards in {manifest.folder} were made from another manifest.csv", fix=AGAIN)
    missing = [shard.name for shard in index.shards if "://" not in index.base and not Path(index.url(shard)).is_file()]
    if missing:
        are = plural(len(missing), "is", "are")
        raise AumError(
            f"{len(missing)} of {counted(len(index.shards), 'shard')} {are} missing in {index.base}: "
            f"{', '.join(missing[:5])}",
            fix=f"copy them there, or {AGAIN}",
            exit_code=1,
        )
    return index


def shard_streams(
    manifest: Manifest, index: ShardIndex, config: DataConfig, augment: AugmentConfig, sample_rate_hz: int
) -> tuple[ShardStream, ShardStream]:
    """Clips to train on and clips that choose the best epoch, streamed from shards.

    A share of the training split to validate on is made of its last shards, each of which is a random sample of the
    split; other clips of the same groups are not trained on. Where that would cost a quarter of the training clips
    (EPIC-SOUNDS, whose videos have a hundred clips each), both streams read all training shards, and groups are shared
    out instead.

    Args:
        manifest: the prepared corpus.
        index: of its shards.
        config: which clips serve for what, and the size of the shuffle buffer.
        augment: mixup and mixup_partners are read.
        sample_rate_hz: the rate to resample to.

    Raises:
        AumError: the configuration needs what shards can't give, or a split has too few shards.
    """
    if config.infer or config.test_group:
        what = "measures " + ", ".join(config.infer) if config.infer else f"tests on the group {config.test_group}"
        raise AumError(
            f"the recipe {what}, which needs the sound files, and {manifest.folder} has shards only",
            fix="choose a recipe with a pinned frontend: --set data.infer=[] --set frontend.frames=...; "
            "or prepare the files",
        )
    if augment.mixup and augment.mixup_partners == "corpus":
        raise AumError(
            "the recipe mixes clips with any of the training clips, and shards are read one after the other",
            fix="mix clips of a batch: --set augment.mixup_partners=batch; or train on the sound files",
        )
    train, val = ([shard for shard in index.shards if shard.split == name] for name in (config.train, config.val))
    if config.val_fraction:
        count = int(np.ceil(config.val_fraction * len(train)))
        train, val = train[:-count], train[-count:]
    if not train or not val:
        lacks = (
            f"too few shards of {config.train} for a share to validate on"
            if config.val_fraction
            else f"no shards of {config.val if train else config.train}; it has {', '.join(index.splits)}"
        )
        raise AumError(
            f"{manifest.folder} has {lacks}",
            fix="prepare it with a validation split: --set val=5, then train with --set data.val_fraction=0",
        )
    in_val = _rows(manifest, val)
    in_train = ~in_val
    if config.val_fraction:
        groups = set(manifest.clips.take(np.flatnonzero(in_val)).columns()["group"]) - {""}
        in_train &= np.array([group not in groups for group in manifest.clips.columns()["group"]], dtype=bool)
        trained = _rows(manifest, train)
        if (trained & ~in_train).sum() > MOST_LOST * trained.sum():
            train = val = [*train, *val]
            rows = np.flatnonzero(_rows(manifest, train))
            in_val[rows] = validation_subset(manifest.clips.take(rows), config.val_fraction)
            in_train = ~in_val
        if not in_val.any():
            raise AumError(
                f"the split {config.train!r} of {manifest.folder} is one group: "
                "no share of it can be kept out of training",
                fix="prepare it with a validation split, then train with --set data.val_fraction=0",
            )
    size = config.shuffle_buffer_clips
    return (
        ShardStream(index, train, manifest.clips, in_train, sample_rate_hz, size),
        ShardStream(index, val, manifest.clips, in_val, sample_rate_hz, size),
    )


def _rows(manifest: Manifest, shards: Sequence[Shard]) -> np.ndarray:
    """Which of the manifest's clips lie in some shards: (clips,) bool."""
    found = np.zeros(len(manifest.clips), dtype=bool)
    found[[row for shard in shards for row in shard.rows]] = True
    return found


def split_stream(manifest: Manifest, index: ShardIndex, split: str, sample_rate_hz: int) -> ShardStream:
    """The clips of one split, streamed from shards; `rows` says which of the manifest's they are.

    Raises:
        AumError: there are no shards of it.
    """
    shards = [shard for shard in index.shards if shard.split == split]
    if not shards:
        raise AumError(
            f"{manifest.folder} has no shards of {split!r}; it has {', '.join(index.splits)}", fix="name one of those"
        )
    return ShardStream(index, shards, manifest.clips, np.ones(len(manifest.clips), dtype=bool), sample_rate_hz, 1)

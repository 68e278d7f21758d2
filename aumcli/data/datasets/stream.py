"""Training from shards: clips in an order that depends on seed and epoch alone,
read from disk or object storage as they come.

The order is known before anything is read: shards in random order, a few of them in turn, then a shuffle buffer. So a
run goes on in the middle of an epoch by reading without decoding, processes that share a batch agree on it, and the
number of workers changes nothing. In memory are the undecoded sounds of the shuffle buffer and two decoded batches.
"""

import heapq
import json
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from aumcli.data.clips import Clips
from aumcli.data.datasets.shards import INDEX, Sample, Shard, ShardIndex, read_index, read_samples
from aumcli.data.datasets.waveforms import Crop, Decoded, Item, stream_seed
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.decoding.resample import resample
from aumcli.data.manifest import Manifest
from aumcli.data.share import validation_subset
from aumcli.errors import AumError
from aumcli.recipe import Recipe
from aumcli.utils.download import TIMEOUT_S, digest, download
from aumcli.utils.files import write_json
from aumcli.utils.text import counted, plural
from aumcli.utils.threads import default_workers, map_in_parts

LANES = 4  # shards that are read in turn: neighbours in one of them are not neighbours in training
MOST_LOST = 0.25  # of the training clips, to share no group with a validation share made of whole shards
LOOKED_FOR = 100  # sound files of a corpus that has shards too
AGAIN = "write the shards again: aum prepare ... --shards"
ORDER_PURPOSE, SHUFFLE_PURPOSE = 1, 2


class ShardStream:
    """Clips in shards; takes the place of `aumcli.data.datasets.waveforms.Waveforms`.

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
        """Shuffle clip indices into batches; see `aumcli.data.datasets.waveforms.epoch_batches` for the arguments."""
        order, random = self._reading(seed, epoch), np.random.default_rng(stream_seed(seed, epoch, SHUFFLE_PURPOSE))
        if weights is not None:
            drawn = np.bincount(random.choice(len(self), len(self), p=weights), minlength=len(self))
            order = np.repeat(order, drawn[order])
        order = _through_buffer(order, self._buffer, random)
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]

    def load(
        self, batches: Iterable[Sequence[Item]], workers: int, crop: Crop | None = None, *key: int
    ) -> Iterator[list[Decoded]]:
        """Read and decode batches, in threads, one ahead.

        Args:
            batches: clips, and the numbers that choose their parts: `batches(...)` or its end, or shares of these; or
                all in order. A clip is read when its batch is, so what it is mixed with must be of the same batch.
            workers: threads that decode; 0: see `default_workers`. The result doesn't depend on their number.
            crop: which part of a longer clip is kept; None: all of it.
            key: seed and epoch of the batches; nothing for clips in order.

        Yields:
            For each clip its waveform, or why it can't be decoded.

        Raises:
            AumError: a shard can't be read or is damaged.
        """
        batches = list(batches)
        left = np.bincount(
            np.array([clip for batch in batches for clip, _ in batch], dtype=np.int64), minlength=len(self)
        )
        lanes = [self._lane(lane, left) for lane in self._lanes(*key)]
        stream, held = heapq.merge(*lanes, key=lambda item: item[0]), {}

        def decoded(item: tuple[Sample, float]) -> Decoded:
            sample, place = item
            waveform = self._decode(sample)
            if crop is None or isinstance(waveform, AumError):
                return waveform
            start = crop.start(len(waveform), place, self._rate)
            return waveform[start : start + crop.samples].copy()  # the rest must not stay in memory

        def read(batch: Sequence[Item]) -> list[Decoded]:
            for clip, _ in batch:
                while clip not in held:
                    _, number, sample = next(stream)
                    if left[number]:
                        held[number] = sample
            samples = [(held[clip], place) for clip, place in batch]
            for clip, _ in batch:
                left[clip] -= 1
                if not left[clip]:
                    del held[clip]
            return list(map_in_parts(threads, workers, decoded, samples))

        workers = workers or default_workers()
        with ThreadPoolExecutor(workers) as threads, ThreadPoolExecutor(1) as reader:
            ahead = None
            for batch in [*batches, None]:
                here, ahead = ahead, None if batch is None else reader.submit(read, batch)
                if here is not None:
                    yield here.result()

    def _lanes(self, *key: int) -> list[list[int]]:
        """Which shards are read one after the other, in each of the lanes that take turns."""
        if not key:
            return [[*range(len(self._shards))]]
        order = np.random.default_rng(stream_seed(*key, ORDER_PURPOSE)).permutation(len(self._shards)).tolist()
        return [order[lane::LANES] for lane in range(LANES)]

    def _spans(self, shards: Sequence[int]) -> np.ndarray:
        """This stream's clips in some shards, one after the other."""
        return np.concatenate(
            [np.arange(self._ends[i] - self._chosen[i].sum(), self._ends[i]) for i in shards] or [np.empty(0, int)]
        )

    def _reading(self, seed: int, epoch: int) -> np.ndarray:
        """All clips in the order in which the lanes give them: as `heapq.merge` takes them,
        by turn and then by lane.
        """
        lanes = [self._spans(shards) for shards in self._lanes(seed, epoch)]
        turns = np.concatenate([np.arange(len(lane)) for lane in lanes])
        return np.concatenate(lanes)[np.argsort(turns, kind="stable")]

    def _lane(self, shards: Sequence[int], left: np.ndarray) -> Iterator[tuple[int, int, Sample]]:
        """Turn, clip and sample of the clips in some shards; those of which nothing is needed are not opened."""
        turn = 0
        for i in shards:
            first, count = int(self._ends[i] - self._chosen[i].sum()), int(self._chosen[i].sum())
            if left[first : first + count].any():
                yield from self._shard(i, first, turn)
            turn += count

    def _shard(self, i: int, number: int, turn: int) -> Iterator[tuple[int, int, Sample]]:
        shard, url = self._shards[i], self._index.url(self._shards[i])
        for place, sample in enumerate(read_samples(url, shard.sha256)):
            if place >= len(self._rows[i]) or sample.row != self._rows[i][place]:
                raise AumError(f"{url} has other clips than the index says", fix=AGAIN, exit_code=1)
            if self._chosen[i][place]:
                yield turn, number, sample
                turn, number = turn + 1, number + 1

    def _decode(self, sample: Sample) -> np.ndarray | AumError:
        try:
            _, waveform, rate_hz = sample.decoded()
            return resample(waveform, rate_hz, self._rate)
        except AumError as error:
            return error


def _through_buffer(order: np.ndarray, size: int, random: np.random.Generator) -> list[int]:
    """The order in which a shuffle buffer gives clips out that come in `order`: at random,
    one for each that comes in.
    """
    held, rest = order[:size].tolist(), order[size:].tolist()
    given = []
    for clip, place in zip(rest, random.integers(0, max(1, len(held)), len(rest)).tolist()):
        given.append(held[place])
        held[place] = clip
    return given + random.permutation(np.array(held, dtype=np.int64)).tolist()


def index_of_shards(manifest: Manifest) -> ShardIndex | None:
    """The shards to train from, where a prepared folder has them and not the sounds themselves.

    Raises:
        AumError: the shards are not those of the manifest, or some are missing.
    """
    some = manifest.clips.take(
        np.linspace(0, len(manifest.clips) - 1, min(LOOKED_FOR, len(manifest.clips))).astype(int)
    )
    if not (manifest.folder / INDEX).exists() or any(split_dataset(clip.path)[0].exists() for clip in some):
        return None
    index = read_index(manifest.folder)
    if index.manifest_sha256 != digest(manifest.folder / "manifest.csv"):
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


def shard_streams(manifest: Manifest, recipe: Recipe, index: ShardIndex) -> tuple[ShardStream, ShardStream]:
    """Clips to train on and clips that choose the best epoch, streamed from shards.

    A validation share is made of the last training shards, each of which is a fair part of the split; other clips of
    the same groups are not trained on. Where that would cost a quarter of the training clips (EPIC-SOUNDS, whose videos
    have a hundred clips each), both streams read all training shards, and the share is made of whole groups.

    Raises:
        AumError: the recipe wants what shards can't give, or a split has too few shards.
    """
    config = recipe.data
    if config.infer or config.test_group:
        what = "measures " + ", ".join(config.infer) if config.infer else f"holds out {config.test_group}"
        raise AumError(
            f"the recipe {what}, which needs the sound files, and {manifest.folder} has shards only",
            fix="choose a recipe with a pinned frontend: --set data.infer=[] --set frontend.frames=...; "
            "or prepare the files",
        )
    if recipe.augment.mixup and recipe.augment.mixup_partners == "corpus":
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
    rate, size = recipe.frontend.sample_rate_hz, config.shuffle_buffer_clips
    return (
        ShardStream(index, train, manifest.clips, in_train, rate, size),
        ShardStream(index, val, manifest.clips, in_val, rate, size),
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


def local_folder(data: Path | str) -> Path:
    """A prepared folder; of the URL of shards data/NAME (see `fetch_corpus`)."""
    return fetch_corpus(str(data)) if "://" in str(data) else Path(data)


def fetch_corpus(url: str) -> Path:
    """Fetch what describes a corpus whose shards lie elsewhere: labels.csv, manifest.csv and the index, into data/NAME.

    Args:
        url: of shards.json, or of the folder that it lies in; the tables lie one folder higher.

    Returns:
        data/NAME, NAME being the name of the folder of the tables.

    Raises:
        AumError: something can't be fetched, or the manifest is not the one that the shards were made from.
    """
    base = url.rstrip("/").removesuffix("/shards.json")
    above = base.removesuffix("/shards")
    folder = Path("data") / above.rpartition("/")[2]
    index = read_index(base)
    if not (folder / "manifest.csv").exists() or digest(folder / "manifest.csv") != index.manifest_sha256:
        download(f"{above}/labels.csv", folder / "labels.csv")
        download(f"{above}/manifest.csv", folder / "manifest.csv", sha256=index.manifest_sha256)
    with urllib.request.urlopen(f"{base}/shards.json", timeout=TIMEOUT_S) as answer:
        write_json(folder / INDEX, {**json.load(answer), "base": base})
    return folder

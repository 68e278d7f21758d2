"""Shards: a prepared corpus as tar files that training streams from disk or object storage, in WebDataset's format.

Layout, below the prepared folder:

    shards/shards.json          the index, written last
    shards/train-000000.tar     at most 4096 clips and about 256 MiB each
    shards/train-000001.tar
    shards/val-000000.tar       each split has shards of its own

A sample of a shard is two members that follow one another, `KEY.json` and `KEY.SUFFIX`. KEY is nine digits, the clip's
row in manifest.csv counted from 0. Rows of a split are shuffled once (by the corpus's seed), so any shard is a random
sample of its split.

- `KEY.SUFFIX`: the sound. The clip's own file, byte for byte, where the clip is a whole file that libsndfile reads
  (wav, flac, ogg, mp3, ...); of a slice, one channel, or a sound in an HDF5 file, its mono samples as .flac, or as .wav
  (32-bit float) where FLAC's 24 bits would change them. Either way decoding gives the samples that
  `aumcli.data.decoding.audio.load_audio` gives, to the bit.
- `KEY.json`: {"labels": [ids], "split", "group", "path", "start_s", "stop_s", "sample_rate_hz", "sha256"}; path, start
  and stop tell where the sound was taken from; sha256 is that of the sound's member.

shards.json: {"format": 1, "manifest_sha256", "labels": [ids by index], "splits": {split: clips},
"sample_rates_hz": {rate: clips}, "shards": [{"name", "split", "clips", "bytes", "sha256",
"sample_rates_hz": {rate: clips}, "rows": [rows of manifest.csv]}, ...]}, shards and rows in reading order; where the
shards lie elsewhere than the index, also "base", the URL of their folder. manifest_sha256 is the digest of the
manifest.csv that they were made from: with another one beside them they are out of date.
"""

import hashlib
import importlib
import io
import json
import re
import tarfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO

import numpy as np
import soundfile

from aumcli.data.clips import Clip, Clips, clip_key
from aumcli.data.decoding.audio import READABLE_SUFFIXES, audio_info, decode_audio, file_content, load_audio
from aumcli.data.decoding.hdf5 import split_dataset
from aumcli.data.labels import Label
from aumcli.errors import AumError
from aumcli.utils.download import TIMEOUT_S, check_space, forget_members, member_content
from aumcli.utils.files import atomic_path, file_sha256, write_json
from aumcli.utils.journal import Journal
from aumcli.utils.progress import progress

INDEX = "shards/shards.json"
SHARD_CLIPS, SHARD_BYTES = 4096, 2**28
BATCH_CLIPS = 256  # sounds that are in memory at a time
BLOCK_BYTES = 2**20
_URL = re.compile(r"https?://")


@dataclass(frozen=True)
class Shard:
    """An entry of shards.json: name is relative to the index."""

    name: str
    split: str
    clips: int
    bytes: int
    sha256: str
    sample_rates_hz: dict[str, int] = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)  # of the manifest, in the shard's order


@dataclass(frozen=True)
class Sample:
    """A clip as a shard holds it.

    Its row in the manifest, what to call it, its description and its sound, both encoded.
    """

    row: int
    name: str
    about: bytes
    sound: bytes

    def decoded(self) -> tuple[Clip, np.ndarray, int]:
        """See `read_shard`."""
        return _decoded(self.name, self.about, self.sound)


@dataclass(frozen=True)
class ShardIndex:
    """shards.json, as `read_index` gives it; `base` is the folder or URL that shard names are relative to."""

    base: str
    labels: list[str]
    splits: dict[str, int]
    shards: list[Shard]
    manifest_sha256: str

    def url(self, shard: Shard) -> str:
        """The path or URL of a shard, for `read_shard`."""
        return f"{self.base}/{shard.name}"


def write_shards(
    folder: Path, clips: Clips, labels: Sequence[Label], seed: int, workers: int, journal: Journal
) -> ShardIndex:
    """Write the clips of a prepared corpus as shards; those that an interrupted call has finished are kept.

    Args:
        folder: holds manifest.csv, whose rows are `clips`.
        clips: opened and found good.
        labels: the classes.
        seed: shuffles each split.
        workers: threads that read sounds.
        journal: records which shards are finished.

    Returns:
        The index, as it was written.

    Raises:
        AumError: webdataset is not installed, a clip can't be read, or the disk is full.
    """
    _webdataset()
    index = folder / INDEX
    index.unlink(missing_ok=True)
    shards: list[Shard] = []
    with ThreadPoolExecutor(workers) as threads:
        for split in clips.splits:
            if not re.fullmatch(r"[\w.-]+", split, re.ASCII):
                raise AumError(
                    f"split {split!r} can't be part of a file's name", fix="name it with letters, digits, - and _"
                )
            rows = np.flatnonzero(clips.is_of_split(split))
            order = np.random.default_rng([seed, *split.encode()]).permutation(rows)  # (clips of the split,)
            shards += _write_split(folder, clips, split, order, threads, journal)
    counts = {split: len(clips.of_split(split)) for split in clips.splits}
    written = ShardIndex(
        str(index.parent), [label.id for label in labels], counts, shards, file_sha256(folder / "manifest.csv")
    )
    for path in index.parent.glob("*.tar"):
        if path.name not in {shard.name for shard in shards}:
            path.unlink()  # of an earlier, longer manifest
    rates = sum((Counter(shard.sample_rates_hz) for shard in shards), Counter())
    content = {key: value for key, value in asdict(written).items() if key != "base"}
    write_json(index, {"format": 1, "sample_rates_hz": dict(sorted(rates.items())), **content})
    return written


def _write_split(
    folder: Path, clips: Clips, split: str, order: np.ndarray, threads: ThreadPoolExecutor, journal: Journal
) -> Iterator[Shard]:
    """Write the shards of one split, one after the other; `order` is that of its rows."""
    identity = hashlib.sha256("\n".join(map(clip_key, clips.take(order))).encode() + order.tobytes())
    first, number = 0, 0
    bar = iter(progress(order, f"sharding {split}", len(order)))
    while first < len(order):
        path = folder / "shards" / f"{split}-{number:06d}.tar"
        key = f"shard|{path}|{first}|{identity.hexdigest()}"
        stored = journal.get([key])[0]
        shard = Shard(**stored) if isinstance(stored, dict) else None
        if shard is None or not path.is_file() or path.stat().st_size != shard.bytes:
            shard = _write_shard(path, split, clips, order[first:], threads)
            journal.put([(key, asdict(shard))])
        yield shard
        first, number = first + shard.clips, number + 1
        for _ in range(shard.clips):
            next(bar, None)
    next(bar, None)


def _write_shard(path: Path, split: str, clips: Clips, order: np.ndarray, threads: ThreadPoolExecutor) -> Shard:
    """Write as many of the clips as one shard holds."""
    count, size = 0, 0
    rates: Counter[str] = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    check_space(path.parent, SHARD_BYTES, f"writing {path.name}")
    with atomic_path(path) as temporary:
        with open(temporary, "wb") as file, _webdataset().TarWriter(file, encoder=False, mtime=0) as tar:
            while count < min(len(order), SHARD_CLIPS) and size < SHARD_BYTES:
                rows = order[count : min(count + BATCH_CLIPS, SHARD_CLIPS)]
                for row, (suffix, sound, described) in zip(rows, threads.map(encode_clip, clips.take(rows))):
                    about = json.dumps(described, ensure_ascii=False).encode("utf-8", "backslashreplace")
                    size += tar.write({"__key__": f"{row:09d}", "json": about, suffix: sound})
                    rates[str(described["sample_rate_hz"])] += 1
                    count += 1
                    if size >= SHARD_BYTES:
                        break
        shard = Shard(
            path.name,
            split,
            count,
            temporary.stat().st_size,
            file_sha256(temporary),
            dict(sorted(rates.items())),
            order[:count].tolist(),
        )
    return shard


def encode_clip(clip: Clip) -> tuple[str, bytes, dict[str, object]]:
    """Turn a clip into what a shard holds of it.

    Args:
        clip: a file or a slice of it.

    Returns:
        The suffix without its dot, the sound's bytes, and the description (see the module).

    Raises:
        AumError: the clip can't be read.
    """
    suffix, sound = split_dataset(clip.path)[0].suffix.lower(), None
    if (
        clip.start_s is None
        and clip.stop_s is None
        and split_dataset(clip.path)[1] is None
        and suffix in READABLE_SUFFIXES
    ):
        rate_hz = audio_info(clip.path).sample_rate_hz
        suffix, sound = suffix[1:], file_content(clip.path)
    if sound is None:
        waveform, rate_hz = load_audio(clip.path, None, clip.start_s, clip.stop_s)  # (samples,)
        suffix, sound = _exact(waveform, rate_hz)
    return (
        suffix,
        sound,
        {
            "labels": clip.labels,
            "split": clip.split,
            "group": clip.group,
            "path": clip.path.as_posix(),
            "start_s": clip.start_s,
            "stop_s": clip.stop_s,
            "sample_rate_hz": rate_hz,
            "sha256": hashlib.sha256(sound).hexdigest(),
        },
    )


def _exact(waveform: np.ndarray, rate_hz: int) -> tuple[str, bytes]:
    """Suffix and bytes of the smallest kind of file that holds these samples exactly."""
    buffer = io.BytesIO()
    for bits, dtype, shift in ((16, np.int16, 0), (24, np.int32, 8)):
        scaled = waveform.astype(np.float64) * 2 ** (bits - 1)  # (samples,)
        if (scaled == np.round(scaled)).all() and scaled.max() < 2 ** (bits - 1) and scaled.min() >= -(2 ** (bits - 1)):
            soundfile.write(buffer, scaled.astype(dtype) << shift, rate_hz, f"PCM_{bits}", format="FLAC")
            return "flac", buffer.getvalue()
    soundfile.write(buffer, waveform, rate_hz, "FLOAT", format="WAV")
    return "wav", buffer.getvalue()


def read_index(source: Path | str) -> ShardIndex:
    """Read shards.json.

    Args:
        source: a prepared folder, its `shards` folder, shards.json itself, or the URL of one of the latter two.

    Returns:
        The index.

    Raises:
        AumError: there is none, or it is damaged.
    """
    text = str(source).rstrip("/")
    if not text.endswith(".json"):
        text += "/shards.json" if _URL.match(text) or text.endswith("shards") else f"/{INDEX}"
    try:
        with _opened(text) as file:
            values = json.load(file)
        return ShardIndex(
            values.get("base", text.rpartition("/")[0]),
            values["labels"],
            values["splits"],
            [Shard(**each) for each in values["shards"]],
            values["manifest_sha256"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise AumError(
            f"{text} is no index of shards: {error}", fix="write it again: aum prepare ... --shards"
        ) from error


def read_shard(source: Path | str, start: int = 0, sha256: str | None = None) -> Iterator[tuple[Clip, np.ndarray, int]]:
    """Stream the clips of a shard; never more than one is in memory.

    Args:
        source: path or http(s) URL of a shard.
        start: clips that are skipped first, without being decoded.
        sha256: the shard's digest from the index. With it a shard that was cut or changed is an error when its end is
            reached; each clip's own digest is checked before it is given, with or without.

    Yields:
        The clip (its path tells where the sound came from), its waveform, (samples,) float32 mono, and the rate in Hz.

    Raises:
        AumError: the shard can't be read or is not what was written.
    """
    for number, sample in enumerate(read_samples(source, sha256)):
        if number >= start:
            yield sample.decoded()


def read_samples(source: Path | str, sha256: str | None = None) -> Iterator[Sample]:
    """Stream what a shard holds without decoding it; see `read_shard`."""
    with _opened(str(source)) as file:
        hashed = _Hashed(file)
        try:
            with tarfile.open(fileobj=hashed, mode="r|", bufsize=BLOCK_BYTES) as tar:
                for key, about, suffix, sound in _samples(tar, source):
                    if not key.isdecimal():
                        raise _changed(source, f"{key}.{suffix} has no row as its name")
                    yield Sample(int(key), f"{source}/{key}.{suffix}", about, sound)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise _changed(source, str(error)) from error
        while hashed.read(BLOCK_BYTES):
            pass
    if sha256 is not None and hashed.hash.hexdigest() != sha256:
        raise _changed(source, "its SHA-256 is not the one in the index")


def _samples(tar: tarfile.TarFile, source: Path | str) -> Iterator[tuple[str, bytes, str, bytes]]:
    """Key, description, suffix and sound of each sample."""
    before: tuple[str, str, bytes] | None = None
    for member in tar:
        path = PurePosixPath(member.name)
        here = (path.stem, path.suffix[1:], member_content(tar, member).read()) if member.isreg() else None
        forget_members(tar)
        if here is None:
            raise _changed(source, f"{member.name} is no file")
        if before is None:
            before = here
            continue
        (key, *_), kinds = here, {before[1]: before[2], here[1]: here[2]}
        if before[0] != key or "json" not in kinds or len(kinds) != 2:
            raise _changed(source, f"{before[0]}.{before[1]} and {member.name} are no sample")
        about = kinds.pop("json")
        yield key, about, *kinds.popitem()
        before = None
    if before is not None:
        raise _changed(source, f"it ends behind {before[0]}.{before[1]}")


def _decoded(name: str, about: bytes, sound: bytes) -> tuple[Clip, np.ndarray, int]:
    try:
        values = json.loads(about)
        clip = Clip(
            Path(values["path"]),
            values["start_s"],
            values["stop_s"],
            tuple(values["labels"]),
            values["split"],
            values["group"],
        )
        expected = values["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise _changed(name, f"its description is damaged ({error})") from error
    if hashlib.sha256(sound).hexdigest() != expected:
        raise _changed(name, "its SHA-256 is not the one in its description")
    waveform, rate_hz = decode_audio(sound, name)
    return clip, waveform, rate_hz


class _Hashed(io.RawIOBase):
    """A file that is read once, from beginning to end, and whose digest is then known."""

    def __init__(self, file: IO[bytes]):
        self._file, self.hash = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


def _opened(source: str) -> IO[bytes]:
    try:
        if not _URL.match(source):
            return open(source, "rb")
        response: IO[bytes] = urllib.request.urlopen(source, timeout=TIMEOUT_S)
        return response
    except (urllib.error.URLError, OSError) as error:
        raise AumError(
            f"can't read {source}: {getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error}",
            fix="check path and network; shards are written by aum prepare ... --shards",
            exit_code=1,
        ) from error


def _changed(source: Path | str, problem: str) -> AumError:
    return AumError(
        f"{source} is damaged: {problem}", fix="copy it again, or write it again: aum prepare ... --shards", exit_code=1
    )


def _webdataset() -> ModuleType:
    try:
        return importlib.import_module("webdataset")
    except ImportError as error:
        raise AumError("writing shards needs the package webdataset", fix="pip install 'aumcli[data]'") from error

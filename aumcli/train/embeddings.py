"""A frozen network's embeddings: every clip is encoded once and kept on disk; only the head is trained, on these.

What is kept is found again by what it was made of: the network's weights, the frontend, a clip's samples, and the
augmentation of a view. So a second training of the same clips, or of some more, encodes what is new.
"""

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from aumcli.classifier import BATCH_WINDOWS, Classifier
from aumcli.config import AugmentConfig
from aumcli.core.network import SpectrogramNetwork
from aumcli.data.datasets.batch import crop_samples, make_batch
from aumcli.data.datasets.clip_source import ClipSource, Crop
from aumcli.data.datasets.waveforms import stream_seed
from aumcli.errors import AumError
from aumcli.evaluate import BATCH_CLIPS, clip_place, decoded_clips
from aumcli.recipe import Recipe
from aumcli.train.optim import HEADS
from aumcli.train.setup import TrainState
from aumcli.train.signals import StopSignal
from aumcli.utils.journal import Journal
from aumcli.utils.lock import LockTaken
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted

T = TypeVar("T")
FOLDER = "embeddings"  # below the data's, or the run's where that can't be written
VERSION = 1  # of how clips are decoded, augmented and encoded
WAIT_S = 1.0  # between two looks at whether another training has ended

logger = get_logger(__name__)


@dataclass(frozen=True)
class Embeddings:
    """What the head is trained and validated on.

    Attributes:
        train: of each view of each training clip, (views, clips, d); NaN where a clip could not be read. The first view
            is the clip as it is.
        val: of the windows of this process' validation clips, (windows, d).
        val_clips: index of the clip that each of these belongs to, (windows,) int64.
        n_val: this process' validation clips; there may be none.
    """

    train: Tensor
    val: Tensor
    val_clips: np.ndarray
    n_val: int

    def view(self, epoch: int, clips: Sequence[int]) -> Tensor:
        """Embeddings of training clips in an epoch, (b, d): the views take turns."""
        return self.train[epoch % len(self.train), torch.as_tensor(clips)]

    def validation_scores(self, classifier: Classifier, highest: bool = False) -> np.ndarray:
        """Scores of this process' validation clips, (clips, classes) float32: mean or highest of a clip's windows."""
        windows = classifier.head_scores(self.val)
        totals = np.zeros((self.n_val, windows.shape[1]))
        (np.maximum if highest else np.add).at(totals, self.val_clips, windows)
        if not highest:
            totals /= np.bincount(self.val_clips, minlength=self.n_val)[:, None]
        return totals.astype(np.float32)


class _Item(NamedTuple):
    """A waveform to be encoded: of which clip, and its view; 0: as it is."""

    clip: int
    waveform: np.ndarray
    view: int = 0


def check_frozen(recipe: Recipe, minutes: float | None = None) -> None:
    """Refuse settings that a frozen network's embeddings don't go with.

    Raises:
        AumError: an augmentation can't be kept, or nothing would use it; or there is none to make views by.
    """
    augment, views = recipe.augment, recipe.train.augmented_views
    if recipe.train.freeze == "none":
        if views:
            raise AumError(
                "train.augmented_views is of a frozen network, and train.freeze is none",
                fix="--set train.freeze=backbone, or leave it out",
            )
        return
    if minutes is not None:
        raise AumError(
            "--minutes fits epochs into a time, and those of a frozen network (train.freeze) take next to none",
            fix="leave --minutes out",
        )
    if augment.policy == "auto":
        raise AumError(
            "augment.policy auto can't be chosen for a frozen network (train.freeze)",
            fix="--recipe head, or --set augment.policy=none",
        )
    for name in ("mixup", "background", "background_noise"):
        if getattr(augment, name):
            raise AumError(
                f"a frozen network (train.freeze) can't be trained with augment.{name}", fix=f"--set augment.{name}=0"
            )
    if augment.active and not views:
        raise AumError(
            f"a frozen network (train.freeze) encodes each clip as it is, without augment.{augment.active[0]}",
            fix="--set train.augmented_views=4 encodes it four times augmented as well; or --set augment.policy=none",
        )
    if views and not augment.active:
        raise AumError(
            f"train.augmented_views {views}, but no augmentation is set",
            fix="--set augment.policy=gentle, or leave it out",
        )


def encode(state: TrainState, stop: StopSignal) -> list[tuple[int, AumError]]:
    """Encode all clips of a training, or read what an earlier one kept of them, and set `state.embeddings`.

    Returns:
        The training clips that could not be read: index, and the reason.

    Raises:
        AumError: stopped by a signal, a validation clip can't be read, or nothing can be kept.
    """
    group, settings = state.process_group, state.recipe.train
    path = _path(state)
    with _opened(path) as journal:
        encoder = _Encoder(state, journal, stop)
        own = state.train.share(group.rank, group.size)
        train = np.full((1 + settings.augmented_views, len(state.train), state.recipe.model.width), np.nan, np.float32)
        unreadable: list[tuple[int, AumError]] = []
        for view in range(len(train)):
            views = np.full((len(own), train.shape[2]), np.nan, np.float32)
            problems: list[tuple[int, AumError]] = []
            for item, embedding in encoder.encode(_training_items(state, own, view, problems)):
                views[item.clip] = embedding
            for rank, (part, some) in enumerate(_gathered(state, stop, (views, problems))):
                train[view, rank :: group.size] = part
                unreadable += [(rank + group.size * clip, error) for clip, error in some]
        pairs = [(item.clip, x) for item, x in encoder.encode(_validation_items(state))]
        _gathered(state, stop, None)
        encoder.finish()
    val = np.array([x for _, x in pairs], np.float32).reshape(len(pairs), train.shape[2])
    device = state.classifier.device
    state.embeddings = Embeddings(
        torch.from_numpy(train).to(device),
        torch.from_numpy(val).to(device),
        np.array([clip for clip, _ in pairs], np.int64),
        len(state.val),
    )
    computed, kept = map(int, group.sum([encoder.computed, encoder.kept], device))
    state.log(
        f"embeddings: {counted(computed, 'window')} of clips encoded, {kept:,} found in {path}"
        if kept
        else f"embeddings: {counted(computed, 'window')} of clips encoded, kept in {path}"
    )
    return unreadable


def _gathered(state: TrainState, stop: StopSignal, value: T) -> list[T]:
    """What every process has of something; all of them stop where one was asked to."""
    values, signals = zip(*state.process_group.gather((value, stop.received)))
    if any(signals):
        raise AumError(
            "stopped while clips were encoded; what was encoded is kept",
            fix="start the same training again",
            exit_code=128 + max(signals),
        )
    return list(values)


@contextmanager
def _opened(path: Path) -> Iterator[Journal]:
    """Open the file that keeps embeddings; while another training encodes into it, wait: it does the same work."""
    told = False
    while True:
        try:
            with Journal(path, lock=True, durable=False) as journal:
                yield journal
            return
        except AumError as error:
            if not isinstance(error.__cause__, LockTaken):
                raise
        if not told:
            logger.info(f"waiting for another training that encodes clips into {path}")
        told = True
        time.sleep(WAIT_S)


class _Encoder:
    """Encodes waveforms in batches, and keeps what it encoded."""

    def __init__(self, state: TrainState, journal: Journal, stop: StopSignal):
        from tqdm import tqdm

        self.state, self.journal, self.stop = state, journal, stop
        self.computed = self.kept = 0
        augment = json.dumps([state.recipe.augment.model_dump(mode="json"), state.recipe.seed])
        self._augment = hashlib.sha256(augment.encode()).hexdigest()
        self._bar = tqdm(
            total=(1 + state.recipe.train.augmented_views) * len(state.train) + len(state.val_clips),
            unit="clip",
            leave=False,
            delay=2,
            desc="encoding",
            disable=None if state.progress else True,
        )

    def encode(self, items: Iterator[_Item]) -> Iterator[tuple[_Item, np.ndarray]]:
        """Yield each item and its embedding, (d,) float32, in order."""
        last = -1
        while batch := list(islice(items, BATCH_WINDOWS)):
            if self.stop.received:  # all processes end when what they have is gathered
                return
            digests = [hashlib.sha256(item.waveform.tobytes()) for item in batch]
            keys = [
                digest.hexdigest() + (f" {item.view} {self._augment}" if item.view else "")
                for item, digest in zip(batch, digests)
            ]
            found = [str(value or "") for value in self.journal.get(keys)]
            new = [i for i, value in enumerate(found) if not value]
            if new:
                seeds = [int.from_bytes(digests[i].digest()[:7], "big") for i in new]
                computed = self._embed([batch[i] for i in new], seeds)
                stored = [base64.b64encode(x.tobytes()).decode() for x in computed]
                self.journal.put([(keys[i], text) for i, text in zip(new, stored)])
                for i, text in zip(new, stored):
                    found[i] = text
            self.computed += len(new)
            self.kept += len(batch) - len(new)
            for item, text in zip(batch, found):
                yield item, np.frombuffer(base64.b64decode(text), np.float32)
            self._bar.update(len({item.clip for item in batch} - {last}))  # a clip's windows follow one another
            last = batch[-1].clip

    def _embed(self, items: Sequence[_Item], seeds: Sequence[int]) -> np.ndarray:
        """Embeddings of waveforms, (b, d) float32; the augmentation of a view is drawn from its clip's own seed."""
        classifier, recipe = self.state.classifier, self.state.recipe
        if not items[0].view:
            return classifier.embed_windows([item.waveform for item in items])
        none = torch.zeros(1, 1)
        features = [
            make_batch(
                classifier.frontend, [item.waveform], none, recipe.augment, stream_seed(recipe.seed, item.view, seed)
            )[0]
            for item, seed in zip(items, seeds)
        ]
        return classifier.embed(torch.cat(features)).float().cpu().numpy()

    def finish(self) -> None:
        self._bar.close()


def _training_items(
    state: TrainState, clips: ClipSource, view: int, unreadable: list[tuple[int, AumError]]
) -> Iterator[_Item]:
    """The part of each training clip that a view is of; clips that can't be read are added to `unreadable`."""
    recipe = state.recipe
    crop = Crop(crop_samples(state.classifier.frontend, recipe.augment if view else AugmentConfig()), recipe.data.crop)
    places = [(i, clip_place(clip, recipe.seed, view)) for i, clip in enumerate(clips.clips)]
    batches = (places[start : start + BATCH_CLIPS] for start in range(0, len(places), BATCH_CLIPS))
    for start, batch in enumerate(clips.load(batches, recipe.train.workers, crop)):
        for clip, decoded in enumerate(batch, start * BATCH_CLIPS):
            if isinstance(decoded, AumError):
                unreadable.append((clip, decoded))
            elif isinstance(decoded, np.ndarray):  # a cropped clip is never a long one
                yield _Item(clip, decoded, view)


def _validation_items(state: TrainState) -> Iterator[_Item]:
    """The windows of this process' validation clips that are scored."""
    for clip, decoded in enumerate(decoded_clips(state.classifier, state.val.clips, state.val)):
        for window in state.classifier.windows(decoded):
            yield _Item(clip, window)


def _path(state: TrainState) -> Path:
    """The file of this process that keeps the embeddings of this network on this kind of device."""
    classifier = state.classifier
    folder = (state.data if os.access(state.data, os.W_OK) else state.out) / FOLDER
    rank = state.process_group.rank
    return folder / f"{_network_digest(classifier.network, classifier)[:16]}{f'-{rank}' if rank else ''}.sqlite"


def _network_digest(network: SpectrogramNetwork, classifier: Classifier) -> str:
    """SHA-256 of all that an embedding depends on besides the clip: weights, sizes, frontend, backend, versions."""
    model = classifier.config.model.model_dump(mode="json", exclude={"n_classes"})
    frontend = classifier.config.frontend.model_dump(mode="json")
    versions = [VERSION, metadata.version("aumcli"), torch.__version__]
    made = [model, frontend, classifier.backend, classifier.device.type, versions]
    digest = hashlib.sha256(json.dumps(made).encode())
    for name, x in sorted(network.state_dict().items()):
        if not name.startswith(HEADS):
            digest.update(name.encode())
            digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

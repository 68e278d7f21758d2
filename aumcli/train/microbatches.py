"""From an epoch's batches to microbatches: which clips this process decodes, their features and targets.

A batch is cut into `train.gradient_accumulation_steps` microbatches, shared among the processes. Random draws belong to
a clip's position in the batch, so neither the number of microbatches nor that of processes changes them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from aumcli.data.datasets.batch import EpochDraws, Partners, crop_samples, make_batch
from aumcli.data.datasets.clip_source import Crop, Decoded, Item
from aumcli.data.datasets.waveforms import stream_seed
from aumcli.errors import AumError
from aumcli.train.setup import BATCH_PURPOSE, TrainState


@dataclass(frozen=True)
class Microbatch:
    """What this process computes at once.

    Attributes:
        rows: positions in the batch of the clips that could be read.
        features: (b, frames, mels), or of a frozen network embeddings, (b, d), for these clips; None without any.
        targets: (b, classes) float32, likewise.
        unreadable: the other clips, or their mixup partners: index among the training clips, and the reason.
    """

    rows: list[int]
    features: Tensor | None
    targets: Tensor | None
    unreadable: list[tuple[int, AumError]]


NO_CLIPS = Microbatch([], None, None, [])


def own_rows(state: TrainState, size: int) -> list[np.ndarray]:
    """Positions in a batch of `size` clips, one array for each microbatch of this process.

    Microbatches are as equal as can be, some empty in a small batch.
    """
    group, steps = state.process_group, state.recipe.train.gradient_accumulation_steps
    return np.array_split(np.arange(size), steps)[group.rank :: group.size]


def load_batches(state: TrainState, epoch: int, batches: list[list[int]], draws: EpochDraws) -> Iterator[list[Decoded]]:
    """Decode this process's clips, and their mixup partners, of the batches that an epoch has not trained on yet."""
    if state.embeddings is not None:  # of clips that were decoded before
        return repeat([], len(batches) - state.epoch.step)
    size, first = state.recipe.train.batch_size, state.epoch.step
    crop = Crop(crop_samples(state.classifier.frontend, state.recipe.augment), state.recipe.data.crop)
    items = (
        [item for rows in own_rows(state, len(batch)) for item in _items(batch, draws, (first + i) * size, rows)]
        for i, batch in enumerate(batches[first:])
    )
    return state.train.load(items, state.recipe.train.workers, crop, state.recipe.seed, epoch)


def _items(batch: list[int], draws: EpochDraws, begin: int, rows: np.ndarray) -> list[Item]:
    """What is decoded for some rows of a batch that starts at position `begin` of its epoch: clips, then partners."""
    mixed = rows[draws.partners[begin + rows] >= 0]
    clips = zip([batch[row] for row in rows], draws.places[0, begin + rows].tolist())
    return [*clips, *zip(draws.partners[begin + mixed].tolist(), draws.places[1, begin + mixed].tolist())]


def make_microbatch(
    state: TrainState,
    epoch: int,
    batch: list[int],
    draws: EpochDraws,
    rows: np.ndarray,
    decoded: Iterator[Decoded],
) -> Microbatch:
    """Features, or a frozen network's embeddings, and targets of some rows of a batch.

    A clip whose mixup partner is unreadable is dropped too.

    Args:
        state: of the training.
        epoch: its number, from 0.
        batch: training clips of the step.
        draws: of the epoch.
        rows: positions in the batch.
        decoded: gives what `load_batches` decoded for these rows.
    """
    if state.embeddings is not None:
        good = [row for row in rows.tolist() if batch[row] not in state.unreadable_clips]
        clips = [batch[row] for row in good]
        if not good:
            return NO_CLIPS
        targets = _targets(state, clips).to(state.classifier.device)
        return Microbatch(good, state.embeddings.view(epoch, clips), targets, [])
    begin = state.epoch.step * state.recipe.train.batch_size
    waveforms = dict(zip(rows.tolist(), decoded))
    mixed = rows[draws.partners[begin + rows] >= 0].tolist()
    partners = dict(zip(mixed, decoded))
    unreadable = [(batch[row], item) for row, item in waveforms.items() if isinstance(item, AumError)]
    unreadable += [
        (int(draws.partners[begin + row]), item) for row, item in partners.items() if isinstance(item, AumError)
    ]
    readable = {row: item for row, item in waveforms.items() if not isinstance(item, AumError)}
    partner_of = {row: item for row, item in partners.items() if not isinstance(item, AumError)}
    good = [row for row in readable if row not in partners or row in partner_of]
    if not good:
        return Microbatch([], None, None, unreadable)
    mixed = [row for row in mixed if row in good]
    mixture = None
    if mixed:
        positions = begin + np.array(mixed)
        mixture = Partners(
            [good.index(row) for row in mixed],
            [partner_of[row] for row in mixed],
            _targets(state, draws.partners[positions].tolist()),
            torch.from_numpy(draws.ratios[positions]),
            torch.from_numpy(draws.noise[:, positions]),
        )
    features, targets = make_batch(
        state.classifier.frontend,
        [readable[row] for row in good],
        _targets(state, [batch[row] for row in good]),
        state.recipe.augment,
        stream_seed(state.recipe.seed, epoch, state.epoch.step, BATCH_PURPOSE),
        good,
        len(batch),
        mixture,
    )
    return Microbatch(good, features, targets, unreadable)


def _targets(state: TrainState, clips: list[int]) -> Tensor:
    """Targets of training clips, (b, classes) float32."""
    return torch.from_numpy(state.manifest.targets(state.train.clips.take(clips)))

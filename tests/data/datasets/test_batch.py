"""From decoded clips to what a model is trained on."""

import numpy as np
import pytest
import torch
from tiny import RATE_HZ

from aumcli.config import AugmentConfig, FrontendConfig
from aumcli.core.frontend import LogMel
from aumcli.data.datasets.batch import Partners, crop_samples, draw_epoch, make_batch

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


ALL = AugmentConfig(
    shift_s=0.2,
    mixup=1.0,
    freq_mask=8,
    time_mask=8,
    speed=0.3,
    tempo=0.3,
    freq_warp=0.2,
    gain_db=12,
    noise=1.0,
    band_limit=1.0,
    reverb=1.0,
    masking="epic_sounds",
    feature_noise=0.1,
    roll=5,
    mixup_partners="corpus",
    time_warp=3,
)
FRONTEND = FrontendConfig(sample_rate_hz=RATE_HZ, n_mels=32, frames=48)


def some_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [
        0.1 * rng.standard_normal(samples).astype(np.float32)
        for samples in (3, 100, 3900, FRONTEND.clip_samples, 5 * FRONTEND.clip_samples)
    ]


def cut(clips: list[np.ndarray], augment: AugmentConfig) -> list[np.ndarray]:
    return [clip[: crop_samples(LogMel(FRONTEND), augment)] for clip in clips]


def mixed(clips: list[np.ndarray], augment: AugmentConfig) -> Partners:
    """The second and the fourth clip with the one before."""
    return Partners([1, 3], [cut(clips, augment)[i] for i in (0, 2)], torch.eye(5)[[0, 2]], torch.tensor([0.6, 0.4]))


@pytest.mark.parametrize(
    "augment",
    [ALL, AugmentConfig()] + [AugmentConfig(**{name: getattr(ALL, name)}) for name in AugmentConfig.model_fields],
)
def test_batches_with_each_and_every_augmentation(augment):
    targets, clips = torch.eye(5), cut(some_clips(), augment)
    batches = [make_batch(LogMel(FRONTEND), clips, targets, augment, 3) for _ in range(2)]
    features, same = batches[0]
    assert features.shape == (5, 48, 32) and torch.equal(same, targets) and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert torch.equal(features, batches[1][0])
    other, _ = make_batch(LogMel(FRONTEND), clips, targets, augment, 4)
    draws = [
        name
        for name in AugmentConfig.model_fields
        if name not in ("mixup", "mixup_partners", "masking")
        and getattr(augment, name) != AugmentConfig.model_fields[name].default
    ]
    assert torch.equal(features, other) == (not draws)
    both, mixture = make_batch(LogMel(FRONTEND), clips, targets, augment, 3, partners=mixed(some_clips(), augment))
    assert mixture.tolist()[1] == pytest.approx([0.4, 0.6, 0, 0, 0]) and mixture.tolist()[3] == pytest.approx(
        [0, 0, 0.6, 0.4, 0]
    )
    assert torch.isfinite(both).all() and not torch.equal(both[3], features[3])
    assert torch.allclose(both[[0, 2, 4]], features[[0, 2, 4]], atol=1e-4)


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_batch_in_parts_is_the_whole_batch(parts):
    """Features and targets, whatever is drawn, and mixed in, for them.

    But for rounding in transforms of other batch sizes.
    """
    clips, targets = cut(some_clips(), ALL), torch.eye(5)
    partners = mixed(some_clips(), ALL)
    whole, whole_targets = make_batch(LogMel(FRONTEND), clips, targets, ALL, 3, partners=partners)
    for rows in np.array_split(np.arange(5), parts):
        own = [i for i, row in enumerate(partners.of) if row in rows]
        some = (
            Partners(
                [rows.tolist().index(partners.of[i]) for i in own],
                [partners.waveforms[i] for i in own],
                partners.targets[own],
                partners.ratios[own],
            )
            if own
            else None
        )
        part, part_targets = make_batch(
            LogMel(FRONTEND), [clips[i] for i in rows], targets[rows], ALL, 3, rows, 5, some
        )
        assert torch.equal(part_targets, whole_targets[rows])
        assert torch.allclose(part, whole[rows], atol=2e-3)  # log energies of a nearly silent clip magnify a rounding


def test_partners_are_drawn_for_the_epoch_and_not_for_its_parts():
    batches = [[3, 1, 2, 0], [7, 6, 5, 4], [8]]
    augment = AugmentConfig(mixup=0.5)
    draws = draw_epoch(batches, 9, augment, 0, 0)
    again = draw_epoch(batches, 9, augment, 0, 0)
    assert all(np.array_equal(getattr(draws, name), getattr(again, name)) for name in ("places", "partners", "ratios"))
    assert not np.array_equal(draws.places, draw_epoch(batches, 9, augment, 0, 1).places)
    assert draws.partners[8] == -1  # alone in its batch


def test_share_law_and_partners_of_mixup():
    batches = np.random.default_rng(0).permutation(6000).reshape(-1, 12).tolist()
    order = np.array(batches).ravel()
    draws = draw_epoch(batches, 6000, AugmentConfig(mixup=0.4), 0, 0)
    chosen = draws.partners >= 0
    assert chosen.mean() == pytest.approx(0.4, abs=0.02)
    assert draws.ratios[chosen].mean() == pytest.approx(0.5, abs=0.01) and draws.ratios.std() == pytest.approx(
        (1 / 84) ** 0.5, abs=0.004
    )
    for i in np.flatnonzero(chosen):
        assert draws.partners[i] in batches[i // 12] and draws.partners[i] != order[i]  # of the batch, never itself
    corpus = draw_epoch(batches, 6000, AugmentConfig(mixup=0.4, mixup_partners="corpus"), 0, 0)
    drawn = corpus.partners[corpus.partners >= 0]
    assert len(drawn) == chosen.sum() and len(set(drawn.tolist())) > 1900  # 2400 uniform draws of 6000: 1980 differ
    assert sum(partner in batches[i // 12] for i, partner in enumerate(corpus.partners)) < 20
    single = draw_epoch([[4]], 6000, AugmentConfig(mixup=1.0, mixup_partners="corpus"), 0, 0)
    assert single.partners[0] >= 0


def test_without_augmentation_training_sees_what_prediction_sees():
    logmel, clips = LogMel(FRONTEND), some_clips()[:4]  # none is longer than the input
    features, _ = make_batch(logmel, clips, torch.eye(4), AugmentConfig(), 3)
    for row, clip in zip(features, clips):
        assert torch.allclose(row, logmel(torch.from_numpy(clip)[None])[0], atol=1e-4)


def test_silence_and_one_clip_alone():
    features, _ = make_batch(LogMel(FRONTEND), [np.zeros(3900, dtype=np.float32)], torch.ones(1, 1), ALL, 3)
    assert torch.isfinite(features).all()

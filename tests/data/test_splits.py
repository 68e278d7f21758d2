"""Which clips are trained on and which choose the epoch; and balanced sampling."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from aumcli.config import DataConfig
from aumcli.data.clips import Clip, Clips
from aumcli.data.datasets.waveforms import balanced_weights, epoch_batches
from aumcli.data.labels import Label
from aumcli.data.manifest import Manifest
from aumcli.data.splits import reported_clips, split_clips, training_splits
from aumcli.errors import AumError


def corpus(groups: int, each: int, folder: str = "/somewhere") -> Manifest:
    """A corpus without a validation split: so many clips of each of so many recorded people."""
    clips = [
        Clip(
            Path(folder) / f"{group}-{number}.wav",
            labels=("a",),
            split="train",
            group=f"who{group}" if groups > 1 else "",
        )
        for number in range(each)
        for group in range(groups)
    ]
    clips.append(Clip(Path(folder) / "test.wav", labels=("a",), split="test"))
    return Manifest(Path(folder), Clips.of(clips), [Label(0, "a", "a")])


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.999])
def test_a_share_is_kept_out_of_training(share):
    manifest = corpus(40, 5)
    train, val = training_splits(manifest, DataConfig(val_fraction=share))
    assert sorted([*train, *val], key=str) == sorted(manifest.split("train"), key=str)
    assert not {clip.group for clip in train} & {clip.group for clip in val} and train
    assert share * 200 <= len(val) < share * 200 + 5 or len(train) == 5  # whole groups; one is always trained on
    assert [clip for clip in manifest.clips if clip in set(val)] == val  # the manifest's order


def test_the_share_depends_on_names_alone():
    config = DataConfig(val_fraction=0.1)
    manifest, elsewhere = corpus(40, 5), corpus(40, 5, "/else/where")
    backwards = Manifest(elsewhere.folder, Clips.of(list(elsewhere.clips)[::-1]), elsewhere.labels)
    chosen = [{clip.group for clip in training_splits(each, config)[1]} for each in (manifest, elsewhere, backwards)]
    assert chosen[0] == chosen[1] == chosen[2]


def test_an_unknown_group_is_answered_with_some_that_exist():
    with pytest.raises(AumError, match="no group 'nobody'") as caught:
        split_clips(corpus(40, 1), "train", "nobody")
    assert caught.value.fix.startswith("data.test_group can be one of: who0, who1, who10,")
    assert caught.value.fix.endswith(" and 28 more")


def test_without_groups_files_are_kept_together():
    slices = [
        Clip(Path(f"/v/{video}.wav"), start, start + 1.0, ("a",), "train")
        for video in "abcdefghij"
        for start in range(20)
    ]
    train, val = training_splits(
        Manifest(Path("/v"), Clips.of(slices), [Label(0, "a", "a")]), DataConfig(val_fraction=0.15)
    )
    assert len(val) == 40 and not {clip.path for clip in train} & {clip.path for clip in val}


@pytest.mark.parametrize("seed", range(20))
def test_a_share_is_near_what_was_asked_for_though_groups_differ_in_size(seed):
    """As EPIC-SOUNDS, whose videos have 1 to about 1200 clips: 5 % are 5 to 6 %, whichever are the long ones."""
    sizes = np.random.default_rng(seed).lognormal(4.2, 1.1, 100).clip(1, 1200).astype(int)
    clips = [
        Clip(Path(f"/v/{video}.wav"), float(i), i + 1.0, ("a",), "train", f"{seed}-{video}")
        for video, size in enumerate(sizes)
        for i in range(size)
    ]
    manifest = Manifest(Path("/v"), Clips.of(clips), [Label(0, "a", "a")])
    train, val = training_splits(manifest, DataConfig(val_fraction=0.05))
    assert 0.05 * len(clips) <= len(val) <= 0.06 * len(clips) and len(train) + len(val) == len(clips)
    assert not {clip.group for clip in train} & {clip.group for clip in val}


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_of_two_groups_the_small_one_is_kept_back(names):
    """Whichever comes first: a share of 30 % is not 90 %."""
    clips = [
        Clip(Path(f"/v/{name}{i}.wav"), labels=("a",), split="train", group=name)
        for name, size in zip(names, (10, 90))
        for i in range(size)
    ]
    train, val = training_splits(
        Manifest(Path("/v"), Clips.of(clips), [Label(0, "a", "a")]), DataConfig(val_fraction=0.3)
    )
    assert len(val) == 10 and len(train) == 90


def test_a_single_group_has_no_share():
    with pytest.raises(AumError, match="one group"):
        training_splits(
            Manifest(
                Path("/v"),
                Clips.of(Clip(Path("/v/a.wav"), float(i), i + 1.0, ("a",), "train") for i in range(9)),
                [Label(0, "a", "a")],
            ),
            DataConfig(val_fraction=0.1),
        )


def test_without_a_share_the_corpus_own_split_is_taken():
    with pytest.raises(AumError, match="no split 'val'"):
        training_splits(corpus(4, 5), DataConfig())


def test_weights_are_the_published_ones():
    clips = [Clip(Path("x"), labels=labels) for labels in [("a",)] * 6 + [("b",)] * 2 + [("a", "b")]]
    weight_a, weight_b = 1000 / 7.01, 1000 / 3.01
    expected = np.array([weight_a] * 6 + [weight_b] * 2 + [weight_a + weight_b])
    np.testing.assert_allclose(balanced_weights(clips), expected / expected.sum(), rtol=1e-12)


def test_balanced_sampling_evens_the_classes_out():
    labels = ["common"] * 900 + ["rare"] * 100
    weights = balanced_weights([Clip(Path("x"), labels=(label,)) for label in labels])
    batches = epoch_batches(1000, 64, 3, 0, weights)
    drawn = [i for batch in batches for i in batch]
    counts = Counter(labels[i] for i in drawn)
    assert len(drawn) == 1000 and len(set(drawn)) < 1000  # as many as there are, with replacement
    assert abs(counts["rare"] - 500) < 80  # 5 standard deviations
    assert batches == epoch_batches(1000, 64, 3, 0, weights) != epoch_batches(1000, 64, 3, 1, weights)
    assert epoch_batches(1000, 64, 3, 0, weights) != epoch_batches(1000, 64, 4, 0, weights)


def test_how_many_clips_there_are_to_report_on():
    manifest = corpus(4, 5)
    assert [reported_clips(manifest, DataConfig(test=name)) for name in ("test", "train", "val")] == [1, 20, 0]
    held_out = DataConfig(test_group="who3", test="val")
    assert reported_clips(manifest, held_out) == 5 and reported_clips(manifest, DataConfig(test_group="nobody")) == 0
    assert held_out.reported == "test" and not held_out.leak  # a group that is held out is called test


@pytest.mark.parametrize(
    "settings, leak",
    [
        ({}, ""),
        ({"test": "val"}, "choose the epoch"),
        ({"val": "test"}, "choose the epoch"),
        ({"test": "val", "val_fraction": 0.1}, ""),
        ({"test": "train"}, "train"),
        ({"test": "train", "val_fraction": 0.1}, "train"),
        ({"test": "val", "test_group": "who1"}, ""),
    ],
)
def test_what_the_reported_clips_serve_for_besides(settings, leak):
    assert DataConfig(**settings).leak == leak

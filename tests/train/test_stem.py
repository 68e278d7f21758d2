"""Trainings with a convolutional stem and without a class token keep every promise."""

import pytest
import torch
from tiny import tiny
from training import assert_same_run, history, listening, quietly

from aumcli.checkpoints import read_model

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
STEM = ("model.tokenizer=conv", "model.pooling=mean", "frontend.remove_level=true", "model.stem.channels=[4, 8, 8, 8]")


@pytest.fixture(scope="module")
def stem_run(corpus, tmp_path_factory):
    return quietly(tiny(*STEM), tmp_path_factory.mktemp("stem") / "run", corpus)


def test_a_broken_training_ends_with_the_same_bits(corpus, tmp_path, stem_run):
    class Broken(Exception):
        pass

    def breaking(text):
        if text.startswith("epoch   2/4"):
            raise Broken

    with pytest.raises(Broken), listening(breaking):
        quietly(tiny(*STEM), tmp_path / "run", corpus)
    quietly(tiny(*STEM), tmp_path / "run", corpus, resume=True)
    assert_same_run(tmp_path / "run", stem_run)


def test_microbatches_do_not_change_the_result(corpus, tmp_path, stem_run):
    out = quietly(tiny(*STEM, "train.gradient_accumulation_steps=4"), tmp_path / "run", corpus)
    for row, whole in zip(history(out), history(stem_run), strict=True):
        assert float(row["train_loss"]) == pytest.approx(float(whole["train_loss"]), rel=1e-3)


def test_what_was_averaged_is_saved(stem_run):
    network, config = read_model(stem_run / "best")
    assert config.model.tokenizer == "conv" and config.model.pooling == "mean" and config.frontend.remove_level
    assert all(x.isfinite().all() for x in network.parameters())
    assert network(torch.randn(2, config.model.frames, 32)).shape == (2, 3)

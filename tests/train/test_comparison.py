"""What a finished training is compared with: logistic regression, and the network on its own training clips."""

import json
import logging

import pytest
import torch
from tiny import tiny
from training import quietly

from aumcli.config import FrontendConfig
from aumcli.core.frontend import build_frontend
from aumcli.data.manifest import read_manifest
from aumcli.train.comparison import Comparison, _fit, band_statistics, linear_scores

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_fit_is_the_minimum_of_the_penalised_loss(multi_label):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, dtype=torch.float64, generator=generator)
    y = torch.nn.functional.one_hot((x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 1).long(), 3).double()
    weight, bias = (tensor.requires_grad_() for tensor in _fit(x, y, multi_label))
    logits = x @ weight + bias
    scores = logits.sigmoid() if multi_label else logits.softmax(1)
    losses = -(y * scores.log() + ((1 - y) * (1 - scores).log() if multi_label else 0))
    (losses.sum() + weight.square().sum() / 2).backward()
    assert weight.grad.abs().max() < 1e-3 and bias.grad.abs().max() < 1e-3


def test_statistics_are_those_of_a_clips_own_frames(corpus):
    clips = read_manifest(corpus).split("train")
    frontend = build_frontend(FrontendConfig(sample_rate_hz=8000, n_mels=32, frames=16))  # shorter than the clips
    statistics = band_statistics(frontend, clips)
    assert statistics.shape == (len(clips), 64) and statistics.isfinite().all()
    assert (statistics[:, 32:] > 0).all()


def test_tones_and_noise_are_told_apart_by_their_spectra(corpus):
    manifest = read_manifest(corpus)
    frontend = build_frontend(FrontendConfig(sample_rate_hz=8000, n_mels=32, frames=48))
    clips = manifest.split("test")
    scores = linear_scores(frontend, manifest, manifest.split("train"), clips)
    assert (scores.argmax(1) == manifest.targets(clips).argmax(1)).all()
    assert scores.sum(1) == pytest.approx(1, abs=1e-5)


def test_a_worse_network_and_one_that_underfits_are_said():
    fine = Comparison("accuracy", 0.97, 0.8, 0.99, 500).lines()
    assert [level for level, _ in fine] == [logging.INFO] and "80.00 %" in fine[0][1] and "97.00 %" in fine[0][1]
    worse = Comparison("accuracy", 0.6, 0.8, 0.7, 500).lines()
    assert [level for level, _ in worse] == [logging.WARNING, logging.WARNING]
    assert "worse" in worse[0][1]
    assert "underfits" in worse[1][1] and "70.00 %" in worse[1][1] and "augment.policy=gentle" in worse[1][1]


def test_the_report_holds_the_comparison(corpus, tmp_path):
    lines = []
    out = quietly(tiny("train.epochs=1"), tmp_path / "run", corpus, say=lines.append)
    stored = json.loads((out / "report.json").read_text())["comparison"]
    assert stored["linear"] == 1.0 and stored["metric"] == "accuracy" and stored["clips"] == 18
    assert any(line.startswith("a linear model of mean spectra") for line in lines)
    assert "linear model" in (out / "report.md").read_text()

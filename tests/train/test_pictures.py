"""No picture is worth a report.

Classes of any name are drawn, and where drawing fails the rest is there and it is said.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import CLASSES, sound, tiny
from training import listening

from aumcli.metrics import evaluate_scores
from aumcli.prepare import prepare
from aumcli.report import plots
from aumcli.train import loggers, train
from aumcli.train import report as train_report

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

NAMES = ["US$__EU$", "$", "a_{b", "\\frac", "$\\alpha", "x^", "tab\there", "_hidden", "100 %", "\u2028", "☃", "e\u0301"]


@pytest.fixture(scope="module")
def dollars(tmp_path_factory) -> Path:
    """A corpus whose classes look like formulas."""
    root = tmp_path_factory.mktemp("dollars")
    for name, hz in zip(("US$__EU$", "$\\alpha_", "a^{b"), CLASSES.values()):
        for number in range(10):
            sound(root / "sounds" / name / f"{number}.wav", hz, seed=number)
    prepare("folder", root / "data", source=root / "sounds", split="60/20/20")
    return root / "data"


def test_a_training_on_classes_that_look_like_formulas(dollars, tmp_path, aum):
    run, said = tmp_path / "US$__EU$ {run}", []
    with listening(said.append):
        train(tiny("train.epochs=2"), run, dollars)
    assert {path.name for path in run.iterdir()} >= {"curves.png", "confusion-val.png", "report.json", "report.md"}
    assert not any("no picture" in text for text in said)
    result = aum("eval", run)
    assert (
        result.code == 0 and "confusion-test.png" in result.out and (run / "confusion-test.png").stat().st_size > 1000
    )
    assert "US$__EU$" in result.out


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_drawn(tmp_path, name):
    plots.plot_confusion(np.array([[3, 1], [0, 2]]), [name, "other"], tmp_path / "confusion.png", name)
    plots.plot_curves(
        [{"epoch": 1, "train_loss": 1, "val_loss": 1, "val_map": 0.5}], tmp_path / "curves.png", name, "val_map"
    )
    assert (tmp_path / "confusion.png").stat().st_size > 1000 and (tmp_path / "curves.png").stat().st_size > 1000


def test_a_picture_that_fails_costs_no_report(corpus, tmp_path, monkeypatch, aum):
    def fail(*arguments):
        raise ValueError("Invalid glyph\nin line 1")

    monkeypatch.setenv("AUM_DEBUG", "")
    monkeypatch.setattr(loggers, "plot_curves", fail)
    monkeypatch.setattr(train_report, "plot_curves", fail)
    monkeypatch.setattr(train_report, "plot_confusion", fail)
    monkeypatch.setattr(loggers, "PLOT_SHARE", 1e9)  # so that curves are drawn after every epoch, too
    said = []
    with listening(said.append):
        run = train(tiny("train.epochs=3"), tmp_path / "run", corpus)
    assert (
        json.loads((run / "report.json").read_text())["clips"] == 6
        and "best accuracy" in (run / "report.md").read_text()
    )
    for name in ("curves.png", "confusion-val.png"):
        assert sum(f"no picture {name}: ValueError: Invalid glyph in line 1" in text for text in said) == 1, said
    monkeypatch.setattr("aumcli.evaluate.plot_confusion", fail)
    result = aum("eval", run, "--out", tmp_path / "out")
    assert (
        result.code == 0
        and "warning: no picture confusion-test.png: ValueError" in result.err
        and "confusion-test.png" not in result.out
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"eval-test.json", "scores-test.npz", "reliability-test.png"}


def test_a_mistake_of_ours_in_a_picture_fails_a_test(corpus, tmp_path, monkeypatch):
    def fail(*arguments):
        raise ValueError("ours")

    monkeypatch.setattr(train_report, "plot_curves", fail)
    with pytest.raises(ValueError, match="ours"):
        train(tiny("train.epochs=1"), tmp_path / "run", corpus)
    assert (tmp_path / "run" / "report.json").exists()


def test_a_page_without_pictures(aum, trained, clips, tmp_path, monkeypatch):
    from aumcli.predict import page

    def fail(*arguments):
        raise ValueError("no colours")

    monkeypatch.setenv("AUM_DEBUG", "")
    monkeypatch.setattr(page, "_picture", fail)
    assert aum("predict", clips, "--model", trained, "--html", tmp_path / "p.html").code == 0
    text = (tmp_path / "p.html").read_text()
    assert text.count("no picture: ValueError: no colours") == 3 and text.count('"audio":"data:') == 3


def test_metrics_know_any_name():
    scores = np.eye(len(NAMES), dtype=np.float32)
    assert [row.label for row in evaluate_scores(scores, np.arange(len(NAMES)), NAMES).per_class] == NAMES

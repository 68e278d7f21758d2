"""Pictures are opened and measured."""

import math

import numpy as np
import pytest

from aumcli.errors import AumError
from aumcli.metrics import evaluate_scores
from aumcli.report import plots
from aumcli.report.plots import plot_confusion, plot_curves


def metrics_of(classes, clips=400, multi_label=False):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, clips)
    scores = rng.normal(size=(clips, classes)) + 3 * np.eye(classes)[targets]
    truth = np.eye(classes, dtype=int)[targets] if multi_label else targets
    return evaluate_scores(scores, truth, [f"class {i:03}" for i in range(classes)])


def image(path):
    from matplotlib.image import imread

    return imread(path)


def test_curves_take_text_gaps_and_a_single_epoch(tmp_path):
    history = [
        {"epoch": "1", "train_loss": "2.0", "val_loss": "", "val_accuracy": "0.5"},
        {"epoch": "2", "train_loss": "1.0", "val_loss": "1.5", "val_accuracy": "0.9"},
    ]
    for rows in (history, history[:1], []):
        plot_curves(rows, tmp_path / "curves.png", "a run")
        assert image(tmp_path / "curves.png").std() > 0.01
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]  # no temporary file is left


def test_curves_mark_the_first_best_epoch(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    rows = [
        {"epoch": i + 1, "train_loss": 1.0, "val_loss": 1.0, "val_map": value}
        for i, value in enumerate([0.2, 0.7, 0.7, math.nan])
    ]
    plot_curves(rows, tmp_path / "x.png", "a run", metric="val_map")
    axes = figures[0].axes[1]
    assert axes.get_legend().get_texts()[0].get_text() == "best: 70.00 % at epoch 2"
    assert axes.get_ylabel() == "validation mAP (%)"


def test_confusion_says_accuracy_counts_and_shares(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    plot_confusion(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c" * 50], tmp_path / "x.png", "a model")
    axes = figures[0].axes[0]
    assert axes.get_title() == "a model\naccuracy 87.50 % of 8 clips"
    assert [text.get_text() for text in axes.texts] == ["3", "1", "4"]  # zeros stay empty
    assert axes.get_yticklabels()[2].get_text() == "c" * 39 + "…"
    shares = axes.images[0].get_array()
    assert shares[0].tolist() == [75, 25, 0] and shares.mask[2].all()  # a class without clips is no zero


@pytest.mark.parametrize(("classes", "pixels"), [(2, 500), (35, 1500)])
def test_confusion_is_drawn_at_a_readable_size(tmp_path, classes, pixels):
    metrics = metrics_of(classes)
    plot_confusion(metrics.confusion, [row.label for row in metrics.per_class], tmp_path / "c.png", "a model")
    picture = image(tmp_path / "c.png")
    assert min(picture.shape[:2]) > pixels and picture.std() > 0.01


def test_a_picture_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AumError, match="can't write"):
        plot_curves([], tmp_path / "file" / "x.png", "a run")


def test_a_confusion_plot_of_a_thousand_classes_is_no_larger_than_a_screen(tmp_path):
    import struct

    matrix = np.eye(1251, dtype=np.int64)
    plot_confusion(matrix, [f"id{i}" for i in range(1251)], tmp_path / "large.png", "many")
    width, height = struct.unpack(">II", (tmp_path / "large.png").read_bytes()[16:24])
    assert max(width, height) < 4000

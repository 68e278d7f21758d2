"""Tables are read back as text, pictures are opened and measured."""

import io
import math
import subprocess
import sys

import numpy as np
import pytest
from rich.cells import cell_len

from aumcli.errors import AumError
from aumcli.metrics import evaluate_scores
from aumcli.report import (
    environment,
    plot_confusion,
    plot_curves,
    print_classes,
    print_metrics,
    print_predictions,
    print_prepared,
    print_table,
)


def printed(function, *arguments, **options):
    file = io.StringIO()
    function(*arguments, file=file, **options)
    return file.getvalue()


def metrics_of(classes, clips=400, multi_label=False):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, classes, clips)
    scores = rng.normal(size=(clips, classes)) + 3 * np.eye(classes)[targets]
    truth = np.eye(classes, dtype=int)[targets] if multi_label else targets
    return evaluate_scores(scores, truth, [f"class {i:03}" for i in range(classes)])


def image(path):
    from matplotlib.image import imread

    return imread(path)


def test_a_piped_table_is_plain_and_never_wraps():
    name = "/data/" + "a folder with a long name/" * 20 + "clip.wav"
    text = printed(print_table, "files", ("file", "score"), [(name, 0.25), ("[bold]b[/bold] :smile:", None)])
    assert "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) == 4 and lines[0].strip() == "files"
    assert name in lines[2] and lines[2].rstrip().endswith("0.2500")
    assert "[bold]b[/bold] :smile:" in lines[3] and lines[3].rstrip().endswith("-")


def test_cells_and_alignment():
    lines = printed(print_table, "", ("name", "n", "x"), [("a", 5, math.nan), ("b", 12345, 1.5)]).splitlines()
    assert [line.split() for line in lines] == [["name", "n", "x"], ["a", "5", "-"], ["b", "12345", "1.5000"]]
    assert lines[1].index("5") == lines[2].index("5")  # numbers are flush right
    title = "a title far wider than its table"
    assert [line.strip() for line in printed(print_table, title, ("a",), []).splitlines()] == [title, "a"]


@pytest.mark.parametrize("width", [72, 80, 120])
def test_predictions_fit_a_terminal(width, capsys):
    rows = [
        (
            f"a folder/{'of many words/' * 9}{i}.wav",
            start,
            12.5,
            [("Male speech, man speaking", 0.71), ("声, ja", 0.2), ("x" * 9, 0.01)],
        )
        for i, start in enumerate((0.0, 5.0))
    ]
    print_predictions(rows, width=width)
    lines = capsys.readouterr().out.splitlines()
    assert width - 20 < max(cell_len(line.rstrip()) for line in lines) <= width
    assert all(line.startswith("a") and "…" in line and "0.7100" in line for line in lines[1:]) and "1.wav" in lines[2]
    assert all(", …" in line or line.rstrip().endswith(("…", "0.010")) for line in lines[1:])
    print_predictions(rows)
    assert "…" not in capsys.readouterr().out


def test_a_terminal_folds_long_names_without_losing_a_letter(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    file, name = Terminal(), "abcdefghij" * 12
    print_table("", ("file", "score"), [(name, 0.25)], file=file)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) < 80 and len(lines) > 4
    letters = "".join(character for line in lines[2:] for character in line if character in "abcdefghij")
    assert name in letters.replace("…", "?")


def test_summary_shows_what_is_defined_and_what_was_left_out():
    text = printed(print_metrics, metrics_of(12), "digits, test split")
    assert "digits, test split" in text and "accuracy" in text and "top-5 accuracy" in text and " %" in text
    assert "lack a positive" not in text
    several = evaluate_scores(np.array([[0.9, 0.1], [0.2, 0.3]]), np.array([[1, 0], [0, 0]]), ["a", "b"])
    text = printed(print_metrics, several, "several labels")
    assert "accuracy" not in text and "mAP, AUC and d-prime: 1 of 2 classes; the other 1 lacks" in text
    assert "inf" in text  # d-prime of an AUC of 1


@pytest.mark.parametrize("multi_label", [False, True])
def test_classes_come_worst_first_and_the_rest_is_counted(multi_label):
    metrics = metrics_of(30, multi_label=multi_label)
    lines = printed(print_classes, metrics, limit=7).splitlines()
    assert lines[-1] == "... and 23 more, see report.json"
    column = -2 if multi_label else -3  # AP or F1
    shown = [float(line.split()[column]) for line in lines[2:-1]]
    values = [row.average_precision if multi_label else row.f1 for row in metrics.per_class]
    assert shown == pytest.approx(sorted(values)[:7], abs=1e-4)
    assert "more" not in printed(print_classes, metrics, limit=30)


def test_classes_without_clips_come_last():
    metrics = evaluate_scores(np.eye(3)[[0, 1, 0]], np.array([0, 1, 1]), ["good", "poor", "absent"])
    order = [line.split()[0] for line in printed(print_classes, metrics).splitlines()[2:]]
    assert order[-1] == "absent" and len(order) == 3


def prepared(classes, multi_label=False, **changes):
    from aumcli.prepare import PrepareReport

    return PrepareReport(
        **{
            "corpus": "csv",
            "folder": "data/x",
            "origin": "",
            "version": "",
            "seed": 0,
            "split": None,
            "settings": {},
            "multi_label": multi_label,
            "splits": {"train": {"clips": 3, "seconds": 90.0}},
            "classes": classes,
            "sample_rates_hz": {},
            "longest_s": 1.0,
            "shortest_s": 1.0,
            "normalisation": {},
            "left_out": [],
            "missing": {},
            "warnings": [],
            "notes": [],
        }
        | changes
    )


def test_what_was_prepared_is_said_with_its_classes(monkeypatch):
    classes = {
        "owl": {"train": {"clips": 1, "seconds": 1.0}},
        "none": {"train": {"clips": 0, "seconds": 0.0, "missing": 4}},
        "lamp,river": {"train": {"clips": 2, "seconds": 1.0}, "test": {"clips": 1200, "seconds": 1.0}},
    }
    text = printed(print_prepared, prepared(classes))
    assert 'single-label, each clip has one class: "lamp,river" 1,202, owl 1, none 0\n' in text
    many = {f"c{i:02}": {"train": {"clips": i, "seconds": 1.0}} for i in range(14)}
    text = printed(print_prepared, prepared(many, True))
    assert "multi-label, a clip may have several classes: c13 13, c12 12, " in text
    assert "c04 4 and 4 more, at least 0 clips each\n" in text


def test_a_setting_in_a_warning_can_be_copied(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    file, setting = Terminal(), "--set frontend.sample_rate_hz=250000 --set frontend.window_ms=4.0"
    print_prepared(
        prepared({"a": {}}, notes=[f"recordings reach 125 kHz; train with {setting}"], warnings=[f"as well {setting}"]),
        file,
    )
    assert file.getvalue().count(setting) == 2


def test_predictions_with_and_without_windows():
    text = printed(print_predictions, [("a.wav", None, None, [("one", 0.9), ("two", 0.05)])])
    assert text.split() == ["clip", "label", "score", "then", "a.wav", "one", "0.9000", "two", "0.050"]
    text = printed(print_predictions, [("a.wav", 0, 1.5, [("one", 0.9)]), ("a.wav", 1.5, 3.0, [])])
    assert text.split() == [
        "clip",
        "start_s",
        "stop_s",
        "label",
        "score",
        "a.wav",
        "0.0000",
        "1.5000",
        "one",
        "0.9000",
        "a.wav",
        "1.5000",
        "3.0000",
        "-",
        "-",
    ]


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
    import aumcli.report as report

    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: figures.append(figure))
    rows = [
        {"epoch": i + 1, "train_loss": 1.0, "val_loss": 1.0, "val_map": value}
        for i, value in enumerate([0.2, 0.7, 0.7, math.nan])
    ]
    plot_curves(rows, tmp_path / "x.png", "a run", metric="val_map")
    axes = figures[0].axes[1]
    assert axes.get_legend().get_texts()[0].get_text() == "best: 70.00 % at epoch 2"
    assert axes.get_ylabel() == "validation mAP (%)"


def test_confusion_says_accuracy_counts_and_shares(tmp_path, monkeypatch):
    import aumcli.report as report

    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: figures.append(figure))
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


def test_environment_names_versions_and_machine():
    import torch

    values = environment()
    assert set(values) == {"aumcli", "torch", "python", "platform", "cpu", "cpus", "threads"}
    assert all(values.values()) and values["torch"] == torch.__version__
    assert values["threads"] == torch.get_num_threads()


def test_importing_report_and_metrics_loads_nothing_heavy():
    code = (
        "import sys, aumcli.report, aumcli.metrics;"
        "print([m for m in ('matplotlib', 'sklearn', 'scipy', 'pandas', 'rich', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_confusion_plot_of_a_thousand_classes_is_no_larger_than_a_screen(tmp_path):
    import struct

    matrix = np.eye(1251, dtype=np.int64)
    plot_confusion(matrix, [f"id{i}" for i in range(1251)], tmp_path / "large.png", "many")
    width, height = struct.unpack(">II", (tmp_path / "large.png").read_bytes()[16:24])
    assert max(width, height) < 4000

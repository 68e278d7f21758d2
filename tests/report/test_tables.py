"""Tables are read back as text."""

import io
import math

import numpy as np
import pytest
from rich.cells import cell_len

from aumcli.metrics import evaluate_scores
from aumcli.report.tables import print_classes, print_metrics, print_predictions, print_prepared, print_table


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
            "skipped": [],
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

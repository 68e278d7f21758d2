"""What a run shows while it goes on, and what it leaves behind."""

import fcntl
import hashlib
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from tiny import RECIPE, tiny
from training import Stop, assert_same_run, command, history, problem, quietly

from aumcli.classifier import load_model
from aumcli.data.manifest import data_digest
from aumcli.recipe import load_recipe
from aumcli.train import loggers, report, trainer

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


# what a run leaves behind


def test_files_of_a_run(trained, corpus):
    files = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    files -= {
        "eval-test.json",
        "confusion-test.png",
        "reliability-test.png",
        "scores-test.npz",
    }  # other tests evaluate the same run
    assert files == {
        "recipe.toml",
        "train-clips.npy",
        "metrics.csv",
        "report.json",
        "report.md",
        "curves.png",
        "confusion-val.png",
        "last/state.pt",
        "best/config.json",
        "best/model.safetensors",
        "last/config.json",
        "last/model.safetensors",
    }
    assert all((trained / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "confusion-val.png"))
    report = json.loads((trained / "report.json").read_text())
    assert report["clips"] == 6 and report["split"] == "val" and report["seed"] == 0 and report["dtype"] == "float32"
    assert report["device"] == "cpu" and report["backend"] in ("cpu", "torch") and report["environment"]["torch"]
    rows = history(trained)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13)) == [row["epoch"] for row in report["epochs"]]
    recipe = load_recipe(trained / "recipe.toml")
    assert report["recipe"] == recipe.model_dump(mode="json")
    best = max(rows, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    provenance = load_model(trained).config.provenance
    assert provenance["epoch"] == int(best["epoch"]) and provenance["seed"] == 0 and provenance["data"] == str(corpus)
    assert report["metrics"]["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert load_model(trained / "last").config.provenance["epoch"] == 12


def test_the_resolved_recipe_trains_the_same_model(reference, corpus, tmp_path):
    run = quietly(load_recipe(reference / "recipe.toml"), tmp_path / "run", corpus)
    assert_same_run(run, reference)


def test_last_holds_the_averaged_weights_and_the_state_the_trained_ones(reference):
    state = torch.load(reference / "last" / "state.pt", weights_only=True)
    network = load_model(reference / "last").network.state_dict()
    assert all(torch.equal(network[name], tensor) for name, tensor in state["averaged"].items())
    assert not all(torch.equal(network[name], tensor) for name, tensor in state["network"].items())


# a report that says how it came about


def test_the_report_names_its_origin(trained, corpus):
    report = json.loads((trained / "report.json").read_text())
    whole = hashlib.sha256()
    for name in ("labels.csv", "manifest.csv"):
        whole.update(hashlib.sha256((corpus / name).read_bytes()).digest())
    assert report["data_sha256"] == whole.hexdigest() and report["data"] == str(corpus)
    assert report["processes"] == 1 and report["training_dtype"] == "float32"
    assert report["environment"]["torch"] == torch.__version__ and {"python", "cpu", "platform"} <= set(
        report["environment"]
    )
    text = (trained / "report.md").read_text()
    for value in (
        whole.hexdigest(),
        torch.__version__,
        "best accuracy",
        "100.00 % of 6 validation clips",
        "12 of 12",
        "curves.png",
    ):
        assert value in text, value
    for path in ("curves.png", "recipe.toml", "metrics.csv", "report.json"):
        assert f"{path}" in text and (trained / path).exists()


def test_another_manifest_is_another_digest(corpus, tmp_path):
    for name in ("labels.csv", "manifest.csv"):
        (tmp_path / name).write_bytes((corpus / name).read_bytes())
    assert data_digest(tmp_path) == data_digest(corpus)
    (tmp_path / "manifest.csv").write_bytes((corpus / "manifest.csv").read_bytes().replace(b"train", b"val", 1))
    assert data_digest(tmp_path) != data_digest(corpus)


# while it runs


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads: (step, value) by curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in board.Tags()["scalars"]}


def test_tensorboard_has_the_curves_of_metrics_csv(corpus, tmp_path):
    """A step per 10 of training, an epoch of 5 steps at a time of validation."""
    pytest.importorskip("tensorboard")
    run = quietly(tiny("train.tensorboard=true"), tmp_path / "run", corpus)
    rows, curves = history(run), events(run)
    assert [step for step, _ in curves["train/lr"]] == [10, 20]
    assert [value for _, value in curves["train/lr"]] == pytest.approx(
        [float(rows[1]["lr"]), float(rows[3]["lr"])], abs=1e-8
    )
    assert [value for _, value in curves["train/loss"]] == pytest.approx(
        [float(rows[1]["train_loss"]), float(rows[3]["train_loss"])], rel=1e-5
    )
    for name in ("loss", "accuracy", "map"):
        assert [step for step, _ in curves[f"val/{name}"]] == [5, 10, 15, 20]
        assert [value for _, value in curves[f"val/{name}"]] == pytest.approx(
            [float(row[f"val_{name}"]) for row in rows], rel=1e-5
        )


def test_tensorboard_after_resuming_has_each_step_once(corpus, tmp_path):
    """Killed after the state of epoch 2 but with epoch 3 on the board already: that is purged, and comes again."""
    pytest.importorskip("tensorboard")

    def say(text):
        if text.startswith("epoch   3/"):
            (tmp_path / "run" / "last" / "state.pt").write_bytes(kept[0])
            raise Stop
        if text.startswith("epoch   2/"):
            kept.append((tmp_path / "run" / "last" / "state.pt").read_bytes())

    kept = []
    with pytest.raises(Stop):
        quietly(tiny("train.tensorboard=true"), tmp_path / "run", corpus, say=say)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert [step for step, _ in events(tmp_path / "run")["val/loss"]] == [5, 10, 15, 20]


def test_without_tensorboard_the_extra_is_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    error = problem(quietly, tiny("train.tensorboard=true"), tmp_path / "run", corpus)
    assert "tensorboard" in error.problem and "aumcli[tensorboard]" in error.fix
    quietly(tiny("train.epochs=1"), tmp_path / "other", corpus)  # which needs none


def test_curves_are_drawn_while_it_runs_but_cost_little(corpus, tmp_path, monkeypatch):
    """By a clock on which an epoch takes a minute and drawing a second; and one on which drawing takes ten."""
    for drawing_s, drawn_after in ((1, [2, 3, 4, 5, 6]), (10, [2])):
        clock, drawn = [1000.0], []

        def draw(history, path, *names):
            clock[0] += drawing_s
            drawn.append(len(history))

        def step(*args):
            clock[0] += 12.0  # of five steps
            return loop_step(*args)

        loop_step = trainer.train_step
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr(trainer, "train_step", step)
            patch.setattr(loggers.time, "monotonic", lambda: clock[0])
            patch.setattr(loggers, "plot_curves", draw)
            patch.setattr(trainer, "_finish", lambda *args: stop())
            trainer.train(tiny("train.epochs=6"), tmp_path / str(drawing_s), corpus)
        assert drawn == drawn_after


def stop() -> None:
    raise Stop


def test_the_bar_on_a_terminal(corpus, tmp_path):
    """A real pseudo-terminal: loss, learning rate, clips per second, time left; nothing of it in a pipe."""
    command_line = command(
        "train",
        "--recipe",
        RECIPE,
        "--data",
        corpus,
        "--out",
        tmp_path / "run",
        "--set",
        "train.epochs=1",
        "--set",
        "train.batch_size=1",
    )
    slow = [
        *command_line[:1],
        "-c",
        "import sys, time\nfrom aumcli.train import trainer\nreal = trainer.train_step\n"
        "trainer.train_step = lambda *args: (time.sleep(0.2), real(*args))[1]\nfrom aumcli.cli import main\nmain()",
        *command_line[3:],
    ]
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
    with subprocess.Popen(slow, stdout=follower, stderr=follower, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        os.close(follower)
        text = read_all(leader, 60)
        assert process.wait(timeout=30) == 0, text
    bars = re.findall(
        r"epoch 1/1: +(\d+)%\|[^|]*\| (\d+)/18 \[\d\d:\d\d<(\d\d:\d\d), "
        r"[^\]]*loss (\d\.\d{4}), lr ([\d.e-]+), (\d+) clips/s\]",
        text,
    )
    assert bars, text
    percent, step, left, loss, rate, speed = next(bar for bar in bars if int(bar[1]) < 18)
    assert (
        left != "00:00"
        and int(percent) == round(100 * int(step) / 18)
        and float(rate) == pytest.approx(0.005 * int(step) / 18, rel=0.05)
    )
    assert 0.1 < float(loss) < 5 and 1 <= int(speed) <= 5
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["epochs"][0]["seconds"] > 3.6


def read_all(descriptor: int, seconds: float) -> str:
    """What comes out of a terminal until its last process ends."""
    end, parts = time.monotonic() + seconds, []
    while time.monotonic() < end:
        if select.select([descriptor], [], [], 1)[0]:
            try:
                parts.append(os.read(descriptor, 65536))
            except OSError:  # Linux says so when the other end is closed
                break
    os.close(descriptor)
    return b"".join(parts).decode()


def test_no_bar_in_a_pipe(aum, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "plot_curves", lambda *args: None)
    monkeypatch.setattr(report, "plot_curves", lambda *args: None)
    monkeypatch.setattr(report, "plot_confusion", lambda *args: None)
    done = aum("train", "--recipe", RECIPE, "--data", corpus, "--out", tmp_path / "run", "--set", "train.epochs=1")
    assert done.code == 0 and "clips/s" not in done.out + done.err and done.err.count("epoch   1/1") == 1

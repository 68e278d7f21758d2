"""SIGTERM and Ctrl-C: the step is finished and saved, the process says how to go on and ends by itself."""

import os
import signal
from pathlib import Path

import pytest
from tiny import RECIPE, tiny
from training import assert_same_run, problem, quietly, started, wait_for, workers_of

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

MANY_STEPS = (
    "train.batch_size=1",
    "train.epochs=8",
    "train.checkpoint_every_steps=1",
)  # 18 steps per epoch, each saved
NUMBERS = [signal.SIGTERM, signal.SIGINT]


def arguments(corpus: Path, out: Path, *settings: str) -> list[object]:
    return [
        "train",
        "--recipe",
        RECIPE,
        "--data",
        corpus,
        "--out",
        out,
        *(w for v in (*MANY_STEPS, *settings) for w in ("--set", v)),
    ]


@pytest.fixture(scope="module")
def undisturbed(corpus, tmp_path_factory) -> dict[int, Path]:
    """The run in one part and in two."""
    root = tmp_path_factory.mktemp("undisturbed")
    return {
        parts: quietly(tiny(*MANY_STEPS, f"train.gradient_accumulation_steps={parts}"), root / str(parts), corpus)
        for parts in (1, 2)
    }


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_after_any_step_of_an_epoch(reference, corpus, tmp_path, monkeypatch, number, step):
    """Signalled while step `step` of the second epoch is computed, the last one of an epoch too."""
    from aumcli.train import trainer

    steps, before = [], signal.getsignal(number)

    def signalled(*args):
        steps.append(1)
        if len(steps) == 5 + step:
            signal.raise_signal(number)
        return loss_of(*args)

    loss_of = trainer.loss_of
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "loss_of", signalled)
        error = problem(quietly, tiny(), tmp_path / "run", corpus)
    assert error.exit_code == 128 + number and f"in epoch 2 after step {step} of 5, which is saved" in error.problem
    assert f"aum train --resume --out {tmp_path / 'run'}" in error.fix and len(steps) == 5 + step
    assert signal.getsignal(number) == before
    said = []
    quietly(tiny(), tmp_path / "run", resume=True, say=said.append)
    assert any(f"epoch 1 of 4 and {step} of 5 steps" in text for text in said)
    assert_same_run(tmp_path / "run", reference)


def test_a_process_with_loader_workers_and_its_whole_group(undisturbed, corpus, tmp_path):
    """As a batch system and a terminal do it: the signal goes to the workers as well."""
    out = tmp_path / "a run"
    with started(*arguments(corpus, out, "train.workers=1")) as process:
        wait_for((out / "metrics.csv").exists, process)
        os.killpg(process.pid, signal.SIGTERM)
        said, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "which is saved" in err and f"--resume --out '{out}'" in err and "Traceback" not in err
    quietly(tiny(), out, resume=True)
    assert_same_run_but_workers(out, undisturbed[1])


def assert_same_run_but_workers(run: Path, other: Path) -> None:
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("workers = 1", "workers = 0"))
    assert_same_run(run, other)


@pytest.mark.parametrize("number, who", [(signal.SIGINT, "launcher"), (signal.SIGTERM, "worker")])
def test_two_processes(undisturbed, corpus, tmp_path, number, who):
    """The signal to `aum train --devices 2`, or to one of its processes alone, stops all of them at the same step."""
    out = tmp_path / "run"
    with started(*arguments(corpus, out), "--devices", "2") as process:
        wait_for((out / "metrics.csv").exists, process)
        os.kill(process.pid if who == "launcher" else workers_of(process.pid)[1], number)
        said, err = process.communicate(timeout=90)
    assert process.returncode == 128 + number, err
    assert err.count("which is saved") == 1 and f"--resume --out {out} --devices 2" in err and "Traceback" not in err, (
        err
    )
    quietly(tiny(), out, resume=True)  # in one process, which changes nothing
    assert_same_run(out, undisturbed[2])

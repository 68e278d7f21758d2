"""Several processes train as one: the same results, one that writes, and a start again where one dies."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny import RECIPE, sound, tiny
from training import TORCHRUN, history, quietly, started, train_in_team, wait_for, weights, workers_of

from aumcli.data.manifest import Clip, read_manifest, write_manifest
from aumcli.evaluate import evaluate
from aumcli.train import checkpoint, report, trainer
from aumcli.train.distributed import join_process_group

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

PLAIN = (
    "augment.shift_s=0",
    "augment.mixup=0",
    "augment.freq_mask=0",
    "augment.time_mask=0",
    "augment.speed=0",
    "model.drop_path=0",
)
FIFTY_STEPS = ("train.batch_size=5", "train.epochs=13")  # of 18 clips: 4 steps per epoch, the last one with 3


def losses(run: Path) -> list[float]:
    return [float(row[name]) for row in history(run) for name in ("train_loss", "val_loss")]


@pytest.fixture(scope="module")
def odd(corpus, tmp_path_factory) -> Path:
    """The corpus with 5 validation and 19 training clips: not divisible by 2, 3 or a batch."""
    manifest = read_manifest(corpus)
    clips = [*(clip for clip in manifest.clips if clip.split != "val"), *manifest.split("val")[:5]]
    folder = tmp_path_factory.mktemp("odd")
    write_manifest(
        folder, [*clips, Clip(sound(folder / "more.wav", 300.0), labels=("low",), split="train")], manifest.labels, {}
    )
    return folder


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory) -> Path:
    """13 epochs in one process, each batch in two parts, with all augmentation."""
    return quietly(
        tiny(*FIFTY_STEPS, "train.gradient_accumulation_steps=2"), tmp_path_factory.mktemp("alone") / "run", corpus
    )


def test_two_processes_train_as_one_in_two_parts(alone, corpus, tmp_path):
    assert train_in_team(2, tiny(*FIFTY_STEPS), tmp_path / "run", corpus) == ["", ""]
    assert len(losses(alone)) == 26 and losses(tmp_path / "run") == pytest.approx(losses(alone), abs=1e-5)
    assert (tmp_path / "run" / "recipe.toml").read_bytes() == (alone / "recipe.toml").read_bytes()


def test_each_of_fifty_steps_without_augmentation_has_the_loss_of_one_whole_batch(corpus, tmp_path):
    """A batch of all clips: an epoch is a step, and metrics.csv has a row for each."""
    recipe = tiny(*PLAIN, "train.batch_size=18", "train.epochs=50").with_values(augment={"noise": 0.0})
    quietly(recipe, tmp_path / "whole", corpus)
    quietly(recipe.with_values(train={"gradient_accumulation_steps": 4}), tmp_path / "parts", corpus)
    assert train_in_team(2, recipe, tmp_path / "team", corpus) == ["", ""]
    whole = losses(tmp_path / "whole")
    assert len(whole) == 100 and whole[98] < 0.5 * whole[0]
    for name in ("parts", "team"):
        assert losses(tmp_path / name) == pytest.approx(whole, abs=1e-5), name


@pytest.mark.parametrize("size", [2, 3])
def test_batches_and_splits_that_do_not_divide(odd, tmp_path, size):
    """19 clips in batches of 6: the last has one clip, fewer than there are processes."""
    recipe = tiny("train.batch_size=6", "train.epochs=2")
    quietly(recipe.with_values(train={"gradient_accumulation_steps": size}), tmp_path / "alone", odd)
    assert train_in_team(size, recipe, tmp_path / "team", odd) == [""] * size
    assert losses(tmp_path / "team") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)
    report = json.loads((tmp_path / "team" / "report.json").read_text())
    assert report["clips"] == 5 and report["processes"] == size
    assert (
        report["metrics"]["accuracy"] == evaluate(tmp_path / "team", split="val").metrics.accuracy
    )  # in one process, clip by clip


def test_more_processes_than_validation_clips(odd, tmp_path):
    manifest = read_manifest(odd)
    write_manifest(
        tmp_path / "data",
        [*(c for c in manifest.clips if c.split != "val"), *manifest.split("val")[:2]],
        manifest.labels,
        {},
    )
    assert train_in_team(3, tiny("train.epochs=1"), tmp_path / "run", tmp_path / "data") == [""] * 3
    assert json.loads((tmp_path / "run" / "report.json").read_text())["clips"] == 2


def test_parts_are_shared_evenly_or_refused(corpus, tmp_path):
    assert all(
        "multiple of 2" in text
        for text in train_in_team(2, tiny("train.gradient_accumulation_steps=3"), tmp_path / "run", corpus)
    )
    quietly(tiny("train.gradient_accumulation_steps=4", "train.epochs=1"), tmp_path / "alone", corpus)
    assert train_in_team(
        2, tiny("train.gradient_accumulation_steps=4", "train.epochs=1"), tmp_path / "team", corpus
    ) == ["", ""]
    assert losses(tmp_path / "team") == pytest.approx(losses(tmp_path / "alone"), abs=1e-5)


def test_only_one_process_writes_and_speaks(corpus, tmp_path, monkeypatch):
    log = tmp_path / "log"

    def noting(what: str, function):
        def note(*args, **kwargs):
            with open(log, "a") as file:
                file.write(f"{what} {os.environ['RANK']}\n")
            return function(*args, **kwargs)

        return note

    for module, names in (
        (checkpoint, ("atomic_path", "save_model")),
        (report, ("write_json", "write_text")),
        (trainer, ("write_text",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    recipe = tiny(
        "train.epochs=2",
        "train.tensorboard=true",
        "train.checkpoint_every_minutes=1e-9",
    )
    assert train_in_team(2, recipe, tmp_path / "run", corpus, say=noting("say", lambda text: None)) == ["", ""]
    lines = log.read_text().split("\n")[:-1]
    assert {line.split()[0] for line in lines} == {"atomic_path", "save_model", "write_json", "write_text", "say"}
    assert {line.split()[1] for line in lines} == {"0"}
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_gradients_are_reduced_in_buckets(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("aumcli.train.distributed.BUCKET_BYTES", 1000)
    assert train_in_team(2, tiny("train.epochs=1"), tmp_path / "pieces", corpus) == ["", ""]
    monkeypatch.undo()
    assert train_in_team(2, tiny("train.epochs=1"), tmp_path / "whole", corpus) == ["", ""]
    assert weights(tmp_path / "pieces") == weights(tmp_path / "whole")


def test_a_worker_that_dies_costs_the_last_steps_only(alone, corpus, tmp_path):
    """aum train --devices 2, one process killed within an epoch; the rest of the training ends with the same bits."""
    arguments = (
        "train",
        "--recipe",
        RECIPE,
        "--data",
        corpus,
        "--out",
        tmp_path / "run",
        "--devices",
        "2",
        "--set",
        "train.checkpoint_every_minutes=1e-9",
        *(word for value in FIFTY_STEPS for word in ("--set", value)),
    )
    with started(*arguments) as process:
        wait_for(
            lambda: (
                len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) > 3
                if (tmp_path / "run" / "metrics.csv").exists()
                else False
            ),
            process,
        )
        os.kill(workers_of(process.pid)[1], signal.SIGKILL)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "resuming after epoch" in err and (tmp_path / "run" / "report.json").exists()
    assert history(tmp_path / "run") == history(alone) and weights(tmp_path / "run") == weights(alone)
    before = weights(tmp_path / "run")
    with started(*arguments) as process:  # and the finished run is safe, without starting again and again
        out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.count("already holds a run") == 1 and "Traceback" not in err and out == ""
    assert weights(tmp_path / "run") == before


def test_processes_started_again_do_not_look_for_those_that_died():
    """The store lives on, with the addresses of the first attempt; the first process of the second one comes late."""
    context = multiprocessing.get_context("fork")
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    sums = context.SimpleQueue()

    def work(rank: int, attempt: int) -> None:
        os.environ.update(
            RANK=str(rank),
            WORLD_SIZE="2",
            MASTER_ADDR="localhost",
            MASTER_PORT=str(store.port),
            TORCHELASTIC_USE_AGENT_STORE="True",
            TORCHELASTIC_RESTART_COUNT=str(attempt),
        )
        time.sleep(attempt * (1 - rank))
        with join_process_group(torch.device("cpu")) as team:
            sums.put(team.sum([1.0], torch.device("cpu")))
            os._exit(0)

    for attempt in range(2):
        processes = [context.Process(target=work, args=(rank, attempt)) for rank in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(20)
            process.kill()
        assert [process.exitcode for process in processes] == [0, 0], f"attempt {attempt}"
        assert [sums.get() for _ in range(2)] == [[2.0], [2.0]]


def test_torchrun(alone, corpus, tmp_path):
    with started(
        "train",
        "--recipe",
        RECIPE,
        "--data",
        corpus,
        "--out",
        tmp_path / "run",
        *(w for v in FIFTY_STEPS for w in ("--set", v)),
        launcher=TORCHRUN,
    ) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.count("training and 6 validation clips") == 1 and err.count("epoch   1/13") == 1
    assert weights(tmp_path / "run") == weights(alone)

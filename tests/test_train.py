"""aum train: the same bits for the same seed, whatever happens on the way; and every file a run promises."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CLASSES, RATE_HZ, RECIPE, one_thread, sound, sounds, tiny

from aumcli.classifier import load_model
from aumcli.config import AugmentConfig, FrontendConfig, TrainConfig
from aumcli.core.frontend import LogMel
from aumcli.data.fit import fit_recipe
from aumcli.data.manifest import Clip, Label, read_manifest, write_manifest
from aumcli.errors import AumError
from aumcli.evaluate import evaluate
from aumcli.recipe import load_recipe
from aumcli.data.batch import make_batch
from aumcli.train import loop, train, watch
from aumcli.train.loop import loss_of
from aumcli.train.optim import learning_rate, make_optimizer

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def quietly(*args, **kwargs) -> Path:
    """Train without a word, and without plots: they take longer than these trainings (the fixture `trained` has them)."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        for name in ("plot_curves", "plot_confusion"):
            patch.setattr(watch, name, lambda *args: None)
        return train(*args, say=kwargs.pop("say", lambda text: None), **kwargs)


def weights(run: Path) -> dict[str, bytes]:
    return {name: (run / name / "model.safetensors").read_bytes() for name in ("best", "last")}


def history(run: Path) -> list[dict[str, str]]:
    with open(run / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory) -> Path:
    """Four epochs without any disturbance."""
    return quietly(tiny(), tmp_path_factory.mktemp("reference") / "run", corpus)


def assert_same_run(run: Path, reference: Path) -> None:
    assert weights(run) == weights(reference)
    assert history(run) == history(reference)
    assert (run / "recipe.toml").read_bytes() == (reference / "recipe.toml").read_bytes()


def problem(function, *args, **kwargs) -> AumError:
    with pytest.raises(AumError) as caught:
        function(*args, **kwargs)
    assert caught.value.fix
    return caught.value


# the same seed, the same bits

def test_same_seed_same_bytes(reference, corpus, tmp_path):
    torch.manual_seed(123)                                                  # what happened before doesn't matter
    np.random.seed(5)
    run = quietly(tiny(), tmp_path / "run", corpus)
    assert_same_run(run, reference)
    reports = [json.loads((each / "report.json").read_text()) for each in (run, reference)]
    for report in reports:
        for row in report["epochs"]:
            del row["seconds"]
    assert reports[0] == reports[1]


def test_another_seed_other_bytes(reference, corpus, tmp_path):
    run = quietly(tiny("seed=1"), tmp_path / "run", corpus)
    assert weights(run)["last"] != weights(reference)["last"]


def test_same_seed_same_bytes_on_several_threads(corpus, tmp_path):
    recipe = tiny("train.epochs=1", "train.batch_size=16", "model.width=32").model_dump_json()
    code = ("import sys, torch; from aumcli.recipe import Recipe; from aumcli.train import train\n"
            "torch.set_num_threads(2)\n"
            "for out in sys.argv[3:]: train(Recipe.model_validate_json(sys.argv[1]), out, sys.argv[2])")
    runs = [tmp_path / "one", tmp_path / "two"]
    subprocess.run([sys.executable, "-c", code, recipe, corpus, *runs], check=True, stdout=subprocess.DEVNULL,
                   env=os.environ | {"OMP_WAIT_POLICY": "passive"})    # threads that wait leave the cores to others
    assert weights(runs[0]) == weights(runs[1])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(reference, corpus, tmp_path, workers):
    run = quietly(tiny(f"train.workers={workers}"), tmp_path / "run", corpus)
    assert weights(run) == weights(reference)
    assert history(run) == history(reference)


def test_the_cache_changes_nothing(reference, corpus, tmp_path):
    run = quietly(tiny("data.cache_mb=0"), tmp_path / "run", corpus)
    assert weights(run) == weights(reference)


# stopping and going on

class Stop(BaseException):
    pass


def stop_after(epochs: int):
    def say(text):
        if text.startswith(f"epoch {epochs:>3}/"):
            raise Stop
    return say


@pytest.mark.parametrize("epochs", [1, 3])
def test_stop_between_epochs_and_resume(reference, corpus, tmp_path, epochs):
    with pytest.raises(Stop):
        quietly(tiny(), tmp_path / "run", corpus, say=stop_after(epochs))
    assert len(history(tmp_path / "run")) == epochs
    said = []
    quietly(tiny("seed=7"), tmp_path / "run", None, resume=True, say=said.append)      # the run's own recipe counts
    assert any(f"going on after epoch {epochs} of 4" in text for text in said)
    assert_same_run(tmp_path / "run", reference)


@pytest.mark.parametrize("moment", range(1, 7))
def test_crash_between_any_two_files_of_an_epoch(reference, corpus, tmp_path, monkeypatch, moment):
    """Die at the moment-th rename of the second epoch: metrics.csv, best/ (where better), last/, last/state.pt."""
    replace, left = os.replace, [None]

    def say(text):
        if text.startswith("epoch   1/"):
            left[0] = moment

    def crash(source, target):
        if left[0] is not None:
            left[0] -= 1
            if not left[0]:
                raise Stop
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("aumcli.files.os.replace", crash)
        quietly(tiny(), tmp_path / "run", corpus, say=say)
    quietly(tiny(), tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", reference)
    assert not list((tmp_path / "run").rglob("*.part"))


def test_killed_in_the_middle_of_an_epoch_and_resumed(reference, corpus, tmp_path):
    """SIGKILL a real process at a random moment after its first epoch."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "aumcli", "train", "--recipe", RECIPE, "--data", corpus, "--out", run]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}        # as here: threads decide in which parts a sum is taken
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not (run / "last" / "state.pt").exists() and process.poll() is None:
            time.sleep(0.002)
        delay_s = random.uniform(0, 0.3)
        time.sleep(delay_s)
        process.kill()
        message = process.stderr.read().decode()
    assert (run / "last" / "state.pt").exists(), message
    load_model(run)
    load_model(run / "last")
    quietly(tiny(), run, resume=True)
    assert weights(run) == weights(reference), f"killed {delay_s} s after the first epoch"
    assert history(run) == history(reference)


def test_resuming_a_finished_run_changes_nothing(reference, tmp_path):
    run = shutil.copytree(reference, tmp_path / "run")
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


def test_an_existing_run_is_never_overwritten(reference, corpus):
    before = weights(reference)
    error = problem(quietly, tiny(), reference, corpus)
    assert error.exit_code == 2 and "already holds a run" in error.problem and "--resume" in error.fix
    assert weights(reference) == before


def test_resume_without_a_run(corpus, tmp_path):
    error = problem(quietly, tiny(), tmp_path / "run", corpus, resume=True)
    assert error.exit_code == 2 and "no run to resume" in error.problem
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("spoil", [lambda data: data[:-50], lambda data: b"", lambda data: b"text"])
def test_resume_from_a_damaged_state(reference, tmp_path, spoil):
    run = shutil.copytree(reference, tmp_path / "run")
    state = run / "last" / "state.pt"
    state.write_bytes(spoil(state.read_bytes()))
    assert "state.pt" in problem(quietly, tiny(), run, resume=True).problem
    assert weights(run) == weights(reference)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("name", ["metrics.csv", "last/model.safetensors", "last/config.json", "last/state.pt"])
def test_a_full_disk_loses_no_epoch(reference, corpus, tmp_path, name):
    run = tmp_path / "run"

    def say(text):
        if text.startswith("epoch   1/"):
            path = run / name
            path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")
            kept.update({path: path.read_bytes()})

    kept = {}
    error = problem(quietly, tiny(), run, corpus, say=say)
    assert error.exit_code == 1 and "no space left" in error.problem and name in error.problem and "--resume" in error.fix
    assert all(path.read_bytes() == data for path, data in kept.items()) and kept
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


# what a run leaves behind

def test_files_of_a_run(trained, corpus):
    files = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    files -= {"eval-test.json", "confusion-test.png"}                       # other tests evaluate the same run
    assert files == {"recipe.toml", "metrics.csv", "report.json", "report.md", "curves.png", "confusion-val.png", "last/state.pt",
                     "best/config.json", "best/model.safetensors", "last/config.json", "last/model.safetensors"}
    assert all((trained / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "confusion-val.png"))
    report = json.loads((trained / "report.json").read_text())
    assert report["clips"] == 6 and report["split"] == "val" and report["seed"] == 0 and report["dtype"] == "float32"
    assert report["device"] == "cpu" and report["backend"] in ("cpu", "torch") and report["environment"]["torch"]
    rows = history(trained)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13)) == [row["epoch"] for row in report["epochs"]]
    recipe = load_recipe(trained / "recipe.toml")
    assert report["recipe"] == recipe.model_dump(mode="json")
    best = max(rows, key=lambda row: float(row["val_accuracy"]))            # the first of equals
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


def test_it_learns(trained):
    assert float(history(trained)[-1]["val_accuracy"]) == 1.0


# the data

def test_quickstart_fits_itself(tmp_path):
    clips = [Clip(sound(tmp_path / f"{i}.wav", hz, seconds=0.6 + 0.02 * i, rate_hz=11025), labels=(name,))
             for i, (name, hz) in enumerate([*CLASSES.items()] * 6)]
    clips.append(Clip(sound(tmp_path / "rare.wav", 300.0, seconds=0.7, rate_hz=22050), labels=("low",)))
    recipe = fit_recipe(load_recipe("quickstart"), clips, 3, False)
    assert recipe.frontend.sample_rate_hz == 11025                         # that of most
    assert 0.9 <= recipe.frontend.clip_s <= 1.1                            # 95 % of the clips fit in whole
    assert recipe.frontend.frames % recipe.model.patch_frames == 0
    assert (recipe.model.n_classes, recipe.train.loss, recipe.data.fit) == (3, "cross_entropy", ())
    from aumcli.data.dataset import Waveforms

    logmel, waveforms = LogMel(recipe.frontend), Waveforms(clips, 11025, 0)
    values = torch.cat([logmel.normalise(logmel.energies(torch.from_numpy(waveforms[i])[None])).flatten()
                        for i in range(len(clips))])
    assert abs(values.mean()) < 1e-3 and values.std() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("seconds, clip_s", [(0.1, 0.5), (12.0, 10.0)])
def test_fitted_length_has_limits(tmp_path, seconds, clip_s):
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, seconds, seed=i), labels=("low",)) for i in range(2)]
    recipe = fit_recipe(load_recipe("quickstart"), clips, 2, False)
    assert recipe.frontend.clip_s == pytest.approx(clip_s, abs=0.06)


def test_fitted_rate_has_a_limit(tmp_path):
    clips = [Clip(sound(tmp_path / "a.wav", 300.0, rate_hz=48000), labels=("low",))]
    assert fit_recipe(load_recipe("quickstart"), clips, 2, False).frontend.sample_rate_hz == 16000


def test_slices_are_measured_not_files(tmp_path):
    path = sound(tmp_path / "long.wav", 300.0, seconds=20)
    clips = [Clip(path, float(i), i + 1.0, ("low",)) for i in range(20)]
    assert fit_recipe(load_recipe("quickstart"), clips, 2, False).frontend.clip_s == pytest.approx(1.0, abs=0.06)


def test_nothing_is_fitted_unless_asked(corpus):
    recipe = load_recipe("quickstart", ["data.fit=[]"])
    fitted = fit_recipe(recipe, read_manifest(corpus).split("train"), 3, False)
    assert fitted.frontend == recipe.frontend


@pytest.fixture
def speakers(tmp_path) -> Path:
    """A prepared folder in which ann, bob and cid each have clips in all three splits."""
    clips = []
    for group in ("ann", "bob", "cid"):
        for name, hz in CLASSES.items():
            for number, split in enumerate(("train", "train", "val", "test")):
                path = sound(tmp_path / group / f"{name}{number}.wav", hz, seed=number + 10 * len(clips))
                clips.append(Clip(path, labels=(name,), split=split, group=group))
    write_manifest(tmp_path / "data", clips, [Label(i, name, name) for i, name in enumerate(CLASSES)], {})
    return tmp_path / "data"


def test_hold_out_never_hears_the_group_and_tests_on_all_of_it(speakers, tmp_path):
    (tmp_path / "bob").rename(tmp_path / "away")                            # not one of its files is opened
    said = []
    run = quietly(tiny("data.hold_out=bob", "train.epochs=1"), tmp_path / "run", speakers, say=said.append)
    assert "12 training and 6 validation clips" in said[0]
    (tmp_path / "away").rename(tmp_path / "bob")
    assert evaluate(run).metrics.clips == 12
    assert evaluate(run, split="val").metrics.clips == 6


def test_hold_out_of_an_unknown_group(speakers, corpus, tmp_path):
    assert "ann, bob, cid" in problem(quietly, tiny("data.hold_out=dan"), tmp_path / "run", speakers).fix
    assert "has no groups" in problem(quietly, tiny("data.hold_out=dan"), tmp_path / "run", corpus).fix


@pytest.mark.parametrize("emptied", ["val", "train"])
def test_hold_out_that_leaves_a_split_empty(speakers, tmp_path, emptied):
    manifest = read_manifest(speakers)
    clips = [clip for clip in manifest.clips if clip.split != emptied or clip.group == "bob"]
    write_manifest(speakers, clips, manifest.labels, {})
    assert emptied in problem(quietly, tiny("data.hold_out=bob"), tmp_path / "run", speakers).problem


@pytest.fixture(scope="module")
def chords(tmp_path_factory) -> Path:
    """A prepared folder whose clips have one or two labels."""
    root, clips, rng = tmp_path_factory.mktemp("chords"), [], np.random.default_rng(0)
    import soundfile

    t = np.arange(RATE_HZ // 2) / RATE_HZ
    for number in range(30):
        labels = [("low",), ("high",), ("low", "high")][number % 3]
        wave = sum(0.2 * np.sin(2 * np.pi * CLASSES[name] * rng.uniform(0.9, 1.1) * t) for name in labels)
        soundfile.write(root / f"{number}.wav", wave + 0.02 * rng.standard_normal(len(t)), RATE_HZ)
        clips.append(Clip(root / f"{number}.wav", labels=labels, split=("train", "train", "train", "val", "test")[number // 3 % 5]))
    write_manifest(root / "data", clips, [Label(0, "low", "low"), Label(1, "high", "high")], {})
    return root / "data"


def test_several_labels_per_clip(chords, tmp_path):
    run = quietly(tiny("train.epochs=3", "train.lr=0.01", "train.ema=0"), tmp_path / "run", chords)
    assert load_recipe(run / "recipe.toml").train.loss == "bce"
    assert "val_map" in history(run)[0] and "val_accuracy" not in history(run)[0]
    model = load_model(run)
    assert model.config.activation == "sigmoid"
    result = evaluate(run)
    assert result.metrics.accuracy is None and result.metrics.confusion is None and result.metrics.multi_label
    assert 0 <= result.metrics.mean_average_precision <= 1
    both = next(clip for clip in read_manifest(chords).clips if len(clip.labels) == 2)
    assert sum(score for _, score in model.predict(both.path)) > 1          # not forced to share one


def test_the_losses():
    logits, targets = torch.tensor([[2.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    assert loss_of(logits, targets, TrainConfig(loss="cross_entropy")) == pytest.approx(
        float(-torch.log_softmax(logits, 1)[0, 0]))
    p = torch.sigmoid(logits)
    assert loss_of(logits, targets, TrainConfig(loss="bce")) == pytest.approx(
        float(-(targets * p.log() + (1 - targets) * (1 - p).log()).mean()))


def test_a_single_validation_clip(corpus, tmp_path):
    manifest = read_manifest(corpus)
    clips = [*(clip for clip in manifest.clips if clip.split != "val"), *manifest.split("val")[:1]]
    write_manifest(tmp_path / "data", clips, manifest.labels, {})
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", tmp_path / "data")
    assert json.loads((run / "report.json").read_text())["clips"] == 1


def test_three_sample_clips_are_trained_on(tmp_path):
    paths = sorted(sounds(tmp_path / "sounds", 4, seconds=3 / RATE_HZ).rglob("*.wav"))       # aum prepare would leave them out
    clips = [Clip(path, labels=(path.parent.name,), split="val" if path.stem == "0" else "train") for path in paths]
    write_manifest(tmp_path / "data", clips, [Label(place, name, name) for place, name in enumerate(CLASSES)], {})
    run = quietly(tiny("train.epochs=1"), tmp_path / "run", tmp_path / "data")
    assert np.isfinite(float(history(run)[0]["train_loss"]))


def test_a_clip_that_breaks_after_preparing(tmp_path, corpus):
    manifest = read_manifest(corpus)
    bad = sound(tmp_path / "bad.wav", 300.0)
    bad.write_bytes(bad.read_bytes()[:-100])
    write_manifest(tmp_path / "data", [*manifest.clips, Clip(bad, labels=("low",), split="train")], manifest.labels, {})
    error = problem(quietly, tiny(), tmp_path / "run", tmp_path / "data")
    assert "bad.wav is truncated" in error.problem and error.exit_code == 1


def test_a_clip_that_a_worker_cannot_read(tmp_path, corpus):
    manifest = read_manifest(corpus)
    bad = sound(tmp_path / "bad.wav", 300.0)
    bad.write_bytes(bad.read_bytes()[:-100])
    write_manifest(tmp_path / "data", [*manifest.clips, Clip(bad, labels=("low",), split="train")], manifest.labels, {})
    recipe = tiny("train.workers=1", "data.fit=[]", "frontend.frames=48", "frontend.sample_rate_hz=8000")
    error = problem(quietly, recipe, tmp_path / "run", tmp_path / "data")
    assert "bad.wav is truncated" in error.problem and error.exit_code == 1 and "Traceback" not in error.problem


def test_no_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--data" in problem(quietly, tiny(), tmp_path / "run").fix
    assert "not a prepared corpus" in problem(quietly, tiny("data.corpus=fsdd"), tmp_path / "run").problem
    assert "no split 'dev'" in problem(quietly, tiny("data.val=dev"), tmp_path / "run", _two_splits(tmp_path)).problem


def _two_splits(folder: Path) -> Path:
    clips = [Clip(sound(folder / f"{name}.wav", 300.0), labels=(name,), split="train") for name in "ab"]
    write_manifest(folder / "two", clips, [Label(0, "a", "a"), Label(1, "b", "b")], {})
    return folder / "two"


# losses that are no numbers

def test_a_diverging_run_says_where(corpus, tmp_path):
    error = problem(quietly, tiny("train.lr=1e30", "train.warmup_epochs=0"), tmp_path / "run", corpus)
    assert error.exit_code == 1 and "train.lr" in error.fix
    for expected in ("epoch 1, step 2", "learning rate 9", ".wav"):
        assert expected in error.problem


def test_the_last_good_epoch_is_kept(reference, corpus, tmp_path, monkeypatch):
    run, steps = tmp_path / "run", []

    def diverge(*args):
        steps.append(1)
        return loss_of(*args) * (float("nan") if len(steps) == 8 else 1.0)      # of 5 steps per epoch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "loss_of", diverge)
        error = problem(quietly, tiny(), run, corpus)
    assert "epoch 2, step 3" in error.problem and "last" in error.fix
    assert len(history(run)) == 1 and load_model(run / "last").config.provenance["epoch"] == 1
    quietly(tiny(), run, resume=True)
    assert_same_run(run, reference)


def test_weights_that_diverge_in_an_epochs_last_step_are_not_kept(corpus, tmp_path):
    error = problem(quietly, tiny("train.lr=1e30", "train.warmup_epochs=0", "train.batch_size=64"), tmp_path / "run", corpus)
    assert error.exit_code == 1 and "train.lr" in error.fix
    assert not (tmp_path / "run" / "best").exists() and not (tmp_path / "run" / "last").exists()


# batches and schedules

ALL = AugmentConfig(shift_s=0.2, mixup=1.0, freq_mask=8, time_mask=8, speed=0.3, tempo=0.3, warp=0.2, gain_db=12,
                    noise_snr_db=0.0, band=1.0, reverb=1.0, masking="epic_sounds", feature_noise=0.1, roll=5)
FRONTEND = FrontendConfig(sample_rate_hz=RATE_HZ, n_mels=32, frames=48)


def some_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(samples).astype(np.float32)
            for samples in (3, 100, 3900, FRONTEND.clip_samples, 5 * FRONTEND.clip_samples)]


@pytest.mark.parametrize("augment", [ALL, AugmentConfig()] + [
    AugmentConfig(**{name: getattr(ALL, name)}) for name in AugmentConfig.model_fields])
def test_batches_with_each_and_every_augmentation(augment):
    targets = torch.eye(5)
    batches = [make_batch(LogMel(FRONTEND), some_clips(), targets, augment, torch.Generator().manual_seed(3)) for _ in range(2)]
    features, mixed = batches[0]
    assert features.shape == (5, 48, 32) and mixed.shape == (5, 5) and features.dtype == torch.float32
    assert torch.isfinite(features).all()
    assert torch.allclose(mixed.sum(1), torch.ones(5))
    assert torch.equal(mixed, targets) == (augment.mixup == 0)
    assert torch.equal(features, batches[1][0])
    other, _ = make_batch(LogMel(FRONTEND), some_clips(), targets, augment, torch.Generator().manual_seed(4))
    assert not torch.equal(features, other)


def test_without_augmentation_training_sees_what_prediction_sees():
    logmel, clips = LogMel(FRONTEND), some_clips()[:4]                      # none is longer than the input
    features, _ = make_batch(logmel, clips, torch.eye(4), AugmentConfig(), torch.Generator().manual_seed(3))
    for row, clip in zip(features, clips):
        assert torch.allclose(row, logmel(torch.from_numpy(clip)[None])[0], atol=1e-4)


def test_silence_and_one_clip_alone():
    features, _ = make_batch(LogMel(FRONTEND), [np.zeros(3900, dtype=np.float32)], torch.ones(1, 1), ALL,
                             torch.Generator().manual_seed(3))
    assert torch.isfinite(features).all()


def rates(points, **settings) -> list[float]:
    return [learning_rate(TrainConfig(lr=1.0, epochs=10, **settings), point) for point in points]


def test_warm_up_rises_in_a_line_from_zero():
    assert rates([0.0, 0.5, 1.0, 1.5, 2.0], warmup_epochs=2, schedule="constant") == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_constant():
    assert rates([0.1, 3, 9.9], warmup_epochs=0, schedule="constant") == [1, 1, 1]


def test_cosine_falls_to_zero_at_the_end():
    points = np.linspace(2, 10, 33)
    values = rates(points, warmup_epochs=2, schedule="cosine")
    assert values[0] == 1 and values[-1] == pytest.approx(0, abs=1e-12) and values[16] == pytest.approx(0.5)
    assert values == sorted(values, reverse=True)


def test_steps():
    points = [0.5, 1.99, 2.0, 2.5, 3.0, 5.99, 6.0]
    assert rates(points, warmup_epochs=0, schedule="steps") == [1, 1, 0.5, 0.5, 0.25, 0.0625, 0.03125]
    assert rates([4.9, 5, 7.9, 8], warmup_epochs=0, schedule="steps", decay_start=5, decay_every=3, decay_factor=0.1) == \
        pytest.approx([1, 0.1, 0.1, 0.01])


@pytest.mark.parametrize("schedule", ["cosine", "steps", "constant"])
@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 10, 25])
def test_any_warm_up_goes_with_any_schedule(schedule, warmup_epochs):
    values = rates(np.linspace(0.01, 10, 50), schedule=schedule, warmup_epochs=warmup_epochs)
    assert all(0 <= value <= 1 for value in values)


def test_a_warm_up_in_steps_counts_instead_of_one_in_epochs():
    settings = TrainConfig(lr=1.0, epochs=10, warmup_steps=30, warmup_epochs=7, schedule="constant")
    assert [_learning_rate(settings, epochs, 20) for epochs in (0.05, 0.75, 1.5, 2, 9)] == pytest.approx([1 / 30, 0.5, 1, 1, 1])


def test_steps_decay_after_an_epochs_last_step(corpus, tmp_path, monkeypatch):
    """As MultiStepLR, which is asked after each epoch; and the warm-up begins at zero, as published."""
    seen, step = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: seen.append(self.param_groups[0]["lr"]) or step(self))
    quietly(tiny("train.optimizer=adam", "train.schedule=steps", "train.warmup_steps=4", "train.decay_start=2", "train.lr=0.01"),
            tmp_path / "run", corpus)
    assert seen == pytest.approx([0, 0.0025, 0.005, 0.0075, 0.01] + 5 * [0.01] + 5 * [0.005] + 5 * [0.0025])     # 5 steps an epoch


def test_bfloat16_trains_nearly_the_same(reference, corpus, tmp_path):
    run = quietly(tiny("train.dtype=bfloat16"), tmp_path / "run", corpus)
    assert weights(run) != weights(reference)
    assert load_model(run).network.head.weight.dtype == torch.float32
    losses = [[float(row["train_loss"]) for row in history(each)] for each in (run, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


PUBLISHED = ("data.val_share=0.2", "data.sampling=balanced", "augment.feature_noise=0.1", "augment.roll=3", "augment.masking=epic_sounds",
             "train.optimizer=adam", "train.weight_decay=5e-7", "train.betas=[0.95, 0.999]", "train.schedule=steps", "train.warmup_steps=3",
             "train.loss=bce", "train.clip_grad=0", "train.ema=0", "train.epochs=2")


def test_the_published_pieces_together_resumed(corpus, tmp_path):
    said = []
    whole = quietly(tiny(*PUBLISHED), tmp_path / "whole", corpus, say=said.append)
    assert "14 training and 4 validation clips" in said[0]                                  # of 18
    assert any("kept out of training" in text for text in said) and any(text.endswith("balanced") for text in said)
    assert json.loads((whole / "report.json").read_text())["clips"] == 4
    with pytest.raises(Stop):
        def say(text):
            if text.startswith("epoch   1/"):
                raise Stop
        quietly(tiny(*PUBLISHED), tmp_path / "run", corpus, say=say)
    quietly(tiny(), tmp_path / "run", corpus, resume=True)
    assert_same_run(tmp_path / "run", whole)


def test_the_schedule_is_what_the_optimizer_gets(reference):
    settings = load_recipe(reference / "recipe.toml").train
    assert [float(row["lr"]) for row in history(reference)] == [learning_rate(settings, epoch) for epoch in (1.0, 2.0, 3.0, 4.0)]
    state = torch.load(reference / "last" / "state.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == learning_rate(settings, 4.0)


@pytest.mark.parametrize("optimizer, spared", [("adamw", True), ("adam", False)])
def test_decay_spares_gains_and_biases_for_adamw_only(optimizer, spared):
    from aumcli.core.audio_mamba import AudioMamba

    network = AudioMamba(tiny().model)
    groups = make_optimizer(network, TrainConfig(optimizer=optimizer)).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    decayed = {id(tensor) for group in groups if group["weight_decay"] for tensor in group["params"]}
    for name, tensor in network.named_parameters():
        is_spared = spared and (tensor.ndim < 2 or "A_" in name or name in ("cls_token", "pos_embed.pos_embed"))
        assert (id(tensor) not in decayed) == is_spared, name

"""Heads on a frozen network: what is encoded once, kept and found again."""

import re
import shutil

import numpy as np
import pytest
import torch
from tiny import CLASSES, sound, tiny
from training import Stop, assert_same_run, history, problem, quietly, train_in_team, weights

from aumcli.classifier import Classifier, load_model
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import Clip, read_manifest, write_manifest
from aumcli.plan import adopt_model
from aumcli.recipe import load_recipe
from aumcli.train import embeddings, trainer
from aumcli.train.dry_run import dry_run_training

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
PLAIN = ("augment.policy=none", "augment.speed=0", "augment.noise=0", "augment.shift_s=0", "augment.mixup=0")
PLAIN += ("augment.freq_mask=0", "augment.time_mask=0", "train.freeze=backbone", "train.ema=0", "train.epochs=6")
VIEWS = ("augment.shift_s=0.05", "augment.noise=0.1", "train.augmented_views=2")


@pytest.fixture
def data(corpus, tmp_path):
    """A prepared folder of the test's own, which may keep embeddings."""
    return shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns(embeddings.FOLDER))


@pytest.fixture
def encoded(monkeypatch):
    """How many windows each call of the network encoded."""
    calls, embed = [], Classifier.embed

    def count(self, features):
        calls.append(len(features))
        return embed(self, features)

    monkeypatch.setattr(Classifier, "embed", count)
    return calls


def test_a_second_training_encodes_nothing_and_gives_the_same_weights(data, tmp_path, encoded):
    said = []
    quietly(tiny(*PLAIN), tmp_path / "one", data, say=said.append)
    assert sum(encoded) == 24 and any("24 windows of clips encoded, kept in" in text for text in said)
    encoded.clear()
    said.clear()
    quietly(tiny(*PLAIN), tmp_path / "two", data, say=said.append)
    assert encoded == [] and any("0 windows of clips encoded, 24 found in" in text for text in said)
    assert weights(tmp_path / "two") == weights(tmp_path / "one")
    assert history(tmp_path / "two") == history(tmp_path / "one")


def test_only_the_head_is_trained_and_it_learns(data, trained, tmp_path):
    run = quietly(tiny(*PLAIN, "train.epochs=60", "train.lr=0.05", f"train.init={trained}"), tmp_path / "run", data)
    before, after = (load_model(each).network.state_dict() for each in (trained, run))
    assert {name for name in before if not torch.equal(before[name], after[name])} <= {"head.weight", "head.bias"}
    assert float(history(run)[-1]["val_accuracy"]) == 1.0


@pytest.mark.parametrize("settings", [(), VIEWS])
def test_the_head_is_the_one_that_is_trained_without_keeping_anything(data, tmp_path, monkeypatch, settings):
    """Each step encodes its own clips, straight through the network."""
    recipe = tiny(*PLAIN, *settings)
    quietly(recipe, tmp_path / "kept", data)
    states, build = [], trainer.build

    def remember(*args, **kwargs):
        built = build(*args, **kwargs)
        states.append(built[0])
        return built

    def view(self, epoch, clips):
        state, number = states[0], epoch % (1 + recipe.train.augmented_views)
        encoder = embeddings._Encoder(state, None, None)
        rows = []
        for clip in clips:
            waveform = state.train[clip]
            seed = int.from_bytes(embeddings.hashlib.sha256(waveform.tobytes()).digest()[:7], "big")
            rows.append(encoder._embed([embeddings._Item(clip, waveform, number)], [seed])[0])
        return torch.from_numpy(np.stack(rows))

    monkeypatch.setattr(trainer, "build", remember)
    monkeypatch.setattr(embeddings.Embeddings, "view", view)
    quietly(recipe, tmp_path / "anew", data)
    kept, anew = (load_model(tmp_path / name / "last").network.state_dict() for name in ("kept", "anew"))
    for name in kept:
        torch.testing.assert_close(kept[name], anew[name], atol=1e-5, rtol=1e-4)


def test_the_model_that_is_saved_scores_as_the_training_said(data, tmp_path):
    """The best head goes into best/, though it is written later."""
    run = quietly(tiny(*PLAIN, "train.epochs=9", "train.lr=0.3"), tmp_path / "run", data)
    rows, model, clips = history(run), load_model(run), read_manifest(data).split("val")
    best = model.config.provenance["epoch"]
    scores = np.stack([model.score([load_audio(clip.path, 8000)[0]])[0] for clip in clips])
    truth = read_manifest(data).targets(clips).argmax(1)
    assert (scores.argmax(1) == truth).mean() == pytest.approx(float(rows[best - 1]["val_accuracy"]))
    assert np.mean(-np.log(scores[range(len(truth)), truth])) == pytest.approx(float(rows[best - 1]["val_loss"]), 1e-4)
    assert load_model(run / "last").config.provenance["epoch"] == 9


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_run_that_was_killed_ends_with_the_same_bits(data, tmp_path, monkeypatch, epochs):
    recipe = tiny(*PLAIN, *VIEWS)
    quietly(recipe, tmp_path / "whole", data)
    monkeypatch.setattr(trainer, "HEAD_SAVED_S", 0)
    step, count = trainer.train_step, [0]

    def die(*args):
        count[0] += 1
        if count[0] > epochs * 5 + 1:  # in the second of an epoch's five steps
            raise Stop
        step(*args)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(trainer, "train_step", die)
        quietly(recipe, tmp_path / "run", data)
    assert len(history(tmp_path / "run")) == epochs
    quietly(recipe, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_killed_while_encoding_it_goes_on_where_it_was(data, tmp_path, monkeypatch, encoded):
    monkeypatch.setattr(embeddings, "BATCH_WINDOWS", 5)
    quietly(tiny(*PLAIN), tmp_path / "whole", shutil.copytree(data, tmp_path / "copy"))
    put, count = embeddings.Journal.put, [0]

    def die(self, items):
        if count[0] == 2:
            raise Stop
        put(self, items)
        count[0] += 1

    encoded.clear()
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(embeddings.Journal, "put", die)
        quietly(tiny(*PLAIN), tmp_path / "run", data)
    encoded.clear()
    quietly(tiny(*PLAIN), tmp_path / "run", data)
    assert sum(encoded) == 14  # of 24, ten were kept
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_new_clip_is_encoded_and_no_other(data, trained, tmp_path, encoded):
    recipe = tiny(*PLAIN, *VIEWS, f"train.init={trained}")
    quietly(recipe, tmp_path / "one", data)
    assert sum(encoded) == 3 * 18 + 6
    manifest = read_manifest(data)
    new = Clip(sound(tmp_path / "new.wav", CLASSES["low"], seed=99), None, None, ("low",), "train")
    write_manifest(data, [new, *manifest.clips], manifest.labels, {})
    encoded.clear()
    quietly(recipe, tmp_path / "two", data)
    assert sum(encoded) == 3


@pytest.mark.parametrize("change", ["data.infer=[]", "seed=5", "model.state_size=8"])
def test_another_network_or_frontend_is_encoded_anew(data, tmp_path, encoded, change):
    quietly(tiny(*PLAIN), tmp_path / "one", data)
    encoded.clear()
    quietly(tiny(*PLAIN, change), tmp_path / "two", data)
    assert sum(encoded) == 24


def test_views_are_augmented_and_belong_to_the_clip(data, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(trainer, "encode", lambda state, stop: (embeddings.encode(state, stop), kept.append(state))[0])
    quietly(tiny(*PLAIN, *VIEWS), tmp_path / "one", data)
    manifest = read_manifest(data)
    shutil.rmtree(data / embeddings.FOLDER)
    write_manifest(data, [*manifest.clips][::-1], manifest.labels, {})
    quietly(tiny(*PLAIN, *VIEWS), tmp_path / "two", data)
    first, second = (state.embeddings.train for state in kept)
    assert first.shape == (3, 18, kept[0].recipe.model.width)
    assert not torch.isclose(first[0], first[1]).all() and not torch.isclose(first[1], first[2]).all()
    torch.testing.assert_close(first, second.flip(1), atol=1e-5, rtol=1e-4)


def test_two_processes_train_the_head_of_one(data, tmp_path):
    recipe = tiny(*PLAIN, *VIEWS, "train.gradient_accumulation_steps=2")
    quietly(recipe, tmp_path / "alone", data)
    assert train_in_team(2, recipe, tmp_path / "team", data) == ["", ""]
    alone, team = (load_model(tmp_path / name / "last").network.state_dict() for name in ("alone", "team"))
    for name in alone:
        torch.testing.assert_close(alone[name], team[name], atol=1e-5, rtol=1e-4)


def test_a_damaged_file_is_made_anew(data, tmp_path, encoded):
    quietly(tiny(*PLAIN), tmp_path / "one", data)
    [file] = (data / embeddings.FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:5000] + b"\0" * 5000)
    encoded.clear()
    quietly(tiny(*PLAIN), tmp_path / "two", data)
    assert sum(encoded) == 24 and weights(tmp_path / "two") == weights(tmp_path / "one")


def test_clips_that_vanish(data, tmp_path, monkeypatch):
    load = embeddings._training_items

    def lose(state, clips, view, unreadable):
        for item in load(state, clips, view, unreadable):
            if item.clip in (2, 7):
                unreadable.append((item.clip, trainer.AumError(f"number {item.clip} is gone", fix="restore it")))
            else:
                yield item

    monkeypatch.setattr(embeddings, "_training_items", lose)
    error = problem(quietly, tiny(*PLAIN), tmp_path / "one", data)
    assert "is gone" in error.problem and "max_unreadable_clips" in error.fix
    run = quietly(tiny(*PLAIN, "data.max_unreadable_clips=2"), tmp_path / "two", data)
    assert history(run)[-1]["unreadable_clips"] == "2" and float(history(run)[-1]["train_loss"]) > 0


@pytest.mark.parametrize(
    "settings, words, mend",
    [
        (("train.freeze=none", "train.augmented_views=2"), "train.freeze is none", "freeze=backbone"),
        (("augment.policy=auto",), "auto can't be chosen", "--recipe head"),
        (("augment.mixup=0.5", "train.augmented_views=2"), "mixup", "augment.mixup=0"),
        (("augment.noise=0.1",), "without augment.noise", "augmented_views=4"),
        (("train.augmented_views=2",), "no augmentation", "policy=gentle"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(data, tmp_path, settings, words, mend):
    error = problem(quietly, tiny(*PLAIN, *settings), tmp_path / "run", data)
    assert words in error.problem and mend in error.fix
    assert problem(dry_run_training, tiny(*PLAIN, *settings), None, data).problem == error.problem
    assert "take next to none" in problem(quietly, tiny(*PLAIN), tmp_path / "run", data, minutes=1).problem


def test_the_recipe_head_takes_any_model(data, trained, tmp_path, aum):
    assert "--init PATH" in problem(quietly, load_recipe("head"), tmp_path / "run", data).fix
    recipe = load_recipe("head", [f"train.init={trained}", "train.epochs=3"])
    planned = aum("train", "--recipe", "head", "--init", trained, "--data", data, "--dry-run")
    assert planned.code == 0 and re.search(r"time .*to encode all clips", planned.out)
    run = quietly(recipe, tmp_path / "run", data)
    first, second = load_model(trained).config, load_model(run).config
    assert second.frontend == first.frontend and second.model == first.model
    assert aum("eval", run, "--data", data).code == 0


def test_what_the_recipe_says_stays(trained):
    other = load_recipe("head", [f"train.init={trained}", "frontend.frames=16", "model.cls_position=end"])
    adopted = adopt_model(other)
    assert adopted.frontend.frames == adopted.model.frames == 16
    assert adopted.model.cls_position == "end" and adopted.model.width == load_model(trained).config.model.width
    assert adopted.data.infer == () and adopt_model(adopted) is adopted


@pytest.mark.parametrize("architecture", ["aum", "ast"])
def test_the_model_of_a_checkpoint_of_another_architecture(tmp_path, architecture, data):
    settings = ["train.epochs=1", "train.freeze=none", f"model.architecture={architecture}"]
    values = {"width": 16, "depth": 1, **({"heads": 2} if architecture == "ast" else {})}
    recipe = load_recipe(
        "quickstart",
        [
            *settings,
            "augment.policy=none",
            "model.size=none",
            "frontend.frames=48",
            "frontend.sample_rate_hz=8000",
            "train.max_steps=2",
            *(f"model.{key}={value}" for key, value in values.items()),
        ],
    )
    run = quietly(recipe, tmp_path / "run", data)
    head = quietly(load_recipe("head", [f"train.init={run}", "train.epochs=2"]), tmp_path / "head", data)
    assert load_model(head).config.model == load_model(run).config.model

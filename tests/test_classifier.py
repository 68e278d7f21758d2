"""From a sound to named scores; and which model is meant."""

import os
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny import CLASSES, RATE_HZ, sound

import aumcli
from aumcli.checkpoints import read_model
from aumcli.checkpoints.lookup import default_model, find_model, packaged_models
from aumcli.classifier import Classifier, load_model, pick_device
from aumcli.config import ModelConfig
from aumcli.data.decoding.audio import load_audio
from aumcli.errors import AumError

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(scope="module")
def model(trained) -> Classifier:
    return load_model(trained)


def same(scores, others) -> bool:
    """Equal but for the order of float32 sums, which depends on the batch's size."""
    return np.allclose(scores, others, rtol=0, atol=1e-5)


def problem(function, *arguments) -> str:
    with pytest.raises(AumError) as caught:
        function(*arguments)
    assert caught.value.fix and caught.value.exit_code == 2
    return str(caught.value)


def test_windows_cover_every_sample(model):
    size = model.config.frontend.clip_samples
    for length in (
        1,
        3,
        size // 2,
        size - 1,
        size,
        size + 1,
        size + 2,
        size * 3 // 2,
        2 * size - 1,
        2 * size,
        7 * size + 13,
    ):
        windows = model.windows(np.arange(length, dtype=np.float32))
        starts = [int(window[0]) for window in windows]
        assert starts[0] == 0 and windows[-1][-1] == length - 1
        assert all(len(window) == min(size, length) for window in windows)
        assert all(0 < later - sooner <= size // 2 for sooner, later in pairwise(starts))
        assert (len(windows) == 1) == (length <= size)


def test_a_window_is_a_part_of_the_clip(model):
    waveform = np.random.default_rng(0).standard_normal(3 * model.config.frontend.clip_samples).astype(np.float32)
    for window in model.windows(waveform):
        start = int(np.flatnonzero(waveform == window[0])[0])
        assert np.array_equal(window, waveform[start : start + len(window)])


def test_predict_is_frontend_then_logits_then_softmax(model, clips):
    path = clips / "low.wav"
    waveform = torch.from_numpy(load_audio(path, RATE_HZ)[0])
    features = model.frontend(waveform[None])
    assert features.shape == (1, model.config.frontend.frames, model.config.frontend.n_mels)
    logits = model.logits(features)
    assert logits.shape == (1, 3)
    expected = dict(zip(model.labels, logits.softmax(-1)[0].tolist()))
    predicted = model.predict(path, top=3)
    assert same([score for _, score in predicted], [expected[label] for label, _ in predicted])
    assert [score for _, score in predicted] == sorted((score for _, score in predicted), reverse=True)
    assert {label for label, _ in predicted} == set(CLASSES)
    assert sum(score for _, score in predicted) == pytest.approx(1, abs=1e-5)
    assert all(isinstance(label, str) and isinstance(score, float) for label, score in predicted)


def test_sigmoid_where_it_was_trained_so(model, clips):
    values = model.config.model_dump() | {"activation": "sigmoid"}
    other = Classifier(model.network, ModelConfig.model_validate(values), "other")
    waveform, _ = load_audio(clips / "low.wav", RATE_HZ)
    logits = other.logits(other.frontend(torch.from_numpy(waveform)[None]))
    assert same(other.score([waveform]), logits.sigmoid())


def test_it_has_learnt_something(model, clips):
    assert [model.predict(clips / f"{name}.wav", top=1)[0][0] for name in CLASSES] == list(CLASSES)


def test_embed_is_what_the_head_sees(model):
    features = torch.randn(2, model.config.frontend.frames, model.config.frontend.n_mels)
    embedding = model.embed(features)
    assert embedding.shape == (2, model.config.model.width)
    with torch.inference_mode():
        assert torch.allclose(model.network.head(embedding), model.logits(features), atol=1e-6)


def test_top(model, clips):
    path = clips / "hiss.wav"
    assert len(model.predict(path, top=1)) == 1
    assert len(model.predict(path, top=99)) == 3
    assert model.predict(path, top=2) == model.predict(path, top=3)[:2]
    assert model.best(np.array([0.2, 0.4, 0.4], dtype=np.float32), 2) == [
        (model.labels[1], pytest.approx(0.4)),
        (model.labels[2], pytest.approx(0.4)),
    ]  # equals: the lower index first


def test_a_long_clip_is_the_mean_of_its_windows(model):
    waveform = np.random.default_rng(1).standard_normal(2 * model.config.frontend.clip_samples + 77).astype(np.float32)
    alone = [model.score([window])[0] for window in model.windows(waveform)]
    assert len(alone) > 3
    assert same(model.score([waveform])[0], np.mean(alone, axis=0))


def test_scores_do_not_depend_on_the_company(model, clips):
    waveforms = [load_audio(path, RATE_HZ)[0] for path in sorted(clips.iterdir())]
    waveforms += [waveforms[0][:3], np.tile(waveforms[1], 4)]
    together = model.score(waveforms)
    for waveform, scores in zip(waveforms, together):
        assert same(model.score([waveform])[0], scores)


@pytest.mark.parametrize("samples", [1, 2, 3, 100, 199, 200, 201])
def test_clips_around_one_window(model, samples):
    scores = model.score([np.linspace(-0.1, 0.1, samples, dtype=np.float32)])
    assert scores.shape == (1, 3) and np.isfinite(scores).all()


def test_another_rate_is_resampled(model, tmp_path):
    for rate_hz in (8000, 44100):
        sound(tmp_path / f"{rate_hz}.wav", 300.0, rate_hz=rate_hz, seed=4)
    for rate_hz in (8000, 44100):
        assert model.predict(tmp_path / f"{rate_hz}.wav", top=1)[0][0] == "low"


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_backends_agree(trained, model, clips, backend):
    other = load_model(trained, backend=backend)
    assert other.backend == backend
    waveform, _ = load_audio(clips / "high.wav", RATE_HZ)
    assert np.allclose(other.score([waveform]), model.score([waveform]), atol=1e-4)


def test_load_run_model_directory_and_packaged_name(trained, tmp_path, monkeypatch, clips):
    expected = load_model(trained).predict(clips / "low.wav")
    assert find_model(trained) == trained / "best"
    assert load_model(str(trained)).predict(clips / "low.wav") == expected
    assert find_model(trained / "last") == trained / "last"
    assert load_model(trained / "best").predict(clips / "low.wav") == expected
    shutil.copytree(trained / "best", tmp_path / "packaged" / "tones")
    (tmp_path / "packaged" / "unfinished").mkdir()
    monkeypatch.setattr("aumcli.checkpoints.lookup._packaged", lambda: tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    assert packaged_models() == ["tones"]
    assert load_model("tones").predict(clips / "low.wav") == expected
    assert load_model("tones").labels == list(CLASSES)
    assert "packaged model: tones" in problem(load_model, "tnoes")


def test_the_public_name(trained, clips):
    assert aumcli.load_model(trained).predict(clips / "low.wav", top=1)[0][0] == "low"


def test_what_is_no_model(trained, tmp_path):
    assert "there is no model nowhere/at/all" in problem(load_model, "nowhere/at/all")
    assert "has neither best/config.json nor config.json" in problem(load_model, tmp_path)
    path = sound(tmp_path / "clip.wav", 300.0)
    assert f"there is no model {path}" in problem(load_model, path)


def test_default_model_order(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("AUM_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("aumcli.checkpoints.lookup._packaged", lambda: tmp_path / "packaged")
    assert "there is no model to use" in problem(default_model)
    shutil.copytree(trained / "best", tmp_path / "packaged" / "tones")
    assert default_model() == (tmp_path.__class__("tones"), "the packaged model")
    for age, name in ((100, "b-old"), (10, "a-new"), (50, "c-older")):
        shutil.copytree(trained / "best", tmp_path / "runs" / name / "best")
        config = tmp_path / "runs" / name / "best" / "config.json"
        os.utime(config, (config.stat().st_atime, config.stat().st_mtime - age))
    (tmp_path / "runs" / "d-unfinished" / "last").mkdir(parents=True)
    path, why = default_model()
    assert (path.name, why) == ("a-new", "the newest run")
    assert load_model(path).labels == list(CLASSES)
    monkeypatch.setenv("AUM_MODEL", str(trained))
    path, why = default_model()
    assert path == trained and "AUM_MODEL" in why
    monkeypatch.setenv("AUM_MODEL", "")  # set to nothing is not set
    assert default_model()[1] == "the newest run"


@pytest.mark.parametrize("name", ["nonsense", "", "meta", "cpu:x", "cuda:99"])
def test_devices_that_are_not_there(name):
    assert f"can't use device {name}" in problem(pick_device, name)


@pytest.mark.parametrize("name", ["tpu", "vulkan"])
def test_devices_that_are_none_are_answered_with_ours(name):
    assert (
        problem(pick_device, name)
        .splitlines()[0]
        .endswith(": devices are cpu, cuda, mps, auto, and cuda:1 for the second GPU")
    )


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")


def test_a_named_backend_that_cannot_run_is_said_at_once(trained):
    with pytest.raises(AumError, match="backend"):
        load_model(trained, backend="nonsense")


def test_the_network_comes_back_as_saved(trained, model):
    network, _ = read_model(trained / "best")
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), model.network.state_dict().values()))


def test_samples_file_objects_and_lists(model, clips):
    path = clips / "low.wav"
    expected = model.predict(path)
    waveform, rate_hz = load_audio(path)
    stereo = np.stack([waveform, waveform], axis=1)
    integers = np.round(waveform * 32768).astype(np.int16)
    for samples in (waveform, waveform.astype(np.float64), torch.from_numpy(waveform), stereo, stereo.T, integers):
        found = model.predict(samples, rate_hz)
        assert [label for label, _ in found] == [label for label, _ in expected]
        assert same([score for _, score in found], [score for _, score in expected])
    with open(path, "rb") as file:
        assert model.predict(file) == expected
    assert model.predict([path, str(path)], top=2) == [expected[:2], expected[:2]]
    assert model.predict([waveform, waveform], rate_hz) == [model.predict(waveform, rate_hz)] * 2
    other = np.interp(np.arange(len(waveform) * 2) / 2, np.arange(len(waveform)), waveform)
    assert model.predict(other, 2 * rate_hz)[0][0] == expected[0][0]  # resampled, not taken for slower


def test_what_is_no_sound(model):
    assert "without their rate" in problem(model.predict, np.zeros(100))
    assert "top=" in problem(model.predict, "clip.wav", 3)
    assert "not finite" in problem(model.predict, np.array([0.0, np.nan]), RATE_HZ)
    for samples in (np.zeros((2, 3, 4)), np.zeros(0), np.array(["a"]), 5.0):
        assert "no sound" in problem(model.predict, samples, RATE_HZ)


def test_the_package_shows_what_it_offers(model):
    assert {"load_model", "predict_files", "__version__"} <= set(dir(aumcli))
    assert [each.labels for each in aumcli.predict_files(model, [])] == [] and aumcli.__version__
    assert "3 classes" in repr(model) and "8000 Hz" in repr(model)

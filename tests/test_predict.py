"""aum predict from Python: order, folders, bad files among good ones."""

import json
import threading
import time

import numpy as np
import pytest
import soundfile
from tiny import CLASSES, RATE_HZ, sound

from aumcli.classifier import load_model
from aumcli.errors import AumError
from aumcli.predict import find_clips, predict_files

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained)


def test_as_classifier_predicts(model, clips):
    paths = sorted(clips.iterdir())
    for path, prediction in zip(paths, predict_files(model, paths, top=3), strict=True):
        expected = model.predict(path, top=3)
        assert prediction.path == str(path) and prediction.problem == "" and prediction.windows == 1
        assert [label for label, _ in prediction.labels] == [label for label, _ in expected]
        assert np.allclose([score for _, score in prediction.labels], [score for _, score in expected], atol=1e-5)
        assert prediction.labels[0][0] == path.stem
        assert prediction.duration_s == 0.5


def test_order_is_kept_across_batches_and_bad_files(model, tmp_path):
    names, paths = [*CLASSES], []
    for number in range(11):
        path = tmp_path / f"{number}.wav"
        if number in (0, 4, 5, 10):
            path.write_text("no sound")
        else:
            sound(path, CLASSES[names[number % 3]], seconds=(0.5, 1.7)[number % 2], seed=number)
        paths.append(path)
    results = list(predict_files(model, paths, top=1, batch_size=4))
    assert [result.path for result in results] == list(map(str, paths))
    assert [bool(result.problem) for result in results] == [number in (0, 4, 5, 10) for number in range(11)]
    for number, result in enumerate(results):
        if not result.problem:
            assert result.labels[0][0] == names[number % 3]
            assert np.isclose(result.labels[0][1], model.predict(paths[number], top=1)[0][1], atol=1e-5)
            assert (result.windows > 1) == (number % 2 == 1)


def test_all_bad_and_none(model, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"")
    (result,) = predict_files(model, [tmp_path / "a.wav"])
    assert "is empty (0 bytes)" in result.problem and result.fix and not result.labels
    assert list(predict_files(model, [])) == []


def test_results_come_while_the_rest_waits(model, tmp_path, monkeypatch):
    """A long list isn't decoded as a whole before the first answer, and nothing goes on when nobody asks any more."""
    monkeypatch.setattr("aumcli.predict.decoding.AHEAD", 3)
    monkeypatch.setattr("aumcli.predict.decoding.RUN_FILES", 1)
    taken, path, threads = [], sound(tmp_path / "a.wav", 300.0), threading.active_count()

    def paths():
        for number in range(60):
            taken.append(number)
            yield path

    results = predict_files(model, paths(), batch_size=2)
    next(results)
    results.close()
    assert len(taken) <= 2 + 3 + 1
    assert threading.active_count() == threads


def test_a_mistake_in_the_list_is_raised_behind_the_results_before_it(model, tmp_path):
    def paths():
        yield sound(tmp_path / "a.wav", 300.0)
        raise AumError("the list ends here")

    results = predict_files(model, paths(), batch_size=1)
    assert next(results).labels
    with pytest.raises(AumError, match="the list ends here"):
        next(results)


def test_what_stands_before_a_mistake_in_the_list_is_given_first(tmp_path, monkeypatch):
    """Whatever the threads' luck.

    Parts handed over while the reader holds earlier ones are not lost to the error behind them.
    """
    from aumcli.predict import decoding
    from aumcli.predict.inputs import Source

    monkeypatch.setattr(decoding, "PART_SAMPLES", 1)
    path = sound(tmp_path / "a.wav", 300.0, 2.0)

    def sources():
        yield from [Source.of(path)] * 3
        raise AumError("the list ends here")

    given = []
    with decoding.Decoder(sources(), 8000, 800, 800, 1) as decoder, pytest.raises(AumError, match="the list ends here"):
        for _, part in decoder:
            given.append(part)
            time.sleep(0.01)
    assert sum(isinstance(part, decoding.DecodeResult) for part in given) == 3


def paths_of(*paths):
    return [source.path for source in find_clips(paths)]


def test_folders_are_searched_at_any_depth(tmp_path):
    expected = [sound(tmp_path / name, 300.0) for name in ("a.wav", "b/c/d.wav", "b/e.wav")]
    (tmp_path / "b" / "F.WAV").write_bytes(expected[0].read_bytes())
    (tmp_path / "b" / "notes.txt").write_text("no sound")
    (tmp_path / "b" / "._a.wav").write_text("hidden")
    assert paths_of(tmp_path) == sorted([*map(str, expected), str(tmp_path / "b" / "F.WAV")])
    other = tmp_path / "b" / "notes.txt"
    assert paths_of(other, tmp_path / "b", expected[0])[0] == str(other)  # what is named is tried, whatever its suffix
    assert paths_of(expected[2], expected[0]) == [str(expected[2]), str(expected[0])]


def test_a_folder_without_sounds(tmp_path):
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(AumError, match="holds no sound files") as caught:
        find_clips([tmp_path])
    assert caught.value.exit_code == 2


def test_formats_rates_and_channels(model, tmp_path):
    t = np.arange(48000) / 48000
    wave = 0.3 * np.sin(2 * np.pi * 300 * t) + 0.03 * np.random.default_rng(0).standard_normal(48000)
    for name in ("a.wav", "b.flac", "c.ogg", "d.mp3"):
        soundfile.write(tmp_path / name, np.stack([wave, wave], 1), 48000)
    results = list(predict_files(model, sorted(tmp_path.iterdir()), top=1))
    assert [result.labels[0][0] for result in results] == ["low"] * 4
    assert all(abs(result.duration_s - 1) < 0.1 for result in results)


def test_three_samples_are_padded(model, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([0.1, -0.1, 0.2]), RATE_HZ)
    (result,) = predict_files(model, [tmp_path / "a.wav"])
    assert not result.problem and result.windows == 1 and len(result.labels) == 3
    assert all(np.isfinite(score) for _, score in result.labels)


def test_plain_values(model, clips, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    good, bad = (each.to_dict() for each in predict_files(model, [clips / "low.wav", tmp_path / "bad.wav"], top=2))
    assert json.loads(json.dumps(good, allow_nan=False)) == good
    assert good["path"] == str(clips / "low.wav") and good["duration_s"] == 0.5 and good["windows"] == 1
    assert [set(row) for row in good["labels"]] == [{"label", "score"}] * 2
    assert good["events"] == [{"start_s": 0.0, "stop_s": 0.5, **good["labels"][0]}]
    assert set(bad) == {"path", "problem", "fix"} and "bad.wav" in bad["problem"]

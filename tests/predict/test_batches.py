"""What a result must not depend on, and the model at other lengths.

Threads, batch size, the company, where blocks end.
"""

import numpy as np
import pytest
import soundfile
import torch
from tiny import CLASSES, RATE_HZ, sound

from aumcli.classifier import Classifier, load_model
from aumcli.config import AudioMambaConfig, ModelConfig, SpectrogramTransformerConfig
from aumcli.core import at_length, build_network
from aumcli.core.tokenizers import resize_positions
from aumcli.data.decoding.audio import load_audio, open_audio
from aumcli.data.decoding.resample import resample, resample_blocks
from aumcli.errors import AumError
from aumcli.predict import find_clips, predict_config, predict_files
from aumcli.predict.scoring import predict_groups, thresholds, window_samples

pytest_plugins = ["aum_fixtures"]


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Clips of many lengths, rates and channels with a bad one among them, in an order of their own."""
    folder = tmp_path_factory.mktemp("recordings")
    names = [*CLASSES]
    for number in range(30):
        rate_hz = (8000, 44100, 16000)[number % 3]
        sound(
            folder / f"{number:02d}.wav",
            CLASSES[names[number % 3]],
            seconds=(0.2, 0.5, 1.7, 6.0)[number % 4],
            seed=number,
            rate_hz=rate_hz,
        )
    (folder / "17.wav").write_text("no sound")
    return folder


def values(predictions):
    """Everything that is said, numbers apart from words."""
    words, numbers = [], []
    for each in predictions:
        words.append(
            (
                each.path,
                each.problem,
                each.windows,
                each.labels[:1] and each.labels[0][0],
                [event.label for event in each.events],
            )
        )
        scores = dict(each.labels)
        numbers += [each.duration_s, *(scores[name] for name in sorted(scores))]
        numbers += [x for event in each.events for x in (event.start_s, event.stop_s, event.score)]
    return words, np.array(numbers)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_batches_do_not_change_anything(model, recordings, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = [
            values(predict_files(model, find_clips([recordings]), workers=workers, batch_size=batch, hop_s=0.1))
            for workers, batch in ((1, 1), (4, 64), (4, 5), (1, 64))
        ]
    finally:
        torch.set_num_threads(before)
    for words, numbers in results[1:]:
        assert words == results[0][0]
        np.testing.assert_allclose(numbers, results[0][1], rtol=0, atol=1e-5)


def test_groups_depend_on_the_files_alone_and_begin_with_fresh_batches(model, recordings):
    """What resuming relies on: a list taken up behind a group gives the same bits."""
    sources, config = find_clips([recordings]), predict_config(batch_size=4)
    groups = list(predict_groups(model, sources, config))
    assert len(groups) > 3
    done = len(groups[0]) + len(groups[1])
    again = list(predict_groups(model, sources[done:], config))
    assert [[each.to_record() for each in group] for group in again] == [
        [each.to_record() for each in group] for group in groups[2:]
    ]


def test_same_as_the_classifier(model, recordings):
    for prediction in predict_files(model, [recordings / "03.wav", recordings / "06.wav"]):
        waveform, _ = load_audio(prediction.path, RATE_HZ)
        expected = model.score([waveform])[0]
        assert prediction.windows == len(model.windows(waveform)) > 3
        np.testing.assert_allclose([dict(prediction.labels)[name] for name in model.labels], expected, atol=1e-5)
        np.testing.assert_allclose(
            [score for _, score in model.predict(prediction.path)], [score for _, score in prediction.labels], atol=1e-5
        )


def test_events_are_those_of_the_file_cut_by_hand(model, tmp_path):
    """Every window cut out with another program and labelled alone."""
    rng = np.random.default_rng(5)
    names = [*CLASSES]
    parts = [
        sound(tmp_path / f"part{i}.wav", CLASSES[names[rng.integers(3)]], seconds=rng.uniform(0.4, 2), seed=i)
        for i in range(12)
    ]
    wave = np.concatenate([soundfile.read(path)[0] for path in parts])
    soundfile.write(tmp_path / "long.wav", wave, RATE_HZ, subtype="FLOAT")
    (whole,) = predict_files(model, [tmp_path / "long.wav"], threshold=0.3)
    size, hop = model.window_samples
    starts = [*range(0, len(wave) - size + 1, hop)]
    starts += [len(wave) - size] if starts[-1] + size < len(wave) else []
    spans: dict[str, list[list[float]]] = {}
    for start in starts:
        soundfile.write(tmp_path / "window.wav", wave[start : start + size], RATE_HZ, subtype="FLOAT")
        for name, score in model.predict(tmp_path / "window.wav"):
            if score >= 0.3:
                own = spans.setdefault(name, [])
                if own and start <= own[-1][1]:
                    own[-1] = [own[-1][0], start + size, max(own[-1][2], score)]
                else:
                    own.append([start, start + size, score])
    expected = sorted((start, stop, name, score) for name, own in spans.items() for start, stop, score in own)
    assert len(expected) > 4 and len({name for _, _, name, _ in expected}) > 1
    got = sorted(
        (round(event.start_s * RATE_HZ, 6), round(event.stop_s * RATE_HZ, 6), event.label, event.score)
        for event in whole.events
    )
    assert [each[:3] for each in got] == [each[:3] for each in expected]  # to the sample
    np.testing.assert_allclose([each[3] for each in got], [each[3] for each in expected], atol=1e-5)


def test_times_of_another_rate_end_with_the_file(model, tmp_path):
    path = sound(tmp_path / "a.wav", 300.0, seconds=3.33337, rate_hz=44100)
    (prediction,) = predict_files(model, [path], threshold=0)
    info = soundfile.info(path)
    assert prediction.duration_s == info.frames / 44100
    assert [(event.start_s, event.stop_s) for event in prediction.events] == [(0.0, prediction.duration_s)] * 3


@pytest.mark.parametrize("rate_hz, to_hz", [(48000, 8000), (44100, 8000), (8000, 16000), (16001, 16000), (44101, 8000)])
@pytest.mark.parametrize("step", [1, 100, 4099])
def test_resampling_in_blocks_is_resampling_the_whole(rate_hz, to_hz, step):
    wave = np.random.default_rng(0).standard_normal(9000 if step > 1 else 500).astype(np.float32)
    parts = [wave[i : i + step] for i in range(0, len(wave), step)]
    assert np.array_equal(np.concatenate([*resample_blocks(parts, rate_hz, to_hz)]), resample(wave, rate_hz, to_hz))


def test_long_files_come_in_blocks(tmp_path, monkeypatch):
    path = sound(tmp_path / "a.wav", 300.0, seconds=3, rate_hz=44100)
    whole, _ = load_audio(path, RATE_HZ)
    monkeypatch.setattr("aumcli.data.decoding.audio.BLOCK_VALUES", 1000)
    with open_audio(path, RATE_HZ) as (info, blocks):
        blocks = list(blocks)
    assert max(map(len, blocks)) < 1000 and np.array_equal(np.concatenate(blocks), whole) and info.duration_s == 3


@pytest.mark.parametrize(
    "config",
    [
        AudioMambaConfig(
            width=16, depth=2, state_size=4, n_classes=3, n_mels=32, frames=32, patch_mels=16, patch_frames=8
        ),
        SpectrogramTransformerConfig(
            width=16,
            depth=1,
            heads=2,
            n_classes=3,
            n_mels=32,
            frames=32,
            patch_mels=16,
            patch_frames=8,
            overlap=2,
            distilled=True,
        ),
    ],
)
def test_a_network_at_another_length(config):
    network = build_network(config).eval()
    step = config.patch_frames - config.overlap
    frames = config.frames + 5 * step
    longer = at_length(network, frames)
    features = torch.randn(2, frames, 32)
    with torch.inference_mode():
        assert longer(features).shape == (2, 3)
        assert torch.equal(
            at_length(network, config.frames)(features[:, : config.frames]), network(features[:, : config.frames])
        )
    (name,) = [name for name, _ in network.named_parameters() if name.endswith("pos_embed")]
    expected = resize_positions(network.get_parameter(name), network.config.grid, longer.config.grid)
    assert torch.equal(longer.get_parameter(name), expected) and network.config.frames == config.frames
    shared = {id(x) for x in network.parameters()}
    assert [key for key, x in longer.named_parameters() if id(x) not in shared] == [name]


def test_whole_clips_in_one_pass(model, recordings):
    size = model.window_samples[0]
    for prediction in predict_files(
        model, [recordings / "03.wav", recordings / "00.wav", recordings / "17.wav"], whole=True, threshold=0.4
    ):
        if prediction.problem:
            continue
        waveform, _ = load_audio(prediction.path, RATE_HZ)
        longer = model.at_length(len(waveform))
        assert prediction.windows == 1 and (longer is model) == (len(waveform) <= size)
        patch = model.config.model.patch_frames
        assert 0 <= longer.config.frontend.frames - model.frontend.n_frames(len(waveform)) < patch or longer is model
        np.testing.assert_allclose(
            dict(prediction.labels)[model.labels[0]], longer.score_windows([waveform])[0, 0], atol=1e-5
        )
        assert all((event.start_s, event.stop_s) == (0.0, prediction.duration_s) for event in prediction.events)


def test_windows_longer_than_the_clip_resize_the_model(model, recordings):
    seconds = 2 * model.config.frontend.clip_s
    (prediction,) = predict_files(model, [recordings / "03.wav"], window_s=seconds, hop_s=seconds)
    size = round(seconds * RATE_HZ)
    waveform, _ = load_audio(prediction.path, RATE_HZ)
    windows = [waveform[i : i + size] for i in range(0, len(waveform) - size + 1, size)]
    windows += [waveform[-size:]] if len(waveform) % size else []
    expected = model.at_length(size).score_windows(windows).mean(0)
    np.testing.assert_allclose([dict(prediction.labels)[name] for name in model.labels], expected, atol=1e-5)


def test_thresholds_are_the_models_own_unless_one_is_named(model):
    assert model.config.thresholds is not None and len(model.config.thresholds) == 3
    np.testing.assert_allclose(thresholds(model, predict_config()), model.config.thresholds, atol=1e-6)
    assert thresholds(model, predict_config(threshold=0.25)).tolist() == [0.25] * 3
    without = Classifier(
        model.network, ModelConfig.model_validate(model.config.model_dump() | {"thresholds": None}), "other"
    )
    assert thresholds(without, predict_config()).tolist() == [0.5] * 3


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(window_s=0.5, hop_s=0.6), "hop"),
        (dict(hop_s=1e-9), "less than a sample"),
        (dict(whole=True, hop_s=1.0), "--whole"),
        (dict(smooth=2), "--smooth"),
        (dict(threshold=1.5), "threshold has to be less than or equal to 1, not 1.5"),
        (dict(batch_size=0), "give --batch such a value"),
        (dict(tob=1), "there is no setting tob"),
    ],
)
def test_settings_that_do_not_go_together(model, settings, words):
    with pytest.raises(AumError, match=words) as caught:
        window_samples(model, predict_config(**settings))
    assert caught.value.fix and caught.value.exit_code == 2


def test_threads_of_torch_are_as_before(model, recordings):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(predict_files(model, find_clips([recordings]), batch_size=4))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_clip_too_long_for_the_memory_is_named(model, recordings, monkeypatch):
    def encode(self, windows):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Classifier, "score_windows", encode)
    (prediction,) = predict_files(model, [recordings / "03.wav"], whole=True)
    assert "too long for the memory in one pass" in prediction.problem and "--whole" in prediction.fix
    with pytest.raises(AumError, match="windows at a time are too much for the memory") as caught:
        list(predict_files(model, [recordings / "03.wav"]))
    assert "--batch" in caught.value.fix and caught.value.exit_code == 1

"""Frontend values that are measured on the training split."""

import pytest
from tiny import sound

from aumcli.config import FrontendConfig
from aumcli.core.frontend import LogMel
from aumcli.data.infer import infer_shape, inferred_input, measure_normalisation, sample_rates, unused_band
from aumcli.data.manifest import Clip, read_manifest
from aumcli.errors import AumError
from aumcli.recipe import load_recipe

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_a_long_clip_is_measured_in_pieces(tmp_path):
    """Two halves of a file, and the file: the same sound, but for the frame between the pieces."""
    path = sound(tmp_path / "long.wav", 300.0, seconds=60, rate_hz=8000)
    config = load_recipe("quickstart", ["frontend.sample_rate_hz=8000"]).frontend
    whole = measure_normalisation(config, [Clip(path)])
    assert whole == pytest.approx(
        measure_normalisation(config, [Clip(path, 0.0, 30.0), Clip(path, 30.0, 60.0)]), abs=1e-5
    )


@pytest.mark.parametrize(
    "rates, rate_hz, said",
    [
        ({8000: 3}, 16000, ()),
        ({16000: 3}, 16000, ()),
        ({}, 16000, ()),
        ({44100: 3}, 16000, ("22.05 kHz", "8 kHz", "frontend.sample_rate_hz=44100")),
        ({16000: 9, 48000: 1}, 16000, ("1 of 10 recordings", "24 kHz", "frontend.sample_rate_hz=48000")),
        ({250000: 3}, 16000, ("125 kHz", "sample_rate_hz=250000", "window_ms=4.0", "hop_ms=2", "low_hz=8000")),
        ({8000: 3}, 4000, ("4 kHz", "2 kHz")),
    ],
)
def test_the_unused_band(rates, rate_hz, said):
    text = unused_band(rates, rate_hz, 20)
    assert all(words in text for words in said) and bool(said) == bool(text)
    assert ("window_ms" in text) == (250000 in rates)
    if text:
        settings = text.partition("train with ")[2].replace("--set ", "").split()
        front = load_recipe("quickstart", settings).frontend
        assert (
            "ends at" not in unused_band(rates, front.sample_rate_hz, front.low_hz)
            and not (LogMel(front).filters.sum(0) == 0).any()
        )


def test_where_nobody_noted_the_rates_the_headers_tell(corpus, tmp_path):
    from aumcli.data.manifest import write_manifest

    manifest = read_manifest(corpus)
    assert sample_rates(manifest, manifest.split("train")) == {8000: 30}
    write_manifest(tmp_path / "copy", manifest.clips, manifest.labels, {})
    assert sample_rates(read_manifest(tmp_path / "copy"), manifest.split("train")) == {8000: 18}
    assert sample_rates(read_manifest(tmp_path / "copy"), [Clip(tmp_path / "gone.wav")]) == {}


SHAPE = ("sample_rate", "low_hz", "high_hz", "window", "clip_length")


def shaped(tmp_path, rate_hz, seconds, band_hz=None, infer=SHAPE, **given):
    """The frontend that fits recordings of a rate and a length."""
    clips = [Clip(sound(tmp_path / f"{rate_hz}.wav", rate_hz / 10, seconds=seconds, rate_hz=rate_hz))] * 3
    config = FrontendConfig(n_mels=64, **given)
    chosen = infer_shape(infer, clips, config, lambda frames: frames, band_hz)
    return FrontendConfig(**config.model_dump() | chosen)


@pytest.mark.parametrize(
    "rate_hz, seconds, band_hz, expected",
    [
        (8000, 1.0, None, (8000, 20, None, 25, 10, 100)),  # speech: as ever
        (44100, 1.0, None, (16000, 20, None, 25, 10, 100)),
        (192000, 1.0, None, (16000, 20, None, 25, 10, 100)),  # a studio's, perhaps
        (384000, 1.0, None, (384000, 8000, None, 2.666, 1.333, 751)),  # a bat detector's
        (384000, 3.0, None, (384000, 8000, None, 2.666, 2.666, 1000)),  # as many windows as an input has, without gaps
        (384000, 0.2, (20000, 60000), (192000, 18182, 66000, 5.333, 2.6665, 76)),
        (384000, 0.1, (20000, 60000), (192000, 18182, 66000, 5.0, 2.5, 50)),  # a twentieth of a clip
        (48000, 1.0, (3000, 9000), (24000, 2727, 9900, 25, 10, 100)),
        (48000, 1.0, (300, 3000), (8000, 273, 3300, 25, 10, 100)),
        (44100, 1.0, (300, 21000), (44100, 273, None, 25, 10, 100)),  # beyond the recording nothing is
        (2000, 10.0, None, (2000, 20, None, 128, 64, 157)),
        (2000, 20.0, (18, 200), (500, 16, 220, 512, 256, 79)),
        (2000, 0.5, (9, 20), (50, 8, 22, 80, 40, 13)),  # a window has four samples at least
        (2000, 3.0, (18, 200), (500, 16, 220, 150, 75, 40)),  # zeros give the FFT its points
    ],
)
def test_the_input_fits_the_recordings_and_their_events(tmp_path, rate_hz, seconds, band_hz, expected):
    front = shaped(tmp_path, rate_hz, seconds, band_hz)
    made = front.sample_rate_hz, front.low_hz, front.high_hz, front.window_ms, front.hop_ms, front.frames
    assert made == expected
    assert inferred_input({rate_hz: 3}, band_hz)[0] == expected[0]
    assert rate_hz % front.sample_rate_hz == 0 or front.sample_rate_hz == 16000
    assert not (LogMel(front).filters.sum(0) == 0).any()


def test_what_is_set_is_not_inferred(tmp_path):
    front = shaped(tmp_path, 48000, 1.0, (3000, 9000), SHAPE[1:], sample_rate_hz=16000)
    assert (front.sample_rate_hz, front.low_hz, front.high_hz) == (16000, 2727, None)
    recipe = load_recipe("quickstart", ["frontend.low_hz=500", "frontend.hop_ms=5"])
    assert recipe.data.infer == ("sample_rate", "high_hz", "clip_length", "normalisation")
    front = shaped(tmp_path, 48000, 1.0, (3000, 9000), recipe.data.infer, low_hz=500)
    assert (front.sample_rate_hz, front.low_hz, front.high_hz) == (24000, 500, 9900)
    front = shaped(tmp_path, 384000, 1.0, None, SHAPE[1:], sample_rate_hz=44100)  # somebody wants what can be heard
    assert (front.low_hz, front.high_hz, front.window_ms) == (20, None, 25)
    front = shaped(tmp_path, 250000, 1.0, None, ("window",), sample_rate_hz=125000, low_hz=20000, high_hz=60000)
    assert (front.low_hz, front.high_hz, front.window_ms) == (20000, 60000, 4.096)
    front = shaped(tmp_path, 4000, 1.0, None, SHAPE)
    assert (front.window_ms, front.hop_ms) == (25, 10)


def test_events_above_what_the_model_hears(tmp_path):
    with pytest.raises(AumError, match=r"from 2,727 Hz on, the model's input ends at 2,000 Hz") as caught:
        shaped(tmp_path, 48000, 1.0, (3000, 9000), SHAPE[1:], sample_rate_hz=4000)
    assert "--set frontend.sample_rate_hz=48000" in caught.value.fix
    with pytest.raises(AumError, match=r"ends at 22,050 Hz") as caught:  # slowed down, perhaps
        shaped(tmp_path, 44100, 1.0, (40000, 60000))
    assert "sample_rate_hz" not in caught.value.fix


def test_the_rate_is_one_that_holds_the_events(tmp_path):
    rates = [44100, 44100, 384000]
    clips = [Clip(sound(tmp_path / f"{i}.wav", 300.0, rate_hz=rate)) for i, rate in enumerate(rates)]
    for band_hz, rate_hz in ((None, 16000), ((38000, 60000), 192000), ((3000, 5000), 11025)):
        chosen = infer_shape(SHAPE, clips, FrontendConfig(), lambda frames: frames, band_hz)
        assert chosen["sample_rate_hz"] == rate_hz == inferred_input({44100: 2, 384000: 1}, band_hz)[0]


def test_a_band_that_the_model_has_is_no_loss():
    assert unused_band({384000: 3}, 192000, 18182, (20000, 60000)) == ""
    assert "192 kHz" in unused_band({384000: 3}, 16000, 20, (20000, 60000))
    assert "begins at 8 kHz" in unused_band({384000: 3}, 384000, 8000)
    both = unused_band({384000: 3}, 192000, 8000)
    assert "begins at 8 kHz" in both and "ends at 96 kHz" in both

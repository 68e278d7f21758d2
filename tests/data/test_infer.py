"""Frontend values that are measured on the training split."""

import pytest
from tiny import sound

from aumcli.core.frontend import LogMel
from aumcli.data.infer import measure_normalisation, sample_rates, unused_band
from aumcli.data.manifest import Clip, read_manifest
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
    text = unused_band(rates, rate_hz)
    assert all(words in text for words in said) and bool(said) == bool(text)
    assert ("window_ms" in text) == (250000 in rates)
    if text:
        settings = text.partition("train with ")[2].replace("--set ", "").split()
        front = load_recipe("quickstart", settings).frontend
        assert unused_band(rates, front.sample_rate_hz) == "" and not (LogMel(front).filters.sum(0) == 0).any()


def test_where_nobody_noted_the_rates_the_headers_tell(corpus, tmp_path):
    from aumcli.data.manifest import write_manifest

    manifest = read_manifest(corpus)
    assert sample_rates(manifest, manifest.split("train")) == {8000: 30}
    write_manifest(tmp_path / "copy", manifest.clips, manifest.labels, {})
    assert sample_rates(read_manifest(tmp_path / "copy"), manifest.split("train")) == {8000: 18}
    assert sample_rates(read_manifest(tmp_path / "copy"), [Clip(tmp_path / "gone.wav")]) == {}

"""From clips to waveforms: whole ones, the published parts of longer ones, and long clips that are never held whole."""

import numpy as np
import pytest
import soundfile

from aumcli.data.clips import Clip
from aumcli.data.datasets import waveforms as dataset
from aumcli.data.datasets.clip_source import Crop, LongClip
from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.audio import load_audio
from aumcli.data.decoding.windows import cut_windows

RATE = 8000


def ramp(path, seconds: float, rate_hz: int = RATE):
    """A clip whose samples tell where they are."""
    samples = np.arange(round(seconds * rate_hz)) / 2**23
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return path


def test_the_published_parts_of_a_clip():
    first, epic, anywhere = (Crop(1000, kind) for kind in ("first", "epic_sounds", "random"))
    places = np.linspace(0, 1, 101)[:-1]
    for length in (500, 1000, 5000, 79_999, 80_000):  # 10 s at most
        assert {first.start(length, place, RATE) for place in places} == {0}
        assert {epic.start(length, place, RATE) for place in places} == {0}
    starts = [epic.start(120_000, place, RATE) for place in places]  # 15 s: from 0 up to 5 s
    assert min(starts) == 0 and 39_000 < max(starts) < 40_000 and sorted(starts) == starts
    starts = [anywhere.start(1004, place, RATE) for place in places]
    assert set(starts) == {0, 1, 2, 3, 4} and anywhere.start(900, 0.99, RATE) == 0


@pytest.mark.parametrize("kind", ["first", "random", "epic_sounds"])
@pytest.mark.parametrize("rate_hz", [RATE, 11025])
@pytest.mark.parametrize("start_s", [None, 1.5])
def test_a_long_clips_part_is_that_of_the_whole_clip(tmp_path, monkeypatch, kind, rate_hz, start_s):
    clip = Clip(ramp(tmp_path / "long.wav", 14.0, rate_hz), start_s, None if start_s is None else 13.0)
    crop = Crop(2000, kind)
    whole = Waveforms([clip], RATE, cache_mb=10)
    parts = [whole.part(0, crop, place) for place in (0.0, 0.3, 0.999)]
    monkeypatch.setattr(dataset, "LONG_CLIP_S", 1.0)
    long = Waveforms([clip], RATE, cache_mb=10)
    for place, part in zip((0.0, 0.3, 0.999), parts):
        found = long.part(0, crop, place)
        assert len(found) == len(part) == 2000
        margin = 0 if rate_hz == RATE else 100  # the resampling filter's reach
        assert np.allclose(
            found[margin : 2000 - margin], part[margin : 2000 - margin], atol=2e-7 if margin == 0 else 3e-6
        )
    assert not long._cache


def test_only_a_part_of_a_long_clip_is_decoded(tmp_path, monkeypatch):
    path = ramp(tmp_path / "long.wav", 100.0)
    asked = []
    monkeypatch.setattr(dataset, "load_audio", lambda *args: asked.append(args) or load_audio(*args))
    part = Waveforms([Clip(path)], RATE, cache_mb=10).part(0, Crop(2000, "random"), 0.5)
    assert len(part) == 2000 and asked[0][3] - asked[0][2] < 0.26


def test_long_clips_come_window_by_window(tmp_path):
    path = ramp(tmp_path / "long.wav", 40.0)
    clip = Waveforms([Clip(path, 2.0, 39.0)], RATE, cache_mb=10)[0]
    assert isinstance(clip, LongClip)
    expected = [window for _, window in cut_windows([load_audio(path, RATE, 2.0, 39.0)[0]], 3000, 1500)]
    assert all(np.array_equal(a, b) for a, b in zip(clip.windows(3000, 1500), expected, strict=True))


def test_loading_gives_parts_in_order_whatever_the_workers(tmp_path):
    clips = [Clip(ramp(tmp_path / f"{i}.wav", 0.5 + 0.1 * i)) for i in range(7)]
    batches = [[(0, 0.1), (3, 0.9)], [(3, 0.0), (6, 0.5), (1, 0.2)]]
    loaded = [[*Waveforms(clips, RATE, 0).load(iter(batches), workers, Crop(1000, "random"))] for workers in (1, 3)]
    for batch, one, other in zip(batches, *loaded, strict=True):
        for (clip, place), a, b in zip(batch, one, other, strict=True):
            start = Crop(1000, "random").start(round(RATE * (0.5 + 0.1 * clip)), place, RATE)
            assert np.array_equal(a, b) and np.array_equal(
                a, (np.arange(start, start + 1000) / 2**23).astype(np.float32)
            )

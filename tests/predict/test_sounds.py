"""What `aum predict` makes of files that hold something else than they say, of channels and of very low rates."""

import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sound_files import MP2, encoded, saying, sized
from tiny import RATE_HZ, sound

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture
def predict(aum, trained, tmp_path, monkeypatch):
    """`aum predict` with the tests' model, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: aum("predict", "--model", trained, *arguments)


def test_each_file_that_lies_is_named_and_the_rest_is_done(predict):
    ogg, opus = encoded("ogg"), encoded("opus", 4.0)
    bad = {
        "joined.ogg": ogg + opus,
        "joined.mp3": encoded("mp3") * 2,
        "half.w64": encoded("w64")[:40000],
        "crashed.wav": saying("wav", encoded("wav", 10.0), 16000),
        "damaged.opus": opus[:9000] + bytes(300) + opus[9300:],
    }
    good = {
        "pipe.wav": sized("wav", encoded("wav"), 2_000_000_000),
        "layer2.mp2": MP2,
        "junk.mp3": b"\1\2\3" + encoded("mp3"),
        "whole.opus": opus,
    }
    Path("in").mkdir()
    for name, data in (bad | good).items():
        Path("in", name).write_bytes(data)
    result = predict("in", "--format", "json")
    document = json.loads(result.out)
    assert result.code == 1
    assert {Path(clip["path"]).name: clip["duration_s"] for clip in document["clips"]} == {
        "pipe.wav": 2,
        "layer2.mp2": 0.36,
        "junk.mp3": 2,
        "whole.opus": 4,
    }
    assert {Path(each["path"]).name for each in document["failed"]} == set(bad)
    for name in bad:
        assert f"in/{name}" in result.err
    assert "Traceback" not in result.err and result.err.count("fix:") == len(bad)


def test_a_file_that_lies_on_standard_input(predict, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(encoded("ogg") * 2)))
    result = predict("-")
    assert (
        result.code == 1
        and "error: - holds more sound" in result.err
        and "ffmpeg -i FILE -f wav - | aum predict -" in result.err
        and "aum-" not in result.err
    )


def anti_phase(path):
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(2 * RATE_HZ) / RATE_HZ) + 0.05 * np.random.default_rng(
        0
    ).standard_normal(2 * RATE_HZ)
    soundfile.write(path, np.stack([tone, -tone], 1), RATE_HZ, "FLOAT")
    return path


def test_channels_that_cancel_are_warned_of(predict):
    anti_phase("x.wav")
    sound(Path("plain.wav"), 300.0)
    result = predict("x.wav", "plain.wav", "--format", "json")
    document = json.loads(result.out)
    assert result.code == 0 and result.err.count("warning:") == 1
    assert "warning: x.wav: its channels cancel each other" in result.err and "--channel left" in result.err
    assert (
        "--channel left" in document["clips"][0]["warning"]
        and "warning" not in document["clips"][1]
        and "channel" not in document
    )
    for channel in ("left", "right", "2", "max"):
        result = predict("x.wav", "--channel", channel, "--format", "json")
        document = json.loads(result.out)
        assert result.code == 0 and "warning" not in result.err and document["channel"] == channel
        assert document["clips"][0]["path"] == "x.wav" and document["clips"][0]["labels"][0]["label"] == "low"


def test_warnings_survive_a_break(predict):
    anti_phase("x.wav")
    assert "warning: x.wav" in predict("x.wav", "--out", "r.json", "--resume").err
    again = predict("x.wav", "--out", "r.json", "--resume")
    assert "warning: x.wav" in again.err and "0 clips" in again.err
    other = predict("x.wav", "--out", "r.json", "--resume", "--channel", "left")
    assert other.code == 2 and "channel" in other.err


def test_channels_that_a_call_can_not_name(predict):
    anti_phase("x.wav")
    result = predict("x.wav", "--channel", "first")
    assert result.code == 2 and "there is no channel 'first'" in result.err and "left" in result.err
    result = predict("x.wav", "--channel", "3")
    assert result.code == 1 and "x.wav has 2 channels, so not number 3" in result.err and "::" not in result.err


def test_the_page_shows_the_channel(predict):
    anti_phase("x.wav")
    loudest = []
    for channel in ("mean", "left"):
        predict("x.wav", "--html", "page.html", "--channel", channel)
        text = re.search(
            r'<script type="application/json" id="data">(.*?)</script>', Path("page.html").read_text(), re.S
        )
        loudest.append(np.abs(json.loads(text[1])["files"][0]["peaks"]).max())
    assert loudest == [0, 100]


@pytest.mark.parametrize("rate_hz", [1, 50, 250, 999])
def test_rates_of_hydrophones_and_seismometers(predict, rate_hz):
    soundfile.write("low.wav", 0.1 * np.random.default_rng(0).standard_normal(20 * rate_hz), rate_hz)
    result = predict("low.wav", "--format", "json")
    assert result.code == 0 and json.loads(result.out)["clips"][0]["duration_s"] == 20


def test_the_mend_for_absurd_headers_mends_them(predict):
    soundfile.write("fast.wav", np.zeros(10), 2_000_000)
    soundfile.write("wide.wav", np.zeros((10, 300)), 8000)
    result = predict("fast.wav", "wide.wav")
    assert result.code == 1 and "-ar 1000000" in result.err and "-ac 1" in result.err

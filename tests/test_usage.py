"""Calls that the command line doesn't understand: the message names the call that was meant.

And what people type out of habit.
"""

import io
import os
import sys
from types import SimpleNamespace

import pytest
from tiny import sounds

from aumcli.config import ARCHITECTURES, AugmentConfig, DataConfig, FrontendConfig, TrainConfig
from aumcli.errors import AumError
from aumcli.predict import find_clips
from aumcli.prepare import prepare
from aumcli.utils import console

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "--epochs", "3"], "--set train.epochs=3"),
        (["train", "--batch-size=16"], "--set train.batch_size=16"),
        (["ablate", "--lr", "-h"], "--set train.lr=VALUE"),
        (["train", "--n-mels", "80"], "--set frontend.n_mels=80"),
        (["train", "fsdd"], "aum train --recipe fsdd"),
        (["predict", "--thresh", "0.3", "x.wav"], "--threshold"),
        (["eval"], "aum eval runs/NAME"),
        (["prepare"], "aum prepare folder"),
        (["predikt", "x.wav"], "predict"),
        (["bench", "--max-tokens", "x"], "aum bench --help"),
        (["train", "--nothing-like-it"], "aum train --help"),
    ],
)
def test_what_was_meant_is_named(aum, arguments, words):
    result = aum(*arguments)
    assert result.code == 2 and not result.out
    assert "error: " in result.err and words in result.err.partition("fix: ")[2], result.err


def test_data_and_folders_without_an_option(aum, here):
    sounds(here / "my sounds", 3)
    assert "aum prepare folder 'my sounds', then aum train --data data/'my sounds'" in aum("train", "my sounds").err
    prepare("folder", here / "ready", source=here / "my sounds")
    assert "aum train --data ready" in aum("train", "ready").err


@pytest.mark.parametrize("config", [TrainConfig, DataConfig, AugmentConfig, FrontendConfig, *ARCHITECTURES.values()])
def test_every_key_of_a_recipe_is_known(aum, config):
    name = list(config.model_fields)[-1]
    option = "--" + name.replace("_", "-")
    if option not in ("--init", "--seed"):
        assert f".{name}=5" in aum("train", option, "5").err


def test_short_options(aum, clips, trained, here):
    assert aum("train", "-h").code == aum("-h").code == 0
    assert aum("predict", clips / "low.wav", "-m", trained, "-o", here / "out.csv").code == 0
    assert (here / "out.csv").read_text().startswith("path")
    assert aum("eval", trained, "-o", here / "eval").code == 0 and (here / "eval" / "eval-test.json").exists()


def test_a_call_without_arguments_shows_the_help(aum):
    result = aum()
    assert result.code == 2 and "Usage" in result.out and "error" not in result.err


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("variables, coloured", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_errors_have_colours_on_a_terminal(monkeypatch, variables, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    for stream, expected in ((Terminal(), coloured), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        console.print_error(AumError("clip\x1b[2Jname is bad", fix="mend it"))
        text = stream.getvalue()
        assert ("\x1b[1;31merror:\x1b[0m clip" in text and "\x1b[1;32mfix:\x1b[0m mend" in text) is expected
        assert "\x1b[2J" not in text  # a name commands no terminal
        assert expected or text.startswith("error: clip")


def standard_input(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))


def test_a_list_from_standard_input_with_comments(clips, monkeypatch, here):
    (here / "#1.wav").write_bytes((clips / "low.wav").read_bytes())
    standard_input(monkeypatch, f"# the north site\n{clips / 'low.wav'}\n\n#1.wav\n#2.wav\n".encode())
    assert [source.path for source in find_clips([], "-")] == [str(clips / "low.wav"), "#1.wav"]
    with pytest.raises(AumError, match="standard input"):
        find_clips(["-"], "-")


def test_of_a_long_file_it_is_said_how_far_it_is(trained, here, monkeypatch):
    from tiny import sound

    from aumcli.classifier import load_model
    from aumcli.predict import predict_config, scoring
    from aumcli.predict.inputs import Source

    monkeypatch.setattr("aumcli.predict.decoding.PART_SAMPLES", 8000 * 20)
    places = []
    long, short = (
        Source.of(sound(here / name, 300.0, seconds=seconds)) for name, seconds in (("long.wav", 150), ("short.wav", 3))
    )
    for _ in scoring.predict_groups(load_model(trained), [long, short], predict_config(), at=places.append):
        pass
    assert (
        places
        and all(place.endswith("of long.wav") for place in places)
        and places == sorted(places)
        and places[-1].startswith("2:")
    )
    assert scoring.clock(3725) == "1:02:05" and scoring.clock(59) == "0:59"
    assert os.path.exists("long.wav")

"""What the command is given, when it isn't what it looks like.

Lists from anywhere, pipes, devices, entries that are nothing.
"""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny import CLASSES, sound

from aumcli.errors import AumError
from aumcli.predict.inputs import find_clips

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")
posix = pytest.mark.skipif(os.name == "nt", reason="needs FIFOs and names of any bytes")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    for name in ("AUM_MODEL", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name, hz in CLASSES.items():
        sound(Path("rec") / f"{name}.wav", hz, seed=5)


@pytest.fixture
def predict(aum, trained):
    """`aum predict` with the tests' model."""
    return lambda *arguments: aum("predict", "--model", trained, *arguments)


def listed(data: bytes) -> list[str]:
    Path("list").write_bytes(data)
    return [source.path for source in find_clips([], "list")]


@pytest.mark.parametrize(
    "data",
    [
        b"rec/low.wav\nrec/high.wav\n",
        b"rec/low.wav\r\nrec/high.wav\r\n",
        b"rec/low.wav\n\n \nrec/high.wav",
        b"\xef\xbb\xbfrec/low.wav\nrec/high.wav\n",
        b"rec/low.wav\0rec/high.wav\0",
        "rec/low.wav\r\nrec/high.wav\r\n".encode("utf-16"),
        "\ufeffrec/low.wav\nrec/high.wav".encode("utf-16-be"),
    ],
)
def test_lists_from_anywhere(data):
    assert listed(data) == ["rec/low.wav", "rec/high.wav"]


@posix
@pytest.mark.parametrize(
    "name", [b"caf\xe9.wav", b"cr\r", b"\xe2\x80\xa8sep\x0b\x0c\x1c\xc2\x85.wav", b"line\nbreak.wav"]
)
def test_a_list_names_any_bytes(name):
    path = Path("rec", os.fsdecode(name))
    path.write_bytes(Path("rec/low.wav").read_bytes())
    separator = b"\0" if b"\n" in name else b"\n"
    found = listed(b"rec/low.wav" + separator + b"rec/" + name + separator)
    assert found == ["rec/low.wav", str(path)] and os.fsencode(found[1]) == b"rec/" + name


@pytest.mark.parametrize(
    "entry, words",
    [
        (b"gone.wav", "gone.wav doesn't exist"),
        (b"none*.wav", "nothing matches none*.wav"),
        (b"gone[1].wav", "nothing matches gone[1].wav"),
        (b"void", "void holds no sound files"),
        (b"hi\0gh.wav", "no name contains NUL: hi\\x00gh.wav"),
        (bytes(3000), "no name contains NUL"),
        (b"/dev/null", "is a device, not a sound file"),
        (b"bad.txt", "is not audio"),
    ],
)
def test_one_bad_entry_costs_itself(predict, entry, words):
    Path("void").mkdir()
    Path("bad.txt").write_text("no sound")
    Path("list").write_bytes(b"rec/low.wav\n" + entry + b"\nrec/high.wav\n")
    for out in ((), ("--out", "r.json"), ("--out", "results/")):
        result = predict("--from", "list", *out)
        assert (
            result.code == 1 and "2 clips, " in result.err and result.err.count("error: ") == 1 and words in result.err
        ), result.err
        assert len(result.err.partition("error: ")[2]) < 300
    assert (
        len(json.loads(Path("r.json").read_text())["failed"]) == 1
        and len(json.loads(Path("r.json").read_text())["clips"]) == 2
    )
    assert {"low.wav.json", "high.wav.json"} <= {path.name for path in Path("results").iterdir()}


@posix
def test_an_unreadable_folder_costs_itself(tmp_path):
    Path("locked/in").mkdir(parents=True)
    os.chmod("locked/in", 0)
    Path("list").write_text("rec/low.wav\nlocked/in\nlocked\n")
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)  # root may read all
        found = find_clips([], "list")
    finally:
        os.seteuid(user)
        os.chmod("locked/in", 0o755)
    assert [source.problem for source in found] == ["", *["can't list locked/in: Permission denied"] * 2] and found[
        1
    ].fix


def test_where_nothing_is_named_the_call_is_the_mistake(predict):
    Path("void").mkdir()
    result = predict("none*.wav", "void")
    assert result.code == 2 and "nothing matches none*.wav" in result.err and "void holds no sound files" in result.err
    assert result.err.count("error: ") == 1


def test_a_sound_is_no_list(predict):
    result = predict("--from", "rec/low.wav")
    assert result.code == 2 and "rec/low.wav is no list of files" in result.err and len(result.err) < 300
    assert "Is a directory" in predict("--from", "rec").err


def test_one_empty_folder_beside_others(predict):
    Path("void").mkdir()
    result = predict("rec", "void")
    assert result.code == 1 and "3 clips" in result.err and "void holds no sound files" in result.err
    assert predict("*").code == 1  # the pattern matches both


# pipes


@posix
def test_a_fifo_is_read_once(predict):
    os.mkfifo("fifo")
    sender = threading.Thread(target=lambda: Path("fifo").write_bytes(Path("rec/low.wav").read_bytes()))
    sender.start()
    result = predict("fifo", "rec/high.wav", "--format", "json", "--top", 1)
    sender.join(10)
    clips = json.loads(result.out)["clips"]
    assert (
        result.code == 0
        and [clip["path"] for clip in clips] == ["fifo", "rec/high.wav"]
        and clips[0]["labels"][0]["label"] == "low"
    )
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)


@posix
def test_what_a_shell_pipes_in(trained):
    result = subprocess.run(
        [
            "bash",
            "-c",
            f"{sys.executable} -m aumcli predict <(cat rec/low.wav) <(cat rec/high.wav) <(echo text) <(true) --from "
            f"<(echo rec/hiss.wav) --model {trained} --format csv --top 1 --threshold 1",
        ],
        capture_output=True,
        text=True,
    )
    assert [line.split(",")[4] for line in result.stdout.splitlines() if ",clip," in line] == ["low", "high", "hiss"], (
        result.stderr
    )
    assert (
        result.returncode == 1
        and result.stderr.count("error: ") == 2
        and "is not audio" in result.stderr
        and "is empty" in result.stderr
    )
    assert "aum-" not in result.stderr and "ffmpeg -i FILE -f wav - | aum predict -" in result.stderr


def test_no_place_for_what_is_piped_in(predict, monkeypatch, tmp_path):
    from aumcli.predict import inputs

    if os.name == "nt":
        pytest.skip("needs FIFOs")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    inputs._scratch.cache_clear()
    os.mkfifo("fifo")
    sender = threading.Thread(target=lambda: open("fifo", "wb").close())
    sender.start()
    with pytest.raises(AumError, match="no place for temporary files") as caught:
        find_clips(["fifo"])
    sender.join(10)
    assert "TMPDIR" in caught.value.fix and caught.value.exit_code == 1
    inputs._scratch.cache_clear()


@pytest.mark.parametrize(
    "variables, code",
    [({"RANK": ""}, 0), ({"RANK": "3"}, 0), ({"RANK": "x", "WORLD_SIZE": "2"}, 2), ({"WORLD_SIZE": "two"}, 2)],
)
def test_a_launcher_that_is_none(predict, monkeypatch, variables, code):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = predict("rec")
    assert result.code == code and ("3 clips" in result.err if code == 0 else "not a number" in result.err)

"""Any bytes in a name: shown everywhere, and the same bytes again where they are read back."""

import json
import os
import random
import subprocess
import sys
import tomllib

import pytest
import tomli_w

from aumcli.utils import text as names
from aumcli.utils.text import counted, plural

HOSTILE = [
    b"caf\xe9.wav",
    b"\xff",
    b"\xc3",
    b"a\\xe9b",
    b"\\x5c\\x5cxff\xff",
    b"tab\there",
    b"cr\rhere",
    b"line\nbreak",
    b"\x1b[31mred",
    b"\x7f",
    "é☃😀".encode(),
    "e\u0301".encode(),
    "\u2028\x85".encode(),
    b" spaces ",
    b"'\"$`;&|<>",
    b"-rf",
    b"a:b",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
]
posix = pytest.mark.skipif(os.name == "nt", reason="names are text there")


@posix
@pytest.mark.parametrize("raw", HOSTILE)
def test_what_is_escaped_is_text_and_comes_back(raw):
    name = os.fsdecode(raw)
    text = names.escaped(name)
    assert text.encode("utf-8").decode("utf-8") == text
    assert os.fsencode(names.unescaped(text)) == raw


@posix
def test_any_bytes_come_back():
    rng = random.Random(0)
    for _ in range(2000):
        raw = bytes(rng.choice(b"\\x5ce9ab\xe9\xc3\xa9\xff\x00\n/") for _ in range(rng.randrange(12)))
        name = raw.decode("utf-8", "surrogateescape")
        assert names.unescaped(names.escaped(name)).encode("utf-8", "surrogateescape") == raw, raw


def test_plain_names_stay_as_they_are():
    for name in ("a b/ü.wav", "C:\\dir\\a.wav", "a\\b", "100%", "\\u00e9"):
        assert names.escaped(name) == names.unescaped(name) == names.shown(name) == name


@pytest.mark.parametrize("raw", HOSTILE)
def test_json_and_toml_are_valid_utf8(raw):
    name = raw.decode("utf-8", "surrogateescape")
    for text, read in (
        (names.to_json({"path": name}), json.loads),
        (names.quotable(tomli_w.dumps({"path": name})), tomllib.loads),
    ):
        text.encode("utf-8")
        assert read(text)["path"] == names.shown(name)
    with pytest.raises(ValueError):
        names.to_json(float("nan"))


def test_one_line_is_one_line():
    assert names.one_line("a\tb\r\nc\x1b[1m\u2028d\x85é\udce9") == r"a\x09b\x0d\x0ac\x1b[1m\u2028d\x85é\xe9"


@pytest.mark.parametrize(
    "encoding, shown",
    [("utf-8", "é…\\xe9"), ("cp1252", "é…\\xe9"), ("latin-1", "é\\u2026\\xe9"), ("ascii", "\\xe9\\u2026\\xe9")],
)
def test_a_console_shows_what_it_can(encoding, shown):
    assert "é…\udce9".encode(encoding, names.ESCAPE).decode(encoding) == shown


@posix
@pytest.mark.parametrize("raw", [raw for raw in HOSTILE if b"/" not in raw])
def test_a_shell_reads_a_quoted_path_as_it_is(raw):
    command = os.fsencode(f"printf %s {names.shell_quoted(os.fsdecode(raw))}")
    command.decode("ascii" if names.shell_quoted(os.fsdecode(raw)).startswith("$") else "utf-8")
    done = subprocess.run(["bash", "-c", command], capture_output=True)
    assert done.stdout in (raw, b"./" + raw) and (done.stdout == raw) == (not raw.startswith(b"-") and b":" not in raw)


def test_a_path_is_quoted_only_where_it_must_be():
    if sys.platform != "win32":
        assert [*map(names.shell_quoted, ("a/b.wav", "a b.wav", "x/-a:b"))] == ["a/b.wav", "'a b.wav'", "x/-a:b"]


@pytest.mark.parametrize(
    "count, words, text",
    [
        (1, ("clip",), "1 clip"),
        (0, ("clip",), "0 clips"),
        (2000, ("clip",), "2,000 clips"),
        (1, ("class",), "1 class"),
        (3, ("class",), "3 classes"),
        (1, ("class has", "classes have"), "1 class has"),
        (2, ("box",), "2 boxes"),
        (12, ("class has", "classes have"), "12 classes have"),
    ],
)
def test_numbers_with_their_words(count, words, text):
    assert counted(count, *words) == text and plural(count, *words) == text.split(" ", 1)[1]

"""Names of files as text.

A name may be any bytes; Python keeps those that aren't UTF-8 as lone surrogates, which nothing can show.
Where such a name is shown (terminal, JSON, CSV, HTML), each of these bytes is `\\xNN`. Where it is read again it stands
as `escaped` has it, so that the bytes come back.
"""

import codecs
import json
import os
import re
import shlex
import textwrap

ESCAPE = "aum-escape"  # for open(errors=...): what the encoding doesn't have is escaped, a byte as \xNN
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TO_ESCAPE = re.compile(r"[\ud800-\udfff]|\\(?=x[0-9a-fA-F]{2})")
_ESCAPED = re.compile(r"\\x([0-9a-fA-F]{2})")


def _escape(character: str) -> str:
    """A byte that is not UTF-8 as `\\xNN`, any other character as Python writes it."""
    code = ord(character)
    return (
        f"\\x{code - 0xDC00:02x}"
        if 0xDC80 <= code <= 0xDCFF
        else character.encode("ascii", "backslashreplace").decode("ascii")
    )


def _escape_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPE, _escape_error)


def shown(text: str) -> str:
    """Text to show: bytes that are not UTF-8 as `\\xNN`."""
    return _SURROGATES.sub(lambda match: _escape(match[0]), text)


def one_line(text: str) -> str:
    """The same for formats with a line for each entry: tabs, line ends and other control characters as `\\xNN` too."""
    return _CONTROLS.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else _escape(match[0]), shown(text)
    )


def escaped(name: str) -> str:
    """A name as UTF-8 text that `unescaped` turns back.

    Bytes that are not UTF-8 stand as `\\xNN`, a backslash before `xNN` as `\\x5c`.
    """
    if os.name == "nt":  # names are text there, and the backslash separates folders
        return shown(name)
    return _TO_ESCAPE.sub(lambda match: "\\x5c" if match[0] == "\\" else _escape(match[0]), name)


def unescaped(text: str) -> str:
    """The name that `escaped` made this of."""
    if os.name == "nt" or "\\x" not in text:
        return text
    raw = b"".join(
        part.encode("utf-8", "surrogateescape") if i % 2 == 0 else bytes.fromhex(part)
        for i, part in enumerate(_ESCAPED.split(text))
    )
    return raw.decode("utf-8", "surrogateescape")


def plural(count: float, one: str, many: str = "") -> str:
    """The form of a word that fits a number: `one` for 1, else `many`, by default the regular plural of `one`."""
    if count == 1:
        return one
    return many or (f"{one}es" if one.endswith(("s", "x", "sh")) else f"{one}s")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its word: "1 clip", "2,000 clips", "0 classes"; a verb may stand in both words."""
    return f"{count:,} {plural(count, one, many)}"


def wrapped(text: str) -> str:
    """A sentence for a terminal of 80 columns, its further lines indented; long words, such as paths, stay whole."""
    return textwrap.fill(text, 79, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def to_json(value: object, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """JSON that is valid UTF-8, whatever names stand in it; NaN and infinity are refused (see `json.dumps`)."""
    return quotable(json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators))


def quotable(text: str) -> str:
    """JSON or TOML -> the same with `\\\\xNN` for bytes that are not UTF-8, which readers of both take for `\\xNN`."""
    return _SURROGATES.sub(lambda match: "\\" + _escape(match[0]), text)


def shell_quoted(path: object) -> str:
    """A path as a word of a command line, never taken for an option or, by ffmpeg, for a protocol."""
    text = str(path)
    if os.name == "nt":
        import subprocess

        return subprocess.list2cmdline([text])
    if text.startswith("-") or ":" in text.partition("/")[0]:
        text = f"./{text}"
    if not _SURROGATES.search(text) and not _CONTROLS.search(text):
        return shlex.quote(text)
    raw = text.encode("utf-8", "surrogateescape")
    return (
        "$'" + "".join(chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\x{byte:02x}" for byte in raw) + "'"
    )


def duration(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def percent(value: float | None) -> str:
    """A fraction as a percentage."""
    return "undefined" if value is None else f"{100 * value:.2f} %"

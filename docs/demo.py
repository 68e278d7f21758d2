"""Make docs/demo.svg, a picture of what `make demo` prints: python docs/demo.py [OUT.svg]. It trains for minutes.

tests/test_demo.py makes the same picture of a much smaller corpus and compares the words.
"""

import html
import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

SVG = Path(__file__).with_name("demo.svg")
KINDS = ("bell", "drum", "rain", "siren", "whistle")
COMMANDS = (
    "aum prepare synth",
    "aum train --recipe synth --out runs/demo",
    "aum eval runs/demo",
    f"aum predict {' '.join(f'data/synth/test/{kind}-000.wav' for kind in KINDS)} --model runs/demo --top 3",
)
COLUMNS = 106
CHARACTER = 12.2  # units of rich's pictures
FIRST_EPOCHS, LAST_EPOCHS = 3, 2  # that are shown; the others are one line
EPOCH = re.compile(r"epoch +\d+/\d+ ")
EVENT = re.compile(r" *data/\S+ +[\d.]+ +[\d.]+ +\w+ +[\d.]+$")
SMALL = {"train": 2, "val": 1, "test": 1}  # sounds of each kind
# the words that name a class, and what a number can be
CLASSES = ("siren", "bell", "drum", "rain", "engine", "whistle", "knock", "chirp", "alarm", "hum")
NUMBER = re.compile(r"(?<![\w-])(?:-?\d[\d,.]*(?:e[-+]\d+)?|inf|-)(?![\w-])|\d[\d,.]*")
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
THEME = TerminalTheme(
    (250, 251, 252),
    (36, 41, 47),
    [
        (36, 41, 47),
        (207, 34, 46),
        (17, 99, 41),
        (154, 103, 0),
        (9, 105, 218),
        (130, 80, 223),
        (27, 124, 131),
        (110, 119, 129),
    ],
    [
        (87, 96, 106),
        (164, 14, 38),
        (26, 127, 55),
        (99, 60, 1),
        (33, 139, 255),
        (164, 117, 249),
        (49, 146, 170),
        (140, 149, 159),
    ],
)


def outputs(small: bool = False) -> list[tuple[str, str]]:
    """Run the commands in an empty folder.

    Args:
        small: on fewer sounds of each kind.

    Returns:
        Each command with what it printed, as to a terminal.
    """
    code = "from aumcli.cli import main; main()"
    if small:
        code = f"from aumcli.data.sources import synth; synth.CLIPS_PER_KIND = {SMALL}; {code}"
    surroundings = os.environ | {
        "FORCE_COLOR": "1",
        "COLUMNS": str(COLUMNS),
        "OMP_NUM_THREADS": "2",
        "PYTHONIOENCODING": "utf-8",
    }
    surroundings["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            done = subprocess.run(
                [sys.executable, "-c", code, *shlex.split(command)[1:]],
                cwd=folder,
                env=surroundings,
                text=True,
                encoding="utf-8",
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode:
                raise SystemExit(f"{command}:\n{done.stdout}")
            found.append((command, done.stdout.replace(f"{os.path.realpath(folder)}/", "").replace(f"{folder}/", "")))
    return found


def svg(found: Iterable[tuple[str, str]]) -> str:
    """Draw commands and what they printed as a terminal."""
    from rich._export_format import CONSOLE_SVG_FORMAT

    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for number, (command, printed) in enumerate(found):
        console.print(*[""] * bool(number), Text.assemble(("$ ", "bold green"), (_folded(command), "bold")), sep="\n")
        for line in _fewer_epochs(printed.rstrip().splitlines()):
            console.print(Text.from_ansi(line.rstrip()))
    form = re.sub(
        r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.S
    )  # no picture loads fonts from elsewhere
    form = form.replace("Fira Code, monospace", FONT).replace(
        "rgba(255,255,255,0.35)", "rgba(27,31,36,0.15)"
    )  # the frame
    return console.export_svg(title="make demo", theme=THEME, code_format=form, unique_id="demo")


def words(picture: str) -> str:
    """The text of a picture without what differs from run to run.

    These are numbers, names of classes, marks of the best epoch, spaces, how many events a clip has, and what a
    training says of itself when it went badly, as that of a few sounds does.
    """
    text = "\n".join(line for line in lines(picture) if not EVENT.match(line))
    text = re.sub(r"\bstart_s +stop_s +", "", re.sub(r"(\.wav) +- +- ", r"\1 ", text))
    text = re.sub(rf"\b(?:{'|'.join(CLASSES)})\b", "KIND", text)
    text = NUMBER.sub("#", re.sub(r"─+", "─", re.sub(r"\w+ backend", "# backend", text)))
    text = re.sub(r"\s+", " ", re.sub(r"(# %) \*", r"\1", text)).strip()
    return re.sub(
        r"warning: the network underfits: .*?=gentle\) |warning: (?=a linear model)|, which is worse", "", text
    )


def lines(picture: str) -> list[str]:
    """The lines of text of a picture."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text class="demo-r\d+" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', picture, re.S):
        rows.setdefault(float(y), []).append((float(x), html.unescape(text).replace("\xa0", " ")))
    found = []
    for y in sorted(rows):
        line = ""
        for x, text in sorted(rows[y]):
            line = line.ljust(round(x / CHARACTER)) + text
        found.append(line.rstrip())
    return found


def commands(picture: str) -> list[str]:
    """The commands that a picture shows."""
    text = "\n".join(lines(picture)).replace("\\\n", " ")
    return [" ".join(match.split()) for match in re.findall(r"^\$ (.*)$", text, re.M)]


def _folded(command: str) -> str:
    """A command in lines that fit, as one may paste them."""
    rows = [""]
    for word in command.split():
        if len(rows[-1]) + len(word) > COLUMNS - 6:
            rows[-1] += "\\"
            rows.append("    ")
        rows[-1] += f"{word} "
    return "\n".join(row.rstrip() for row in rows)


def _fewer_epochs(printed: list[str]) -> list[str]:
    """The lines of a training, most epochs in one."""
    places = [i for i, line in enumerate(printed) if EPOCH.match(line)]
    left_out = places[FIRST_EPOCHS:-LAST_EPOCHS]
    if not left_out:
        return printed
    return [*printed[: left_out[0]], f"  ... {len(left_out)} more epochs ...", *printed[left_out[-1] + 1 :]]


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else SVG
    out.write_text(svg(outputs()), encoding="utf-8")
    print(f"wrote {out}")

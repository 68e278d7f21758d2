"""How well a model of spoken digits knows voices that it never heard: those of the espeak-ng synthesizer.

    python benchmarks/unheard_voices.py [--model digits] > voices.md

Needs `espeak-ng` (a package of that name in Debian, Ubuntu, Fedora and Homebrew). Each voice says every digit at three
speeds and pitches; the silence around a word is left as the synthesizer gives it. All voices are in the table.
"""

import io
import shutil
import subprocess

import soundfile
import torch
from harness import parser_of, print_environment, print_section

from aumcli import load_model
from aumcli.data.sources.fsdd import DIGITS

# accents with the synthesizer's own voice, then its other voices, women and men
VOICES = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"),
    *("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+f5"),
    *("en-us+m1", "en-us+m2", "en-us+m3", "en-us+m4", "en-us+m5", "en-us+m6", "en-us+m7"),
)
MANNERS = ((130, 40), (155, 50), (180, 60))  # words per minute, pitch of 0 .. 99; 175 and 50 are the synthesizer's


def say(word: str, voice: str, speed: int, pitch: int) -> tuple[torch.Tensor, int]:
    """Speak a word: samples, (samples,) float32, and their rate in Hz."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    sound = subprocess.run(command, capture_output=True, check=True).stdout
    samples, rate_hz = soundfile.read(io.BytesIO(sound), dtype="float32")
    return torch.from_numpy(samples), rate_hz


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="digits", help="as of aum predict")
    options = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        parser.error("espeak-ng is not installed")
    voices, manners = (VOICES[:1], MANNERS[:1]) if options.smoke else (VOICES, MANNERS)
    model = load_model(options.model)
    rows, right, said = [], 0, 0
    print_environment()
    for voice in voices:
        mistakes = []
        for digit in DIGITS:
            for speed, pitch in manners:
                heard = model.predict(*say(digit, voice, speed, pitch))[0][0]
                mistakes += [f"{digit} as {heard}"] if heard != digit else []
        count = len(DIGITS) * len(manners)
        right, said = right + count - len(mistakes), said + count
        rows.append([voice, f"{100 * (1 - len(mistakes) / count):.0f} %", ", ".join(sorted(set(mistakes)))])
    title = f"{options.model} on {len(voices)} voices of espeak-ng: {100 * right / said:.1f} % of {said} words"
    print_section(title, ("voice", "accuracy", "mistakes"), rows)


if __name__ == "__main__":
    main()

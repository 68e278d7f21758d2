"""How often a model of spoken digits hears some where there are none, and what it finds of those that are there.

    python benchmarks/false_alarms.py [--model digits] [--data data/fsdd] [--speech DIR] [--minutes 60] > alarms.md

For each kind of sound there is a recording without digits, in which every event of `aum predict` is a false alarm, and
the same with the test digits of --data mixed in, each louder than what is there by --snr dB, 2 to 6 s apart. An event
is right that overlaps a digit of its class. Kinds: silence, with faint noise; noise from blue to brown, whose level
wanders; speech of other words by voices of espeak-ng that no training had; recordings below --speech, of speech
without digits; music of synthetic instruments.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from harness import parser_of, print_environment, print_section
from unheard_voices import VOICES, say

from aumcli import load_model
from aumcli.classifier import Classifier
from aumcli.data.decoding.audio import AUDIO_SUFFIXES, find_files, load_audio
from aumcli.data.manifest import read_manifest
from aumcli.predict import predict_files
from aumcli.predict.events import Event

_TEXT = """
alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar papa quebec romeo sierra
tango uniform victor whiskey xray yankee zulu monday tuesday wednesday thursday friday saturday sunday january february
march april june july august september october december robot rocket planet comet saturn jupiter venus mercury london
paris berlin madrid lisbon vienna prague warsaw helsinki tomato potato onion carrot lettuce pepper cherry lemon melon
banana violin trumpet guitar piano cello flute organ doctor lawyer baker butcher tailor sailor soldier painter writer
"""
TEST_WORDS = _TEXT.split()  # none of them in digits_corpus.py
GAP_S = (2.0, 6.0)  # from the end of a digit to the next
Sound = np.ndarray  # (samples,) float32


def noise(draw: np.random.Generator, samples: int, rate_hz: int) -> Sound:
    """Coloured noise in stretches of 10 s."""
    parts = []
    for _ in range(-(-samples // (10 * rate_hz))):
        spectrum = np.fft.rfft(draw.standard_normal(10 * rate_hz))
        hz = np.maximum(np.fft.rfftfreq(10 * rate_hz, 1 / rate_hz), 20.0)
        part = np.fft.irfft(spectrum * hz ** draw.uniform(-1.0, 0.5))
        level = 10 ** (np.interp(np.arange(len(part)), np.linspace(0, len(part), 12), draw.uniform(-50, -10, 12)) / 20)
        parts.append(level * part / part.std())
    return np.concatenate(parts)[:samples].astype(np.float32)


def silence(draw: np.random.Generator, samples: int, rate_hz: int) -> Sound:
    """Digital silence, and noise of 60 to 90 dB below full scale, in turns of 10 s."""
    level = 10 ** (draw.uniform(-90, -60, 2 + samples // (10 * rate_hz)) / 20) * (
        np.arange(2 + samples // (10 * rate_hz)) % 2
    )
    return (np.repeat(level, 10 * rate_hz)[:samples] * draw.standard_normal(samples)).astype(np.float32)


def music(draw: np.random.Generator, samples: int, rate_hz: int) -> Sound:
    """Chords, melodies and beats of plucked, blown and struck synthetic instruments."""
    sound = np.zeros(samples + 4 * rate_hz, dtype=np.float32)
    scale, place = np.array([0, 2, 3, 5, 7, 8, 10]), 0
    while place < samples:
        root, beat_s, kind = draw.integers(-24, 0), draw.uniform(0.15, 0.6), draw.integers(3)
        for _ in range(draw.integers(8, 33)):  # a phrase
            seconds = beat_s * draw.choice([0.5, 1, 1, 2])
            t = np.arange(int(min(3, 2 * seconds) * rate_hz)) / rate_hz
            note = np.zeros(len(t))
            for step in draw.choice(scale, draw.integers(1, 4), replace=False):
                hz = 440 * 2 ** ((root + step + 12 * draw.integers(0, 2)) / 12)
                for harmonic in range(1, int(min(12, 0.45 * rate_hz / hz)) + 1):
                    fall = draw.uniform(2, 6) * harmonic if kind == 0 else draw.uniform(0.2, 1)
                    wobble = 0.003 * np.sin(2 * np.pi * 5 * t) * (kind == 1)
                    note += np.sin(2 * np.pi * hz * harmonic * (t + wobble / 10)) * np.exp(-fall * t) / harmonic**1.2
            if kind == 2 or draw.random() < 0.3:  # a drum
                note += draw.standard_normal(len(t)) * np.exp(-t * draw.uniform(10, 60)) * draw.uniform(0.2, 1)
            note *= np.minimum(1, t / draw.choice([0.002, 0.03])) * np.minimum(1, (t[-1] - t) / 0.05)
            sound[place : place + len(t)] += (10 ** (draw.uniform(-30, -10) / 20) * note / np.abs(note).max())[
                : len(sound) - place
            ].astype(np.float32)
            place += int(seconds * rate_hz)
            if place >= samples:
                break
    return np.clip(sound[:samples], -1, 1)


def other_speech(draw: np.random.Generator, samples: int, rate_hz: int) -> Sound:
    """Words other than digits, by voices of espeak-ng."""
    import torchaudio

    parts, length = [], 0
    while length < samples:
        words = draw.choice([" ", ", ", ". "]).join(draw.choice(TEST_WORDS, 40))
        sound, from_hz = say(words, str(draw.choice(VOICES)), int(draw.integers(120, 200)), int(draw.integers(30, 80)))
        parts.append(torchaudio.functional.resample(sound, from_hz, rate_hz).numpy())
        length += len(parts[-1])
    return np.concatenate(parts)[:samples]


def recordings_below(folder: Path) -> Callable[[np.random.Generator, int, int], Sound]:
    """The sounds of a folder in random order, again and again; each once at least where there is time."""

    def join(draw: np.random.Generator, samples: int, rate_hz: int) -> Sound:
        paths = [path for path in find_files(folder) if path.suffix.lower() in AUDIO_SUFFIXES]
        parts, length = [], 0
        while length < samples:
            for i in draw.permutation(len(paths)):
                parts.append(np.concatenate([load_audio(paths[i], rate_hz)[0], np.zeros(rate_hz // 4, np.float32)]))
                length += len(parts[-1])
                if length >= samples:
                    break
        return np.concatenate(parts)[:samples]

    return join


def mix_digits(
    draw: np.random.Generator, sound: Sound, digits: list[tuple[str, Sound]], rate_hz: int, snr_db: float
) -> tuple[Sound, list[tuple[float, float, str]]]:
    """Add digits at random times, each `snr_db` louder than what is there, and say where: (start, stop in s, label)."""
    mixed, placed, at = sound.copy(), [], int(rate_hz)
    while True:
        label, digit = digits[draw.integers(len(digits))]
        if at + len(digit) > len(sound):
            return mixed / max(1.0, float(np.abs(mixed).max())), placed  # softer as a whole: a clipped digit is another
        under = float(np.sqrt(np.mean(sound[at : at + len(digit)] ** 2)))
        level = max(under * 10 ** (snr_db / 20), 0.02)
        mixed[at : at + len(digit)] += digit * level / max(1e-6, float(np.sqrt(np.mean(digit**2))))
        placed.append((at / rate_hz, (at + len(digit)) / rate_hz, label))
        at += len(digit) + int(draw.uniform(*GAP_S) * rate_hz)


def score(events: tuple[Event, ...], placed: list[tuple[float, float, str]]) -> tuple[float, float, int]:
    """Share of the digits that an event finds, event F1, and events that are none."""
    found = [
        any(e.label == label and e.start_s < stop and e.stop_s > start for e in events) for start, stop, label in placed
    ]
    right = [
        any(e.label == label and e.start_s < stop and e.stop_s > start for start, stop, label in placed) for e in events
    ]
    recall, precision = (float(np.mean(each)) if each else 0.0 for each in (found, right))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return recall, f1, len(right) - sum(right)


def events_in(
    model: Classifier, sound: Sound, rate_hz: int, folder: Path, threshold: float | None
) -> tuple[Event, ...]:
    """The events that `aum predict` finds in a recording."""
    soundfile.write(folder / "recording.wav", sound, rate_hz)
    [prediction] = predict_files(model, [folder / "recording.wav"], threshold=threshold)
    return prediction.events


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="digits", help="as of aum predict")
    parser.add_argument(
        "--data", type=Path, default=Path("data/fsdd"), help="prepared FSDD, whose test split is mixed in"
    )
    parser.add_argument("--speech", type=Path, help="recordings of speech without digits")
    parser.add_argument("--minutes", type=float, default=60, help="of each kind")
    parser.add_argument("--threshold", type=float, help="of all classes (default: the model's own)")
    parser.add_argument("--snr", type=float, default=20, help="of the digits over what is there, in dB")
    options = parser.parse_args()
    model = load_model(options.model)
    rate_hz = model.config.frontend.sample_rate_hz
    kinds = {"silence": silence, "noise": noise, "music": music, "other words": other_speech}
    if options.speech:
        kinds["recorded speech"] = recordings_below(options.speech)
    if options.smoke:
        options.minutes, kinds, digits = (
            0.2,
            {"noise": noise},
            [("one", noise(np.random.default_rng(1), 4000, rate_hz))],
        )
    else:
        manifest = read_manifest(options.data)
        names = {label.id: label.name for label in manifest.labels}
        clips = [clip for clip in manifest.split("test") if clip.labels]
        digits = [
            (names[clip.labels[0]], load_audio(clip.path, rate_hz, clip.start_s, clip.stop_s)[0]) for clip in clips
        ]
    print_environment()
    rows = []
    for kind, make in kinds.items():
        draw = np.random.default_rng(0)
        sound = make(draw, int(60 * options.minutes * rate_hz), rate_hz)
        with tempfile.TemporaryDirectory() as folder:
            alarms = events_in(model, sound, rate_hz, Path(folder), options.threshold)
            mixed, placed = mix_digits(draw, sound, digits, rate_hz, options.snr)
            recall, f1, wrong = score(events_in(model, mixed, rate_hz, Path(folder), options.threshold), placed)
        per_hour = len(alarms) * 60 / options.minutes
        rows.append([kind, f"{per_hour:.0f}", len(placed), f"{100 * recall:.1f} %", f"{f1:.3f}", wrong])
    columns = (
        "sound",
        "false alarms per hour",
        "digits mixed in",
        "found",
        "event F1",
        "wrong events beside them",
    )
    print_section(
        f"{options.model}, {options.minutes:g} minutes of each, digits at {options.snr:g} dB, seed 0", columns, rows
    )


if __name__ == "__main__":
    main()

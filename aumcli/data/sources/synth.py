"""A generated corpus: ten kinds of everyday sound, 1 s each at 16 kHz, needing neither a network nor a disk of data.

The kinds share much of their spectra on purpose: their pitches overlap, and timbre, colour, loudness and background are
drawn alike for all, so that what tells them apart for sure is how a sound moves in time. A classifier on the average
spectrum gets a part right, a model that listens to the course of the sound nearly everything.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from aumcli.data.manifest import Clip, Label
from aumcli.data.sources import Index, Request, progress, unwritable

SAMPLE_RATE_HZ = 16000
SAMPLES = 16000
CLIPS_PER_KIND = {"train": 200, "val": 25, "test": 50}
PEAK_DB = (-26.0, -2.0)                 # relative to full scale
SNR_DB = (0.0, 25.0)                    # background noise, against the loudest tenth of the sound
BURST_SHARE = 0.3                       # of the clips have a short burst of noise besides
PITCH_HZ = {                            # of tones and of struck things; every range overlaps several others
    "siren": (400, 1300), "bell": (500, 2000), "drum": (60, 240), "rain": (1200, 4500), "engine": (120, 500),
    "whistle": (900, 3200), "knock": (250, 1000), "chirp": (1500, 4500), "alarm": (700, 2500), "hum": (100, 400)}
TIME_S = np.arange(SAMPLES) / SAMPLE_RATE_HZ

Rng = np.random.Generator


def index(request: Request) -> Index:
    """Generate the corpus below `request.out`; the same seed gives the same sounds.

    Args:
        request: `seed` chooses the sounds; source and shares are refused.

    Returns:
        The clips, as many of each kind.

    Raises:
        AumError: the folder can't be written.
    """
    request.refuse(source="its sounds are generated", split="its splits are generated, 200 / 25 / 50 clips per kind")
    clips, partial, folder = [], request.out / ".audio.part", request.out / "audio"
    todo = [(kind, split, number) for split, count in CLIPS_PER_KIND.items() for kind in KINDS for number in range(count)]
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for split in CLIPS_PER_KIND:
            (partial / split).mkdir(parents=True)
        for kind, split, number in progress(todo, "generating", len(todo)):
            name = Path(split, f"{kind}-{number:03d}.wav")
            soundfile.write(partial / name, synthesise(kind, split, number, request.seed), SAMPLE_RATE_HZ, "PCM_16")
            clips.append(Clip(folder / name, labels=(kind,), split=split))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, soundfile.LibsndfileError) as error:
        raise unwritable(folder, error if isinstance(error, OSError) else OSError(str(error))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    labels = [Label(place, kind, kind) for place, kind in enumerate(KINDS)]
    return Index(clips, labels, f"generated, seed {request.seed}")


def synthesise(kind: str, split: str, number: int, seed: int = 0) -> np.ndarray:
    """Generate one clip.

    Args:
        kind: a key of KINDS.
        split: a key of CLIPS_PER_KIND.
        number: which clip of that kind and split.
        seed: which corpus.

    Returns:
        (16000,) int16. Computed in float64 and rounded at the end, so that it is the same on any machine.
    """
    rng = np.random.default_rng([seed, list(KINDS).index(kind), list(CLIPS_PER_KIND).index(split), number])
    sound = _coloured(KINDS[kind](rng), rng)
    level = np.sqrt(np.mean(np.sort(sound ** 2)[-SAMPLES // 10:]))
    noise = _noise(rng)
    mix = sound + noise * level * 10 ** (-rng.uniform(*SNR_DB) / 20)
    if rng.random() < BURST_SHARE:
        mix = mix + _noise(rng) * _window(rng.uniform(0, 0.8), rng.uniform(0.05, 0.2)) * level * rng.uniform(0.1, 0.3)
    peak = 10 ** (rng.uniform(*PEAK_DB) / 20)
    return np.rint(mix / np.abs(mix).max() * peak * 32767).astype(np.int16)


def _noise(rng: Rng) -> np.ndarray:
    """Noise of a random colour, white to brown, with mean square 1: (samples,)."""
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLES))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -rng.uniform(0, 1)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, SAMPLES)
    return noise / np.sqrt(np.mean(noise ** 2))


def _coloured(sound: np.ndarray, rng: Rng) -> np.ndarray:
    """The sound in some room through some microphone: a tilt and a few broad ripples over the octaves."""
    octaves = np.log2(np.maximum(np.arange(SAMPLES // 2 + 1), 50) / 1000)
    gain_db = rng.uniform(-4, 4) * octaves
    for _ in range(3):
        gain_db += rng.uniform(0, 6) * np.cos(2 * np.pi * (octaves * rng.uniform(0.2, 0.8) + rng.random()))
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (gain_db / 20), SAMPLES)


def _window(start_s: float, length_s: float, edge_s: float = 0.008) -> np.ndarray:
    """1 from start_s for length_s, with smooth edges, else 0: (samples,)."""
    return np.clip((TIME_S - start_s) / edge_s, 0, 1) * np.clip((start_s + length_s - TIME_S) / edge_s, 0, 1)


def _tone(pitch_hz: float | np.ndarray, rng: Rng) -> np.ndarray:
    """A tone whose pitch may change over time, with overtones of random strength below 7 kHz: (samples,)."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch_hz, SAMPLES)) / SAMPLE_RATE_HZ + rng.uniform(0, 2 * np.pi)
    falloff, top = rng.uniform(0.3, 2.5), float(np.max(pitch_hz))
    return sum(rng.uniform(0.3, 1) * order ** -falloff * np.sin(order * phase)
               for order in range(1, 9) if order * top < 7000)


def _pitch(kind: str, rng: Rng) -> float:
    low, high = PITCH_HZ[kind]
    return low * (high / low) ** rng.random()


def _at(starts_s: np.ndarray, gains: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Repeat a short sound at the given times: (samples,)."""
    pulses = np.zeros(2 * SAMPLES)
    np.add.at(pulses, (starts_s * SAMPLE_RATE_HZ).astype(int), gains)
    return np.fft.irfft(np.fft.rfft(pulses) * np.fft.rfft(sound, 2 * SAMPLES), 2 * SAMPLES)[:SAMPLES]


def _thud(kind: str, rng: Rng, decay_s: float) -> np.ndarray:
    """A dying resonance with some noise: what is heard when one thing hits another, (samples,)."""
    body = _tone(_pitch(kind, rng), rng) + rng.uniform(0.2, 0.7) * _noise(rng)
    return body * np.exp(-TIME_S / decay_s)


def _siren(rng: Rng) -> np.ndarray:
    """A tone that glides up and down, without a pause."""
    swing = np.sin(2 * np.pi * (rng.uniform(1.2, 3) * TIME_S + rng.random()))
    return _tone(_pitch("siren", rng) * 2 ** (rng.uniform(0.3, 0.6) * swing), rng)


def _bell(rng: Rng) -> np.ndarray:
    """One or two strokes that ring out, with overtones off the harmonic row."""
    pitch_hz = _pitch("bell", rng)
    decay_s = rng.uniform(0.15, 0.5)
    stroke = sum(rng.uniform(0.3, 1) * np.exp(-TIME_S / decay_s * ratio ** 0.5) * np.sin(2 * np.pi * ratio * pitch_hz * TIME_S)
                 for ratio in (0.5, 1, 1.19, 1.56, 2, 2.51, 3.01) if ratio * pitch_hz < 7000)
    first_s = rng.uniform(0, 0.35)
    starts_s = np.array([first_s, first_s + rng.uniform(0.25, 0.4)])[:rng.integers(1, 3)]
    return _at(starts_s, rng.uniform(0.6, 1, len(starts_s)), stroke)


def _drum(rng: Rng) -> np.ndarray:
    """Two to four beats that boom."""
    count = rng.integers(2, 5)
    gap_s = rng.uniform(0.2, 0.3)
    starts_s = rng.uniform(0, max(0.01, 0.9 - gap_s * (count - 1))) + gap_s * np.arange(count)
    return _at(starts_s[starts_s < 0.97], rng.uniform(0.6, 1, np.sum(starts_s < 0.97)), _thud("drum", rng, rng.uniform(0.05, 0.1)))


def _knock(rng: Rng) -> np.ndarray:
    """Three to six dry raps."""
    count = rng.integers(3, 7)
    gap_s = rng.uniform(0.08, 0.15)
    starts_s = rng.uniform(0, 0.95 - gap_s * (count - 1)) + gap_s * np.arange(count)
    return _at(starts_s, rng.uniform(0.6, 1, count), _thud("knock", rng, rng.uniform(0.004, 0.012)))


def _rain(rng: Rng) -> np.ndarray:
    """Drops at random times."""
    count = rng.integers(60, 200)
    return _at(rng.uniform(0, 1, count), rng.exponential(1, count), _thud("rain", rng, rng.uniform(0.003, 0.01)))


def _engine(rng: Rng) -> np.ndarray:
    """The strokes of a motor, nearly regular, while it may speed up or slow down."""
    beats = np.cumsum(rng.uniform(16, 32) * 2 ** (rng.uniform(-0.4, 0.4) * TIME_S)) / SAMPLE_RATE_HZ
    starts_s = np.interp(np.arange(1, int(beats[-1])), beats, TIME_S)
    starts_s = np.clip(starts_s + rng.normal(0, 0.001, len(starts_s)), 0, 0.999)
    return _at(starts_s, rng.uniform(0.7, 1, len(starts_s)), _thud("engine", rng, rng.uniform(0.003, 0.01)))


def _whistle(rng: Rng) -> np.ndarray:
    """One long tone that slides once, up or down."""
    length_s = rng.uniform(0.5, 0.8)
    start_s = rng.uniform(0.02, 0.98 - length_s)
    slide = np.clip((TIME_S - start_s) / length_s, 0, 1) * rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)
    return _tone(_pitch("whistle", rng) * 2 ** slide, rng) * _window(start_s, length_s, 0.03)


def _chirp(rng: Rng) -> np.ndarray:
    """A series of short calls, each rising or falling fast."""
    rate_hz, phase, duty = rng.uniform(3, 7), rng.random(), rng.uniform(0.4, 0.6)
    place = np.mod(rate_hz * TIME_S + phase, 1)
    sweep = (place / duty - 0.5) * rng.choice([-1, 1]) * rng.uniform(0.8, 1.4)
    return _tone(_pitch("chirp", rng) * 2 ** np.clip(sweep, -0.7, 0.7), rng) * _gate(place, duty)


def _alarm(rng: Rng) -> np.ndarray:
    """A series of short beeps, all of one pitch."""
    rate_hz, phase, duty = rng.uniform(3, 7), rng.random(), rng.uniform(0.4, 0.6)
    return _tone(_pitch("alarm", rng), rng) * _gate(np.mod(rate_hz * TIME_S + phase, 1), duty)


def _gate(place: np.ndarray, duty: float) -> np.ndarray:
    """1 in the first part of each period, 0 in the rest, with smooth edges: (samples,)."""
    return np.clip(place / 0.05, 0, 1) * np.clip((duty - place) / 0.05, 0, 1)


def _hum(rng: Rng) -> np.ndarray:
    """One tone from beginning to end, which beats slightly."""
    beat = 1 + rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * (rng.uniform(1, 4) * TIME_S + rng.random()))
    return _tone(_pitch("hum", rng), rng) * beat


KINDS: dict[str, Callable[[Rng], np.ndarray]] = {
    "siren": _siren, "bell": _bell, "drum": _drum, "rain": _rain, "engine": _engine, "whistle": _whistle,
    "knock": _knock, "chirp": _chirp, "alarm": _alarm, "hum": _hum}

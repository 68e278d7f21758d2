"""A generated corpus: ten kinds of everyday sound, 1 s each at 16 kHz, needing neither a network nor a disk of data.

The kinds share much of their spectra on purpose: their pitches overlap, and timbre, colour, loudness and background are
drawn alike for all, so that what tells them apart for sure is how a sound moves in time. A classifier on the average
spectrum gets some right, a model of the course of the sound nearly all.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from aumcli.data.clips import Clip
from aumcli.data.labels import Label
from aumcli.data.sources import CorpusIndex, PrepareRequest
from aumcli.utils.download import replace_folder
from aumcli.utils.files import disk_error
from aumcli.utils.progress import progress

SAMPLE_RATE_HZ = 16000
SAMPLES = 16000
CLIPS_PER_KIND = {"train": 200, "val": 25, "test": 50}
PEAK_DB = (-26.0, -2.0)  # relative to full scale
SNR_DB = (2.0, 25.0)  # background noise, against the loudest tenth of the sound
BURST_SHARE = 0.3  # of the clips have a short burst of noise besides
PITCH_HZ = {  # of tones and of struck things; every range overlaps several others
    "siren": (400, 1300),
    "bell": (500, 2000),
    "drum": (60, 200),
    "rain": (1500, 4500),
    "engine": (120, 420),
    "whistle": (900, 3200),
    "knock": (300, 1000),
    "chirp": (1500, 4500),
    "alarm": (700, 2500),
    "hum": (100, 400),
}
TIME_S = np.arange(SAMPLES) / SAMPLE_RATE_HZ
OCTAVES = np.log2(np.maximum(np.arange(SAMPLES // 2 + 1), 50) / 1000)  # of each FFT bin, from 1 kHz

Rng = np.random.Generator


def index(request: PrepareRequest) -> CorpusIndex:
    """Generate the corpus below `request.out`; the same seed gives the same sounds.

    Args:
        request: `seed` chooses the sounds; source and shares are refused.

    Returns:
        The clips, as many of each kind.

    Raises:
        AumError: the folder can't be written.
    """
    request.known_settings()
    request.refuse(
        annotations="its labels are generated",
        source="its sounds are generated",
        split="its splits are generated, 200 / 25 / 50 clips per kind",
    )
    clips, partial = [], request.out / ".generating.part"
    todo = [
        (kind, split, number) for split, count in CLIPS_PER_KIND.items() for kind in KINDS for number in range(count)
    ]
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for split in CLIPS_PER_KIND:
            (partial / split).mkdir(parents=True)
        for kind, split, number in progress(todo, "generating", len(todo)):
            name = Path(split, f"{kind}-{number:03d}.wav")
            soundfile.write(partial / name, synthesise(kind, split, number, request.seed), SAMPLE_RATE_HZ, "PCM_16")
            clips.append(Clip(request.out / name, labels=(kind,), split=split))
        for split in CLIPS_PER_KIND:  # all or nothing: an interrupted run leaves the old ones
            replace_folder(partial / split, request.out / split, lambda name: _OWN_NAME.fullmatch(name) is not None)
    except OSError as error:
        raise disk_error(request.out, error) from error
    except soundfile.LibsndfileError as error:
        raise disk_error(request.out, OSError(str(error))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    labels = [Label(place, kind, kind) for place, kind in enumerate(KINDS)]
    return CorpusIndex(clips, labels, f"generated, seed {request.seed}")


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
    level = np.sqrt(np.mean(np.partition(sound**2, -SAMPLES // 10)[-SAMPLES // 10 :]))
    noise = _noise(rng)
    mix = sound + noise * level * 10 ** (-rng.uniform(*SNR_DB) / 20)
    if rng.random() < BURST_SHARE:
        mix = mix + _noise(rng) * _window(rng.uniform(0, 0.8), rng.uniform(0.05, 0.2)) * level * rng.uniform(0.1, 0.3)
    peak: float = 10 ** (rng.uniform(*PEAK_DB) / 20)
    rounded: np.ndarray = np.rint(mix / np.abs(mix).max() * peak * 32767)
    return rounded.astype(np.int16)


def _noise(rng: Rng, samples: int = SAMPLES) -> np.ndarray:
    """Noise of a random colour, white to pink and darker, with mean square 1: (samples,)."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -rng.uniform(0, 1)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    normalised: np.ndarray = noise / np.sqrt(np.mean(noise**2))
    return normalised


def _coloured(sound: np.ndarray, rng: Rng) -> np.ndarray:
    """The sound in some room through some microphone: a tilt and a few broad ripples over the octaves."""
    gain_db = rng.uniform(-3, 3) * OCTAVES
    for _ in range(3):
        gain_db += rng.uniform(0, 3) * np.cos(2 * np.pi * (OCTAVES * rng.uniform(0.2, 0.8) + rng.random()))
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (gain_db / 20), SAMPLES)


def _window(start_s: float, length_s: float, edge_s: float = 0.008) -> np.ndarray:
    """1 from start_s for length_s, with smooth edges, else 0: (samples,)."""
    return np.clip((TIME_S - start_s) / edge_s, 0, 1) * np.clip((start_s + length_s - TIME_S) / edge_s, 0, 1)


def _tone(pitch_hz: float | np.ndarray, rng: Rng, samples: int = SAMPLES) -> np.ndarray:
    """A tone whose pitch may change over time, with up to seven random overtones below 7 kHz: (samples,)."""
    turns = np.cumsum(np.broadcast_to(pitch_hz, samples)) / SAMPLE_RATE_HZ + rng.random()
    falloff, top_hz = rng.uniform(0.3, 2.5), float(np.max(pitch_hz))
    strength = rng.uniform(0.3, 1, 8) * np.arange(1.0, 9) ** -falloff
    below, now, twice = np.zeros(samples), np.sin(2 * np.pi * turns), 2 * np.cos(2 * np.pi * turns)
    tone: np.ndarray = strength[0] * now
    for order in range(2, 9):
        if order * top_hz < 7000:
            below, now = now, twice * now - below  # sin(k x), cheaper than a sine each
            tone += strength[order - 1] * now
    return tone


def _pitch(kind: str, rng: Rng) -> float:
    low, high = PITCH_HZ[kind]
    pitch_hz: float = low * (high / low) ** rng.random()
    return pitch_hz


def _at(starts_s: np.ndarray, gains: np.ndarray, sound: np.ndarray) -> np.ndarray:
    """Repeat a sound at the given times, each in 0..1, until the clip ends: (samples,)."""
    clip = np.zeros(SAMPLES)
    for start, gain in zip((starts_s * SAMPLE_RATE_HZ).astype(int), gains):
        clip[start : start + len(sound)] += gain * sound[: SAMPLES - start]
    return clip


def _thud(kind: str, rng: Rng, decay_s: float) -> np.ndarray:
    """The sound of a strike, a decaying resonance with some noise, until 100 dB down: (samples,)."""
    samples = int(12 * decay_s * SAMPLE_RATE_HZ)
    tone = _tone(_pitch(kind, rng), rng, samples)
    noise = _noise(rng, 2 ** samples.bit_length())[:samples]  # such lengths are transformed fast
    return (tone + rng.uniform(0.2, 0.7) * noise) * np.exp(-np.arange(samples) / (decay_s * SAMPLE_RATE_HZ))


def _siren(rng: Rng) -> np.ndarray:
    """A tone that glides up and down, without a pause."""
    swing = np.sin(2 * np.pi * (rng.uniform(1.2, 3) * TIME_S + rng.random()))
    return _tone(_pitch("siren", rng) * 2 ** (rng.uniform(0.3, 0.6) * swing), rng)


def _bell(rng: Rng) -> np.ndarray:
    """One or two strokes that ring out, with overtones off the harmonic row."""
    pitch_hz = _pitch("bell", rng)
    decay_s = rng.uniform(0.15, 0.5)
    partials = [
        np.exp(-TIME_S / decay_s * ratio**0.5) * np.sin(2 * np.pi * ratio * pitch_hz * TIME_S)
        for ratio in (0.5, 1, 1.19, 1.56, 2, 2.51, 3.01)
        if ratio * pitch_hz < 7000
    ]
    stroke = rng.uniform(0.3, 1, len(partials)) @ partials
    first_s = rng.uniform(0, 0.35)
    starts_s = np.array([first_s, first_s + rng.uniform(0.25, 0.4)])[: rng.integers(1, 3)]
    return _at(starts_s, rng.uniform(0.6, 1, len(starts_s)), stroke)


def _drum(rng: Rng) -> np.ndarray:
    """Two to four beats that boom."""
    count, gap_s = rng.integers(2, 5), rng.uniform(0.2, 0.3)
    starts_s = rng.uniform(0, 0.95 - gap_s * (count - 1)) + gap_s * np.arange(count)
    return _at(starts_s, rng.uniform(0.6, 1, count), _thud("drum", rng, rng.uniform(0.05, 0.1)))


def _knock(rng: Rng) -> np.ndarray:
    """Three to six dry raps."""
    count, gap_s = rng.integers(3, 7), rng.uniform(0.08, 0.15)
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
    pitch_hz = _pitch("whistle", rng) * 2**slide
    whistle: np.ndarray = _tone(pitch_hz, rng) * _window(start_s, length_s, 0.03)
    return whistle


def _chirp(rng: Rng) -> np.ndarray:
    """A series of short calls, each rising or falling fast."""
    rate_hz, phase, duty = rng.uniform(3, 7), rng.random(), rng.uniform(0.4, 0.6)
    place = np.mod(rate_hz * TIME_S + phase, 1)
    sweep = (place / duty - 0.5) * rng.choice([-1, 1]) * rng.uniform(0.8, 1.4)
    calls: np.ndarray = _tone(_pitch("chirp", rng) * 2 ** np.clip(sweep, -0.7, 0.7), rng) * _gate(place, duty)
    return calls


def _alarm(rng: Rng) -> np.ndarray:
    """A series of short beeps, all of one pitch."""
    rate_hz, phase, duty = rng.uniform(3, 7), rng.random(), rng.uniform(0.4, 0.6)
    beeps: np.ndarray = _tone(_pitch("alarm", rng), rng) * _gate(np.mod(rate_hz * TIME_S + phase, 1), duty)
    return beeps


def _gate(place: np.ndarray, duty: float) -> np.ndarray:
    """1 in the first part of each period, 0 in the rest, with smooth edges: (samples,)."""
    return np.clip(place / 0.05, 0, 1) * np.clip((duty - place) / 0.05, 0, 1)


def _hum(rng: Rng) -> np.ndarray:
    """One tone from beginning to end, which beats slightly."""
    beat = 1 + rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * (rng.uniform(1, 4) * TIME_S + rng.random()))
    hum: np.ndarray = _tone(_pitch("hum", rng), rng) * beat
    return hum


KINDS: dict[str, Callable[[Rng], np.ndarray]] = {
    "siren": _siren,
    "bell": _bell,
    "drum": _drum,
    "rain": _rain,
    "engine": _engine,
    "whistle": _whistle,
    "knock": _knock,
    "chirp": _chirp,
    "alarm": _alarm,
    "hum": _hum,
}
_OWN_NAME = re.compile(rf"({'|'.join(KINDS)})-\d{{3}}\.wav")

"""What a training infers from its data: sample rate, band, window, clip length and normalisation of its input."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from aumcli.config import MOST_FILTER_WEIGHTS, FrontendConfig
from aumcli.core.frontend import build_frontend, narrowest_spacing_hz
from aumcli.data.clips import Clip
from aumcli.data.datasets.clip_source import LongClip
from aumcli.data.datasets.waveforms import Waveforms
from aumcli.data.decoding.audio import audio_info
from aumcli.data.decoding.windows import LONG_CLIP_S
from aumcli.data.manifest import Manifest
from aumcli.errors import AumError
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, plural

HIGHEST_RATE_HZ = 16000  # the published rate; what lies above 8 kHz is rarely worth twice the work
ULTRASONIC_HZ = 96000  # files of a higher rate may hold calls of milliseconds, which need a shorter window
STUDIO_HZ = 192000  # files of a higher rate hold nothing else
WINDOW_SAMPLES = 1024  # of such a window: each of 128 mels from LOW_HZ on has an FFT bin of its own
LOW_HZ = 8000.0  # of their band
COVERED = 0.75  # share of the training clips that fit into one model input; longer ones give several windows
SHORTEST_S, SHORTEST_FRAMES = 0.5, 50  # the lesser of these
LONGEST_FRAMES = 1000  # 10 s at the usual hop
MARGIN = 1.1  # beyond the frequencies of annotated events, on either side
WIDEST_BIN, NARROWEST_BIN = 2.5, 1 / 8  # of a window that is kept: an FFT bin, as a share of the narrowest mel spacing
USUAL_HZ = (4000, ULTRASONIC_HZ)  # rates at which the recipe's window fits the usual band
LEAST_WINDOWS, LEAST_SAMPLES = 20, 4  # of windows one after the other, in a clip; and in a window
HEADERS_READ = 100  # where report.json doesn't have the sample rates
MEASURED_CLIPS = 2000  # normalisation is a mean over millions of values: more clips don't change it


def infer_shape(
    infer: Collection[str],
    clips: Sequence[Clip],
    frontend: FrontendConfig,
    whole_frames: Callable[[int], int],
    band_hz: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Choose what the model's input covers, by the headers of sound files and the frequencies of annotated events.

    Args:
        infer: what to choose (see `DataConfig.infer`); normalisation is not.
        clips: the training split.
        frontend: what is not chosen.
        whole_frames: of the model's configuration (see `NetworkConfig`): rounds up what its tokens have to fill.
        band_hz: where the events are; None: not known.

    Returns:
        Values of the frontend, those that were to be chosen.

    Raises:
        AumError: a clip can't be read, or the events are above the model's input.
    """
    chosen: dict[str, Any] = {}
    if not {"sample_rate", "low_hz", "high_hz", "window", "clip_length"} & set(infer):
        return chosen
    durations_s, counts = _headers(clips)
    clip_s = float(np.quantile(durations_s, COVERED))
    own_hz = _own_rate(Counter(counts), band_hz)
    is_open = {"sample_rate", "low_hz", "high_hz"} <= set(infer)
    wanted = _wanted_band(own_hz, band_hz if {"low_hz", "high_hz"} & set(infer) else None, is_open)
    if "sample_rate" in infer:
        chosen["sample_rate_hz"] = _fitted_rate(own_hz, wanted)
    rate_hz = chosen.get("sample_rate_hz", frontend.sample_rate_hz)
    if wanted is not None and "low_hz" in infer:
        chosen["low_hz"] = float(round(wanted[0]))
    if wanted is not None and "high_hz" in infer:
        chosen["high_hz"] = float(round(wanted[1])) if wanted[1] < rate_hz / 2 else None
    low_hz = chosen.get("low_hz", frontend.low_hz)
    high_hz = chosen.get("high_hz", frontend.high_hz) or rate_hz / 2
    if low_hz >= high_hz:
        better = f"--set frontend.sample_rate_hz={own_hz}; or " if own_hz / 2 > low_hz and rate_hz != own_hz else ""
        raise AumError(
            f"the annotated events are from {low_hz:,.0f} Hz on, the model's input ends at {high_hz:,.0f} Hz",
            fix=f"{better}correct their frequencies; or --set frontend.low_hz=20 to listen below them",
        )
    is_unusual = wanted is not None or not is_open or not USUAL_HZ[0] <= rate_hz <= USUAL_HZ[1]
    if "window" in infer and is_unusual:
        chosen |= fitted_window(frontend.n_mels, frontend.window_ms, rate_hz, (low_hz, high_hz), clip_s)
    if "clip_length" in infer:
        hop_s = chosen.get("hop_ms", frontend.hop_ms) / 1000
        least_s = min(SHORTEST_S, SHORTEST_FRAMES * hop_s)
        chosen["frames"] = whole_frames(min(LONGEST_FRAMES, math.ceil(max(least_s, clip_s) / hop_s)))
    return chosen


def inferred_input(rates: Mapping[int, int], band_hz: tuple[float, float] | None) -> tuple[int, float]:
    """The sample rate that `infer_shape` chooses where all is open, and where the input begins; both in Hz.

    Args:
        rates: clips by the sample rate of their files in Hz, at least one.
        band_hz: where the annotated events are; None: not known.
    """
    own_hz = _own_rate(rates, band_hz)
    wanted = _wanted_band(own_hz, band_hz, True)
    return _fitted_rate(own_hz, wanted), FrontendConfig().low_hz if wanted is None else wanted[0]


def _own_rate(rates: Mapping[int, int], band_hz: tuple[float, float] | None) -> int:
    """The most frequent sample rate, of those that hold the events where any does; in Hz."""
    holding = {rate: count for rate, count in rates.items() if band_hz is not None and rate / 2 >= band_hz[1]}
    return max(holding or rates, key=lambda rate: rates[rate])


def _wanted_band(own_hz: int, band_hz: tuple[float, float] | None, is_open: bool) -> tuple[float, float] | None:
    """The band that events need, in Hz, by their frequencies or the recordings' sample rate; None: the usual one.

    Args:
        own_hz: of the recordings.
        band_hz: of annotated events.
        is_open: whether neither the sample rate nor an edge of the band is given.
    """
    if band_hz is not None:
        return band_hz[0] / MARGIN, band_hz[1] * MARGIN
    return (LOW_HZ, own_hz / 2) if is_open and own_hz > STUDIO_HZ else None


def _fitted_rate(own_hz: int, wanted: tuple[float, float] | None) -> int:
    """The lowest whole fraction of the recordings' sample rate that holds a band, else the rate itself; in Hz."""
    if wanted is None:
        return min(HIGHEST_RATE_HZ, own_hz)
    return next(
        (own_hz // by for by in range(int(own_hz / 2 / wanted[1]), 1, -1) if own_hz % by == 0),
        own_hz,
    )


def fitted_window(
    n_mels: int, window_ms: float, rate_hz: int, band_hz: tuple[float, float], clip_s: float
) -> dict[str, float | int]:
    """A frontend's window, hop and FFT where mel filters would be empty, or the window longer than they need; else {}.

    A window that is too short leaves filters empty, one that is too long blurs calls of milliseconds.

    Args:
        n_mels: number of filters.
        window_ms: as it is.
        rate_hz: the sample rate.
        band_hz: outer edges of the first and the last filter.
        clip_s: how long clips are: no window is longer than a share of them; zeros give its FFT the points it lacks.
    """
    spacing_hz = narrowest_spacing_hz(n_mels, band_hz)
    samples = max(2, int(rate_hz * window_ms / 1000))
    bin_hz = rate_hz / (1 << (samples - 1).bit_length())
    if NARROWEST_BIN <= bin_hz / spacing_hz <= WIDEST_BIN:
        return {}
    points = min(1 << math.ceil(math.log2(rate_hz / spacing_hz)), 1 << (MOST_FILTER_WEIGHTS // n_mels).bit_length() - 1)
    longest_s = max(clip_s / LEAST_WINDOWS, LEAST_SAMPLES / rate_hz)
    window_ms = math.floor(1e6 * min(points / rate_hz, longest_s)) / 1000  # rounded up it would need a larger FFT
    least_ms = 1000 * clip_s / LONGEST_FRAMES  # from one window to the next, so that the input holds a clip
    fitted: dict[str, float | int] = {
        "window_ms": window_ms,
        "hop_ms": round(min(window_ms, max(window_ms / 2, least_ms)), 4),
    }
    return fitted | ({"fft_size": points} if points / rate_hz > longest_s else {})


def sample_rates(manifest: Manifest, clips: Sequence[Clip]) -> dict[int, int]:
    """Count clips by the sample rate of their files in Hz: from report.json, else from the headers of some files.

    Args:
        manifest: the prepared data.
        clips: those whose headers may be read.
    """
    if manifest.sample_rates_hz or not len(clips):
        return manifest.sample_rates_hz
    rates: Counter[int] = Counter()
    for i in np.linspace(0, len(clips) - 1, min(len(clips), HEADERS_READ)).astype(int).tolist():
        with suppress(AumError):  # training names what can't be read
            rates[audio_info(clips[i].path).sample_rate_hz] += 1
    return dict(rates)


def unused_band(
    rates: Mapping[int, int], rate_hz: int, low_hz: float, band_hz: tuple[float, float] | None = None
) -> str:
    """Describe the frequencies of the recordings that the model doesn't hear, and the settings that keep them.

    Args:
        rates: clips by the sample rate of their files in Hz.
        rate_hz: the model's.
        low_hz: where its input begins.
        band_hz: where the annotated events are, if that is known.

    Returns:
        A sentence for either end, "" where nothing is lost.
    """
    lost = []
    if band_hz is None and low_hz >= LOW_HZ:
        lost.append(
            f"the model's input begins at {low_hz / 1000:g} kHz; to hear what is below instead, train with "
            "--set frontend.low_hz=20"
        )
    above = sum(clips for rate, clips in rates.items() if rate > rate_hz)
    if above and not (band_hz and band_hz[1] <= rate_hz / 2):
        highest = max(rates)
        keep = f"--set frontend.sample_rate_hz={highest}"
        if highest > ULTRASONIC_HZ:
            window_ms = 10_000 * WINDOW_SAMPLES // highest / 10
            keep += f" --set frontend.window_ms={window_ms} --set frontend.hop_ms={window_ms / 2:g}"
            keep += f" --set frontend.low_hz={LOW_HZ:g}"
        every = sum(rates.values())
        some = (
            "recordings reach"
            if above == every
            else f"{above:,} of {counted(every, 'recording')} {plural(above, 'reaches', 'reach')} up to"
        )
        lost.append(
            f"{some} {_khz(highest)}, the model's input ends at {_khz(rate_hz)}; to keep the rest, train with {keep}"
        )
    return "; ".join(lost)


def _khz(rate_hz: int) -> str:
    """The highest frequency at a sample rate."""
    return f"{rate_hz / 2000:g} kHz"


def measure_normalisation(config: FrontendConfig, clips: Sequence[Clip]) -> tuple[float, float]:
    """Mean and standard deviation of the log-mel energies of clips, without padding.

    Of more than MEASURED_CLIPS clips, that many evenly spaced ones are measured. A clip of more than LONG_CLIP_S is
    measured in pieces of that length; the last one overlaps the one before, to be as long.
    """
    clips = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), MEASURED_CLIPS)).astype(int)]
    logmel = build_frontend(config)
    waveforms = Waveforms(clips, config.sample_rate_hz, cache_mb=0)
    piece = int(LONG_CLIP_S * config.sample_rate_hz)
    count, total, squares = 0, 0.0, 0.0
    for i in progress(range(len(waveforms)), "measuring", len(waveforms)):
        clip = waveforms[i]
        pieces: Iterable[np.ndarray] = clip.windows(piece, piece) if isinstance(clip, LongClip) else [clip]
        for samples in pieces:
            energies = logmel.energies(torch.from_numpy(samples)[None]).double()
            count += energies.numel()
            total += float(energies.sum())
            squares += float(energies.square().sum())
    mean = total / count
    # six digits are plenty, and keep the last bits of a sum from changing a recipe
    return round(mean, 6), round(math.sqrt(max(squares / count - mean**2, 1e-6)), 6)


def _headers(clips: Sequence[Clip]) -> tuple[list[float], list[int]]:
    """Durations in s and sample rates in Hz of clips, from their files' headers."""
    durations, rates = [], []
    for clip in clips:
        info = audio_info(clip.path)
        stop_s = info.duration_s if clip.stop_s is None else clip.stop_s
        durations.append(stop_s - (clip.start_s or 0.0))
        rates.append(info.sample_rate_hz)
    return durations, rates

"""What a training infers from its data: sample rate, clip length and normalisation, measured on the training split."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from aumcli.config import FrontendConfig
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
        infer: what to choose (see `DataConfig.infer`): sample_rate, band, window and clip_length are.
        clips: the training split.
        frontend: what is not chosen.
        whole_frames: of the model's configuration (see `NetworkConfig`): rounds up what its tokens have to fill.
        band_hz: where the events are; None: not known, so that the frontend's band is kept.

    Returns:
        Values of the frontend, those that were to be chosen and are others.

    Raises:
        AumError: a clip can't be read, or the band isn't below half of a sample rate that is given.
    """
    chosen: dict[str, Any] = {}
    if not {"sample_rate", "band", "window", "clip_length"} & set(infer):
        return chosen
    durations_s, rates = _headers(clips)
    own_hz = Counter(rates).most_common(1)[0][0]
    wanted = _wanted_band(own_hz, band_hz) if "band" in infer else None
    if "sample_rate" in infer:
        chosen["sample_rate_hz"] = _fitted_rate(own_hz, wanted)
    rate_hz = chosen.get("sample_rate_hz", frontend.sample_rate_hz)
    if wanted is not None:
        low_hz, high_hz = round(wanted[0]), min(round(wanted[1]), rate_hz / 2)
        if low_hz >= high_hz:
            raise AumError(
                f"the annotated events are above {low_hz:,} Hz, the model's input ends at {high_hz:,g} Hz",
                fix=f"--set frontend.sample_rate_hz={own_hz}; or --set frontend.low_hz=20 to listen below them",
            )
        chosen |= {"low_hz": float(low_hz), "high_hz": high_hz if high_hz < rate_hz / 2 else None}
    band = chosen.get("low_hz", frontend.low_hz), chosen.get("high_hz", frontend.high_hz) or rate_hz / 2
    if "window" in infer:
        chosen |= fitted_window(frontend.n_mels, frontend.window_ms, rate_hz, band)
    if "clip_length" in infer:
        hop_s = chosen.get("hop_ms", frontend.hop_ms) / 1000
        least_s = min(SHORTEST_S, SHORTEST_FRAMES * hop_s)
        frames = math.ceil(max(least_s, float(np.quantile(durations_s, COVERED))) / hop_s)
        chosen["frames"] = whole_frames(min(LONGEST_FRAMES, frames))
    return chosen


def inferred_rate(rates: Mapping[int, int], band_hz: tuple[float, float] | None) -> int:
    """The sample rate in Hz that `infer_shape` chooses.

    Args:
        rates: clips by the sample rate of their files in Hz, at least one.
        band_hz: where the annotated events are; None: not known.
    """
    own_hz = max(rates, key=lambda rate: rates[rate])
    return _fitted_rate(own_hz, _wanted_band(own_hz, band_hz))


def _wanted_band(own_hz: int, band_hz: tuple[float, float] | None) -> tuple[float, float] | None:
    """The band that events need, in Hz, by their frequencies or the recordings' sample rate; None: the usual one."""
    if band_hz is not None:
        return band_hz[0] / MARGIN, band_hz[1] * MARGIN
    return (LOW_HZ, own_hz / 2) if own_hz > STUDIO_HZ else None


def _fitted_rate(own_hz: int, wanted: tuple[float, float] | None) -> int:
    """The lowest whole fraction of the recordings' sample rate that holds a band, else the rate itself; in Hz."""
    if wanted is None:
        return min(HIGHEST_RATE_HZ, own_hz)
    return next(
        (own_hz // by for by in range(int(own_hz / 2 / wanted[1]), 1, -1) if own_hz % by == 0),
        own_hz,
    )


def fitted_window(n_mels: int, window_ms: float, rate_hz: int, band_hz: tuple[float, float]) -> dict[str, float]:
    """A frontend's window and hop in ms; {} where mel filters have FFT bins of their own, not too many, as it is.

    A window that is too short leaves filters empty, one that is too long blurs calls of milliseconds.

    Args:
        n_mels: number of filters.
        window_ms: as it is.
        rate_hz: the sample rate.
        band_hz: outer edges of the first and the last filter.
    """
    spacing_hz = narrowest_spacing_hz(n_mels, band_hz)
    samples = max(2, int(rate_hz * window_ms / 1000))
    bin_hz = rate_hz / (1 << (samples - 1).bit_length())
    if NARROWEST_BIN <= bin_hz / spacing_hz <= WIDEST_BIN:
        return {}
    samples = 1 << math.ceil(math.log2(rate_hz / spacing_hz))
    window_ms = math.floor(1e6 * samples / rate_hz) / 1000  # a rounding up would need an FFT of twice the size
    return {"window_ms": window_ms, "hop_ms": round(window_ms / 2, 4)}


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


def unused_band(rates: Mapping[int, int], rate_hz: int, band_hz: tuple[float, float] | None = None) -> str:
    """Describe the frequencies of the recordings above half the model's sample rate, and the settings that keep them.

    Args:
        rates: clips by the sample rate of their files in Hz.
        rate_hz: the model's.
        band_hz: where the annotated events are, if that is known.

    Returns:
        A sentence, "" where nothing is lost.
    """
    above = sum(clips for rate, clips in rates.items() if rate > rate_hz)
    if not above or band_hz and band_hz[1] <= rate_hz / 2:
        return ""
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
    return f"{some} {_khz(highest)}, the model's input ends at {_khz(rate_hz)}; to keep the rest, train with {keep}"


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

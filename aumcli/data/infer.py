"""What a training infers from its data: sample rate, clip length and normalisation, measured on the training split."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch

from aumcli.config import FrontendConfig
from aumcli.core.frontend import build_frontend
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
ULTRASONIC_HZ = 96000  # files of a higher rate hold calls of milliseconds, which need a shorter window
WINDOW_SAMPLES = 1024  # of such a window: each of 128 mels from LOW_HZ on has an FFT bin of its own
LOW_HZ = 8000
COVERED = 0.75  # share of the training clips that fit into one model input; longer ones give several windows
SHORTEST_S, LONGEST_S = 0.5, 10.0
HEADERS_READ = 100  # where report.json doesn't have the sample rates
MEASURED_CLIPS = 2000  # normalisation is a mean over millions of values: more clips don't change it


def infer_shape(
    infer: Collection[str], clips: Sequence[Clip], hop_ms: float, whole_frames: Callable[[int], int]
) -> dict[str, int]:
    """Choose the size of the model's input by the headers of sound files.

    Args:
        infer: what to choose: `sample_rate`, `clip_length`, both or neither (see `DataConfig.infer`).
        clips: the training split.
        hop_ms: of the frontend.
        whole_frames: of the model's configuration (see `NetworkConfig`): rounds up what its tokens have to fill.

    Returns:
        The frontend's `sample_rate_hz` and `frames`, those that were to be chosen.

    Raises:
        AumError: a clip can't be read.
    """
    chosen: dict[str, int] = {}
    if not {"sample_rate", "clip_length"} & set(infer):
        return chosen
    durations_s, rates = _headers(clips)
    if "sample_rate" in infer:
        chosen["sample_rate_hz"] = min(HIGHEST_RATE_HZ, Counter(rates).most_common(1)[0][0])
    if "clip_length" in infer:
        clip_s = min(LONGEST_S, max(SHORTEST_S, float(np.quantile(durations_s, COVERED))))
        chosen["frames"] = whole_frames(math.ceil(1000 * clip_s / hop_ms))
    return chosen


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


def unused_band(rates: Mapping[int, int], rate_hz: int) -> str:
    """Describe the frequencies of the recordings above half the model's sample rate, and the settings that keep them.

    Args:
        rates: clips by the sample rate of their files in Hz.
        rate_hz: the model's.

    Returns:
        A sentence, "" where nothing is lost.
    """
    above = sum(clips for rate, clips in rates.items() if rate > rate_hz)
    if not above:
        return ""
    highest = max(rates)
    keep = f"--set frontend.sample_rate_hz={highest}"
    if highest > ULTRASONIC_HZ:
        window_ms = 10_000 * WINDOW_SAMPLES // highest / 10
        keep += f" --set frontend.window_ms={window_ms} --set frontend.hop_ms={window_ms / 2:g}"
        keep += f" --set frontend.low_hz={LOW_HZ}"
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

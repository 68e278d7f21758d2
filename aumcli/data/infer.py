"""Fitting a recipe to data: sample rate, clip length and normalisation measured on the training split."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import torch

from aumcli.config import FrontendConfig
from aumcli.core.frontend import build_frontend
from aumcli.data.clips import Clip
from aumcli.data.datasets.waveforms import WHOLE_S, LongClip, Waveforms
from aumcli.data.decoding.audio import audio_info
from aumcli.data.manifest import Manifest
from aumcli.errors import AumError
from aumcli.recipe import MEASURED, Recipe, load_recipe, recipe_names
from aumcli.utils.progress import progress
from aumcli.utils.text import counted, plural

HIGHEST_RATE_HZ = 16000  # the published rate; what lies above 8 kHz is rarely worth twice the work
ULTRASONIC_HZ = 96000  # files of a higher rate hold calls of milliseconds, which need a shorter window: of so many
WINDOW_SAMPLES = 1024  # samples, each of 128 mels from LOW_HZ on has an FFT bin of its own
LOW_HZ = 8000
COVERED = 0.95  # share of the training clips that fit into one model input whole
SHORTEST_S, LONGEST_S = 0.5, 10.0
LOOKED_AT = 100  # clips whose headers are read where nobody noted their rates
MEASURED_CLIPS = 2000  # normalisation is a mean over millions of values: more clips don't change it


def infer_frontend(
    recipe: Recipe, clips: Sequence[Clip], n_classes: int, multi_label: bool, kept: FrontendConfig | None = None
) -> Recipe:
    """Replace what the recipe leaves to the data by measured values, or by those of the weights that it starts from.

    Args:
        recipe: its `data.infer` names the frontend values to measure.
        clips: the training split.
        n_classes: labels of the corpus.
        multi_label: whether a clip may have several labels.
        kept: what the weights were trained with that the training starts from: it is not measured, then, but taken
            over.

    Returns:
        A recipe with every value concrete: `data.infer` empty, `train.loss` decided.

    Raises:
        AumError: a clip can't be read, the values don't go together, or the recipe says another number of classes.
    """
    _check_classes(recipe, n_classes)
    if kept is not None:
        keys = [key for name in recipe.data.infer for key in MEASURED[name]]
        recipe = recipe.with_values(frontend={key: getattr(kept, key) for key in keys}, data={"infer": ()})
    frontend: dict[str, object] = {}
    if {"sample_rate", "clip_length"} & set(recipe.data.infer):
        durations, rates = _headers(clips)
        if "sample_rate" in recipe.data.infer:
            frontend["sample_rate_hz"] = min(HIGHEST_RATE_HZ, Counter(rates).most_common(1)[0][0])
        if "clip_length" in recipe.data.infer:
            clip_s = min(LONGEST_S, max(SHORTEST_S, float(np.quantile(durations, COVERED))))
            patch = recipe.model.patch_frames
            frames = math.ceil(1000 * clip_s / recipe.frontend.hop_ms)
            frontend["frames"] = patch * math.ceil(frames / patch)
    loss = recipe.train.loss if recipe.train.loss != "auto" else "bce" if multi_label else "cross_entropy"
    recipe = recipe.with_values(frontend=frontend, model={"n_classes": n_classes}, train={"loss": loss})
    if "normalisation" in recipe.data.infer:
        mean, std = measure_normalisation(recipe, clips)
        recipe = recipe.with_values(frontend={"mean": mean, "std": std})
    return recipe.with_values(data={"infer": ()})


def _check_classes(recipe: Recipe, n_classes: int) -> None:
    """Refuse a number of classes that somebody chose and the data doesn't have; a corpus' recipe says the corpus'."""
    unsaid = {type(recipe.model).model_fields["n_classes"].default}
    if recipe.data.corpus in recipe_names():
        unsaid.add(load_recipe(recipe.data.corpus).model.n_classes)
    if recipe.model.n_classes not in unsaid | {n_classes}:
        raise AumError(
            f"model.n_classes is {recipe.model.n_classes} in the recipe, the data has {counted(n_classes, 'class')}",
            fix=f"--set model.n_classes={n_classes} takes the data's",
        )


def sample_rates(manifest: Manifest, clips: Sequence[Clip]) -> dict[int, int]:
    """Clips by the sample rate of their files in Hz, as `aum prepare` noted them, else as some files' headers say.

    Args:
        manifest: the prepared data.
        clips: those whose headers may be read.
    """
    if manifest.sample_rates_hz or not len(clips):
        return manifest.sample_rates_hz
    rates: Counter[int] = Counter()
    for i in np.linspace(0, len(clips) - 1, min(len(clips), LOOKED_AT)).astype(int).tolist():
        with suppress(AumError):  # training names what can't be read
            rates[audio_info(clips[i].path).sample_rate_hz] += 1
    return dict(rates)


def unused_band(rates: Mapping[int, int], rate_hz: int) -> str:
    """Say which band of the recordings a model doesn't hear, and the settings that keep it.

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
    return f"{some} {_khz(highest)}, the model hears up to {_khz(rate_hz)}; to keep the rest, train with {keep}"


def _khz(rate_hz: int) -> str:
    """Half a sample rate, the highest frequency that it can hold."""
    return f"{rate_hz / 2000:g} kHz"


def measure_normalisation(recipe: Recipe, clips: Sequence[Clip]) -> tuple[float, float]:
    """Mean and standard deviation of the log-mel energies of clips, padding left out.

    Of more than MEASURED_CLIPS clips, that many evenly spaced ones are measured. A clip of more than WHOLE_S is
    measured in pieces of that length, of which the last reaches back to be as long.
    """
    clips = [clips[i] for i in np.linspace(0, len(clips) - 1, min(len(clips), MEASURED_CLIPS)).astype(int)]
    logmel = build_frontend(recipe.frontend)
    waveforms = Waveforms(clips, recipe.frontend.sample_rate_hz, cache_mb=0)
    piece = int(WHOLE_S * recipe.frontend.sample_rate_hz)
    count, total, squares = 0, 0.0, 0.0
    for i in progress(range(len(waveforms)), "measuring", len(waveforms)):
        clip = waveforms[i]
        for part in clip.windows(piece, piece) if isinstance(clip, LongClip) else [clip]:
            energies = logmel.energies(torch.from_numpy(part)[None]).double()
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

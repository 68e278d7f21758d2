"""Changing the sample rate, at once or block by block."""

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np

ZERO_CROSSINGS = 6  # of the filter, on each side
RESAMPLE_BLOCK = 8192  # samples resampled at a time, fewer if their filters have
RESAMPLE_TAPS = 2**22  # more taps than this together


def resample(waveform: np.ndarray, rate_hz: int, to_hz: int) -> np.ndarray:
    """Change the sample rate by windowed-sinc interpolation.

    Args:
        waveform: (samples,) float32.
        rate_hz: its rate in Hz.
        to_hz: the rate wanted, in Hz.

    Returns:
        (ceil(samples * to_hz / rate_hz),) float32; the waveform itself where the rates are equal.

    Source: the formula of torchaudio.functional.resample with its defaults (Hann window over 6 zero crossings, cutoff
    at 0.99 of the lower Nyquist frequency), with phases in float64, where torchaudio rounds them to float32.
    """
    return waveform if rate_hz == to_hz else np.concatenate([*resample_blocks([waveform], rate_hz, to_hz)])


def resample_blocks(blocks: Iterable[np.ndarray], rate_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Resample a sound that comes in blocks, (samples,) float32 each; joined, the results equal those of `resample`."""
    common = math.gcd(rate_hz, to_hz)
    old, new = rate_hz // common, to_hz // common
    width = math.ceil(ZERO_CROSSINGS / _cutoff(old, new))
    rest, origin = np.zeros(width, dtype=np.float32), -width  # samples still needed, and the place of the first of them
    done = given = 0  # samples resampled, and read
    for block in blocks:
        rest, given = np.concatenate([rest, block]), given + len(block)
        # sample k lies behind the old sample k * old // new, and needs `width + 1` more behind that
        end = max(done, ((given - width - 1) * new - 1) // old + 1)
        if end > done:
            yield _interpolate(rest, origin, old, new, done, end)
        needed = max(0, end * old // new - width - origin)
        rest, origin, done = rest[needed:], origin + needed, end
    rest = np.concatenate([rest, np.zeros(width + 1, dtype=np.float32)])
    yield _interpolate(rest, origin, old, new, done, -(-given * new // old))


def _interpolate(samples: np.ndarray, origin: int, old: int, new: int, begin: int, end: int) -> np.ndarray:
    """Samples `begin` to `end` of a signal resampled by new / old; `samples[0]` is its sample `origin`."""
    result = np.empty(end - begin, dtype=np.float32)
    width = math.ceil(ZERO_CROSSINGS / _cutoff(old, new))
    windows = np.lib.stride_tricks.sliding_window_view(samples, 2 * width + 2)
    # Phases repeat after `new` samples, so rounds of them share one filter bank, if it is of a sensible size
    most = min(RESAMPLE_BLOCK, max(1, RESAMPLE_TAPS // (2 * width + 2)))
    step = most // new * new or most
    for start in range(begin // step * step, end, step):
        first, last = max(start, begin), min(start + step, end)
        filters = _filters(old, new, 0 if step % new == 0 else start, step)[
            first - start : last - start
        ]  # (samples, taps)
        rows = windows[np.arange(first, last) * old // new - width - origin]  # (samples, taps)
        result[first - begin : last - begin] = np.einsum("it,it->i", rows, filters)
    return result


@functools.lru_cache(maxsize=8)
def _filters(old: int, new: int, begin: int, count: int) -> np.ndarray:
    """Interpolation filters, (count, taps) float32, of samples `begin` onwards of a signal resampled by new / old."""
    cutoff = _cutoff(old, new)
    width = math.ceil(ZERO_CROSSINGS / cutoff)
    phase = np.arange(begin, begin + count, dtype=np.int64) * old % new / new  # place after the old sample before it
    t = np.clip((np.arange(-width, width + 2) - phase[:, None]) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    window = np.cos(t * (np.pi / 2 / ZERO_CROSSINGS)) ** 2
    filters: np.ndarray = np.sinc(t) * window * cutoff
    return filters.astype(np.float32)


def _cutoff(old: int, new: int) -> float:
    """The pass band's end as a share of the old Nyquist frequency."""
    return 0.99 * min(old, new) / old

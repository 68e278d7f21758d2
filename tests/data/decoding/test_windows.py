"""Cutting sounds into windows: nothing left out, the same however the blocks come."""

import numpy as np
import pytest

from aumcli.data.decoding.windows import cut_windows


@pytest.mark.parametrize("size, hop", [(10, 5), (10, 3), (10, 10), (9, 4), (1, 1)])
@pytest.mark.parametrize("samples", [1, 2, 9, 10, 11, 14, 15, 16, 20, 21, 57])
def test_windows_cover_every_sample_whatever_the_blocks(size, hop, samples):
    sound = np.arange(samples, dtype=np.float32)
    expected = list(range(0, max(1, samples - size + 1), hop))
    if expected[-1] + size < samples:
        expected.append(samples - size)
    for step in (1, 2, 7, 100):
        windows = list(cut_windows((sound[i : i + step] for i in range(0, samples, step)), size, hop))
        assert [start for start, _ in windows] == expected
        for start, window in windows:
            assert np.array_equal(window, sound[start : start + size])
        assert expected[-1] + len(windows[-1][1]) == samples


def test_a_long_sound_is_not_kept():
    largest = 0

    def blocks():
        for _ in range(300):
            yield np.zeros(1000, dtype=np.float32)

    for _, window in cut_windows(blocks(), 500, 250):
        largest = max(largest, window.base.nbytes if window.base is not None else window.nbytes)
    assert largest <= 4 * 2500

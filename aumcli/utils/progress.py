"""Progress bars: on a terminal, and only for what takes over two seconds."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(items: Iterable | None, what: str, total: int | None = None, unit: str = "clip") -> "tqdm":
    """Pass `items` on, with a bar beside; none where the output is no terminal.

    Args:
        items: what is worked through; None: whoever works calls `update` on the result, and `close` in the end.
        what: a word for the work.
        total: how many there are, where `items` doesn't know.
        unit: what one of them is called.
    """
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, unit=unit, delay=2, disable=None, leave=False)

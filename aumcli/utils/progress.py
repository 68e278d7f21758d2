"""Progress bars: on a terminal, and only for what takes over two seconds."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def progress(items: Iterable[Any] | None, what: str, total: int | None = None, unit: str = "clip") -> "tqdm":
    """Iterate over `items` with a progress bar; without one where standard error is no terminal.

    Args:
        items: what to iterate over; None: the caller calls `update` on the result, and `close` at the end.
        what: a word for the work.
        total: how many there are, where `items` has no length.
        unit: what one of them is called.
    """
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, unit=unit, delay=2, disable=None, leave=False)

"""Progress bars: on a terminal, and only for what takes over two seconds."""

from collections.abc import Iterable


def progress(items: Iterable, what: str, total: int | None = None, unit: str = "clip") -> Iterable:
    """Pass `items` on, with a bar beside; none where the output is no terminal.

    Args:
        items: what is worked through.
        what: a word for the work.
        total: how many there are, where `items` doesn't know.
        unit: what one of them is called.
    """
    from tqdm import tqdm

    return tqdm(items, desc=what, total=total, unit=unit, delay=2, disable=None, leave=False)

"""Which process this is among those that torchrun started, as it says in the environment."""

import os

from aumcli.errors import AumError

FIX = "start all processes with torchrun, or unset RANK WORLD_SIZE for one process alone"


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank, and how many there are: (0, 1) where no launcher says how many.

    Raises:
        AumError: the environment's rank is not below its number of processes.
    """
    size = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0) if size > 1 else 0  # batch systems set it for jobs that are not one training
    if size < 1 or not 0 <= rank < size:
        raise AumError(f"the environment says process RANK={rank} of WORLD_SIZE={size}", fix=FIX)
    if size > 1 and not os.environ.get("RANK"):
        raise AumError(f"the environment says WORLD_SIZE={size} and no RANK", fix=FIX)
    return rank, size


def _number(name: str, default: int) -> int:
    """An integer from the environment; an empty one counts as not set."""
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError as error:
        raise AumError(f"the environment variable {name} is {text!r}, not a number", fix=FIX) from error

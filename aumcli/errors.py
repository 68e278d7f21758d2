"""The one kind of error a user is meant to read."""

import difflib
import os
from collections.abc import Iterable


class AumError(Exception):
    """Something a person can mend: what is wrong and what to do about it.

    Args:
        problem: what is wrong and where (name the file, key or value).
        fix: the command, setting or action that mends it.
        exit_code: 2 for a mistake in the call (default), 1 when an input or the machine failed.
    """

    def __init__(self, problem: str, fix: str = "", exit_code: int = 2):
        super().__init__(problem)
        self.problem = problem
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.problem}\n  fix: {self.fix}" if self.fix else self.problem

    def __reduce__(self):  # Exception's own keeps only the first argument: loader workers would lose the fix
        return type(self), (self.problem, self.fix, self.exit_code)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ask for the known names that are nearest to a wrong one, three at most.

    As in "did you mean esc50? "; "" where none is near.
    """
    near = difflib.get_close_matches(name, list(known), 3)
    return f"did you mean {' or '.join(filter(None, (', '.join(near[:-1]), near[-1])))}? " if near else ""


def debugging() -> bool:
    """Whether AUM_DEBUG asks for stack traces of what nobody foresaw."""
    return os.environ.get("AUM_DEBUG", "0") not in ("", "0")

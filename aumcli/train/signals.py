"""SIGTERM and Ctrl-C: finish the step, save, and end with the exit code that a shell expects;
a second Ctrl-C stops at once.
"""

import signal
import threading
from types import FrameType


class StopSignal:
    """Notes a signal instead of dying of it, while it is entered.

    Attributes:
        received: the number of the signal that came, or 0.
        agreed: the signal for which the processes of the training have agreed to stop after this step, or 0.
    """

    def __init__(self) -> None:
        self.received, self.agreed = 0, 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == signal.SIGINT == number:
            raise KeyboardInterrupt
        self.received = number

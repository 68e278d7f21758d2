"""SIGTERM and Ctrl-C: finish the step, save, end with the exit code that a shell expects; the next Ctrl-C kills."""

import signal
import threading
from types import FrameType
from typing import Any


class StopSignal:
    """Records SIGINT and SIGTERM instead of being stopped by them, inside its `with` block.

    Attributes:
        received: the number of the signal that arrived, or 0.
        agreed: the signal after which all processes of the training stop at the end of this step, or 0.
    """

    def __init__(self) -> None:
        self.received, self.agreed = 0, 0
        self._before: dict[int, Any] = {}

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

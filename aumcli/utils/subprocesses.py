"""A process of its own for work that may run out of memory or needs threads of its own."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aumcli.errors import AumError, debugging
from aumcli.utils.memory import keep_memory

OUT_OF_MEMORY = "out of memory"


class Worker:
    """A generator that runs in a process of its own, a step for each `ask`; if it dies, `ask` says so.

    Args:
        generator: a function of a module, that yields what can be pickled.
        arguments: what it is called with, there.
    """

    def __init__(self, generator: Callable[..., Iterator[object]], *arguments: object):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, generator, arguments))
        self._process.start()
        theirs.close()  # so that a dead process ends the pipe

    def ask(self) -> Any:
        """The generator's next value.

        Raises:
            AumError: what the generator raised; "out of memory"; or how its process ended.
        """
        try:
            self._pipe.send("next")
            value = self._pipe.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            raise AumError(
                OUT_OF_MEMORY if code == -9 else f"its process ended with code {code}", exit_code=1
            ) from error
        if isinstance(value, AumError):
            raise value
        return value

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._pipe.close()
        self._process.join(0.2)
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, generator: Callable[..., Iterator[object]], arguments: tuple[object, ...]) -> None:
    """The process: a step of the generator for each message, until the pipe is closed."""
    if sys.platform == "linux":  # if memory runs out, this is the process to end
        with suppress(OSError):  # a container may forbid it
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    keep_memory()
    try:
        steps = generator(*arguments)
        while pipe.recv():
            pipe.send(next(steps))
    except (EOFError, BrokenPipeError, ConnectionError, KeyboardInterrupt):  # the other process has ended
        return
    except AumError as error:
        pipe.send(error)
    except Exception as error:
        memory = type(error).__name__ in ("OutOfMemoryError", "MemoryError") or "can't allocate memory" in str(error)
        first = (str(error).splitlines() or [""])[0]
        text = first if isinstance(error, RuntimeError) and first else f"{type(error).__name__}: {first}"
        pipe.send(AumError(OUT_OF_MEMORY if memory else text, exit_code=1))
        if debugging() and not isinstance(error, (RuntimeError, MemoryError)):
            raise

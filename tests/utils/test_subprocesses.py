"""Work in a process of its own: whatever ends it is an answer."""

import errno
import os

import pytest

from aumcli.errors import AumError
from aumcli.utils.subprocesses import OUT_OF_MEMORY, Worker


def steps(what: str):
    """A step that works, and one that doesn't."""
    yield "done"
    if what == "disk":
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "ours":
        raise KeyError("place")
    if what == "memory":
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
    if what == "theirs":
        raise RuntimeError("first line\nsecond line")
    os._exit(3)


@pytest.mark.parametrize(
    "what, words",
    [
        ("disk", "OSError: [Errno 28] No space left on device"),
        ("ours", "KeyError: 'place'"),
        ("memory", OUT_OF_MEMORY),
        ("theirs", "first line"),
        ("dies", "its process ended with code 3"),
    ],
)
def test_what_ends_it_is_an_answer(monkeypatch, capfd, what, words):
    monkeypatch.setenv("AUM_DEBUG", "")
    worker = Worker(steps, what)
    try:
        assert worker.ask() == "done"
        with pytest.raises(AumError) as caught:
            worker.ask()
    finally:
        worker.close()
    assert caught.value.problem == words and caught.value.exit_code == 1 and "Traceback" not in capfd.readouterr().err

"""One writer at a time; what died holds nothing, and a folder that can't be locked is said to be so."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from aumcli.errors import AumError
from aumcli.utils import lock
from aumcli.utils.lock import LockTaken, locked, open_locked, remove_locked

HOLD = (
    "import sys, time; from pathlib import Path; from aumcli.utils.lock import locked\n"
    "with locked(Path(sys.argv[1]), 'training'): print('held', flush=True); time.sleep(100)"
)


@pytest.fixture
def held(tmp_path):
    """A folder that another process has."""
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield tmp_path / "run", process
        process.kill()


def refused(folder, what="training"):
    with pytest.raises(AumError) as caught, locked(folder, what):
        pass
    assert caught.value.exit_code == 2 and "wait" in caught.value.fix
    return caught.value.problem


def test_a_second_one_is_refused_and_told_who_has_it(tmp_path):
    with locked(tmp_path / "a" / "run", "training") as note:
        assert note == ""
        assert f"another training writes to {tmp_path / 'a' / 'run'}: process {os.getpid()} on " in refused(
            tmp_path / "a" / "run"
        )
        with locked(tmp_path / "other", "training"):
            pass
    assert not list((tmp_path / "a" / "run").iterdir())
    with locked(tmp_path / "a" / "run", "training"):
        pass


def test_another_process_has_it_until_it_dies(held):
    folder, process = held
    assert f"process {process.pid}" in refused(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (folder / lock.NAME).exists()  # what it left behind
    with locked(folder, "training") as note:
        assert note == "" and f"process {os.getpid()}" in (folder / lock.NAME).read_text()
    assert not list(folder.iterdir())


def test_it_is_free_after_an_error(tmp_path):
    with pytest.raises(ValueError), locked(tmp_path, "training"):
        raise ValueError
    with locked(tmp_path, "training"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks otherwise")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_network_folder_without_locks_is_said_to_be_one(tmp_path, monkeypatch, number):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with locked(tmp_path, "training") as note:
        assert os.strerror(number) in note and "second training" in note and str(tmp_path) in note
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AumError, match="can't write"), locked(tmp_path / "file" / "run", "training"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no open file")
def test_one_that_opened_the_file_before_it_was_removed_has_the_new_one(tmp_path, monkeypatch):
    """Between the second's open and lock the first removes its file and a third could make one.

    The second must notice.
    """
    path, flock, moments = tmp_path / "x", lock.fcntl.flock, []
    first, _ = open_locked(path)

    def late(number, how):
        if not moments:
            moments.append(1)
            remove_locked(path, lambda: os.close(first))
        flock(number, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    second, _ = open_locked(path)
    assert os.path.samestat(os.fstat(second), os.stat(path))
    monkeypatch.undo()
    with pytest.raises(LockTaken):
        open_locked(path)
    os.close(second)


def test_never_two_at_once(tmp_path):
    inside, most, done = [], [], []

    def work():
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            try:
                with locked(tmp_path, "training"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    done.append(1)
            except AumError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(done) > 10

"""Clips are opened once.

What an interrupted call found out is remembered, as long as the file and the slice are the same.
"""

import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from tiny import sound

from aumcli.data.clips import Clip, Clips, clip_key
from aumcli.data.decoding import integrity
from aumcli.data.decoding.integrity import open_clips
from aumcli.data.sources import SkippedClip
from aumcli.errors import AumError
from aumcli.prepare import JOURNAL, leaks, prepare
from aumcli.utils.journal import Journal


@pytest.fixture
def clips(tmp_path):
    return Clips.of(
        [
            Clip(sound(tmp_path / "sounds" / f"{'ab'[n % 2]}" / f"{n}.wav", 300.0, seed=n, seconds=0.1))
            for n in range(20)
        ]
    )


def opened(tmp_path, monkeypatch, clips, workers=2, longest_s=None):
    """What comes out, and which clips were really opened."""
    seen, check = [], integrity.check_clip
    with monkeypatch.context() as patch:
        patch.setattr(integrity, "check_clip", lambda path, *how: seen.append(path) or check(path, *how))
        journal = Journal(tmp_path / JOURNAL)
        results = list(open_clips(clips, journal, workers, longest_s))
        journal.close()
    return results, sorted(seen)


def test_each_clip_is_opened_once(tmp_path, monkeypatch, clips):
    first, seen = opened(tmp_path, monkeypatch, clips)
    assert seen == sorted(clip.path for clip in clips) and all(result.duration_s == 0.1 for result in first)
    again, seen = opened(tmp_path, monkeypatch, clips, workers=1)
    assert again == first and seen == []
    changed = clips[3].path
    sound(changed, 300.0, seed=99, seconds=0.2)
    os.utime(clips[4].path, ns=(1, 1))
    results, seen = opened(tmp_path, monkeypatch, Clips.of([*clips, Clip(clips[0].path, 0.0, 0.05)]))
    assert seen == sorted([changed, clips[4].path, clips[0].path])  # size, time of change, slice
    assert results[3].duration_s == 0.2 and results[20].duration_s == 0.05


def test_bad_clips_are_looked_at_again(tmp_path, monkeypatch, clips):
    clips[5].path.write_bytes(b"")
    (result, reason), short = [opened(tmp_path, monkeypatch, clips)[0][n] for n in (4, 5)], clips[6].path
    assert result.duration_s == 0.1 and isinstance(reason, SkippedClip) and "0 bytes" in reason.reason
    sound(short, 300.0, seconds=0.02)
    results, seen = opened(tmp_path, monkeypatch, clips)
    assert seen == sorted([clips[5].path, short]) and "is too short: 20 ms" in results[6].reason
    results, seen = opened(tmp_path, monkeypatch, clips, longest_s=0.05)
    assert seen == [clips[5].path] and "it may be the whole video" in results[0].reason and results[0].fix


def test_what_was_kept_once_is_not_kept_by_the_next_call(tmp_path, clips):
    import numpy as np
    import soundfile

    soundfile.write(clips[0].path, np.zeros(800), 8000)
    soundfile.write(clips[1].path, np.linspace(-50, 50, 800), 8000, subtype="FLOAT")
    for keep, skipped in (({"silent", "loud"}, []), ((), [0, 1]), ({"loud"}, [0]), ({"silent"}, [1])):
        journal = Journal(tmp_path / JOURNAL)
        results = list(open_clips(clips, journal, 2, None, keep))
        journal.close()
        assert [place for place, result in enumerate(results) if isinstance(result, SkippedClip)] == skipped


@pytest.mark.parametrize("content", [b"", b"no database", None])
def test_a_journal_that_is_none_is_replaced(tmp_path, monkeypatch, clips, content):
    opened(tmp_path, monkeypatch, clips)
    if content is None:
        with sqlite3.connect(tmp_path / JOURNAL) as database:
            database.execute("PRAGMA user_version = 999")
        database.close()
    else:
        (tmp_path / JOURNAL).write_bytes(content * 200)
    assert len(opened(tmp_path, monkeypatch, clips)[1]) == 20 and opened(tmp_path, monkeypatch, clips)[1] == []


def test_where_no_journal_can_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AumError, match="can't write"):
        Journal(tmp_path / "file" / "out")
    assert clip_key(Clip(tmp_path / "gone.wav")).startswith("none|")


def test_a_kill_loses_a_batch_at_most(tmp_path, monkeypatch):
    """A real process, really killed: the next one goes on."""
    for n in range(30):
        sound(tmp_path / "sounds" / f"{'ab'[n % 2]}" / f"{n}.wav", 300.0, seed=n, seconds=0.1)
    script = (
        "import time\nfrom aumcli.data.decoding import integrity\nfrom aumcli.prepare import prepare\n"
        "integrity.BATCH_CLIPS = 4\n"
        "check = integrity.check_clip\ndef slow(*how):\n    time.sleep(0.05)\n    return check(*how)\n"
        "integrity.check_clip = slow\n"
        f"prepare('folder', {str(tmp_path / 'out')!r}, source={str(tmp_path / 'sounds')!r}, workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    count = 0
    deadline = time.time() + 60
    while count < 8 and time.time() < deadline:
        time.sleep(0.05)
        try:
            with sqlite3.connect(tmp_path / "out" / JOURNAL) as database:
                count = database.execute("SELECT count(*) FROM results").fetchone()[0]
            database.close()
        except sqlite3.OperationalError:
            pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 8 <= count < 30 and not (tmp_path / "out" / "manifest.csv").exists()
    seen, check = [], integrity.check_clip
    monkeypatch.setattr(integrity, "check_clip", lambda path, *how: seen.append(path) or check(path, *how))
    prepare("folder", tmp_path / "out", source=tmp_path / "sounds")
    assert (
        len(seen) <= 30 - count
        and (tmp_path / "out" / "manifest.csv").exists()
        and not (tmp_path / "out" / JOURNAL).exists()
    )


def test_leaks():
    clips = [
        Clip("x", split="train", group="ann"),
        Clip("x", split="test", group="ann"),
        Clip("x", split="val", group="bob"),
        Clip("x", split="train"),
        Clip("x", split="test"),
    ]
    (warning,) = leaks("speaker", clips, lambda clip: clip.group)
    assert warning.startswith("1 of 2 speakers occurs in several splits (1 in test and train)")
    assert warning.endswith("new speakers: ann")
    assert leaks("speaker", clips[2:], lambda clip: clip.group) == []

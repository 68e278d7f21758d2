"""Clips that break after preparing: named, counted, and at some number too many."""

import pytest
from tiny import sound, tiny
from training import problem, quietly

from aumcli.data.manifest import Clip, read_manifest, write_manifest

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")


def test_a_clip_that_breaks_after_preparing(tmp_path, corpus):
    manifest = read_manifest(corpus)
    bad = sound(tmp_path / "bad.wav", 300.0)
    bad.write_bytes(bad.read_bytes()[:-100])
    write_manifest(tmp_path / "data", [*manifest.clips, Clip(bad, labels=("low",), split="train")], manifest.labels, {})
    error = problem(quietly, tiny(), tmp_path / "run", tmp_path / "data")
    assert "bad.wav is truncated" in error.problem and error.exit_code == 1


def test_a_clip_that_a_worker_cannot_read(tmp_path, corpus):
    manifest = read_manifest(corpus)
    bad = sound(tmp_path / "bad.wav", 300.0)
    bad.write_bytes(bad.read_bytes()[:-100])
    write_manifest(tmp_path / "data", [*manifest.clips, Clip(bad, labels=("low",), split="train")], manifest.labels, {})
    recipe = tiny("train.workers=1", "data.fit=[]", "frontend.frames=48", "frontend.sample_rate_hz=8000")
    error = problem(quietly, recipe, tmp_path / "run", tmp_path / "data")
    assert "bad.wav is truncated" in error.problem and error.exit_code == 1 and "Traceback" not in error.problem

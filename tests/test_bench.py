"""aum bench: what it measures, and what it says where a model can't run."""

import json
import os
import signal

import pytest
import torch

from aumcli import bench as module
from aumcli.bench import Setting, bench, measure
from aumcli.core.kernels import available_backends
from aumcli.errors import AumError

pytest_plugins = ["aum_fixtures"]


def test_command_prints_and_writes_every_sample(aum, tmp_path):
    result = aum("bench", "--models", "aum-nano,ast-nano,ast-nano-eager", "--min-tokens", 16, "--max-tokens", 32, "--repeats", 3,
                 "--out", tmp_path)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[1].split()[:4] == ["tokens", "aum-nano", "ast-nano", "ast-nano-eager"]
    assert [line.split()[0] for line in lines[2:4]] == ["16", "32"] and all("x as fast" in line for line in lines[2:4])
    written = json.loads((tmp_path / "bench.json").read_text())
    assert written["schema"] == 1 and written["environment"]["torch"] == torch.__version__
    assert [(p["setting"]["model"], p["setting"]["tokens"], p["backend"]) for p in written["points"][3:]] == [
        ("aum-nano", 32, "torch" if available_backends()["cpu"] else "cpu"),
        ("ast-nano", 32, "sdpa"), ("ast-nano-eager", 32, "eager")]
    for point in written["points"]:
        assert len(point["samples_ms"]) == 3 and min(point["samples_ms"]) <= point["median_ms"] <= max(point["samples_ms"])
        assert point["peak_bytes"] > 0 and point["saved_bytes"] is None


def test_bytes_kept_for_the_backward_pass_grow_with_the_tokens():
    settings = [Setting("ast-nano", tokens, "training", "float32", "cpu", 1, 1) for tokens in (64, 128)]
    short, long = measure(settings, repeats=1, budget_s=10)
    width, depth = 128, 3
    least = 4 * 64 * width * depth * 8         # norm's input, qkv, attention's output, both of the perceptron's: over 8 d a token
    assert least < short.saved_bytes < 4 * least
    assert 1.9 * short.saved_bytes < long.saved_bytes < 2.1 * short.saved_bytes


def test_a_killed_model_is_a_mark_and_the_other_goes_on(monkeypatch):
    monkeypatch.setattr(module, "_work", _killed_if_aum)
    aum, ast = measure([Setting(model, 16, "inference", "float32", "cpu", 1, 1) for model in ("aum-nano", "ast-nano")], 2, 10)
    assert aum.failure == "out of memory" and aum.median_ms is None
    assert ast.failure == "" and len(ast.samples_ms) == 2


def _killed_if_aum(pipe, setting, work=module._work):
    if setting.model == "aum-nano":
        pipe.recv()
        os.kill(os.getpid(), signal.SIGKILL)   # as the system does where memory has run out
    work(pipe, setting)


def test_memory_that_can_not_be_had_is_a_mark():
    point, = measure([Setting("ast-nano-eager", 200_000, "inference", "float32", "cpu", 1, 1)], 1, 10)
    assert point.failure == "out of memory"


def test_a_budget_ends_a_point_after_three_samples():
    point, = measure([Setting("ast-nano", 16, "inference", "float32", "cpu", 1, 1)], repeats=50, budget_s=0.0)
    assert len(point.samples_ms) == 3


@pytest.mark.parametrize("arguments, words", [
    ({"models": ["aum-huge"]}, "aum-huge"), ({"models": ["aum-base-eager"]}, "aum-base-eager"), ({"mode": "fast"}, "--mode"),
    ({"dtype": "float8"}, "--dtype"), ({"min_tokens": 12}, "12"), ({"max_tokens": 8}, "8"), ({"device": "tpu"}, "tpu")])
def test_mistakes_are_named_before_anything_runs(arguments, words):
    with pytest.raises(AumError, match=words):
        next(bench(**arguments))

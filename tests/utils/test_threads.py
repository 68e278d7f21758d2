"""How many threads compute, and how long they spin while they wait."""

import json
import os
import subprocess
import sys

import pytest
import torch
from tiny import run_aum  # noqa: F401  the fixtures need it

from aumcli import cli
from aumcli.utils.threads import SPINS, compute_threads, default_workers

pytest_plugins = ["aum_fixtures"]


@pytest.mark.parametrize(
    "given, before, expected",
    [
        ({}, "", SPINS),
        ({"GOMP_SPINCOUNT": "7"}, "", "7"),  # what the user set stays
        ({"OMP_WAIT_POLICY": "active"}, "", None),
        ({}, "import torch; ", None),  # libgomp has read its variables already
    ],
)
def test_threads_spin_shortly_unless_the_user_said_how(given, before, expected):
    environment = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    code = f"{before}import aumcli, json, os; print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | given
    )
    assert json.loads(result.stdout) == expected


def test_small_work_is_done_in_one_thread():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with compute_threads(1):
            assert torch.get_num_threads() == 1
        with compute_threads(None):
            assert torch.get_num_threads() == 2
        with pytest.raises(ZeroDivisionError), compute_threads(1):
            raise ZeroDivisionError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def asked(monkeypatch) -> list[int]:
    """What torch was told."""
    numbers = []
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


def test_commands_take_the_number_of_threads(aum, asked, trained, clips, tmp_path):
    assert aum("eval", trained, "--threads", 3, "--json", "-").code == 0 and asked[0] == 3
    asked.clear()
    assert aum("predict", clips, "--model", trained, "--threads", 5).code == 0 and asked[0] == 5
    asked.clear()
    assert aum("bench", "--compare", tmp_path / "none.json", "--threads", 4).code == 2 and asked == [4]
    asked.clear()
    assert (
        aum("train", "--data", trained.parent / "no-data", "--out", tmp_path / "run", "--threads", 6).code == 2
        and asked[0] == 6
    )
    assert aum("eval", trained, "--threads", 0).code == 2


def test_threads_are_left_to_torch_where_nobody_says(asked):
    cli._use_threads(None)
    assert not asked


@pytest.mark.parametrize("cores, expected", [(None, 1), (1, 1), (2, 1), (6, 3), (64, 4)])
def test_decoding_threads(monkeypatch, cores, expected):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert default_workers() == expected

"""What a launcher says in the environment.

Believed where it makes sense, refused where it doesn't, never a stack trace.
"""

import pytest

from aumcli.errors import AumError
from aumcli.utils.processes import rank_and_world_size


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "variables, place",
    [
        ({}, (0, 1)),
        ({"RANK": ""}, (0, 1)),
        ({"RANK": "", "WORLD_SIZE": ""}, (0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "3"}, (1, 3)),
        ({"RANK": "3"}, (0, 1)),
        ({"RANK": "x"}, (0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 1)),
    ],
)
def test_places(monkeypatch, variables, place):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank_and_world_size() == place


@pytest.mark.parametrize(
    "variables, words",
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE is 'x', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "one"}, "RANK is 'one', not a number"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 of WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE=-2"),
        ({"WORLD_SIZE": "2"}, "no RANK"),
        ({"WORLD_SIZE": "2.0", "RANK": "0"}, "'2.0', not a number"),
    ],
)
def test_what_is_no_place(monkeypatch, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(AumError, match=words) as caught:
        rank_and_world_size()
    assert "torchrun" in caught.value.fix and caught.value.exit_code == 2

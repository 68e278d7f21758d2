"""Measurements in the test's own process."""

import pytest

from aumcli.bench.interleave import Samples


@pytest.fixture
def run_interleaved_here():
    """In the place of `run_interleaved`: without processes and stopping rules, three runs each."""

    def run(generator, arguments, rule) -> list[Samples]:
        found = []
        for argument in arguments:
            runs = generator(argument)
            taken = [next(runs) for _ in range(3)]
            found.append(Samples({name: [times[name] for times, _ in taken] for name in taken[0][0]}, taken[0][1]))
        return found

    return run

"""A run that nothing disturbed, which others are compared with."""

from pathlib import Path

import pytest
from tiny import tiny
from training import quietly


@pytest.fixture(scope="session")
def reference(corpus, tmp_path_factory) -> Path:
    """Four epochs without any disturbance."""
    return quietly(tiny(), tmp_path_factory.mktemp("reference") / "run", corpus)

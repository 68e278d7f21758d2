"""The published annotations."""

import pytest


@pytest.fixture
def annotations(shared):
    """The folder of the corpora's published annotation files."""
    return shared / "data" / "annotations"

"""Fixtures for all tests: where the shared folder with the golden numbers is."""

import os
from pathlib import Path

import pytest

import aumcli  # noqa: F401  before torch: its threads sleep soon while others compute

if os.environ.get("TRITON_INTERPRET") == "1":
    import interpreter  # noqa: F401  before aumcli.core.kernels looks whether Triton interprets

os.environ.setdefault(
    "AUM_DEBUG", "1"
)  # what nobody foresaw fails a test with its stack trace, in processes of their own too

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository (or $AUM_SHARED) with semantics, corpora and golden numbers."""
    folder = Path(os.environ.get("AUM_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: set AUM_SHARED to the folder that holds golden/")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Weights, inputs and the outputs that the authors' code gives for them (golden/README.md)."""
    folder = shared / "golden"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist: the golden numbers are not part of this checkout")
    return folder

"""Weights on disk: our model directories, other people's checkpoints, and the way from one model into another."""

from aumcli.checkpoints.adapt import Imported, UnknownFrontend, import_checkpoint, initialise
from aumcli.checkpoints.directory import (
    CONFIG,
    WEIGHTS,
    read_config,
    read_model,
    save_model,
    stored_temperature,
    write_config,
)
from aumcli.checkpoints.published import frontend_of, read_checkpoint

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Imported",
    "UnknownFrontend",
    "frontend_of",
    "import_checkpoint",
    "initialise",
    "read_checkpoint",
    "read_config",
    "read_model",
    "save_model",
    "stored_temperature",
    "write_config",
]

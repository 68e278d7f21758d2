"""Weights on disk: our model directories, other people's checkpoints, and the way from one model into another."""

from aumcli.weights.directory import CONFIG, WEIGHTS, read_config, read_model, save_model, write_config
from aumcli.weights.fit import Imported, UnknownFrontend, import_checkpoint, initialise
from aumcli.weights.published import frontend_of

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Imported",
    "UnknownFrontend",
    "frontend_of",
    "import_checkpoint",
    "initialise",
    "read_config",
    "read_model",
    "save_model",
    "write_config",
]

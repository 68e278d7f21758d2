"""Audio classification with Audio Mamba: `aumcli.load_model(...)`, `model.predict("clip.wav")`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aumcli.classifier import load_model as load_model


def __getattr__(name: str):
    # torch takes seconds to import; `aum --help` must not wait for it
    if name == "load_model":
        from aumcli.classifier import load_model

        return load_model
    raise AttributeError(f"module 'aumcli' has no attribute {name!r}")

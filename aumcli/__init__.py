"""Audio classification with Audio Mamba: `aumcli.load_model(...)`, `model.predict("clip.wav")`."""

from typing import TYPE_CHECKING

from aumcli.utils.threads import spin_shortly

if TYPE_CHECKING:
    from aumcli.classifier import load_model as load_model
    from aumcli.predict import predict_files as predict_files

__all__ = ["load_model", "predict_files"]

spin_shortly()


def __getattr__(name: str):
    # torch takes seconds to import; `aum --help` must not wait for it
    if name == "load_model":
        from aumcli.classifier import load_model

        return load_model
    if name == "predict_files":
        from aumcli.predict import predict_files

        return predict_files
    if name == "__version__":
        from importlib.metadata import version

        return version("aumcli")
    raise AttributeError(f"module 'aumcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])

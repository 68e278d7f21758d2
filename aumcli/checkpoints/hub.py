"""Models on the Hugging Face hub: config.json, model.safetensors and a card.

Nothing else is ever fetched, and nothing executed.

A model there is named `hf://owner/name` or `hf://owner/name@revision`. Only such a name asks the network.
"""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from aumcli.checkpoints.directory import CONFIG, WEIGHTS, read_model
from aumcli.config import ModelConfig
from aumcli.core import n_parameters
from aumcli.errors import AumError
from aumcli.utils.files import atomic_path, read_json, write_text
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted

logger = get_logger(__name__)

CARD = "README.md"
SHOWN_LABELS = 20
_NAME = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")  # one slash is what is left of two in a Path


def hub_name(name: Path | str) -> tuple[str, str | None] | None:
    """Split `hf://owner/name@revision` into `owner/name` and the revision or None; None for any other name.

    Raises:
        AumError: it begins like one and isn't.
    """
    text = name.as_posix() if isinstance(name, Path) else name
    if not text.startswith("hf:/"):
        return None
    if not (found := _NAME.fullmatch(text)):
        raise AumError(f"{text} names no model on the hub", fix="write hf://owner/name or hf://owner/name@revision")
    return found[1], found[2]


def pull(repo_id: str, revision: str | None = None) -> Path:
    """Fetch a model directory from the hub into the hub's cache.

    Args:
        repo_id: `owner/name`.
        revision: branch, tag or commit; None: the newest.

    Returns:
        The folder, with config.json and model.safetensors, whose checksums are those that the hub lists.

    Raises:
        AumError: the hub or the model can't be reached, it is no model directory, or what came isn't what was listed.
    """
    with _hub(f"fetch {repo_id}") as hub:
        about = hub.HfApi().model_info(repo_id, revision=revision, files_metadata=True)
        listed = {file.rfilename: file for file in about.siblings or () if file.rfilename in (CONFIG, WEIGHTS)}
        if len(listed) < 2:
            raise AumError(
                f"{repo_id} on the hub is no model directory of aumcli: it has no {CONFIG} or no {WEIGHTS}",
                fix="check the name; checkpoints of other kinds have to be downloaded and given to aum convert",
            )
        folder = Path(hub.snapshot_download(repo_id, revision=about.sha, allow_patterns=[CONFIG, WEIGHTS]))
    logger.debug(f"{repo_id} at revision {about.sha} is in {folder}")
    for name, file in listed.items():
        wanted = file.lfs.sha256 if file.lfs else file.blob_id
        if _checksum(folder / name, git=file.lfs is None) != wanted:
            raise AumError(
                f"{name} of {repo_id} is not what the hub lists: another checksum",
                exit_code=1,
                fix=f"remove {folder} and run the same command again",
            )
    return folder


def push(
    folder: Path | str, repo_id: str, revision: str | None = None, licence: str | None = None
) -> list[tuple[str, str]]:
    """Send a model directory to the hub, with a card that is generated from its configuration.

    Args:
        folder: a model directory; it is read and checked first, and only its two files are sent.
        repo_id: `owner/name`; made where it doesn't exist.
        revision: branch to commit to; None: the main one.
        licence: of the weights, as the hub names it, such as "cc-by-sa-4.0"; None: the card names none.

    Returns:
        What was sent where, as (what, value) rows.

    Raises:
        AumError: the folder is no sound model directory, or the hub can't be reached or refuses.
    """
    network, config = read_model(folder)
    parameters = n_parameters(network)
    with TemporaryDirectory() as staged, _hub(f"send to {repo_id}") as hub:
        copy_model(folder, staged)
        write_text(Path(staged) / CARD, model_card(config, repo_id, parameters, _scores(Path(folder), config), licence))
        api = hub.HfApi()
        api.create_repo(repo_id, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo_id, folder_path=staged, revision=revision, commit_message="Upload by aumcli"
        )
    return [
        ("model", config.model.describe()),
        ("parameters", f"{parameters:,}"),
        ("sent to", f"hf://{repo_id}"),
        ("files", f"{CONFIG}, {WEIGHTS}, {CARD}"),
        ("commit", str(made.oid)),
    ]


def copy_model(folder: Path | str, out: Path | str) -> None:
    """Copy a model directory's two files, byte for byte."""
    for name in (WEIGHTS, CONFIG):
        with atomic_path(Path(out) / name) as temporary:
            shutil.copyfile(Path(folder) / name, temporary)


def model_card(
    config: ModelConfig,
    repo_id: str,
    parameters: int,
    scores: dict[str, dict[str, float]],
    licence: str | None = None,
) -> str:
    """Write a model's card: YAML for the hub, then what a reader has to know, from the configuration alone.

    Args:
        config: of the model.
        repo_id: `owner/name`.
        parameters: number of weights.
        scores: split -> metric -> value.
        licence: see `push`.
    """
    metrics = sorted(
        {{"map": "mean_average_precision"}.get(name, name) for values in scores.values() for name in values}
    )
    header = {
        "library_name": "aumcli",
        "pipeline_tag": "audio-classification",
        **({"license": licence} if licence else {}),
        "tags": [
            "audio-classification",
            "audio-mamba" if config.model.architecture == "aum" else "audio-spectrogram-transformer",
        ],
        "metrics": metrics,
    }
    said, frontend = config.provenance, config.frontend
    trained_on = said.get("corpus") or Path(str(said.get("data") or "")).name  # not the path: it is of another machine
    labels = ", ".join(f"`{label}`" for label in config.labels[:SHOWN_LABELS])
    more = len(config.labels) - SHOWN_LABELS
    facts = [
        (
            "Task",
            f"one of {counted(len(config.labels), 'class')} per clip"
            if config.activation != "sigmoid"
            else f"any of {counted(len(config.labels), 'class')} per clip, each with its own score",
        ),
        ("Labels", labels + (f" and {more} more" if more > 0 else "")),
        ("Architecture", f"{config.model.describe()}; {parameters:,} parameters"),
        (
            "Input",
            f"{frontend.sample_rate_hz} Hz, {frontend.n_mels} mels from {frontend.band_hz[0]:g} to "
            f"{frontend.band_hz[1]:g} Hz, {frontend.frames} frames of {frontend.hop_ms:g} ms "
            f"({frontend.clip_s:.2f} s); mean {frontend.mean}, std {frontend.std}",
        ),
        ("Trained on", trained_on),
        ("Recipe", said.get("recipe")),
        ("Seed", said.get("seed")),
        ("Converted from", said.get("imported_from")),
        *(
            (f"Scores on the {split} split", ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
            for split, values in scores.items()
        ),
    ]
    lines = [f"- **{name}**: {_one_line(value)}" for name, value in facts if value not in (None, "")]
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in header.items() if value),
            "---",
            "",
            f"# {repo_id.split('/')[-1]}",
            "",
            *lines,
            "",
            "```python",
            "import aumcli",
            f'model = aumcli.load_model("hf://{repo_id}")',
            'model.predict("clip.wav", top=3)',
            "```",
            "",
        ]
    )


def _scores(folder: Path, config: ModelConfig) -> dict[str, dict[str, float]]:
    """split -> metric -> value: what training noted of the validation split,
    and what `aum eval` wrote beside a run's best.
    """
    noted = {
        name.removeprefix("val_"): value
        for name, value in config.provenance.items()
        if name.startswith("val_") and isinstance(value, float)
    }
    found = {"val": noted} if noted else {}
    for path in sorted(folder.parent.glob("eval-*.json")) if folder.name == "best" else ():
        values = read_json(path)["metrics"]
        found[path.stem.removeprefix("eval-")] = {
            ours: values[name]
            for ours, name in (("accuracy", "accuracy"), ("map", "mean_average_precision"))
            if isinstance(values.get(name), float)
        }
    return found


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _checksum(path: Path, git: bool) -> str:
    """SHA-256 of a file, or the SHA-1 by which git names its content."""
    with open(path, "rb") as file:
        if not git:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % path.stat().st_size + file.read(), usedforsecurity=False).hexdigest()


@contextmanager
def _hub(what: str) -> Iterator[ModuleType]:
    """Give the package huggingface_hub; what goes wrong there is said in one sentence.

    Raises:
        AumError: it is missing, the hub can't be reached, or it refuses.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise AumError(
            "models on the hub need the package huggingface_hub, not installed here", fix="pip install 'aumcli[hub]'"
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield huggingface_hub
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise AumError(
            f"can't {what}: the hub has no such model or revision, or shows it to others only",
            fix="check the name; for a private model log in with `hf auth login`",
        ) from error
    except errors.HFValidationError as error:
        raise AumError(
            f"can't {what}: {_one_line(error)}", fix="a name has letters, digits, -, _ and ., 96 at most"
        ) from error
    except errors.HfHubHTTPError as error:
        raise AumError(
            f"can't {what}: {_one_line(error)}",
            exit_code=1,
            fix="if this is about permission, log in with `hf auth login`",
        ) from error
    except (
        errors.HTTPError,
        getattr(errors, "XetDownloadError", OSError),
        OSError,
    ) as error:  # no connection, a timeout, offline mode, a full disk
        raise AumError(
            f"can't {what}: {_one_line(error) or type(error).__name__}",
            fix="check the network and HF_ENDPOINT; without either, copy the model directory by hand",
            exit_code=1,
        ) from error

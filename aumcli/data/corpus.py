"""The prepared corpus of a training: a folder, or shards at a URL, whose tables are downloaded."""

import json
import urllib.request
from pathlib import Path

from aumcli.config import DataConfig
from aumcli.data.datasets.shards import INDEX, read_index
from aumcli.data.manifest import Manifest, read_manifest
from aumcli.errors import AumError
from aumcli.utils.download import TIMEOUT_S, download
from aumcli.utils.files import file_sha256, write_json


def corpus_folder(config: DataConfig, data: Path | str | None) -> Path:
    """The prepared folder that a training reads.

    `data`, else data/<the recipe's corpus>; for the URL of shards, data/NAME (see `fetch_corpus`).

    Raises:
        AumError: neither is given.
    """
    if data is not None:
        return local_folder(data)
    if config.corpus is None:
        raise AumError("the recipe names no corpus and no data was given", fix="name prepared data with --data")
    return Path("data") / config.corpus


def open_corpus(config: DataConfig, data: Path | str | None) -> Manifest:
    """Read the corpus of a training.

    Raises:
        AumError: it is not prepared, or its manifest is wrong.
    """
    folder = corpus_folder(config, data)
    if data is None and not (folder / "manifest.csv").exists():
        raise AumError(
            f"{folder} is not a prepared corpus: it has no manifest.csv",
            fix=f"run `aum prepare {config.corpus}`, or name a prepared folder with --data",
        )
    return read_manifest(folder)


def local_folder(data: Path | str) -> Path:
    """A prepared folder; for the URL of shards, data/NAME (see `fetch_corpus`)."""
    return fetch_corpus(str(data)) if "://" in str(data) else Path(data)


def fetch_corpus(url: str) -> Path:
    """Download labels.csv, manifest.csv and the index of a corpus whose shards are at a URL, into data/NAME.

    Args:
        url: of shards.json, or of its folder; the tables are one folder higher.

    Returns:
        data/NAME, NAME being the name of the folder of the tables.

    Raises:
        AumError: the download failed, or the manifest is not the one that the shards were made from.
    """
    base = url.rstrip("/").removesuffix("/shards.json")
    above = base.removesuffix("/shards")
    folder = Path("data") / above.rpartition("/")[2]
    index = read_index(base)
    if not (folder / "manifest.csv").exists() or file_sha256(folder / "manifest.csv") != index.manifest_sha256:
        download(f"{above}/labels.csv", folder / "labels.csv")
        download(f"{above}/manifest.csv", folder / "manifest.csv", sha256=index.manifest_sha256)
    with urllib.request.urlopen(f"{base}/shards.json", timeout=TIMEOUT_S) as answer:
        write_json(folder / INDEX, {**json.load(answer), "base": base})
    return folder

"""`aum prepare ast-json`: the files that AST and AuM train from.

They hold {"data": [{"wav": path, "labels": "/m/09x0r,/m/05zppz"}]}.

There is one per split, told from its name, and a label table (class_labels_indices.csv) that maps ids to names.
"""

import json
import os
import re
from pathlib import Path

from aumcli.data.clips import Clips
from aumcli.data.duplicates import duplicate_file_warnings
from aumcli.data.labels import read_labels
from aumcli.data.sources import LABEL_TABLE, SPLIT_NAMES, SPLITS, CorpusIndex, PrepareRequest, not_found
from aumcli.errors import AumError
from aumcli.utils.csv import listed, raise_problems

LAYOUT = (
    "put one .json per split, with train, val or test (or eval) in its name, and the label table into one folder, "
    "or name them: --set train=train.json --set test=eval.json --set labels=class_labels_indices.csv"
)


def index(request: PrepareRequest) -> CorpusIndex:
    """List the clips of the files.

    Args:
        request: `annotations`, or else `source`, is their folder; relative paths in them are below `source`. Settings:
            `train`, `val`, `test` and `labels` name files in that folder.

    Returns:
        The clips.

    Raises:
        AumError: a file is missing or laid out otherwise, or a clip has a label that the table lacks.
    """
    settings = request.known_settings(**dict.fromkeys((*SPLITS, "labels"), ""))
    request.refuse(split="each split has a file of its own", seed="nothing in it is random")
    folder = request.annotations or request.source
    if folder is None:
        raise AumError("which folder? None was given", fix=LAYOUT)
    if not folder.is_dir():
        raise AumError(f"{folder} {'is not a folder' if folder.exists() else not_found(folder)}", fix=LAYOUT)
    files = {split: folder / settings[split] for split in SPLITS if settings[split]} or _by_name(folder)
    table = folder / settings["labels"] if settings["labels"] else _label_table(folder)
    labels = read_labels(table)
    known = {label.id: label.id for label in labels} | {
        label.name: label.id for label in labels if label.name not in {each.id for each in labels}
    }
    root, clips = Path(os.path.abspath(request.sounds)), Clips()
    for split, path in files.items():
        problems = []
        for number, item in enumerate(read_items(path)):
            names = [name.strip() for name in item["labels"].split(",")]
            names = [item["labels"]] if item["labels"] in known else names  # a name may have commas of its own
            unknown = [name for name in names if name not in known]
            if unknown:
                problems.append(f"item {number}, {item['wav']}: {table.name} lacks the label {listed(unknown)}")
                continue
            ids = tuple(dict.fromkeys(known[name] for name in names))
            clips.append(os.path.join(root, item["wav"]), None, None, ids, split, "")
        raise_problems(path, problems, f"take the label table that belongs to it with --set labels=FILE, not {table}")
    silent = "silent" in request.keep
    return CorpusIndex(
        clips, labels, str(folder), arrange=lambda usable, _: (usable, duplicate_file_warnings(usable, silent))
    )


def read_items(path: Path) -> list[dict[str, str]]:
    """The list of one file; an AumError if it is laid out otherwise."""
    try:
        items: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
        wrong = [
            i
            for i, item in enumerate(items)
            if not (isinstance(item.get("wav"), str) and isinstance(item.get("labels"), str))
        ]
    except FileNotFoundError as error:
        raise AumError(f"{path} doesn't exist", fix=LAYOUT) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AumError(f'{path} is not {{"data": [{{"wav": ..., "labels": ...}}]}}: {error}', fix=LAYOUT) from error
    raise_problems(path, [f"item {i} has no wav or no labels" for i in wrong], LAYOUT)
    return items


def _by_name(folder: Path) -> dict[str, Path]:
    """Split -> file, told from the words in the files' names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.json")):
        words = re.findall(r"[a-z]+", path.stem.lower())
        for split in {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}:
            found.setdefault(split, []).append(path)
    for split, paths in found.items():
        if len(paths) > 1:
            raise AumError(
                f"{folder} has several files for {split}: {listed(path.name for path in paths)}",
                fix=f"name one: --set {split}={paths[0].name}",
            )
    if not found:
        raise AumError(f"{folder} has no .json file with train, val or test in its name", fix=LAYOUT)
    return {split: found[split][0] for split in SPLITS if split in found}


def _label_table(folder: Path) -> Path:
    tables = [folder / LABEL_TABLE] if (folder / LABEL_TABLE).exists() else sorted(folder.glob("*label*.csv"))
    if len(tables) != 1:
        raise AumError(
            f"{folder} has {len(tables)} label tables{': ' * bool(tables)}{listed(path.name for path in tables)}",
            fix=LAYOUT,
        )
    return tables[0]

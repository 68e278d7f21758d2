"""Whether a resumed run finds the data that it was trained on: its classes, in their order, and its clips."""

from pathlib import Path

from aumcli.data.manifest import Manifest
from aumcli.errors import AumError
from aumcli.utils.csv import listed
from aumcli.utils.text import counted, shell_quoted


def data_identity(manifest: Manifest, sha256: str) -> dict[str, object]:
    """What a checkpoint keeps of its data: the names of the classes, clips by split, and the digest of the tables."""
    return {
        "labels": manifest.label_names,
        "splits": {name: len(manifest.split(name)) for name in manifest.split_names},
        "data_sha256": sha256,
    }


def check_same_data(saved: dict, manifest: Manifest, sha256: str, out: Path) -> None:
    """Refuse to continue with other data.

    Args:
        saved: the checkpoint.
        manifest: the data that is there now.
        sha256: digest of its tables.
        out: the run's folder.

    Raises:
        AumError: classes or clips differ; the fix is the command that starts a new run from the run's weights.
    """
    labels: list[str] = saved["labels"]
    problem = _labels_differ(labels, manifest)
    if not problem and saved["data_sha256"] != sha256:
        problem = _clips_differ(saved["splits"], manifest)
    if not problem:
        return
    classes = f"--set model.n_classes={len(manifest.labels)} " if len(labels) != len(manifest.labels) else ""
    raise AumError(
        f"{manifest.folder} is not the data that {out} was trained on: {problem}",
        fix="put the data back as it was; or start a new run from these weights: aum train --recipe "
        f"{shell_quoted(out / 'recipe.toml')} --init {shell_quoted(out)} --data {shell_quoted(manifest.folder)} "
        f"{classes}--out {shell_quoted(free_folder(out))}",
    )


def _labels_differ(before: list[str], manifest: Manifest) -> str:
    now = manifest.label_names
    new, gone = ([name for name in some if name not in others] for some, others in ((now, before), (before, now)))
    if new or gone:
        return "; ".join(
            f"{listed(map(repr, names))} {'is' if len(names) == 1 else 'are'} {what}"
            for names, what in ((new, "new among its classes"), (gone, "gone"))
            if names
        )
    for place, (name, other) in enumerate(zip(before, now)):
        if name != other:
            return f"its classes are in another order: number {place} was {name!r} and is {other!r}"
    return ""


def _clips_differ(before: dict[str, int], manifest: Manifest) -> str:
    now = {name: len(manifest.split(name)) for name in manifest.split_names}
    counts = [
        f"{name} has {counted(now.get(name, 0), 'clip')} and had {before.get(name, 0):,}"
        for name in {**before, **now}
        if now.get(name) != before.get(name)
    ]
    return ", ".join(counts) or "as many clips, but others, or with other labels or in another order"


def free_folder(out: Path) -> Path:
    """A folder beside the run's that doesn't exist yet."""
    return next(path for number in range(2, 10_000) if not (path := out.with_name(f"{out.name}-{number}")).exists())

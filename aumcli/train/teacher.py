"""Another model's scores as targets (distillation; Hinton, Vinyals and Dean 2015, arXiv:1503.02531)."""

import hashlib
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aumcli.data.clips import Clip
from aumcli.data.manifest import Manifest
from aumcli.errors import AumError
from aumcli.evaluate import clip_name
from aumcli.utils.csv import listed
from aumcli.utils.text import counted, shell_quoted


@dataclass(frozen=True)
class Teacher:
    """Scores that targets are mixed with.

    Attributes:
        scores: of the training clips, (clips, classes) float32.
        share: of them in the targets; the rest are labels.
    """

    scores: np.ndarray
    share: float

    def mix(self, targets: Tensor, clips: Sequence[int]) -> Tensor:
        """Targets, (b, classes), of training clips with the share of the scores."""
        return torch.lerp(targets, torch.from_numpy(self.scores[clips]), self.share)

    @cached_property
    def sha256(self) -> str:
        """Of the scores: what a resumed training must find again."""
        return hashlib.sha256(self.scores.tobytes()).hexdigest()


def read_teacher(path: Path | str, share: float, clips: Sequence[Clip], manifest: Manifest, activation: str) -> Teacher:
    """Read the scores of training clips that `aum eval --split` wrote.

    Args:
        path: scores-<split>.npz.
        share: see `Teacher`.
        clips: the training clips.
        manifest: the data that they are of.
        activation: of the model that is trained (see `ModelConfig`). Where its scores add up to 1, those of a clip are
            divided by their sum; with a background class only where that is more than 1.

    Raises:
        AumError: the file can't be read, or lacks a class or a clip.
    """
    again = f"score the training clips: aum eval TEACHER --data {shell_quoted(manifest.folder)} --split train"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, labels, scores = arrays["clips"].tolist(), arrays["labels"].tolist(), arrays["scores"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise AumError(f"can't read {path} (train.teacher): {error}", fix=again) from error
    columns = {label: i for i, label in enumerate(labels)}
    if unknown := [name for name in manifest.label_names if name not in columns]:
        raise AumError(
            f"{path} (train.teacher) has no scores of {counted(len(unknown), 'class')}: {listed(map(repr, unknown))}",
            fix="take a teacher that knows all classes",
        )
    rows = {name: i for i, name in enumerate(names)}
    wanted = [clip_name(clip, manifest.folder) for clip in clips]
    if lost := [name for name in wanted if name not in rows]:
        raise AumError(
            f"{path} (train.teacher) has no scores of {counted(len(lost), 'training clip')}: {listed(lost)}", fix=again
        )
    found = scores[[rows[name] for name in wanted]][:, [columns[name] for name in manifest.label_names]]
    if activation != "sigmoid":
        least = 1.0 if activation == "softmax_background" else np.finfo(np.float32).tiny
        found = found / np.maximum(found.sum(axis=1, keepdims=True), least)
    return Teacher(found.astype(np.float32), share)


def check_same_teacher(saved: dict, teacher: Teacher, path: str, out: Path) -> None:
    """Refuse to continue a run with other scores than it began with.

    Raises:
        AumError: they differ.
    """
    if saved["teacher_sha256"] != teacher.sha256:
        raise AumError(
            f"{path} (train.teacher) has other scores than those that {out} was trained with",
            fix=f"put the file back as it was, or start a new run: --init {shlex.quote(str(out))}",
        )

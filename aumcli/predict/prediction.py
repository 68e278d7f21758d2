"""What a model says of one file, and the same as plain values: the schema of every output."""

import base64
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aumcli.config import NOTHING
from aumcli.data.recorded import Recorded
from aumcli.predict.events import Event

Record = dict[str, Any]  # a prediction as JSON values, see `Prediction.to_record`
SCHEMA = 1  # version of what `Prediction.to_dict` gives
DECIMALS = 6  # of seconds, a fraction of a sample, and of scores


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file; `problem` and `fix` instead of labels where it could not be read."""

    path: str
    duration_s: float = 0.0
    windows: int = 0  # overlapping windows that the file was scored in
    labels: tuple[tuple[str, float], ...] = ()  # mean scores of the windows, best first; see `answers`
    events: tuple[Event, ...] = ()  # by time
    problem: str = ""
    fix: str = ""
    warning: str = ""
    embedding: np.ndarray | None = None  # (d,) float32: mean of the windows' class tokens
    windows_per_point: int = 0
    curves: dict[str, list[float]] | None = None  # scores over time of the events' and the likeliest labels
    classes: dict[str, int] | None = None  # with curves: the index of each class that is named
    nothing: float | None = None  # score of the background class, or 1 - the best score of a rejected clip
    recorded: Recorded = field(default_factory=Recorded)
    rejected: bool = False  # whether no class reaches its threshold, and that was asked for
    first_window: int = -1  # where its windows begin in a `WindowStore`
    fingerprint: tuple[int, int] = (-1, -1)  # the file's size in bytes and its time in ns when it was read

    @property
    def answers(self) -> list[tuple[str, float]]:
        """The labels with their scores, best first; before them `aumcli.config.NOTHING` where that is the answer."""
        return _with_nothing([*self.labels], self.nothing or 0.0, self.rejected)

    def with_curves(
        self, windows_per_point: int, curves: dict[str, list[float]], classes: dict[str, int]
    ) -> "Prediction":
        """The same with scores over time."""
        return replace(self, windows_per_point=windows_per_point, curves=curves, classes=classes)

    def to_dict(self) -> Record:
        """The prediction as plain values, times in s."""
        if self.problem:
            return {"path": self.path, "problem": self.problem, "fix": self.fix}
        warning = {"warning": self.warning} if self.warning else {}
        return {
            "path": self.path,
            "duration_s": round(self.duration_s, DECIMALS),
            "windows": self.windows,
            **({} if self.recorded.at is None else {"recorded_at": self.recorded.after(0.0)}),
            **({"site": self.recorded.site} if self.recorded.site else {}),
            **({} if self.nothing is None else {"nothing": round(self.nothing, DECIMALS)}),
            **({"rejected": True} if self.rejected else {}),
            "labels": [{"label": label, "score": round(score, DECIMALS)} for label, score in self.labels],
            "events": [
                {
                    "start_s": round(event.start_s, DECIMALS),
                    "stop_s": round(event.stop_s, DECIMALS),
                    **({} if self.recorded.at is None else {"recorded_at": self.recorded.after(event.start_s)}),
                    "label": event.label,
                    "score": round(event.score, DECIMALS),
                }
                for event in self.events
            ],
            **warning,
        }

    def to_record(self) -> Record:
        """The same with the embedding and the curves, where there are any: what a journal holds."""
        record = self.to_dict()
        if self.embedding is not None:
            record["embedding"] = base64.b64encode(self.embedding.astype("<f4").tobytes()).decode()
        if self.curves is not None:
            record |= {"windows_per_point": self.windows_per_point, "curves": self.curves, "classes": self.classes}
        if self.first_window >= 0:
            record["first_window"] = self.first_window
        return record


def embedding_of(record: Record) -> np.ndarray:
    """The embedding in a record, (d,) float32."""
    return np.frombuffer(base64.b64decode(record["embedding"]), dtype="<f4")


def answers(record: Record) -> list[tuple[str, float]]:
    """A clip's labels with their scores, best first; before them NOTHING where that is the answer."""
    labels = [(label["label"], label["score"]) for label in record["labels"]]
    return _with_nothing(labels, record.get("nothing", 0.0), record.get("rejected", False))


def _with_nothing(labels: list[tuple[str, float]], nothing: float, rejected: bool) -> list[tuple[str, float]]:
    if not rejected and nothing <= labels[0][1]:
        return labels
    return [(NOTHING, nothing), *(labels if len(labels) > 1 else ())]  # who asks for one label gets one answer

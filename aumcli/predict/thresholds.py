"""From which score on a window belongs to an event of a class: the model's own, a number, or a file's."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aumcli.calibration import NEVER
from aumcli.config import PredictConfig
from aumcli.errors import AumError, did_you_mean
from aumcli.utils.csv import csv_reader, listed

COLUMNS = ("label", "threshold")
ABOVE = 2.0  # every score
FIX = f"write a number from 0 to 1, or {NEVER} for no events"


def class_thresholds(labels: Sequence[str], own: np.ndarray, config: PredictConfig) -> np.ndarray:
    """Least score of an event, (classes,) float32: as asked for, else the model's `own`, (classes,).

    Raises:
        AumError: `config.thresholds` names a class that the model doesn't have.
    """
    if config.threshold is not None:
        return np.full(len(labels), config.threshold, dtype=np.float32)
    chosen = config.thresholds or {}
    if unknown := [name for name in chosen if name not in labels]:
        raise AumError(
            f"the thresholds are of classes that the model doesn't have: {listed(map(repr, unknown))}",
            fix=f"{did_you_mean(unknown[0], labels)}`aum info MODEL` names its classes",
        )
    return np.array([chosen.get(name, value) for name, value in zip(labels, own.tolist())], dtype=np.float32)


def read_thresholds(path: Path) -> dict[str, float]:
    """Read a CSV file with the columns label and threshold; others are ignored.

    Raises:
        AumError: it can't be read, a row has neither a number in 0..1 nor `never`, or a label stands twice.
    """
    found: dict[str, float] = {}
    with csv_reader(path, COLUMNS) as (reader, header):
        places = [header.index(name) for name in COLUMNS]
        for row in reader:
            if not any(row):
                continue
            where = f"{path}, row {reader.line_num}"
            try:
                label, text = row[places[0]], row[places[1]].strip()
                value = ABOVE if text == NEVER else float(text)
            except (IndexError, ValueError) as error:
                raise AumError(f"{where} has no number as threshold", fix=FIX) from error
            if not (0 <= value <= 1 or text == NEVER):
                raise AumError(f"{where} has the threshold {value:g}", fix=FIX)
            if label in found:
                raise AumError(f"{where} names {label!r} again", fix="keep one of the rows")
            found[label] = value
    return found

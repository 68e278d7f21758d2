"""Events by class and hour of the day, beside how long was recorded in that hour."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from aumcli.predict.prediction import Record
from aumcli.report.plots import drawn, plot_hours
from aumcli.utils.csv import csv_writer
from aumcli.utils.logging import get_logger
from aumcli.utils.text import counted

COLUMNS = ("label", "hour", "events", "recorded_h", "events_per_h")

logger = get_logger(__name__)


@dataclass(frozen=True)
class Hours:
    """Events by class and hour.

    Attributes:
        events: class -> events that begin in each hour of the day, (24,).
        recorded_h: hours recorded in each, (24,).
        dated: recordings that say when they begin.
        undated: the others, which don't count.
    """

    events: dict[str, np.ndarray]
    recorded_h: np.ndarray
    dated: int
    undated: int


def count_hours(records: Iterable[Record]) -> Hours:
    """Count the events of recordings whose time is known, by the clock that they go by."""
    events: dict[str, Counter[int]] = defaultdict(Counter)
    recorded_s, dated, undated = np.zeros(24), 0, 0
    for record in records:
        if "problem" in record:
            continue
        if "recorded_at" not in record:
            undated += 1
            continue
        dated += 1
        at = datetime.fromisoformat(record["recorded_at"])
        left_s = record["duration_s"]
        while left_s > 0:
            next_hour = at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            part_s = min(left_s, (next_hour - at).total_seconds())
            recorded_s[at.hour] += part_s
            at, left_s = next_hour, left_s - part_s
        for event in record["events"]:
            events[event["label"]][datetime.fromisoformat(event["recorded_at"]).hour] += 1
    table = {label: np.array([counts[hour] for hour in range(24)]) for label, counts in sorted(events.items())}
    return Hours(table, recorded_s / 3600, dated, undated)


def write_hours(path: Path, found: Hours) -> None:
    """Write a table, and a picture of its name beside it.

    Args:
        path: a CSV file: a row for each class and hour that was recorded.
        found: what was counted.

    Raises:
        AumError: it can't be written.
    """
    if found.undated:
        unknown = counted(found.undated, "recording")
        logger.warning(f"{path} is without {unknown} of unknown time; --recorded says how names tell it")
    with csv_writer(path, COLUMNS) as writer:
        for label, counts in found.events.items():
            for hour in np.flatnonzero(found.recorded_h).tolist():
                recorded_h = float(found.recorded_h[hour])
                rate = round(float(counts[hour]) / recorded_h, 3)
                writer.writerow((label, hour, int(counts[hour]), round(recorded_h, 4), rate))
    title = f"events by hour of the day, in {counted(found.dated, 'recording')}"
    if problem := drawn(plot_hours, found.events, found.recorded_h, path.with_suffix(".png"), title):
        logger.warning(problem)

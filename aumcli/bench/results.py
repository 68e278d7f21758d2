"""What a benchmark gave, as an object, as JSON and as CSV."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from aumcli.bench.interleave import StoppingRule, quartiles
from aumcli.bench.measurement import BenchConfig, Measurement
from aumcli.errors import AumError
from aumcli.report.environment import environment

SCHEMA = 2
RESULTS = "bench.json"
COLUMNS = (
    "machine",
    "mode",
    "dtype",
    "device",
    "batch",
    "memory_cap_gib",
    "threads",
    "model",
    "backend",
    "tokens",
    "clip_s",
    "median_ms",
    "lower_quartile_ms",
    "upper_quartile_ms",
    "samples",
    "relative_error",
    "peak_bytes",
    "saved_bytes",
    "failure",
)


@dataclass
class Result:
    """What one machine gave."""

    environment: dict[str, object]
    rules: StoppingRule
    points: list[Measurement]

    @property
    def machine(self) -> str:
        """What tells it from other machines: its GPU, or its processor."""
        return str(self.environment.get("gpu") or self.environment["cpu"])


def here(device: str) -> dict[str, object]:
    """This machine and its software; with its GPU where that is the device."""
    import torch

    gpu = {"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {}
    return environment() | gpu


def read_results(path: Path | str) -> list[Result]:
    """Read a bench.json, or the one in a folder.

    Raises:
        AumError: there is none, it is damaged, or of another version.
    """
    path = Path(path)
    path = path / RESULTS if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise AumError(f"{path} has schema {document['schema']}, this version reads {SCHEMA}", fix="measure again")
        return [
            Result(each["environment"], StoppingRule(**each["rules"]), [_point(point) for point in each["points"]])
            for each in document["results"]
        ]
    except OSError as error:
        raise AumError(f"can't read {path}: {error.strerror}", fix=f"name a {RESULTS} of aum bench --out") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AumError(
            f"{path} is no result of aum bench, or damaged: {error!r}", fix=f"name a {RESULTS} of aum bench --out"
        ) from error


def as_json(results: Sequence[Result]) -> dict[str, object]:
    """What `read_results` reads, every sample included."""
    return {
        "schema": SCHEMA,
        "results": [
            {
                "environment": each.environment,
                "rules": asdict(each.rules),
                "points": [
                    asdict(point) | {"median_ms": point.median_ms, "relative_error": point.relative_error}
                    for point in each.points
                ],
            }
            for each in results
        ],
    }


def _point(values: dict) -> Measurement:
    """A point from JSON: figures that follow from others are computed again."""
    values = {key: value for key, value in values.items() if key not in ("median_ms", "relative_error")}
    return Measurement(**values | {"setting": BenchConfig(**values["setting"])})


def as_csv(results: Sequence[Result]) -> str:
    """A row for each point (see `COLUMNS`)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for result in results:
        for point in result.points:
            known = (
                asdict(point) | asdict(point.setting) | {"machine": result.machine, "samples": len(point.samples_ms)}
            )
            if point.samples_ms:
                low, middle, high = quartiles(point.samples_ms)
                known |= {
                    "lower_quartile_ms": low,
                    "median_ms": middle,
                    "upper_quartile_ms": high,
                    "relative_error": point.relative_error,
                }
            writer.writerow([known.get(column) for column in COLUMNS])
    return text.getvalue()

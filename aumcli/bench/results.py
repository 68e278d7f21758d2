"""The result of a benchmark: as an object, as JSON and as CSV."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aumcli.bench.interleave import StoppingRule, quartiles
from aumcli.bench.measurement import BenchConfig, Measurement
from aumcli.errors import AumError
from aumcli.report.environment import environment
from aumcli.utils.csv import csv_writer

SCHEMA = 3
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
    """What was measured on one machine."""

    environment: dict[str, Any]
    stopping_rule: StoppingRule
    measurements: list[Measurement]

    @property
    def machine(self) -> str:
        """A name for the machine: its GPU, or its processor."""
        return str(self.environment.get("gpu") or self.environment["cpu"])


def environment_of(device: str) -> dict[str, Any]:
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
            Result(
                each["environment"],
                StoppingRule(**each["stopping_rule"]),
                [_measurement(values) for values in each["measurements"]],
            )
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
                "stopping_rule": asdict(each.stopping_rule),
                "measurements": [
                    asdict(measurement)
                    | {"median_ms": measurement.median_ms, "relative_error": measurement.relative_error}
                    for measurement in each.measurements
                ],
            }
            for each in results
        ],
    }


def _measurement(values: dict[str, Any]) -> Measurement:
    """A measurement from JSON; median and error are computed again."""
    values = {key: value for key, value in values.items() if key not in ("median_ms", "relative_error")}
    return Measurement(**values | {"config": BenchConfig(**values["config"])})


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write a row for each measurement (see `COLUMNS`)."""
    with csv_writer(path, COLUMNS) as writer:
        for result in results:
            for measurement in result.measurements:
                samples = measurement.samples_ms
                known = asdict(measurement) | asdict(measurement.config)
                known |= {"machine": result.machine, "samples": len(samples)}
                if samples:
                    low, middle, high = quartiles(samples)
                    known |= {"lower_quartile_ms": low, "median_ms": middle, "upper_quartile_ms": high}
                    known |= {"relative_error": measurement.relative_error}
                writer.writerow([known.get(column) for column in COLUMNS])

"""aum info RUN or MODEL: its classes and input, how good it is, how it was made, its size, and what to do next."""

import csv
import math
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aumcli.checkpoints import CONFIG, WEIGHTS, read_config
from aumcli.checkpoints.lookup import find_model
from aumcli.checkpoints.tensors import safetensors_shapes
from aumcli.config import VIEWS, ModelConfig
from aumcli.errors import AumError
from aumcli.info.recipes import nearest_recipe
from aumcli.recipe import load_recipe
from aumcli.utils.csv import listed
from aumcli.utils.files import read_json
from aumcli.utils.text import counted, one_line, shell_quoted, unescaped

ALL_LABELS, SOME_LABELS = 24, 12  # up to ALL_LABELS classes are all named, of more the first SOME_LABELS
WIDTH, NAME_WIDTH = 80, 12  # columns of a line, and of what stands before it
Row = tuple[str, str]


def model_lines(name: str) -> list[str]:
    """A run or a model for people; what is not known of it is skipped.

    Args:
        name: a run, a model directory, a packaged model's name or hf://owner/name.

    Raises:
        AumError: there is no such model, or its configuration is damaged.
    """
    folder = find_model(name)
    config, run = read_config(folder), _run_of(folder)
    report, problems = _json(run / "report.json") if run else ({}, [])
    of_best = folder.name == "best"  # whose metrics report.json has
    results, more = _results(run, folder, of_best, report)
    paragraphs = [
        _classes(config),
        _input(config),
        results,
        _made(config, run, report),
        _size(folder),
        [("warning", text) for text in [*problems, *more]],
    ]
    kind = (
        "a run"
        if run and of_best and Path(name) != folder
        else "a model directory"
        if Path(name).is_dir()
        else "a model"
    )
    lines = [f"{name}: {kind}, {config.model.describe()}"]
    for rows in filter(None, paragraphs):
        lines += ["", *(line for row in rows for line in _wrapped(*row))]
    return [*map(one_line, lines), "", "next:", *(f"  {command}" for command in _next(name, config, run, report))]


def _run_of(folder: Path) -> Path | None:
    """The run that a model directory lies in."""
    return folder.parent if (folder.parent / "recipe.toml").is_file() else None


def _classes(config: ModelConfig) -> list[Row]:
    labels, few = config.labels, len(config.labels) <= ALL_LABELS
    names = ", ".join(labels) if few else f"{listed(labels, SOME_LABELS)} (--json has all)"
    how = {
        "softmax": "those of a clip add up to 1",
        "softmax_background": "those of a clip add up to 1 at most; what is left is for nothing",
        "sigmoid": "from 0 to 1 for each class on its own",
    }[config.activation]
    thresholds = (
        f"; events from {min(config.thresholds):g} to {max(config.thresholds):g} on, by class"
        if config.thresholds
        else ""
    )
    return [("classes", f"{counted(len(labels), 'class')}: {names}"), ("scores", how + thresholds)]


def _input(config: ModelConfig) -> list[Row]:
    front = config.frontend
    normal = "" if (front.mean, front.std) == (0, 0.5) else f", normalised by mean {front.mean:g} and std {front.std:g}"
    return [
        ("input", f"{front.sample_rate_hz:,} Hz, {front.clip_s:.2f} s at a time"),
        (
            "frontend",
            f"{front.kind}: {counted(front.frames, 'frame')} of {front.window_ms:g} ms every {front.hop_ms:g} ms, "
            f"{counted(front.n_mels, 'mel band')} from {front.band_hz[0]:g} to {front.band_hz[1]:g} Hz{normal}",
        ),
        ("longer clips", VIEWS[config.views]),
    ]


def _results(run: Path | None, folder: Path, of_best: bool, report: dict[str, Any]) -> tuple[list[Row], list[str]]:
    """What was measured: rows, and files that can't be read."""
    rows, problems = [], []
    config = read_config(folder)
    if of_best and (text := _figures(report.get("metrics"))):
        rows.append(("validation", f"{text} ({report.get('split')})" if report.get("split") else text))
    else:
        for key, what in (("val_accuracy", "accuracy"), ("val_map", "mAP")):
            value = config.provenance.get(key)
            if isinstance(value, float):
                rows.append(("validation", f"{what} {100 * value:.2f} %"))
    places = dict.fromkeys([*([run] if run and of_best else []), folder])
    for path in [path for place in places for path in sorted(place.glob("eval-*.json"))]:
        found, problem = _json(path)
        problems += problem
        if text := _figures(found.get("metrics")):
            data = f" on {unescaped(str(found['data']))}" if found.get("data") else ""
            rows.append((str(found.get("split", "tested")), f"{text}{data}"))
    return rows, problems


def _figures(metrics: Any) -> str:
    """The main figures of a report, each with its 95 % interval where the report has one; "" where it has none."""
    if not isinstance(metrics, dict):
        return ""
    names = (("mean_average_precision", "mAP"),) if metrics.get("multi_label") else (("accuracy", "accuracy"),)
    parts = []
    for key, name in (*names, ("macro_f1", "macro F1")):
        if not isinstance(metrics.get(key), int | float):
            continue
        between = metrics.get(f"{key}_ci95")
        interval = " (95 % interval {:.2f} to {:.2f} %)".format(*(100 * x for x in between)) if between else ""
        parts.append(f"{name} {100 * metrics[key]:.2f} %{interval}")
    clips = metrics.get("clips")
    return ", ".join(parts) + (f", {counted(clips, 'clip')}" if parts and isinstance(clips, int) else "")


def _made(config: ModelConfig, run: Path | None, report: dict[str, Any]) -> list[Row]:
    """How it was made, as far as the run or the configuration says."""
    said, rows = config.provenance, []
    recipe = None
    if run:
        with suppress(AumError):  # of another version: the rest is known all the same
            recipe = load_recipe(run / "recipe.toml")
    if run and recipe:
        near = nearest_recipe(recipe)
        name = "one of its own" if near is None else f"{near[0]} with {', '.join(near[1])}" if near[1] else near[0]
        rows.append(("recipe", f"{name}; all of it: {run / 'recipe.toml'}"))
    elif said.get("recipe"):
        rows.append(("recipe", str(said["recipe"])))
    data = [str(said.get("corpus") or unescaped(str(said.get("data") or "")))]
    data += [f"{counted(said['clips'], 'clip')} to train on"] if isinstance(said.get("clips"), int) else []
    data += [f"{said['test_group']} held out"] if said.get("test_group") else []
    rows.append(("data", ", ".join(filter(None, data))))
    if said.get("imported_from"):
        kind = f" ({said['kind']})" if said.get("kind") else ""
        head = f", its head {said['head']}" if said.get("head") else ""
        rows.append(("imported", f"from {said['imported_from']}{kind}{head}"))
    if recipe:
        rows.append(("start", f"from {recipe.train.init}" if recipe.train.init else "fresh weights"))
    rows.append(
        ("training", ", ".join(_training(said, _history(run, report), recipe.train.epochs if recipe else None)))
    )
    made_with = report.get("environment") or {}
    parts = [f"{key} {made_with[key]}" for key in ("aumcli", "torch", "python") if made_with.get(key)]
    parts += [f"{report['backend']} backend on {report.get('device')}"] if report.get("backend") else []
    parts += [str(made_with["cpu"])] if made_with.get("cpu") else []
    parts += [counted(made_with["threads"], "thread")] if isinstance(made_with.get("threads"), int) else []
    parts += [f"commit {str(report['commit'])[:12]}"] if report.get("commit") else []
    rows.append(("made with", ", ".join(parts)))
    return [row for row in rows if row[1]]


def _training(said: dict[str, Any], history: list[dict[str, Any]], epochs: int | None) -> Iterable[str]:
    if said.get("seed") is not None:
        yield f"seed {said['seed']}"
    if history:
        yield f"{counted(len(history), 'epoch')}{f' of {epochs}' if epochs else ''}"
    if said.get("averaged"):
        yield f"the mean of the last {counted(said['averaged'], 'epoch')}"
    elif said.get("epoch"):
        yield f"these weights are of epoch {said['epoch']}"
    with suppress(KeyError, TypeError, ValueError):
        seconds = sum(float(row["seconds"]) for row in history)
        if seconds:
            yield f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _history(run: Path | None, report: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per epoch, of the report or, before there is one, of metrics.csv."""
    if isinstance(report.get("epochs"), list):
        return report["epochs"]
    if run and (run / "metrics.csv").is_file():
        with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return []


def _size(folder: Path) -> list[Row]:
    shapes = safetensors_shapes(folder / WEIGHTS)
    files = [f"{folder / name} {_bytes((folder / name).stat().st_size)}" for name in (WEIGHTS, CONFIG)]
    return [("size", counted(sum(map(math.prod, shapes.values())), "parameter")), ("files", ", ".join(files))]


def _next(name: str, config: ModelConfig, run: Path | None, report: dict[str, Any]) -> Iterable[str]:
    """Calls that can be pasted; CLIP.wav and data/NAME are for the reader to fill in."""
    model = name if name.startswith("hf:") or not Path(name).exists() else shell_quoted(name)
    if run and not report and (run / "last" / "state.pt").is_file():
        yield f"aum train --resume --out {shell_quoted(run)}"
    if (report.get("reported") or {}).get("clips") != 0:
        known = unescaped(str(config.provenance.get("data") or ""))
        there = bool(known) and Path(known).exists()
        yield f"aum eval {model}" + ("" if there else f" --data {shell_quoted(known) if known else 'data/NAME'}")
    yield f"aum predict CLIP.wav --model {model}"


def _json(path: Path) -> tuple[dict[str, Any], list[str]]:
    """A report, empty where there is none, and what is wrong with it."""
    if not path.is_file():
        return {}, []
    try:
        return read_json(path), []
    except AumError as error:
        return {}, [error.problem]


def _bytes(size: float) -> str:
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def _wrapped(what: str, value: str) -> list[str]:
    indent = " " * (NAME_WIDTH + 2)
    return textwrap.wrap(
        value,
        WIDTH,
        initial_indent=f"{what:<{NAME_WIDTH}}  ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )

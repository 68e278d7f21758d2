"""What one round of review is worth: long recordings, some annotated, a model, its events reviewed, another model.

    python benchmarks/annotation_loop.py [--data data/fsdd] > loop.md

Recordings are noise with spoken digits at known times, 20 dB louder; three of them are classes, the others are just
there. A first model learns from two annotated recordings, labels four more, and a reviewer who knows the truth
confirms, rejects and adds; a second model learns from all. Both are judged on three recordings that nobody reviewed,
by windows (mAP) and by events.
"""

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from false_alarms import mix_digits, noise
from harness import parser_of, print_environment, print_section

from aumcli import load_model
from aumcli.config import NOTHING
from aumcli.data.decoding.audio import load_audio
from aumcli.data.manifest import read_manifest
from aumcli.evaluate import Evaluation, evaluate
from aumcli.predict import predict_files
from aumcli.prepare import prepare
from aumcli.recipe import load_recipe
from aumcli.train import train

CLASSES = ("zero", "four", "seven")
ANNOTATED, REVIEWED, VALIDATION, TEST = range(2), range(2, 6), range(6, 8), range(8, 11)
RATE_HZ, SNR_DB, THRESHOLD = 8000, 20.0, 0.2
Rows = list[tuple[str, str, str, str, str]]  # path, start, stop, label, split


def table(path: Path, rows: Rows) -> Path:
    """Write labels of recordings."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "start_s", "stop_s", "label", "split"))
        writer.writerows(rows)
    return path


def rows_of(name: str, events: list[tuple[float, float, str]], split: str) -> Rows:
    """The rows of a recording; the first says that it was listened to."""
    rows = [(name, "", "", "", split)]
    return rows + [(name, f"{start:.3f}", f"{stop:.3f}", label, split) for start, stop, label in events]


def review(model: Path, path: Path, truth: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """The events of a recording after somebody who knows the truth went through those that a model found."""
    [prediction] = predict_files(load_model(model), [path], threshold=THRESHOLD)
    found = [(event.start_s, event.stop_s, event.label) for event in prediction.events]

    def hit(one: tuple[float, float, str], others: list[tuple[float, float, str]]) -> bool:
        return any(label == one[2] and start < one[1] and stop > one[0] for start, stop, label in others)

    right = [event for event in found if hit(event, truth)]
    wrong = [(start, stop, NOTHING) for start, stop, _ in set(found) - set(right)]
    missed = [event for event in truth if not hit(event, found)]
    print(f"{path.name}: {len(right)} right, {len(wrong)} wrong, {len(missed)} added", file=sys.stderr)
    return sorted(right + wrong + missed)


def fit(folder: Path, name: str, rows: Rows, steps: int) -> tuple[Path, Evaluation]:
    """Prepare, train and evaluate."""
    prepare("annotations", folder / name, source=folder / "rec", annotations=table(folder / f"{name}.csv", rows),
            settings=["window=1"])  # fmt: skip
    settings = {"epochs": 500, "max_steps": steps}
    recipe = load_recipe("quickstart").with_values(augment={"policy": "gentle"}, train=settings)
    run = train(recipe, folder / f"run-{name}", folder / name)
    return run, evaluate(run, folder / name)


def main() -> None:
    """Measure and print a table."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/fsdd"), help="prepared FSDD")
    parser.add_argument("--minutes", type=float, default=4, help="of each recording")
    parser.add_argument("--steps", type=int, default=600, help="of each training")
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    if options.smoke:
        options.minutes, options.steps = 0.5, 5
        sounds = {"train": [(name, noise(draw, 3000, RATE_HZ)) for name in (*CLASSES, "one")]}
        sounds["test"] = sounds["train"]
    else:
        manifest = read_manifest(options.data)
        names = {label.id: label.name for label in manifest.labels}
        sounds = {
            split: [(names[clip.labels[0]], load_audio(clip.path, RATE_HZ)[0]) for clip in manifest.split(split)]
            for split in ("train", "test")
        }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "rec").mkdir()
        truth: dict[str, list[tuple[float, float, str]]] = {}
        for number in range(TEST.stop):
            name = f"{number}.flac"
            background = noise(draw, int(60 * options.minutes * RATE_HZ), RATE_HZ)
            digits = sounds["test" if number in TEST else "train"]
            mixed, placed = mix_digits(draw, background, digits, RATE_HZ, SNR_DB)
            soundfile.write(folder / "rec" / name, mixed, RATE_HZ)
            truth[name] = [event for event in placed if event[2] in CLASSES]
        known: Rows = []
        for numbers, split in ((ANNOTATED, "train"), (VALIDATION, "val"), (TEST, "test")):
            for number in numbers:
                known += rows_of(f"{number}.flac", truth[f"{number}.flac"], split)
        run, before = fit(folder, "before", known, options.steps)
        for number in REVIEWED:
            name = f"{number}.flac"
            known += rows_of(name, review(run, folder / "rec" / name, truth[name]), "train")
        _, after = fit(folder, "after", known, options.steps)
    print_environment()
    rows = []
    for when, result in (("two annotated recordings", before), ("and four reviewed ones", after)):
        events = result.events
        assert events is not None  # the recordings are annotated
        total = events.total
        mean_ap, wrong = result.metrics.mean_average_precision, events.false_alarms_per_hour
        shares = (f"{100 * share:.1f} %" for share in (mean_ap, total.precision, total.recall))
        rows.append([when, *shares, f"{total.f1:.3f}", f"{wrong:.0f}"])
    columns = ("trained on", "mAP of windows", "precision of events", "recall", "F1", "false alarms per hour")
    print_section(
        f"one round of review, {options.minutes:g} minutes each, {options.steps} steps, seed 0", columns, rows
    )


if __name__ == "__main__":
    main()

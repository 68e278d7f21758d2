"""How aum prepare scales with many clips: time, clips per second and peak memory, each stage in a process of its own.

    python benchmarks/scale.py                    # 200,000 rows, 20,000 clips of 1 s at 16 kHz (0.7 GB of disk)
    python benchmarks/scale.py --rows 2000000 --clips 0

The corpus is AudioSet's in form: Google's tables, 527 classes, files named YTID_START_STOP.flac in sub-folders. Most
rows have no file, so looking for them is part of what is measured. To see whether memory stays flat, a quarter of the
clips goes first.
"""

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from harness import parser_of

CLASSES, RATE_HZ, SOUNDS = 527, 16000, 50


def generate(root: Path, rows: int, clips: int) -> None:
    """Write tables of `rows` segments, and files for the first `clips` of them."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True)
    (root / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n" + "".join(f'{i},/m/{i:05d},"class {i}"\n' for i in range(CLASSES))
    )
    comments = "# generated\n# rows\n# YTID, start_seconds, end_seconds, positive_labels\n"
    labels = rng.integers(0, CLASSES, (rows, 2)).tolist()
    with open(root / "unbalanced_train_segments.csv", "w") as file:
        file.write(comments)
        file.writelines(
            f'{name(i)}, 30.000, 40.000, "/m/{a:05d}{"" if a == b else f",/m/{b:05d}"}"\n'
            for i, (a, b) in enumerate(labels)
        )
    for table in ("balanced_train", "eval"):
        (root / f"{table}_segments.csv").write_text(comments)
    sounds = []
    for _ in range(SOUNDS):
        soundfile.write(root / "sound.flac", 0.1 * rng.standard_normal(RATE_HZ), RATE_HZ)
        sounds.append((root / "sound.flac").read_bytes())
    (root / "sound.flac").unlink()
    for number in range(clips):
        path = root / "clips" / f"{number % 100:02d}" / f"{name(number)}_30.000_40.000.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sounds[number % SOUNDS])


def name(number: int) -> str:
    """A video's id: 11 characters."""
    return f"-_{number:09d}"


def measured(stage: Callable[..., int], *arguments: object) -> dict[str, float]:
    """Seconds and peak memory of a stage, in a process of its own; the stage returns how many clips it worked on."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(measured_here, (stage, *arguments))


def measured_here(stage: Callable[..., int], *arguments: object) -> dict[str, float]:
    """The same in this process, whose peak may be that of an earlier stage."""
    import aumcli.prepare  # noqa: F401  so that its time and memory are told apart
    from aumcli.utils.memory import peak_bytes

    before = peak_bytes()
    start = time.perf_counter()
    clips = stage(*arguments)
    seconds = time.perf_counter() - start
    return {
        "clips": clips,
        "seconds": round(seconds, 2),
        "per_s": round(clips / seconds),
        "peak_mib": peak_bytes() // 2**20,
        "imports_mib": before // 2**20,
    }


def prepare_clips(root: Path, out: Path, shards: bool) -> int:
    """aum prepare audioset."""
    from aumcli.prepare import prepare

    report = prepare("audioset", out, source=root, shards=shards)
    return sum(cell["clips"] for cell in report.splits.values())


def write_rows(root: Path, out: Path) -> int:
    """Read the tables and write a manifest of all rows, as if every file were there."""
    from aumcli.data.clips import Clips
    from aumcli.data.labels import read_labels
    from aumcli.data.manifest import write_manifest
    from aumcli.data.sources.audioset import read_segments

    labels = read_labels(root / "class_labels_indices.csv")
    clips = Clips()
    for segment in read_segments(root / "unbalanced_train_segments.csv", "train", {label.id for label in labels}):
        clips.append(f"/sounds/{segment.video}.flac", None, None, segment.labels, segment.split, segment.video)
    write_manifest(out, clips, labels, {})
    return len(clips)


def read_rows(out: Path) -> int:
    """Load the manifest, and ask what training asks first."""
    from aumcli.data.manifest import read_manifest

    manifest = read_manifest(out)
    assert manifest.multi_label
    return len(manifest.split("train"))


def read_shards(out: Path) -> int:
    """Stream all shards."""
    from aumcli.data.datasets.shards import read_index, read_shard

    index = read_index(out)
    return sum(1 for shard in index.shards for _ in read_shard(index.url(shard), sha256=shard.sha256))


def main() -> None:
    """Run all stages and print a line of JSON for each."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--clips", type=int, default=20_000)
    options = parser.parse_args()
    rows, clips = (200, 40) if options.smoke else (options.rows, options.clips)
    print(json.dumps({"cores": os.cpu_count(), "rows": rows}))
    with tempfile.TemporaryDirectory(prefix="aum-scale-") as folder:
        for stage, function, *arguments in stages(Path(folder), rows, clips):
            # to import what prepares takes seconds in each process
            measure = measured_here if options.smoke and function is prepare_clips else measured
            print(json.dumps({"stage": stage, **measure(function, *arguments)}), flush=True)


def stages(folder: Path, rows: int, clips: int) -> Iterator[tuple]:
    """Generate what is needed; what each stage is called, its function and arguments."""
    generate(folder / "all", rows, clips)
    yield "write a manifest of all rows", write_rows, folder / "all", folder / "rows"
    parquet = folder / "rows" / "manifest.parquet"
    if parquet.exists():  # with aumcli[data]
        yield "read it, parquet", read_rows, folder / "rows"
        parquet.unlink()
    yield "read it, csv", read_rows, folder / "rows"
    if clips:
        generate(folder / "quarter", rows, clips // 4)
        yield "prepare, a quarter of the clips", prepare_clips, folder / "quarter", folder / "few", False
        yield "prepare", prepare_clips, folder / "all", folder / "out", False
        yield "prepare with shards, a quarter of the clips", prepare_clips, folder / "quarter", folder / "few", True
        yield "prepare with shards", prepare_clips, folder / "all", folder / "out", True
        yield "read the shards, a quarter of the clips", read_shards, folder / "few"
        yield "read the shards", read_shards, folder / "out"


if __name__ == "__main__":
    main()

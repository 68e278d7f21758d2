"""How quick, how small and how steady `aum predict` is with the packaged model.

    python benchmarks/predict.py hour [--minutes 60] [--folder DIR]
        a 48 kHz stereo recording, whole and cut by hand
    python benchmarks/predict.py clips [--clips 20000] [--folder DIR]
        one-second clips, beside the model alone; killed and resumed

Each says what it measured and ends with exit code 1 where a promise is not kept.
"""

import argparse
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import soundfile

RATE_HZ, CLIP_RATE_HZ = 48000, 8000
MOST_MEMORY_GIB, MOST_FACTOR, LEAST_SHARE = 1.5, 0.02, 0.8
CHECKS: list[bool] = []


def check(what: str, kept: bool) -> None:
    """Print a promise and whether it is kept."""
    CHECKS.append(kept)
    print(f"  {'kept  ' if kept else 'BROKEN'} {what}", flush=True)


def aum_predict(*arguments: object, wait: bool = True) -> subprocess.Popen:
    """Start `aum predict` with the packaged model."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aumcli", "predict", "--model", "digits", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        print("  " + process.communicate()[1].strip().splitlines()[1], flush=True)
        assert process.returncode == 0
    return process


def voice(rng: np.random.Generator, seconds: float, rate_hz: int) -> np.ndarray:
    """Something between a vowel and a bell: harmonics of a gliding tone under a moving formant."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    pitch = rng.uniform(90, 250) * (1 + rng.uniform(-0.2, 0.2) * t / seconds)
    formant = rng.uniform(300, 2500) + rng.uniform(-800, 800) * t / seconds
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    parts = (np.exp(-(((k * pitch - formant) / 400) ** 2)) * np.sin(k * phase) for k in range(1, 16))
    return 0.3 * np.sin(np.pi * t / seconds) ** 0.5 * sum(parts)


def write_recording(path: Path, minutes: float) -> None:
    """A recording with a voice now and then, written a minute at a time."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE_HZ, 2, "PCM_16") as file:
        for _ in range(max(1, round(minutes))):
            sound = 0.002 * rng.standard_normal((60 * RATE_HZ, 2))
            for start_s in np.arange(0, 58, 2):
                one = voice(rng, rng.uniform(0.3, 1.0), RATE_HZ)
                start = int((start_s + rng.uniform(0, 0.9)) * RATE_HZ)
                sound[start : start + len(one)] += one[:, None] * [0.9, 0.6]
            file.write(sound)


def hour(folder: Path, minutes: float) -> None:
    """One long recording: memory, time, and the same events as from pieces that were cut by hand."""
    path, pieces = folder / "recording.wav", folder / "pieces"
    if not path.exists():
        write_recording(path, minutes)
    duration_s = soundfile.info(path).duration
    print(f"{duration_s / 60:.1f} min, {RATE_HZ} Hz, stereo, {path.stat().st_size / 2**20:,.0f} MiB")
    started = time.perf_counter()
    aum_predict(path, "--out", folder / "whole.json")
    took_s = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    check(f"peak memory {peak_gib:.2f} GiB, at most {MOST_MEMORY_GIB}", peak_gib <= MOST_MEMORY_GIB)
    check(
        f"real-time factor {took_s / duration_s:.4f} with starting, at most {MOST_FACTOR}",
        took_s / duration_s <= MOST_FACTOR,
    )
    document = json.loads((folder / "whole.json").read_text())
    whole = document["clips"][0]
    # pieces of 100 windows; each begins where the window behind the last piece's last would
    window, hop = (round(document[key] * RATE_HZ) for key in ("window_s", "hop_s"))
    pieces.mkdir(exist_ok=True)
    with soundfile.SoundFile(path) as file:
        for number, start in enumerate(range(0, file.frames - window + 1, 100 * hop)):
            file.seek(start)
            soundfile.write(pieces / f"{number:05d}.wav", file.read(99 * hop + window), RATE_HZ, "PCM_16")
    aum_predict(pieces, "--out", folder / "pieces.json", "--batch", 48)
    cut = json.loads((folder / "pieces.json").read_text())["clips"]
    events = joined(
        [
            (
                event["label"],
                event["start_s"] + number * 100 * hop / RATE_HZ,
                event["stop_s"] + number * 100 * hop / RATE_HZ,
                event["score"],
            )
            for number, clip in enumerate(cut)
            for event in clip["events"]
        ]
    )
    expected = joined(
        [(event["label"], event["start_s"], event["stop_s"], event["score"]) for event in whole["events"]]
    )
    same = len(events) == len(expected) and all(
        a[0] == b[0] and abs(a[1] - b[1]) < 1e-4 and abs(a[2] - b[2]) < 1e-4 and abs(a[3] - b[3]) < 0.02
        for a, b in zip(events, expected)
    )
    check(
        f"{len(expected)} events, and {len(events)} from {len(cut)} pieces cut by hand: the same labels and times", same
    )


def joined(events: list[tuple]) -> list[tuple]:
    """Events by label and time; those that touch, as where a piece ends, are one."""
    result: list[tuple] = []
    for event in sorted(events):
        if result and result[-1][0] == event[0] and event[1] <= result[-1][2] + 1e-6:
            result[-1] = (event[0], result[-1][1], max(result[-1][2], event[2]), max(result[-1][3], event[3]))
        else:
            result.append(event)
    return result


def write_clips(folder: Path, count: int, seconds: float) -> None:
    """Clips of one kind of sound each."""
    rng = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        sound = 0.002 * rng.standard_normal(round(seconds * CLIP_RATE_HZ)) + voice(rng, seconds, CLIP_RATE_HZ)
        soundfile.write(folder / f"{number:06d}.wav", sound, CLIP_RATE_HZ)


def model_alone(windows: int) -> tuple[float, float]:
    """Windows per second of the model on features that are ready, in batches as `aum predict` makes them: one after the
    other by all threads, as whoever calls it in a loop does; and as many at once as there are threads, as `aum predict`
    does."""
    import torch

    import aumcli
    from aumcli.config import PredictConfig
    from aumcli.predict.scoring import batch_windows
    from aumcli.utils.memory import keep_memory

    keep_memory()
    model, threads = aumcli.load_model("digits"), torch.get_num_threads()
    config, size = model.config.frontend, batch_windows(model, PredictConfig())
    features = torch.randn(size, config.frames, config.n_mels, generator=torch.Generator().manual_seed(0))
    rates = []
    for at_once in (1, threads):
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)) as pool:
            deque(pool.map(lambda _: model.logits(features), range(8)), maxlen=0)
            started = time.perf_counter()
            deque(pool.map(lambda _: model.logits(features), range(-(-windows // size))), maxlen=0)
            rates.append(-(-windows // size) * size / (time.perf_counter() - started))
    return rates[0], rates[1]


def clips(folder: Path, count: int, seconds: float) -> None:
    """Many clips: beside the model alone, and the same after a kill."""
    sounds = folder / f"clips-{seconds:g}s"
    if not sounds.exists() or len(os.listdir(sounds)) != count:
        write_clips(sounds, count, seconds)
    aum_predict(sounds, "--out", folder / "once.jsonl")  # warms the disk's cache too
    with open(folder / "once.jsonl", encoding="utf-8") as results:
        windows = sum(json.loads(line)["windows"] for line in results)
    shares = []
    for _ in range(3):
        alone, at_once = (rate * count / windows for rate in model_alone(windows))
        process = aum_predict(sounds, "--out", folder / "once.jsonl", wait=False)
        said = process.communicate()[1]
        line = next(line for line in said.splitlines() if "clips/s" in line)
        rate = float(line.split(": ")[1].split(" clips/s")[0].replace(",", ""))
        shares.append(rate / alone)
        print(
            f"  {rate:,.0f} clips/s; the model alone on their {windows:,} windows' ready features: "
            f"{alone:,.0f} clips/s, share {rate / alone:.2f}; "
            f"several batches at once: {at_once:,.0f} clips/s, share {rate / at_once:.2f}",
            flush=True,
        )
    check(
        f"share of the model alone {np.median(shares):.2f} (median of 3), at least {LEAST_SHARE}",
        np.median(shares) >= LEAST_SHARE,
    )
    journal = folder / "killed.jsonl.journal"
    process = aum_predict(sounds, "--out", folder / "killed.jsonl", wait=False)
    while results_in(journal) < count // 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    print(f"  killed with {results_in(journal):,} of {count:,} results in the journal", flush=True)
    aum_predict(sounds, "--out", folder / "killed.jsonl", "--resume")
    check(
        "the resumed output is the uninterrupted one, byte for byte",
        (folder / "killed.jsonl").read_bytes() == (folder / "once.jsonl").read_bytes(),
    )
    journal.unlink()


def results_in(journal: Path) -> int:
    """How many results a journal has that another process is writing."""
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?immutable=1", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM results").fetchone()[0])
    except sqlite3.DatabaseError:  # there is none yet, or it is just being written
        return 0


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["hour", "clips"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each clip; the packaged model's window is 0.975 s"
    )
    parser.add_argument("--folder", type=Path, help="keep the sounds and results here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        hour(folder, options.minutes) if options.what == "hour" else clips(folder, options.clips, options.seconds)
    sys.exit(not all(CHECKS))


if __name__ == "__main__":
    main()

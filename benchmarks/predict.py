"""How fast `aum predict` is with the packaged model, how little memory it needs, and whether its results hold.

    python benchmarks/predict.py hour [--minutes 60] [--folder DIR]
        a 48 kHz stereo recording: memory, time, and the same events as from pieces that were cut by hand
    python benchmarks/predict.py clips [--clips 20000] [--folder DIR]
        one-second clips: rate beside the model alone, and the same results after a kill and --resume

Each prints what it measured and ends with exit code 1 where a check fails.
"""

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
from harness import parser_of

RATE_HZ, CLIP_RATE_HZ = 48000, 8000
MAX_MEMORY_GIB, MAX_REAL_TIME_FACTOR, MIN_SHARE = 1.5, 0.02, 0.8
PIECE_WINDOWS = 100  # of a recording that is cut by hand
Event = tuple[str, float, float, float]  # label, start and stop in s, score


class Checks:
    """Prints what was expected and whether it holds.

    Args:
        smoke: limits of time and memory are printed, and held against nothing.
    """

    def __init__(self, smoke: bool):
        self.smoke, self.failed = smoke, False

    def limit(self, text: str, holds: bool) -> None:
        """A limit of time or memory."""
        self.equal(text, holds or self.smoke)

    def equal(self, text: str, holds: bool) -> None:
        """A result that must be right."""
        self.failed |= not holds
        print(f"  {'ok  ' if holds else 'FAIL'} {text}", flush=True)


def start_predict(*arguments: object) -> subprocess.Popen[str]:
    """Start `aum predict` with the packaged model."""
    return subprocess.Popen(
        [sys.executable, "-m", "aumcli", "predict", "--model", "digits", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )


def predict(*arguments: object) -> float:
    """Run `aum predict` with the packaged model; clips per second as it says."""
    process = start_predict(*arguments)
    messages = process.communicate()[1]
    assert process.returncode == 0, messages
    line = next(line for line in messages.splitlines() if "clips/s" in line)
    print(f"  {line.strip()}", flush=True)
    return float(line.split(": ")[1].split(" clips/s")[0].replace(",", ""))


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


def hour(folder: Path, minutes: float, checks: Checks) -> None:
    """One long recording: memory, time, and the same events as from pieces that were cut by hand."""
    path = folder / "recording.wav"
    if not path.exists():
        write_recording(path, minutes)
    duration_s = soundfile.info(path).duration
    print(f"{duration_s / 60:.1f} min, {RATE_HZ} Hz, stereo, {path.stat().st_size / 2**20:,.0f} MiB")
    started = time.perf_counter()
    predict(path, "--out", folder / "whole.json")
    factor = (time.perf_counter() - started) / duration_s
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    checks.limit(f"peak memory {peak_gib:.2f} GiB, at most {MAX_MEMORY_GIB}", peak_gib <= MAX_MEMORY_GIB)
    checks.limit(
        f"real-time factor {factor:.4f} with start-up, at most {MAX_REAL_TIME_FACTOR}", factor <= MAX_REAL_TIME_FACTOR
    )
    document = json.loads((folder / "whole.json").read_text())
    starts_s = cut(path, folder / "pieces", document["window_s"], document["hop_s"])
    predict(folder / "pieces", "--out", folder / "pieces.json", "--batch", 48)
    pieces = json.loads((folder / "pieces.json").read_text())["clips"]
    whole = joined(events_of(document["clips"][0], 0.0))
    from_pieces = joined([event for piece, start_s in zip(pieces, starts_s) for event in events_of(piece, start_s)])
    same = len(from_pieces) == len(whole) and all(
        a[0] == b[0] and abs(a[1] - b[1]) < 1e-4 and abs(a[2] - b[2]) < 1e-4 and abs(a[3] - b[3]) < 0.02
        for a, b in zip(from_pieces, whole)
    )
    checks.equal(
        f"{len(whole)} events, and {len(from_pieces)} from {len(pieces)} pieces cut by hand: the same labels and times",
        same,
    )


def cut(path: Path, folder: Path, window_s: float, hop_s: float) -> list[float]:
    """Cut a recording into files of as many windows each.

    Each begins where the window after the last one of the piece before would.

    Returns:
        Where each piece starts, in s.
    """
    window, hop = round(window_s * RATE_HZ), round(hop_s * RATE_HZ)
    folder.mkdir(exist_ok=True)
    with soundfile.SoundFile(path) as file:
        starts = range(0, file.frames - window + 1, PIECE_WINDOWS * hop)
        for number, start in enumerate(starts):
            file.seek(start)
            samples = file.read((PIECE_WINDOWS - 1) * hop + window)
            soundfile.write(folder / f"{number:05d}.wav", samples, RATE_HZ, "PCM_16")
    return [start / RATE_HZ for start in starts]


def events_of(clip: dict, start_s: float) -> list[Event]:
    """The events of a clip that starts at `start_s` of a recording."""
    return [
        (event["label"], event["start_s"] + start_s, event["stop_s"] + start_s, event["score"])
        for event in clip["events"]
    ]


def joined(events: list[Event]) -> list[Event]:
    """Events by label and time; those that touch, as where a piece ends, are one."""
    result: list[Event] = []
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


def clips(folder: Path, count: int, seconds: float, checks: Checks) -> None:
    """Many clips: rate beside the model alone, and the same results after a kill."""
    sounds, once = folder / f"clips-{seconds:g}s", folder / "once.jsonl"
    if not sounds.exists() or len(os.listdir(sounds)) != count:
        write_clips(sounds, count, seconds)
    predict(sounds, "--out", once)  # warms the disk's cache too
    with open(once, encoding="utf-8") as results:
        windows = sum(json.loads(line)["windows"] for line in results)
    shares = [share_of_model(sounds, once, count, windows) for _ in range(1 if checks.smoke else 3)]
    share = float(np.median(shares))
    checks.limit(f"share of the model alone {share:.2f} (median), at least {MIN_SHARE}", share >= MIN_SHARE)
    killed = folder / "killed.jsonl"
    kill(sounds, killed, count)
    predict(sounds, "--out", killed, "--resume")
    checks.equal("the resumed output is the uninterrupted one, byte for byte", killed.read_bytes() == once.read_bytes())


def share_of_model(sounds: Path, out: Path, count: int, windows: int) -> float:
    """Clips per second of `aum predict` over those of the model alone, called in a loop."""
    alone, at_once = (rate * count / windows for rate in model_alone(windows))
    rate = predict(sounds, "--out", out)
    print(
        f"  {rate:,.0f} clips/s; the model alone on their {windows:,} windows' ready features: "
        f"{alone:,.0f} clips/s, share {rate / alone:.2f}; "
        f"several batches at once: {at_once:,.0f} clips/s, share {rate / at_once:.2f}",
        flush=True,
    )
    return rate / alone


def kill(sounds: Path, out: Path, count: int) -> None:
    """Start `aum predict` and kill it when it has half of the results, if it hasn't ended by then."""
    journal = out.with_name(f"{out.name}.journal")
    process, done = start_predict(sounds, "--out", out), 0
    while process.poll() is None and done < count // 2:
        time.sleep(0.05)
        done = results_in(journal)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    print(f"  killed with {done:,} of {count:,} results in the journal", flush=True)


def results_in(journal: Path) -> int:
    """How many results a journal has that another process is writing."""
    try:
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?immutable=1", uri=True)) as database:
            return int(database.execute("SELECT count(*) FROM results").fetchone()[0])
    except sqlite3.DatabaseError:  # there is none yet, or it is just being written
        return 0


def main() -> None:
    """Run what is asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=["hour", "clips"])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of each clip; the packaged model's window is 0.975 s"
    )
    parser.add_argument("--folder", type=Path, help="keep the sounds and results here")
    options = parser.parse_args()
    if options.smoke:
        options.minutes, options.clips = 1, 100
    checks = Checks(options.smoke)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what == "hour":
            hour(folder, options.minutes, checks)
        else:
            clips(folder, options.clips, options.seconds, checks)
    sys.exit(checks.failed)


if __name__ == "__main__":
    main()

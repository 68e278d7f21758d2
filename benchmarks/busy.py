"""What a busy process costs a training beside it: seconds of an epoch of the `synth` recipe on a machine that is idle
but for it, and with one core taken, by how long OpenMP's threads spin before they sleep.

    aum prepare synth && python benchmarks/busy.py [--rounds 3] [--spins 300000 2000]

Without --spins: GNU's own 300,000 (idle only: beside a busy process an epoch takes minutes) and what aumcli sets. Ends
with exit code 1 where the latter is slower than the former by more than a tenth, or takes more than 2.2 times as long
when busy. Each figure is the minimum over the interleaved rounds.
"""

import csv
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import parser_of, prepare_tones

from aumcli.utils.threads import SPINS

MAX_SLOWDOWN, MAX_BUSY_SLOWDOWN, GNU = 1.1, 2.2, "300000"


def epoch_s(spins: str, arguments: list[str]) -> float:
    """Seconds of the second of two epochs of `aum train ARGUMENTS`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "aumcli", "train", *arguments, "--set", "train.epochs=2", "--out", out],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"GOMP_SPINCOUNT": spins},
        )
        with open(out / "metrics.csv", newline="") as file:
            return float([*csv.DictReader(file)][1]["seconds"])


@contextmanager
def core_taken() -> Iterator[None]:
    """A process that computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def measure(rounds: int, all_spins: list[str], arguments: list[str]) -> dict[tuple[str, str], float]:
    """Seconds of an epoch by spins and state, "idle" or "busy": the minimum over the rounds; prints all."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for spins in all_spins:
            seconds.setdefault((spins, "idle"), []).append(epoch_s(spins, arguments))
            if spins != GNU:
                with core_taken():
                    seconds.setdefault((spins, "busy"), []).append(epoch_s(spins, arguments))
    for (spins, state), each in seconds.items():
        print(f"{spins:>7} spins, {state}: {min(each):5.1f} s  ({', '.join(f'{s:.1f}' for s in each)})")
    return {key: min(each) for key, each in seconds.items()}


def main() -> int:
    """Measure and compare; the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spins", nargs="+", default=[GNU, SPINS])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--recipe", "synth"]
        if options.smoke:
            from tiny import RECIPE

            arguments, options.rounds = ["--recipe", str(RECIPE), "--data", str(prepare_tones(Path(folder)))], 1
        best = measure(options.rounds, options.spins, arguments)
    if (SPINS, "busy") not in best or (GNU, "idle") not in best:
        return 0
    slower, busy = best[SPINS, "idle"] / best[GNU, "idle"], best[SPINS, "busy"] / best[SPINS, "idle"]
    print(f"{SPINS} spins: {slower:.2f} times an idle epoch with {GNU}; busy {busy:.2f} times idle")
    return int(not options.smoke and (slower > MAX_SLOWDOWN or busy > MAX_BUSY_SLOWDOWN))


if __name__ == "__main__":
    sys.exit(main())

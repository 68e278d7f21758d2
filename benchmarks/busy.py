"""What a busy process costs a training beside it: seconds of an epoch of the `synth` recipe on a machine that is idle
but for it, and with one core taken, by how long OpenMP's threads spin before they sleep.

    aum prepare synth && python benchmarks/busy.py [--rounds 3] [--spins 300000 1500]

Without --spins: GNU's own 300,000 (idle only: beside a busy process an epoch takes minutes) and what aumcli sets. Ends
with exit code 1 where the latter is slower than the former by more than a tenth, or takes more than 2.2 times as long
when busy. Each figure is the least of the rounds, which take turns.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from aumcli.utils.threads import SPINS

MOST_SLOWER, MOST_BUSY, GNU = 1.1, 2.2, "300000"


def epoch_s(spins: str) -> float:
    """Seconds of the second of two epochs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        subprocess.run(
            [sys.executable, "-m", "aumcli", "train", "--recipe", "synth", "--set", "train.epochs=2", "--out", out],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"GOMP_SPINCOUNT": spins},
        )
        with open(out / "metrics.csv", newline="") as file:
            return float([*csv.DictReader(file)][1]["seconds"])


@contextmanager
def core_taken():
    """A process that computes without end."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spins", nargs="+", default=[GNU, SPINS])
    arguments = parser.parse_args()
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for spins in arguments.spins:
            seconds.setdefault((spins, "idle"), []).append(epoch_s(spins))
            if spins != GNU:
                with core_taken():
                    seconds.setdefault((spins, "busy"), []).append(epoch_s(spins))
    for (spins, state), each in seconds.items():
        print(f"{spins:>7} spins, {state}: {min(each):5.1f} s  ({', '.join(f'{s:.1f}' for s in each)})")
    best = {key: min(each) for key, each in seconds.items()}
    if (SPINS, "busy") not in best or (GNU, "idle") not in best:
        return 0
    slower, busy = best[SPINS, "idle"] / best[GNU, "idle"], best[SPINS, "busy"] / best[SPINS, "idle"]
    print(f"{SPINS} spins: {slower:.2f} times an idle epoch with {GNU}; busy {busy:.2f} times idle")
    return int(slower > MOST_SLOWER or busy > MOST_BUSY)


if __name__ == "__main__":
    sys.exit(main())

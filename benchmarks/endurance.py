"""Whether a training survives what a week brings: python benchmarks/endurance.py [section ...]
[--times 10] [--seed 0].

Each section trains a small model on generated sounds without disturbance, then again while real processes are killed or
stopped at random moments, within epochs and between them, and taken up again; both must end with the same bytes.
Sections: kill (SIGKILL), stop (SIGTERM and SIGINT in turn, which have to end the process by itself), team (SIGKILL to
one of two processes of `aum train --devices 2`, which starts them again), team-stop (signals to such a team). All where
none is named; some minutes each on two cores. Exit code 1 if a run differs.
"""

import argparse
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from subprocess import Popen

import torch

from aumcli.prepare import prepare

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))
from tiny import RECIPE, sounds, tiny
from training import history, quietly, started, weights, workers_of

SETTINGS = (
    "train.batch_size=2",
    "train.epochs=40",
    "train.checkpoint_every_minutes=0.002",
)
WORKER_KILLS = 3  # in one launch: so often torchrun starts again


def arguments(data: Path, out: Path, more: list[str]) -> list[object]:
    """A call of `aum train` that begins a run, or goes on with it where there is something to go on with."""
    if (out / "last" / "state.pt").exists():
        return ["train", "--resume", "--out", out, *more]
    return [
        "train",
        "--recipe",
        RECIPE,
        "--data",
        data,
        "--out",
        out,
        *(word for value in SETTINGS for word in ("--set", value)),
        *more,
    ]


def place(out: Path) -> str:
    """Where the saved state of a run is."""
    if not (out / "last" / "state.pt").exists():
        return "nothing saved yet"
    state = torch.load(out / "last" / "state.pt", weights_only=True)
    return f"saved: epoch {len(state['history']) + 1}, step {state['epoch']['step']}"


def wait(process: Popen, out: Path, dice: random.Random) -> float | None:
    """Wait a random time from the moment the process has saved something; None: it has ended before.

    Returns the seconds waited.
    """
    path, delay_s = out / "last" / "state.pt", dice.uniform(0, 0.6)
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns > before:
            time.sleep(delay_s)
            return delay_s if process.poll() is None else None
        time.sleep(0.002)
    return None


def disturb(data: Path, out: Path, times: int, dice: random.Random, numbers: list[int], more: list[str]) -> bool:
    """Signal a training so often and take it up again, then let it end; whether each process ended as it should."""
    good = True
    for turn in range(times):
        number = numbers[turn % len(numbers)]
        with started(*arguments(data, out, more)) as process:
            delay_s = wait(process, out, dice)
            if delay_s is None:
                print(f"  {turn + 1}: the run has ended before: {process.communicate()[1]}")
                break
            process.send_signal(number)
            err = process.communicate(timeout=120)[1]
        expected = -number if number == signal.SIGKILL else 128 + number
        # a signal behind the last step comes too late to stop anything
        right = (
            process.returncode == expected
            and (number == signal.SIGKILL or "go on with" in err)
            or process.returncode == 0
        )
        good &= right
        print(
            f"  {turn + 1}: {signal.Signals(number).name} {delay_s:.2f} s after a save, "
            f"exit code {process.returncode}; {place(out)}" + ("" if right else f"\nWRONG: {err}"),
            flush=True,
        )
    with started(*arguments(data, out, more)) as process:
        err = process.communicate(timeout=600)[1]
    print(f"  the rest: exit code {process.returncode}" + (f"\n{err}" if process.returncode else ""))
    return good and process.returncode == 0


def kill_workers(data: Path, out: Path, dice: random.Random) -> bool:
    """Kill one of two processes, as often as one launch bears; the launch has to end well by itself."""
    with started(*arguments(data, out, ["--devices", "2"])) as process:
        for turn in range(WORKER_KILLS):
            if (delay_s := wait(process, out, dice)) is None:
                break
            rank = dice.randrange(2)
            os.kill(workers_of(process.pid)[rank], signal.SIGKILL)
            print(f"  {turn + 1}: SIGKILL to process {rank}, {delay_s:.2f} s after a save; {place(out)}", flush=True)
        said, err = process.communicate(timeout=600)
    print(
        f"  the rest: exit code {process.returncode}; started again {said.count('resuming after')} times"
        + (f"\n{err}" if process.returncode else "")
    )
    return process.returncode == 0 and said.count("resuming after") == WORKER_KILLS


def same(run: Path, whole: Path) -> bool:
    """Whether two runs ended with the same bytes; prints the digests."""
    digests = [hashlib.sha256(weights(each)["last"] + weights(each)["best"]).hexdigest() for each in (whole, run)]
    equal = digests[0] == digests[1] and history(run) == history(whole) and not list(run.rglob("*.part"))
    print(
        f"  undisturbed {digests[0][:16]}, disturbed {digests[1][:16]}: {'the same bits' if equal else 'DIFFERENT'}",
        flush=True,
    )
    return equal


def main() -> int:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="kill, stop, team, team-stop")
    parser.add_argument("--times", type=int, default=10, help="disturbances per section")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    chosen = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # threads decide in which parts a sum is taken
    numbers = {
        "kill": [signal.SIGKILL],
        "stop": [signal.SIGTERM, signal.SIGINT],
        "team": [],
        "team-stop": [signal.SIGINT, signal.SIGTERM],
    }
    if unknown := set(chosen.sections) - set(numbers):
        parser.error(f"no section {', '.join(sorted(unknown))}")
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        prepare("folder", root / "data", source=sounds(root / "sounds", 10), split="60/20/20")
        for name in chosen.sections or numbers:
            print(f"{name}, random moments from seed {chosen.seed}", flush=True)
            team, dice, out = name.startswith("team"), random.Random(f"{chosen.seed} {name}"), root / name
            whole = quietly(
                tiny(*SETTINGS, f"train.gradient_accumulation_steps={2 if team else 1}"),
                root / f"{name}-whole",
                root / "data",
            )
            good &= (
                kill_workers(root / "data", out, dice)
                if name == "team"
                else disturb(root / "data", out, chosen.times, dice, numbers[name], ["--devices", "2"] if team else [])
            )
            good &= same(out, whole)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""Whether a training survives kills and stops: python benchmarks/endurance.py [section ...] [--times 10] [--seed 0].

Each section trains a small model on generated sounds without disturbance, then again while processes are killed or
stopped at random moments, within epochs and between them, and resumed; both must end with the same bytes. Sections:

    kill              SIGKILL
    stop              SIGTERM and SIGINT alternately, which have to end the process by itself
    distributed-kill  SIGKILL to one of two processes of `aum train --devices 2`, which starts them again
    distributed-stop  signals to the launcher of two such processes

All where none is named; some minutes each on two cores. Exit code 1 if a run differs.
"""

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import torch
from harness import parser_of, prepare_tones

# isort: split
# of tests/fixtures, which harness has put on the path
from tiny import RECIPE, tiny
from training import history, quietly, started, weights, workers_of

WORKER_KILLS = 3  # in one launch: torchrun starts the processes again so many times
SIGNALS = {
    "kill": [signal.SIGKILL],
    "stop": [signal.SIGTERM, signal.SIGINT],
    "distributed-kill": [],
    "distributed-stop": [signal.SIGINT, signal.SIGTERM],
}


@dataclass(frozen=True)
class Section:
    """A training that is disturbed."""

    name: str
    data: Path
    out: Path
    epochs: int
    rng: random.Random
    max_delay_s: float

    @property
    def distributed(self) -> bool:
        """Whether two processes train together."""
        return self.name.startswith("distributed")

    @property
    def overrides(self) -> list[str]:
        """What the recipe is changed by."""
        return ["train.batch_size=2", f"train.epochs={self.epochs}", "train.checkpoint_every_minutes=0.002"]

    @property
    def state(self) -> Path:
        """The saved state."""
        return self.out / "last" / "state.pt"

    def arguments(self) -> list[object]:
        """A call of `aum train` that begins the run, or resumes it where it has saved something."""
        more = ["--devices", "2"] if self.distributed else []
        if self.state.exists():
            return ["train", "--resume", "--out", self.out, *more]
        overrides = [word for value in self.overrides for word in ("--set", value)]
        return ["train", "--recipe", RECIPE, "--data", self.data, "--out", self.out, *overrides, *more]


def saved_step(section: Section) -> str:
    """At which step the saved state of a run is."""
    if not section.state.exists():
        return "nothing saved yet"
    state = torch.load(section.state, weights_only=True)
    return f"saved: epoch {len(state['history']) + 1}, step {state['epoch']['step']}"


def wait(process: Popen[str], section: Section) -> float | None:
    """Wait a random time from the moment at which the process has saved something.

    Returns:
        The seconds waited; None: it ended before.
    """
    path, delay_s = section.state, section.rng.uniform(0, section.max_delay_s)
    before = path.stat().st_mtime_ns if path.exists() else 0
    while process.poll() is None:
        if path.exists() and path.stat().st_mtime_ns > before:
            time.sleep(delay_s)
            return delay_s if process.poll() is None else None
        time.sleep(0.002)
    return None


def disturb(section: Section, times: int) -> bool:
    """Signal a training and resume it several times, then let it end; whether each process ended as it should."""
    good, signals = True, SIGNALS[section.name]
    for i in range(times):
        number = signals[i % len(signals)]
        with started(*section.arguments()) as process:
            delay_s = wait(process, section)
            if delay_s is None:
                print(f"  {i + 1}: the run had ended before: {process.communicate()[1]}")
                break
            process.send_signal(number)
            err = process.communicate(timeout=120)[1]
        expected = -number if number == signal.SIGKILL else 128 + number
        right = process.returncode in (expected, 0)  # 0: a signal after the last step comes too late to stop anything
        good &= right
        print(
            f"  {i + 1}: {number.name} {delay_s:.2f} s after a save, "
            f"exit code {process.returncode}; {saved_step(section)}" + ("" if right else f"\nWRONG: {err}"),
            flush=True,
        )
    with started(*section.arguments()) as process:
        err = process.communicate(timeout=600)[1]
    print(f"  to the end: exit code {process.returncode}" + (f"\n{err}" if process.returncode else ""))
    return good and process.returncode == 0


def kill_workers(section: Section, times: int) -> bool:
    """Kill one of two processes several times in one launch, which has to succeed all the same."""
    kills = 0
    with started(*section.arguments()) as process:
        while kills < times and (delay_s := wait(process, section)) is not None:
            kills += 1
            rank = section.rng.randrange(2)
            os.kill(workers_of(process.pid)[rank], signal.SIGKILL)
            print(
                f"  {kills}: SIGKILL to process {rank}, {delay_s:.2f} s after a save; {saved_step(section)}", flush=True
            )
        err = process.communicate(timeout=600)[1]
    print(f"  to the end: exit code {process.returncode}" + (f"\n{err}" if process.returncode else ""))
    return process.returncode == 0 and kills == times


def same(run: Path, reference: Path) -> bool:
    """Whether two runs ended with the same bytes; prints the digests."""
    digests = [hashlib.sha256(weights(each)["last"] + weights(each)["best"]).hexdigest() for each in (reference, run)]
    equal = digests[0] == digests[1] and history(run) == history(reference) and not list(run.rglob("*.part"))
    print(
        f"  undisturbed {digests[0][:16]}, disturbed {digests[1][:16]}: {'the same bits' if equal else 'DIFFERENT'}",
        flush=True,
    )
    return equal


def run_section(section: Section, times: int) -> bool:
    """Train with and without disturbance; whether all went well."""
    recipe = tiny(*section.overrides, f"train.gradient_accumulation_steps={2 if section.distributed else 1}")
    reference = quietly(recipe, section.out.with_name(f"{section.name}-reference"), section.data)
    if section.name == "distributed-kill":
        good = kill_workers(section, min(times, WORKER_KILLS))
    else:
        good = disturb(section, times)
    return same(section.out, reference) and good


def main() -> int:
    """Run the sections that were asked for; the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("sections", nargs="*", help=", ".join(SIGNALS))
    parser.add_argument("--times", type=int, default=10, help="disturbances per section")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SIGNALS):
        parser.error(f"no section {', '.join(sorted(unknown))}")
    os.environ["OMP_NUM_THREADS"] = "1"  # the number of threads decides how sums are rounded
    times, epochs, max_delay_s = (1, 8, 0.1) if options.smoke else (options.times, 40, 0.6)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = prepare_tones(root)
        for name in options.sections or SIGNALS:
            print(f"{name}, random moments from seed {options.seed}", flush=True)
            rng = random.Random(f"{options.seed} {name}")
            good &= run_section(Section(name, data, root / name, epochs, rng, max_delay_s), times)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

"""What computed a result: versions, machine and the commit of the code."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aumcli.utils.threads import available_cpus


def environment() -> dict[str, Any]:
    """Say what computed a number: versions, machine, processor and threads.

    Returns:
        `aumcli`, `torch`, `python`, `platform`, `cpu` as text; `cpus` (that this process may use) and `threads` (that
        torch uses) as integers.
    """
    import torch

    try:
        aumcli = version("aumcli")
    except PackageNotFoundError:  # run from a bare checkout
        aumcli = "unknown"
    return {
        "aumcli": aumcli,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": available_cpus(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """The git commit of the code that runs, with "+" where it was changed since; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", here, "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return done.stdout.strip() or None


def _cpu_model() -> str:
    """The processor's name as its maker gives it, else the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux
    if sys.platform == "darwin":
        brand = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        return brand.stdout.strip() or platform.machine()
    return platform.processor() or platform.machine()

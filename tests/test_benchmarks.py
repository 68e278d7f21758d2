"""Every script in benchmarks/ runs, each of its sections in a process of its own, at the smallest sizes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aumcli.core.kernels import available_backends

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="benchmarks read /proc, send signals and fork workers")

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHARED = {"harness.py"}
CALLS = {
    "accuracy.py": [""],
    "annotation_loop.py": [""],
    "busy.py": ["--spins 2000"],
    # the other sections differ in how they disturb a training, which tests/train does too
    "endurance.py": ["stop"],
    "false_alarms.py": [""],
    "kernel_backends.py": [""],
    "digits_corpus.py": [""],
    "predict.py": ["hour", "clips"],
    "profile_blocks.py": [""],
    "roofline.py": [""],
    "scale.py": [""],
    "speed.py": [
        *("frontend", "loader", "kernels", "floors", "others"),
        *("models", "training", "bfloat16", "memory", "engine"),
    ],
    "unheard_voices.py": [""],
}
PACKAGES = {  # beside what aumcli itself needs
    "speed.py frontend": ["torchaudio"],
    "speed.py loader": ["torchaudio"],
    "speed.py others": ["torchaudio", "transformers", "mambapy"],
    "speed.py models": ["torchaudio", "transformers"],
    "speed.py training": ["torchaudio", "transformers"],
    "speed.py bfloat16": ["torchaudio", "transformers"],
}
KERNELS = ("speed.py kernels", "speed.py floors")  # measure the compiled kernels


def test_no_script_is_forgotten():
    assert {path.name for path in FOLDER.glob("*.py")} == {*CALLS, *SHARED}


@pytest.mark.parametrize("call", [f"{script} {words}".strip() for script, each in CALLS.items() for words in each])
def test_runs(call, tmp_path):
    for package in PACKAGES.get(call, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}: pip install aumcli[test]")
    if call in KERNELS and (reason := available_backends()["cpu"]):
        pytest.skip(f"needs the compiled kernels: {reason}")
    if call == "speed.py floors" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    if call in ("unheard_voices.py", "digits_corpus.py") and shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng: apt install espeak-ng")
    script, *words = call.split()
    more = [] if script == "roofline.py" else ["--smoke"]  # which measures nothing
    done = subprocess.run(
        [sys.executable, FOLDER / script, *words, *more],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout

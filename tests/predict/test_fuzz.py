"""A slice of the campaign of tests/fuzz_audio.py: no mutated file crashes, hangs or is refused without a reason."""

import os
import subprocess
import sys
from pathlib import Path

import aumcli


def test_mutated_files_are_decoded_or_refused_by_name():
    script = Path(__file__).parents[1] / "fuzz_audio.py"
    result = subprocess.run([sys.executable, script, "--files", "208", "--seed", "7"], capture_output=True, text=True, errors="replace",
                            env=os.environ | {"PYTHONPATH": str(Path(aumcli.__file__).parents[1])})
    assert result.returncode == 0, result.stdout
    words = result.stdout.split(": ", 1)[1].split()
    decoded, refused = int(words[words.index("decoded,") - 1]), int(words[words.index("refused") - 1])
    assert decoded + refused == 208 and min(decoded, refused) > 40, result.stdout

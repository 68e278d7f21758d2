"""A slice of the campaign of tests/fuzz_audio.py: every file is heard as it is, or refused with a reason."""

import os
import re
import subprocess
import sys
from pathlib import Path

import aumcli

FILES, EACH = 280, 20  # of each kind, and of mutated ones twice as many


def test_files_are_decoded_as_they_are_or_refused_by_name():
    script = Path(__file__).parent / "fuzz_audio.py"
    result = subprocess.run(
        [sys.executable, script, "--files", str(FILES), "--seed", "7"],
        capture_output=True,
        text=True,
        errors="replace",
        env=os.environ | {"PYTHONPATH": str(Path(aumcli.__file__).parents[1])},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    ended = {
        kind: (int(decoded), int(refused))
        for kind, decoded, refused in re.findall(r"^(\w+): (\d+) decoded, (\d+) refused$", result.stdout, re.M)
    }
    assert sum(map(sum, ended.values())) == FILES and len(ended) == 13
    for kind in ("joined", "lying", "moved"):
        assert ended[kind] == (0, EACH), kind
    for kind in ("unknown", "surrounded", "named", "joined_frames"):
        assert ended[kind] == (EACH, 0), kind
    assert all(min(ended[kind]) > 2 for kind in ("overwritten", "within_wav", "mutated"))

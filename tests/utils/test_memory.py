"""keep_memory: what is freed serves the next tensor, without page faults."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, torch
from aumcli.utils.memory import keep_memory
if {keep}: keep_memory()
torch.ones(2**26 + 2**20)  # 256 MiB and a little: beyond what glibc keeps by itself
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(2**26)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_freed_memory_is_used_again():
    kept, anew = (
        int(
            subprocess.run(
                [sys.executable, "-c", COUNT.format(keep=keep)], capture_output=True, text=True, check=True
            ).stdout
        )
        for keep in (True, False)
    )
    assert kept * 20 < anew

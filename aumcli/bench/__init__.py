"""aum bench: time and memory by number of tokens, AuM beside AST.

Each model has a process of its own, so that running out of memory ends that one only; the processes work in turn.
"""

from aumcli.bench.interleave import StoppingRule
from aumcli.bench.machines import compare
from aumcli.bench.measurement import BenchConfig, Measurement, measure, network_config
from aumcli.bench.results import Result, read_results
from aumcli.bench.sweep import MODELS, Sweep, bench
from aumcli.bench.tables import compared, point_lines

__all__ = [
    "MODELS",
    "BenchConfig",
    "Measurement",
    "Result",
    "StoppingRule",
    "Sweep",
    "bench",
    "compare",
    "compared",
    "measure",
    "network_config",
    "point_lines",
    "read_results",
]

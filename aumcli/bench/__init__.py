"""aum bench: time and memory by number of tokens, AuM beside AST.

Each model has a process of its own, so that running out of memory ends that one only; their runs are interleaved.
"""

from aumcli.bench.interleave import StoppingRule
from aumcli.bench.measurement import BenchConfig, Measurement, measure, network_config
from aumcli.bench.output import join_results
from aumcli.bench.results import Result, read_results
from aumcli.bench.sweep import MODELS, Sweep, bench
from aumcli.bench.tables import comparison_table, machine_lines, measurement_lines

__all__ = [
    "MODELS",
    "BenchConfig",
    "Measurement",
    "Result",
    "StoppingRule",
    "Sweep",
    "bench",
    "comparison_table",
    "join_results",
    "machine_lines",
    "measure",
    "measurement_lines",
    "network_config",
    "read_results",
]

"""aum ablate: a grid of variants and seeds, or a table of the paper; each run is an ordinary run folder."""

from aumcli.ablate.ablation import ablate, ablate_table
from aumcli.ablate.cells import Ablation, Cell, PaperTable
from aumcli.ablate.grid import TABLE_2, Grid
from aumcli.ablate.plan import DATA, TablePlan, dry_run, plan_ablation, plan_table
from aumcli.ablate.tables import print_result

__all__ = [
    "DATA",
    "TABLE_2",
    "Ablation",
    "Cell",
    "Grid",
    "PaperTable",
    "TablePlan",
    "ablate",
    "ablate_table",
    "dry_run",
    "plan_ablation",
    "plan_table",
    "print_result",
]

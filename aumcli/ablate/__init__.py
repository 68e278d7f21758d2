"""aum ablate: a grid of variants and seeds, or a table of the paper; each cell's runs are ordinary run folders."""

from aumcli.ablate.ablation import Ablation, Cell, Table, ablate, ablate_table, dry_run, plan_ablation, plan_table
from aumcli.ablate.grid import TABLE_2
from aumcli.ablate.tables import print_ablation, print_paper_table

__all__ = [
    "TABLE_2",
    "Ablation",
    "Cell",
    "Table",
    "ablate",
    "ablate_table",
    "dry_run",
    "plan_ablation",
    "plan_table",
    "print_ablation",
    "print_paper_table",
]

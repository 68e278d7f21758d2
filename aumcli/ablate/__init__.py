"""aum ablate: a grid of variants and seeds under one recipe, each cell's runs ordinary run folders."""

from aumcli.ablate.ablation import Ablation, Cell, ablate
from aumcli.ablate.grid import TABLE_2
from aumcli.ablate.tables import print_ablation

__all__ = ["TABLE_2", "Ablation", "Cell", "ablate", "print_ablation"]

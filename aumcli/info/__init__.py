"""aum info: what is installed, recipes, models and runs, and the paper's tables and figure."""

from aumcli.info.model import model_lines
from aumcli.info.published import page_name, published, published_lines
from aumcli.info.recipes import about, installed, namesake, namesake_lines, recipe_lines, recipes

__all__ = [
    "about",
    "installed",
    "model_lines",
    "namesake",
    "namesake_lines",
    "page_name",
    "published",
    "published_lines",
    "recipe_lines",
    "recipes",
]

"""`wbcclf recipes`."""

from __future__ import annotations

from rich.table import Table

from wbcclf.cli._shared import out
from wbcclf.recipes import get_recipe, list_recipes


def recipes() -> None:
    """List the published systems that `wbcclf train --recipe NAME` repeats.

    Example: wbcclf recipes
    """
    table = Table("recipe", "system", "published accuracy", box=None)
    table.columns[0].no_wrap = True
    for name in list_recipes():
        recipe = get_recipe(name)
        table.add_row(name, recipe.system, recipe.published)
    out.print(table)
    out.print("(leaky), (artefact): not what the system achieves on cells it has not seen.")

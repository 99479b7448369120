"""`wbcclf recipes`."""

from __future__ import annotations

from wbcclf.cli._console import out, print_table
from wbcclf.recipes import get_recipe, list_recipes


def recipes() -> None:
    """List the published systems that can be repeated.

    Train one with `wbcclf train IMAGES --recipe NAME`.

    Example: wbcclf recipes
    """
    known = [(name, get_recipe(name)) for name in list_recipes()]
    rows = [[name, recipe.system, recipe.published] for name, recipe in known]
    print_table(["recipe", "system", "published accuracy"], rows, box=None)
    out.print("(leaky), (artefact): not what the system achieves on cells it has not seen.")

"""`wbcclf recipes`."""

from __future__ import annotations

from wbcclf.cli._console import out, print_table
from wbcclf.cli._output import JsonOption, check_outputs, save_figures
from wbcclf.recipes import get_recipe, list_recipes


def recipes(json_: JsonOption = None) -> None:
    """List the published systems that can be repeated.

    Train one with `wbcclf train IMAGES --recipe NAME`.

    Example: wbcclf recipes
    """
    check_outputs(json=json_)
    known = [(name, get_recipe(name)) for name in list_recipes()]
    rows = [[name, recipe.system, recipe.published] for name, recipe in known]
    print_table(["recipe", "system", "published accuracy"], rows, box=None)
    out.print("(leaky), (artefact): not what the system achieves on cells it has not seen.")
    fields = ("name", "system", "published", "image_size")
    save_figures(
        json_,
        lambda: {
            "recipes": [{field: getattr(recipe, field) for field in fields} for _, recipe in known]
        },
    )

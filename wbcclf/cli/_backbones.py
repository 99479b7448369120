"""`wbcclf backbones`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from wbcclf.backbones import BackboneDescription, describe, list_backbones
from wbcclf.cli._console import out
from wbcclf.cli._output import JsonOption, check_outputs, save_figures


def backbones(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Describe this network: its blocks, and what can be trained."
        ),
    ] = None,
    json_: JsonOption = None,
) -> None:
    """List the networks, or describe one of them.

    Train one with `wbcclf train IMAGES --backbone NAME`.

    Example: wbcclf backbones vgg16
    """
    check_outputs(json=json_)
    if name is None:
        names = list_backbones()
        lines, figures = names, {"backbones": names}
    else:
        described = describe(name)
        lines, figures = str(described).split("\n"), figures_of(described)
    for line in lines:
        out.print(line)
    save_figures(json_, lambda: figures)


def figures_of(described: BackboneDescription) -> dict[str, Any]:
    """Return what is known of a network, for JSON."""
    spec = described.spec
    known = ("name", "paper", "input_size", "smallest_size", "mean", "std")
    return {
        **{name: getattr(spec, name) for name in known},
        "weights": [
            {"name": name, "licence": weights.licence} for name, weights in spec.weights.items()
        ],
        "blocks": [asdict(block) for block in described.blocks],
    }

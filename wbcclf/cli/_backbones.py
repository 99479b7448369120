"""`wbcclf backbones`."""

from __future__ import annotations

from typing import Annotated

import typer

from wbcclf.backbones import describe, list_backbones
from wbcclf.cli._console import out


def backbones(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Describe this network: its blocks, and what can be trained."
        ),
    ] = None,
) -> None:
    """List the networks, or describe one of them.

    Train one with `wbcclf train IMAGES --backbone NAME`.

    Example: wbcclf backbones vgg16
    """
    for line in list_backbones() if name is None else str(describe(name)).split("\n"):
        out.print(line)

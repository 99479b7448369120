"""Which of a model's classes a class of other images is."""

from __future__ import annotations

from difflib import get_close_matches
from shlex import quote
from typing import Annotated

import typer

from wbcclf._labels import without_spelling
from wbcclf.cli._console import out
from wbcclf.cli._output import require

MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="NAME=CLASS",
        help="Images of the class NAME are of the model's class CLASS. Repeat it for every "
        "name. Names that differ only in case or surrounding spaces need no --map.",
    ),
]


def parse_map(pairs: list[str]) -> dict[str, str]:
    """Return ``{"NEUTROPHIL": "neutrophil"}`` for ``["NEUTROPHIL=neutrophil"]``."""
    given: dict[str, str] = {}
    for pair in pairs:
        name, sign, label = pair.partition("=")
        require(bool(name and sign and label), f"--map {pair}: write NAME=CLASS.")
        require(name not in given, f"--map {pair}: {name} is mapped twice.")
        given[name] = label
    return given


def match_classes(names: list[str], known: list[str], given: dict[str, str]) -> dict[str, str]:
    """Return the model's class for each class of the images; those it does not know stay.

    Parameters
    ----------
    names : list of str
        Classes of the images.
    known : list of str
        Classes of the model.
    given : dict of str to str
        What the user says. Another name is matched if it differs from a class of the model in
        upper and lower case or in spaces around it alone.

    Raises
    ------
    ValueError
        If `given` holds classes that there are not, if several of `names` or of `known` differ in
        spelling alone, or if the model knows none of the classes.
    """
    for name, label in given.items():
        require(
            name in names,
            f"--map {name}={label}: the images have no class {name}; they have {_list(names)}.",
        )
        near = get_close_matches(label, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        require(
            label in known,
            f"--map {name}={label}: the model has no class {label}; it knows {_list(known)}.{hint}",
        )
    found = {}
    for name in names:
        same = [label for label in known if without_spelling(label) == without_spelling(name)]
        found[name] = given.get(name, name)
        if name in given or name in known or not same:
            continue
        # With two spellings among the images nobody but the user knows that they are one class.
        rivals = [
            other
            for other in names
            if other not in given and without_spelling(other) == without_spelling(name)
        ]
        require(
            len(same) == len(rivals) == 1,
            f"The images' {_quoted(rivals)} and the model's {_quoted(same)} differ only in upper "
            "and lower case or spaces. Map them to a class of the model, such as "
            f"--map {quote(f'{name}={same[0]}')}.",
        )
        found[name] = same[0]
        out.print(f"The images' class {name} counts as the model's class {same[0]}.")
    require(
        bool(set(found.values()) & set(known)),
        f"The model knows none of the images' classes {_list(names)}; it knows {_list(known)}. Map "
        "each of them to a class of the model with --map NAME=CLASS.",
    )
    return found


def _list(names: list[str]) -> str:
    return ", ".join(names)


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))  # shows spaces

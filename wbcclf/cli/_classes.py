"""Which of a model's classes a class of other images is."""

from __future__ import annotations

from difflib import get_close_matches

from wbcclf.cli._console import out
from wbcclf.cli._output import require


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
        What the user says; other names that differ by upper and lower case alone are matched if
        only one of `names` and one of `known` are the same without it.

    Raises
    ------
    ValueError
        If `given` holds classes that there are not, or the model knows none of the classes.
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
        same = [label for label in known if label.casefold() == name.casefold()]
        rivals = [other for other in names if other.casefold() == name.casefold()]
        found[name] = name
        if name in given:
            found[name] = given[name]
        elif name not in known and len(same) == len(rivals) == 1:
            found[name] = same[0]
            out.print(f"The class {name} of the images is taken for the model's {same[0]}.")
    require(
        bool(set(found.values()) & set(known)),
        f"The model knows none of the images' classes {_list(names)}; it knows {_list(known)}. Say "
        "with --map NAME=CLASS which class of the model each of them is.",
    )
    return found


def _list(names: list[str]) -> str:
    return ", ".join(names)

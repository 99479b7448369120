"""What the audit of pictures finds, finding by finding."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import some
from wbcclf._labels import without_spelling
from wbcclf.datasets._file_facts import FACTS
from wbcclf.model_selection.audit._laboratories import Kinds
from wbcclf.model_selection.audit._shortcuts import (
    TOLD,
    Shortcut,
    bin_sizes,
    call_by_colour,
    call_by_fact,
    find_shortcuts,
)

LEAK, WARNING, NOTE = SEVERITIES = ("leak", "warning", "note")
SEVERAL_LABORATORIES = "several laboratories"
SPLIT = 0.05  # share of the pictures that are of the rarer kind in their class: kinds cross classes
N_NEIGHBOURS, N_FOLDS = 5, 5  # of SMOTE and of cross-validation, by default
TRAINED = 0.8  # share of a random split that is trained on
N_NAMED = 5
CUT = " If the pictures were cut around the cell, their size is that of the cell: no mistake."
N_PAIRS = 12  # pictures of two kinds that are shown side by side


def finding(
    kind: str,
    severity: str,
    what: str,
    advice: str,
    files: Iterable[Sequence[str]],
    notes: Iterable[str] = (),
    **figures: Any,
) -> Bunch:
    """Return one finding; `check_data` says what is in it."""
    return Bunch(
        kind=kind,
        severity=severity,
        what=what,
        advice=advice,
        figures=figures,
        files=[[str(path) for path in together] for together in files],
        notes=list(notes),
    )


def broken_files(failures: list[tuple[str, str]], n_files: int) -> list[Bunch]:
    if not failures:
        return []
    listed = some([f"{path} ({why})" for path, why in failures], N_NAMED, "; ")
    return [
        finding(
            "broken files",
            WARNING,
            f"{len(failures)} of {n_files} files cannot be read as pictures: {listed}.",
            "Get these files again from where they came, or delete them. Training and evaluation "
            "stop at them unless told otherwise (--on-error warn).",
            [[path] for path, _ in failures],
            [why for _, why in failures],
            n=len(failures),
        )
    ]


def left_out(skipped: list[tuple[str, str]]) -> list[Bunch]:
    """Report files and rows of tables that were not looked at, since they are not for training."""
    if not skipped:
        return []
    listed = some([f"{path} ({why})" for path, why in skipped], N_NAMED, "; ")
    return [
        finding(
            "left out",
            NOTE,
            f"{len(skipped)} files, or rows of a table, were not looked at: {listed}.",
            "If some are pictures of yours, correct their file type or their row.",
            [[path] for path, _ in skipped],
            [why for _, why in skipped],
            n=len(skipped),
        )
    ]


def other_classes(names: Sequence[str], test_names: Sequence[str]) -> list[Bunch]:
    """Report classes that only one of two sets has, spelling aside."""
    known, tested = (
        {without_spelling(name): name for name in each} for each in (names, test_names)
    )
    only = sorted(known[key] for key in known.keys() - tested.keys())
    only_test = sorted(tested[key] for key in tested.keys() - known.keys())
    if not only and not only_test:
        return []
    parts = [
        f"{', '.join(each)} only in the {name} set"
        for each, name in ((only, "first"), (only_test, "second"))
        if each
    ]
    return [
        finding(
            "other classes",
            WARNING,
            f"The sets have other classes: {'; '.join(parts)}.",
            "A class of the first set alone is not tested. A class of the second set alone is "
            "never named, so all its pictures count as wrong. If two names mean one class, rename "
            "the folder, or give `wbcclf evaluate --map NAME=CLASS`.",
            [],
            only_first=only,
            only_second=only_test,
        )
    ]


def small_classes(
    y: np.ndarray, groups: np.ndarray | None = None, unit: str = "cells"
) -> list[Bunch]:
    """Report classes of too few cells to split, or too few pictures to interpolate.

    `unit` is what groups are called.
    """
    listed, figures = [], {}
    unit = "pictures" if groups is None else unit
    for label in np.unique(y):
        rows = y == label
        n_pictures = int(rows.sum())
        n_cells = n_pictures if groups is None else len(np.unique(groups[rows]))
        if n_cells > max(N_NEIGHBOURS, N_FOLDS - 1):
            continue
        cannot = []
        if n_cells == 1:
            cannot.append("cannot be trained on and tested on")
        elif n_cells < N_FOLDS:
            cannot.append(f"is in no more than {n_cells} of {N_FOLDS} folds")
        if n_pictures == 1:
            cannot.append("SMOTE stops with an error")
        else:
            cannot.append(f"SMOTE has fewer than {N_NEIGHBOURS} other {unit} to mix with")
        listed.append(f"{label} ({n_cells}: {', '.join(cannot)})")
        figures[str(label)] = n_cells
    if not listed:
        return []
    return [
        finding(
            "small classes",
            WARNING,
            f"Classes of very few {unit}: {'; '.join(listed)}.",
            "Collect more cells of them, merge them with a related class, or leave them out. No "
            "score of such a class means much.",
            [],
            **{unit: figures},
        )
    ]


def one_class(y: np.ndarray) -> list[Bunch]:
    names = np.unique(y)
    if len(names) > 1:
        return []
    return [
        finding(
            "one class",
            WARNING,
            f"All pictures are of one class, {names[0]}.",
            "Nothing can be learned from one class. Give the folder that holds the class folders.",
            [],
        )
    ]


def file_shortcuts(
    facts: Sequence[dict[str, str]], y: np.ndarray, groups: np.ndarray, paths: Sequence[str]
) -> list[Bunch]:
    """Report what in the files' headers gives a class away."""
    found = []
    for fact in FACTS:
        shown = [each[fact] for each in facts]
        values = bin_sizes(shown) if fact == "picture size" else shown
        if len(set(values)) < 2:
            continue
        is_called = call_by_fact(values, y, groups)
        shortcuts = find_shortcuts(is_called, y, groups)
        if not shortcuts:
            continue
        usual = [_usual(shown, y == shortcut.label) for shortcut in shortcuts[:2]]
        found.append(
            finding(
                "file gives the class away",
                # In pictures that are cut around the cell, the size is the cell's.
                LEAK if shortcuts[0].low >= TOLD and fact != "picture size" else WARNING,
                f"The {fact} alone {_told(shortcuts)}. {' '.join(usual)}",
                "These classes were probably collected or saved in another way. A network learns "
                "that instead of the cell, and fails on other pictures. Get all classes from one "
                "source, or save all pictures alike from the originals; saving them again hides "
                "the cause without removing it." + (CUT if fact == "picture size" else ""),
                _examples(is_called, y, shortcuts[0].label, paths),
                fact=fact,
                classes=[shortcut._asdict() for shortcut in shortcuts],
            )
        )
    return found


def colour_shortcuts(
    colours: np.ndarray, y: np.ndarray, groups: np.ndarray, paths: Sequence[str], where: str
) -> list[Bunch]:
    """Report classes that a mean colour gives away: of the corners, or of the whole picture."""
    is_called = call_by_colour(colours, y, groups)
    shortcuts = [each for each in find_shortcuts(is_called, y, groups) if each.low >= TOLD]
    if not shortcuts:
        return []
    in_corners = where == "corners"
    advice = (
        "The corners do not show the cell, so these pictures come from other slides, stains or "
        "lamps than the rest. A network learns that. Get this class from the same slides as the "
        "others, and test on slides that hold all classes."
        if in_corners
        else "That may be the cell itself (eosinophils are red) or its size in the picture. A "
        "network has to be better than this figure to have learned more than a colour."
    )
    return [
        finding(
            f"colour of the {where} gives the class away",
            WARNING if in_corners else NOTE,
            f"The mean colour of the {where} alone {_told(shortcuts)}.",
            advice,
            _examples(is_called, y, shortcuts[0].label, paths),
            classes=[shortcut._asdict() for shortcut in shortcuts],
        )
    ]


def _told(shortcuts: Sequence[Shortcut]) -> str:
    listed = [
        f"{each.label} (recognised in {each.recall:.0%} of its pictures; {each.specificity:.0%} of "
        f"the others are told apart from it; balanced accuracy {each.score:.2f}, 95% interval "
        f"from {each.low:.2f}, where chance is 0.50)"
        for each in shortcuts
    ]
    return f"tells these classes from all others: {some(listed, N_NAMED, '; ')}"


def _usual(values: Sequence[str], is_class: np.ndarray) -> str:
    array = np.array(values, dtype=object)
    (own, n_own), (other, n_other) = (
        Counter(array[rows].tolist()).most_common(1)[0] for rows in (is_class, ~is_class)
    )
    return (
        f"It is {own} in {n_own} of {is_class.sum()} of them, and most often {other} elsewhere "
        f"({n_other} of {(~is_class).sum()})."
    )


def _examples(
    is_called: np.ndarray, y: np.ndarray, label: str, paths: Sequence[str]
) -> list[list[str]]:
    """Return pairs: a picture that is told to be of a class, and one that is told to be none."""
    called = is_called[:, np.unique(y).tolist().index(label)]
    ones = np.flatnonzero((y == label) & called)[:N_PAIRS]
    others = np.flatnonzero((y != label) & ~called)[:N_PAIRS]
    return [[paths[one], paths[other]] for one, other in zip(ones, others, strict=False)]


def laboratories(
    kinds: Kinds, y: np.ndarray | None, is_test: np.ndarray, paths: Sequence[str], of: str
) -> Bunch:
    """Report that pictures are of two kinds, and how these are spread."""
    n_other, n = int(kinds.is_other.sum()), len(kinds.is_other)
    figures: dict[str, Any] = {"n": n_other, "valley": kinds.valley}
    spread = ""
    follows = False
    if y is not None and len(np.unique(y)) > 1:
        rarer = sum(
            min(kinds.is_other[y == k].sum(), (~kinds.is_other[y == k]).sum()) for k in {*y}
        )
        follows = rarer < SPLIT * n
        shares = {str(k): float(kinds.is_other[y == k].mean()) for k in np.unique(y)}
        figures["share_of_class"] = shares
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        spread = " By class: " + ", ".join(f"{name} {share:.0%}" for name, share in ordered) + "."
    if is_test.any() and not is_test.all():
        first, second = (float(kinds.is_other[rows].mean()) for rows in (~is_test, is_test))
        figures["share_of_set"] = [first, second]
        spread += f" In the first set {first:.0%}, in the second {second:.0%}."
    # From the middle of each kind outwards.
    ones, others = (
        rows[np.abs(kinds.position[rows] - np.median(kinds.position[rows])).argsort()][:N_PAIRS]
        for rows in (np.flatnonzero(kinds.is_other), np.flatnonzero(~kinds.is_other))
    )
    what = (
        f"{n_other} of {n} pictures {of}({n_other / n:.0%}) differ from the others in stain, "
        f"light, sharpness or scale, with hardly any in between.{spread}"
    )
    files = [[paths[one], paths[other]] for one, other in zip(ones, others, strict=False)]
    if follows:
        return finding(
            "classes unlike the others",
            NOTE,
            what,
            "Look at the pairs. That may be the cells: platelets leave most of the picture empty. "
            "If it is light, sharpness or stain, this class comes from another place, and every "
            "score is worthless: get all classes from one.",
            files,
            **figures,
        )
    return finding(
        SEVERAL_LABORATORIES,
        WARNING,
        what,
        "Look at the pairs. If these are two laboratories, slides or cameras: keep each apart in "
        "splits (as a group), look at the score of each, and train with --augment laboratory. If "
        "the kinds go with the classes, a network may learn the kind.",
        files,
        **figures,
    )

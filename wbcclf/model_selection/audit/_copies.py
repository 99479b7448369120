"""What groups of pictures that show the same cell mean for a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils import Bunch

from wbcclf._labels import without_spelling
from wbcclf.model_selection.audit._findings import LEAK, NOTE, TRAINED, WARNING, finding

N_TOLERATED = 0.01  # share of test pictures of a random split whose cell is trained on


class Pair(NamedTuple):
    """Two pictures of a cell.

    Attributes
    ----------
    one, other : int
        Their rows.
    certainty : float
        NaN if only the groups that were given tell.
    agreeing : int
        As `find_image_groups` gives it; 0 for pictures that other pictures link.
    """

    one: int
    other: int
    certainty: float
    agreeing: int


class Copies:
    """Pictures with their groups, sets and labels.

    Parameters
    ----------
    found : Bunch
        What `find_image_groups` returned.
    known : sequence of (str or None)
        Names of groups that were given; None where there is none.
    is_test : ndarray of shape (n_pictures,), bool
    y : sequence of (str or None)
        None where the label is unknown.
    paths : sequence of str
    is_read : ndarray of shape (n_pictures,), bool
    """

    def __init__(
        self,
        found: Bunch,
        known: Sequence[str | None],
        is_test: np.ndarray,
        y: Sequence[str | None],
        paths: Sequence[str],
        is_read: np.ndarray,
    ) -> None:
        self.groups, self.links = merge_groups(found.groups, known), found.links
        self.found = found.groups
        self.short, self.unit, self.option = "cells", "cells (or fields)", "--groups auto"
        if any(name is not None for name in known):
            self.short, self.unit = "groups", "groups (cells, fields, or those that you gave)"
            self.option = "the same --groups"
        self.certainty, self.agreeing = found.certainty, found.agreeing
        self.is_test, self.paths, self.is_read = is_test, paths, is_read
        self.y = y
        spelled = [None if label is None else without_spelling(label) for label in y]
        # Names of two sets are compared where both sets have the class.
        shared = [
            {spelled[row] for row in np.flatnonzero(is_test == side)} for side in (False, True)
        ]
        self.names = spelled
        self.comparable = shared[0] & shared[1]

    def both_sides(self) -> list[Bunch]:
        """Report cells that are in both sets."""

        def is_apart(one: int, other: int) -> bool:
            return self.is_test[one] != self.is_test[other]

        pairs = self._pairs(is_apart, self.groups)
        if not pairs:
            return []
        shared = np.unique(self.groups[[pair.one for pair in pairs]])
        affected = np.isin(self.groups, shared) & self.is_test & self.is_read
        n_test = int((self.is_test & self.is_read).sum())
        n_same = sum(pair.agreeing < 0 for pair in pairs)
        return [
            finding(
                "cells in both sets",
                LEAK,
                f"{len(shared)} {self.unit} are in both sets: {affected.sum()} of {n_test} "
                f"pictures of the second set ({affected.sum() / n_test:.0%}) show one that the "
                f"first set shows, too. {n_same} of the cells are in both as the same file, byte "
                "for byte.",
                "The score on the second set is too high. Take these cells out of one of the two "
                "sets, and evaluate again.",
                self._shown(pairs),
                _notes(pairs),
                n_cells=len(shared),
                n_pictures=int(affected.sum()),
                n_same_file=n_same,
            )
        ]

    def conflicts(self) -> list[Bunch]:
        """Report cells with several labels."""

        def is_conflict(one: int, other: int) -> bool:
            names = self.names[one], self.names[other]
            if None in names or names[0] == names[1]:
                return False
            same_set = self.is_test[one] == self.is_test[other]
            return same_set or self.comparable.issuperset(names)

        # Not of the groups that were given: a patient has cells of many classes.
        pairs = self._pairs(is_conflict, self.found)
        if not pairs:
            return []
        n_same = sum(pair.agreeing < 0 for pair in pairs)
        one, other, *_ = pairs[0]
        surest = f"{self.paths[one]} ({self.y[one]}) = {self.paths[other]} ({self.y[other]})"
        return [
            finding(
                "label conflicts",
                WARNING,
                f"{len(pairs)} cells (or fields) have pictures in several classes, {n_same} of "
                f"them as the same file, byte for byte. The surest: {surest}.",
                "Look at each pair. If it is one cell, one of the labels is wrong: decide, and "
                "remove the other picture. Pairs that are not the same file may be two cells of "
                "one field: then both labels can be right.",
                self._shown(pairs),
                [
                    f"{self.y[pair.one]} and {self.y[pair.other]}: {note}"
                    for pair, note in zip(pairs, _notes(pairs), strict=True)
                ],
                n_cells=len(pairs),
                n_same_file=n_same,
            )
        ]

    def duplicates(self, is_test: bool) -> list[Bunch]:
        """Report cells of which one set has several pictures."""
        rows = self.is_read & (self.is_test == is_test)

        def is_inside(one: int, other: int) -> bool:
            return bool(rows[one] and rows[other])

        pairs = self._pairs(is_inside, self.groups)
        if not pairs:
            return []
        _, where, sizes = np.unique(self.groups[rows], return_inverse=True, return_counts=True)
        leaking = float((1 - (1 - TRAINED) ** (sizes[where] - 1)).mean())
        n, n_copied = int(rows.sum()), int(sizes[sizes > 1].sum())
        n_same = int(np.isin(self.agreeing, -1)[rows[self.links].all(axis=1)].sum())
        name = "second" if is_test else "first"
        if not self.is_test.any():
            name = "whole"
        return [
            finding(
                "several pictures of a cell",
                WARNING if leaking > N_TOLERATED else NOTE,
                f"The {n} pictures of the {name} set show {len(sizes)} {self.unit}: "
                f"{n_copied} share a cell with another; {n_same} are copies to the byte. After a "
                f"random split with {TRAINED:.0%} for training, {leaking:.1%} of the test pictures "
                "would show a cell that was trained on.",
                "Split by cell: `wbcclf split`, or the groups of find_image_groups with "
                f"StratifiedGroupKFold. Give evaluate {self.option}, too, or its interval is too "
                "narrow.",
                self._shown(pairs),
                _notes(pairs),
                n_cells=len(sizes),
                n_same_file=n_same,
                share_of_random_split=leaking,
            )
        ]

    def _pairs(self, is_wanted: Callable[[int, int], bool], groups: np.ndarray) -> list[Pair]:
        """Return the surest pair of every group that has a wanted one: rows, certainty, points."""
        best: dict[int, Pair] = {}
        # Files that are the same first, then the most points.
        order = np.lexsort([-self.agreeing, self.agreeing >= 0])
        for k in order:
            one, other = self.links[k].tolist()
            if is_wanted(one, other):
                pair = Pair(one, other, float(self.certainty[k]), int(self.agreeing[k]))
                best.setdefault(int(groups[one]), pair)
        self._add_indirect(is_wanted, groups, best)
        # Indirect ones, without points of their own, last.
        return sorted(best.values(), key=lambda pair: (pair.agreeing >= 0, -pair.agreeing))

    def _add_indirect(
        self,
        is_wanted: Callable[[int, int], bool],
        groups: np.ndarray,
        best: dict[int, Pair],
    ) -> None:
        """Add groups whose wanted pairs have no link of their own, but one by other pictures."""
        rows = np.flatnonzero(self.is_read)
        members: dict[int, dict[tuple, list[int]]] = {}
        for row in rows.tolist():
            alike = members.setdefault(int(groups[row]), {})
            # Two of each set and class are enough to find a pair of any kind.
            chosen = alike.setdefault((bool(self.is_test[row]), self.names[row]), [])
            if len(chosen) < 2:
                chosen.append(row)
        for group, alike in members.items():
            if group in best:
                continue
            several = [row for chosen in alike.values() for row in chosen]
            pair = next((pair for pair in combinations(several, 2) if is_wanted(*pair)), None)
            if pair is None:
                continue
            certainty = np.nan  # the pictures do not tell, the groups that were given do
            if self.found[pair[0]] == self.found[pair[1]]:
                inside = self.found[self.links[:, 0]] == self.found[pair[0]]
                certainty = self.certainty[inside].min()
            best[group] = Pair(*pair, float(certainty), 0)

    def _shown(self, pairs: list[Pair]) -> list[list[str]]:
        # The first set comes first.
        return [
            [self.paths[row] for row in sorted((one, other), key=lambda row: self.is_test[row])]
            for one, other, *_ in pairs
        ]


def _notes(pairs: list[Pair]) -> list[str]:
    """Return how sure each pair is."""
    return [
        "the same file, byte for byte"
        if pair.agreeing < 0
        else f"{pair.agreeing} points agree, certainty {pair.certainty:.3f}"
        if pair.agreeing
        else f"by way of other pictures, certainty {pair.certainty:.3f}"
        if pair.certainty == pair.certainty
        else "the same group, as you gave it"
        for pair in pairs
    ]


def merge_groups(found: np.ndarray, known: Sequence[str | None]) -> np.ndarray:
    """Return groups (n_pictures,), int, in which all that are one in either are one."""
    named = np.array([name is not None for name in known])
    if not named.any():
        return found
    _, names = np.unique([name for name in known if name is not None], return_inverse=True)
    n_found, n = found.max() + 1, found.max() + 1 + names.max() + 1
    graph = coo_array((np.ones(len(names)), (found[named], n_found + names)), shape=(n, n))
    return np.unique(connected_components(graph, directed=False)[1][found], return_inverse=True)[1]


def class_table(y: np.ndarray, groups: np.ndarray) -> list[Bunch]:
    """Return pictures, cells and effective cells of every class."""
    table = []
    for label in np.unique(y):
        sizes = np.unique(groups[y == label], return_counts=True)[1]
        table.append(
            Bunch(
                label=str(label),
                n_pictures=int(sizes.sum()),
                n_cells=len(sizes),
                effective_cells=effective_cells(sizes),
            )
        )
    return table


def effective_cells(sizes: np.ndarray) -> float:
    """Return how many cells with equally many pictures each are as diverse as cells of these sizes.

    That is the inverse Simpson index (Simpson 1949, https://doi.org/10.1038/163688a0) of the cells'
    shares of the pictures; 0 without pictures.
    """
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def uneven_classes(table: list[Bunch]) -> list[Bunch]:
    """Report classes that count as far fewer cells than they have pictures."""
    few = [row for row in table if row.effective_cells < row.n_pictures / 2]
    if not few:
        return []
    listed = [
        f"{row.label} {row.n_pictures} pictures, {row.n_cells} cells, as diverse as "
        f"{row.effective_cells:.0f}"
        for row in few
    ]
    return [
        finding(
            "effective cells",
            NOTE,
            f"Classes that count as far fewer cells than pictures: {'; '.join(listed)}.",
            "Judge a class by its cells. The last number weighs how unequally the pictures are "
            "spread over them. Intervals by cell (--groups auto) do so, too.",
            [],
            classes=[dict(row) for row in few],
        )
    ]

"""How evenly splits by cell share out classes: train_test_split_cells and scikit-learn's.

Run: WBCCLF_DATA=... python benchmarks/splitting.py

First blood-cells/TRAIN, whose cells have 8 to 310 pictures: over 20 seeds, the lowest and highest
share of the pictures and of the cells of a class that is for the test; 0.2 is asked for. Then
simulated sets of 85 cells of 1 to 40 pictures, in classes of 60, 20, 3 and 2 cells: in how many of
100 a class is on both sides. Of StratifiedGroupKFold(5), the first fold. A minute.
"""

import numpy as np
from image_groups import SAME, blood_cells
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from wbcclf.model_selection import train_test_split_cells

N_CELLS = (60, 20, 3, 2)


def first(splitter, y, groups):
    return next(splitter.split(y, y, groups))[1]


WAYS = {
    "train_test_split_cells": lambda y, groups, seed: train_test_split_cells(
        y, groups, random_state=seed
    )[1],
    "StratifiedGroupKFold(5)": lambda y, groups, seed: first(
        StratifiedGroupKFold(5, shuffle=True, random_state=seed), y, groups
    ),
    "GroupShuffleSplit": lambda y, groups, seed: first(
        GroupShuffleSplit(1, test_size=0.2, random_state=seed), y, groups
    ),
}


def train():
    """Return classes and cells of TRAIN's certain pictures."""
    paths, cells, certain = blood_cells()
    y = np.array([path.split("/")[-2] for path in paths])
    cells = np.array([SAME.get(cell, cell) for cell in cells])
    return y[certain], cells[certain]


def shares(y, groups, test):
    """Return the shares of the pictures and of the groups of each class that are in the test."""
    in_test = np.isin(np.arange(len(y)), test)
    members = [y == label for label in np.unique(y)]
    pictures = [in_test[rows].mean() for rows in members]
    return pictures, [len(set(groups[rows & in_test])) / len(set(groups[rows])) for rows in members]


def simulated(seed):
    random = np.random.RandomState(seed)
    n_cells = sum(N_CELLS)
    groups = np.repeat(np.arange(n_cells), random.randint(1, 41, n_cells))
    return np.repeat(np.arange(len(N_CELLS)), N_CELLS)[groups], groups


def main():
    y, cells = train()
    print(f"TRAIN: {len(y)} pictures of {len(set(cells))} cells; {', '.join(np.unique(y))}\n")
    print("| way | pictures of a class | cells of a class |")
    print("|---|---|---|")
    for name, way in WAYS.items():
        found = np.array([shares(y, cells, way(y, cells, seed)) for seed in range(20)])
        low, high = found.min(axis=0), found.max(axis=0)
        texts = [
            ", ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(low[k], high[k], strict=True))
            for k in (0, 1)
        ]
        print(f"| {name} | {texts[0]} | {texts[1]} |", flush=True)
    print("\n| way | " + " | ".join(f"{n} cells" for n in N_CELLS) + " | all four |")
    print("|---|---|---|---|---|---|")
    for name, way in WAYS.items():
        both = []
        for seed in range(100):
            labels, groups = simulated(seed)
            test = way(labels, groups, seed)
            tested, trained = set(labels[test]), set(np.delete(labels, test))
            both.append([label in tested & trained for label in range(len(N_CELLS))])
        counts = [*np.sum(both, axis=0), np.all(both, axis=1).sum()]
        print(f"| {name} | {' | '.join(map(str, counts))} |", flush=True)


if __name__ == "__main__":
    main()

"""How often two equal models are told apart, and how often the interval holds the difference.

Run: python benchmarks/comparing.py [--sets N]

Simulated test sets of two classes, one in five cells of the rarer. A cell has 1 to so many images.
Whether an image is called rightly depends on the cell (for both models alike, and for each alone)
and on chance, with the shares that the correlation gives. "Told apart" is a p value below 0.05, of
one comparison without correction; where the models are equal it should be 5% at most. "Holds" is
how often the 95% interval holds the true difference. Of 600 sets, 5% has a standard deviation of
0.9 points. "Other tests" are McNemar's with every image as a cell, exact, and that without a test:
the model with the higher score is called better. Two minutes on one core.
"""

import argparse

import numpy as np
from scipy.stats import binomtest, norm

from wbcclf.inspection.evaluation._compare import difference_interval, exact_test, flip_test

SETTINGS = [  # cells, most images of a cell, correlation, mean accuracy, difference
    (30, 1, 0.0, 0.90, 0.00),
    (30, 40, 0.5, 0.90, 0.00),
    (70, 40, 1.0, 0.90, 0.00),
    (70, 40, 0.5, 0.97, 0.00),
    (600, 1, 0.0, 0.95, 0.00),
    (600, 10, 0.5, 0.95, 0.00),
    (70, 10, 0.5, 0.85, 0.05),
    (300, 10, 0.5, 0.90, 0.03),
    (600, 10, 0.5, 0.90, 0.03),
]


def draw(setting, random):
    """Return how much more the first model is right (n,), and the groups and classes of images."""
    n_groups, largest, correlation, accuracy, difference = setting
    groups = np.repeat(np.arange(n_groups), random.integers(1, largest + 1, n_groups))
    classes = (np.arange(n_groups) % 5 == 0)[groups].astype(int)
    common, rights = random.normal(size=n_groups)[groups], []
    for share in (accuracy + difference / 2, accuracy - difference / 2):
        own = random.normal(size=n_groups)[groups]
        of_cell, noise = (common + own) / np.sqrt(2), random.normal(size=len(groups))
        score = np.sqrt(correlation) * of_cell + np.sqrt(1 - correlation) * noise
        rights.append(score < norm.ppf(share))
    return rights[0].astype(int) - rights[1], groups, classes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=600)
    n_sets = parser.parse_args().sets
    print(
        "| cells | images a cell | correlation | accuracy | difference | told apart: accuracy "
        "| macro recall | by image | without a test | holds: accuracy | macro recall |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for setting in SETTINGS:
        counts = np.zeros(6)
        for seed in range(n_sets):
            more, groups, classes = draw(setting, np.random.default_rng(seed))
            even = np.full(len(groups), 1 / len(groups))
            shares = 1 / (2 * np.bincount(classes)[classes])
            better, worse = (more > 0).sum(), (more < 0).sum()
            by_image = binomtest(better, better + worse).pvalue if better + worse else 1
            held = []
            for weights in (even, shares):
                _, (low, high) = difference_interval(
                    np.bincount(groups, weights * more), np.bincount(groups, weights)
                )
                held.append(low <= setting[4] <= high)
            counts += [
                exact_test(np.bincount(groups, more).astype(int)) < 0.05,
                flip_test(np.bincount(groups, shares * more)) < 0.05,
                by_image < 0.05,
                better != worse,
                *held,
            ]
        n_groups, largest, correlation, accuracy, difference = setting
        images = "1" if largest == 1 else f"1 to {largest}"
        figures = " | ".join(f"{100 * count / n_sets:.1f}" for count in counts)
        print(
            f"| {n_groups} | {images} | {correlation} | {accuracy} | {difference} | {figures} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

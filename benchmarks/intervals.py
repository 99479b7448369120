"""How often an interval by group holds the true score, for several ways to make one.

Simulated test sets of four classes, the rarest of 2 groups of 30, 4 of 70 or 20 of 600. A group
has 1 to 40 images. Their errors are independent, correlated (0.3), or all images of a group are
right or wrong. Recall is the same in all classes, or falls from 0.97 in the largest to 0.7 in the
rarest ("mixed"). The table has the per cent of 95% intervals that hold the true score, and their
mean width. Of 400 sets, a share of 95 has a standard deviation of 1.1, of 100 sets 2.2.

The last table is of the scores that `evaluate` has besides: agreement beyond chance, and all that
needs probabilities. There, an image of class k has the values (0, ..., s, ..., 0) and normal noise,
of which a share (the correlation) is the cell's and the rest its own. The probabilities are those
of Bayes's rule, or from logits twice as large ("too sure"). The true scores are those of 300,000
images of as many cells, with the same shares of classes; so is the true calibration error, in the
same bins.

    python benchmarks/intervals.py
    python benchmarks/intervals.py --sets 200 --groups 30
    python benchmarks/intervals.py --sets 200 --only evaluate

Three quarters of an hour on one core.
"""

import argparse
import time

import numpy as np
from scipy.special import softmax
from scipy.stats import norm

from wbcclf.inspection import evaluate_predictions
from wbcclf.model_selection import group_bootstrap
from wbcclf.model_selection.intervals._resamples import Resamples, correlation, pseudo_heights
from wbcclf.model_selection.intervals._scores import SCORES

COUNTS = {30: (16, 8, 4, 2), 70: (47, 13, 6, 4), 600: (420, 120, 40, 20)}
LARGEST = 40  # images of a group
CORRELATIONS = (0.0, 0.3, 1.0)
RECALLS = {"0.70": [0.7] * 4, "0.90": [0.9] * 4, "0.97": [0.97] * 4, "mixed": [0.97, 0.9, 0.8, 0.7]}
SETTINGS = {"2, true": (2, 1), "3, true": (3, 1), "2, too sure": (2, 2)}  # s, factor of logits
POPULATION = 300_000
# Of classes: those of the rarest one.
EVALUATED = (
    *("MCC", "kappa", "log loss", "specificity", "ROC AUC", "average precision"),
    "calibration error",
)
NAMES = ("accuracy", "balanced_accuracy", "macro_f1")
N_RESAMPLES = 1000
IS_TRUE = np.ones(4, dtype=bool)


def draw(counts, recalls, rho, random):
    """Return the confusion matrix of each group, and its class."""
    classes = np.repeat(np.arange(4), counts)
    n_images = random.integers(1, LARGEST + 1, len(classes))
    shares = np.array(recalls)[classes]
    if rho == 1:
        shares = (random.random(len(classes)) < shares).astype(float)
    elif rho:
        strength = (1 - rho) / rho
        shares = random.beta(shares * strength, (1 - shares) * strength)
    right = random.binomial(n_images, shares)
    matrices = np.zeros((len(classes), 4, 4), dtype=int)
    for group, label in enumerate(classes):
        n_wrong = n_images[group] - right[group]
        others = np.delete(np.arange(4), label)
        targets = random.dirichlet(np.full(3, (1 - rho) / max(rho, 1e-3) + 1e-3))
        matrices[group, label, others] = random.multinomial(n_wrong, targets)
        matrices[group, label, label] = right[group]
    return matrices, classes


def truth(counts, recalls):
    confusion = np.array(counts)[:, None] * (1 - np.array(recalls)[:, None]) / 3 * np.ones((4, 4))
    np.fill_diagonal(confusion, np.multiply(counts, recalls))
    return scores(confusion)


def scores(confusions):
    """Return the scores NAMES of confusion matrices, in the last axis."""
    return np.stack([SCORES[name](confusions, IS_TRUE) for name in NAMES], axis=-1)


def plain_weights(counts, random):
    """Return how often each group is drawn, within its class."""
    weights = [random.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) for n in counts]
    return np.concatenate(weights, axis=1)


def resample(weights, matrices):
    flat = matrices.reshape(len(matrices), -1)
    return scores((weights @ flat).reshape(-1, 4, 4))


def plain(matrices, classes, random):
    """Percentiles, and bias-corrected and accelerated (Efron 1987) by the jackknife over groups."""
    drawn = resample(plain_weights(np.bincount(classes), random), matrices)
    value = scores(matrices.sum(axis=0))
    below = (drawn < value).mean(axis=0) + (drawn == value).mean(axis=0) / 2
    shift = norm.ppf(np.clip(below, 1 / N_RESAMPLES, 1 - 1 / N_RESAMPLES))
    left_out = scores(matrices.sum(axis=0) - matrices)
    away = left_out.mean(axis=0) - left_out
    cubes, squares = (away**3).sum(axis=0), (away**2).sum(axis=0)
    speed = cubes / np.maximum(6 * squares**1.5, 1e-12)
    limits = []
    for z in norm.ppf([0.025, 0.975]):
        levels = norm.cdf(shift + (shift + z) / (1 - speed * (shift + z)))
        limits.append([np.quantile(drawn[:, k], levels[k]) for k in range(len(NAMES))])
    return {"percentile": np.quantile(drawn, [0.025, 0.975], axis=0), "BCa": np.array(limits)}


def dirichlet(matrices, classes, random):
    """Bayesian bootstrap (Rubin 1981) with a pseudo-group, half right, of each class."""
    counts = np.bincount(classes)
    heights = pseudo_heights(matrices, np.ones(len(matrices)))
    masses = np.full((4, 4), 0.5 / 3)
    np.fill_diagonal(masses, 0.5)
    flat = matrices.reshape(len(matrices), -1)
    real = random.standard_gamma(1, (N_RESAMPLES, len(matrices)))
    pseudo = random.standard_gamma(masses, (N_RESAMPLES, 4, 4))
    confusions = (real @ flat).reshape(-1, 4, 4) + pseudo * heights[:, None]
    of_class = np.stack([real[:, classes == k].sum(axis=1) for k in range(4)], axis=1)
    confusions *= (counts / (of_class + pseudo.sum(axis=2)))[:, :, None]
    limits = np.quantile(scores(confusions), [0.025, 0.975], axis=0)
    return {"Dirichlet, pseudo-groups": limits}


def effective_wilson(matrices, classes, random):
    """Wilson's for the accuracy alone, with the design effect of Kish as sample size."""
    n_images = matrices.sum(axis=(1, 2))
    right = np.einsum("gkk->gk", matrices)
    rho = correlation(matrices.sum(axis=2), right)
    effect = (n_images * (1 + (n_images - 1) * rho)).sum() / n_images.sum()
    value, z2 = right.sum() / n_images.sum(), norm.isf(0.025) ** 2 * effect / n_images.sum()
    half = np.sqrt(z2 * value * (1 - value) + (z2 / 2) ** 2)
    limits = (value + z2 / 2 + np.array([-half, half])) / (1 + z2)
    limits = np.stack([limits, [np.nan] * 2, [np.nan] * 2], axis=1)
    return {"Wilson, effective size": limits}


def ours(matrices, classes, random):
    """Return the interval that was chosen, and the percentiles of the same resamples."""
    resamples = Resamples(matrices, N_RESAMPLES, int(random.integers(2**31)))
    return {
        "group_bootstrap": np.transpose([resamples.interval(name, 0.95) for name in NAMES]),
        "percentile, pseudo-groups": np.quantile(scores(resamples.drawn), [0.025, 0.975], axis=0),
    }


WAYS = (ours, plain, dirichlet, effective_wilson)


def simulate(n_groups, n_sets):
    """Print a row for each setting and way, and return the coverages of each way."""
    counts, coverages = COUNTS[n_groups], {}
    for rho in CORRELATIONS:
        for label, recalls in RECALLS.items():
            expected = truth(counts, recalls)
            limits = {}
            random = np.random.default_rng(0)
            for _ in range(n_sets):
                matrices, classes = draw(counts, recalls, rho, random)
                for way in WAYS:
                    for name, each in way(matrices, classes, random).items():
                        limits.setdefault(name, []).append(each)
            for name, of_sets in limits.items():
                low, high = np.moveaxis(np.array(of_sets), 1, 0)
                hold = (low <= expected + 1e-9) & (expected <= high + 1e-9)
                coverage, width = 100 * hold.mean(axis=0), (high - low).mean(axis=0)
                zero = 100 * (high - low == 0).mean(axis=0)[0]
                cells = [
                    "-" if np.isnan(w) else f"{c:.1f} ({w:.3f})"
                    for c, w in zip(coverage, width, strict=True)
                ]
                print(
                    f"| {n_groups} | {rho:.1f} | {label} | {name} | {' | '.join(cells)} | "
                    f"{zero:.0f} |",
                    flush=True,
                )
                coverages.setdefault(name, []).append(np.where(np.isnan(width), np.nan, coverage))


def summary(coverages):
    if np.isnan(coverages).any():
        return "-"
    within = np.count_nonzero((coverages >= 93) & (coverages <= 97))
    return (
        f"{coverages.mean():.1f} ({coverages.min():.1f} to {coverages.max():.1f}), "
        f"{within} of {len(coverages)}"
    )


def evaluate(counts, n_images, rho, setting, random):
    """Return the evaluation of simulated probabilities; `n_images` of each group."""
    strength, factor = SETTINGS[setting]
    classes = np.repeat(np.arange(4), counts)
    groups = np.repeat(np.arange(len(classes)), n_images)
    y_true = classes[groups]
    noise = np.sqrt(1 - rho) * random.standard_normal((len(groups), 4))
    noise += (np.sqrt(rho) * random.standard_normal((len(classes), 4)))[groups]
    logits = strength * (strength * np.eye(4)[y_true] + noise) + np.log(counts)
    shares = softmax(factor * logits, axis=1)
    is_grouped = len(groups) > len(classes)
    return evaluate_predictions(
        y_true, shares.argmax(axis=1), groups if is_grouped else None, probabilities=shares
    )


def figures(result):
    """Return the scores of the last table, each with its limits (n_scores, 3)."""
    of_class = ("specificity", "roc_auc", "average_precision")
    rows = [(result[name], *result[f"{name}_interval"]) for name in ("mcc", "kappa", "log_loss")]
    rows += [(result[name][3], *result[f"{name}_interval"][3]) for name in of_class]
    return np.array([*rows, (result.calibration.error, *result.calibration.error_interval)])


def simulate_evaluation(n_groups, n_sets):
    """Print the coverage of the scores that `figures` returns."""
    counts = np.array(COUNTS[n_groups])
    for setting in SETTINGS:
        n_population = counts * POPULATION // n_groups
        population = evaluate(n_population, 1, 0, setting, np.random.default_rng(1))
        expected = figures(population)[:, 0]
        for rho in CORRELATIONS:
            random = np.random.default_rng(0)
            sets = [
                evaluate(counts, random.integers(1, LARGEST + 1, n_groups), rho, setting, random)
                for _ in range(n_sets)
            ]
            low, high = np.array([figures(each)[:, 1:] for each in sets]).T
            hold = ((low.T <= expected) & (expected <= high.T)).mean(axis=0)
            cells = [
                f"{100 * c:.1f} ({w:.3f})"
                for c, w in zip(hold, (high - low).mean(axis=1), strict=True)
            ]
            print(f"| {n_groups} | {rho:.1f} | {setting} | {' | '.join(cells)} |", flush=True)


def speed():
    print("\ngroup_bootstrap, 1,000 resamples of 3,000 images, best of 5\n\n| | ms |\n|---|---|")
    random = np.random.default_rng(0)
    for n_classes, n_groups in ((4, 70), (8, 70), (8, 600), (8, 1500), (8, 3000)):
        groups = np.arange(3000) % n_groups
        y_true = groups % n_classes
        y_pred = np.where(random.random(3000) < 0.9, y_true, random.integers(0, n_classes, 3000))
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            group_bootstrap("macro_f1", y_true, y_pred, groups)
            seconds.append(time.perf_counter() - start)
        print(f"| {n_groups} groups, {n_classes} classes | {1000 * min(seconds):.0f} |", flush=True)
    print("\nevaluate_predictions with probabilities of 8 classes, best of 3\n\n| | s |\n|---|---|")
    for n_images, n_groups in ((1365, 1365), (10_000, 10_000), (10_000, 500), (100_000, 100_000)):
        groups = np.arange(n_images) % n_groups
        shares = softmax(3 * np.eye(8)[groups % 8] + random.standard_normal((n_images, 8)), axis=1)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            evaluate_predictions(
                groups % 8,
                shares.argmax(axis=1),
                groups,
                probabilities=shares,
                classes=np.arange(8),
            )
            seconds.append(time.perf_counter() - start)
        print(f"| {n_images} images of {n_groups} cells | {min(seconds):.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=400, help="simulated test sets a setting")
    parser.add_argument("--groups", type=int, nargs="+", default=list(COUNTS), choices=COUNTS)
    parser.add_argument("--only", choices=["labels", "evaluate"], help="one of the two tables")
    arguments = parser.parse_args()
    # A set of 600 groups takes several times as long.
    n_sets = {n: arguments.sets if n < 600 else arguments.sets // 4 for n in arguments.groups}
    if arguments.only != "evaluate":
        tell_of_labels(n_sets)
    if arguments.only != "labels":
        print(f"\n| groups | correlation | s | {' | '.join(EVALUATED)} |")
        print(f"|{'---|' * (3 + len(EVALUATED))}")
        for n_groups in arguments.groups:
            simulate_evaluation(n_groups, n_sets[n_groups])


def tell_of_labels(n_sets):
    speed()
    print(
        "\n| groups | correlation | recall | way | accuracy | macro recall | macro-F1 | no width |"
    )
    print("|---|---|---|---|---|---|---|---|")
    coverages = {n_groups: simulate(n_groups, n) for n_groups, n in n_sets.items()}
    print(
        "\nOver all settings: coverage, mean (lowest to highest), and how many are within 93-97\n"
    )
    print(f"| groups | way | {' | '.join(NAMES)} |\n|---|---|---|---|---|")
    for n_groups, of_ways in coverages.items():
        for name, of_way in of_ways.items():
            print(f"| {n_groups} | {name} | {' | '.join(map(summary, np.transpose(of_way)))} |")


if __name__ == "__main__":
    main()

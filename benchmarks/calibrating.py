"""What `calibrate=True` does for a network that has learnt its training images by heart.

Run: WBCCLF_DATA=... python benchmarks/calibrating.py [SEED ...]

PBC, eight classes, whole pictures of 48 pixels, byte-identical ones counted once. `simple_cnn`
learns 1,200 of them for 20 epochs without augmentation, 300 others are validated on, and 3,000
others scored. A row of the table is one training: log loss, and the expected calibration error in
ten bins (Guo et al. 2017), before and after. scikit-learn's temperature is fitted to the same 300
images.

The second table: temperatures of so few of the 3,000 images, 200 times, and the log loss of the
others; of the network as it was trained, and after it was calibrated, when nothing is to gain.
"""

import sys

import numpy as np
from _data import DATA, unique_images
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from wbcclf import ImageLoader, SimpleCNNClassifier, list_image_folder
from wbcclf.classifiers.training._calibrating import fit_temperature

SIZE, TRAINED, VALIDATED, SCORED = 48, 1200, 300, 3000


def calibration_error(y, probabilities, classes):
    confidence = probabilities.max(axis=1)
    right = classes[probabilities.argmax(axis=1)] == y
    bins = np.minimum((10 * confidence).astype(int), 9)
    gaps = [abs((right - confidence)[bins == k].sum()) for k in range(10)]
    return sum(gaps) / len(y)


def few(probabilities, target, n_images, random):
    """Return by how much the log loss of other images changes: the mean, and how often it grows."""
    logits, changes = np.log(probabilities), []
    for _ in range(200):
        rows = random.permutation(len(target))
        some, others = rows[:n_images], rows[n_images:]
        scaled = softmax(logits[others] / fit_temperature(logits[None, some], target[some]), axis=1)
        of_true = (p[range(len(others)), target[others]] for p in (scaled, probabilities[others]))
        after, before = (-np.log(p).mean() for p in of_true)
        changes.append(after - before)
    return f"{np.mean(changes):+.3f} ({np.mean(np.array(changes) > 0):.0%})"


def main(seeds):
    of_few = []
    listing = list_image_folder(DATA / "pbc" / "train")
    images = ImageLoader(SIZE).transform(listing.paths)
    unique = unique_images(images, listing.target)
    print("| seed | accuracy | temperature | log loss | calibration error |\n|---|---|---|---|---|")
    for seed in seeds:
        drawn = np.random.RandomState(seed).permutation(unique)[: TRAINED + VALIDATED + SCORED]
        train, valid, test = np.split(drawn, [TRAINED, TRAINED + VALIDATED])
        y = listing.target
        usual = {"max_epochs": 20, "device": "cpu", "random_state": seed}
        given = images[train], y[train], None, images[valid], y[valid]
        plain = SimpleCNNClassifier(**usual).fit(*given)
        ours = SimpleCNNClassifier(**usual, calibrate=True).fit(*given)
        theirs = CalibratedClassifierCV(FrozenEstimator(plain), method="temperature")
        theirs.fit(images[valid], y[valid])
        beta = theirs.calibrated_classifiers_[0].calibrators[0].beta_
        for name, clf, temperature in (
            ("as trained", plain, 1),
            ("calibrate=True", ours, ours.temperature_),
            ("scikit-learn", theirs, 1 / beta),
        ):
            p = clf.predict_proba(images[test])
            accuracy = np.mean(clf.classes_[p.argmax(axis=1)] == y[test])
            print(
                f"| {seed}, {name} | {accuracy:.3f} | {temperature:.3f} | "
                f"{log_loss(y[test], p):.3f} | {calibration_error(y[test], p, clf.classes_):.3f} |",
                flush=True,
            )
        target, random = np.searchsorted(plain.classes_, y[test]), np.random.default_rng(seed)
        given = [clf.predict_proba(images[test]) for clf in (plain, ours)]
        for n_images in (20, 50, 100, 300):
            columns = " | ".join(few(p, target, n_images, random) for p in given)
            of_few.append(f"| {seed} | {n_images} | {columns} |")
    print("\n| seed | images | change of log loss (grows), as trained | once calibrated |")
    print("|---|---|---|---|", *of_few, sep="\n")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])

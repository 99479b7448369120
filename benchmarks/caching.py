"""What a fit and a search cost with the frozen blocks computed once, and in every epoch.

Run: WBCCLF_DATA=... python benchmarks/caching.py

SqueezeNet with the shared weights, the last block trained, on images of blood-cells TRAIN at 64x64,
float32, over the number of images, of epochs, and of candidates (rates, in 3 folds).
"""

import os
import tempfile
import time
import warnings

from _data import SQUEEZENET, blood_cells
from sklearn.model_selection import GridSearchCV

from wbcclf import CNNClassifier


def classifier(**params):
    return CNNClassifier(
        "squeezenet1_1",
        weights=SQUEEZENET,
        unfrozen_layers=1,
        lr=1e-3,
        device="cpu",
        random_state=0,
        **params,
    )


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def curve(what, numbers, run):
    """Print a row for each number: seconds without and with the cache, and their ratio."""
    print(f"\n| {what} | in every epoch, s | once, s | faster by |")
    print("|---|---|---|---|")
    for number in numbers:
        without, once = seconds(run, number, False), seconds(run, number, True)
        print(f"| {number} | {without:.2f} | {once:.2f} | {without / once:.1f} |", flush=True)


def main():
    warnings.filterwarnings("ignore", message=".*frozen at random weights")
    images, target = blood_cells(2000, 64)
    classifier(max_epochs=1).fit(images[:64], target[:64])  # to warm up

    def fit(n_images, epochs, cached):
        clf = classifier(max_epochs=epochs, cache_gb=2.0 if cached else 0.0)
        clf.fit(images[:n_images], target[:n_images])

    def search(n_candidates, cached):
        with tempfile.TemporaryDirectory() as folder:
            clf = classifier(max_epochs=10, cache_gb=2.0 if cached else 0.0, memory=folder)
            grid = {"lr": [10 ** -(2 + number / 8) for number in range(n_candidates)]}
            GridSearchCV(clf, grid, cv=3).fit(images[:300], target[:300])

    print(f"\n{os.cpu_count()} CPU cores")
    sizes = (250, 500, 1000, 2000)
    curve("images, 10 epochs", sizes, lambda number, cached: fit(number, 10, cached))
    epochs = (1, 3, 10, 30)
    curve("epochs, 500 images", epochs, lambda number, cached: fit(500, number, cached))
    curve("candidates, 300 images, 3 folds, 10 epochs, `memory=`", (1, 3, 9), search)


if __name__ == "__main__":
    main()

"""A search over unfrozen_layers and lr beside the same search with plain skorch.

Run: WBCCLF_DATA=... python benchmarks/search.py NETWORK [N_IMAGES] [INPUT_SIZE]

NETWORK is resnet18, vgg16 (both at random weights, as no others are available) or squeezenet1_1
(with the shared weights). GridSearchCV over unfrozen_layers=[0, 1, 2] and three rates, 3 folds, 10
epochs, batches of 32, on images of blood-cells TRAIN.

Plain skorch gets the same network, frozen in the same way, the same order of images and the same
seed, so that both should find the same: what is left is its per-image data loader, and that it runs
the frozen blocks for every image, epoch, fold and candidate. It goes first, before ours changes how
the C library keeps memory.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path
from shutil import rmtree

import numpy as np
import torch
from _data import SQUEEZENET, blood_cells
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier

from wbcclf import CNNClassifier, Head
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._building import build_network, freeze_blocks
from wbcclf.classifiers.network._device import seeded
from wbcclf.classifiers.options._settings import Settings

EPOCHS, BATCH = 10, 32


class Order(torch.utils.data.Sampler):
    """The order in which our training takes the images."""

    def __init__(self, data_source, random_state):
        self.n_samples = len(data_source)
        self.random_state = random_state

    def __len__(self):
        return self.n_samples

    def __iter__(self):
        return iter(self.random_state.permutation(self.n_samples).tolist())


class PlainSkorch(ClassifierMixin, BaseEstimator):
    """skorch.NeuralNetClassifier around the network that CNNClassifier would build."""

    def __init__(self, ours, unfrozen_layers=0, lr=1e-3):
        self.ours = ours
        self.unfrozen_layers = unfrozen_layers
        self.lr = lr

    def fit(self, X, y):
        """Train with skorch's own data set, loader and loop."""
        ours = CNNClassifier(**self.ours).set_params(unfrozen_layers=self.unfrozen_layers)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        settings, domain = Settings.of(ours), Domain(self.classes_, X.shape[1:], (0, 255))
        random_state = np.random.RandomState(ours.random_state)
        seed = random_state.randint(np.iinfo(np.int32).max)
        network, _ = build_network(settings, domain, settings.weights, seed)
        freeze_blocks(settings, network)
        train_seed = random_state.randint(np.iinfo(np.int32).max)
        self.net_ = NeuralNetClassifier(
            network,
            criterion=torch.nn.CrossEntropyLoss,
            optimizer=torch.optim.AdamW,
            optimizer__weight_decay=0.0,
            optimizer__fused=True,  # as ours has it; else sums are rounded in another way
            lr=self.lr,
            max_epochs=EPOCHS,
            batch_size=BATCH,
            train_split=None,
            iterator_train__sampler=Order(X, random_state),
            verbose=0,
        )
        with seeded(train_seed):
            self.net_.fit(X, numbers)
        return self

    def predict_proba(self, X):
        """Return probabilities."""
        return self.net_.predict_proba(X)

    def predict(self, X):
        """Return labels."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def main(name, n_images=300, size=128):
    warnings.filterwarnings("ignore", message=".*frozen at random weights")
    images, target = blood_cells(n_images, size)
    params = {
        "backbone": name,
        "weights": SQUEEZENET if name == "squeezenet1_1" else None,
        "head": Head(dropout=0.0),  # the data loader takes random numbers of the same generator
        "max_epochs": EPOCHS,
        "batch_size": BATCH,
        "lr_schedule": "constant",
        "device": "cpu",
        "random_state": 0,
    }
    grid = {"unfrozen_layers": [0, 1, 2], "lr": [1e-4, 3e-4, 1e-3]}

    def search(estimator):
        start = time.perf_counter()
        cv = StratifiedKFold(3, shuffle=True, random_state=0)
        found = GridSearchCV(estimator, grid, cv=cv).fit(images, target)
        seconds = time.perf_counter() - start
        return seconds, found.best_params_, found.predict_proba(images), found.cv_results_

    print(f"\n{name}, {n_images} images of blood-cells TRAIN at {size}x{size}, seed 0\n")
    print("| | seconds | faster than plain skorch by | best parameters | predictions | scores |")
    print("|---|---|---|---|---|---|")
    plain = None

    def row(title, estimator):
        nonlocal plain
        found = search(estimator)
        plain = plain or found
        off = np.abs(found[2] - plain[2]).max()
        same = (found[2].argmax(axis=1) == plain[2].argmax(axis=1)).mean()
        scores = np.abs(found[3]["mean_test_score"] - plain[3]["mean_test_score"]).max()
        best = ", ".join(f"{key}={value}" for key, value in found[1].items())
        print(
            f"| {title} | {found[0]:.1f} | {plain[0] / found[0]:.1f} | {best} | {same:.1%} the "
            f"same, probabilities within {off:.1e} | within {scores:.1e} |",
            flush=True,
        )

    row("plain skorch, float32", PlainSkorch(params))
    ours = CNNClassifier(**params)
    with tempfile.TemporaryDirectory() as folder:
        ours.set_params(memory=folder)
        row("wbcclf, memory=, first run", ours)
        row("wbcclf, memory=, second run", ours)
        rmtree(Path(folder, "wbcclf", "fits"))
        row("wbcclf, memory=, without the kept trainings", ours)
        row('wbcclf, memory=, precision="auto"', clone(ours).set_params(precision="auto"))
    row("wbcclf, within each fit alone", ours.set_params(memory=None))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))

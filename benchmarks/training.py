"""The training loop on small images beside a hand-written one and plain skorch; and its memory.

Run: WBCCLF_DATA=... python benchmarks/training.py

4,000 images of blood-cells TRAIN at 64x64, batches of 64, a network of two convolutions (8 and 16
filters), AdamW, 3 epochs a round, float32. All three train the same network, on the bytes as they
are, each in a fresh process, since ours changes how the C library keeps memory; the time is that of
the fastest epoch.
"""

import statistics
import time
from multiprocessing import get_context

import numpy as np
import torch
from _compare import peaks
from _data import blood_cells
from skorch import NeuralNetClassifier

from wbcclf import CNNClassifier, ConvNet, Head
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._building import build_network
from wbcclf.classifiers.options._settings import Settings

EPOCHS, BATCH, ROUNDS = 3, 64, 5


def classifier(epochs=EPOCHS):
    return CNNClassifier(
        ConvNet(filters=(8, 16)),
        max_epochs=epochs,
        batch_size=BATCH,
        head=Head(dropout=0.0),
        lr_schedule="constant",
        device="cpu",
        random_state=0,
    )


def network_of(X, y):
    """Return the network that the classifier would train."""
    domain = Domain(np.unique(y), X.shape[1:], (0, 255))
    return build_network(Settings.of(classifier()), domain, None, 0)[0]


def ours(X, y):
    return min(epoch["dur"] for epoch in classifier().fit(X, y).history_)


def by_hand(X, y):
    network = network_of(X, y).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    seconds = []
    for _ in range(EPOCHS):
        start = time.perf_counter()
        total = 0.0
        for rows in torch.randperm(len(X)).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(X[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def plain_skorch(X, y):
    net = NeuralNetClassifier(
        network_of(X, y),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=0.0,
        lr=1e-3,
        max_epochs=EPOCHS,
        batch_size=BATCH,
        train_split=None,
        iterator_train__shuffle=True,
        verbose=0,
    )
    net.fit(X, y)
    return min(epoch["dur"] for epoch in net.history)


def fresh(function, *args):
    """Run a function in a process of its own, and return what it does."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def main():
    images, labels = blood_cells(4000, 64)
    target = np.unique(labels, return_inverse=True)[1]
    many, more = np.concatenate([images] * 16), np.tile(target, 16)
    found = peaks(
        {
            "few": lambda: classifier(epochs=1).fit(many[:64], more[:64]),
            "all": lambda: classifier(epochs=1).fit(many, more),
        }
    )
    few, most = found["few"][0], found["all"][0]
    n_mb = many.nbytes / 1e6
    print(
        f"\nA process with {n_mb:,.0f} MB of images ({len(many):,}): its peak is {few:,.0f} MB "
        f"with a fit of 64 of them, {most:,.0f} MB with a fit of all: "
        f"{1 + (most - few) / n_mb:.2f} times the images.\n"
    )

    contestants = {"by hand": by_hand, "plain skorch": plain_skorch, "wbcclf": ours}
    seconds = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, function in contestants.items():
            seconds[name].append(fresh(function, images, target))
    print(
        f"\n| {ROUNDS} rounds in turn | images/s (median) | epoch takes, times by hand's (range) |"
    )
    print("|---|---|---|")
    for name, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["by hand"], strict=True)]
        print(
            f"| {name} | {len(images) / statistics.median(values):,.0f} | "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


if __name__ == "__main__":
    main()

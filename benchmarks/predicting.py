"""Prediction beside the raw forward pass, and float32 beside precision="auto"; accuracy of both.

Run: WBCCLF_DATA=... python benchmarks/predicting.py

Images of blood-cells TRAIN, batches of 32. "Raw" is the network itself on float tensors that are
ready, normalised and in channels-last layout, under torch.inference_mode. Then the accuracy of
SqueezeNet (shared weights, all blocks trained for 10 epochs on 1,000) on 1,000 other pictures.
"""

import os
import statistics
import time
import warnings

import numpy as np
import torch
from _data import SQUEEZENET, blood_cells

from wbcclf import CNNClassifier
from wbcclf.classifiers.network._device import arithmetic

NETWORKS = [
    ("simple_cnn", 64, 2048),
    ("squeezenet1_1", 64, 2048),
    ("resnet18", 224, 64),
    ("vgg16", 224, 32),
    ("resnet50", 224, 32),
    ("mobilenet_v3_small", 96, 512),
]


def fitted(name, size, images, target, precision):
    clf = CNNClassifier(
        name,
        weights=None,
        input_size=size,
        max_epochs=1,
        device="cpu",
        precision=precision,
        random_state=0,
    )
    return clf.fit(images[:32], target[:32])


def times(functions, rounds=5):
    """Return {name: seconds of every round}, in turn, after one round to warm up."""
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def speed():
    print(f"\n{os.cpu_count()} CPU cores, batches of 32; medians of 5 rounds in turn (range)\n")
    print("| network | images/s, float32 | of the raw pass | images/s, auto | auto over float32 |")
    print("|---|---|---|---|---|")
    for name, size, n_images in NETWORKS:
        images, target = blood_cells(n_images, size)
        plain, fast = (
            fitted(name, size, images, target, precision) for precision in ("float32", "auto")
        )
        network = plain.net_.module_.eval()
        with torch.inference_mode():
            ready = network.preprocessing(torch.from_numpy(images))

        def raw(network=network, ready=ready):
            with torch.inference_mode(), arithmetic("cpu", "float32"):
                for batch in ready.split(32):
                    network.head(network.backbone(batch))

        found = times(
            {
                "raw": raw,
                "plain": lambda plain=plain, images=images: plain.predict_proba(images),
                "fast": lambda fast=fast, images=images: fast.predict_proba(images),
            }
        )
        share = [a / b for a, b in zip(found["raw"], found["plain"], strict=True)]
        gain = [a / b for a, b in zip(found["plain"], found["fast"], strict=True)]
        rate = {key: n_images / statistics.median(values) for key, values in found.items()}
        print(
            f"| {name}, {size}x{size} | {rate['plain']:,.1f} | {statistics.median(share):.2f} "
            f"({min(share):.2f} to {max(share):.2f}) | {rate['fast']:,.1f} ({fast.net_.precision}) "
            f"| {statistics.median(gain):.2f} ({min(gain):.2f} to {max(gain):.2f}) |",
            flush=True,
        )


def accuracy():
    images, target = blood_cells(2000, 64)
    print("\n| seed | accuracy, float32 | accuracy, auto | same label |")
    print("|---|---|---|---|")
    for seed in range(5):
        order = np.random.RandomState(seed).permutation(len(images))
        train, test = order[:1000], order[1000:]
        labels = [
            CNNClassifier(
                "squeezenet1_1",
                weights=SQUEEZENET,
                lr=1e-3,
                max_epochs=10,
                device="cpu",
                precision=precision,
                random_state=seed,
            )
            .fit(images[train], target[train])
            .predict(images[test])
            for precision in ("float32", "auto")
        ]
        right = [(found == target[test]).mean() for found in labels]
        same = (labels[0] == labels[1]).mean()
        print(f"| {seed} | {right[0]:.3f} | {right[1]:.3f} | {same:.3f} |", flush=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*frozen at random weights")
    speed()
    accuracy()

"""Training and prediction on a GPU beside hand-written loops, and the share of the device's peak.

Run: WBCCLF_DATA=... python benchmarks/gpu.py [DEVICE] [N_IMAGES] [SIZE]

Images of blood-cells TRAIN (2,048 at 224x224), batches of 64, bfloat16, all blocks trained, 3
epochs; the time is that of the fastest epoch. By hand, the bytes lie on the device, kernels and
images channels last, with the fused AdamW. The peak is what a matrix product of 8192 x 8192 in
bfloat16 reached in the same run; the arithmetic is counted by torch.utils.flop_counter.
"""

import sys
import time

import numpy as np
import torch
from _data import blood_cells
from torch.utils.flop_counter import FlopCounterMode

from wbcclf import Augmenter, CNNClassifier
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._building import build_network
from wbcclf.classifiers.network._device import arithmetic
from wbcclf.classifiers.options._settings import Settings

NETWORKS = ["resnet18", "resnet50", "vgg16"]
EPOCHS, BATCH = 3, 64


def classifier(backbone, device, **params):
    return CNNClassifier(
        backbone,
        max_epochs=EPOCHS,
        batch_size=BATCH,
        weights=None,
        lr=1e-3,
        lr_schedule="constant",
        precision="bfloat16",
        device=device,
        random_state=0,
        **params,
    )


def network_of(backbone, device, X, y):
    """Return the network that the classifier would train."""
    domain = Domain(np.unique(y), X.shape[1:], (0, 255))
    return build_network(Settings.of(classifier(backbone, device)), domain, None, 0)[0]


def wait(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(function, device):
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def peak(device, side=8192):
    """Return the operations per second of a large matrix product."""
    side = side if torch.device(device).type == "cuda" else 1024
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / min(seconds_of(lambda: a @ a, device) for _ in range(20))


def by_hand(network, X, y, device):
    """Return the seconds of the fastest epoch, and of a pass over all images to predict them."""
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    X, y = torch.from_numpy(X).to(device), torch.from_numpy(y).to(device)

    def epoch():
        for rows in torch.randperm(len(X), device=device).split(BATCH):
            optimizer.zero_grad()
            with arithmetic(device, "bfloat16"):
                logits = network(X[rows])
            torch.nn.functional.cross_entropy(logits, y[rows]).backward()
            optimizer.step()

    def predict():
        with torch.inference_mode(), arithmetic(device, "bfloat16"):
            torch.cat([network(batch) for batch in X.split(BATCH)]).cpu()

    trained = min(seconds_of(epoch, device) for _ in range(EPOCHS))
    network.eval()
    return trained, min(seconds_of(predict, device) for _ in range(EPOCHS))


def operations(network, X, device):
    """Return the operations of an image in training and in prediction."""
    network, batch = network.to(device).train(), torch.from_numpy(X[:2]).to(device)
    with FlopCounterMode(display=False) as training:
        network(batch).sum().backward()
    with FlopCounterMode(display=False) as prediction, torch.inference_mode():
        network.eval()(batch)
    return training.get_total_flops() / 2, prediction.get_total_flops() / 2


def main(device="cuda", n_images=2048, size=224):
    images, labels = blood_cells(n_images, size)
    target = np.unique(labels, return_inverse=True)[1]
    top = peak(device)
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    print(f"\n{name}, torch {torch.__version__}: {top / 1e12:.1f} TFLOP/s in a matrix product\n")
    print(f"| {n_images} images at {size}x{size} | images/s | of by hand | of the peak |")
    print("|---|---|---|---|")

    for backbone in NETWORKS:
        costs = operations(network_of(backbone, device, images, target), images, device)
        hand = by_hand(network_of(backbone, device, images, target), images, target, device)

        def row(title, seconds, which, backbone=backbone, costs=costs, hand=hand):
            rate = n_images / seconds
            print(
                f"| {backbone}, {title} | {rate:,.0f} | {hand[which] / seconds:.2f} | "
                f"{rate * costs[which] / top:.1%} |",
                flush=True,
            )

        row("training by hand", hand[0], 0)
        for title, params in {
            "training": {},
            "training with Augmenter()": {"augment": Augmenter()},
            "training with compile=True": {"compile": True},
        }.items():
            clf = classifier(backbone, device, **params).fit(images, target)
            row(title, min(epoch["dur"] for epoch in clf.history_), 0)
        row("prediction by hand", hand[1], 1)
        clf = classifier(backbone, device).fit(images[:BATCH], target[:BATCH])
        predicting = [
            seconds_of(lambda clf=clf: clf.predict_proba(images), device) for _ in range(EPOCHS)
        ]
        row("prediction", min(predicting), 1)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))

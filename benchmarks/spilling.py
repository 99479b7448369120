"""Memory of loading, augmenting, SMOTE and training with `spill_dir`, at a quarter and all of 2 GB.

Run: WBCCLF_DATA=... python benchmarks/spilling.py [FOLDER]

FOLDER (default: a temporary one) needs 6 GB of free disk. Each step runs in a forked process of its
own, which reads its input from a file. "Anonymous" is the peak of what only swap could take from
the process; pages of the mapped files are the file cache's, and the system takes them back at will.
The first rows are what the libraries alone take: torch, where a step needs it, another 0.3 GB.
"""

import os
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from _compare import status

from wbcclf import SMOTE, Augmenter, SimpleCNNClassifier, list_image_folder
from wbcclf.datasets import ImageLoader

SIDE = 128
N_IMAGES = 2_000_000_000 // (SIDE * SIDE * 3)


def in_a_process(step, *arguments):
    """Run `step` in a forked process; return its seconds and its peak of anonymous memory in MB."""

    def work(pipe):
        done, highest = threading.Event(), [status("RssAnon")]

        def watch():
            while not done.wait(0.005):
                highest[0] = max(highest[0], status("RssAnon"))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        start = time.perf_counter()
        step(*arguments)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        pipe.send((seconds, highest[0]))

    receiver, sender = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=work, args=(sender,))
    process.start()
    sender.close()
    result = receiver.recv()
    process.join()
    return result


def keep(images, path):
    """Write a batch for the next step, block by block."""
    kept = np.lib.format.open_memmap(path, "w+", np.uint8, images.shape)
    for start in range(0, len(images), 1000):
        kept[start : start + 1000] = images[start : start + 1000]
    kept.flush()


def nothing(source, folder):
    pass


def torch_alone(source, folder):
    import torch

    torch.ones(1) @ torch.ones(1)


def load(paths, folder):
    images = ImageLoader(SIDE, spill_dir=folder).transform(paths)
    keep(images, folder / "images.npy")


def batch(folder, n_images):
    return np.load(folder / "images.npy", mmap_mode="r")[:n_images]


def augment(target, folder):
    half = len(target) // 2
    out, _ = Augmenter(spill_dir=folder, random_state=0).fit_resample(
        batch(folder, half), target[:half]
    )
    assert len(out) == 2 * half


def smote(target, folder):
    # From the first three quarters up to the class sizes of all.
    known = target[: len(target) * 3 // 4]
    labels, counts = np.unique(target, return_counts=True)
    sampler = SMOTE(
        sampling_strategy=dict(zip(labels, counts, strict=True)), spill_dir=folder, random_state=0
    )
    out, _ = sampler.fit_resample(batch(folder, len(known)), known)
    assert len(out) == len(target)


def train(target, folder):
    network = SimpleCNNClassifier(input_size=32, max_epochs=1, batch_size=256, random_state=0)
    network.fit(batch(folder, len(target)), target)


def main(folder):
    listing = list_image_folder(Path(os.environ["WBCCLF_DATA"], "blood-cells", "TRAIN"))
    print(f"{SIDE}x{SIDE} blood-cells images, again and again; {os.cpu_count()} CPU cores\n")
    print("| step | images out | output GB | seconds | peak anonymous MB |\n|---|---|---|---|---|")
    for step in (nothing, torch_alone):
        print(f"| {step.__name__} | | | | {in_a_process(step, None, folder)[1]:,.0f} |")
    for n_images in (N_IMAGES // 4, N_IMAGES):
        order = np.random.RandomState(0).permutation(np.arange(n_images) % len(listing.paths))
        paths, target = listing.paths[order], listing.target[order]
        for step, source in ((load, paths), (augment, target), (smote, target), (train, target)):
            seconds, anonymous = in_a_process(step, source, folder)
            size = n_images * SIDE * SIDE * 3 / 1e9
            name = step.__name__
            print(f"| {name} | {n_images:,} | {size:.2f} | {seconds:.1f} | {anonymous:,.0f} |")
        (folder / "images.npy").unlink()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))

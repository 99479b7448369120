"""Predicting many files: reading beside predicting, and the memory of up to a million files.

Run: WBCCLF_DATA=... python benchmarks/streaming.py overlap
     WBCCLF_DATA=... python benchmarks/streaming.py memory 1000 100000 1000000

Overlap: reading alone, predicting alone, one after the other, and overlapped, in turn. The slow
disk waits before every file, the "GPU" before every chunk, without any use of a core.

Memory: `wbcclf predict` on links to 1,000 pictures of pbc/train (128x128), 1,000 links to a folder,
as a process of its own. The network is small (simple_cnn at 16x16), so that a million files are a
matter of minutes. Then the listing alone, of links that all lie in one folder.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from _data import DATA, blood_cells

from wbcclf import CNNClassifier, ImageLoader, SimpleCNNClassifier, list_image_folder, save_model
from wbcclf.datasets import _reading
from wbcclf.inspection import _files, predict_files

N_FILES = 4096
N_SOURCES = 1000
COMMAND = [sys.executable, "-c", "from wbcclf.cli import main; main()", "predict"]
LISTING = """
import sys
from pathlib import Path
from wbcclf.cli._listing import walk
print(sum(reason is None for _, reason in walk([Path(sys.argv[1])])))
"""


def waiting(function, seconds):
    """Return a function that first waits, as for a disk or a GPU."""

    def slow(*args, **kwargs):
        time.sleep(seconds)
        return function(*args, **kwargs)

    return slow


def overlap(rounds=3):
    paths = list_image_folder(DATA / "blood-cells" / "TRAIN").paths[:N_FILES].tolist()
    images, target = blood_cells(64, 64)
    clf = CNNClassifier("squeezenet1_1", weights=None, max_epochs=1, device="cpu", random_state=0)
    clf.fit(images, target)
    chunks = [ImageLoader(64).transform(chunk) for chunk in _files._chunks(paths, 256)]
    read_image, predict_images = _reading.read_image, _files.predict_images

    def read():
        for chunk in _files._chunks(paths, 256):
            ImageLoader(64).transform(chunk)

    def predict():
        for chunk in chunks:
            _files.predict_images([], clf, chunk)

    def one_after_the_other():
        with patch.object(_files, "ahead", iter):
            list(predict_files(clf, paths))

    def overlapped():
        list(predict_files(clf, paths))

    rows = {
        "both on the cores": (0, None),
        "a disk that takes 2 ms for a file": (0.002, None),
        'a "GPU" that takes 150 ms for a chunk': (0, 0.15),
        'both, the "GPU" 300 ms': (0.002, 0.3),
    }
    print(f"{N_FILES} files; {torch.get_num_threads()} threads of torch, ", end="")
    print(f"{len(os.sched_getaffinity(0))} CPU cores; median of {rounds} rounds in turn (range)\n")
    print("| | read, s | predict, s | in turn, s | overlapped, s | of the slower | of the sum |")
    print("|---|---|---|---|---|---|---|")
    fake = np.zeros((256, 4), np.float32)
    for name, (disk, gpu) in rows.items():
        predicted = predict_images
        if gpu is not None:

            def predicted(transformers, classifier, X, rejects=True):
                shares = fake[: len(X)]
                return {
                    "labels": classifier.classes_[shares.argmax(axis=1)],
                    "probabilities": shares,
                    "familiarity": None,
                    "trained_on": None,
                }

            predicted = waiting(predicted, gpu)
        with (
            patch.object(_reading, "read_image", waiting(read_image, disk) if disk else read_image),
            patch.object(_files, "predict_images", predicted),
        ):
            seconds = []
            for number in range(rounds + 1):
                seconds.append([])
                for function in (read, predict, one_after_the_other, overlapped):
                    start = time.perf_counter()
                    function()
                    seconds[-1].append(time.perf_counter() - start)
                if not number:
                    seconds = []
        cells = [f"{statistics.median(column):.2f}" for column in zip(*seconds, strict=True)]
        # Where both stages keep all cores busy, 1 of the sum is all that there is to be had.
        shares = [(max(a, b) / both, (a + b) / both) for a, b, _, both in seconds]
        for share in zip(*shares, strict=True):
            cells.append(f"{statistics.median(share):.2f} ({min(share):.2f} to {max(share):.2f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measured(command):
    """Return seconds, CPU seconds and peak MB of a command, run from a child that measures it."""
    code = (
        "import resource, subprocess, sys, time; start = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, check=True
    )
    return tuple(map(float, out.stdout.split()))


def link(sources, folder, n_files, n_each):
    for number in range(n_files):
        place = folder / f"{number // n_each:04}"
        if number % n_each == 0:
            place.mkdir(parents=True)
        os.symlink(sources[number % len(sources)], place / f"cell{number}.jpeg")


def memory(sizes):
    listing = list_image_folder(DATA / "pbc" / "train")
    sources = [os.path.abspath(path) for path in listing.paths[:N_SOURCES]]
    images, target = blood_cells(256, 16)
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0).fit(images, target)
    print(f"links to {N_SOURCES} files; {len(os.sched_getaffinity(0))} CPU core(s)\n")
    print("| files | seconds | CPU seconds | peak MB | listing of one folder, CPU s | peak MB |")
    print("|---|---|---|---|---|---|")
    for n_files in sizes:
        with tempfile.TemporaryDirectory() as root:
            root = Path(root)
            save_model(clf, root / "model.wbcclf")
            link(sources, root / "cells", n_files, 1000)
            table = root / "predictions.csv"
            seconds, used, peak = measured(
                [*COMMAND, root / "model.wbcclf", root / "cells", "-o", table]
            )
            with table.open() as file:
                assert sum(1 for _ in file) == n_files + 1
            assert sorted(os.listdir(root)) == ["cells", "model.wbcclf", "predictions.csv"]
            link(sources, root / "flat", n_files, n_files)
            _, listed, flat = measured([sys.executable, "-c", LISTING, root / "flat"])
        print(
            f"| {n_files:,} | {seconds:,.0f} | {used:,.0f} | {peak:,.0f} | "
            f"{listed:,.1f} | {flat:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*frozen at random weights")
    if sys.argv[1] == "overlap":
        overlap()
    else:
        memory([int(size) for size in sys.argv[2:]])

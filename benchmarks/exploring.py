"""Time and memory of exploring a set, as it grows; and which p-values two halves of one set have.

Run: python benchmarks/exploring.py growth [--pictures N ...]
then: WBCCLF_DATA=... python benchmarks/exploring.py halves

`growth`: the paths of 1,000 synthetic cells of 128x128 are given again and again, each size in a
process of its own. "Above" is the peak of the memory, less that of 1,000 pictures. `halves`: the
242 neutrophils of Raabin are split at random into two "classes", 20 times (seeds 0 to 19). A
correction that holds finds a difference in one of 20 at most.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _data import DATA
from PIL import Image

from wbcclf import list_image_folder, make_blood_cells
from wbcclf.inspection import explore_images
from wbcclf.inspection.exploring._separation import compare_classes

FILES, SIDE = 1_000, 128


def write_files(folder):
    cells = make_blood_cells(FILES, classes=5, image_size=SIDE, random_state=0)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number}.png")


def one_size(folder, n_pictures):
    listing = list_image_folder(folder)
    rows = np.arange(n_pictures) % len(listing.paths)
    start = time.perf_counter()
    explore_images(listing.paths[rows], np.array(listing.target)[rows])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(n_pictures, seconds, peak)


def growth(sizes):
    print("| pictures | milliseconds a picture | peak of memory, MB | above, MB |")
    print("|---|---|---|---|")
    least = None
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for size in sizes:
            command = [sys.executable, __file__, "one", folder, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            _, seconds, peak = map(float, done.stdout.split())
            least = peak if least is None else least
            print(
                f"| {size} | {1000 * seconds / size:.1f} | {peak:.0f} | {peak - least:.0f} |",
                flush=True,
            )


def halves():
    listing = list_image_folder(DATA / "raabin")
    paths = listing.paths[np.array(listing.target) == "neutrophil"]
    found = explore_images(paths)
    names, groups = found.feature_names, np.arange(len(paths))
    smallest = []
    for seed in range(20):
        target = np.random.RandomState(seed).permutation(len(paths)) % 2
        result = compare_classes(found.features, names, target, groups)
        smallest.append(min(feature.p_adjusted for feature in result.features))
    n_below = sum(p < 0.05 for p in smallest)
    print(f"smallest corrected p of 20 splits: {min(smallest):.2f}; below 0.05 in {n_below}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    growing = commands.add_parser("growth")
    growing.add_argument("--pictures", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    commands.add_parser("halves")
    one = commands.add_parser("one")
    one.add_argument("folder", type=Path)
    one.add_argument("n_pictures", type=int)
    arguments = parser.parse_args()
    if arguments.command == "growth":
        growth(arguments.pictures)
    elif arguments.command == "halves":
        halves()
    else:
        one_size(arguments.folder, arguments.n_pictures)

"""Time and memory of the page of an evaluation, as the set grows.

Run: python benchmarks/report.py [--pictures N ...]

The paths of 1,000 synthetic cells of 128x128 pixels are given again and again to the packaged
model, each size in a process of its own; every two pictures count as one cell. `evaluate` does
"predict" and "scores"; "page" is what `to_html` takes, which shows 200 pictures, 45 of them with
maps. "Above" is the peak of the memory, less that of the first size. Seconds are of the CPU, so
that a busy machine counts less; set OMP_NUM_THREADS=1.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from wbcclf import list_image_folder, load_model, make_blood_cells
from wbcclf.inspection import evaluate_predictions
from wbcclf.inspection._files import predict_all
from wbcclf.inspection.evaluation._evaluation import with_prediction

FILES, SIDE = 1_000, 128


def write_files(folder):
    cells = make_blood_cells(FILES, classes=5, image_size=SIDE, random_state=0)
    for number, (image, label) in enumerate(zip(cells.images, cells.target, strict=True)):
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number}.png")


def one_size(folder, n_pictures):
    listing = list_image_folder(folder)
    rows = np.arange(n_pictures) % len(listing.paths)
    model = load_model("wbcclf:blood-cells")
    times = [time.process_time()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # drawn cells look like none that the model knows
        found = predict_all(model, listing.paths[rows])
    times.append(time.process_time())
    result = evaluate_predictions(
        listing.target[rows],
        found.labels,
        rows // 2,
        probabilities=found.probabilities,
        classes=model.classes_,
    )
    with_prediction(result, found)
    result.estimator, result.images = model, listing.paths[rows]
    times.append(time.process_time())
    with tempfile.TemporaryDirectory() as page:
        path = Path(page, "page.html")
        result.to_html(path)
        times.append(time.process_time())
        size = path.stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(*np.diff(times), size / 1e6, peak)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, nargs="*", default=[1_000, 3_000, 10_000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one_size(arguments.one[0], int(arguments.one[1]))
        return
    print("| pictures | predict, s | scores, s | page, s | page, MB | peak, MB | above, MB |")
    print("|---|---|---|---|---|---|---|")
    least = None
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        for n_pictures in arguments.pictures:
            command = [sys.executable, __file__, "--one", folder, str(n_pictures)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            *seconds, size, peak = map(float, done.stdout.split())
            least = peak if least is None else least
            figures = " | ".join(f"{each:.2f}" for each in seconds)
            print(
                f"| {n_pictures} | {figures} | {size:.2f} | {peak:.0f} | {peak - least:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

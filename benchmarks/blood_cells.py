"""Train a scratch CNN through the shell on blood-cells/TRAIN, score it on the official TEST.

Run: WBCCLF_DATA=... python benchmarks/blood_cells.py [SEED ...]

Prints a table row per seed: accuracy on all images of TEST, and on those of cells that TRAIN does
not show; macro-F1; recall per class; wall time of `wbcclf train` and `wbcclf evaluate`.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import wbcclf
from wbcclf.inspection import evaluate_predictions


def shell(*arguments):
    """Run `wbcclf` and return its wall time in seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from wbcclf.cli import main; main()"]
    subprocess.run([*command, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def cells_of_train(root):
    """Return the cell of every TEST file and the cells that TRAIN shows."""
    with (root / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = {row["cell_id"] for row in rows if row["split"] == "TRAIN"}
    return {row["path"]: row["cell_id"] for row in rows if row["split"] == "TEST"}, train


def main(seeds):
    root = Path(os.environ["WBCCLF_DATA"], "blood-cells")
    cell_of, in_train = cells_of_train(root)
    print("| seed | accuracy | on cells not in TRAIN | macro-F1 | recall E / L / M / N | minutes |")
    print("|---|---|---|---|---|---|")
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            model, table = Path(folder, "model.wbcclf"), Path(folder, "out.csv")
            seconds = shell(
                "train", root / "TRAIN", "-o", model, "--precision", "bfloat16", "--seed", seed
            )
            seconds += shell("predict", model, root / "TEST", "-o", table)
            with table.open() as file:
                rows = list(csv.DictReader(file))
        y_true = np.array([row["file"].split("/")[0] for row in rows])
        y_pred = np.array([row["label"] for row in rows])
        unseen = np.array([cell_of["TEST/" + row["file"]] not in in_train for row in rows])
        result = evaluate_predictions(y_true, y_pred)
        clean = evaluate_predictions(y_true[unseen], y_pred[unseen])
        recalls = " / ".join(f"{recall:.2f}" for recall in result.recall)
        print(
            f"| {seed} | {result.accuracy:.3f} ({result.n_samples}) | {clean.accuracy:.3f} "
            f"({clean.n_samples}) | {result.macro_f1:.3f} | {recalls} | {seconds / 60:.1f} |",
            flush=True,
        )
    print(f"\nwbcclf {wbcclf.__version__}, {os.cpu_count()} CPU cores, no GPU, bfloat16")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0])

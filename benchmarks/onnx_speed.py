"""Speed and size of PyTorch, ONNX and int8 side by side; what int8 costs the packaged model.

Run: WBCCLF_DATA=... python benchmarks/onnx_speed.py [--threads 2]

Each network predicts the same 64 images with one thread, in turn, 5 rounds, after one round to warm
up. Rates are of CPU seconds, which other programs on the machine hardly change. Those of PyTorch
are of `predict_proba`. Random weights are as fast as others.

With more threads it is the packaged model alone, by the clock. Other programs change these rates.
They change the ratios less: both times of a ratio are of the same round.

The packaged model in int8 is calibrated and scored on Raabin: half of the dates of the slides
calibrate, the others are scored. Pictures that the choices of int8 were compared on (70 of each
class, drawn with seed 0) are left out.
"""

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _data import DATA, blood_cells

from wbcclf import CNNClassifier, list_image_folder, load_model
from wbcclf.exporting._export import export_squares
from wbcclf.exporting._parity import open_session, run_all

N_IMAGES, N_LEFT_OUT = 64, 70


def speed(name, model, images, target, folder):
    paths = [Path(folder, f"{name}-{kind}.onnx") for kind in ("float32", "int8")]
    for path, int8 in zip(paths, (False, True), strict=True):
        export_squares(model, path, images, target, None, int8, 100.0, "")
    sessions = [open_session(path.read_bytes()) for path in paths]
    classifier = model[-1] if hasattr(model, "steps") else model
    contestants = {
        "torch": lambda: classifier.predict_proba(images),
        **{
            path.stem: lambda session=session: run_all(session, images)
            for path, session in zip(paths, sessions, strict=True)
        },
    }
    seconds = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    rounds = []
    for _ in range(6):
        rounds.append([])
        for predict in contestants.values():
            start = seconds()
            predict()
            rounds[-1].append(seconds() - start)
    found = np.array(rounds[1:]).T  # (contestant, round)
    rates = [len(images) / np.median(each) for each in found]
    ratios = [
        f"{np.median(np.divide(found[0], each)):.2f} "
        f"({np.min(np.divide(found[0], each)):.2f} to {np.max(np.divide(found[0], each)):.2f})"
        for each in found[1:]
    ]
    megabytes = [path.stat().st_size / 1e6 for path in paths]
    print(
        f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {ratios[0]} | {rates[2]:.0f} | {ratios[1]} "
        f"| {megabytes[0]:.1f} | {megabytes[1]:.1f} | {megabytes[0] / megabytes[1]:.2f} |",
        flush=True,
    )


def random_network(name, images, target):
    clf = CNNClassifier(name, weights=None, max_steps=1, batch_size=8, device="cpu", random_state=0)
    return clf.fit(images, target)


def speeds(folder):
    images, target = blood_cells(N_IMAGES, 96)
    target = np.char.lower(target.astype(str))
    print(f"\n{N_IMAGES} images of 96x96 pixels\n")
    print(
        "| network | torch, images/s | ONNX | times torch | int8 | times torch | MB | MB int8 | "
        "smaller by |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    speed("packaged model (8 views)", load_model("wbcclf:blood-cells"), images, target, folder)
    if torch.get_num_threads() > 1:
        return
    for name in ("resnet18", "mobilenet_v3_small"):
        speed(name, random_network(name, images, target), images, target, folder)


def recall(folder):
    model = load_model("wbcclf:blood-cells")
    listing = list_image_folder(DATA / "raabin")
    order = np.random.RandomState(0).permutation(len(listing.paths))
    left_out = [order[listing.target[order] == each][:N_LEFT_OUT] for each in listing.target_names]
    rows = np.setdiff1d(order, np.concatenate(left_out))
    dates = [Path(path).name[:8] for path in listing.paths[rows]]
    squares, target = model[0].transform(listing.paths[rows]), listing.target[rows]
    path = Path(folder, "raabin.onnx")
    found = export_squares(model, path, squares, target, dates, True, 100.0, "").int8
    print(f"\nRaabin, calibrated on {found.n_calibrated} pictures; by date of the slide\n")
    print("| class | pictures | dates | float32 | int8 | points (95% interval) |")
    print("|---|---|---|---|---|---|")
    for row in found.classes:
        low, high = (100 * each for each in row.difference_interval)
        print(
            f"| {row.label} | {row.n_images} | {row.n_groups} | {row.float32:.3f} | "
            f"{row.int8:.3f} | {100 * row.difference:+.1f} ({low:+.1f} to {high:+.1f}) |"
        )
    print(
        f"\nMean absolute differences: familiarity {found.familiarity_difference:.3f}, certainty "
        f"{found.certainty_difference:.2f}; largest of a probability {found.largest_difference:.2f}"
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    with tempfile.TemporaryDirectory() as folder:
        speeds(folder)
        if torch.get_num_threads() == 1:
            recall(folder)

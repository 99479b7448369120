"""The model of the package with PyTorch and as an ONNX file: answers, speed, import, memory.

Run on one core: WBCCLF_DATA=... OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/without_torch.py

Pictures of raabin and of pbc/original-size, as many of each, evenly spaced in the lists of files.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _compare import times
from _data import DATA

import wbcclf.onnx
from wbcclf import list_image_folder, load_model
from wbcclf.exporting import export_onnx
from wbcclf.inspection import predict_files

EACH, ROUNDS = 100, 5
WITH_ONNX = """
import wbcclf.onnx
imported = seconds()
answers = wbcclf.onnx.load(sys.argv[1], n_threads=1).answer(sys.argv[2:])
"""
WITH_TORCH = """
import torch, wbcclf.inspection
from wbcclf import load_model
imported = seconds()
torch.set_num_threads(1)
answers = list(wbcclf.inspection.predict_files(load_model("wbcclf:blood-cells"), sys.argv[2:]))
"""
AROUND = """
import json, sys, time
seconds = time.process_time
{}
answered = seconds()
(memory,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([imported, answered, int(memory.split()[1]) / 1000]))
"""


def pictures():
    """Return paths of files."""
    every = [list_image_folder(DATA / name).paths for name in ("raabin", "pbc/original-size")]
    rows = [np.linspace(0, len(paths) - 1, EACH, dtype=int) for paths in every]
    return np.concatenate([paths[some] for paths, some in zip(every, rows, strict=True)]).tolist()


def processes(file, paths):
    """Print CPU seconds and memory of processes that answer for a few pictures."""
    print(f"\n{len(paths)} pictures in a new process, medians of {ROUNDS} rounds in turn\n")
    print("| | CPU seconds to import | to the last answer | peak MB |")
    print("|---|---|---|---|")
    found = {"ONNX": [], "PyTorch": []}
    for _ in range(ROUNDS):
        for name, code in (("ONNX", WITH_ONNX), ("PyTorch", WITH_TORCH)):
            command = [sys.executable, "-c", AROUND.format(code), file, *paths]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name].append(json.loads(done.stdout))
    for name, each in found.items():
        imported, answered, memory = (
            statistics.median(column) for column in zip(*each, strict=True)
        )
        print(f"| {name} | {imported:.2f} | {answered:.2f} | {memory:.0f} |")


def main():
    torch.set_num_threads(1)
    paths = pictures()
    pipeline = load_model("wbcclf:blood-cells")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "model.onnx"))
        export_onnx(pipeline, file)
        processes(file, paths[:: len(paths) // 10])
        model = wbcclf.onnx.load(file, n_threads=1)
    (torch_,) = predict_files(pipeline, paths)
    onnx = model.answer(paths)
    print(
        f"\n{len(paths)} pictures: {(onnx.labels != torch_.labels).sum()} other labels; "
        f"probabilities differ by {np.abs(onnx.probabilities - torch_.probabilities).max():.1e} at "
        f"most, familiarity by {np.abs(onnx.familiarity - torch_.familiarity).max():.1e}"
    )
    seconds = times(
        {"ONNX": lambda: model.answer(paths), "PyTorch": lambda: [*predict_files(pipeline, paths)]},
        ROUNDS,
    )
    ratios = np.divide(seconds["PyTorch"], seconds["ONNX"])
    print(f"\n{len(paths)} files read, cut and predicted (eight views), {ROUNDS} rounds in turn\n")
    for name, each in seconds.items():
        print(f"{name}: {len(paths) / statistics.median(each):.1f} pictures/s")
    print(f"ONNX is faster by {np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()

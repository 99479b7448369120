"""The page of `export_page` in Chromium beside `wbcclf.onnx`, which cuts exactly: calls and speed.

Run: WBCCLF_DATA=... python benchmarks/browser.py MODEL.onnx [--half develop]

MODEL.onnx is the export of the packaged model. PBC: pictures of split_pbc that the model was
neither trained nor validated on. Raabin: a laboratory that it was not trained on. One picture a
cell, drawn with seed 0. The rule that proposes squares was developed on the first half (`develop`);
figures are of the other half (`report`, the default). Speed is pictures a second, one thread each,
one after the other in this run.
"""

import argparse
import csv
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from other_laboratory import laboratory
from playwright.sync_api import expect, sync_playwright
from pretrain import split_pbc

import wbcclf.onnx
from wbcclf import export_page
from wbcclf.inspection import evaluate_predictions
from wbcclf.inspection.evaluation._result import with_interval

N_PICTURES = 200  # of each half of a laboratory
OPTIONS = ["--no-sandbox", "--disable-gpu"]


def pictures(name, half):
    """Return files and classes, one picture a cell."""
    if name == "PBC":
        paths, target = split_pbc()[2]
    else:
        paths, target, _ = laboratory(name)
    rows = np.random.RandomState(0).permutation(len(paths))
    start = N_PICTURES * (half == "report")
    rows = rows[start : start + N_PICTURES]
    return paths[rows].tolist(), target[rows]


def in_browser(page, paths):
    """Return the rows of the page's table for some files, and the pictures that it did a second."""
    page.locator("#files").set_input_files(paths[:1])  # the first run prepares the model
    expect(page.locator("#progress")).to_have_text("1 picture", timeout=60_000)
    page.locator("#clear").click()
    start = time.perf_counter()
    page.locator("#files").set_input_files(paths)
    done = f"{len(paths)} pictures"
    expect(page.locator("#progress")).to_have_text(done, timeout=600_000)
    speed = len(paths) / (time.perf_counter() - start)
    with page.expect_download() as download:
        page.locator("#save").click()
    page.locator("#clear").click()
    with open(download.value.path(), newline="") as file:
        return list(csv.DictReader(file)), speed


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--half", choices=["develop", "report"], default="report")
    given = parser.parse_args()
    model = wbcclf.onnx.load(given.model, n_threads=1)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        export_page(given.model, folder)
        chromium = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        page = browser.new_page()
        page.goto(Path(folder, "index.html").as_uri())
        expect(page.locator("#progress")).to_have_text("0 pictures", timeout=120_000)
        print("| laboratory | cells | same call | accuracy, page | exact | speed, page | exact |")
        print("|---|---|---|---|---|---|---|")
        for name in ("PBC", "Raabin"):
            paths, target = pictures(name, given.half)
            rows, speed = in_browser(page, paths)
            ours = np.array([row["label"] for row in rows])
            start = time.perf_counter()
            exact = model.predict(paths)
            exact_speed = len(paths) / (time.perf_counter() - start)
            ours_score, exact_score = (
                with_interval(evaluate_predictions(target, called), "accuracy")
                for called in (ours, exact)
            )
            same = (ours == exact).mean()
            print(
                f"| {name} | {len(paths)} | {same:.3f} | {ours_score} | {exact_score} | "
                f"{speed:.1f} | {exact_speed:.1f} |",
                flush=True,
            )
        browser.close()


if __name__ == "__main__":
    main()

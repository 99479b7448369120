"""A small network that draws the outline of white cells, beside the stain method of find_cells.

Run: WBCCLF_DATA=... python benchmarks/segmentation.py FOLDER [home travel changes look speed]

The stain method finds the nuclei. A network sees rays from the centre of each nucleus, as optical
densities in units of a red cell, at the scale of the nucleus, and says of every sample whether it
is cell. The outline is the closed path with the largest sum of log-odds inside, as the stain method
takes it with those of its histograms. "stain votes" adds one nat to the log-odds of what the stain
method takes for the cell, and takes one away elsewhere.

home: BCISC (masks of 268 cells), five folds that share no slide number. travel: trained on drawn
cells alone and on BCISC alone, scored on the other. changes: PBC, Raabin and blood-cells have no
masks; there, how much of a cell stays the same when stain, light, focus and scale are changed.
look: galleries of the cells on which network and stain method differ most. speed: time a picture.
Weights and galleries are kept in FOLDER.
"""

import sys
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from _compare import times
from _data import DATA
from outline_network import (
    OutlineNet,
    altered,
    bcisc,
    bcisc_windows,
    drawn_cells,
    drawn_windows,
    found_by_stain,
    trained,
    weights_of,
)

from wbcclf import list_image_folder
from wbcclf.cells._network import VOTE, redrawn
from wbcclf.cells._picture import choose, covered

FOLDER = Path(sys.argv[1])
VOTES = {"network": 0.0, "network, stain votes": VOTE}
METHODS = ("stain", *VOTES)


class Networks:
    """Networks that are trained when they are asked for, unless FOLDER holds them."""

    def __init__(self):
        self.slides = bcisc()[3]

    @cached_property
    def bcisc(self):
        """Windows of every picture of BCISC."""
        return bcisc_windows()

    @cached_property
    def drawn(self):
        """Windows of drawn cells."""
        return drawn_windows()

    def __call__(self, name):
        """Return a network: of "bcisc", "drawn" or "all" of them, or all without a fold."""
        path = FOLDER / f"{name}.pt"
        if path.exists():
            net = OutlineNet()
            net.load_state_dict(torch.load(path, weights_only=True))
            return net.eval()
        if name == "drawn":
            net = trained(self.drawn)
        else:
            windows = [] if name == "bcisc" else self.drawn[::2]  # a fifth of what it sees
            for slide, each in zip(self.slides, self.bcisc, strict=True):
                windows = windows + (each if name != f"fold{fold_of(slide)}" else [])
            net = trained(windows, None if name == "bcisc" else self("drawn"))
        torch.save(net.state_dict(), path)
        return net


def fold_of(slide):
    """Return the fold, 0 to 4, in which cells of this slide number are scored."""
    return (slide - 1) // 2


def dice(cells, truth):
    """Return Dice of all pixels in any of the cells with those in truth (cells, or a mask)."""
    if isinstance(truth, list):
        shape = np.max([cell.bbox[2:] for cell in cells + truth], axis=0)
        truth = covered(truth, (0, 0, *shape))
    found = covered(cells, (0, 0, *truth.shape))
    return 2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1)


def by_each(net, image, which=None):
    """Return {method: cells of a picture}, empty where the stain method finds none.

    As in find_cells, what votes is the rough outline. `which` takes the one cell that is nearest
    the centre, or the largest.
    """
    fine, rough = found_by_stain(image), found_by_stain(image, rough=True)
    if not (fine and rough):
        return {}
    if which:
        fine, rough = (
            view._replace(cells=[choose(view.cells, image.shape[:2], which)])
            for view in (fine, rough)
        )
    return {"stain": fine.cells} | {
        name: redrawn([rough], weights_of(net), vote)[0] for name, vote in VOTES.items()
    }


def scores_of(nets, images, truths):
    """Return {method: Dice of every picture}, each by a network of its own."""
    scores = {name: [] for name in METHODS}
    for net, image, truth in zip(nets, images, truths, strict=True):
        cells = by_each(net, image)
        for name in METHODS:
            scores[name].append(dice(cells.get(name, []), truth))
    return {name: np.array(each) for name, each in scores.items()}


def home(networks):
    """Print the Dice of whole cells of BCISC a class, of folds that were not trained on."""
    print("\nWhole cells of BCISC, folds that were not trained on: Dice, mean (worst picture)\n")
    print("| | pictures | baso | eosi | lymp | mono | neut | all | worst class |")
    print("|---|---|---|---|---|---|---|---|---|")
    images, truths, classes, slides = bcisc()
    scores = scores_of([networks(f"fold{fold_of(slide)}") for slide in slides], images, truths)
    held_apart = (
        np.arange(len(images)) % 5 > 0
    )  # the stain method's constants were chosen on the others
    for rows in (np.ones(len(images), bool), held_apart):
        for name, each in scores.items():
            values = [each[rows & (classes == label)] for label in np.unique(classes)]
            columns = " | ".join(f"{v.mean():.4f} ({v.min():.2f})" for v in values)
            worst = min(v.mean() for v in values)
            print(f"| {name} | {rows.sum()} | {columns} | {each[rows].mean():.4f} | {worst:.4f} |")
    for name in VOTES:
        gain = (scores[name] - scores["stain"])[held_apart]
        print(
            f"{name} less stain: {gain.mean():+.4f}, standard error "
            f"{gain.std() / len(gain) ** 0.5:.4f}; better by more than 0.01 in "
            f"{(gain > 0.01).sum()}, worse in {(gain < -0.01).sum()} of {len(gain)}"
        )


def travel(networks):
    """Print Dice on drawn cells and on BCISC of networks that have seen only the other."""
    print("\nTrained on one, scored on the other: Dice of whole cells\n")
    print("| | drawn cells, trained on BCISC | BCISC, trained on drawn cells | its worst class |")
    print("|---|---|---|---|")
    drawn, truths = drawn_cells(300, seed=7)
    rows = [row for row, image in enumerate(drawn) if found_by_stain(image)]
    drawn, truths = [drawn[row] for row in rows], [truths[row] for row in rows]
    there = scores_of([networks("bcisc")] * len(rows), drawn, truths)
    images, truths, classes, _ = bcisc()
    here = scores_of([networks("drawn")] * len(images), images, truths)
    for name in METHODS:
        worst = min(here[name][classes == label].mean() for label in np.unique(classes))
        print(f"| {name} | {there[name].mean():.4f} | {here[name].mean():.4f} | {worst:.4f} |")
    print(f"({len(rows)} of 300 drawn cells: no nucleus was found in the others)")


LABORATORIES = {"PBC": "pbc/train", "Raabin": "raabin", "blood-cells": "blood-cells/TEST_SIMPLE"}


def pictures(folder, n_images, seed=0):
    """Return pictures of a folder, drawn at random, in their own size."""
    paths = list_image_folder(DATA / folder).paths
    rows = np.random.RandomState(seed).permutation(len(paths))[:n_images]
    return [np.ascontiguousarray(cv2.imread(str(paths[row]))[..., ::-1]) for row in rows]


def stretched(image, factor):
    """Return a picture of another size."""
    size = [round(side * factor) for side in image.shape[1::-1]]
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=method)


NONE = {"stain": 0.0, "light": 0.0, "blur": 0.0, "noise": 0.0}
CHANGES = {
    **{name: (lambda image, rng, n=name: altered(image, rng, **NONE | {n: 1.0})) for name in NONE},
    "all four": altered,
    "half": lambda image, rng: stretched(image, 0.5),
    "double": lambda image, rng: stretched(image, 2),
}


def changes(networks, n_images=70):
    """Print Dice of the central cell in a picture with that in the same picture changed."""
    print("\nDice of a cell with itself in a changed picture (cells lost by the change, of all)\n")
    print("| | |", " | ".join(CHANGES), "| with stain method |")
    print("|---" * (len(CHANGES) + 3) + "|")
    net = networks("all")
    for laboratory, folder in LABORATORIES.items():
        rng = np.random.RandomState(0)
        scores = {(name, change): [] for name in METHODS for change in (*CHANGES, "stain method")}
        lost = dict.fromkeys(CHANGES, 0)
        for image in pictures(folder, n_images):
            before = by_each(net, image, "centre")
            if not before:
                continue
            for name, each in before.items():
                scores[name, "stain method"].append(dice(each, before["stain"]))
            for change, function in CHANGES.items():
                other = function(image, rng)
                after = by_each(net, other, "centre")
                lost[change] += not after
                for name, each in after.items():
                    mask = covered(each, (0, 0, *other.shape[:2])).astype(np.float32)
                    mask = cv2.resize(mask, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
                    scores[name, change].append(dice(before[name], mask > 0.5))
        n_cells = len(scores["stain", "stain method"])
        for name in METHODS:
            columns = [
                f"{np.mean(scores[name, change]):.3f} ({lost[change]} of {n_cells})"
                for change in CHANGES
            ]
            agreed = np.mean(scores[name, "stain method"])
            print(f"| {laboratory} | {name} | {' | '.join(columns)} | {agreed:.3f} |", flush=True)


def tile(image, number, both, side=230):
    """Return a cell beside itself with two outlines, the first cyan and the second yellow."""
    rows, columns = np.nonzero(covered(both[0] + both[1], (0, 0, *image.shape[:2])))
    factor = side / (max(np.ptp(rows), np.ptp(columns)) * 1.35)
    x, y = (np.ptp(place) / 2 + place.min() for place in (columns, rows))
    move = np.float32([[factor, 0, side / 2 - factor * x], [0, factor, side / 2 - factor * y]])
    plain = cv2.warpAffine(image, move, (side, side), flags=cv2.INTER_CUBIC)
    shown = plain.copy()
    for cells, colour in zip(both, ((0, 255, 255), (255, 255, 0)), strict=True):
        mask = covered(cells, (0, 0, *image.shape[:2])).astype(np.float32)
        mask = (cv2.warpAffine(mask, move, (side, side)) > 0.5).astype(np.uint8)
        edges, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, edges, -1, colour, 1)
    cv2.putText(plain, str(number), (3, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 0, 0), 1)
    return cv2.copyMakeBorder(np.hstack([plain, shown]), 2, 2, 2, 2, cv2.BORDER_CONSTANT)


def look(networks, n_images=400, n_shown=100):
    """Write galleries of where network and stain method differ most, without saying which is which.

    Yellow or cyan is the network by lot; the answers are in a text file beside the galleries.
    """
    net = networks("all")
    for laboratory, folder in LABORATORIES.items():
        found = []
        for image in pictures(folder, n_images, seed=1):
            cells = by_each(net, image, "centre")
            if cells:
                both = cells["stain"], cells["network, stain votes"]
                found.append((dice(*both), image, *both))
        found.sort(key=lambda each: each[0])
        swapped = np.random.RandomState(1).rand(n_shown) < 0.5
        shown = list(zip(swapped, found, strict=False))
        tiles = [
            tile(image, number, both[:: -1 if swap else 1])
            for number, (swap, (_, image, *both)) in enumerate(shown)
        ]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 20)
        for first in range(0, len(tiles), 20):
            page = [np.hstack(tiles[row : row + 4]) for row in range(first, first + 20, 4)]
            path = FOLDER / f"{laboratory}-{first:03}.png"
            cv2.imwrite(str(path), np.vstack(page)[..., ::-1])
        answers = "\n".join("cyan" if swap else "yellow" for swap, _ in shown)
        (FOLDER / f"{laboratory}.txt").write_text(answers)
        mean, of_shown = (np.mean([same for same, *_ in part]) for part in (found, found[:n_shown]))
        print(f"{laboratory}: {len(found)} cells, Dice {mean:.3f}, of those shown {of_shown:.3f}")


def speed(networks):
    """Print the time of finding cells, and of drawing their outlines by network as well."""
    images, weights = pictures("blood-cells/TRAIN", 64), weights_of(networks("all"))
    seconds = times(
        {
            "stain": lambda: [found_by_stain(image) for image in images],
            "network": lambda: [redrawn([found_by_stain(i, True)], weights) for i in images],
        }
    )
    ratios = np.divide(seconds["network"], seconds["stain"])
    print(f"\n64 pictures {images[0].shape}, one thread: ms a picture")
    print({name: round(1000 * np.median(each) / 64, 1) for name, each in seconds.items()})
    print(f"ratio {np.median(ratios):.2f}; {sum(each.size for each in weights.values())} weights")


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    FOLDER.mkdir(exist_ok=True)
    networks = Networks()
    for part in sys.argv[2:] or ("home", "travel", "changes", "look", "speed"):
        globals()[part](networks)

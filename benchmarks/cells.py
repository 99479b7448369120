"""find_cells against a plain threshold on purple: outlines, boxes in fields, and speed.

Run: WBCCLF_DATA=... python benchmarks/cells.py

Outlines are scored on BCISC (masks of 268 cells), boxes on BCCD (292 fields, 301 white cells).
The constants of find_cells were chosen while looking at every fifth file of
BCISC and at every tenth field of BCCD, so these are scored apart. (Galleries of random pictures of
all data sets were looked at, without scores; so were pictures of blood-cells and PBC in which no
cell was found, and how the stain of these was misread was mended. As blood-cells shows photographs
of BCCD, its recall is not wholly held apart.) PBC and Raabin have no masks: there, how often
exactly one cell is found, and at the centre.
"""

import os
import statistics
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from _compare import status, table, times
from _data import DATA
from joblib import Parallel, delayed

from wbcclf import Cell, CellCropper, ImageLoader, find_cells, list_image_folder

MASKS, FIELDS = DATA / "bcisc" / "masks", DATA / "bccd" / "Annotations"


def by_purple(image):
    """Return the cells by one threshold (Otsu) on purple: the hull of what is more than platelets.

    Purple is (red + blue) / 2 - green, as the eye sees it; a platelet is up to 1/200 of a picture.
    """
    red, green, blue = cv2.split(cv2.GaussianBlur(image, (0, 0), 1))
    purple = cv2.subtract(cv2.addWeighted(red, 0.5, blue, 0.5, 0), green)
    _, mask = cv2.threshold(purple, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cells = []
    for outline in outlines:
        if cv2.contourArea(outline) < mask.size / 200:
            continue
        left, top, width, height = cv2.boundingRect(outline)
        hull = cv2.convexHull(outline) - (left, top)
        cell = cv2.fillPoly(np.zeros((height, width), np.uint8), [hull], 1) > 0
        nucleus = mask[top : top + height, left : left + width] > 0
        cells.append(Cell((top, left, top + height, left + width), cell, nucleus & cell, 1.0))
    return cells


METHODS = {
    "find_cells": find_cells,
    'method="stain"': partial(find_cells, method="stain"),
    "threshold on purple": by_purple,
}


def covered(cells, shape):
    """Return where any of the cells is."""
    mask = np.zeros(shape[:2], bool)
    for cell in cells:
        top, left, bottom, right = cell.bbox
        mask[top:bottom, left:right] |= cell.cell
    return mask


def outlines():
    """Print the Dice of whole cells a class, and how large the nuclei are, of what is not trained.

    The network of find_cells was trained on these pictures: segmentation.py scores it in folds.
    """
    print("\nWhole cells of BCISC: Dice, mean (worst picture)\n")
    print(
        "| | part | pictures | baso | eosi | lymp | mono | neut | all | worst class | no nucleus |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    paths = sorted(MASKS.iterdir())
    images = ImageLoader(256).transform(
        [str(p.parent.parent / "images" / f"{p.stem}.jpg") for p in paths]
    )
    for name, method in METHODS.items():
        if name == "find_cells":
            continue
        scores = {"scored": defaultdict(list), "chosen on": defaultdict(list)}
        bare = dict.fromkeys(scores, 0)
        for number, (path, image) in enumerate(zip(paths, images, strict=True)):
            part = "scored" if number % 5 else "chosen on"
            truth = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
            cells = method(image)
            found = covered(cells, image.shape)
            dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
            scores[part][path.name.split("_")[0]].append(dice)
            shares = [cell.nucleus.sum() / cell.cell.sum() for cell in cells]
            bare[part] += not cells or min(shares) < 0.1
        for part, classes in scores.items():
            every = np.concatenate(list(classes.values()))
            columns = [f"{np.mean(v):.3f} ({min(v):.2f})" for _, v in sorted(classes.items())]
            worst = min(np.mean(v) for v in classes.values())
            print(
                f"| {name} | {part} | {len(every)} | {' | '.join(columns)} | "
                f"{every.mean():.4f} | {worst:.4f} | {bare[part]} |"
            )


def overlap(one, other):
    """Return intersection over union of two boxes."""
    shared = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = np.clip(shared, 0, None).prod()
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def white_cells(path):
    """Return the boxes of white cells that a VOC file names, as bbox has them."""
    boxes = []
    for item in ElementTree.parse(path).iter("object"):
        if item.findtext("name") == "WBC":
            sides = ("ymin", "xmin", "ymax", "xmax")
            boxes.append([int(item.findtext(f"bndbox/{side}")) for side in sides])
    return np.array(boxes).reshape(-1, 4)


def in_uneven_light(image, centre, least=0.5):
    """Return an image whose light falls from a centre (x, y; -1 to 1) to a share of it.

    It falls as the fourth power of the cosine of the angle of the light; along a ramp if the centre
    is None.
    """
    y, x = (np.linspace(-1, 1, side) for side in image.shape[:2])
    if centre is None:
        light = 1 - (1 - least) * (np.add.outer(y, x) / 4 + 0.5)
    else:
        square = np.add.outer((y - centre[1]) ** 2, (x - centre[0]) ** 2)
        light = (1 + square / square.max() * (least**-0.5 - 1)) ** -2
    return np.rint(image * light[..., None]).astype(np.uint8)


UNEVEN = {"corners": (0, 0), "off centre": (0.4, -0.3), "one corner": (-0.9, 0.8), "ramp": None}


def boxes():
    """Print recall and precision of boxes in fields at an overlap of one half."""
    contestants = METHODS | {
        f"find_cells, half the light: {name}": lambda image, centre=centre: find_cells(
            in_uneven_light(image, centre)
        )
        for name, centre in UNEVEN.items()
    }
    print("\nWhite cells of BCCD fields, boxes that overlap by half (IoU 0.5)\n")
    print("| | part | fields | cells | found | false | recall | precision | mean IoU |")
    print("|---|---|---|---|---|---|---|---|---|")
    paths = sorted(FIELDS.iterdir())
    for name, method in contestants.items():
        hits = {"scored": [], "chosen on": []}
        n_true, n_found, n_fields = (dict.fromkeys(hits, 0) for _ in range(3))
        for number, path in enumerate(paths):
            part = "scored" if number % 10 else "chosen on"
            image = cv2.imread(str(path.parent.parent / "JPEGImages" / f"{path.stem}.jpg"))
            truth = list(white_cells(path))
            cells = method(np.ascontiguousarray(image[..., ::-1]))
            n_fields[part] += 1
            n_true[part] += len(truth)
            n_found[part] += len(cells)
            for cell in sorted(cells, key=lambda cell: -cell.score):
                overlaps = [overlap(np.array(cell.bbox), box) for box in truth]
                if overlaps and max(overlaps) >= 0.5:
                    hits[part].append(max(overlaps))
                    truth.pop(int(np.argmax(overlaps)))
        for part, ious in hits.items():
            print(
                f"| {name} | {part} | {n_fields[part]} | {n_true[part]} | {len(ious)} | "
                f"{n_found[part] - len(ious)} | {len(ious) / n_true[part]:.4f} | "
                f"{len(ious) / max(n_found[part], 1):.4f} | {np.mean(ious):.3f} |"
            )


def centres(n_images=300):
    """Print how often a picture of one cell gives exactly one, which holds the centre."""
    print("\nPictures of one cell: exactly one found, and it holds the centre; a class\n")
    for folder in (DATA / "pbc" / "train", DATA / "raabin"):
        listing = list_image_folder(folder)
        rows = np.random.RandomState(0).permutation(len(listing.paths))[:n_images]
        images = ImageLoader(192).transform(listing.paths[rows])
        for name, method in METHODS.items():
            found = defaultdict(list)
            for image, label in zip(images, listing.target[rows], strict=True):
                cells = method(image)
                middle = covered(cells, image.shape)[86:106, 86:106].any()
                found[label].append((len(cells) == 1 and middle, middle))
            shares = {
                str(label): "{:.2f}, centre {:.2f}".format(*np.mean(each, axis=0))
                for label, each in sorted(found.items())
            }
            print(f"{folder.parent.name}/{folder.name}, {name}: {shares}")


def all_of(method, images):
    """Find the cells of a batch, one picture after the other."""
    return [method(image) for image in images]


def speed():
    """Print images and fields a second, of one process and of one for each core."""
    cv2.setNumThreads(1)
    paths = list_image_folder(DATA / "blood-cells" / "TRAIN").paths
    crops = ImageLoader((240, 320), n_jobs=1).transform(paths[:: len(paths) // 128][:128])
    paths = [str(path) for path in sorted((DATA / "bccd" / "JPEGImages").iterdir())[:64]]
    fields = ImageLoader((480, 640), n_jobs=1).transform(paths)
    for images in (crops, fields):
        contestants = {name: partial(all_of, method, images) for name, method in METHODS.items()}
        table(f"{images.shape}, one process", contestants, len(images))
    n_cores = os.cpu_count() or 1
    cropper = CellCropper("cell", n_jobs=1).fit(crops[:2])
    find_all = partial(all_of, find_cells)
    print()
    for name, function, images in (
        ("find_cells, one by one", find_all, crops),
        ("CellCropper, which finds them 16 at a time and cuts", cropper.transform, crops),
        ("find_cells, one by one", find_all, fields),
    ):
        parts = np.array_split(images, n_cores)
        seconds = []
        with Parallel(n_cores) as pool:
            for _ in range(6):  # the first one starts the processes
                start = time.perf_counter()
                pool(delayed(function)(part) for part in parts)
                seconds.append(time.perf_counter() - start)
        rate = len(images) / statistics.median(seconds[1:])
        print(f"{name}, {images.shape}, {n_cores} processes: {rate:,.0f} a second")
    threads = CellCropper("cell").fit(crops[:2])
    seconds = times({"threads": lambda: threads.transform(crops)})["threads"]
    rate = len(crops) / statistics.median(seconds)
    print(f"CellCropper, {crops.shape}, {n_cores} threads of one process: {rate:,.0f} a second")


def changed():
    """Print how like the cells of changed pictures are to those of the unchanged ones."""

    def zoomed(factor):
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        return partial(cv2.resize, dsize=None, fx=factor, fy=factor, interpolation=method)

    def lit(*light):
        return lambda image: np.clip(np.rint(image * np.array(light)), 0, 255).astype(np.uint8)

    def jpeg(image):
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)

    changes = {
        **{f"{factor:.0%} of the size": zoomed(factor) for factor in (0.4, 0.6, 1.5, 2.5)},
        "red 100, green 88, blue 70%": lit(1, 0.88, 0.7),
        "red 75, green 90, blue 100%": lit(0.75, 0.9, 1),
        **{f"exposure {share}": lit(share) for share in (0.6, 0.8, 1.3)},
        "gamma 0.7": lambda image: np.rint(255 * (image / 255) ** 0.7).astype(np.uint8),
        "gamma 1.4": lambda image: np.rint(255 * (image / 255) ** 1.4).astype(np.uint8),
        "JPEG quality 50": jpeg,
        "blur, sigma 1": partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=1),
        "blur, sigma 2": partial(cv2.GaussianBlur, ksize=(0, 0), sigmaX=2),
    }
    folders = ("bcisc/images", "blood-cells/TRAIN", "pbc/train", "raabin")
    print("\nChanged pictures: Dice with the cells of the unchanged one, mean (share under 0.7)\n")
    print(f"| | {' | '.join(folders)} |\n|---|---|---|---|---|")
    images = []
    for folder in folders:
        paths = sorted((DATA / folder).rglob("*.jp*g"))
        sizes = {"bcisc/images": 256, "blood-cells/TRAIN": (240, 320), "pbc/train": 128}
        some = [str(path) for path in paths[:: len(paths) // 30] if path.parent.name != "platelet"]
        images.append(ImageLoader(sizes.get(folder, 192)).transform(some))
    for name, change in changes.items():
        columns = []
        for batch in images:
            scores = []
            for image in batch:
                before = covered(find_cells(image), image.shape)
                other = change(image)
                after = covered(find_cells(other), other.shape).astype(np.uint8)
                method = cv2.INTER_AREA if after.size > before.size else cv2.INTER_LINEAR
                after = cv2.resize(255 * after, before.shape[::-1], interpolation=method) > 127
                if before.any():
                    scores.append(2 * (before & after).sum() / (before.sum() + after.sum()))
            columns.append(f"{np.mean(scores):.3f} ({np.mean(np.array(scores) < 0.7):.2f})")
        print(f"| {name} | {' | '.join(columns)} |", flush=True)


def find_in_file(path, side, pipe):
    """Send the cells that a scan in a file has, and the memory of this process, in MB."""
    peak, done = [status("RssAnon")], threading.Event()

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], status("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    before = peak[0]
    cells = find_cells(np.memmap(path, np.uint8, "r", shape=(side, side, 3)))
    done.set()
    watcher.join()
    pipe.send((len(cells), before, peak[0], status("VmHWM")))


def scan(side=20_000):
    """Print time and memory for one scan as large as a slide: a file of BCCD fields side by side.

    Resident memory also counts pages of the file, which the system drops when it needs the room.
    """
    paths = [str(path) for path in sorted((DATA / "bccd" / "JPEGImages").iterdir())]
    fields = ImageLoader((480, 640)).transform(paths)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scan"
        picture = np.memmap(path, np.uint8, "w+", shape=(side, side, 3))
        starts = product(range(0, side, 480), range(0, side, 640))
        for number, (top, left) in enumerate(starts):
            part = picture[top : top + 480, left : left + 640]
            part[:] = fields[number % len(fields), : part.shape[0], : part.shape[1]]
        picture.flush()
        del picture
        receiver, sender = get_context("spawn").Pipe(duplex=False)
        start = time.perf_counter()
        process = get_context("spawn").Process(target=find_in_file, args=(path, side, sender))
        process.start()
        n_cells, before, peak, resident = receiver.recv()
        process.join()
    seconds = time.perf_counter() - start
    print(
        f"\nA scan of {side} x {side} pixels: {n_cells} cells, {seconds:.0f} s with the start of "
        f"Python, {seconds / side**2 * 1e6:.2f} s a megapixel; own memory at most {peak:,.0f} MB "
        f"({before:,.0f} before), with pages of the file {resident:,.0f} MB"
    )


if __name__ == "__main__":
    outlines()
    boxes()
    centres()
    changed()
    speed()
    scan()

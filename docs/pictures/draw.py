"""Draw the pictures of the README and the documentation: `make pictures`, half a minute.

All cells are drawn by make_blood_cells, and every step has a seed.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from PIL import Image

from wbcclf import (
    SMOTE,
    Augmenter,
    Cell,
    CellCropper,
    SimpleCNNClassifier,
    find_cells,
    make_blood_cells,
)
from wbcclf.backbones import describe
from wbcclf.inspection import plot_confusion

HERE = Path(__file__).parent
# Distinct for colour-blind readers: Wong 2011, https://doi.org/10.1038/nmeth.1618
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#595959"
WIDTH = 8.4  # inches: the column of a README at 100 pixels an inch
SIZE = 256  # pixels of a cell, more than are shown: shrinking takes the noise out of the files
LONG_NAMES = {"ig": "immature\ngranulocyte"}


def save(figure: Figure, name: str) -> None:
    """Write a PNG with a palette, which takes a third of the space of true colours."""
    buffer = BytesIO()
    figure.savefig(buffer, dpi=150, facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    # MAXCOVERAGE keeps the colours that few pixels have, those of nuclei and letters.
    method = Image.Quantize.MAXCOVERAGE
    picture = picture.quantize(256, method, kmeans=2, dither=Image.Dither.NONE)
    picture.save(HERE / f"{name}.png", optimize=True)


def show_cell(ax: Axes, image: np.ndarray, title: str = "") -> None:
    """Show one image without axes."""
    ax.imshow(image, interpolation="lanczos")
    ax.set_axis_off()
    ax.set_title(title, fontsize=11, loc="left")


def draw_cells() -> None:
    """Draw synthetic cells of every class."""
    n_each, n_classes = 3, 8
    cells = make_blood_cells(n_each * n_classes, n_classes, image_size=SIZE, random_state=5)
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.subplots(n_each, n_classes)
    for column, name in zip(axes.T, cells.target_names, strict=True):
        for ax, image in zip(column, cells.images[cells.target == name], strict=True):
            show_cell(ax, image)
        column[0].set_title(LONG_NAMES.get(name, name), fontsize=10, verticalalignment="bottom")
    save(figure, "cells")


def draw_samplers() -> None:
    """Draw what Augmenter and SMOTE make of one cell."""
    n_cells, n_shown, row = 12, 4, 1
    cells = make_blood_cells(
        classes=["eosinophil", "neutrophil"],
        imbalance={"eosinophil": n_cells, "neutrophil": 20 * n_cells},
        image_size=SIZE,
        random_state=7,
    )
    source = np.flatnonzero(cells.target == "eosinophil")[row]
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots(2, 2 + n_shown)

    target = {"eosinophil": n_cells * (2 + n_shown)}
    augmenter = Augmenter(sampling_strategy=target, random_state=0)
    images, _ = augmenter.fit_resample(cells.images, cells.target)
    shown = images[augmenter.sample_indices_ == source]
    titles = ["a cell", "Augmenter: copies", "", "", "", ""]
    for ax, image, title in zip(axes[0], shown, titles, strict=True):
        show_cell(ax, image, title)

    smote = SMOTE(k_neighbors=1, random_state=0)
    images, _ = smote.fit_resample(cells.images, cells.target)
    made = np.flatnonzero(smote.sample_pairs_[:, 0] == source)
    base, neighbour = cells.images[smote.sample_pairs_[made[0]]]
    synthetic = images[len(cells.images) + made]
    distances = np.abs(synthetic.astype(int) - base).sum(axis=(1, 2, 3))
    places = np.linspace(0, len(made) - 1, n_shown + 2)[1:-1]
    picked = np.argsort(distances)[places.round().astype(int)]
    titles = ["the same cell", "SMOTE: synthetic", "", "", "", "its neighbour"]
    for ax, image, title in zip(
        axes[1], [base, *synthetic[picked], neighbour], titles, strict=True
    ):
        show_cell(ax, image, title)
    save(figure, "samplers")


def outline(ax: Axes, mask: np.ndarray, cell: Cell, colour: str) -> None:
    """Draw the outline of a mask of a cell into its picture."""
    top, left = cell.bbox[:2]
    padded = np.pad(mask, 1).astype(float)
    rows, columns = (np.arange(side) - 1 for side in padded.shape)
    ax.contour(columns + left, rows + top, padded, levels=[0.5], colors=[colour], linewidths=1)


def draw_cuts() -> None:
    """Draw cells with their outlines, and how CellCropper cuts them."""
    names = ["basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil"]
    pictures = make_blood_cells(10, classes=names, image_size=SIZE, random_state=4).images
    titles = {"keep": "cut", "normalise": "one light", "remove": "no background"}
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots(1 + len(titles), len(pictures))
    for ax, picture in zip(axes[0], pictures, strict=True):
        show_cell(ax, picture)
        for cell in find_cells(picture):
            outline(ax, cell.cell, cell, ORANGE)
            outline(ax, cell.nucleus, cell, BLUE)
    for row, background in zip(axes[1:], titles, strict=True):
        cropper = CellCropper(background=background, image_size=SIZE // 2)
        for ax, square in zip(row, cropper.fit_transform(pictures), strict=True):
            show_cell(ax, square)
    for row, title in zip(axes, ["found", *titles.values()], strict=True):
        row[0].set_title(title, fontsize=11, loc="left")
    save(figure, "cuts")


def draw_training() -> None:
    """Draw the curve of one training, and the confusion matrix on cells it has not seen."""
    cells = make_blood_cells(1000, 8, image_size=48, random_state=0)
    train, watched, test = slice(500), slice(500, 700), slice(700, None)
    model = SimpleCNNClassifier(
        max_epochs=20, lr=3e-3, early_stopping=True, device="cpu", random_state=0
    )
    model.fit(
        cells.images[train],
        cells.target[train],
        X_val=cells.images[watched],
        y_val=cells.target[watched],
    )
    history = model.history_
    epochs = [entry["epoch"] for entry in history]
    best = min(history, key=lambda entry: entry["valid_loss"])["epoch"]

    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    losses, accuracy = figure.subplots(1, 2)
    losses.plot(epochs, [e["train_loss"] for e in history], "o-", color=BLUE, markersize=4)
    losses.plot(epochs, [e["valid_loss"] for e in history], "s--", color=ORANGE, markersize=4)
    losses.text(best + 0.4, 0.30, "validation cells", color=ORANGE, fontsize=11)
    losses.text(best + 0.4, 0.06, "training cells", color=BLUE, fontsize=11)
    losses.set(title="Loss", xlabel="epoch", ylim=(0, None))
    accuracy.plot(epochs, [e["valid_acc"] for e in history], "s--", color=ORANGE, markersize=4)
    accuracy.set(title="Accuracy on validation cells", xlabel="epoch", ylim=(0, 1))
    accuracy.text(best - 0.4, 0.06, f"kept: epoch {best}", color=GREY, fontsize=11, ha="right")
    for ax in (losses, accuracy):
        ax.axvline(best, color=GREY, linewidth=1, linestyle=":")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    save(figure, "training_curve")

    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    predicted = model.predict(cells.images[test])
    plot_confusion(cells.target[test], predicted, ax=figure.add_subplot())
    save(figure, "confusion_matrix")


def draw_chain() -> None:
    """Draw a backbone as a chain of blocks, with its cut."""
    n_trained = 2
    blocks = describe("resnet18").blocks
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    ax = figure.add_subplot()
    ax.set(xlim=(-14, 102.5), ylim=(-24, 21), aspect="equal")
    ax.set_axis_off()
    cell = make_blood_cells(2, 2, image_size=SIZE, random_state=2).images[0]
    ax.imshow(cell, extent=(-13.5, -1.5, -6, 6), interpolation="lanczos")
    first, width, gap, wide_gap, top = 3.5, 5.6, 1.5, 6.0, 12.5
    ax.text(first - 1.5, top + 1.5, "unfrozen_layers =", ha="right", fontsize=10, color=GREY)
    x = first
    for block in blocks:
        frozen = block.unfrozen_layers > n_trained
        if block.unfrozen_layers == n_trained:
            cut = x - gap + wide_gap / 2
            x += wide_gap - gap
        height = 4 + 4 * np.log2(block.output_shape[1] / 3.5)  # a step for each halving in size
        box(ax, x, width, height, BLUE if frozen else ORANGE, block.name.replace("_", "\n"))
        number = str(block.unfrozen_layers)
        ax.text(x + width / 2, top + 1.5, number, ha="center", fontsize=10, color=GREY)
        x += width + gap
    end = x - gap
    head = end + 7.0
    box(ax, head, width, 8, GREEN, "head")
    for start, stop in ((-1.5, first), (end, head), (head + width, head + width + 5)):
        arrow = {"arrowstyle": "->", "linewidth": 1.5}
        ax.annotate("", (stop - 0.2, 0), (start + 0.2, 0), arrowprops=arrow)
    ax.text(head + width + 5.5, 0, "a probability\nfor each class", va="center", fontsize=10)
    ax.plot([cut, cut], [-22, 16], color="black", linestyle="--", linewidth=1.5)
    ax.text(cut, 17, "cut", ha="center", fontsize=11)
    for left, right, colour, text in (
        (first, cut - wide_gap / 2, BLUE, "frozen prefix\nnever changes: computed once per image"),
        (cut + wide_gap / 2, end, ORANGE, "trainable suffix\nlast 2 blocks"),
        (head, head + width, GREEN, "head\nalways trained"),
    ):
        ax.plot([left, right], [-14, -14], color=colour, linewidth=3, solid_capstyle="butt")
        ax.text((left + right) / 2, -16, text, color=colour, fontsize=10, ha="center", va="top")
    save(figure, "chain")


def box(ax: Axes, x: float, width: float, height: float, colour: str, text: str) -> None:
    """Draw one block with its name."""
    ax.add_patch(Rectangle((x, -height / 2), width, height, facecolor=colour, edgecolor="white"))
    ax.text(
        x + width / 2, 0, text, rotation=90, color="white", fontsize=8, ha="center", va="center"
    )


if __name__ == "__main__":
    draw_cells()
    draw_samplers()
    draw_cuts()
    draw_training()
    draw_chain()

"""Count the white cells of a field by class, and draw what was found.

Run: python examples/count_a_field.py

The field is laid together from drawn cells, each in its own light, which no real field is. So some
are missed, and some are given the wrong class. The model is trained on cells that are cut in the
same way as `count_cells` cuts them.
"""

import warnings

import numpy as np
from PIL import Image
from sklearn.pipeline import make_pipeline

from wbcclf import CellCropper, ImageLoader, SimpleCNNClassifier, count_cells, make_blood_cells

CLASSES = ["lymphocyte", "neutrophil", "monocyte"]
cells = make_blood_cells(120, CLASSES, image_size=160, random_state=0)
model = make_pipeline(
    ImageLoader(48, crop=CellCropper("cell", background="normalise")),
    SimpleCNNClassifier(max_epochs=8, lr=3e-3, random_state=0),
)
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="No white cell was found")  # in six of 120 drawings
    model.fit(cells.images, cells.target)

new = make_blood_cells(12, CLASSES, image_size=160, random_state=1)
rows = [np.concatenate(list(new.images[row : row + 4]), axis=1) for row in (0, 4, 8)]
Image.fromarray(np.concatenate(rows)).save("field.png")
count = count_cells(model, ["field.png"], overlay_dir="overlay")
for row in zip(*(count.table[name] for name in ("class", "cells", "percent")), strict=True):
    print(*row)
truth = dict(zip(*np.unique(new.target, return_counts=True), strict=True))
print("drawn:", *(f"{name} {truth[name]}" for name in sorted(truth)))
Image.open("overlay/field.png.overlay.jpg").save("count_a_field.png")

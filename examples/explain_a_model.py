"""Find out that a network goes by a mark, not by the cell.

Run: python examples/explain_a_model.py

The classes are drawn at random, so no cell tells its class. A small green mark in the corner does.
Its accuracy is perfect; the maps show why it cannot be trusted.
"""

import warnings

import numpy as np

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.inspection import explain


def marked(n_cells, seed):
    """Return cells with random classes; those called "marked" have a mark."""
    images = make_blood_cells(n_cells, classes=2, image_size=64, random_state=seed).images
    target = np.random.RandomState(seed).choice(["marked", "plain"], n_cells)
    images[target == "marked", :10, :10] = 40, 160, 60
    return images, target


model = SimpleCNNClassifier(max_epochs=8, random_state=0).fit(*marked(100, 0))
images, target = marked(28, 1)
print(f"accuracy {model.score(images, target):.2f}")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the same text as found.warning
    found = explain(model, images)
print(found.warning)
rows = np.flatnonzero(target == "marked")[:4]
found.plot(rows).savefig("explain_a_model.png")

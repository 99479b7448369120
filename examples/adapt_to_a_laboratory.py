"""Make a model fit another laboratory from 50 of its cells.

Run: python examples/adapt_to_a_laboratory.py

The other laboratory's pictures are darker and yellower. `adapt` compares the old and the new
model on cells that it left out, and keeps the better one. The test below is on 100 further cells.
"""

import warnings

import numpy as np

from wbcclf import SimpleCNNClassifier, adapt, make_blood_cells
from wbcclf.exceptions import UnfamiliarImagesWarning
from wbcclf.inspection import evaluate

home = make_blood_cells(240, classes=3, image_size=32, random_state=0)
model = SimpleCNNClassifier(max_epochs=8, lr=3e-3, random_state=0).fit(home.images, home.target)

away = make_blood_cells(150, classes=3, image_size=32, random_state=1)
images = (255 * (away.images / 255) ** 1.8 * [1.0, 0.7, 0.5]).astype(np.uint8)
adapted = adapt(model, images[:50], away.target[:50])
print(adapted.adaptation_)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UnfamiliarImagesWarning)  # that the old one will be wrong
    before = evaluate(model, images[50:], away.target[50:])
after = evaluate(adapted, images[50:], away.target[50:])
for name, result in {"before": before, "after": after}.items():
    low, high = result.accuracy_interval
    print(f"{name}: accuracy {result.accuracy:.2f} ({low:.2f} to {high:.2f})")
after.plot_confusion().figure.savefig("adapt_to_a_laboratory.png")

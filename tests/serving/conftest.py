"""What the tests of this room share: a small model that cuts cells out, and pictures."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from wbcclf import CellCropper, ImageLoader, SimpleCNNClassifier, find_cells, make_blood_cells


@pytest.fixture(scope="package")
def cells():
    """Return pictures, 64 pixels wide, in which a cell is found."""
    cells = make_blood_cells(104, classes=2, image_size=64, random_state=0)
    found = [len(find_cells(image)) > 0 for image in cells.images]
    return cells.images[found], cells.target[found]


@pytest.fixture(scope="package")
def model(cells):
    images, target = (each[:56] for each in cells)
    loader = ImageLoader(image_size=32, crop=CellCropper("nucleus"))
    clf = SimpleCNNClassifier(max_epochs=4, device="cpu", random_state=0)
    return make_pipeline(loader, clf).fit(images, target)


@pytest.fixture(scope="package")
def new(cells):
    """Return pictures that the model has not seen, and their classes."""
    images, target = (each[56:] for each in cells)
    assert len(np.unique(target[:20])) == 2
    return images, target

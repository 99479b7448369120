"""What the tests of this room share."""

import pytest

from wbcclf import SimpleCNNClassifier, make_blood_cells


@pytest.fixture(scope="session")
def cells():
    return make_blood_cells(60, classes=3, image_size=16, random_state=0)


@pytest.fixture(scope="session")
def clf():
    return SimpleCNNClassifier(device="cpu", batch_size=16, random_state=0)

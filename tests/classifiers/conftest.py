"""Small images, small networks: what the tests of the classifiers share."""

import numpy as np
import pytest
import torch

from wbcclf import SimpleCNNClassifier, make_blood_cells
from wbcclf.backbones import BackboneSpec, _registry, get_backbone


@pytest.fixture(scope="session")
def cells():
    """36 synthetic cells of 3 classes, 16 x 16 pixels; read-only, so that no test changes them."""
    cells = make_blood_cells(36, classes=3, image_size=16, random_state=0)
    cells.images.flags.writeable = False
    return cells


@pytest.fixture(scope="session")
def simple():
    """Return a maker of quick SimpleCNNClassifiers on the CPU."""

    def make(**params):
        quick = {"device": "cpu", "max_epochs": 2, "batch_size": 16, "random_state": 0}
        return SimpleCNNClassifier(**(quick | params))

    return make


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """Return a maker of files with (random) weights of a backbone, under the original's keys."""
    folder = tmp_path_factory.mktemp("weights")

    def make(backbone):
        path = folder / f"{backbone}.pt"
        if not path.exists():
            with torch.random.fork_rng():
                torch.manual_seed(1)
                torch.save(get_backbone(backbone).build().state_dict(), path)
        return path

    return make


@pytest.fixture
def tiny(monkeypatch):
    """Register the backbone "tiny": two blocks with everything that changes while training."""

    def build():
        network = torch.nn.Module()
        for number, n_in in enumerate((3, 4), start=1):
            layers = torch.nn.Sequential(
                torch.nn.Conv2d(n_in, 4, 3, stride=2),
                torch.nn.BatchNorm2d(4),
                torch.nn.Dropout(0.5),
            )
            network.add_module(f"block{number}", layers)
        return network

    spec = BackboneSpec(
        name="tiny",
        build=build,
        blocks=lambda network: dict(network.named_children()),
        input_size=16,
        smallest_size=7,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        paper="none",
        version="1",
    )
    monkeypatch.setitem(_registry._BACKBONES, "tiny", spec)
    return "tiny"


@pytest.fixture(scope="session")
def cross_entropy():
    """Return the mean negative log-likelihood of true labels under a classifier."""

    def loss(clf, X, y):
        likelihood = clf.predict_proba(X)[np.arange(len(y)), np.searchsorted(clf.classes_, y)]
        return -np.log(likelihood).mean()

    return loss

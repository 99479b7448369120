"""Every warning names the line that called us, not one of ours or of a library in between."""

import resource
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.model_selection import cross_val_score
from skorch.callbacks import Callback

from wbcclf import CNNClassifier, DeepFeatures, GradualUnfreezing, make_blood_cells
from wbcclf.backbones import get_backbone

SITUATIONS = {}


def situation(match):
    """Register a function that returns a call, its arguments, and a context to make it in."""

    def register(function):
        SITUATIONS[function.__name__] = (function, match)
        return function

    return register


@contextmanager
def no_room():
    """Let no file grow beyond some bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Place:
    """What the situations have at hand."""

    def __init__(self, simple, tiny, cells, weights_file, registry, folder):
        self.simple, self.tiny, self.registry, self.folder = simple, tiny, registry, folder
        self.data = (cells.images, cells.target)
        self.weights = weights_file("simple_cnn")
        self.weights_of_tiny = weights_file(tiny)

    def change_tiny(self, **change):
        self.registry[self.tiny] = replace(get_backbone(self.tiny), **change)

    def change_block(self, number, change):
        """Change the code of a block of "tiny"."""
        build = get_backbone(self.tiny).build

        def build_changed():
            network = build()
            change(getattr(network, f"block{number}"))
            return network

        self.change_tiny(build=build_changed, version="changed")

    def frozen(self, **params):
        return self.simple(**{"weights": self.weights, "unfrozen_layers": 1} | params)

    def frozen_tiny(self, **params):
        quick = {"weights": self.weights_of_tiny, "device": "cpu", "max_epochs": 2}
        quick |= {"random_state": 0, "unfrozen_layers": 1}
        return CNNClassifier(self.tiny, **quick | params)


# ---------------------------------------------------------------- training


@situation("frozen at random weights")
def frozen_at_random(place):
    return place.simple(unfrozen_layers=1, max_epochs=1).fit, *place.data


@situation("frozen at random weights")
def in_a_pipeline(place):
    clf = place.simple(unfrozen_layers=1, max_epochs=1)
    return Pipeline([("clf", clf)]).fit, *place.data


@situation("frozen at random weights")
def in_a_cross_validation(place):
    clf = place.simple(unfrozen_layers=1, max_epochs=1)
    return cross_val_score, clf, *place.data


@situation("frozen at random weights")
def partial_fit(place):
    return place.simple(unfrozen_layers=1).partial_fit, *place.data


@situation("tensors of tiny (block2")
def half_a_file(place):
    state = torch.load(place.weights_of_tiny, weights_only=True)
    path = place.folder / "half.pt"
    torch.save({key: tensor for key, tensor in state.items() if key.startswith("block1")}, path)
    return place.frozen_tiny(weights=path, max_epochs=1).fit, *place.data


@situation("reaches 0 of the 5 blocks")
def unfreezing_too_slowly(place):
    return place.simple(unfrozen_layers=GradualUnfreezing(epochs_per_layer=2)).fit, *place.data


@situation("interrupted in epoch 1")
def interrupted(place):
    class Interrupt(Callback):
        def on_batch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    return place.simple(callbacks=[Interrupt()]).fit, *place.data


@situation("has learnt nothing")
def nothing_learnt(place):
    return place.simple(lr=1e-7, batch_size=4, max_epochs=6).fit, *place.data


@situation("36 of the 36 images of X_val are in X")
def validated_on_what_is_trained_on(place):
    return place.simple(max_epochs=1).fit, *place.data, None, *place.data


# ---------------------------------------------------------------- activations, kept trainings


@situation("do not give an image the same features")
def no_function_of_the_image(place):
    def change(block):
        block[1] = torch.nn.BatchNorm2d(4, track_running_stats=False)

    place.change_block(1, change)
    return place.frozen_tiny(weights=None).fit, *place.data


@situation("No room for the activations")
def no_room_for_activations(place):
    return place.frozen(cache_gb=1e-9).fit, *place.data, no_room()


@situation("Nothing more is kept in")
def no_room_in_the_store(place):
    return place.frozen(memory=place.folder).fit, *place.data, no_room()


@situation("The training is not kept in")
def no_room_for_a_training(place):
    return place.simple(memory=place.folder).fit, *place.data, no_room()


@situation("Damaged files in")
def damaged_entries(place):
    place.frozen(memory=place.folder).fit(*place.data)
    for path in place.folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    return place.frozen(memory=place.folder).fit, *place.data


class OwnTensor(torch.Tensor):
    """Its class is not read from a file."""


@situation("A kept training cannot be read")
def a_training_with_objects(place):
    def change(block):
        block.register_buffer("own", torch.zeros(1).as_subclass(OwnTensor), persistent=True)

    place.change_block(2, change)
    params = {"weights": None, "unfrozen_layers": "all", "memory": place.folder}
    place.frozen_tiny(**params).fit(*place.data)
    return place.frozen_tiny(**params).fit, *place.data


class Own:
    """A backbone in an object of the user's class, which cannot be pickled."""

    def __init__(self, spec):
        self.spec = lambda: spec


@situation("The training is not kept: the parameter backbone cannot be pickled")
def a_backbone_without_a_digest(place):
    place.change_tiny(version="1")
    clf = place.frozen_tiny(memory=place.folder)
    return clf.set_params(backbone=Own(get_backbone(place.tiny))).fit, *place.data


@situation("Nothing of the backbone 'tiny' is kept")
def no_version(place):
    place.change_tiny(version=None)
    return place.frozen_tiny(memory=place.folder).fit, *place.data


# ---------------------------------------------------------------- predicting


@situation("'cuda:99' is not available")
def predicting_without_the_gpu(place):
    clf = place.simple(max_epochs=1).fit(*place.data)
    return clf.set_params(device="cuda:99").predict, place.data[0]


@situation("'cuda:99' is not available")
def features_without_the_gpu(place):
    features = DeepFeatures("simple_cnn", weights=None, device="cpu").fit(place.data[0])
    return features.set_params(device="cuda:99").transform, place.data[0]


@situation("predicting without it")
def predicting_without_the_folder(place):
    clf = place.frozen(memory=place.folder / "memory").fit(*place.data)
    (place.folder / "file").touch()
    return clf.set_params(memory=place.folder / "file" / "memory").predict, place.data[0]


@situation("do not look like those that the model was trained on")
def predicting_another_laboratory(place):
    home = make_blood_cells(60, classes=2, image_size=16, random_state=0)
    clf = place.simple(max_epochs=1).fit(home.images, home.target)
    return clf.predict, 255 - home.images


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_warning_is_at_the_line_of_the_caller(
    name, simple, tiny, cells, weights_file, registry, tmp_path
):
    make, match = SITUATIONS[name]
    call, *args = make(Place(simple, tiny, cells, weights_file, registry, tmp_path))
    context = args.pop() if hasattr(args[-1], "__enter__") else warnings.catch_warnings()
    with warnings.catch_warnings(record=True) as caught, context:
        warnings.simplefilter("always")
        line = sys._getframe().f_lineno + 1
        call(*args)
    assert any(match in str(warning.message) for warning in caught)
    assert {(warning.filename, warning.lineno) for warning in caught} == {(__file__, line)}

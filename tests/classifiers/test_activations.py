"""Activations of frozen blocks are computed once, and change nothing but the time."""

import dataclasses
import subprocess
import sys
import tempfile
from contextlib import ExitStack

import joblib
import numpy as np
import pytest
import torch
import torch.nn.modules.module as module_hooks
from imblearn.pipeline import Pipeline
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch.callbacks import Callback
from torch.optim.optimizer import register_optimizer_step_pre_hook

from wbcclf import (
    SMOTE,
    Augmenter,
    Cache,
    CNNClassifier,
    ConvNet,
    CrossEntropy,
    EarlyStopping,
    GradualUnfreezing,
    Head,
    Optimizer,
    make_blood_cells,
)
from wbcclf.backbones import _registry, get_backbone
from wbcclf.classifiers.caching._activations import N_TOGETHER, FrozenPart
from wbcclf.classifiers.data._batches import BLOCK_BYTES

# Where validation images are training images, too, what is measured on them matters to no one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*frozen at random weights"),
    pytest.mark.filterwarnings("ignore:.*images of X_val are in X, too"),
]

# One network of every family: its smallest images, and what to train of it. `make families` takes
# those that are slow.
FAMILIES = [
    ("simple_cnn", 16, 1),
    ("mlp", 16, 2),
    ("wide_deep", 24, 0),
    ("resnet18", 32, 2),
    ("squeezenet1_1", 32, 2),
    ("mobilenet_v3_small", 32, 2),
    ("timm:test_vit", 160, 1),
]
SLOW_FAMILIES = [
    ("sepconv", 16, 3),
    ("vgg16", 32, 2),
    ("densenet121", 32, 1),
    ("inception_v3", 75, 1),
    ("efficientnet_b0", 32, 2),
    ("convnext_tiny", 32, 1),
    ("xception", 71, 1),
]


@pytest.fixture(scope="module")
def many():
    """One batch of images that run through the frozen blocks together."""
    return make_blood_cells(N_TOGETHER, classes=2, image_size=16, random_state=0)


def make(backbone="simple_cnn", **params):
    quick = {"weights": None, "device": "cpu", "max_epochs": 2}
    quick |= {"random_state": 0, "unfrozen_layers": 1}
    return CNNClassifier(backbone, **(quick | params))


@pytest.fixture
def runs():
    """Note every batch that runs through frozen blocks alone: what it is, and how many stages.

    Seen by torch's hooks for all modules: calls that no other module makes, on as many images as
    are computed together, each with the output of the one before. Images that only the
    preprocessing has seen are described and go through no block.
    """
    found, calls, last, first = [], [], [None], []

    def enter(module, inputs):
        is_next = inputs and inputs[0] is last[0]
        if not calls and (is_next or [x.ndim for x in inputs] == [4]):
            x = inputs[0]
            if is_next and first:
                found.append((first.pop(), 1))
            elif is_next:
                found[-1] = (found[-1][0], found[-1][1] + 1)
            elif len(x) == N_TOGETHER and x.shape[-1] == 3:
                first[:] = ["images"]
            elif len(x) == N_TOGETHER:
                first.clear()
                found.append(("activations", 1))
        calls.append(module)

    def leave(module, inputs, output):
        calls.pop()
        if not calls:
            last[0] = output if inputs and len(output) == N_TOGETHER else None

    with (
        module_hooks.register_module_forward_pre_hook(enter),
        module_hooks.register_module_forward_hook(leave, always_call=True),
    ):
        yield found


def assert_same(one, other, X):
    """Compare two classifiers bit for bit."""
    losses = [[epoch["train_loss"] for epoch in clf.history_] for clf in (one, other)]
    assert losses[0] == losses[1]
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    for name, tensor in one.net_.module_.state_dict().items():
        assert torch.equal(tensor, other.net_.module_.state_dict()[name]), name


@pytest.mark.parametrize(
    ("backbone", "size", "unfrozen"),
    [*FAMILIES, *(pytest.param(*each, marks=pytest.mark.families) for each in SLOW_FAMILIES)],
)
def test_every_family_trains_bit_for_bit_the_same(backbone, size, unfrozen, runs):
    cells = make_blood_cells(N_TOGETHER, classes=2, image_size=size, random_state=0)
    for unfrozen_layers in {0, unfrozen}:
        params = {"unfrozen_layers": unfrozen_layers, "head": Head(dropout=0.5)}
        plain = make(backbone, **params, cache_gb=0).fit(cells.images, cells.target)
        assert not runs
        kept = make(backbone, **params).fit(cells.images, cells.target)
        assert len(runs) == 1
        assert_same(plain, kept, cells.images[:4])  # of the same tensors: a few will do
        runs.clear()


@pytest.mark.parametrize(
    "params",
    [
        {"precision": "bfloat16"},
        {"early_stopping": EarlyStopping(patience=1, validation_fraction=0.25)},
        {"unfrozen_layers": GradualUnfreezing(4), "max_epochs": 4},
        {"unfrozen_layers": GradualUnfreezing(3), "max_epochs": 2},
        {
            "averaging": 0.5,
            "class_weight": {"lymphocyte": 1, "neutrophil": 3},
            "optimizer": Optimizer(layer_lr_decay=0.5),
            "loss": CrossEntropy(l2=1e-3),
        },
        {"balanced_batches": True, "head": Head("max", hidden=(8,), batch_norm=True)},
        {"unfrozen_layers": 0, "head": Head("flatten", hidden=(8,))},
        {"input_size": 24},
    ],
    ids=lambda params: "-".join(params),
)
@pytest.mark.filterwarnings("ignore:GradualUnfreezing")
def test_options_work_on_kept_activations(params, many, runs):
    # Batches of 8 of 24 images, or of all 32: as many as others give the same rounding here,
    # where the images are of 16 pixels and 1 thread computes. Bit for bit, then.
    weight = np.linspace(0.5, 2, len(many.target))
    plain = make(**(params | {"cache_gb": 0})).fit(many.images, many.target, weight)
    assert not runs
    kept = make(**params).fit(many.images, many.target, weight)
    assert runs
    np.testing.assert_allclose(
        [epoch["train_loss"] for epoch in plain.history_],
        [epoch["train_loss"] for epoch in kept.history_],
        rtol=1e-5,
    )
    # The last batch of 24 is not of 32, which rounds in another way: some 1e-6 in an activation
    # (float32 has 1e-7, sums of hundreds), ten times that in a probability.
    np.testing.assert_allclose(
        plain.predict_proba(many.images), kept.predict_proba(many.images), atol=1e-5
    )


def test_what_is_kept_of_a_wholly_frozen_network_is_pooled(many):
    maps, vectors = (
        FrozenPart(make(unfrozen_layers=n).fit(many.images, many.target).net_) for n in (1, 0)
    )
    assert len(maps.forms[-1][0]) == 3
    assert len(vectors.forms[-1][0]) == 1
    assert vectors.row_bytes() == 4 * vectors.network.head[-1].in_features


def test_dropout_and_batch_norm_of_frozen_blocks_stay_out_of_it(tiny, many):
    plain = make(tiny, cache_gb=0, head=Head(dropout=0.5)).fit(many.images, many.target)
    kept = make(tiny, head=Head(dropout=0.5)).fit(many.images, many.target)
    assert_same(plain, kept, many.images)
    again = make(tiny, head=Head(dropout=0.5)).fit(many.images, many.target)
    assert_same(plain, again, many.images)


def test_changed_images_are_not_kept_but_validation_images_are(many, runs):
    validation = {"X_val": many.images, "y_val": many.target}
    for params in ({"augment": Augmenter()}, {"mixing": "mixup"}, {"mixing": "cutmix"}):
        make(**params).fit(many.images, many.target)
        assert not runs
        make(**params).fit(many.images, many.target, **validation)
        assert len(runs) == 1
        runs.clear()


def test_without_frozen_blocks_nothing_is_kept(many, tmp_path, runs):
    make(unfrozen_layers="all").fit(many.images, many.target)
    make(unfrozen_layers="all", memory=tmp_path).fit(many.images, many.target)
    assert not runs


def test_one_epoch_needs_no_cache(many, runs):
    make(max_epochs=1).fit(many.images, many.target)
    make().partial_fit(many.images, many.target)
    assert not runs


@pytest.fixture
def spilled(tmp_path, monkeypatch):
    """Return a list of callbacks that note the sizes of the files with activations, and the notes.

    The files lie in `tmp_path`.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sizes = []

    class Note(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            sizes.append([path.stat().st_size for path in tmp_path.glob("*.spill")])

    return [("note", Note())], sizes


def test_more_than_the_budget_lies_in_a_file_that_is_removed(many, tmp_path, spilled):
    callbacks, sizes = spilled
    clf = make(cache_gb=1e-6, callbacks=callbacks).fit(many.images, many.target)
    assert sizes == [[len(many.images) * FrozenPart(clf.net_).row_bytes()]]
    assert not list(tmp_path.glob("*.spill"))
    assert_same(clf, make(cache_gb=0).fit(many.images, many.target), many.images)


def test_the_file_lies_in_the_folder_of_the_store(many, tmp_path):
    found = []

    class Note(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            found.extend(path.parent for path in tmp_path.rglob("*.spill"))

    make(memory=tmp_path, cache_gb=1e-6, callbacks=[("note", Note())]).fit(many.images, many.target)
    assert found == [tmp_path / "wbcclf"]


def test_without_room_for_the_file_training_goes_on(many, spilled, limit_files):
    callbacks, sizes = spilled
    plain = make(cache_gb=1e-6, callbacks=callbacks).fit(many.images, many.target)
    limit_files(sizes[0][0] - 1)
    with pytest.warns(UserWarning, match="No room for the activations.*Raise cache_gb"):
        clf = make(cache_gb=1e-6, callbacks=callbacks).fit(many.images, many.target)
    assert sizes[1:] == [[]]
    assert_same(plain, clf, many.images)


def test_without_room_for_the_store_training_goes_on(tmp_path, limit_files):
    cells = make_blood_cells(2 * N_TOGETHER, classes=2, image_size=16, random_state=0)
    plain = make().fit(cells.images, cells.target)
    limit_files(10)
    with pytest.warns(UserWarning, match="kept in .*memory=Cache") as caught:
        clf = make(memory=tmp_path).fit(cells.images, cells.target)
    # Of the activations, of the training, and that the frozen blocks are random.
    assert len(caught) == 3
    assert not [path for path in (tmp_path / "wbcclf").rglob("*") if path.is_file()]
    assert_same(plain, clf.set_params(memory=None), cells.images)  # the disk is still full


@pytest.mark.parametrize("wrap", [str, lambda path: path, joblib.Memory, Cache])
def test_memory_serves_other_candidates_folds_and_orders(wrap, many, tmp_path, runs):
    memory = wrap(tmp_path)
    make(memory=memory).fit(many.images, many.target)
    assert runs == [("images", 4)]
    runs.clear()
    plain = make(lr=1e-2, cache_gb=0).fit(many.images, many.target)
    again = make(lr=1e-2, memory=memory).fit(many.images, many.target)
    assert_same(plain, again, many.images)
    order = np.random.RandomState(0).permutation(len(many.images))
    make(memory=memory).fit(many.images[order][:20], many.target[order][:20])
    make(memory=memory).fit(np.repeat(many.images, 2, axis=0), np.repeat(many.target, 2))
    make(memory=memory, max_epochs=1).partial_fit(many.images, many.target)
    assert not runs


def test_new_images_alone_are_computed(many, tmp_path, runs):
    more = make_blood_cells(50, classes=2, image_size=16, random_state=1)
    make(memory=tmp_path).fit(many.images, many.target)
    runs.clear()
    X = np.concatenate([many.images, more.images, more.images])
    y = np.concatenate([many.target, more.target, more.target])
    kept = make(memory=tmp_path).fit(X, y)
    assert runs == [("images", 4)] * 2  # 50 images, each once
    np.testing.assert_allclose(  # see above for the tolerance
        kept.predict_proba(X), make(cache_gb=0).fit(X, y).predict_proba(X), atol=1e-5
    )


def test_a_higher_cut_goes_on_from_the_nearest_lower_one(many, tmp_path, runs):
    # After 1, 3, 4 and all 6 stages.
    for unfrozen_layers, start, n_stages in [
        (4, "images", 1),
        (2, "activations", 2),
        (1, "activations", 1),
        (0, "activations", 2),
    ]:
        kept = make(unfrozen_layers=unfrozen_layers, memory=tmp_path)
        kept.fit(many.images, many.target)
        assert runs == [(start, n_stages)]
        plain = make(unfrozen_layers=unfrozen_layers, cache_gb=0).fit(many.images, many.target)
        assert_same(plain, kept, many.images)
        runs.clear()


def test_damaged_entries_of_a_lower_cut_are_computed_from_below(many, tmp_path, runs):
    make(unfrozen_layers=2, memory=tmp_path).fit(many.images, many.target)
    entries = [path for path in (tmp_path / "wbcclf").rglob("*") if path.is_file()]
    for path in entries[:5]:
        path.write_bytes(path.read_bytes()[:-1])
    runs.clear()
    with pytest.warns(UserWarning, match="Damaged files in .* are removed"):
        kept = make(unfrozen_layers=1, memory=tmp_path).fit(many.images, many.target)
    assert runs[0] == ("activations", 1)
    assert runs[1:] in ([("images", 4)], [])  # one of the five may be the kept training
    plain = make(unfrozen_layers=1, cache_gb=0).fit(many.images, many.target)
    assert_same(plain, kept, many.images)


def test_copies_and_synthetics_of_the_same_seed_are_found(many, tmp_path, runs):
    def fit():
        pipe = Pipeline(
            [
                ("aug", Augmenter(n_copies=1, random_state=0)),
                ("smote", SMOTE(random_state=0)),
                ("clf", make(memory=tmp_path, lr=float(len(runs) + 1) * 1e-3)),
            ]
        )
        pipe.fit(many.images[:20], many.target[:20])

    fit()
    assert runs
    n_runs = len(runs)
    fit()
    assert len(runs) == n_runs


@pytest.mark.parametrize(
    "change",
    [
        {"random_state": 1},  # other random weights
        {"precision": "bfloat16"},
        {"input_size": 20},
        {"backbone": "cnn_3block"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_activations_depend_on_is_part_of_their_key(change, many, tmp_path, runs):
    make(memory=tmp_path).fit(many.images, many.target)
    assert runs == [("images", 4)]
    runs.clear()
    make(memory=tmp_path).set_params(**change).fit(many.images, many.target)
    assert len(runs) == 1
    assert runs[0][0] == "images"


def test_other_values_of_images_have_other_keys(many, tmp_path, runs):
    make(memory=tmp_path).fit(many.images, many.target)
    make(memory=tmp_path).fit(many.images.astype(np.float32), many.target)
    make(memory=tmp_path).fit(many.images[:, ::-1], many.target)
    changed = many.images.copy()
    changed[:, 3, 5, 1] ^= 1
    make(memory=tmp_path).fit(changed, many.target)
    assert len(runs) == 4


@pytest.fixture
def change_tiny(tiny, monkeypatch, request):
    """Return a function that changes the first block of the backbone "tiny", and its version."""
    spec = get_backbone(tiny)

    def register(change):
        def build():
            network = spec.build()
            change(network.block1)
            return network

        changed = dataclasses.replace(spec, build=build, version=request.node.name)
        monkeypatch.setitem(_registry._BACKBONES, tiny, changed)

    return register


class Impure(torch.nn.Conv2d):
    """A block that a user wrote, and that is no function of the image alone."""

    kind: str

    def forward(self, x):
        x = super().forward(x)
        if self.kind == "random":
            return torch.nn.functional.dropout(x, 0.5)
        if self.kind in BATCH:
            return BATCH[self.kind](x)
        self.n_calls = getattr(self, "n_calls", 0) + 1
        return x * self.n_calls


# Functions of the whole batch, each of which spares some of its images.
BATCH = {
    "mean": lambda x: x - x.mean(dim=0),
    "first": lambda x: x - x[:1],
    "sum": lambda x: x.cumsum(dim=0),
    "largest": lambda x: x / x.abs().amax(),
    "softmax": torch.nn.Softmax(dim=0),
    "slightly": lambda x: x + 0.01 * x[:1],
}


@pytest.mark.parametrize("kind", ["random", *BATCH, "counting"])
def test_blocks_that_are_no_function_of_the_image_run_anew(
    kind, tiny, change_tiny, many, tmp_path, runs
):
    def change(block):
        block[0].__class__ = Impure
        block[0].kind = kind

    change_tiny(change)
    with pytest.warns(UserWarning, match="an image the same features .*check_backbone"):
        clf = make(tiny, memory=tmp_path).fit(many.images, many.target)
    clf.predict(many.images)
    assert not runs
    if kind in BATCH:  # the others cannot be trained twice in the same way
        expected = make(tiny, cache_gb=0).fit(many.images, many.target)
        assert_same(clf, expected, many.images)


def test_blocks_of_ones_own_are_tried_without_a_trace(tiny, change_tiny, many):
    class Own(torch.nn.Conv2d):
        pass

    change_tiny(lambda block: setattr(block[0], "__class__", Own))
    kept = make(tiny, head=Head(dropout=0.5)).fit(many.images, many.target)
    plain = make(tiny, head=Head(dropout=0.5), cache_gb=0).fit(many.images, many.target)
    assert_same(kept, plain, many.images)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.fixture
def complex_tiny(tiny, monkeypatch):
    """Return a function that puts another, to complex features, between the blocks of "tiny"."""
    spec = get_backbone(tiny)

    def register(function):
        def build():
            network = spec.build()
            network.block1.append(Function(function))
            network.block2.insert(0, Function(torch.abs))
            return network

        monkeypatch.setitem(_registry._BACKBONES, tiny, dataclasses.replace(spec, build=build))

    return register


def test_complex_features_are_kept(tiny, complex_tiny, many, runs):
    complex_tiny(torch.fft.fft2)
    kept = make(tiny).fit(many.images, many.target)
    assert len(runs) == 1
    assert_same(kept, make(tiny, cache_gb=0).fit(many.images, many.target), many.images)


def test_imaginary_parts_are_tried_too(tiny, complex_tiny, many):
    complex_tiny(lambda x: torch.complex(x, x[:1].expand_as(x)))
    with pytest.warns(UserWarning, match="an image the same features"):
        make(tiny).fit(many.images, many.target)


def test_layers_of_torch_are_tried_too(tiny, change_tiny, many):
    change_tiny(
        lambda block: block.__setitem__(1, torch.nn.BatchNorm2d(4, track_running_stats=False))
    )
    with pytest.warns(UserWarning, match="an image the same features"):
        make(tiny).fit(many.images, many.target)


def test_images_of_any_scale_are_tried_alike(tiny, change_tiny, many, runs):
    class Exponential(torch.nn.Conv2d):
        def forward(self, x):
            return super().forward(x).exp()

    change_tiny(lambda block: setattr(block[0], "__class__", Exponential))
    for images in (many.images, many.images.astype(np.float32) / 255):
        make(tiny).fit(images, many.target)
    assert len(runs) == 2


def test_frozen_blocks_run_in_smaller_batches_where_memory_is_little(tiny, change_tiny, many):
    ran = []

    def limited(module, inputs):
        if len(inputs[0]) > 5:
            raise torch.OutOfMemoryError("simulated")
        ran.append(len(inputs[0]))

    plain = make(tiny, head=Head(dropout=0.5)).fit(many.images, many.target)
    expected = plain.predict_proba(many.images)
    change_tiny(lambda block: block[0].register_forward_pre_hook(limited))
    clf = make(tiny, head=Head(dropout=0.5)).fit(many.images, many.target)
    assert ran[-8:] == [4] * 8  # 32 images, halved until they fit
    np.testing.assert_allclose(clf.predict_proba(many.images), expected, atol=1e-4)


class Own:
    """A network that a user wrote, as an object with a spec."""

    def __init__(self, spec):
        self.own = spec

    def spec(self):
        return self.own


@pytest.mark.parametrize("is_registered", [True, False], ids=["registered", "object"])
def test_a_network_without_a_version_is_kept_for_its_fit_alone(
    is_registered, tiny, many, tmp_path, runs, monkeypatch
):
    spec = dataclasses.replace(get_backbone(tiny), version=None)
    monkeypatch.setitem(_registry._BACKBONES, tiny, spec)
    clf = make(tiny if is_registered else Own(spec), memory=tmp_path, head=Head(dropout=0.5))
    message = r"Nothing of the backbone 'tiny' is kept .*BackboneSpec\(\.\.\., version='1'\)"
    for _ in range(2):
        with pytest.warns(UserWarning, match=message):
            clf.fit(many.images, many.target)
        assert runs == [("images", 1)]  # once, not in every epoch
        with pytest.warns(UserWarning, match=message):
            clf.predict(many.images)
        assert runs == [("images", 1)]
        runs.clear()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    plain = make(tiny, cache_gb=0, head=Head(dropout=0.5)).fit(many.images, many.target)
    with pytest.warns(UserWarning, match=message):
        assert_same(clf, plain, many.images)


def test_other_defaults_of_a_backbone_are_another_fit(
    tiny, many, tmp_path, no_training, monkeypatch
):
    """They are no code, so nobody would raise the version for them."""
    spec = get_backbone(tiny)
    make(tiny, memory=tmp_path).fit(many.images, many.target)
    no_training()
    for change in ({"lr": 1e-2}, {"head": Head(dropout=0.7)}):
        monkeypatch.setitem(_registry._BACKBONES, tiny, dataclasses.replace(spec, **change))
        with pytest.raises(AssertionError, match="trained again"):
            make(tiny, memory=tmp_path).fit(many.images, many.target)
    monkeypatch.setitem(_registry._BACKBONES, tiny, spec)
    make(tiny, memory=tmp_path).fit(many.images, many.target)


def test_a_network_of_another_version_is_computed_and_trained_again(
    tiny, many, tmp_path, runs, no_training, monkeypatch
):
    make(tiny, memory=tmp_path).fit(many.images, many.target)
    assert runs == [("images", 1)]
    runs.clear()
    spec = dataclasses.replace(get_backbone(tiny), version="2")
    monkeypatch.setitem(_registry._BACKBONES, tiny, spec)
    make(tiny, memory=tmp_path, lr=1e-2).fit(many.images, many.target)
    assert runs == [("images", 1)]
    no_training()
    with pytest.raises(AssertionError, match="trained again"):
        make(tiny, memory=tmp_path).fit(many.images, many.target)


def test_weights_of_frozen_blocks_that_a_callback_loads_are_an_error(many):
    """They come after the activations, unless these are computed in every epoch."""

    class Load(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            with torch.no_grad():
                for parameter in net.module_.parameters():
                    parameter.mul_(2)

    with pytest.raises(ValueError, match=r"weights of frozen blocks .*weights=.*cache_gb=0"):
        make(callbacks=[("load", Load())]).fit(many.images, many.target)
    make(callbacks=[("load", Load())], cache_gb=0).fit(many.images, many.target)


def test_cache_gb_is_for_training_and_validation_together(many, spilled):
    callbacks, sizes = spilled
    X, y = many.images[:16], many.target[:16]
    n_bytes = 16 * FrozenPart(make().fit(X, y).net_).row_bytes()
    for share, expected in [(2.1, []), (1.9, [n_bytes] * 2)]:
        clf = make(cache_gb=share * n_bytes / 1e9, callbacks=callbacks)
        clf.fit(X, y, X_val=X, y_val=y)
        assert sizes.pop() == expected


def test_prediction_takes_part_unless_the_images_are_few(many, tmp_path, runs):
    clf = make(memory=tmp_path).fit(many.images[:20], many.target[:20])
    runs.clear()
    expected = make(cache_gb=0).fit(many.images[:20], many.target[:20]).predict_proba(many.images)
    few = clf.predict_proba(many.images[:5])
    assert not runs
    np.testing.assert_allclose(few, expected[:5], atol=1e-5)
    np.testing.assert_allclose(clf.predict_proba(many.images), expected, atol=1e-5)
    assert len(runs) == 1
    clf.predict_proba(many.images[::-1])
    assert len(runs) == 1


@pytest.mark.parametrize("n_images", [7, 8, 20])
def test_a_prediction_of_few_images_takes_all_of_them_from_the_store_or_none(
    many, tmp_path, runs, n_images
):
    clf = make(memory=tmp_path).fit(many.images[:20], many.target[:20])
    expected = make(cache_gb=0).fit(many.images[:20], many.target[:20]).predict_proba(many.images)
    runs.clear()
    given = []
    clf.net_.module_.register_forward_hook(
        lambda _, __, inputs, ___: given.extend(
            (kind, len(x)) for kind, x in inputs.items() if kind != "described"
        ),
        with_kwargs=True,
    )
    there, half = slice(n_images), slice(20 - n_images // 2, 20 + (n_images + 1) // 2)
    for rows in (there, half):
        np.testing.assert_allclose(clf.predict_proba(many.images[rows]), expected[rows], atol=1e-5)
    assert not runs
    kind = "images" if n_images == 7 else "activations"
    assert given == [(kind, n_images), ("images", n_images)]


def test_a_large_prediction_holds_one_block_at_a_time(many, tmp_path):
    # 205 kB an image after the first block.
    clf = make(ConvNet(filters=(800, 4)), memory=tmp_path, batch_size=8)
    clf.fit(many.images, many.target)
    expected = clf.predict_proba(many.images)
    assert 40 * len(many.images) * FrozenPart(clf.net_).row_bytes() > BLOCK_BYTES
    found = clf.predict_proba(np.tile(many.images, (40, 1, 1, 1)))
    np.testing.assert_array_equal(found, np.tile(expected, (40, 1)))


def test_a_model_of_another_machine_predicts_without_its_folder(many, tmp_path):
    clf = make(memory=tmp_path / "memory").fit(many.images, many.target)
    expected = clf.predict(many.images)
    (tmp_path / "file").touch()
    clf.set_params(memory=tmp_path / "file" / "memory")
    with pytest.warns(UserWarning, match="cannot be written to .* predicting without it"):
        np.testing.assert_array_equal(clf.predict(many.images), expected)


def test_test_time_augmentation_goes_through_the_store(many, tmp_path):
    plain = make(test_time_augmentation=True, cache_gb=0).fit(many.images, many.target)
    kept = make(test_time_augmentation=True, memory=tmp_path).fit(many.images, many.target)
    assert_same(plain, kept, many.images)


def test_a_wrong_memory_is_named(many, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match=r"memory: the folder .*file"):
        make(memory=file).fit(many.images, many.target)
    with pytest.raises(ValueError, match="'memory' parameter"):
        make(memory=3).fit(many.images, many.target)
    with pytest.raises(ValueError, match=r"memory must be .*''"):
        make(memory="").fit(many.images, many.target)
    make(memory=joblib.Memory(None)).fit(many.images, many.target)


# ---------------------------------------------------------------- whole trainings


@pytest.fixture
def no_training():
    """Return a function after which every step of an optimizer fails."""

    def fail(*args):
        raise AssertionError("trained again")

    with ExitStack() as stack:
        yield lambda: stack.enter_context(register_optimizer_step_pre_hook(fail))


@pytest.mark.parametrize("unfrozen_layers", [0, 2, "all"])
def test_the_same_fit_is_not_done_again(unfrozen_layers, many, tmp_path, no_training):
    params = {"unfrozen_layers": unfrozen_layers, "early_stopping": True, "averaging": 0.9}
    first = make(**params, memory=tmp_path).fit(many.images, many.target)
    no_training()
    second = make(**params, memory=tmp_path).fit(many.images, many.target)
    assert_same(first, second, many.images)
    assert second.history_ == first.history_
    assert second.n_iter_ == first.n_iter_
    np.testing.assert_array_equal(second.validation_indices_, first.validation_indices_)
    np.testing.assert_array_equal(
        second.net_.history[:, "train_loss"], first.net_.history[:, "train_loss"]
    )


@pytest.mark.parametrize(
    "change",
    [
        {"random_state": 1},
        {"random_state": None},
        {"random_state": np.random.RandomState(0)},
        {"lr": 2e-3},
        {"max_epochs": 3},
        {"callbacks": []},
        {"callbacks": [("note", "a callback")]},
        {"precision": "bfloat16"},
        {"weights": "file"},
        {"cache_gb": 0},
    ],
    ids=lambda change: "-".join(f"{name}={type(value).__name__}" for name, value in change.items()),
)
def test_another_fit_is_done(change, many, tmp_path, no_training, weights_file):
    from skorch.callbacks import Callback

    make("squeezenet1_1", memory=tmp_path, input_size=32).fit(many.images, many.target)
    if change == {"weights": "file"}:
        change = {"weights": weights_file("squeezenet1_1")}
    if change.get("callbacks"):
        change = {"callbacks": [("note", Callback())]}
    clf = make("squeezenet1_1", memory=tmp_path, input_size=32).set_params(**change)
    no_training()
    if change == {"callbacks": []}:
        clf.fit(many.images, many.target)
        return
    with pytest.raises(AssertionError, match="trained again"):
        clf.fit(many.images, many.target)


def test_other_data_is_another_fit(many, tmp_path, no_training):
    make(memory=tmp_path).fit(many.images, many.target)
    no_training()
    for X, y, rest in [
        (many.images[::-1], many.target, {}),
        (many.images, many.target[::-1], {}),
        (many.images, many.target, {"sample_weight": np.arange(len(many.images))}),
        (many.images, many.target, {"X_val": many.images, "y_val": many.target}),
    ]:
        with pytest.raises(AssertionError, match="trained again"):
            make(memory=tmp_path).fit(X, y, **rest)


class OwnAugmenter(Augmenter):
    """One whose code may change from run to run."""


class PlainAugmenter:
    """Likewise, and no estimator."""

    def augment(self, images, random_state):
        return images


class OwnNet(ConvNet):
    """Likewise, but for the version of its spec."""


class OwnOptimizer(torch.optim.SGD):
    """Likewise."""


class OwnHead(Head):
    """Likewise."""


class OwnClassifier(CNNClassifier):
    """Likewise."""


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({"augment": Augmenter(rotation=10)}, True),
        ({"optimizer": torch.optim.RAdam}, True),
        ({"augment": OwnAugmenter(rotation=10)}, False),
        ({"augment": PlainAugmenter()}, False),
        ({"optimizer": OwnOptimizer}, False),
        ({"backbone": OwnNet(filters=(4, 4))}, True),
        ({"head": Head("max")}, True),
        ({"head": OwnHead("max")}, False),
        ({"optimizer": lambda *args, **params: torch.optim.SGD(*args, **params)}, False),
    ],
    ids=[
        *("augment", "optimizer", "own augment", "plain augment", "own optimizer"),
        *("own backbone", "head", "own head", "function"),
    ],
)
def test_a_fit_with_code_of_ones_own_is_not_kept(change, is_kept, many, tmp_path):
    make(memory=tmp_path, **change).fit(many.images, many.target)
    assert (tmp_path / "wbcclf" / "fits").exists() == is_kept


def test_a_fit_of_a_class_of_ones_own_is_not_kept(many, tmp_path):
    clf = OwnClassifier(**make(memory=tmp_path).get_params(deep=False))
    clf.fit(many.images, many.target)
    assert not (tmp_path / "wbcclf" / "fits").exists()


def test_a_fit_with_a_parameter_that_has_no_digest_is_not_kept(tiny, many, tmp_path, runs):
    spec = get_backbone(tiny)  # with functions inside of a function
    for _ in range(2):
        with pytest.warns(UserWarning, match="not kept: the parameter backbone cannot be pickled"):
            make(Own(spec), memory=tmp_path).fit(many.images, many.target)
    assert not (tmp_path / "wbcclf" / "fits").exists()
    assert len(runs) == 1  # its activations are


def test_a_kept_fit_goes_on(many, tmp_path):
    clf = make(memory=tmp_path).fit(many.images, many.target)
    again = make(memory=tmp_path).fit(many.images, many.target)
    for model in (clf, again):
        model.partial_fit(many.images, many.target)
    assert_same(clf, again, many.images)


def test_threads_train_what_one_does(many, tmp_path):
    """They share torch's random state; what one of them keeps is what anybody would get."""

    def scores(memory, **parallel):
        with joblib.parallel_config(**parallel):
            clf = make(memory=memory, max_epochs=4, head=Head(dropout=0.5))
            return cross_val_score(clf, many.images, many.target, cv=4, scoring="neg_log_loss")

    plain = scores(None, backend="sequential")
    threads = scores(tmp_path, backend="threading", n_jobs=4)
    # A thread of joblib may compute with another number of threads: other rounding.
    np.testing.assert_allclose(threads, plain, rtol=1e-4)
    np.testing.assert_array_equal(scores(tmp_path, backend="sequential"), threads)


def test_a_forked_process_does_not_wait_for_a_thread_that_trains():
    code = (
        "import os, threading\n"
        "from wbcclf.classifiers.network._device import seeded\n"
        "inside, done = threading.Event(), threading.Event()\n"
        "def train():\n"
        "    with seeded(0):\n"
        "        inside.set()\n"
        "        done.wait()\n"
        "thread = threading.Thread(target=train)\n"
        "thread.start()\n"
        "inside.wait()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    with seeded(0):\n"
        "        os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "done.set()\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert result.stdout == "7\n"


@pytest.mark.parametrize("params", [{}, {"early_stopping": True}], ids=["plain", "stopping"])
def test_an_interrupt_while_frozen_blocks_are_computed_ends_the_fit(
    params, tiny, change_tiny, many
):
    def interrupt(module, inputs):
        if len(inputs[0]) == N_TOGETHER:
            raise KeyboardInterrupt

    change_tiny(lambda block: block[0].register_forward_pre_hook(interrupt))
    clf = make(tiny, **params)
    with pytest.raises(KeyboardInterrupt):  # nothing was learnt yet that could be kept
        clf.fit(many.images, many.target)
    assert not hasattr(clf, "net_")


def test_a_search_in_two_processes_finds_what_one_without_memory_does(many, tmp_path, runs):
    pipe = Pipeline([("aug", Augmenter(n_copies=1, random_state=0)), ("clf", make())])
    grid = {"clf__unfrozen_layers": [0, 2], "clf__lr": [1e-3, 1e-2]}
    plain = GridSearchCV(pipe, grid, cv=2).fit(many.images, many.target)
    pipe = Pipeline(
        [("aug", Augmenter(n_copies=1, random_state=0)), ("clf", make(memory=tmp_path))]
    )
    kept = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(many.images, many.target)
    assert kept.best_params_ == plain.best_params_
    # Processes of joblib have as many threads as there are cores left for each: other rounding.
    np.testing.assert_allclose(
        kept.predict_proba(many.images), plain.predict_proba(many.images), atol=1e-4
    )
    np.testing.assert_array_equal(
        kept.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )

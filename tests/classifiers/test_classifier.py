"""What goes in and what comes out: labels, rows, grey images, weights, heads, searches."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.pipeline import Pipeline
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV

from wbcclf import (
    Augmenter,
    CNNClassifier,
    Head,
    ResNet18Classifier,
    SimpleCNNClassifier,
    VGG16Classifier,
    make_blood_cells,
)

NAMED = {
    SimpleCNNClassifier: "simple_cnn",
    VGG16Classifier: "vgg16",
    ResNet18Classifier: "resnet18",
}
PARAMETERS = (
    "weights unfrozen_layers head input_size max_epochs batch_size optimizer lr lr_schedule "
    "averaging loss class_weight mixing early_stopping augment device precision callbacks "
    "random_state verbose warm_start"
).split()

# Float32 sums in another order (batches of another size, another memory layout).
ROUNDING = 1e-5


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("cls", [CNNClassifier, *NAMED])
def test_parameters_are_the_same_everywhere(cls):
    names = list(inspect.signature(cls).parameters)
    assert set(PARAMETERS) <= set(names)
    assert ("backbone" in names) == (cls is CNNClassifier)
    assert is_classifier(cls())
    assert list(cls().get_params(deep=False)) == sorted(names)


@pytest.mark.parametrize(("cls", "backbone"), NAMED.items())
def test_named_classifier_has_its_backbone_and_only_keywords(cls, backbone):
    assert cls().backbone == backbone
    assert clone(cls(lr=0.5)).lr == 0.5
    with pytest.raises(TypeError, match="positional"):
        cls("resnet18")
    with pytest.raises(TypeError, match="backbone"):
        cls(backbone="resnet18")
    with pytest.raises(ValueError, match="Invalid parameter 'backbone'"):
        cls().set_params(backbone="resnet18")


def test_named_classifier_is_cnn_classifier_with_that_backbone(simple, cells):
    named = simple().fit(cells.images, cells.target)
    general = CNNClassifier("simple_cnn", **simple().get_params()).fit(cells.images, cells.target)
    assert np.array_equal(named.predict_proba(cells.images), general.predict_proba(cells.images))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("averaging", 1.0),
        ("max_epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("optimizer", "adagrad"),
        ("lr_schedule", "steps"),
        ("precision", "float64"),
        ("early_stopping", 5),
        ("mixing", "cut"),
        ("class_weight", "even"),
        ("augment", "flip"),
        ("head", "flatten"),
        ("callbacks", "print"),
    ],
)
def test_parameter_out_of_range_is_named(simple, cells, name, value):
    with pytest.raises(ValueError, match=f"The {name!r} parameter of SimpleCNNClassifier must be"):
        simple(**{name: value}).fit(cells.images, cells.target)


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["b", "a", "c"]),
        np.array(["b", "a", "c"], dtype=object),
        np.array([7, -1, 3]),
        np.array([2.0, 0.0, 1.0]),
        np.array([True, False, True]),
    ],
    ids=["strings", "objects", "ints", "floats", "bools"],
)
def test_labels_come_back_as_they_were_given(simple, cells, labels):
    numbers = np.unique(cells.target, return_inverse=True)[1]
    y = labels[numbers]
    clf = simple().fit(cells.images, y)
    assert clf.classes_.tolist() == sorted(set(labels.tolist()))
    assert clf.classes_.dtype == y.dtype
    predicted = clf.predict(cells.images)
    assert predicted.dtype == y.dtype
    probabilities = clf.predict_proba(cells.images)
    assert np.array_equal(predicted, clf.classes_[probabilities.argmax(axis=1)])


def test_probabilities_are_float32_and_sum_to_one(simple, cells):
    probabilities = simple().fit(cells.images, cells.target).predict_proba(cells.images)
    assert probabilities.shape == (36, 3)
    assert probabilities.dtype == np.float32
    assert (probabilities > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)  # float32 rounding


def test_it_learns(simple):
    cells = make_blood_cells(120, classes=2, image_size=24, random_state=1)
    clf = simple(max_epochs=12, lr=3e-3).fit(cells.images[:80], cells.target[:80])
    # 40 unseen cells of two equal classes: guessing gets 32 or more right once in 10,000 times.
    assert clf.score(cells.images[80:], cells.target[80:]) >= 0.8


# ---------------------------------------------------------------- images


def test_rows_and_images_and_lists_are_the_same(simple, cells):
    rows = cells.images.reshape(len(cells.images), -1)
    on_images = simple().fit(cells.images, cells.target)
    on_rows = simple().fit(rows, cells.target)
    expected = on_images.predict_proba(cells.images)
    assert on_rows.image_shape_ == on_images.image_shape_ == (16, 16, 3)
    assert on_rows.n_features_in_ == on_images.n_features_in_ == 768
    for clf in (on_images, on_rows):
        for X in (cells.images, rows, list(cells.images), rows.tolist()):
            assert np.array_equal(clf.predict_proba(X), expected)


def test_data_frame_of_rows_keeps_its_feature_names(simple, cells):
    frame = pd.DataFrame(cells.images.reshape(len(cells.images), -1)).add_prefix("pixel")
    clf = simple(max_epochs=1).fit(frame, cells.target)
    assert clf.feature_names_in_[0] == "pixel0"
    assert clf.image_shape_ == (16, 16, 3)
    assert len(clf.predict(frame)) == 36


def test_image_shape_says_what_rows_are(simple, cells):
    wide = np.ascontiguousarray(cells.images[:, :8])
    rows = wide.reshape(len(wide), -1)  # 8 * 16 * 3 is no square
    on_rows = simple(image_shape=(8, 16, 3)).fit(rows, cells.target)
    on_images = simple().fit(wide, cells.target)
    assert np.array_equal(on_rows.predict_proba(rows), on_images.predict_proba(wide))


def test_image_shape_is_ignored_for_images_in_arrays_and_lists(simple, cells):
    for X in (cells.images, list(cells.images)):
        clf = simple(image_shape=(8, 8, 3), max_epochs=1).fit(X, cells.target)
        assert clf.image_shape_ == (16, 16, 3)


def test_grey_images_are_seen_as_rgb_images_of_equal_channels(simple, cells):
    grey = cells.images[..., :1]
    on_grey = simple().fit(grey, cells.target)
    on_rgb = simple().fit(grey.repeat(3, axis=3), cells.target)
    assert on_grey.image_shape_ == (16, 16, 1)
    np.testing.assert_allclose(
        on_grey.predict_proba(grey), on_rgb.predict_proba(grey.repeat(3, axis=3)), atol=ROUNDING
    )


def test_uint8_and_the_same_values_on_0_to_1_are_the_same(simple, cells):
    on_bytes = simple().fit(cells.images, cells.target)
    unit = (cells.images / 255).astype(np.float32)
    on_unit = simple().fit(unit, cells.target)
    assert on_bytes.value_range_ == (0, 255)
    assert on_unit.value_range_ == (0, 1)
    np.testing.assert_allclose(  # training amplifies the rounding of the division a little
        on_bytes.predict_proba(cells.images), on_unit.predict_proba(unit), atol=10 * ROUNDING
    )


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.float64, ">f4"])
def test_other_dtypes_of_the_same_values_predict_the_same(simple, cells, dtype):
    clf = simple(max_epochs=1).fit(cells.images, cells.target)
    expected = clf.predict_proba(cells.images)
    assert np.array_equal(clf.predict_proba(cells.images.astype(dtype)), expected)


def test_input_size_resizes_inside_the_network(simple, cells):
    clf = simple(input_size=(24, 20), max_epochs=1)
    sizes = []
    clf.fit(cells.images, cells.target)
    clf.net_.module_.backbone.conv1.register_forward_pre_hook(
        lambda module, inputs: sizes.append(tuple(inputs[0].shape[2:]))
    )
    clf.predict(cells.images)
    assert set(sizes) == {(24, 20)}


def test_small_images_are_enlarged_for_a_backbone_that_needs_more(cells):
    clf = CNNClassifier("squeezenet1_1", weights=None, max_epochs=1, device="cpu")
    clf.fit(cells.images[:8], cells.target[:8])
    assert clf.net_.module_.preprocessing.input_size == (32, 32)


def test_batch_size_does_not_change_predictions(simple, cells):
    clf = simple(max_epochs=1).fit(cells.images, cells.target)
    expected = clf.predict_proba(cells.images)
    one_by_one = np.concatenate([clf.predict_proba(image[None]) for image in cells.images])
    np.testing.assert_allclose(one_by_one, expected, atol=ROUNDING)


# ---------------------------------------------------------------- class weights


def test_class_weights_are_sample_weights(simple, cells):
    y = np.where(cells.target == "neutrophil", "neutrophil", "other")
    weights = {"neutrophil": 5.0, "other": 0.5}
    by_class = simple(class_weight=weights).fit(cells.images, y)
    by_sample = simple().fit(cells.images, y, sample_weight=np.vectorize(weights.get)(y))
    plain = simple().fit(cells.images, y)
    expected = by_sample.predict_proba(cells.images)
    assert np.array_equal(by_class.predict_proba(cells.images), expected)
    assert plain.predict_proba(cells.images)[:, 0].mean() < expected[:, 0].mean() - 0.05


def test_balanced_counts_the_rows_that_are_trained_on(simple, cells):
    y = np.where(cells.target == "neutrophil", "neutrophil", "other")  # 12 and 24
    weight = np.ones(36)
    weight[np.flatnonzero(y == "other")[:18]] = 0  # 12 and 6 are left
    balanced = simple(class_weight="balanced").fit(cells.images, y, sample_weight=weight)
    by_hand = weight * np.where(y == "neutrophil", 18 / (2 * 12), 18 / (2 * 6))
    by_sample = simple().fit(cells.images, y, sample_weight=by_hand)
    expected = by_sample.predict_proba(cells.images)
    assert np.array_equal(balanced.predict_proba(cells.images), expected)


# ---------------------------------------------------------------- heads and searches


@pytest.mark.parametrize(
    ("head", "n_in"),
    [(Head("flatten", (8,), 0.5), 256), (Head("max", (8,)), 256), (Head("avg", [8]), 256)],
)
def test_head_has_its_hidden_layers(simple, cells, head, n_in):
    clf = simple(head=head).fit(cells.images, cells.target)
    layers = [layer for layer in clf.net_.module_.head if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(n_in, 8), (8, 3)]
    assert clf.predict_proba(cells.images).shape == (36, 3)


def test_flattening_head_takes_all_values_of_the_feature_maps(tiny, cells):
    clf = CNNClassifier(tiny, head=Head("flatten"), max_epochs=1, device="cpu")
    clf.fit(cells.images, cells.target)
    # 16 pixels, two 3x3 convolutions with stride 2: 7, then 3; of 4 channels.
    assert clf.net_.module_.head[-1].in_features == 4 * 3 * 3
    assert clf.predict(cells.images).shape == (36,)


@pytest.mark.parametrize("hidden", [(0,), (8, -1), ("8",)])
def test_impossible_head_is_refused(simple, cells, hidden):
    with pytest.raises(
        ValueError, match=r"'hidden' parameter of Head must be .*int in the range \[1, inf\)"
    ):
        simple(head=Head(hidden=hidden)).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match="'pooling' parameter of Head must be"):
        simple(head=Head(pooling="sum")).fit(cells.images, cells.target)


def test_grid_search_over_layers_and_head(simple, cells, weights_file):
    clf = simple(head=Head(), weights=weights_file("simple_cnn"), max_epochs=1)
    pipe = Pipeline([("aug", Augmenter(random_state=0)), ("clf", clf)])
    grid = {"clf__unfrozen_layers": [0, 1, "all"], "clf__head__hidden": [(), (8,)]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(cells.images, cells.target)
    assert len(search.cv_results_["params"]) == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    best = search.best_estimator_["clf"]
    assert best.unfrozen_layers == search.best_params_["clf__unfrozen_layers"]
    assert tuple(best.head.hidden) == search.best_params_["clf__head__hidden"]
    assert clf.head.hidden == ()  # the search worked on clones
    assert search.predict(cells.images).shape == (36,)


def test_fit_changes_neither_parameters_nor_data(simple, cells):
    head, augment = Head(hidden=(4,)), Augmenter()
    clf = simple(
        head=head, augment=augment, class_weight={"neutrophil": 2, "lymphocyte": 1, "eosinophil": 1}
    )
    before, images = clf.get_params(), cells.images.copy()
    clf.fit(cells.images, cells.target)
    assert clf.get_params() == before
    assert clf.head is head and clf.augment is augment
    assert np.array_equal(cells.images, images)


# ---------------------------------------------------------------- parameters changed in between


def test_partial_fit_takes_changed_training_parameters(simple, cells):
    clf = simple(lr=1e-2).partial_fit(cells.images, cells.target)
    before = {k: v.clone() for k, v in clf.net_.module_.backbone.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # blocks that are trained already are not random
        clf.set_params(unfrozen_layers=0).partial_fit(cells.images, cells.target)
    after = clf.net_.module_.backbone.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_warm_start_with_another_network_is_refused(simple, cells):
    clf = simple(warm_start=True, max_epochs=1).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match=r"head changed after the network was built"):
        clf.set_params(head=Head(dropout=0.5)).fit(cells.images, cells.target)


def test_a_fit_that_fails_leaves_no_half_of_two(simple, cells):
    clf = simple(max_epochs=1).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match="y_val holds labels"):
        clf.fit(cells.images, np.arange(36) % 2, X_val=cells.images, y_val=cells.target)
    with pytest.raises(NotFittedError):
        clf.predict(cells.images)


def test_class_weights_may_name_a_class_that_a_batch_lacks(simple, cells):
    clf = simple(class_weight={"lymphocyte": 5.0})
    clf.partial_fit(cells.images, cells.target, classes=np.unique(cells.target))
    others = cells.target != "lymphocyte"
    clf.partial_fit(cells.images[others], cells.target[others])
    assert clf.n_iter_ == 2

"""What goes wrong, and what the message says about it."""

import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback

from wbcclf import CNNClassifier, DeepFeatures, Head
from wbcclf.backbones import describe
from wbcclf.exceptions import OutOfMemoryError


@pytest.fixture(scope="module")
def fitted(simple, cells):
    return simple(max_epochs=1).fit(cells.images, cells.target)


# ---------------------------------------------------------------- images


def test_images_of_different_sizes_are_refused(simple, fitted, cells):
    X = [*cells.images[:5], cells.images[5][:12]]
    for call in (lambda: simple().fit(X, cells.target[:6]), lambda: fitted.predict(X)):
        with pytest.raises(ValueError, match=r"images of different shapes.*image_size="):
            call()


def test_test_images_of_another_size_are_refused_with_both_sizes(fitted, cells):
    with pytest.raises(
        ValueError, match=r"12x16x3.*SimpleCNNClassifier works on 16x16x3.*image_size="
    ):
        fitted.predict(cells.images[:, :12])
    with pytest.raises(ValueError, match=r"X has 48 features, but .* is expecting 768 features"):
        fitted.predict(np.zeros((2, 48), np.uint8))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_the_image(simple, fitted, cells, bad):
    X = cells.images.astype(np.float32)
    X[[7, 9], 3, 3, 1] = bad
    calls = (lambda: simple().fit(X, cells.target), lambda: fitted.predict(X))
    for call in calls:
        with pytest.raises(ValueError, match=r"NaN or infinity, first in image 7 \(2 of 36"):
            call()


@pytest.mark.parametrize("channels", [2, 4])
def test_wrong_number_of_channels_is_refused(simple, fitted, channels):
    X = np.zeros((6, 16, 16, channels), np.uint8)
    for call in (lambda: simple().fit(X, [0, 1] * 3), lambda: fitted.predict(X)):
        with pytest.raises(ValueError, match=rf"1 channel.* or 3 .*got {channels}"):
            call()


def test_colour_images_are_refused_by_a_grey_model_and_vice_versa(simple, fitted, cells):
    grey = simple(max_epochs=1).fit(cells.images[..., :1], cells.target)
    with pytest.raises(ValueError, match=r"16x16x3.*works on 16x16x1"):
        grey.predict(cells.images)
    with pytest.raises(ValueError, match=r"16x16x1.*works on 16x16x3"):
        fitted.predict(cells.images[..., :1])


@pytest.mark.parametrize("shape", [(16, 16, 2), (16, 48), (0, 16, 3), (3, 16, 16)])
def test_impossible_image_shape_is_refused_by_name(simple, shape):
    X = np.zeros((6, 768 if 0 in shape else int(np.prod(shape))), np.uint8)
    with pytest.raises(ValueError, match="image_shape"):
        simple(image_shape=shape).fit(X, [0, 1] * 3)


def test_image_shape_that_does_not_fit_the_rows_is_refused(simple, cells):
    with pytest.raises(ValueError, match=r"image_shape=8x8x3 has 192 values.*have 768"):
        simple(image_shape=(8, 8, 3)).fit(cells.images.reshape(36, -1), cells.target)


def test_single_image_without_batch_axis_is_refused_with_the_way_out(fitted, cells):
    with pytest.raises(ValueError, match=r"shape \(16, 16, 3\).*X\[None\]"):
        fitted.predict(cells.images[0])


def test_no_images_are_refused(simple, fitted, cells):
    empty = cells.images[:0]
    for call in (lambda: simple().fit(empty, cells.target[:0]), lambda: fitted.predict(empty)):
        with pytest.raises(ValueError, match=r"0 sample\(s\)"):
            call()


def test_images_that_are_no_numbers_are_refused(fitted, cells):
    with pytest.raises(ValueError, match=r"must hold numbers.*dtype bool"):
        fitted.predict(cells.images > 100)


# ---------------------------------------------------------------- the value range


def test_0_to_255_images_are_refused_by_a_model_of_0_to_1(simple, cells):
    clf = simple(max_epochs=1).fit(cells.images / 255, cells.target)
    for X in (cells.images, cells.images.astype(float)):
        low, high = X.min(), X.max()
        with pytest.raises(ValueError, match=rf"from {low:g} to {high:g}.*fitted on 0 to 1\b"):
            clf.predict(X)


def test_0_to_1_images_are_refused_by_a_model_of_0_to_255(simple, fitted, cells):
    unit = cells.images / 255
    message = rf"from {unit.min():g} to {unit.max():g}.*fitted on 0 to 255"
    with pytest.raises(ValueError, match=message):
        fitted.predict(unit)
    on_floats = simple(max_epochs=1).fit(cells.images.astype(float), cells.target)
    with pytest.raises(ValueError, match=message):
        on_floats.predict_proba(unit)


def test_nearly_black_images_are_accepted_as_bytes(fitted):
    for darkest in (0, 1):
        assert len(fitted.predict(np.full((2, 16, 16, 3), darkest, np.uint8))) == 2


def test_another_scale_is_refused_in_validation_images_and_when_continuing(simple, cells):
    unit = cells.images / 255
    with pytest.raises(ValueError, match="another scale"):
        simple().fit(cells.images, cells.target, X_val=unit, y_val=cells.target)
    clf = simple(warm_start=True).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match="another scale"):
        clf.fit(unit, cells.target)
    with pytest.raises(ValueError, match="another scale"):
        clf.partial_fit(unit, cells.target)


# ---------------------------------------------------------------- labels and weights


def test_one_class_is_refused_by_its_name(simple, cells):
    with pytest.raises(ValueError, match=r"y holds one class only, 'monocyte'.*at least two"):
        simple().fit(cells.images, ["monocyte"] * 36)
    weight = cells.target == "neutrophil"
    with pytest.raises(ValueError, match="one class only, 'neutrophil'"):
        simple().fit(cells.images, cells.target, sample_weight=weight)


def test_unseen_labels_in_validation_are_refused(simple, cells):
    y_val = np.where(cells.target == "neutrophil", "basophil", cells.target)
    with pytest.raises(ValueError, match=r"y_val holds labels.*'neutrophil'.*: \['basophil'\]"):
        simple().fit(cells.images, cells.target, X_val=cells.images, y_val=y_val)


def test_half_given_validation_is_refused(simple, cells):
    X, y = cells.images, cells.target
    with pytest.raises(ValueError, match="X_val was given without y_val"):
        simple().fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="y_val was given without X_val"):
        simple().fit(X, y, y_val=y)
    with pytest.raises(ValueError, match=r"X_val has 36 images, y_val the shape \(35,\)"):
        simple().fit(X, y, X_val=X, y_val=y[1:])
    with pytest.raises(ValueError, match="works on 16x16x3"):
        simple().fit(X, y, X_val=X[:, :8], y_val=y)


def test_continuous_targets_are_refused(simple, cells):
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        simple().fit(cells.images, np.linspace(0, 1, 36))


def test_negative_weights_are_refused(simple, cells):
    weight = np.ones(36)
    weight[3] = -1
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        simple().fit(cells.images, cells.target, sample_weight=weight)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_weights_that_are_all_zero_are_refused(simple, cells, method):
    clf = simple(warm_start=True, max_epochs=1)
    for _ in range(2):  # the first time, and when there is a network to continue with
        with pytest.raises(ValueError, match=r"(?i)sample.weight"):
            getattr(clf, method)(cells.images, cells.target, sample_weight=np.zeros(36))
        clf.fit(cells.images, cells.target)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_class_of_weight_zero_does_not_make_the_loss_nan(simple, cells, batch_size):
    nothing = {"neutrophil": 0.0, "lymphocyte": 1.0, "eosinophil": 1.0}
    clf = simple(class_weight=nothing, batch_size=batch_size).fit(cells.images, cells.target)
    assert np.isfinite(clf.history_[-1]["train_loss"])
    assert clf.classes_.tolist() == sorted(nothing)


# ---------------------------------------------------------------- networks


def test_impossible_unfrozen_layers_are_refused_with_the_blocks(simple, cells):
    with pytest.raises(ValueError, match=r"unfrozen_layers=6: .*5 blocks.*'conv5' is the top"):
        simple(unfrozen_layers=6).fit(cells.images, cells.target)
    with pytest.raises(ValueError, match=r"unfrozen_layers='conv9'.*conv1, conv2, .*'all'"):
        simple(unfrozen_layers="conv9").fit(cells.images, cells.target)
    with pytest.raises(ValueError, match="'unfrozen_layers' parameter"):
        simple(unfrozen_layers=-1).fit(cells.images, cells.target)


def test_unknown_backbone_is_refused_with_a_suggestion(cells):
    with pytest.raises(ValueError, match=r"Unknown backbone 'resnet-18'.*mean 'resnet18'\?"):
        CNNClassifier("resnet-18", device="cpu").fit(cells.images, cells.target)


def test_input_size_that_the_backbone_cannot_take_is_refused(cells):
    clf = CNNClassifier("squeezenet1_1", input_size=(64, 31), device="cpu")
    with pytest.raises(ValueError, match=r"input_size=\(64, 31\).*squeezenet1_1.*least 32"):
        clf.fit(cells.images, cells.target)


@pytest.mark.parametrize("input_size", [(16,), (16, 0), (16, 16, 3), (8.5, 16)])
def test_odd_input_size_is_refused(simple, cells, input_size):
    with pytest.raises(ValueError, match=r"input_size(' parameter of .*)? must be a.* int"):
        simple(input_size=input_size).fit(cells.images, cells.target)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_device_that_is_not_there_is_refused_in_fit(simple, cells, device):
    with pytest.raises(ValueError, match=rf"device='{device}' is not available.*'auto' or 'cpu'"):
        simple(device=device).fit(cells.images, cells.target)


def test_batch_norm_that_cannot_train_on_one_image_names_batch_size(tiny, cells):
    clf = CNNClassifier(tiny, input_size=7, max_epochs=1, batch_size=1, device="cpu")
    with pytest.raises(ValueError, match="batch_size"):
        clf.fit(cells.images, cells.target)


def test_prediction_after_a_failed_fit_says_not_fitted(simple, cells):
    clf = simple(device="cuda:99")
    with pytest.raises(ValueError, match="not available"):
        clf.fit(cells.images, cells.target)
    clf.set_params(device="cpu")
    with pytest.raises(NotFittedError, match="not fitted yet"):
        clf.predict(cells.images)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_divergence_ends_training_and_names_lr(simple, cells, optimizer):
    clf = simple(lr=1e20, optimizer=optimizer, head=Head(hidden=(64, 64)), max_epochs=50)
    with pytest.raises(FloatingPointError, match=r"diverged\. Lower lr \(it is 1e\+20\)\.$"):
        clf.fit(cells.images, cells.target)


def test_divergence_leaves_no_progress_bar_running(simple, cells, capsys):
    before = threading.active_count()
    with pytest.raises(FloatingPointError):
        simple(lr=1e10, optimizer="sgd", max_epochs=50, verbose=1).fit(cells.images, cells.target)
    deadline = time.monotonic() + 5  # a stopped thread may take a moment to end
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() == before


# ---------------------------------------------------------------- memory


@pytest.fixture
def little_memory():
    """Make a network run out of memory beyond so many images; return the batches that ran."""
    with ExitStack() as stack:

        def limit(network, most):
            ran = []

            def limited(module, args, inputs):
                if len(inputs["images"]) > most:
                    raise torch.OutOfMemoryError("simulated")
                ran.append(len(inputs["images"]))

            stack.enter_context(network.register_forward_pre_hook(limited, with_kwargs=True))
            return ran

        yield limit


def test_too_little_memory_while_fitting_names_batch_size(simple, cells, little_memory):
    class Limit(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            little_memory(net.module_, 10)

    clf = simple(batch_size=12, callbacks=[("limit", Limit())])
    with pytest.raises(OutOfMemoryError, match=r"cpu has too little.*lower batch_size \(it is 12"):
        clf.fit(cells.images, cells.target)
    clf.set_params(batch_size=10).fit(cells.images, cells.target)  # the advice helps


@pytest.mark.parametrize("most", [1, 5, 15])
def test_too_little_memory_while_predicting_takes_smaller_batches(
    fitted, cells, little_memory, most
):
    expected = fitted.predict_proba(cells.images)
    ran = little_memory(fitted.net_.module_, most)
    # Batches of another size are summed in another order: float32 rounding.
    np.testing.assert_allclose(fitted.predict_proba(cells.images), expected, atol=1e-5)
    assert sum(ran) == len(cells.images)  # every image once
    assert max(ran) == {1: 1, 5: 4, 15: 8}[most]  # 16 halved until it fits
    assert fitted.batch_size == 16


def test_too_little_memory_for_one_image_is_an_error(fitted, cells, little_memory):
    little_memory(fitted.net_.module_, 0)
    with pytest.raises(OutOfMemoryError, match=r"cpu has too little.*single image.*input_size"):
        fitted.predict(cells.images)


# ---------------------------------------------------------------- a torch module as backbone


@pytest.mark.parametrize("estimator", [CNNClassifier, DeepFeatures])
def test_a_torch_module_is_refused_with_the_way_to_make_it_a_backbone(estimator, cells):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    advice = r"ConvNet.*register_backbone\(BackboneSpec\(.*docs/plugins\.md"
    with pytest.raises(ValueError, match=rf"'backbone' parameter of .*{advice}.*Sequential"):
        estimator(module).fit(cells.images, cells.target)
    with pytest.raises(TypeError, match=rf"{advice}.*Got a Sequential"):
        describe(module)

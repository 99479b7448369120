"""What a classifier remembers of its training images, and when it warns of others."""

import copy
import pickle

import cv2
import joblib
import numpy as np
import pytest
import torch

from wbcclf import (
    Augmenter,
    CNNClassifier,
    ConvNet,
    SimpleCNNClassifier,
    load_model,
    make_blood_cells,
    save_model,
)
from wbcclf._uncertainty import LEAST_FAMILIAR, STRANGE, uncertain_label, unfamiliar
from wbcclf.classifiers.familiarity._description import (
    FEWEST,
    N_STYLE,
    THRESHOLDS,
    WIDTH,
    Description,
    describe,
    fewest_calls,
    restored,
)
from wbcclf.exceptions import UnfamiliarImagesWarning
from wbcclf.preprocessing._style import style

HOME = make_blood_cells(160, classes=2, image_size=32, random_state=0)
NEW = make_blood_cells(160, classes=2, image_size=32, random_state=1)
OTHERS = make_blood_cells(160, classes=2, image_size=32, random_state=2)  # not validated on
BLUE = (NEW.images * np.array([0.6, 0.7, 1.0])).astype(np.uint8)  # another light


def quick(**params):
    return SimpleCNNClassifier(
        **({"device": "cpu", "max_epochs": 6, "batch_size": 16, "random_state": 0} | params)
    )


@pytest.fixture(scope="module")
def home():
    return quick().fit(HOME.images, HOME.target, X_val=NEW.images, y_val=NEW.target)


@pytest.fixture(scope="module")
def alone():
    """Fitted without validation images."""
    return quick().fit(HOME.images, HOME.target)


# ---------------------------------------------------------------- familiarity


def test_images_of_the_same_laboratory_are_as_familiar_as_each_other(home):
    familiarity = home.familiarity(OTHERS.images)
    assert familiarity.shape == (160,)
    assert 0 <= familiarity.min() and familiarity.max() <= 1
    assert 0.4 < familiarity.mean() < 0.6


def test_another_stain_and_noise_are_not_familiar(home, alone):
    noise = np.random.RandomState(0).randint(256, size=BLUE.shape).astype(np.uint8)
    for clf in (home, alone):
        assert clf.familiarity(BLUE).mean() < 0.15
        assert clf.familiarity(noise).mean() < STRANGE


def test_without_validation_new_images_are_familiar_still(alone):
    assert 0.35 < alone.familiarity(NEW.images).mean() < 0.65


def test_one_class_alone_is_as_familiar_as_both(home):
    for label in home.classes_:
        others = make_blood_cells(160, classes=2, image_size=32, random_state=3)
        assert home.familiarity(others.images[others.target == label]).mean() > 0.35


def test_familiarity_does_not_depend_on_the_other_images(home):
    whole = home.familiarity(BLUE[:40])
    assert np.allclose(home.familiarity(BLUE[5:9]), whole[5:9], atol=1e-5)


def test_familiarity_is_of_the_images_as_they_are(home):
    flipped = quick(test_time_augmentation=True)
    flipped.__dict__.update({k: v for k, v in vars(home).items() if k.endswith("_") or k[0] == "_"})
    assert np.allclose(flipped.familiarity(NEW.images), home.familiarity(NEW.images))


def test_a_model_without_a_description_says_so(home):
    few = quick(max_epochs=1).fit(HOME.images[: FEWEST - 1], HOME.target[: FEWEST - 1])
    partial = quick().partial_fit(HOME.images, HOME.target)
    older = pickle.loads(pickle.dumps(home))
    del older.__dict__["_description"]
    for clf in (few, partial, older):
        with pytest.raises(ValueError, match=r"no description .* fit again"):
            clf.familiarity(NEW.images)
        clf.predict(BLUE)  # no warning: these are errors here


def test_partial_fit_forgets_the_description():
    clf = quick(max_epochs=1).fit(HOME.images, HOME.target)
    clf.partial_fit(HOME.images[:20], HOME.target[:20])
    with pytest.raises(ValueError, match="no description"):
        clf.familiarity(NEW.images)


def test_grey_images_and_strips_have_a_description():
    grey = HOME.images.mean(axis=3, keepdims=True).astype(np.uint8)
    assert quick(max_epochs=1).fit(grey, HOME.target).familiarity(grey).mean() > 0.3
    strips = np.random.RandomState(0).normal(size=(60, 7))
    clf = quick(max_epochs=1).fit(strips, strips[:, 0] > 0)
    assert clf.familiarity(strips).mean() > 0.3


def test_images_that_are_all_the_same_have_one():
    images = np.full((60, 16, 16, 3), 9, np.uint8)
    familiarity = quick(max_epochs=1).fit(images, [0, 1] * 30).familiarity(images)
    assert np.isfinite(familiarity).all()


def test_copies_are_not_described():
    copied = Augmenter(n_copies=2, random_state=0).fit_resample(HOME.images[:30], HOME.target[:30])
    clf = quick(max_epochs=1).fit(*copied)  # 90 images, of which 30 are originals
    assert clf._description is None


# ---------------------------------------------------------------- the fit stays what it was


def test_describing_changes_neither_network_nor_random_state(monkeypatch):
    from wbcclf.classifiers.training import _fit

    def fitted():
        state = np.random.RandomState(3)
        torch.manual_seed(7)
        clf = quick(max_epochs=2, random_state=state).fit(HOME.images, HOME.target)
        return clf, state.randint(2**31), torch.rand(1).item()

    described, *numbers = fitted()
    monkeypatch.setattr(_fit, "describe_training", lambda *_: None)
    plain, *same = fitted()
    assert plain._description is None and described._description is not None
    assert numbers == same
    assert np.array_equal(plain.predict_proba(NEW.images), described.predict_proba(NEW.images))


def test_few_images_are_looked_at(monkeypatch):
    from wbcclf.classifiers.training import _describing

    looked = []
    whole = _describing.predict_data
    monkeypatch.setattr(
        _describing,
        "predict_data",
        lambda *given: looked.append(len(given[-1])) or whole(*given),
    )
    many, target = np.repeat(HOME.images[:, ::2, ::2], 5, axis=0), np.repeat(HOME.target, 5)
    quick(max_epochs=1, batch_size=100).fit(many, target)
    quick(max_epochs=4, batch_size=100).fit(many, target)
    assert looked == [100, 106]  # of 800 and of 3,200 that training has looked at


def test_one_pass_of_the_network_gives_all(home):
    n_images = []
    hook = home.net_.module_.register_forward_pre_hook(
        lambda _, __, given: n_images.append(len(given["images"])), with_kwargs=True
    )
    home.predict(NEW.images)
    hook.remove()
    assert sum(n_images) == len(NEW.images)


@pytest.mark.parametrize("layers", [0, 1, 2, "all"])
def test_kept_activations_give_the_same_familiarity(layers, tmp_path):
    start = CNNClassifier(ConvNet(filters=(4, 4)), max_epochs=1, device="cpu", random_state=0)
    save_model(start.fit(HOME.images, HOME.target), tmp_path / "m.wbcclf")

    def fitted(**params):
        return CNNClassifier(
            ConvNet(filters=(4, 4)),
            weights=tmp_path / "m.wbcclf",
            unfrozen_layers=layers,
            max_epochs=2,
            device="cpu",
            random_state=0,
            **params,
        ).fit(HOME.images, HOME.target)

    plain, cached = fitted(cache_gb=0), fitted(memory=tmp_path / "store")
    assert np.allclose(plain.familiarity(NEW.images), cached.familiarity(NEW.images), atol=1e-4)
    again = fitted(memory=tmp_path / "store")  # a kept fit
    for name, array in cached._description.arrays().items():
        assert np.array_equal(array, again._description.arrays()[name])


def details(images, step):
    """Return what pixels of images (n, 3, height, width) differ by from the 3x3 around them."""
    mean = torch.nn.functional.avg_pool2d(images, 3, stride=1)
    return (images[:, :, 1:-1, 1:-1] - mean)[:, :, ::step]


@pytest.mark.parametrize("size", [(32, 32), (31, 17), (12, 40)])
def test_the_style_is_of_details_at_three_scales(size):
    images = torch.rand(4, 3, *size)
    images[:, 1] = (images[:, 0] + images[:, 1]) / 2  # channels with something in common
    expected, image = [], images
    for scale in range(3):
        if scale:
            image = torch.nn.functional.avg_pool2d(image, 2)
        detail = details(image, 1 if scale else 4)
        spread = detail.square().mean((2, 3)).sqrt()
        expected.append(spread.log())
        if scale < 2:
            for one, other in ((0, 1), (1, 2), (0, 2)):
                both = (detail[:, one] * detail[:, other]).mean((1, 2))
                expected.append((both / (spread[:, one] * spread[:, other]))[:, None])
    expected += [image.mean((2, 3)), image.std((2, 3), correction=0)]
    expected = torch.cat(expected, 1)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        # The variances of these details are 0.01 or more, and 1e-6 is added to them.
        assert torch.allclose(style(given), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 3), (5, 4)])
def test_tiny_and_plain_images_have_a_style(size):
    for images in (torch.zeros(2, 3, *size), torch.rand(2, 3, *size)):
        found = style(images)
        assert found.shape == (2, N_STYLE) and found.isfinite().all()


def test_what_the_cropper_cannot_take_out_is_not_familiar(home):
    blurred = np.stack([cv2.GaussianBlur(image, (0, 0), 1) for image in OTHERS.images])
    packed = [
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1] for image in NEW.images
    ]
    packed = np.stack([cv2.imdecode(each, cv2.IMREAD_COLOR) for each in packed])
    for images in (blurred, packed):
        assert home.familiarity(images).mean() < LEAST_FAMILIAR


def test_a_laboratory_with_few_images_is_home_too():
    """As one in thirty of those of another one, as a single normal distribution has it, is not."""
    own = make_blood_cells(40, classes=2, image_size=32, random_state=5).images
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in own])
    rng = np.random.RandomState(0)

    def features(images):
        seen = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return np.hstack([rng.normal(size=(len(images), WIDTH)), style(seen).numpy()])

    many = make_blood_cells(1_200, classes=2, image_size=32, random_state=4).images
    logits = np.zeros((1_240, 2))
    described = describe(2, logits, rng.permutation(features(np.concatenate([many, soft]))), None)
    new = make_blood_cells(40, classes=2, image_size=32, random_state=6).images
    softer = np.stack([cv2.GaussianBlur(image, (0, 0), 4) for image in new])
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), 1.5) for image in new])
    means = [
        described.familiarity(described.strangeness(logits[:40], features(images))).mean()
        for images in (new, soft, softer)
    ]
    assert means[0] > 0.4 and means[1] > 0.2 and means[2] < 0.1


# ---------------------------------------------------------------- the warning


def test_a_batch_of_another_laboratory_raises_the_warning(home):
    says = r"These 20 images do not look like .* familiarity is 0\.0\d, .* wbcclf adapt"
    for method in (home.predict, home.predict_proba):
        with pytest.warns(UnfamiliarImagesWarning, match=says):
            method(BLUE[:20])


def test_nothing_else_raises_it(home):
    for images in (BLUE[:19], NEW.images, HOME.images, np.concatenate([BLUE[:10], NEW.images])):
        home.predict(images)  # warnings are errors here
    home.score(HOME.images, HOME.target)


def test_images_of_no_cells_among_those_of_home_raise_it(home):
    noise = np.random.RandomState(0).randint(256, size=(40, 32, 32, 3)).astype(np.uint8)
    with pytest.warns(UnfamiliarImagesWarning, match=r"4\d of these 60 images do not look like"):
        home.predict(np.concatenate([noise, NEW.images[:20]]))


def test_the_tests_are_of_the_mean_and_of_strange_ones():
    half = np.repeat([0.0, 0.5], [11, 9])
    assert "11 of these 20 cells" in unfamiliar(half, what="cells")
    assert unfamiliar(np.repeat([0.0, 0.5], [10, 10])) is None
    assert unfamiliar(np.full(20, 0.09)) is not None
    assert unfamiliar(np.full(20, 0.11)) is None
    assert unfamiliar(np.zeros(19)) is None
    draws = np.random.RandomState(0).uniform(size=(20_000, 20))
    assert np.mean([unfamiliar(draw) is not None for draw in draws]) < 0.002


# ---------------------------------------------------------------- rejection


def normal(n, seed=0, shift=0.0):
    """Return logits, features and classes of two classes that overlap."""
    rng = np.random.RandomState(seed)
    target = rng.randint(2, size=n)
    features = rng.normal(size=(n, WIDTH + N_STYLE)) + shift
    evidence = rng.normal(2 * (2 * target - 1), 1.5)
    return np.stack([-evidence, evidence], 1), features.astype(np.float32), target


def test_the_bound_holds_as_often_as_it_says():
    share, broken, declined = 0.05, 0, []
    many = normal(20_000, seed=9)
    for seed in range(60):
        description = describe(2, *normal(300, 1000 + seed)[:2], normal(1_000, seed))
        logits, features, target = many
        strangeness = description.strangeness(logits, features)
        certainty = description.certainty(logits, strangeness)
        called = description.is_called(certainty, strangeness, description.threshold(share))
        broken += (logits.argmax(1) != target)[called].mean() > share
        declined.append(1 - called.mean())
    assert broken <= 7  # of 60 at 5% each: more has a probability of 0.7%
    assert np.mean(declined) < 0.4  # nor does it hold because next to nothing is called
    assert (many[0].argmax(1) != many[2]).mean() > share


def test_too_few_validation_images_are_an_error():
    assert fewest_calls(0.05) == 59
    description = describe(2, *normal(100)[:2], normal(40, 1))
    with pytest.raises(ValueError, match=r"at least 59 validation images .* not \d\d"):
        description.threshold(0.05)
    with pytest.raises(ValueError, match=r"59 validation images .* not 0\. Fit with X_val"):
        quick(rejection=0.05).fit(HOME.images, HOME.target)


def test_too_many_errors_are_an_error():
    logits, features, target = normal(500, 1)
    description = describe(2, *normal(100)[:2], (logits, features, 1 - target))
    with pytest.raises(ValueError, match=r"among the surest of the 495 .* too many are wrong"):
        description.threshold(0.05)


def test_only_labels_need_a_bound_that_can_be_kept(alone):
    probabilities, familiarity = alone.predict_proba(NEW.images), alone.familiarity(NEW.images)
    rejecting = copy.copy(alone).set_params(rejection=0.05)
    with pytest.raises(ValueError, match="59 validation images"):
        rejecting.predict(NEW.images)
    np.testing.assert_array_equal(rejecting.predict_proba(NEW.images), probabilities)
    np.testing.assert_array_equal(rejecting.familiarity(NEW.images), familiarity)


def test_what_looks_like_nothing_known_is_never_called():
    description = describe(2, *normal(500)[:2], normal(500, 1))
    logits = np.array([[-50.0, 50.0]])
    for value, is_called in ((30, False), (0, True)):
        features = np.full((1, WIDTH + N_STYLE), value, np.float32)
        strangeness = description.strangeness(logits, features)
        certainty = description.certainty(logits, strangeness)
        assert certainty > THRESHOLDS[0] or not is_called
        assert description.is_called(certainty, strangeness, -100) == is_called


@pytest.mark.parametrize(
    ("labels", "uncertain"),
    [
        (np.array(["a", "b"]), "uncertain"),
        (np.array(["a", "b"], object), "uncertain"),
        (np.array([3, 7]), -1),
        (np.array([0.0, 1.0]), -1),
    ],
)
def test_an_uncertain_image_has_no_class(home, labels, uncertain):
    clf = copy.copy(home).set_params(rejection=0.2)
    clf.classes_ = labels  # as fit has them of such labels
    noise = np.random.RandomState(0).randint(256, size=(5, 32, 32, 3)).astype(np.uint8)
    assert clf.predict(noise).tolist() == [uncertain] * 5
    mixed = clf.predict(np.concatenate([noise, OTHERS.images]))
    called = mixed != uncertain
    assert mixed[:5].tolist() == [uncertain] * 5 and called.mean() > 0.3
    plain = clf.set_params(rejection=None).predict(np.concatenate([noise, OTHERS.images]))
    assert mixed[called].tolist() == plain[called].tolist()
    assert mixed.dtype.kind == labels.dtype.kind


@pytest.mark.parametrize("labels", [np.array([-1, 1]), np.array([False, True])])
def test_labels_that_leave_no_room_for_uncertain_are_an_error(labels):
    with pytest.raises(ValueError, match="With rejection, an uncertain image has the label"):
        uncertain_label(labels)


@pytest.mark.parametrize("share", [0, 1, -0.1, "0.05", True])
def test_a_rejection_is_a_share(share):
    with pytest.raises(ValueError, match="rejection"):
        quick(rejection=share).fit(HOME.images, HOME.target)


# ---------------------------------------------------------------- files


def test_a_file_holds_the_description(home, tmp_path):
    save_model(home, tmp_path / "m.wbcclf")
    joblib.dump(home, tmp_path / "m.joblib")
    expected = home.familiarity(NEW.images)
    for loaded in (load_model(tmp_path / "m.wbcclf"), joblib.load(tmp_path / "m.joblib")):
        assert np.array_equal(loaded.familiarity(NEW.images), expected)
        with pytest.warns(UnfamiliarImagesWarning):
            loaded.predict(BLUE)
    assert sum(array.nbytes for array in home._description.arrays().values()) < 8_000


def test_a_description_that_cannot_have_been_learnt_is_refused(home):
    good = home._description.arrays()
    assert isinstance(restored(good, 2), Description)
    bad = [
        good | {"more": good["centres"]},
        {name: array for name, array in good.items() if name != "calls"},
        good | {"means": good["means"][:1]},
        good | {"means": good["means"].astype(np.float64)},
        good | {"whitening": np.full_like(good["whitening"], np.nan)},
        good | {"distances": good["distances"][::-1]},
        good | {"style_means": good["style_means"][:0]},
        good | {"style_whitenings": good["style_whitenings"][:, :-1]},
        good | {"calls": good["calls"][::-1]},
        good | {"calls": good["calls"] - 1},
    ]
    for arrays in bad:
        with pytest.raises(ValueError, match="description"):
            restored(arrays, 2)


def test_strangeness_weighs_less_for_a_network_that_was_shown_other_laboratories():
    """The weight is learnt: where strange images are called rightly, they lose little."""
    home, val = (
        make_blood_cells(n, classes=2, image_size=32, random_state=k)
        for n, k in ((200, 0), (120, 1))
    )
    weights = {}
    for name, augment in (("plain", None), ("other", Augmenter(laboratory=1))):
        clf = SimpleCNNClassifier(
            max_epochs=12, lr=3e-3, augment=augment, batch_size=16, device="cpu", random_state=0
        )
        clf.fit(home.images, home.target, X_val=val.images, y_val=val.target)
        [weights[name]] = clf._description.weight.tolist()
    assert 0 <= weights["other"] < weights["plain"] <= 2
    alone = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    assert alone.fit(home.images, home.target)._description.weight.tolist() == [2]

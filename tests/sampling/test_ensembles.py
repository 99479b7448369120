"""Samplers inside imbalanced-learn's ensembles and scikit-learn's metadata routing."""

import numpy as np
import pytest
from imblearn import FunctionSampler, over_sampling, under_sampling
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.pipeline import make_pipeline
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.metadata_routing import get_routing_for_object

from wbcclf import (
    SMOTE,
    Augmenter,
    DeepFeatures,
    EarlyStopping,
    ImageSampler,
    SimpleCNNClassifier,
    make_blood_cells,
)


def flat(images):
    return images.reshape(len(images), -1)


@pytest.fixture(scope="module")
def cells():
    counts = {"neutrophil": 40, "lymphocyte": 20}
    drawn = make_blood_cells(classes=list(counts), imbalance=counts, image_size=16, random_state=0)
    return drawn.images, (drawn.target == "neutrophil").astype(int)


@pytest.mark.parametrize(
    ("sampler", "strategy"),
    [
        (under_sampling.RandomUnderSampler(), "auto"),
        (under_sampling.RandomUnderSampler(), {"a": 8, "b": 6}),
        (over_sampling.RandomOverSampler(), "not majority"),
        (over_sampling.SMOTE(), 0.9),
        (under_sampling.TomekLinks(), "all"),
        (FunctionSampler(func=lambda X, y: (X[::2], y[::2])), "auto"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "fit_resample") else str(value),
)
def test_an_ensemble_takes_it_as_it_takes_the_sampler(sampler, strategy, cells):
    images, target = cells
    X, y = flat(images), np.where(target == 1, "a", "b")
    ensemble = BalancedBaggingClassifier(
        DecisionTreeClassifier(max_depth=2),
        n_estimators=2,
        sampling_strategy=strategy,
        bootstrap=False,
        random_state=0,
    )
    given = clone(sampler)
    with_adapter = clone(ensemble).set_params(sampler=ImageSampler(given)).fit(X, y)
    without = ensemble.set_params(sampler=sampler).fit(X.astype(np.float32), y)
    for ours, theirs in zip(with_adapter.estimators_, without.estimators_, strict=True):
        ours, theirs = ours[0].sampler_, theirs[0]
        assert getattr(ours, "sampling_strategy_", None) == getattr(
            theirs, "sampling_strategy_", None
        )
        assert ours.get_params().get("random_state") == theirs.get_params().get("random_state")
    assert given.get_params().keys() == sampler.get_params().keys()
    assert repr(given) == repr(clone(sampler))  # the one that was given stays as it was
    assert (with_adapter.predict(X) == y).mean() > 0.6


# imbalanced-learn's own pipeline lacks what its ensembles ask for.
CHAIN = ImageSampler(make_pipeline(over_sampling.SMOTE(), under_sampling.TomekLinks()))


@pytest.mark.parametrize("sampler", [Augmenter(), SMOTE(), CHAIN], ids=repr)
def test_an_ensemble_takes_our_own_samplers(sampler, cells):
    X, y = flat(cells[0]), cells[1]
    tree = DecisionTreeClassifier(max_depth=2)
    ensemble = BalancedBaggingClassifier(tree, n_estimators=2, sampler=sampler, random_state=0)
    assert ensemble.fit(X, y).predict(X).shape == y.shape


def test_a_classifier_with_early_stopping_in_an_ensemble_sees_no_validation_image(cells):
    clf = SimpleCNNClassifier(
        early_stopping=EarlyStopping(validation_fraction=0.3),
        max_epochs=1,
        device="cpu",
        random_state=0,
    )
    ensemble = BalancedBaggingClassifier(
        clf,
        n_estimators=2,
        sampler=ImageSampler(over_sampling.RandomOverSampler()),
        random_state=0,
    ).fit(flat(cells[0]), cells[1])
    for member, drawn in zip(ensemble.estimators_, ensemble.estimators_samples_, strict=True):
        image = np.asarray(drawn)[member[0].sample_indices_]
        trained_on = set(image[member[1].train_indices_])
        assert len(member[1].validation_indices_)
        assert not trained_on & set(image[member[1].validation_indices_])


@pytest.mark.parametrize("routing", [False, True])
def test_metadata_goes_through_a_pipeline_of_samplers(routing, cells):
    images, target = cells
    steps = [Augmenter(random_state=0), SMOTE(random_state=0)]
    steps.append(ImageSampler(over_sampling.RandomOverSampler(random_state=0)))
    tree = make_pipeline(DeepFeatures("simple_cnn", weights=None), DecisionTreeClassifier())
    with config_context(enable_metadata_routing=routing):
        theirs = repr(get_routing_for_object(over_sampling.SMOTE()))
        for step in (*steps[:2], steps[2].sampler):
            # As imbalanced-learn's own: they take nothing but X and y, and ask for nothing.
            assert repr(get_routing_for_object(step)) == theirs
        pipe = make_pipeline(*steps, tree)
        search = GridSearchCV(pipe, {"augmenter__n_copies": [1]}, cv=GroupKFold(2))
        search.fit(images, target, groups=np.arange(len(target)) // 2)
    assert search.predict(images).shape == target.shape

"""Every estimator takes part in scikit-learn's metadata routing."""

import inspect

import numpy as np
import pytest
import sklearn
from imblearn.base import BaseSampler
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.utils.metadata_routing import get_routing_for_object

import wbcclf
from wbcclf import (
    SMOTE,
    Augmenter,
    Cache,
    ConformalClassifier,
    DeepFeatures,
    Head,
    ImageSampler,
    SimpleCNNClassifier,
)

CONSUMED = {
    "fit": {"sample_weight", "X_val", "y_val"},
    "partial_fit": {"sample_weight", "classes"},
    "score": {"sample_weight"},
}
ESTIMATORS = [
    cls
    for name, cls in sorted((vars(wbcclf) | {"ConformalClassifier": ConformalClassifier}).items())
    if inspect.isclass(cls) and issubclass(cls, BaseEstimator)
]

NEEDED = {  # what has no default
    ImageSampler: [RandomOverSampler()],
    Cache: ["folder"],
    ConformalClassifier: [SimpleCNNClassifier()],
}


@pytest.fixture(autouse=True)
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.fixture
def groups(cells):
    """Two pictures of every cell."""
    return np.arange(len(cells.target)) // 2


class SplitOfGroups(StratifiedGroupKFold):
    """Notes whether groups arrive, and of how many images."""

    seen: list = []

    def split(self, X, y, groups=None):
        self.seen.append(len(groups))
        assert len(np.unique(groups)) == len(groups) / 2  # whole groups
        return super().split(X, y, groups)


@pytest.mark.parametrize("cls", ESTIMATORS, ids=lambda cls: cls.__name__)
def test_estimators_request_what_they_take_and_nothing_else(cls):
    estimator = cls(*NEEDED.get(cls, ()))
    router = get_routing_for_object(estimator)
    takes = CONSUMED if issubclass(cls, wbcclf.CNNClassifier) else {}
    if cls is ConformalClassifier:
        takes = {"fit": {"groups"}, "score": {"sample_weight"}}
    for method in ("fit", "partial_fit", "predict", "transform", "fit_resample", "score"):
        offered = {"sample_weight", "X_val", "y_val", "classes", "groups"}
        if hasattr(router, method):  # a consumer; ImageSampler is a router
            requests = getattr(router, method).requests
            assert set(requests) == takes.get(method, set())
            assert not any(
                requests.values()
            )  # unset: passing one is an error until it is asked for
        assert router.consumes(method, offered) == set()


def test_nested_cross_validation_gets_groups_inside_and_outside(simple, cells, groups):
    pipe = Pipeline(
        [
            ("aug", Augmenter(random_state=0)),
            ("smote", SMOTE(random_state=0)),
            ("clf", simple(max_epochs=1)),
        ]
    )
    SplitOfGroups.seen.clear()
    search = GridSearchCV(pipe, {"clf__lr": [1e-3, 1e-2]}, cv=SplitOfGroups(2))
    predicted = cross_val_predict(
        search, cells.images, cells.target, params={"groups": groups}, cv=SplitOfGroups(3)
    )
    assert predicted.shape == cells.target.shape
    assert SplitOfGroups.seen == [36, 24, 24, 24]


def test_requested_weights_reach_the_classifier_of_every_candidate(simple, cells):
    """Weights of zero leave a class out, so what was learnt tells whether they arrived."""
    weight = (cells.target != "eosinophil").astype(float)
    clf = simple(max_epochs=1).set_fit_request(sample_weight=True)
    pipe = Pipeline([("clf", clf.set_score_request(sample_weight=True))])
    search = GridSearchCV(pipe, {"clf__lr": [1e-3, 1e-2]}, cv=2, error_score="raise")
    search.fit(cells.images, cells.target, sample_weight=weight)
    assert search.best_estimator_["clf"].classes_.tolist() == ["lymphocyte", "neutrophil"]
    clf.set_fit_request(sample_weight=False)
    search.fit(cells.images, cells.target, sample_weight=weight)
    assert len(search.best_estimator_["clf"].classes_) == 3


def test_what_is_not_asked_for_is_an_error(simple, cells):
    pipe = Pipeline([("clf", simple())])
    with pytest.raises(UnsetMetadataPassedError, match=r"sample_weight.*set_fit_request"):
        pipe.fit(cells.images, cells.target, sample_weight=np.ones(36))


def test_validation_images_go_through_the_steps_before_the_classifier(simple, cells):
    """DeepFeatures makes rows of images; of X_val, too, where the pipeline is asked to."""
    clf = simple(max_epochs=1).set_fit_request(X_val=True, y_val=True)
    features = DeepFeatures("simple_cnn", weights=None, random_state=0)
    pipe = Pipeline([("features", features), ("clf", clf)], transform_input=["X_val"])
    validation = {"X_val": cells.images[:9], "y_val": cells.target[:9]}
    pipe.fit(cells.images[9:], cells.target[9:], **validation)
    assert pipe["clf"].history_[0]["valid_acc"] == np.mean(
        pipe.predict(cells.images[:9]) == cells.target[:9]
    )


def test_requests_survive_cloning_and_nested_objects_have_none(simple):
    clf = simple(head=Head(hidden=(8,)), augment=Augmenter())
    clf.set_fit_request(sample_weight=True).set_partial_fit_request(classes=True)
    copy = clone(clf)
    assert copy.get_metadata_routing().fit.requests["sample_weight"] is True
    assert copy.get_metadata_routing().partial_fit.requests["classes"] is True
    assert SimpleCNNClassifier().get_metadata_routing().fit.requests["sample_weight"] is None


class Marked(BaseSampler):
    """Leaves out what is marked: a sampler that takes metadata."""

    _sampling_type = "bypass"
    _parameter_constraints: dict = {}

    def fit_resample(self, X, y, marked=None):
        self.got_ = marked
        return X[~marked], y[~marked]

    def _fit_resample(self, X, y):
        raise NotImplementedError


def test_image_sampler_hands_metadata_to_the_sampler_in_it(simple, cells):
    marked = cells.target == "eosinophil"
    sampler = ImageSampler(Marked().set_fit_resample_request(marked="weak"))
    pipe = Pipeline([("sampler", sampler), ("clf", simple(max_epochs=1))])
    pipe.fit(cells.images, cells.target, weak=marked)
    assert pipe["clf"].classes_.tolist() == ["lymphocyte", "neutrophil"]
    images, _ = sampler.fit_resample(cells.images, cells.target, weak=marked)
    assert images.shape == (24, 16, 16, 3)
    with pytest.raises(UnsetMetadataPassedError, match=r"\[marked\].*Marked"):
        ImageSampler(Marked()).fit_resample(cells.images, cells.target, marked=marked)
    with pytest.raises(TypeError, match="unexpected argument"):
        sampler.fit_resample(cells.images, cells.target, groups=marked)

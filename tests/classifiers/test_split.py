"""The early-stopping split: no copy or synthetic of a validation image is ever trained on.

Ancestry is worked out here from the samplers' public attributes alone, not from the record that
travels with the images.
"""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import ADASYN, RandomOverSampler
from imblearn.pipeline import Pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from skorch.callbacks import Callback

from wbcclf import (
    SMOTE,
    Augmenter,
    EarlyStopping,
    ImageSampler,
    SimpleCNNClassifier,
    make_blood_cells,
)

COUNTS = {"neutrophil": 14, "lymphocyte": 9, "eosinophil": 6}
N_ORIGINALS = sum(COUNTS.values())


@pytest.fixture(scope="module")
def rare():
    """29 cells of three classes of different size."""
    return make_blood_cells(classes=list(COUNTS), imbalance=COUNTS, image_size=16, random_state=0)


@pytest.fixture
def pipeline(simple):
    """Return a maker of stock pipelines: Augmenter, SMOTE, classifier with early stopping."""

    def make(seed=0, memory=None, **params):
        stop = {"early_stopping": EarlyStopping(validation_fraction=0.25), "max_epochs": 1}
        return Pipeline(
            [
                ("aug", Augmenter(n_copies=2, random_state=seed)),
                ("smote", SMOTE(k_neighbors=3, random_state=seed)),
                ("clf", simple(**(stop | {"random_state": seed} | params))),
            ],
            memory=memory,
        )

    return make


def ancestry(samplers, n_originals):
    """Return, for every row of the last sampler's output, the set of originals it is made from."""
    made_from = [{row} for row in range(n_originals)]
    for sampler in samplers:
        n_in = len(made_from)
        parents = [[row] for row in sampler.sample_indices_]
        if hasattr(sampler, "sample_pairs_"):
            parents[n_in:] = sampler.sample_pairs_.tolist()
        made_from = [set().union(*(made_from[row] for row in rows)) for rows in parents]
    return made_from


def assert_clean(pipe, n_originals):
    """Assert that the split inside the pipeline's classifier leaks nothing and wastes nothing."""
    *samplers, clf = (step for _, step in pipe.steps)
    made_from = ancestry(samplers, n_originals)
    train, validation = clf.train_indices_, clf.validation_indices_
    held_out = set(validation.tolist())
    assert len(held_out) == len(validation) > 0
    assert max(held_out) < n_originals  # the samplers append: originals come first
    leaked = [row for row in train if made_from[row] & held_out]
    assert leaked == []
    left_out = set(range(len(made_from))) - held_out - set(train.tolist())
    assert all(made_from[row] & held_out for row in left_out)
    # Otherwise there was nothing to get wrong: copies trained on, and copies left out.
    assert max(train) >= n_originals
    assert left_out


def rows_of(images):
    return {image.tobytes() for image in images}


class Seen(Callback):
    """Collect the very images that reach the network in training and in validation."""

    def initialize(self):
        self.train, self.valid = set(), set()
        return self

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        (self.train if training else self.valid).update(rows_of(batch[0]["images"]))


@pytest.mark.parametrize("seed", range(5))
def test_stock_pipeline_with_augmenter_and_smote_leaks_nothing(pipeline, rare, seed):
    pipe = pipeline(seed).fit(rare.images, rare.target)
    assert_clean(pipe, N_ORIGINALS)


def test_rows_leak_nothing_either(pipeline, rare):
    pipe = pipeline().fit(rare.images.reshape(N_ORIGINALS, -1), rare.target)
    assert_clean(pipe, N_ORIGINALS)


def test_lists_of_images_leak_nothing_either(pipeline, rare):
    pipe = pipeline().fit(list(rare.images), rare.target)
    assert_clean(pipe, N_ORIGINALS)


def test_lists_of_rows_leak_nothing_either(pipeline, rare):
    pipe = pipeline().fit(rare.images.reshape(N_ORIGINALS, -1).tolist(), rare.target)
    assert_clean(pipe, N_ORIGINALS)


def test_data_frames_leak_nothing_either(pipeline, rare):
    frame = pd.DataFrame(rare.images.reshape(N_ORIGINALS, -1))
    assert_clean(pipeline().fit(frame, rare.target), N_ORIGINALS)


def test_indices_are_the_images_that_the_network_really_saw(pipeline, rare):
    seen = Seen()
    pipe = pipeline(callbacks=[seen]).fit(rare.images, rare.target)
    X, y = rare.images, rare.target
    for _, sampler in pipe.steps[:-1]:
        X, y = sampler.fit_resample(X, y)  # seeded: the same images as in the pipeline
    X = np.asarray(X)
    clf = pipe["clf"]
    assert seen.train == rows_of(X[clf.train_indices_])
    assert seen.valid == rows_of(X[clf.validation_indices_])
    assert len(seen.valid) == len(clf.validation_indices_)
    assert seen.train.isdisjoint(seen.valid)


def test_validation_share_counts_the_originals_of_every_class(pipeline, rare):
    clf = pipeline().fit(rare.images, rare.target)["clf"]
    labels, counts = np.unique(rare.target[clf.validation_indices_], return_counts=True)
    shares = {label: round(0.25 * n) for label, n in COUNTS.items()}
    assert dict(zip(labels.tolist(), counts.tolist(), strict=True)) == shares


def test_pipeline_with_memory_leaks_nothing_when_it_reads_its_cache(pipeline, rare, tmp_path):
    first = pipeline(memory=str(tmp_path)).fit(rare.images, rare.target)
    n_files = len(list(tmp_path.rglob("output.pkl")))
    assert n_files == 2  # one for each sampler
    again = pipeline(memory=str(tmp_path)).fit(rare.images, rare.target)
    assert len(list(tmp_path.rglob("output.pkl"))) == n_files  # the second run only read
    for pipe in (first, again):
        assert_clean(pipe, N_ORIGINALS)
    assert np.array_equal(first["clf"].train_indices_, again["clf"].train_indices_)


def test_grid_search_with_two_processes_and_refit_leaks_nothing(pipeline, rare):
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    pipe = pipeline().set_params(smote__k_neighbors=2)
    grid = {"clf__early_stopping__validation_fraction": [0.2, 0.4]}
    search = GridSearchCV(pipe, grid, cv=folds, n_jobs=2, error_score="raise")
    search.fit(rare.images, rare.target)
    assert_clean(search.best_estimator_, N_ORIGINALS)

    # A search keeps no fold's estimator; the same folds through the same processes, with them.
    scores = cross_validate(
        pipe, rare.images, rare.target, cv=folds, n_jobs=2, return_estimator=True
    )
    for fitted, (train, _) in zip(
        scores["estimator"], folds.split(rare.images, rare.target), strict=True
    ):
        assert_clean(fitted, len(train))


@pytest.mark.parametrize("first", [RandomOverSampler, RandomUnderSampler])
def test_adapted_imblearn_sampler_leaks_nothing(pipeline, rare, first):
    pipe = pipeline()
    pipe.steps[0] = ("stock", ImageSampler(first(random_state=0)))
    pipe.steps[1] = ("aug", Augmenter(random_state=0))
    pipe.fit(rare.images, rare.target)
    made_from = ancestry([pipe["stock"], pipe["aug"]], N_ORIGINALS)
    held_out = set().union(*(made_from[row] for row in pipe["clf"].validation_indices_))
    assert held_out
    assert not [row for row in pipe["clf"].train_indices_ if made_from[row] & held_out]


# ---------------------------------------------------------------- without samplers


def test_without_samplers_all_rows_are_trained_on_or_validated_on(simple, cells):
    clf = simple(early_stopping=True).fit(cells.images, cells.target)
    both = np.concatenate([clf.train_indices_, clf.validation_indices_])
    assert sorted(both) == list(range(len(cells.images)))
    assert len(clf.validation_indices_) == 3  # round(0.1 * 12) of each of 3 classes


def test_without_early_stopping_all_rows_are_trained_on(simple, cells):
    clf = simple(max_epochs=1).fit(cells.images, cells.target)
    assert clf.train_indices_.tolist() == list(range(len(cells.images)))
    assert clf.validation_indices_.tolist() == []


def test_rows_of_weight_zero_are_neither_trained_on_nor_validated_on(simple, cells):
    weight = np.ones(len(cells.images))
    weight[::3] = 0
    clf = simple(early_stopping=True).fit(cells.images, cells.target, sample_weight=weight)
    both = np.concatenate([clf.train_indices_, clf.validation_indices_])
    assert sorted(both) == np.flatnonzero(weight).tolist()


def test_given_validation_images_leave_all_rows_to_train_on(simple, cells):
    clf = simple(early_stopping=True, max_epochs=1)
    clf.fit(cells.images[6:], cells.target[6:], X_val=cells.images[:6], y_val=cells.target[:6])
    assert len(clf.train_indices_) == len(cells.images) - 6
    assert len(clf.validation_indices_) == 0


@pytest.mark.parametrize("n_doubles", [1, 4])
def test_validation_images_that_are_trained_on_are_counted(simple, cells, n_doubles):
    X, y = cells.images[6 - n_doubles :], cells.target[6 - n_doubles :]
    validation = {"X_val": cells.images[:6], "y_val": cells.target[:6]}
    with pytest.warns(UserWarning, match=f"{n_doubles} of the 6 images of X_val are in X, too"):
        simple(max_epochs=1).fit(X, y, **validation)
    weight = np.ones(len(X))
    weight[:n_doubles] = 0
    simple(max_epochs=1).fit(X, y, sample_weight=weight, **validation)


def test_validation_images_whose_copies_are_trained_on_are_counted(simple, cells):
    augmenter = Augmenter(random_state=0)
    images, target = augmenter.fit_resample(cells.images, cells.target)
    copies = slice(len(cells.images), None)
    with pytest.warns(UserWarning, match="5 of the 5 images of X_val are in X, too"):
        simple(max_epochs=1).fit(images[copies], target[copies], X_val=images[:5], y_val=target[:5])
    others = np.flatnonzero(augmenter.sample_indices_ >= 5)
    simple(max_epochs=1).fit(images[others], target[others], X_val=images[:5], y_val=target[:5])


def test_a_bootstrap_sample_is_validated_on_images_that_are_not_trained_on(simple, cells):
    drawn = np.random.RandomState(0).choice(36, 36)
    seen = Seen()
    stopping = EarlyStopping(validation_fraction=0.3)
    clf = simple(early_stopping=stopping, callbacks=[seen], max_epochs=1)
    clf.fit(cells.images[drawn], cells.target[drawn])
    assert seen.valid
    assert seen.train.isdisjoint(seen.valid)
    validated = drawn[clf.validation_indices_]
    assert len(set(validated)) == len(validated)  # every image counts once
    left_out = np.setdiff1d(np.arange(36), [*clf.train_indices_, *clf.validation_indices_])
    assert len(left_out)
    assert set(drawn[left_out]) <= set(validated)


# ---------------------------------------------------------------- a lost record


def test_a_slice_of_resampled_images_is_split_cleanly(simple, rare):
    augmenter = Augmenter(random_state=0)
    X, y = augmenter.fit_resample(rare.images, rare.target)
    clf = simple(early_stopping=True, max_epochs=1).fit(X[5:], y[5:])
    source = augmenter.sample_indices_[5:]
    assert not set(source[clf.train_indices_]) & set(source[clf.validation_indices_])
    assert max(clf.validation_indices_) < N_ORIGINALS - 5


def test_a_batch_shuffled_in_place_is_split_cleanly(simple, rare):
    augmenter = Augmenter(random_state=0)
    X, y = augmenter.fit_resample(rare.images, rare.target)
    order = np.random.RandomState(0).permutation(len(X))
    X[:], y[:] = X[order], y[order]
    clf = simple(early_stopping=True, max_epochs=1).fit(X, y)
    source = augmenter.sample_indices_[order]
    assert not set(source[clf.train_indices_]) & set(source[clf.validation_indices_])
    assert (order[clf.validation_indices_] < N_ORIGINALS).all()


def test_joined_resampled_images_are_refused(simple, rare):
    X, y = Augmenter(random_state=0).fit_resample(rare.images, rare.target)
    X, y = np.concatenate([X, rare.images]), np.concatenate([y, rare.target])
    with pytest.raises(ValueError, match=r"early_stopping=True.*was lost.*X_val and y_val"):
        simple(early_stopping=True).fit(X, y)
    clf = simple(max_epochs=1).fit(X, y)  # nothing is split
    assert len(clf.train_indices_) == len(X)


def test_sampler_that_does_not_tell_its_sources_is_refused(pipeline, rare):
    pipe = pipeline().set_params(smote=ImageSampler(ADASYN(n_neighbors=2, random_state=0)))
    with pytest.raises(ValueError, match="does not record its sources"):
        pipe.fit(rare.images, rare.target)


def test_classes_of_one_original_have_no_validation_image_to_give(simple, rare):
    one_each = [np.flatnonzero(rare.target == label)[0] for label in COUNTS]
    X, y = Augmenter(random_state=0).fit_resample(rare.images[one_each], rare.target[one_each])
    with pytest.raises(ValueError, match="at least two different original images"):
        simple(early_stopping=True).fit(X, y)


@pytest.mark.parametrize("between", [MinMaxScaler(), FunctionTransformer(np.asarray)])
def test_a_transformer_between_samplers_and_classifier_does_not_lose_the_record(between):
    """Scalers make plain arrays of the images; the labels beside them still carry the record."""
    cells = make_blood_cells(60, classes=2, image_size=16, imbalance=2.0, random_state=0)
    rows = cells.images.reshape(60, -1)
    clf = SimpleCNNClassifier(max_epochs=1, early_stopping=True, device="cpu", random_state=0)
    steps = [("aug", Augmenter(random_state=0)), ("smote", SMOTE(random_state=0))]
    model = Pipeline([*steps, ("between", between), ("clf", clf)]).fit(rows, cells.target)
    assert model["clf"].validation_indices_.max() < 60
    aug, smote = model["aug"], model["smote"]
    parents = np.vstack([np.repeat(np.arange(120)[:, None], 2, axis=1), smote.sample_pairs_])
    roots = aug.sample_indices_[parents]
    trained_on = roots[model["clf"].train_indices_]
    assert not np.isin(trained_on, model["clf"].validation_indices_).any()

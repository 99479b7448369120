"""ImageSampler: imbalanced-learn's samplers on images, and any of them on our rows."""

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn import FunctionSampler, combine, over_sampling, under_sampling
from imblearn.pipeline import make_pipeline
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import get_tags
from sklearn.utils._param_validation import InvalidParameterError

from wbcclf import ImageSampler, make_blood_cells

QUICK = settings(max_examples=30, deadline=None)
APPENDING = [
    over_sampling.RandomOverSampler(random_state=0),
    over_sampling.RandomOverSampler(random_state=0, shrinkage=0.3),
    over_sampling.SMOTE(random_state=0),
    over_sampling.SMOTEN(random_state=0),
    over_sampling.BorderlineSMOTE(random_state=0),
    over_sampling.KMeansSMOTE(random_state=0, kmeans_estimator=1, cluster_balance_threshold=0),
    over_sampling.SVMSMOTE(random_state=0),
    over_sampling.ADASYN(random_state=0),
]
CHOOSING = [
    under_sampling.RandomUnderSampler(random_state=0),
    under_sampling.AllKNN(),
    under_sampling.CondensedNearestNeighbour(random_state=0),
    under_sampling.EditedNearestNeighbours(),
    under_sampling.InstanceHardnessThreshold(random_state=0, cv=2),
    under_sampling.NearMiss(),
    under_sampling.NeighbourhoodCleaningRule(),
    under_sampling.OneSidedSelection(random_state=0),
    under_sampling.RepeatedEditedNearestNeighbours(),
    under_sampling.TomekLinks(),
]
OTHERS = [
    combine.SMOTEENN(random_state=0),
    combine.SMOTETomek(random_state=0),
    under_sampling.ClusterCentroids(random_state=0),
]


def flat(images):
    return np.asarray(images).reshape(len(images), int(np.prod(images.shape[1:])))


@pytest.fixture(scope="module")
def cells():
    """Draw two classes; integer labels, since two of imbalanced-learn's samplers need them."""
    counts = {"neutrophil": 40, "lymphocyte": 20}
    drawn = make_blood_cells(classes=list(counts), imbalance=counts, image_size=16, random_state=0)
    return drawn.images, (drawn.target == "neutrophil").astype(int)


# ------------------------------------------------------------------ every sampler there is


@pytest.mark.parametrize("sampler", APPENDING + CHOOSING + OTHERS, ids=repr)
def test_it_gives_the_samplers_own_result_on_floats_rounded(sampler, cells):
    images, target = cells
    out, labels = ImageSampler(sampler).fit_resample(images, target)
    theirs, their_labels = clone(sampler).fit_resample(flat(images).astype(np.float32), target)
    assert out.shape[1:] == images.shape[1:]
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(labels, their_labels)
    # Nothing leaves 0-255 but what ROSE's noise drives out; that is clipped.
    np.testing.assert_array_equal(flat(out), np.rint(theirs).clip(0, 255))


@pytest.mark.parametrize("sampler", APPENDING, ids=repr)
def test_over_sampling_keeps_the_originals_first_and_evens_the_classes(sampler, cells):
    images, target = cells
    out, labels = ImageSampler(sampler).fit_resample(images, target)
    np.testing.assert_array_equal(np.asarray(out[: len(images)]), images)
    np.testing.assert_array_equal(labels[: len(images)], target)
    # ADASYN and the cluster-wise SMOTE only come close to the target of 40.
    assert abs(np.bincount(labels)[0] - 40) <= 3


@pytest.mark.parametrize("sampler", CHOOSING, ids=repr)
def test_under_sampling_tells_which_images_it_kept(sampler, cells):
    images, target = cells
    wrapped = ImageSampler(sampler)
    out, labels = wrapped.fit_resample(images, target)
    assert len(out) < len(images)
    np.testing.assert_array_equal(np.asarray(out), images[wrapped.sample_indices_])
    np.testing.assert_array_equal(labels, target[wrapped.sample_indices_])


@pytest.mark.parametrize("sampler", APPENDING + CHOOSING + OTHERS, ids=repr)
def test_all_of_them_work_on_our_rows_without_the_adapter(sampler, cells):
    images, target = cells
    out, labels = clone(sampler).fit_resample(flat(images).astype(np.float32), target)
    assert out.shape[1] == 16 * 16 * 3
    assert len(out) == len(labels)


def test_bytes_do_not_wrap_around(cells):
    # Parents within 10 grey levels of another: so must be what lies between them.
    images, target = cells
    images = (images // 26 + 120).astype(np.uint8)
    raw = over_sampling.SMOTE(random_state=0).fit_resample(flat(images), target)[0]
    assert raw.max() > 130 or raw.min() < 120  # what the adapter is there for
    out = np.asarray(
        ImageSampler(over_sampling.SMOTE(random_state=0)).fit_resample(images, target)[0]
    )
    assert out.min() >= 120
    assert out.max() <= 129


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize(
    "sampler", [over_sampling.SMOTE(random_state=0), under_sampling.NearMiss()], ids=repr
)
def test_the_largest_integers_stay_the_largest(dtype, sampler):
    high = np.iinfo(dtype).max
    images = np.full((30, 2, 2, 3), high, dtype)
    images[::2] -= 3
    target = np.repeat([0, 1], [20, 10])
    out, _ = ImageSampler(sampler).fit_resample(images, target)
    assert out.dtype == dtype
    # NearMiss returns images of the input; the largest float64 in 63 and 64 bits are near enough.
    exact = np.dtype(dtype).itemsize < 8 or isinstance(sampler, under_sampling.NearMiss)
    assert int(out.min()) >= int(high) - (3 if exact else 2048)


@pytest.mark.parametrize(
    "sampler", [*APPENDING, *CHOOSING, *OTHERS, make_pipeline(*APPENDING[2:4])], ids=repr
)
def test_the_fitted_sampler_holds_no_images(sampler):
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, (60, 24, 24, 3)).astype(np.uint8)  # 104 kB
    wrapped = ImageSampler(sampler)
    wrapped.fit_resample(images, np.repeat([0, 1], [40, 20]))
    assert len(pickle.dumps(wrapped)) < 20_000


@pytest.mark.parametrize(
    "sampler",
    [
        over_sampling.RandomOverSampler(random_state=0),
        under_sampling.RandomUnderSampler(random_state=0),
    ],
    ids=repr,
)
def test_picking_images_makes_no_floating_point_copy(sampler):
    images = np.zeros((300, 64, 64, 3), np.uint8)
    target = np.repeat([0, 1], [160, 140])
    ImageSampler(sampler).fit_resample(images, target)  # warm caches
    tracemalloc.start()
    try:
        out, _ = ImageSampler(sampler).fit_resample(images, target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # imbalanced-learn stacks copies of the parts; float32 rows would be four times the input more.
    assert peak < 2 * out.nbytes + 500_000


# ------------------------------------------------------------------ properties

kinds = st.sampled_from(["uint8", "float32", "float64"])
samplers = st.sampled_from(
    [
        over_sampling.RandomOverSampler(random_state=0),
        under_sampling.RandomUnderSampler(random_state=0),
        over_sampling.SMOTE(random_state=0, k_neighbors=1),
        combine.SMOTETomek(
            random_state=0, smote=over_sampling.SMOTE(random_state=0, k_neighbors=1)
        ),
    ]
)


@st.composite
def batches(draw):
    counts = draw(st.lists(st.integers(2, 7), min_size=2, max_size=3))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.sampled_from([1, 3])))
    rng = np.random.RandomState(draw(st.integers(0, 999)))
    high = draw(st.sampled_from([1, 255]))
    images = rng.uniform(0, high, (sum(counts), *shape))
    kind = draw(kinds)
    target = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return (np.rint(images * 255 / high) if kind == "uint8" else images).astype(kind), target


@QUICK
@given(batches(), samplers)
def test_shapes_types_ranges_and_repetition(batch, sampler):
    images, target = batch
    before = images.copy()
    wrapped = ImageSampler(sampler)
    out, labels = wrapped.fit_resample(images, target)
    assert out.shape == (len(labels), *images.shape[1:])
    assert out.dtype == images.dtype
    np.testing.assert_array_equal(images, before)
    eps = 0 if images.dtype == np.uint8 else 255 * np.finfo(images.dtype).eps
    # Every row may be in a Tomek link: initial= is for batches without any.
    assert np.asarray(out).min(initial=255) >= images.min() - eps
    assert np.asarray(out).max(initial=0) <= images.max() + eps
    again = ImageSampler(sampler).fit_resample(images, target)[0]
    rows = ImageSampler(sampler).fit_resample(flat(images), target)[0]
    np.testing.assert_array_equal(np.asarray(out), np.asarray(again))
    np.testing.assert_array_equal(flat(out), np.asarray(rows))
    assert rows.ndim == 2


# ------------------------------------------------------------------ as an estimator


def test_the_sampler_given_is_cloned_and_its_parameters_are_reachable(cells):
    inner = over_sampling.RandomOverSampler(random_state=0)
    wrapped = ImageSampler(inner).set_params(sampler__random_state=5)
    wrapped.fit_resample(*cells)
    assert wrapped.sampler is inner
    assert not hasattr(inner, "sampling_strategy_")
    assert wrapped.sampler_.random_state == 5
    assert wrapped.sampling_strategy_ == wrapped.sampler_.sampling_strategy_
    assert wrapped.n_features_in_ == 16 * 16 * 3
    assert len(wrapped.get_feature_names_out()) == 16 * 16 * 3


def test_fit_checks_without_resampling(cells):
    wrapped = ImageSampler(over_sampling.RandomOverSampler())
    assert wrapped.fit(*cells) is wrapped
    assert wrapped.n_features_in_ == 16 * 16 * 3
    with pytest.raises(ValueError, match="class"):
        wrapped.fit(cells[0], np.zeros(len(cells[0])))


def test_its_tags_are_the_samplers():
    for sampler in (over_sampling.RandomOverSampler(), over_sampling.ADASYN()):
        assert get_tags(ImageSampler(sampler)) == get_tags(sampler)


def test_lists_of_images_are_taken(cells):
    images, target = cells
    sampler = over_sampling.RandomOverSampler(random_state=0)
    out = ImageSampler(sampler).fit_resample(list(images), target)[0]
    whole = ImageSampler(sampler).fit_resample(images, target)[0]
    np.testing.assert_array_equal(np.asarray(out), np.asarray(whole))


def test_a_function_sampler_is_taken(cells):
    halved = FunctionSampler(func=lambda X, y: (X[::2], y[::2]))
    out, labels = ImageSampler(halved).fit_resample(*cells)
    np.testing.assert_array_equal(np.asarray(out), cells[0][::2])
    np.testing.assert_array_equal(labels, cells[1][::2])


def test_a_pipeline_of_samplers_is_taken(cells):  # BUG 7: AttributeError, sampling_strategy_
    both = make_pipeline(
        over_sampling.SMOTE(random_state=0), under_sampling.RandomUnderSampler(random_state=0)
    )
    out, labels = ImageSampler(both).fit_resample(*cells)
    assert out.shape[1:] == (16, 16, 3)
    assert set(np.bincount(labels)) == {40}


def test_data_frames_of_bytes_do_not_wrap_around(cells):  # BUG 5: they do
    images, target = cells
    rows = flat(images)
    sampler = ImageSampler(over_sampling.SMOTE(random_state=0))
    frame = sampler.fit_resample(pd.DataFrame(rows), target)[0]
    np.testing.assert_array_equal(
        frame.to_numpy(), np.asarray(sampler.fit_resample(rows, target)[0])
    )
    assert set(frame.dtypes) == {np.dtype(np.uint8)}


def test_sparse_rows_of_bytes_are_taken(cells):  # BUG 6: AttributeError, clip
    images, target = cells
    rows = flat(images)
    sampler = ImageSampler(over_sampling.SMOTE(random_state=0))
    out = sampler.fit_resample(sparse.csr_matrix(rows), target)[0]
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out.toarray(), np.asarray(sampler.fit_resample(rows, target)[0]))


def test_fitting_again_forgets_the_sources_of_the_last_time(cells):  # BUG 8: they stay
    wrapped = ImageSampler(over_sampling.RandomOverSampler(random_state=0))
    wrapped.fit_resample(*cells)
    wrapped.set_params(sampler=over_sampling.SMOTE(random_state=0))
    out = wrapped.fit_resample(*cells)[0]
    assert out.record is None
    assert not hasattr(wrapped, "sample_indices_")


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("sampler", [None, "RandomOverSampler", over_sampling], ids=repr)
def test_what_cannot_resample_is_refused_by_name(sampler, cells):
    with pytest.raises(InvalidParameterError, match="'sampler' parameter of ImageSampler"):
        ImageSampler(sampler).fit_resample(*cells)


@pytest.mark.parametrize("shape", [(0, 6, 5, 3), (0, 90)])
def test_an_empty_batch_is_refused(shape):
    sampler = ImageSampler(over_sampling.RandomOverSampler())
    with pytest.raises(ValueError, match="0 sample"):
        sampler.fit_resample(np.empty(shape, np.uint8), np.empty(0, int))


def test_a_single_image_is_refused_because_of_its_single_class(cells):
    with pytest.raises(ValueError, match="class"):
        ImageSampler(over_sampling.RandomOverSampler()).fit_resample(cells[0][:1], cells[1][:1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images: images[..., :2], r"1 channel .* or 3 .*got 2"),
        (lambda images: images[..., 0], "image batch"),
        (lambda images: np.where(images > 200, np.nan, images), "NaN"),
        (lambda images: images[1:], "inconsistent numbers of samples"),
    ],
    ids=["channels", "axes", "NaN", "length"],
)
def test_a_wrong_batch_is_refused(spoil, message, cells):
    with pytest.raises(ValueError, match=message):
        ImageSampler(over_sampling.ADASYN()).fit_resample(spoil(cells[0]), cells[1])

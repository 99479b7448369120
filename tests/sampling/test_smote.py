"""SMOTE on images: imbalanced-learn's numbers on floats, rounding on bytes, its sources told."""

import gc
import pickle
import tracemalloc
import warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn import over_sampling
from imblearn.over_sampling._smote.tests import test_smote as imblearn_test_smote
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import InvalidParameterError
from torch.overrides import TorchFunctionMode

from wbcclf import SMOTE, Augmenter, make_blood_cells
from wbcclf.exceptions import SmallClassWarning
from wbcclf.sampling import _neighbours, _smote

THEIR_TESTS = sorted(name for name in dir(imblearn_test_smote) if name.startswith("test_"))
QUICK = settings(max_examples=40, deadline=None)
DTYPES = {"uint8": (np.uint8, 255), "float32 0-1": (np.float32, 1), "float64 0-255": (float, 255)}


def noise(counts, shape=(6, 5, 3), kind="uint8", seed=0):
    """Random images and integer labels, with so many images per class, shuffled."""
    rng = np.random.RandomState(seed)
    dtype, high = DTYPES[kind]
    values = rng.uniform(0, high, (sum(counts), *shape))
    target = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return (np.rint(values) if kind == "uint8" else values).astype(dtype), target


@st.composite
def batches(draw):
    counts = draw(st.lists(st.integers(2, 9), min_size=2, max_size=4))
    shape = (draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.sampled_from([1, 3])))
    return noise(counts, shape, draw(st.sampled_from(sorted(DTYPES))), draw(st.integers(0, 999)))


def flat(images):
    return np.asarray(images).reshape(len(images), -1)


# ------------------------------------------------------------------ imbalanced-learn's own numbers


@pytest.mark.parametrize("name", THEIR_TESTS)
def test_imbalanced_learns_own_test_passes_on_ours(name, monkeypatch):
    used = []

    class Ours(SMOTE):
        def fit_resample(self, X, y):
            used.append(name)
            return super().fit_resample(X, y)

    monkeypatch.setattr(imblearn_test_smote, "SMOTE", Ours)
    getattr(imblearn_test_smote, name)()
    assert used


def test_imbalanced_learn_has_the_tests_we_count_on():
    assert len(THEIR_TESTS) >= 3


def test_it_is_a_subclass_with_the_same_parameters_and_one_more():
    assert issubclass(SMOTE, over_sampling.SMOTE)
    assert SMOTE().get_params() == over_sampling.SMOTE().get_params() | {"spill_dir": None}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"k_neighbors": 2},
        {"k_neighbors": NearestNeighbors(n_neighbors=4)},
        {"k_neighbors": NearestNeighbors(n_neighbors=4, metric="manhattan", algorithm="brute")},
        {"sampling_strategy": {1: 11, 2: 10}},
        {"sampling_strategy": "minority"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("seed", [3, np.random.RandomState], ids=["int", "RandomState"])
def test_float_input_gives_imbalanced_learns_result_bit_for_bit(dtype, high, params, seed):
    images, target = noise([14, 8, 6], kind="float64 0-255")
    rows = (flat(images) * high / 255).astype(dtype)
    seeds = [seed(3), seed(3)] if callable(seed) else [seed, seed]
    ours = SMOTE(random_state=seeds[0], **params).fit_resample(rows, target)
    theirs = over_sampling.SMOTE(random_state=seeds[1], **params).fit_resample(rows, target)
    for got, wanted in zip(ours, theirs, strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(np.asarray(got), wanted, strict=True)


def test_neighbours_that_float32_cannot_tell_apart_are_imbalanced_learns():
    images, target = noise([14, 8, 6], kind="float64 0-255")
    rows = 1000 + flat(images) * 1e-7
    assert (rows.astype(np.float32) == 1000).all()
    ours = SMOTE(random_state=3).fit_resample(rows, target)[0]
    theirs = over_sampling.SMOTE(random_state=3).fit_resample(rows, target)[0]
    np.testing.assert_array_equal(np.asarray(ours), theirs)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_integers_give_imbalanced_learns_result_on_floats_rounded(dtype):
    # imbalanced-learn on float64 never wraps around; what it finds is rounded here.
    images, target = noise([14, 8, 6], kind="float64 0-255")
    limits = np.iinfo(dtype)
    images = (limits.min + images / 255 * (limits.max - limits.min)).astype(dtype)
    ours = SMOTE(random_state=3).fit_resample(images, target)[0]
    rows = flat(images).astype(float)
    theirs = over_sampling.SMOTE(random_state=3).fit_resample(rows, target)[0]
    np.testing.assert_array_equal(flat(ours), np.rint(theirs))


def test_bytes_are_searched_by_a_neighbours_object_too():
    images, target = noise([14, 8])
    search = NearestNeighbors(n_neighbors=4, metric="chebyshev")
    ours = SMOTE(k_neighbors=search, random_state=3).fit_resample(images, target)[0]
    rows = flat(images).astype(float)
    theirs = over_sampling.SMOTE(k_neighbors=search, random_state=3).fit_resample(rows, target)[0]
    np.testing.assert_array_equal(flat(ours), np.rint(theirs))
    euclidean = SMOTE(k_neighbors=3, random_state=3).fit_resample(images, target)[0]
    assert (np.asarray(ours) != np.asarray(euclidean)).any()


def test_imbalanced_learn_wraps_around_on_bytes_where_ours_does_not():
    # Why ours exists: parents differ by at most 10 grey levels here, so must what is between them.
    images, target = noise([14, 8])
    images = (images // 28 + 120).astype(np.uint8)
    ours = SMOTE(random_state=0).fit_resample(images, target)[0]
    theirs = over_sampling.SMOTE(random_state=0).fit_resample(flat(images), target)[0]
    assert np.asarray(ours).min() >= 120
    assert np.asarray(ours).max() <= 129
    assert theirs.max() > 129 or theirs.min() < 120


# ------------------------------------------------------------------ properties


@QUICK
@given(batches(), st.integers(1, 3), st.integers(0, 99))
def test_originals_come_first_unchanged_and_classes_are_even(batch, k, seed):
    images, target = batch
    before = images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallClassWarning)
        smote = SMOTE(k_neighbors=k, random_state=seed)
        out, labels = smote.fit_resample(images, target)
    n, counts = len(images), np.bincount(target)
    assert out.shape == (len(counts) * counts.max(), *images.shape[1:])
    assert out.dtype == images.dtype
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(np.asarray(out[:n]), images)
    np.testing.assert_array_equal(labels[:n], target)
    assert set(np.bincount(labels)) == {counts.max()}
    # The sources: originals are their own, synthetics have two parents of their own class.
    pairs = smote.sample_pairs_
    assert pairs.shape == (len(out) - n, 2)
    np.testing.assert_array_equal(smote.sample_indices_, np.r_[np.arange(n), pairs[:, 0]])
    np.testing.assert_array_equal(target[pairs], np.stack([labels[n:]] * 2, axis=1))


@QUICK
@given(batches(), st.integers(1, 3), st.integers(0, 99))
def test_a_synthetic_is_a_rounded_step_from_base_to_neighbour(batch, k, seed):
    images, target = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallClassWarning)
        smote = SMOTE(k_neighbors=k, random_state=seed)
        out = flat(smote.fit_resample(images, target)[0]).astype(float)
    rows = flat(images).astype(float)
    # Half a grey level for rounding; of floats, two rounding errors of values up to 255.
    slack = 0.5 if images.dtype == np.uint8 else 2 * 255 * np.finfo(images.dtype).eps
    for (base, neighbour), new in zip(smote.sample_pairs_, out[len(images) :], strict=True):
        start, way = rows[base], rows[neighbour] - rows[base]
        if images.dtype == np.uint8:
            assert (new >= np.minimum(start, rows[neighbour])).all()
            assert (new <= np.maximum(start, rows[neighbour])).all()
        assert (np.abs(new - start)[way == 0] <= slack * (images.dtype != np.uint8)).all()
        # Every moving pixel leaves an interval for the step; one step must suit them all.
        start, way, new = start[way != 0], way[way != 0], new[way != 0]
        ends = np.stack([new - slack - start, new + slack - start]) / way
        lowest = max(ends.min(axis=0).max(initial=0), 0)
        highest = min(ends.max(axis=0).min(initial=1), 1)
        assert lowest <= highest + 1e-9  # the division's own rounding


@QUICK
@given(batches(), st.integers(0, 99))
def test_rows_and_images_and_repetition_give_the_same_values(batch, seed):
    images, target = batch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallClassWarning)
        first = SMOTE(random_state=seed).fit_resample(images, target)[0]
        again = SMOTE(random_state=seed).fit_resample(images, target)[0]
        rows = SMOTE(random_state=seed).fit_resample(flat(images), target)[0]
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    assert rows.ndim == 2
    np.testing.assert_array_equal(flat(first), np.asarray(rows))


def test_another_seed_gives_other_synthetics():
    images, target = noise([14, 8])
    one, two = (SMOTE(random_state=s).fit_resample(images, target)[0] for s in (0, 1))
    assert (np.asarray(one) != np.asarray(two)).any()


def test_images_of_many_values_are_interpolated_one_by_one():
    images, target = noise([9, 7], shape=(210, 210, 3))
    assert images[0].size > _smote._BLOCK_VALUES > images[0].size / 2
    ours = SMOTE(random_state=0).fit_resample(images, target)[0]
    theirs = over_sampling.SMOTE(random_state=0).fit_resample(flat(images).astype(float), target)[0]
    np.testing.assert_array_equal(flat(ours), np.rint(theirs))


@pytest.mark.parametrize("labels", [("lymphocyte", "monocyte"), (7, 3), (True, False)], ids=repr)
def test_labels_are_whatever_the_user_has(labels):
    images, target = noise([9, 7])
    names = np.array(labels)[target]
    out = SMOTE(random_state=0).fit_resample(images, names)[1]
    assert out.dtype == names.dtype
    assert sorted(out.tolist()) == sorted([labels[0]] * 9 + [labels[1]] * 9)


# ------------------------------------------------------------------ small classes and errors

BLOOD = {
    "neutrophil": 21,
    "lymphocyte": 6,
    "eosinophil": 3,
    "monocyte": 20,
    "basophil": 152,
    "erythroblast": 20,
    "ig": 24,
    "platelet": 7,
}


@pytest.fixture(scope="module")
def nine_classes():
    """Draw the brief's class sizes: the eight kinds and, as ninth, more drawings of neutrophils."""
    cells = make_blood_cells(classes=list(BLOOD), imbalance=BLOOD, image_size=16, random_state=0)
    pair = {"neutrophil": 168, "lymphocyte": 1}
    more = make_blood_cells(classes=list(pair), imbalance=pair, image_size=16, random_state=1)
    ninth = more.images[more.target == "neutrophil"]
    return np.concatenate([cells.images, ninth]), np.r_[cells.target, ["segmented"] * len(ninth)]


def test_nine_uneven_classes_after_the_augmenter_come_out_even(nine_classes):
    images, target = nine_classes
    labels, counts = np.unique(target, return_counts=True)
    assert sorted(counts) == [3, 6, 7, 20, 20, 21, 24, 152, 168]
    goal = {label: count + 57 for label, count in zip(labels, counts, strict=True)}
    # No small class is left after the Augmenter: any warning would fail this test.
    images, target = Augmenter(sampling_strategy=goal, random_state=0).fit_resample(images, target)
    images, target = SMOTE(random_state=0).fit_resample(images, target)
    assert images.shape == (9 * 225, 16, 16, 3)
    assert set(np.unique(target, return_counts=True)[1]) == {225}


def test_a_small_class_uses_the_neighbours_it_has_and_warns_of_it(nine_classes):
    images, target = nine_classes
    smote = SMOTE(random_state=0)
    with pytest.warns(SmallClassWarning) as caught:
        labels = smote.fit_resample(images, target)[1]
    # pytest.warns catches all: the class of 3 and no other (that of 6 has its five neighbours).
    assert len(caught) == 1
    assert "eosinophil" in str(caught[0].message)
    assert "3 images" in str(caught[0].message)
    assert "2 neighbours" in str(caught[0].message)
    pairs = smote.sample_pairs_[labels[len(images) :] == "eosinophil"]
    assert len(pairs) == 165
    # 165 draws miss one of the 6 ordered pairs with probability 6 * (5/6)**165 < 1e-12.
    assert len(np.unique(pairs, axis=0)) == 6
    assert (pairs[:, 0] != pairs[:, 1]).all()


@pytest.mark.parametrize(("labels", "shown"), [(["ig", "eos"], "'eos'"), ([0, 1], "1")])
def test_the_small_class_is_named_as_the_user_wrote_it(labels, shown):  # BUG 9: np.str_('eos')
    images, target = noise([9, 3])
    with pytest.warns(SmallClassWarning, match=f"^Class {shown} has 3 images"):
        SMOTE().fit_resample(images, np.array(labels)[target])


def test_a_neighbours_object_is_asked_for_fewer_too_and_left_as_it_was():
    images, target = noise([9, 3])
    search = NearestNeighbors(n_neighbors=5)
    with pytest.warns(SmallClassWarning, match="3 images: .* 2 neighbours instead of 4"):
        SMOTE(k_neighbors=search).fit_resample(images, target)
    assert search.n_neighbors == 5


def test_a_class_of_k_plus_one_images_is_large_enough():
    images, target = noise([9, 6])
    assert len(SMOTE(k_neighbors=5).fit_resample(images, target)[0]) == 18


def test_a_class_of_one_image_is_an_error_that_says_what_to_do():
    images, target = noise([9, 1])
    with pytest.raises(ValueError, match=r"Class .*1.* single image.*Augmenter before SMOTE"):
        SMOTE().fit_resample(images, target)


@pytest.mark.parametrize("strategy", [{2: 9}, {1: 1, 2: 9}], ids=repr)
def test_a_class_of_one_image_that_gets_no_synthetics_is_left_alone(strategy):
    images, target = noise([9, 1, 7])
    out = SMOTE(sampling_strategy=strategy).fit_resample(images, target)[1]
    np.testing.assert_array_equal(np.bincount(out), [9, 1, 9])


def test_even_classes_stay_as_they_are():
    images, target = noise([4, 4])
    smote = SMOTE()
    out = smote.fit_resample(images, target)[0]
    np.testing.assert_array_equal(np.asarray(out), images)
    assert smote.sample_pairs_.shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 6, 5, 3), (0, 90)])
def test_an_empty_batch_is_refused(shape):
    with pytest.raises(ValueError, match="0 sample"):
        SMOTE().fit_resample(np.empty(shape, np.uint8), np.empty(0, int))


def test_a_single_image_is_refused_because_of_its_single_class():
    images, target = noise([1])
    with pytest.raises(ValueError, match="class"):
        SMOTE().fit_resample(images, target)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images: images[..., :2], "1 channel .* or 3 .*got 2"),
        (lambda images: images[..., 0], "image batch"),
        (lambda images: np.where(images > 250, np.nan, images), "NaN"),
        (lambda images: images[1:], "inconsistent numbers of samples"),
    ],
    ids=["channels", "axes", "NaN", "length"],
)
def test_a_wrong_batch_is_refused(spoil, message):
    images, target = noise([9, 7])
    with pytest.raises(ValueError, match=message):
        SMOTE().fit_resample(spoil(images), target)


@pytest.mark.parametrize(
    "params", [{"k_neighbors": 0}, {"sampling_strategy": "some"}, {"random_state": "x"}], ids=repr
)
def test_a_bad_parameter_is_named(params):
    images, target = noise([9, 7])
    with pytest.raises(InvalidParameterError, match=f"'{next(iter(params))}' parameter"):
        SMOTE(**params).fit_resample(images, target)


# ------------------------------------------------------------------ memory


def test_bytes_are_never_all_copied_to_floats():
    images, target = noise([560, 20], shape=(64, 64, 3))
    row = 64 * 64 * 3
    smote = SMOTE(sampling_strategy={1: 50}, random_state=0)
    smote.fit_resample(images, target)  # what torch and the thread pool need once
    tracemalloc.start()
    try:
        # 30 synthetics: the output is hardly larger than the input.
        smote.fit_resample(images, target)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The output in bytes; in each thread a block in float64, two in int16 and bytes; 2 MB for
    # everything small. torch's own tiles are not traced: benchmarks/smote.py measures the process.
    bound = 610 * row + joblib.cpu_count() * _smote._BLOCK_VALUES * (8 + 8 + 2 + 2) + 2_000_000
    assert bound < 580 * row * 4  # a float32 copy of the batch alone would break the bound
    assert peak < bound


def test_the_fitted_sampler_holds_no_images():
    images, target = noise([40, 30], shape=(64, 64, 3))
    for kind in (np.uint8, np.float32):
        smote = SMOTE(random_state=0)
        smote.fit_resample(images.astype(kind), target)
        assert len(pickle.dumps(smote)) < 5_000  # the indices of 80 rows; an image has 12,288 bytes


# ------------------------------------------------------------------ exact neighbours of bytes


@st.composite
def byte_rows(draw):
    n, n_features = draw(st.integers(2, 40)), draw(st.sampled_from([1, 3, 48, 1023, 1024, 2500]))
    rng = np.random.RandomState(draw(st.integers(0, 999)))
    # The extremes make the largest products; few levels make ties and equal rows.
    levels = draw(st.sampled_from([[0, 255], [0, 1, 2], np.arange(256)]))
    return rng.choice(levels, (n, n_features)).astype(np.uint8)


def neighbours_by_definition(rows, k):
    wide = rows.astype(np.int64)
    distances = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    return np.argsort(distances, axis=1, kind="stable")[:, :k]  # stable: the first of equals


@QUICK
@given(byte_rows(), st.integers(1, 5))
def test_the_neighbours_are_those_of_the_definition(rows, k):
    k = min(k, len(rows) - 1)
    found = _neighbours.nearest_neighbours(rows, k)
    np.testing.assert_array_equal(found, neighbours_by_definition(rows, k))


@pytest.mark.parametrize("n", [1023, 1024, 1025, 2048, 2500])  # 1 to 3 tiles, whole and cut off
@pytest.mark.parametrize("n_features", [1, 3])  # among so many rows, few features make ties
def test_so_they_are_in_any_number_of_tiles(n, n_features):
    rows = np.random.RandomState(n).randint(0, 256, (n, n_features)).astype(np.uint8)
    found = _neighbours.nearest_neighbours(rows, 5)
    np.testing.assert_array_equal(found, neighbours_by_definition(rows, 5))


def test_the_largest_sum_of_a_block_is_exact():
    # Two rows of zeros and one of 255: products of (-128)**2, 127**2 and -128 * 127.
    rows = np.zeros((3, 3 * _neighbours._BLOCK), np.uint8)
    rows[2] = 255
    rows[2, 0] = 254  # nearer to zero by an odd number
    inner = _neighbours._inner_products(rows, np.arange(3), np.arange(3), "cpu")
    wide = rows.astype(np.int64) - 128
    np.testing.assert_array_equal(inner.numpy(), wide @ wide.T)


class Products(TorchFunctionMode):
    """Note the types of numbers that are multiplied as matrices."""

    def __init__(self):
        super().__init__()
        self.dtypes = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul):
            self.dtypes.update(factor.dtype for factor in args)
        return func(*args, **(kwargs or {}))


def test_a_gpus_arithmetic_gives_the_same_neighbours():
    # In float64, as on a CUDA device; here on a CPU under its other name.
    rows = np.random.RandomState(0).randint(0, 256, (50, 3000)).astype(np.uint8)
    with Products() as products:
        found = _neighbours.nearest_neighbours(rows, 5, device="cpu:0")
    assert products.dtypes == {torch.float64}
    np.testing.assert_array_equal(found, neighbours_by_definition(rows, 5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_finds_the_same_neighbours():
    rows = np.random.RandomState(0).randint(0, 256, (3000, 12288)).astype(np.uint8)
    on_gpu, on_cpu = (_neighbours.nearest_neighbours(rows, 5, device=d) for d in ("cuda", "cpu"))
    np.testing.assert_array_equal(on_gpu, on_cpu)


def test_neighbours_are_searched_in_the_given_rows_alone():
    rows = np.random.RandomState(0).randint(0, 256, (30, 12)).astype(np.uint8)
    members = np.array([3, 29, 4, 11, 17])
    found = _neighbours.nearest_neighbours(rows, 3, members)
    np.testing.assert_array_equal(found, neighbours_by_definition(rows[members], 3))


def test_equal_images_are_neighbours_but_no_image_is_its_own():
    images = np.full((6, 4, 4, 3), 7, np.uint8)
    images[3:] = np.arange(3, dtype=np.uint8)[:, None, None, None] + 200
    smote = SMOTE(sampling_strategy={0: 9}, random_state=0, k_neighbors=2)
    smote.fit_resample(images, [0, 0, 0, 1, 1, 1])
    assert (smote.sample_pairs_[:, 0] != smote.sample_pairs_[:, 1]).all()


# ------------------------------------------------------------------ output in a file


@pytest.mark.parametrize("kind", sorted(DTYPES))
def test_spilled_output_is_the_same_and_goes_with_its_file(kind, tmp_path):
    images, target = noise([14, 8, 6], kind=kind)
    expected, labels = SMOTE(random_state=0).fit_resample(images, target)
    smote = SMOTE(random_state=0, spill_dir=tmp_path)
    out, out_labels = smote.fit_resample(images, target)
    assert len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(np.asarray(out), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(out_labels), np.asarray(labels))
    assert out.record.sources.original.sum() == len(images)
    assert len(pickle.dumps(smote)) < 5_000
    view = out[3:]
    del out
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1
    del view
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_spill_folder_that_is_none_is_named(tmp_path):
    images, target = noise([8, 6])
    with pytest.raises(ValueError, match=r"spill_dir='.*missing' is not a folder"):
        SMOTE(spill_dir=tmp_path / "missing").fit_resample(images, target)
    with pytest.raises(InvalidParameterError, match="'spill_dir' parameter"):
        SMOTE(spill_dir=3).fit_resample(images, target)

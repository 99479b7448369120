"""make_blood_cells: what comes back, and that it is the morphology that tells classes apart."""

from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wbcclf.datasets import make_blood_cells

NAMES = [
    "neutrophil",
    "lymphocyte",
    "eosinophil",
    "monocyte",
    "basophil",
    "erythroblast",
    "ig",
    "platelet",
]


# ---------------------------------------------------------------- what comes back


def test_bunch_has_the_fields_of_a_loaded_data_set():
    cells = make_blood_cells(11, classes=4, image_size=(24, 40), random_state=0)
    assert cells.images.shape == (11, 24, 40, 3)
    assert cells.images.dtype == np.uint8
    assert cells.images.flags.c_contiguous
    assert cells.target.shape == (11,)
    assert cells.target.dtype.kind == "U"
    assert cells.target_names == sorted(NAMES[:4])
    assert set(cells.target) == set(cells.target_names)
    assert cells.groups.dtype == np.int64
    assert sorted(cells.groups) == list(range(11))
    assert cells.paths is None
    assert cells.skipped == []
    assert "11 pictures (24 x 40 pixels, RGB) of 11 cells" in cells.DESCR


def test_defaults():
    cells = make_blood_cells(random_state=0)
    assert cells.images.shape == (200, 64, 64, 3)
    assert Counter(cells.target) == dict.fromkeys(NAMES[:5], 40)


@pytest.mark.parametrize("n_classes", range(2, 9))
def test_an_int_takes_the_first_classes(n_classes):
    cells = make_blood_cells(8, classes=n_classes, image_size=16, random_state=0)
    assert cells.target_names == sorted(NAMES[:n_classes])


@pytest.mark.parametrize("classes", [("ig", "platelet"), ["ig", "platelet"], np.array(NAMES[6:])])
def test_classes_by_name(classes):
    cells = make_blood_cells(4, classes=classes, image_size=16, random_state=0)
    assert Counter(cells.target) == {"ig": 2, "platelet": 2}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image_size", [16, 33, (100, 64), (16, 90), 224])
def test_every_class_is_drawn_at_every_size(name, image_size):
    other = "neutrophil" if name != "neutrophil" else "ig"
    counts = {name: 3, other: 1}
    cells = make_blood_cells(
        classes=list(counts), imbalance=counts, image_size=image_size, random_state=1
    )
    for image in cells.images[cells.target == name]:
        # Sensor noise alone has a standard deviation of at most 5 levels, uneven light makes no
        # edges: a cell in the middle gives a spread over the central part of the blurred picture.
        h, w = image.shape[:2]
        middle = cv2.blur(image, (3, 3))[h // 4 : -(h // 4), w // 4 : -(w // 4)]
        assert np.ptp(middle[..., 1].astype(int)) > 20


def test_classes_are_mixed():
    target = make_blood_cells(100, classes=2, image_size=16, random_state=0).target
    n_changes = sum(a != b for a, b in pairwise(target))
    assert n_changes > 25  # sorted: 1; in random order 50 are expected, with deviation 5


# ---------------------------------------------------------------- randomness


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    first, second, other = (
        make_blood_cells(12, image_size=32, random_state=seed, n_copies=1) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.target, second.target)
    np.testing.assert_array_equal(first.groups, second.groups)
    assert (first.images != other.images).mean() > 0.9


def test_random_state_instance_moves_on_and_the_global_one_is_left_alone():
    rng = np.random.RandomState(0)
    first, second = (make_blood_cells(6, image_size=16, random_state=rng) for _ in range(2))
    assert (first.images != second.images).any()
    again = make_blood_cells(6, image_size=16, random_state=np.random.RandomState(0))
    np.testing.assert_array_equal(first.images, again.images)
    none = [make_blood_cells(6, image_size=16).images for _ in range(2)]
    assert (none[0] != none[1]).any()


def test_number_of_threads_changes_nothing():
    before = cv2.getNumThreads()
    try:
        drawn = []
        for n_threads in (1, 4):
            cv2.setNumThreads(n_threads)
            drawn.append(make_blood_cells(16, classes=8, image_size=48, random_state=0).images)
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*drawn)


def test_copies_do_not_change_the_first_picture_of_a_cell():
    alone = make_blood_cells(8, image_size=24, random_state=5)
    copied = make_blood_cells(8, image_size=24, random_state=5, n_copies=2)
    for image, group in zip(alone.images, alone.groups, strict=True):
        views = copied.images[copied.groups == group]
        assert sum(np.array_equal(image, view) for view in views) == 1


def test_all_pictures_differ():
    cells = make_blood_cells(40, classes=8, image_size=16, random_state=0, n_copies=2)
    assert len(np.unique(cells.images.reshape(120, -1), axis=0)) == 120


# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("n_samples", "classes", "imbalance", "counts"),
    [
        (10, 3, None, [4, 3, 3]),
        (10, 3, 1, [4, 3, 3]),
        (111, 3, 100, [100, 10, 1]),
        (70, 3, 4.0, [40, 20, 10]),
        (5, 5, 1000.0, [1, 1, 1, 1, 1]),
        (8, 5, 1e9, [4, 1, 1, 1, 1]),
        (None, 2, {"lymphocyte": 2, "neutrophil": 5}, [5, 2]),
        (7, 2, {"lymphocyte": 2, "neutrophil": 5}, [5, 2]),
    ],
)
def test_cells_per_class(n_samples, classes, imbalance, counts):
    cells = make_blood_cells(n_samples, classes, image_size=16, imbalance=imbalance, random_state=0)
    drawn = Counter(cells.target)
    assert [drawn[name] for name in NAMES[: len(counts)]] == counts


@settings(max_examples=40, deadline=None)
@given(
    classes=st.one_of(st.integers(2, 8), st.lists(st.sampled_from(NAMES), min_size=2, unique=True)),
    extra=st.integers(0, 8),
    size=st.tuples(st.integers(16, 40), st.integers(16, 40)),
    imbalance=st.one_of(st.none(), st.floats(1, 1e6)),
    n_copies=st.integers(0, 2),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_allowed_parameters_give_a_complete_data_set(
    classes, extra, size, imbalance, n_copies, seed
):
    names = NAMES[:classes] if isinstance(classes, int) else classes
    n_samples = len(names) + extra
    cells = make_blood_cells(
        n_samples,
        classes,
        image_size=size,
        imbalance=imbalance,
        n_copies=n_copies,
        random_state=seed,
        return_masks=True,
    )
    n_images = n_samples * (1 + n_copies)
    assert cells.images.shape == (n_images, *size, 3)
    assert set(Counter(cells.groups).values()) == {1 + n_copies}
    assert set(cells.groups) == set(range(n_samples))
    drawn = Counter(cells.target)
    assert set(drawn) == set(names)
    ordered = [drawn[name] for name in names]
    assert ordered == sorted(ordered, reverse=True)
    if imbalance is None:
        assert ordered[0] - ordered[-1] <= 1 + n_copies
    assert cells.cell_masks.shape == cells.nucleus_masks.shape == (n_images, *size)
    assert not (cells.nucleus_masks & ~cells.cell_masks).any()
    for masks in (cells.cell_masks, cells.nucleus_masks):
        np.testing.assert_array_equal(masks.any(axis=(1, 2)), cells.target != "platelet")


# ---------------------------------------------------------------- groups


def test_pictures_of_one_cell_share_group_and_class_and_look_alike():
    cells = make_blood_cells(40, classes=8, image_size=64, random_state=0, n_copies=2)
    assert len(cells.images) == 120
    for group in range(40):
        assert len(set(cells.target[cells.groups == group])) == 1
    assert (np.diff(np.flatnonzero(cells.groups == 0)) > 1).any()  # not necessarily adjacent

    small = np.array([cv2.resize(i, (8, 8), interpolation=cv2.INTER_AREA) for i in cells.images])
    rows = small.reshape(120, -1).astype(float)
    distances = np.linalg.norm(rows[:, None] - rows, axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = cells.groups[distances.argmin(axis=1)]
    assert (nearest == cells.groups).mean() > 0.8  # by chance: 2 / 119


# ---------------------------------------------------------------- shape tells, colour does not


def colour_average(images):
    return images.reshape(len(images), -1, 3).astype(float).mean(axis=1)


def colour_spread(images):
    return images.reshape(len(images), -1, 3).astype(float).std(axis=1)


def rings(image, n_rings=10):
    """Gray level and edges on rings around the darkest spot, free of mean and contrast."""
    gray = cv2.GaussianBlur(image[..., 1].astype(np.float32), (0, 0), 0.8)
    gray = (gray - gray.mean()) / gray.std()
    edges = np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1))
    y, x = np.indices(gray.shape)
    dark = gray < np.quantile(gray, 0.08)
    radius = np.hypot(y - np.median(y[dark]), x - np.median(x[dark]))
    which = np.minimum(radius / gray.shape[0] * 2.2 * n_rings, n_rings).astype(int).ravel()
    n = np.maximum(np.bincount(which, minlength=n_rings + 1), 1)
    mean, square, edge = (
        np.bincount(which, values.ravel(), n_rings + 1) / n for values in (gray, gray**2, edges)
    )
    return np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0)), edge])


def test_classes_differ_in_morphology_and_not_in_average_colour():
    # Chance is 0.20. Over six seeds the accuracies lay between 0.18 and 0.26 (average), 0.25 and
    # 0.36 (with the spread), 0.85 and 0.89 (shape); one standard error over 600 pictures is 0.02
    # at most. So the bounds are crossed when colour starts to give classes away, or shape stops
    # to, and not by the luck of a draw.
    cells = make_blood_cells(600, classes=5, random_state=0)
    average = colour_average(cells.images)
    both = np.hstack([average, colour_spread(cells.images)])
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    forest = RandomForestClassifier(60, random_state=0)
    for model in (linear, forest):
        assert cross_val_score(model, average, cells.target, cv=3).mean() < 0.40
        assert cross_val_score(model, both, cells.target, cv=3).mean() < 0.45
    # The same forest, on features that know neither average nor contrast: the classes are there.
    shape = np.array([rings(image) for image in cells.images])
    assert cross_val_score(forest, shape, cells.target, cv=3).mean() > 0.75


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 0}, r"n_samples must be an int >= 1, got 0"),
        ({"n_samples": 2.5}, r"n_samples must be an int >= 1, got 2\.5"),
        ({"n_samples": True}, r"n_samples must be an int >= 1, got True"),
        ({"n_samples": 4}, r"n_samples must be at least the number of classes, 5,.* got 4"),
        ({"classes": 1}, r"classes must be between 2 and 8 .*, got 1"),
        ({"classes": 9}, r"classes must be between 2 and 8 .*, got 9"),
        ({"classes": "ig"}, r"classes must be an int .* or a sequence of names, got 'ig'"),
        ({"classes": None}, r"classes must be an int .*, got None"),
        ({"classes": ["ig"]}, r"classes must hold at least two different names, got \['ig'\]"),
        ({"classes": ["ig", "ig"]}, r"at least two different names"),
        ({"classes": ["ig", "Neutrofil"]}, r"unknown class 'Neutrofil'. Did you mean 'neutrophil'"),
        ({"classes": ["ig", "qqqq"]}, r"unknown class 'qqqq'. Allowed are neutrophil, "),
        ({"image_size": 15}, r"image_size must be an int >= 16 or .*, got 15"),
        ({"image_size": (64, 8)}, r"image_size .* got \(64, 8\)"),
        ({"image_size": (64, 64, 3)}, r"image_size .* got \(64, 64, 3\)"),
        ({"image_size": "64"}, r"image_size .* got '64'"),
        ({"image_size": 64.0}, r"image_size .* got 64\.0"),
        ({"imbalance": 0.5}, r"imbalance must be None, a finite number >= 1 .* got 0\.5"),
        ({"imbalance": np.nan}, r"imbalance .* got nan"),
        ({"imbalance": np.inf}, r"imbalance .* got inf"),
        ({"imbalance": "long"}, r"imbalance .* got 'long'"),
        ({"imbalance": {"neutrophil": 3}}, r"lymphocyte, eosinophil, monocyte, basophil is miss"),
        ({"imbalance": {"ig": 3}}, r"imbalance: unknown class 'ig'.* Allowed are neutrophil"),
        (
            {"classes": 2, "imbalance": {"neutrophil": 3, "lymphocyte": 0}},
            r"imbalance\['lymphocyte'\] must be an int >= 1, got 0",
        ),
        (
            {"n_samples": 9, "classes": 2, "imbalance": {"neutrophil": 3, "lymphocyte": 1}},
            r"n_samples must be None or 4, the sum of the counts in imbalance, got 9",
        ),
        ({"n_copies": -1}, r"n_copies must be an int >= 0, got -1"),
        ({"n_copies": 1.0}, r"n_copies must be an int >= 0, got 1\.0"),
        ({"return_masks": "cell"}, r"return_masks must be True or False, got 'cell'"),
    ],
)
def test_errors_name_the_parameter_and_what_is_allowed(parameters, message):
    with pytest.raises(ValueError, match=message):
        make_blood_cells(**parameters)

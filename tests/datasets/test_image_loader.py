"""ImageLoader: paths or images in, image batch out."""

import os
import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from wbcclf import SimpleCNNClassifier, load_model, make_blood_cells, save_model
from wbcclf._images import images_to_rows
from wbcclf.datasets import ImageLoader, list_image_folder, load_image_folder
from wbcclf.exceptions import ImageReadError

# What scikit-learn checks without handing over numbers, which no path can be. The tag
# `two_d_array=False` says so, and then `parametrize_with_checks` runs only the cloning check. The
# checks that fit on numbers are repeated below on paths, under the same names; the one on sparse
# arrays converts 1-D data to a format that SciPy has only in 2-D, and is repeated there too.
CHECKS_WITHOUT_DATA = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
    "check_estimator_sparse_tag",
    "check_estimator_sparse_matrix",
]

with warnings.catch_warnings():
    # scikit-learn says at collection that the tags leave it one check.
    warnings.simplefilter("ignore", SkipTestWarning)
    STOCK_CHECKS = list(estimator_checks.estimator_checks_generator(ImageLoader(image_size=8)))


@pytest.mark.parametrize(("estimator", "check"), STOCK_CHECKS)
def test_stock_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", CHECKS_WITHOUT_DATA)
def test_checks_without_data(name):
    getattr(estimator_checks, name)("ImageLoader", ImageLoader(image_size=8))


def test_number_of_checks():
    assert len(STOCK_CHECKS) == 1
    assert len(CHECKS_WITHOUT_DATA) == 12


@pytest.fixture
def paths(tmp_path):
    """Write eight files whose values name them: 0, 10, 20 …; the last is larger than the others."""
    files = [tmp_path / f"cell {k}.png" for k in range(8)]
    for k, path in enumerate(files):
        size = (12, 9) if k < 7 else (24, 18)
        Image.new("RGB", size, (10 * k,) * 3).save(path)
    return np.array([str(path) for path in files])


def values_of(images):
    return images[:, 0, 0, 0].tolist()


# --- scikit-learn's checks on paths -------------------------------------------------------------


def test_check_estimators_fit_returns_self(paths):
    loader = ImageLoader(image_size=8)
    assert loader.fit(paths) is loader


def test_check_dict_unchanged_and_overwrite_params(paths):
    loader = ImageLoader(image_size=8, n_jobs=1)
    before, params = dict(vars(loader)), loader.get_params()
    loader.fit(paths).transform(paths)
    assert vars(loader) == before
    assert loader.get_params() == params


def test_check_transformer_general_and_stateless(paths):
    images = ImageLoader(image_size=8).fit_transform(paths)
    assert images.shape == (8, 8, 8, 3)
    assert images.dtype == np.uint8
    assert values_of(images) == [10 * k for k in range(8)]
    np.testing.assert_array_equal(ImageLoader(image_size=8).transform(paths), images)


def test_check_methods_sample_order_and_subset_invariance(paths):
    loader = ImageLoader(image_size=8)
    images = loader.transform(paths)
    order = np.random.default_rng(0).permutation(len(paths))
    np.testing.assert_array_equal(loader.transform(paths[order]), images[order])
    one_by_one = np.concatenate([loader.transform(paths[k : k + 1]) for k in range(8)])
    np.testing.assert_array_equal(one_by_one, images)


def test_check_estimators_pickle_and_clone(paths):
    loader = ImageLoader(image_size=(4, 6)).fit(paths)
    for copy in (pickle.loads(pickle.dumps(loader)), clone(loader)):
        assert copy.transform(paths).shape == (8, 4, 6, 3)
    assert loader.set_params(image_size=None, n_jobs=2).transform(paths[:7]).shape == (7, 9, 12, 3)


def test_check_fit_score_takes_y_and_pipeline_consistency(paths):
    y = np.arange(8) % 2
    pipe = make_pipeline(
        ImageLoader(), FunctionTransformer(images_to_rows), LogisticRegression(max_iter=500)
    )
    search = GridSearchCV(pipe, {"imageloader__image_size": [2, (3, 4)]}, cv=2)
    search.fit(paths, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(paths).shape == (8,)


# --- forms of X ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        list,
        tuple,
        lambda paths: [Path(path) for path in paths],
        lambda paths: paths.astype(object),
        lambda paths: paths[:, None],
        lambda paths: [[path] for path in paths],
        pd.Series,
        lambda paths: pd.Series(paths, index=paths[::-1], dtype="string"),
        lambda paths: pd.DataFrame({"path": paths}),
    ],
)
def test_forms_of_paths(paths, form):
    loader = ImageLoader(image_size=8)
    assert values_of(loader.fit(form(paths)).transform(form(paths))) == [10 * k for k in range(8)]


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        ("cell.png", TypeError, "a single one"),
        (Path("cell.png"), TypeError, "a single one"),
        (np.zeros((2, 192)), TypeError, r"got numbers: shape \(2, 192\)"),
        (np.zeros((2, 8, 8, 3)), TypeError, r"X\[0\] must be uint8 .* got float64.*255 \* X"),
        (np.zeros((2, 8, 8, 4), np.uint8), ValueError, r"X\[0\] .* shape \(8, 8, 4\)"),
        (np.zeros((2, 8, 8), np.uint8), ValueError, r"shape \(8, 8\). .* X\[..., None\]"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"a single image as X\[None\]"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"np.moveaxis\(X, 1, -1\)"),
        (np.zeros((2, 0, 8, 3), np.uint8), ValueError, r"shape \(0, 8, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8), "a.png"], ValueError, r"X\[1\] must be an image"),
        (["a.png", np.zeros((8, 8, 3), np.uint8)], TypeError, r"X\[1\] must be a path"),
        ([1, 2], TypeError, r"X\[0\] must be a path, got 1"),
        (["a.png", None], TypeError, r"X\[1\] must be a path, got None"),
        (np.array([["a", "b"]]), ValueError, r"got \(1, 2\)"),
        (csr_array(np.eye(3)), TypeError, "sparse is not supported"),
        (pd.DataFrame({"path": ["a"], "label": ["b"]}), ValueError, r"got \(1, 2\)"),
    ],
)
def test_what_is_no_array_of_paths(X, error, words):
    for method in (ImageLoader(image_size=8).fit, ImageLoader(image_size=8).transform):
        with pytest.raises(error, match=words):
            method(X)


def in_memory(paths):
    """Return the images of files at their full size, which differ."""
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(np.asarray(image))
    return images


@pytest.fixture
def pictures(tmp_path):
    """Files of pictures in three sizes, in colour and grey."""
    shapes = [(30, 40, 3), (30, 40, 3), (17, 9, 3), (64, 64, 3)]
    paths = [str(tmp_path / f"picture {k}.png") for k in range(len(shapes))]
    for path, shape in zip(paths, shapes, strict=True):
        Image.fromarray(np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("size", [8, (20, 30), 64, (64, 64)])
@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("spilled", [False, True])
def test_images_become_what_their_files_become(pictures, tmp_path, size, n_jobs, spilled):
    loader = ImageLoader(size, n_jobs=n_jobs, spill_dir=tmp_path if spilled else None)
    expected = loader.fit_transform(pictures)
    images = in_memory(pictures)
    ragged = np.empty(len(images), dtype=object)
    ragged[:] = images
    for form in (images, tuple(images), ragged, [Image.fromarray(image) for image in images]):
        got = loader.fit_transform(form)
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(loader.transform(np.stack(images[:2])), expected[:2])


def test_grey_images_become_rgb_as_their_files_do(tmp_path):
    grey = np.random.RandomState(0).randint(0, 256, (3, 20, 30, 1)).astype(np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, grey, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    for size in (None, 8, (40, 30)):
        loader = ImageLoader(size)
        np.testing.assert_array_equal(loader.transform(grey), loader.transform(paths))


def test_images_of_several_sizes_need_image_size(pictures):
    with pytest.raises(ValueError, match=r"3 sizes .* 30 x 40 \(2 images, X\[0\]\).*image_size="):
        ImageLoader().transform(in_memory(pictures))
    images = in_memory(pictures[:2])
    got = ImageLoader().transform(images)
    np.testing.assert_array_equal(got, images)
    got[:] = 0  # the caller's own
    assert images[0].any()


def test_a_large_jpeg_in_memory_is_nearly_what_its_file_is(tmp_path):
    y, x = np.mgrid[:400, :300] / 2
    Image.fromarray(np.stack([y, x, y / 2 + x / 2], axis=2).astype(np.uint8)).save(
        tmp_path / "large.jpg", quality=95
    )
    loader = ImageLoader((60, 40))
    apart = loader.transform([tmp_path / "large.jpg"]).astype(int)
    apart -= loader.transform(in_memory([tmp_path / "large.jpg"]))
    assert np.abs(apart).mean() < 1


def test_a_model_of_paths_predicts_images(tmp_path):
    cells = make_blood_cells(16, classes=2, image_size=24, random_state=0)
    paths = [str(tmp_path / f"{number}.png") for number in range(16)]
    for path, image in zip(paths, cells.images, strict=True):
        Image.fromarray(image).save(path)
    classifier = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    model = Pipeline([("loader", ImageLoader(image_size=16)), ("classifier", classifier)])
    model.fit(paths, cells.target)
    expected = model.predict_proba(paths)
    save_model(model, tmp_path / "model.wbcclf")
    for one in (model, load_model(tmp_path / "model.wbcclf")):
        for X in (paths, cells.images, list(cells.images)):
            np.testing.assert_array_equal(one.predict_proba(X), expected)


def test_no_paths():
    assert ImageLoader(image_size=(4, 6)).fit_transform([]).shape == (0, 4, 6, 3)
    with pytest.raises(ValueError, match="Give image_size"):
        ImageLoader().transform(np.array([], dtype=str))


@pytest.mark.parametrize(
    "params",
    [
        {"image_size": 0},
        {"image_size": (4, 0)},
        {"image_size": (4, 4, 3)},
        {"image_size": 4.5},
        {"n_jobs": 0},
        {"n_jobs": "all"},
        {"max_pixels": 0},
        {"max_pixels": None},
        {"verbose": "yes"},
    ],
)
def test_parameters_out_of_range(paths, params):
    loader = ImageLoader(**params)
    with pytest.raises(ValueError, match=next(iter(params))):
        loader.fit(paths)
    with pytest.raises(ValueError, match=next(iter(params))):
        loader.transform(paths)


# --- files --------------------------------------------------------------------------------------


def test_every_broken_file_is_named(paths, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    X = [*paths, tmp_path / "text.jpg", tmp_path / "gone.png"]
    with pytest.raises(ImageReadError) as caught:
        ImageLoader(image_size=8).transform(X)
    message = str(caught.value)
    assert "2 of 10 files" in message
    assert "text.jpg: not a JPEG" in message
    assert "gone.png: no such file" in message
    assert "on_error" not in message


def test_sizes_differ(paths):
    with pytest.raises(ValueError, match=r"2 sizes .* 9 x 12 \(7 images, .* 18 x 24 \(1 images"):
        ImageLoader().transform(paths)


def test_max_pixels(paths):
    with pytest.raises(ImageReadError, match=r"1 of 8 .*\n.*cell 7.png: 24 x 18 pixels"):
        ImageLoader(image_size=8, max_pixels=12 * 9).transform(paths)


def test_progress_bar_is_on_stderr_and_only_if_asked_for(paths, capfd):
    ImageLoader(image_size=8).transform(paths)
    assert capfd.readouterr() == ("", "")
    ImageLoader(image_size=8, verbose=1).transform(paths)
    out, err = capfd.readouterr()
    assert out == ""
    assert "8/8" in err


def test_same_images_as_load_image_folder(wbcclf_data):
    root = wbcclf_data / "blood-cells" / "TEST_SIMPLE"
    cells = load_image_folder(root, image_size=(60, 80))
    images = ImageLoader(image_size=(60, 80)).transform(list_image_folder(root).paths)
    np.testing.assert_array_equal(images, cells.images)


@settings(max_examples=25, deadline=None)
@given(
    n_images=st.integers(0, 4),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    n_jobs=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 2**16),
)
def test_any_number_and_size_of_images_comes_back_in_order(n_images, height, width, n_jobs, seed):
    pixels = np.random.RandomState(seed).randint(0, 256, (n_images, 7, 9, 3)).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, f"{number}.png") for number in range(n_images)]
        for path, image in zip(paths, pixels, strict=True):
            Image.fromarray(image).save(path)
        resized = ImageLoader((height, width), n_jobs=n_jobs).transform(paths)
        assert resized.shape == (n_images, height, width, 3)
        assert resized.dtype == np.uint8
        # One image alone is what it is among others, and a column of paths is a row of them.
        for number, path in enumerate(paths):
            alone = ImageLoader((height, width)).transform([[path]])
            np.testing.assert_array_equal(alone[0], resized[number])
            # Stretching averages or interpolates: nothing leaves the range of the pixels.
            assert pixels[number].min() <= alone.min() <= alone.max() <= pixels[number].max()
        if n_images:  # PNG is lossless
            np.testing.assert_array_equal(ImageLoader(n_jobs=n_jobs).transform(paths), pixels)

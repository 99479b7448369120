"""Loaders that cut every picture around its white cell, at its own size, before it is stretched."""

import os
import pickle
import re
import warnings
import weakref

import cv2
import joblib
import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from wbcclf import (
    CellCropper,
    list_image_folder,
    load_image_csv,
    load_image_folder,
    make_blood_cells,
)
from wbcclf._images import images_to_rows
from wbcclf.datasets import ImageLoader, _reading
from wbcclf.exceptions import ImageReadError, SkippedFileWarning
from wbcclf.inspection import predict_files

SIZES = [(160, 160), (160, 240), (300, 200), (96, 96)]  # height, width


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of white cells in four sizes, and one, the third, that shows none."""
    root = tmp_path_factory.mktemp("pictures")
    paths = []
    for number, size in enumerate(SIZES):
        (picture, _) = make_blood_cells(2, 2, image_size=size, random_state=5 + number).images
        if number == 2:
            picture[:] = 230
        paths.append(str(root / f"{number}.png"))
        Image.fromarray(picture).save(paths[-1])
    return paths


def decoded(path):
    with Image.open(path) as image:
        return np.asarray(image)


def uncut_warning(*names, n_images):
    listed = r"[\s\S]*".join(names)
    return pytest.warns(
        UserWarning, match=rf"No white cell was found in {len(names)} of {n_images}[\s\S]*{listed}"
    )


@pytest.fixture
def quiet():
    """Let pictures without a cell pass."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No white cell was found")
        yield


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("n_jobs", [1, 3])
@pytest.mark.parametrize("params", [{}, {"scale": "cell", "background": "remove"}, {"scale": 80}])
def test_every_picture_is_cut_at_its_own_size_and_then_stretched(pictures, quiet, params, n_jobs):
    images = ImageLoader(48, crop=CellCropper(**params), n_jobs=n_jobs).fit_transform(pictures)
    cropper = CellCropper(**params, image_size=48)
    for path, image in zip(pictures, images, strict=True):
        np.testing.assert_array_equal(image, cropper.crop_pictures([decoded(path)])[0][0])
    assert images.dtype == np.uint8


def test_the_same_cell_comes_out_alike_in_pictures_of_other_shapes(tmp_path):
    """Twice as large; and with more of its surroundings on two sides, as a wider field shows it."""
    apart = []
    for seed in range(4):
        picture, _ = make_blood_cells(2, 2, image_size=160, random_state=seed).images
        larger = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        wider = cv2.copyMakeBorder(picture, 0, 0, 90, 10, cv2.BORDER_REFLECT)
        paths = [tmp_path / f"{name}.png" for name in ("as it was", "larger", "wider")]
        for path, image in zip(paths, (picture, larger, wider), strict=True):
            Image.fromarray(image).save(path)
        cut = ImageLoader(48, crop=CellCropper(which="largest")).transform(paths).astype(float)
        whole = ImageLoader(48).transform(paths).astype(float)
        apart.append(
            [np.abs(cut[number] - cut[0]).mean() for number in (1, 2)]
            + [np.abs(whole[2] - whole[0]).mean()]
        )
    larger, wider, stretched = np.mean(apart, axis=0)
    assert max(larger, wider) < stretched / 4


def test_pictures_without_a_cell_give_their_central_square_and_are_named_once(pictures):
    paths = [*pictures, pictures[2]]
    with uncut_warning("2.png", "2.png", n_images=5) as caught:
        images = ImageLoader(48, crop=CellCropper()).transform(paths)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (images[2] == 230).all()
    with uncut_warning(r"X\[2\]", n_images=4):
        ImageLoader(48, crop=CellCropper()).transform([decoded(path) for path in pictures])


def test_the_loaders_size_counts_and_else_the_croppers(pictures, quiet):
    cropper = CellCropper(image_size=40)
    for size, side in ((None, 40), (24, 24), ((24, 24), 24), (96, 96)):
        images = ImageLoader(size, crop=cropper).fit_transform(pictures)
        assert images.shape == (4, side, side, 3)
        bunch = load_image_folder(
            os.path.dirname(pictures[0]), image_size=size, crop=cropper, labelled=False
        )
        np.testing.assert_array_equal(bunch.images, images)
    assert cropper.image_size == 40
    assert ImageLoader(crop=cropper).transform([]).shape == (0, 40, 40, 3)


def test_images_in_memory_become_what_their_files_become(pictures, quiet, tmp_path):
    loader = ImageLoader(48, crop=CellCropper(), spill_dir=tmp_path)
    np.testing.assert_array_equal(
        loader.transform([decoded(path) for path in pictures]), loader.transform(pictures)
    )


def test_a_large_jpeg_is_cut_before_it_is_made_small(tmp_path):
    picture, _ = make_blood_cells(2, 2, image_size=400, random_state=0).images
    Image.fromarray(picture).save(tmp_path / "large.jpg", quality=95)
    (image,) = ImageLoader(32, crop=CellCropper()).transform([tmp_path / "large.jpg"])
    # Without a cropper, the decoder itself would make it smaller.
    (expected,), (found,) = CellCropper(image_size=32).crop_pictures(
        [decoded(tmp_path / "large.jpg")]
    )
    assert found
    assert np.abs(image.astype(int) - expected).max() <= 2  # two decoders of JPEG


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_turned_picture_is_cut_upright(pictures, tmp_path, orientation, suffix):
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(decoded(pictures[1])).save(path, exif=exif)
    cropper = CellCropper(image_size=48)
    (image,) = ImageLoader(crop=cropper).transform([path])
    (upright,) = ImageLoader().transform([path])
    assert upright.shape[:2] == (SIZES[1] if orientation == 3 else SIZES[1][::-1])
    np.testing.assert_array_equal(image, cropper.crop_pictures([upright])[0][0])


def test_sixteen_bits_are_cut_as_eight_and_grey_has_no_cell(pictures, tmp_path):
    picture = decoded(pictures[0])
    deep, grey = tmp_path / "deep.png", tmp_path / "grey.png"
    cv2.imwrite(str(deep), picture[..., ::-1].astype(np.uint16) * 257)
    Image.fromarray(picture).convert("L").save(grey)
    loader = ImageLoader(48, crop=CellCropper())
    with uncut_warning("grey.png", n_images=3):
        images = loader.transform([pictures[0], deep, grey])
    np.testing.assert_array_equal(images[1], images[0])
    with uncut_warning(r"X\[0\]", n_images=1):
        ours = loader.transform(decoded(grey)[None, ..., None])
    np.testing.assert_array_equal(ours[0], images[2])


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3, 2), (16, 16)])
def test_a_picture_of_few_pixels_is_no_error(size, tmp_path):
    Image.fromarray(np.full((*size, 3), 99, np.uint8)).save(tmp_path / "small.png")
    with uncut_warning("small.png", n_images=1):
        images = ImageLoader(8, crop=CellCropper()).transform([tmp_path / "small.png"])
    assert (images == 99).all()


def test_a_picture_too_small_for_the_square_is_like_a_broken_file(pictures, quiet):
    """Sides of 1,600 pixels: more than 16 times the least picture."""
    loader = ImageLoader(8, crop=CellCropper(1600))
    with pytest.raises(ImageReadError, match=r"1 of 4 [\s\S]*3\.png: scale=1600 .* 16 times"):
        loader.transform(pictures)
    with pytest.raises(ValueError, match=r"scale=1600 .* 16 times as wide as X\[3\]"):
        loader.transform([decoded(path) for path in pictures])
    assert (
        load_image_folder(
            os.path.dirname(pictures[0]), crop=CellCropper(1600), labelled=False, on_error="skip"
        ).skipped[0][0]
        == pictures[3]
    )


# ---------------------------------------------------------------- the loaders


@pytest.fixture
def folder(pictures, tmp_path):
    """Two classes, a broken file before the picture without a cell, and a table of them."""
    rows = ["path,label"]
    for number, path in enumerate(pictures):
        target = tmp_path / "cells" / "ab"[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
        rows.append(f"{target.relative_to(tmp_path / 'cells')},{target.parent.name}")
    (tmp_path / "cells" / "a" / "1 broken.png").write_bytes(b"no image")
    (tmp_path / "cells" / "table.csv").write_text("\n".join([*rows, "a/1 broken.png,a"]))
    return tmp_path / "cells"


@pytest.mark.parametrize("load", ["folder", "table"])
def test_bunches_tell_where_a_cell_was_found(folder, load):
    source = folder if load == "folder" else folder / "table.csv"
    load = load_image_folder if load == "folder" else load_image_csv
    params = {"image_size": 32, "on_error": "skip"}
    with uncut_warning("2.png", n_images=4):
        cells = load(source, crop=CellCropper(), **params)
    names = [os.path.basename(path) for path in cells.paths]
    assert dict(zip(names, cells.found.tolist(), strict=True)) == {
        "0.png": True, "1.png": True, "2.png": False, "3.png": True
    }  # fmt: skip
    assert (cells.images[~cells.found] == 230).all()
    assert load(source, **params).found is None


def test_broken_files_are_what_they_are_without_a_cropper(folder):
    with pytest.raises(ImageReadError, match=r"1 of 5 files [\s\S]*1 broken\.png: not a JPEG"):
        load_image_folder(folder, image_size=32, crop=CellCropper())
    with (
        uncut_warning("2.png", n_images=4),
        pytest.warns(SkippedFileWarning, match=r"1 broken\.png"),
    ):
        load_image_folder(folder, image_size=32, crop=CellCropper(), on_error="warn")


def test_max_pixels_counts_those_of_the_whole_picture(pictures):
    with pytest.raises(ImageReadError, match=r"3 of 4 [\s\S]*240 x 160 pixels are more than"):
        ImageLoader(8, crop=CellCropper(), max_pixels=10_000).transform(pictures)


class Watching(CellCropper):
    """Counts how many of the pictures that it was given are still in memory."""

    given: list = []
    alive: list = []

    def crop_pictures(self, pictures):
        self.given.extend(weakref.ref(picture) for picture in pictures)
        self.alive.append(sum(reference() is not None for reference in self.given))
        return super().crop_pictures(pictures)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_memory_holds_a_few_whole_pictures_a_thread(pictures, quiet, n_jobs, monkeypatch):
    monkeypatch.setattr(_reading, "MAX_TOGETHER", 0)  # each is larger
    Watching.given.clear()
    Watching.alive.clear()
    ImageLoader(48, crop=Watching(), n_jobs=n_jobs).transform(pictures * 5)
    assert len(Watching.given) == len(Watching.alive) == 20
    assert max(Watching.alive) <= n_jobs


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"crop": "nucleus"}, "crop.*must be a CellCropper or None"),
        ({"crop": CellCropper}, "crop.*must be a CellCropper or None"),
        ({"crop": ImageLoader()}, "crop.*must be a CellCropper or None"),
        ({"crop": CellCropper("cells")}, "'scale' parameter of CellCropper"),
        ({"crop": CellCropper(image_size=0)}, "'image_size' parameter of CellCropper"),
        (
            {"crop": CellCropper(), "image_size": (24, 32)},
            r"image_size=\(24, 32\) is not square, but crop cuts squares: give one number",
        ),
    ],
)
def test_what_cannot_cut_is_named_before_a_file_is_opened(params, message, tmp_path):
    loader = ImageLoader(**params)
    for call in (
        lambda: loader.fit(["none.png"]),
        lambda: loader.transform(["none.png"]),
        lambda: load_image_folder("none", **params),
        lambda: load_image_csv("none.csv", **params),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_loader_with_a_cropper_is_cloned_pickled_and_dumped(pictures, quiet, tmp_path):
    loader = ImageLoader(32, crop=CellCropper("cell", background="normalise"))
    expected = loader.fit_transform(pictures)
    joblib.dump(loader, tmp_path / "loader.joblib")
    for copy in (
        clone(loader),
        pickle.loads(pickle.dumps(loader)),
        joblib.load(tmp_path / "loader.joblib"),
    ):
        assert copy.crop is not loader.crop
        np.testing.assert_array_equal(copy.transform(pictures), expected)


def test_a_search_sets_the_croppers_parameters(tmp_path):
    cells = make_blood_cells(12, classes=2, image_size=96, random_state=0)
    paths = [str(tmp_path / f"{number}.png") for number in range(12)]
    for path, image in zip(paths, cells.images, strict=True):
        Image.fromarray(image).save(path)
    model = make_pipeline(
        ImageLoader(16, crop=CellCropper()),
        FunctionTransformer(images_to_rows),
        LogisticRegression(max_iter=2000),
    )
    grid = {"imageloader__crop__scale": ["nucleus", "cell"], "imageloader__crop": [None]}
    grid = [{name: values} for name, values in grid.items()]
    search = GridSearchCV(model, grid, cv=2).fit(paths, cells.target)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert len(search.cv_results_["params"]) == 3
    chunks = list(predict_files(search, paths, chunk_size=5))
    np.testing.assert_allclose(
        np.concatenate([chunk.probabilities for chunk in chunks]),
        search.predict_proba(paths),
        rtol=1e-9,
    )


def test_predicted_files_tell_where_a_cell_was_found(pictures):
    loader = ImageLoader(16, crop=CellCropper())
    model = make_pipeline(loader, FunctionTransformer(images_to_rows), LogisticRegression())
    good = [path for number, path in enumerate(pictures) if number != 2]
    model.fit(good, ["a", "b", "a"])
    chunks = list(predict_files(model, [*pictures, "none.png"], chunk_size=2))  # warns of nothing
    assert [chunk.found.tolist() for chunk in chunks] == [[True, True], [False, True], []]
    [chunk] = predict_files(model.set_params(imageloader__crop=None), good)
    assert chunk.found is None


# ---------------------------------------------------------------- memory


def kept(cache):
    return sorted(path.name for path in cache.rglob("*.entry"))


def test_squares_are_kept_with_what_was_found(folder, tmp_path):
    def load(**params):
        loaded = load_image_folder(
            folder, image_size=24, crop=CellCropper(**params), on_error="skip", memory=cache
        )
        return loaded.images, loaded.found

    cache = tmp_path / "cache"
    with uncut_warning("2.png", n_images=4):
        images, found = load()
    first = kept(cache)
    assert len(first) == 4
    for params in ({}, {"n_jobs": 2}, {"image_size": 7}):
        with uncut_warning("2.png", n_images=4):
            again, found_again = load(**params)
        np.testing.assert_array_equal(again, images)
        np.testing.assert_array_equal(found_again, found)
    assert kept(cache) == first


@pytest.mark.parametrize(
    "params",
    [
        {"scale": "cell"},
        {"scale": 60},
        {"factor": 2.5},
        {"which": "largest"},
        {"background": "normalise"},
        {"background": "remove"},
    ],
)
def test_other_parameters_are_kept_apart(pictures, quiet, tmp_path, params):
    for cropper in (CellCropper(), CellCropper(**params)):
        ImageLoader(24, crop=cropper, memory=tmp_path).transform(pictures)
        expected = ImageLoader(24, crop=cropper).transform(pictures)
        np.testing.assert_array_equal(
            ImageLoader(24, crop=cropper, memory=tmp_path).transform(pictures), expected
        )
    assert len(kept(tmp_path)) == 8
    ImageLoader(24, memory=tmp_path).transform(pictures)
    assert len(kept(tmp_path)) == 12


def test_a_new_version_of_the_cropper_cuts_anew(pictures, quiet, tmp_path, monkeypatch):
    loader = ImageLoader(24, crop=CellCropper(), memory=tmp_path)
    loader.transform(pictures)
    monkeypatch.setattr(CellCropper, "_version", CellCropper._version + 1)
    monkeypatch.setattr(
        CellCropper,
        "crop_pictures",
        lambda self, pictures: (np.full((len(pictures), 24, 24, 3), 7), [True] * len(pictures)),
    )
    assert (loader.transform(pictures) == 7).all()
    assert len(kept(tmp_path)) == 8


class Own(CellCropper):
    """Somebody's own, which says of no change that it is one."""


def test_squares_of_a_class_without_a_version_are_not_kept(pictures, quiet, tmp_path):
    loader = ImageLoader(24, crop=Own(), memory=tmp_path)
    expected = ImageLoader(24, crop=CellCropper()).transform(pictures)
    np.testing.assert_array_equal(loader.transform(pictures), expected)
    assert not kept(tmp_path)


# ---------------------------------------------------------------- real pictures


def test_cells_of_four_laboratories_are_cut_from_their_files(wbcclf_data):
    folders = ["blood-cells/TEST_SIMPLE", "pbc/original-size", "bcisc/images", "raabin"]
    paths = []
    for folder in folders:
        listing = list_image_folder(wbcclf_data / folder, labelled=False)
        paths += listing.paths[:: len(listing.paths) // 15][:15].tolist()
    assert len({decoded(path).shape for path in paths}) > 3  # sizes
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = ImageLoader(48, crop=CellCropper()).transform(paths)
    assert images.shape == (60, 48, 48, 3)
    n_missing = int(re.search(r"in (\d+) of 60", str(caught[0].message))[1]) if caught else 0
    assert n_missing <= 3
    # The nucleus is in the middle, and what is dark and purple there is green's absence.
    middle, edge = images[:, 20:28, 20:28, 1], images[:, ::47, :, 1]
    assert (middle.mean(axis=(1, 2)) < edge.mean(axis=(1, 2))).mean() > 0.9

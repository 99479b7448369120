"""`wbcclf train --crop`: pictures of any size in, and the model cuts as in training."""

import json
import os

import numpy as np
import pytest
from PIL import Image

import wbcclf

# In the shell it is a line on stderr; tests make errors of warnings.
pytestmark = pytest.mark.filterwarnings("always:No white cell was found:UserWarning")

SIZES = [(96, 96), (96, 128), (180, 140)]  # height, width


def write_pictures(root, n_samples, seed, labelled=True):
    """Write cells in pictures of three sizes, and one that shows none (`0.png`)."""
    number = 0
    for size in SIZES:
        cells = wbcclf.make_blood_cells(n_samples // 3, 2, image_size=size, random_state=seed)
        for image, label in zip(cells.images, cells.target, strict=True):
            path = root / (label if labelled else ".") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image if number else np.full_like(image, 230)).save(path)
            number += 1


@pytest.fixture(scope="module")
def cutting(tmp_path_factory, run):
    """Return a folder with pictures and a model that cuts them, trained in the shell."""
    root = tmp_path_factory.mktemp("crop")
    write_pictures(root / "train", 30, 0)
    write_pictures(root / "new", 12, 1, labelled=False)
    done = run(
        *("train", root / "train", "-o", root / "m.wbcclf", "--crop", "nucleus"),
        *("--image-size", 24, "--epochs", 2),
    )
    assert done.returncode == 0, done.stderr
    assert "30 images of 2 classes" in done.stdout
    assert "warning: No white cell was found in" in done.stderr and "0.png" in done.stderr
    return root


def test_the_model_cuts_as_it_did_in_training(cutting, call, read_csv, tmp_path):
    model = wbcclf.load_model(cutting / "m.wbcclf")
    assert (model["loader"].image_size, model["loader"].crop.scale) == (24, "nucleus")
    paths = [cutting / "new" / f"{number}.png" for number in range(12)]
    with pytest.warns(UserWarning, match=r"No white cell was found in \d+ of 12"):
        expected = model.predict_proba(paths)
    code, _, err = call("predict", cutting / "m.wbcclf", cutting / "new", "-o", tmp_path / "o.csv")
    assert code == 0, err
    rows = read_csv(tmp_path / "o.csv")
    assert [row["file"] for row in rows] == [path.name for path in paths]
    written = np.array([[row["lymphocyte"], row["neutrophil"]] for row in rows], dtype=float)
    np.testing.assert_allclose(written, expected, atol=5.1e-7)
    cropper = wbcclf.CellCropper(background="normalise", image_size=24)
    images, found = cropper.crop_pictures([Image.open(path) for path in paths])
    np.testing.assert_array_equal(model["classifier"].predict_proba(images), expected)
    says = "no white cell found; the central square was used"
    assert [row["error"] for row in rows] == ["" if is_found else says for is_found in found]
    assert rows[0]["error"] == says and rows[0]["label"]
    assert f"no white cell was found in {12 - sum(found)} of 12 images" in err and "0.png" in err


def test_evaluate_cuts_too_and_lists_where_there_is_no_cell(cutting, call, tmp_path):
    figures = tmp_path / "figures.json"
    code, _, err = call("evaluate", cutting / "m.wbcclf", cutting / "train", "--json", figures)
    assert code == 0 and "no white cell was found in" in err
    result = json.loads(figures.read_text())
    assert "0.png" in [os.path.basename(path) for path in result["no_cell_found"]]
    listing = wbcclf.list_image_folder(cutting / "train")
    with pytest.warns(UserWarning, match="No white cell"):
        predicted = wbcclf.load_model(cutting / "m.wbcclf").predict(listing.paths)
    assert result["accuracy"] == pytest.approx((predicted == listing.target).mean())


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        ((), "nucleus"),
        (("--weights", "random"), "cell"),
        (("--crop", "red-cell"), "red cell"),
        (("--crop", "none"), None),
        (("--crop", "nucleus"), "nucleus"),
    ],
)
def test_what_is_cut_is_what_was_asked_for(given, scale, trained, call, read_csv, tmp_path):
    output = tmp_path / "m.wbcclf"
    arguments = ("train", trained / "train", "-o", output, "--image-size", 32, "--epochs", 1)
    code, _, err = call(*arguments, *given)
    assert code == 0, err
    crop = wbcclf.load_model(output)["loader"].crop
    assert crop is None if scale is None else crop.scale == scale
    figures = tmp_path / "figures.json"
    code, _, _ = call("evaluate", output, trained / "test", "--json", figures)
    assert code == 0
    assert ("no_cell_found" in json.loads(figures.read_text())) == (scale is not None)


def test_a_recipe_sees_whole_pictures_unless_told(cutting, trained, call, tmp_path):
    arguments = ("--recipe", "field-cnn", "--image-size", 32, "--epochs", 1)
    for images, given, scale in (
        (trained / "train", (), None),
        (cutting / "train", ("--crop", "cell"), "cell"),
    ):
        code, _, err = call("train", images, "-o", tmp_path / "m", *arguments, *given)
        assert code == 0, err
        crop = wbcclf.load_model(tmp_path / "m")["loader"].crop
        assert crop is None if scale is None else crop.scale == scale


@pytest.mark.filterwarnings("always:.*frozen at random:UserWarning")
def test_a_recipe_that_removes_the_background_keeps_it_in_the_model(
    cutting, seen, call, read_csv, tmp_path
):
    code, _, err = call(
        *("train", cutting / "train", "-o", tmp_path / "m", "--recipe", "leukocyte-vgg16"),
        *("--weights", "random", "--image-size", 48, "--epochs", 1, "--groups", r"(\d)\.png"),
    )
    assert code == 0, err
    for name in ("train", "X_val"):
        corners = seen[name][:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert (corners == 230).mean() > 0.7  # some cells reach a corner, or are not found
    model = wbcclf.load_model(tmp_path / "m")
    assert list(model.named_steps) == ["loader", "background", "classifier"]
    code, _, err = call("predict", tmp_path / "m", cutting / "new", "-o", tmp_path / "o.csv")
    assert code == 0, err
    rows = read_csv(tmp_path / "o.csv")
    images = wbcclf.ImageLoader(48).transform([cutting / "new" / row["file"] for row in rows])
    with pytest.warns(UserWarning, match="No white cell"):
        removed = wbcclf.BackgroundRemover().fit_transform(images)
    expected = model["classifier"].predict_proba(removed)
    written = np.array([[row["lymphocyte"], row["neutrophil"]] for row in rows], dtype=float)
    np.testing.assert_allclose(written, expected, atol=5.1e-7)

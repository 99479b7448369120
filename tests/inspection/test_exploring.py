"""Exploring a set: counts are exact, planted outliers are found, tests keep their promise."""

import warnings

import numpy as np
import pytest
from PIL import Image
from scipy.stats import f_oneway
from sklearn.metrics import roc_auc_score

from wbcclf import make_blood_cells
from wbcclf.exceptions import ImageReadError, SkippedFileWarning
from wbcclf.inspection import explore_images
from wbcclf.inspection.exploring._separation import compare_classes, p_text
from wbcclf.inspection.exploring._survey import focus

CELLS = make_blood_cells(60, classes=["lymphocyte", "neutrophil"], image_size=96, random_state=0)


@pytest.fixture(scope="module")
def found():
    return explore_images(CELLS.images, CELLS.target)


def compared(X, y, groups=None):
    names = [f"feature {k}" for k in range(X.shape[1])]
    return compare_classes(X, names, y, np.arange(len(y)) if groups is None else groups)


def test_identical_populations_do_not_differ():
    # A published system multiplied the p-values of 768 features, which gives 0 for any data.
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b", "c", "d"], 50)
    features = compared(rng.randn(200, 768), y).features
    assert len(features) == 768
    p = np.array([feature.p for feature in features])
    assert 0.02 < (p < 0.05).mean() < 0.09  # 0.05, with a standard deviation of 0.008
    assert min(feature.p_adjusted for feature in features) > 0.5


def test_a_difference_by_chance_is_as_rare_as_promised():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b", "c"], [60, 20, 8])
    n_false = 0
    for _ in range(200):
        # Features that have much in common, of classes with unequal spread.
        X = rng.randn(88, 1) + rng.randn(88, 20)
        X[y == "c"] *= 3
        n_false += any(feature.p_adjusted < 0.05 for feature in compared(X, y).features)
    assert n_false <= 10  # 5% of 200, if the correction did no more than it must


def test_a_difference_is_found_with_its_size():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b"], 400)
    X = rng.randn(800, 5)
    X[:, 3] += 2.0 * (y == "b")  # between the classes lies 1 of 2 parts of the variance
    result = compared(X, y)
    best = result.features[0]
    assert best.name == "feature 3" and best.p_adjusted < 1e-50
    assert best.omega2 == pytest.approx(0.5, abs=0.05)
    assert all(feature.omega2 < 0.02 for feature in result.features[1:])
    assert best.medians["b"] - best.medians["a"] == pytest.approx(2, abs=0.2)
    expected = f_oneway(X[y == "a", 3], X[y == "b", 3], equal_var=False)
    assert (best.statistic, best.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_the_best_feature_of_a_pair_has_the_area_under_the_curve():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b", "c"], 30)
    X = np.round(rng.randn(90, 2), 1)  # with ties
    X[:, 1] -= y == "b"
    pair = compared(X, y).pairs[0]
    assert pair.classes == ["a", "b"]
    assert (pair.best[0].name, pair.best[0].higher) == ("feature 1", "a")
    rows = y != "c"
    assert pair.best[0].auc == pytest.approx(roc_auc_score(y[rows] == "a", X[rows, 1]))


def test_a_cell_counts_once():
    rng = np.random.RandomState(0)
    y = np.repeat(["a", "b"], 20)
    X = rng.randn(40, 3)
    once = compared(X, y)
    many = compared(np.repeat(X, 7, axis=0), np.repeat(y, 7), np.repeat(np.arange(40), 7))
    assert many.n_cells == once.n_cells == {"a": 20, "b": 20}
    assert [f.p for f in many.features] == pytest.approx([f.p for f in once.features])
    assert many.pairs == once.pairs


def test_what_cannot_be_compared_is_left_out():
    y = np.array(["a", "a", "a", "b", "b", "b", "c"])
    X = np.array([[1, 2, 3, 2, 3, 5, 9], [1.0] * 7, [np.nan] * 7, [1, 2, np.nan, 4, 5, 6, 7]]).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = compared(X, y)
    assert sorted(feature.name for feature in result.features) == ["feature 0", "feature 3"]
    assert result.features[0].medians.keys() == {"a", "b", "c"}
    assert [pair.classes for pair in result.pairs if pair.best] == [["a", "b"]]  # c has one cell


def test_a_class_without_spread_is_compared():
    y = np.repeat(["a", "b", "c"], 20)
    rng = np.random.RandomState(0)
    lobes = np.concatenate([np.ones(20), rng.randint(2, 6, 20), rng.randint(2, 6, 20)])
    constant = np.repeat([1.0, 2.0, 3.0], 20)
    result = compared(np.stack([lobes, constant], axis=1), y)
    assert [feature.omega2 > 0.5 for feature in result.features] == [True, True]
    assert [feature.p_adjusted < 1e-6 for feature in result.features] == [True, True]
    assert result.features[0].name == "feature 1" and result.features[0].omega2 == 1


def test_two_copies_of_a_picture_in_each_class_are_no_evidence():
    result = compared(np.array([[1.0], [1.0], [2.0], [2.0]]), np.array(["a", "a", "b", "b"]))
    [feature] = result.features
    assert feature.statistic is None
    assert feature.p == pytest.approx(2 / 6)  # of the six ways to deal labels, two


def test_a_p_value_that_a_float_cannot_hold_is_not_shown_as_0():
    assert p_text(0.0) == "< 1e-300"
    assert p_text(0.0123) == "0.012"


def test_counts_and_means_are_exact(found):
    for k, label in enumerate(["lymphocyte", "neutrophil"]):
        images = CELLS.images[CELLS.target == label]
        for channel in range(3):
            expected = np.bincount(images[..., channel].ravel(), minlength=256)
            assert (found.counts[k, channel] == expected).all()
        assert found.means[k].mean() == pytest.approx(images.mean(), abs=0.5)
    assert found.contrasts[0] == pytest.approx(found.means[0] - found.means[1], abs=1e-3)
    assert found.contrasts[1] == pytest.approx(-found.contrasts[0], abs=1e-3)
    assert found.sizes == [(96, 96, 60)]
    assert [(c.label, c.n_images, c.n_cells) for c in found.classes] == [
        ("lymphocyte", 30, 30),
        ("neutrophil", 30, 30),
    ]


def test_lymphocytes_and_neutrophils_differ_by_their_nuclei(found):
    best = found.separation.features[0]
    assert best.p_adjusted < 1e-6 and "nucleus" in best.name
    assert found.separation.pairs[0].best[0].auc > 0.9


def test_the_result_does_not_depend_on_threads(found):
    again = explore_images(CELLS.images, CELLS.target, n_jobs=3)
    np.testing.assert_array_equal(again.features, found.features)
    np.testing.assert_array_equal(again.means, found.means)
    assert again.classes == found.classes


def test_examples_are_of_the_class_and_of_different_cells(found):
    groups = np.arange(60) // 2
    paired = explore_images(CELLS.images, np.sort(CELLS.target), groups=groups)
    for result, cells in ((found, np.arange(60)), (paired, groups)):
        for each in result.classes:
            odd = [example.row for example in each.odd]
            for rows in (each.typical, odd):
                assert (result.target[rows] == each.label).all()
                assert len(set(cells[rows].tolist())) == len(rows) >= 5
            assert set(each.typical).isdisjoint(odd)
    assert paired.classes[0].n_cells == 15
    assert paired.classes[0].effective_cells == pytest.approx(15)


def test_effective_cells_weigh_how_unequally_pictures_are_spread():
    result = explore_images(CELLS.images[:8], groups=[0, 0, 0, 0, 0, 0, 1, 2])
    assert result.classes[0].n_cells == 3
    assert result.classes[0].effective_cells == pytest.approx(64 / (36 + 1 + 1))


def blurred(image):
    return np.asarray(Image.fromarray(image).resize((12, 12)).resize((96, 96)))


def stained_deeper(image):
    light = np.quantile(image, 0.95, axis=(0, 1))
    return (light * np.minimum(image / light, 1) ** 1.7).astype(np.uint8)


@pytest.mark.parametrize(
    ("look", "change"),
    [("brightness", lambda image: image // 2), ("focus", blurred), ("stain depth", stained_deeper)],
)
def test_a_planted_outlier_is_found(look, change):
    rng = np.random.RandomState(0)
    # Pictures of one slide: synthetic cells have each a light and a stain of their own.
    noise = rng.randint(-2, 3, size=(30, 96, 96, 3)) + rng.randint(-4, 5, size=(30, 1, 1, 1))
    images = np.clip(CELLS.images[0] + noise, 0, 255).astype(np.uint8)
    assert not explore_images(images).outliers
    images[17] = change(images[17])
    outliers = [each for each in explore_images(images).outliers if each.look == look]
    assert [each.row for each in outliers] == [17]
    assert abs(outliers[0].score) >= 5


def test_focus_does_not_depend_on_contrast():
    image = CELLS.images[0]
    paler = (128 + 0.5 * (image.astype(float) - 128)).round().astype(np.uint8)
    assert focus(paler) == pytest.approx(focus(image), abs=0.05)
    assert np.isnan(focus(np.full((8, 8, 3), 7, np.uint8)))


def test_files_give_what_images_give_and_broken_ones_are_named(found, tmp_path):
    paths = []
    for number, image in enumerate(CELLS.images):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    of_files = explore_images(paths, CELLS.target)
    np.testing.assert_array_equal(of_files.features, found.features)
    paths[5].write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=r'5\.png(.|\n)*on_error="warn"'):
        explore_images(paths, CELLS.target)
    with pytest.warns(SkippedFileWarning, match=r"5\.png"):
        rest = explore_images(paths, CELLS.target, on_error="warn")
    assert [path for path, _ in rest.skipped] == [str(paths[5])]
    assert sum(each.n_images for each in rest.classes) == 59
    assert rest.separation.n_cells == {
        label: int((np.delete(CELLS.target, 5) == label).sum()) for label in rest.separation.n_cells
    }


def test_pictures_without_a_cell_are_odd():
    images = CELLS.images[:20].copy()
    images[3] = 230
    result = explore_images(images)
    assert result.classes[0].n_without_cell >= 1
    assert (3, "no white cell found") in [(each.row, each.why) for each in result.classes[0].odd]
    assert np.isnan(result.features[3]).all()


def test_grey_and_unequal_pictures_are_taken():
    pictures = [CELLS.images[0], CELLS.images[1][:80], CELLS.images[2][..., :1]]
    result = explore_images(pictures)
    assert result.sizes == [(96, 96, 2), (80, 96, 1)]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (([],), ValueError, "images is empty"),
        ((CELLS.images, ["a"]), ValueError, "y has 1 entries, images 60"),
        ((CELLS.images / 255,), TypeError, "uint8"),
        (("cell.png",), TypeError, "array of paths"),
        ((None,), TypeError, "images must be an array of paths or images, got NoneType"),
        ((CELLS.images[:2], ["a", None]), ValueError, r"y\[1\] is None, but y must be text"),
        ((CELLS.images[:2], [0.5, 0.5]), ValueError, r"y\[0\] is 0.5"),
    ],
)
def test_wrong_arguments_are_errors(given, error, message):
    with pytest.raises(error, match=message):
        explore_images(*given)
    with pytest.raises(ValueError, match="groups has 2 entries"):
        explore_images(CELLS.images[:3], groups=[1, 2])
    with pytest.raises(ValueError, match=r"groups\[0\] is nan"):
        explore_images(CELLS.images[:3], groups=[np.nan] * 3)
    with pytest.raises(TypeError, match="groups must be an array-like"):
        explore_images(CELLS.images[:3], groups="auto")
    with pytest.raises(ValueError, match="on_error must be one of"):
        explore_images(CELLS.images[:3], on_error="never")

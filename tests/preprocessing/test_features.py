"""CellFeatures: shapes, colours and textures with known answers."""

import pickle
import re
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preprocessing.fields import LIGHT, NUCLEUS, RADIUS, Field
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from wbcclf import CellFeatures, ImageLoader, find_cells
from wbcclf.cells import _measures as measures
from wbcclf.cells._picture import Picture
from wbcclf.preprocessing._features import NAMES

TWO_LOBES = ((-13, 0, 13), (13, 0, 13))
THREE_LOBES = ((-15, -8, 11), (15, -8, 11), (0, 15, 11))


def one_cell(x=200, y=160, red_cells=True, **params):
    field = Field().white_cell(x, y, **params)
    if red_cells:
        field.red_cells(keep_off=[(x, y, params.get("radius", 38))])
    return field


def table(*pictures, **params):
    """Return one dict of features for each picture."""
    rows = CellFeatures(**params).fit_transform(np.stack(pictures))
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


# ---------------------------------------------------------------- the table


def documented():
    """Return (name, low, high) of every row of the docstring's table; high is inf for "up"."""
    rows = re.findall(
        r"^    \| (.+? \(.+?\)) \| (\S+) (?:to )?(\S+) \| .+ \|$", CellFeatures.__doc__, re.M
    )
    return [(name, float(low), np.inf if high == "up" else float(high)) for name, low, high in rows]


def test_the_docstring_lists_every_feature_in_order():
    assert [name for name, _, _ in documented()] == list(NAMES)
    features = CellFeatures().fit(one_cell().picture()[None])
    assert features.get_feature_names_out().tolist() == list(NAMES)


def test_everything_that_is_measured_is_in_the_table():
    picture = one_cell().picture()
    (cell,) = find_cells(picture)
    assert set(measures.measure(Picture(picture), cell, [cell])) == set(NAMES)


@settings(max_examples=25, deadline=None)
@given(
    radius=st.integers(24, 44),
    share=st.floats(0.3, 1.05),
    shift=st.integers(-12, 12),
    cytoplasm=st.tuples(*[st.floats(0.02, 1.2)] * 3),
    light=st.tuples(*[st.integers(90, 255)] * 3),
    noise=st.floats(0, 12),
)
def test_features_stay_in_their_documented_ranges(radius, share, shift, cytoplasm, light, noise):
    field = one_cell(radius=radius, lobes=((shift, 0, share * radius),), cytoplasm=cytoplasm)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No white cell was found")
        (row,) = table(field.picture(light, noise))
    for name, low, high in documented():
        assert np.isnan(row[name]) or low <= row[name] <= high, name


# ---------------------------------------------------------------- shapes


def ellipse(long, short, angle, side=160):
    mask = np.zeros((side, side), np.uint8)
    return cv2.ellipse(mask, ((side / 2, side / 2), (2 * long, 2 * short), angle), 1, -1) > 0


@pytest.mark.parametrize("angle", [0, 30, 45, 77])
@pytest.mark.parametrize(("long", "short"), [(40, 40), (50, 30), (60, 20), (12, 8)])
def test_an_ellipse_has_the_shape_of_the_formula(long, short, angle):
    mask = ellipse(long, short, angle)
    # Ramanujan's formula, exact to 1e-4 here.
    h = ((long - short) / (long + short)) ** 2
    edge = np.pi * (long + short) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    expected = 4 * np.pi * np.pi * long * short / edge**2
    small = long < 20  # the outermost pixels are half outside
    assert measures.perimeter(mask) == pytest.approx(edge, rel=0.1 if small else 0.05)
    assert measures.circularity(mask) == pytest.approx(expected, abs=0.12 if small else 0.08)
    squared = 1 - (short / long) ** 2  # of a disc, every wrong pixel shows under the root
    assert measures.eccentricity(mask) ** 2 == pytest.approx(squared, abs=0.05)
    assert measures.solidity(mask) > 0.95


def test_the_solidity_of_a_cross_and_of_one_pixel():
    cross = np.zeros((90, 90), bool)
    cross[30:60], cross[:, 30:60] = True, True
    assert measures.solidity(cross) == pytest.approx(5 / 7, abs=0.02)
    dot = np.ones((1, 1), bool)
    assert (measures.solidity(dot), measures.circularity(dot), measures.eccentricity(dot)) == (
        1,
        1,
        0,
    )


@pytest.mark.parametrize(
    ("lobes", "number"),
    [
        (((0, 0, 24),), 1),
        (((-5, 0, 18), (5, 0, 18)), 1),  # a bean
        (TWO_LOBES, 2),
        (THREE_LOBES, 3),
        (((-22, 0, 9), (0, 0, 9), (22, 0, 9), (0, 22, 9)), 4),  # gaps
    ],
    ids=["disc", "bean", "2", "3", "4"],
)
@pytest.mark.parametrize("angle", [0, 25, 70])
def test_lobes_are_counted_in_every_position(lobes, number, angle):
    turn = np.exp(1j * np.radians(angle))
    turned = [((z := (x + 1j * y) * turn).real, z.imag, r) for x, y, r in lobes]
    (row,) = table(one_cell(lobes=turned).picture())
    assert row["nucleus lobes (number)"] == number


def test_areas_are_in_red_cells():
    field = one_cell()
    (row,) = table(field.picture())
    red_cell = np.pi * RADIUS**2
    assert row["reference (1 red cell, 0 picture)"] == 1
    assert row["cell area (reference areas)"] == pytest.approx(
        field.cells[0].sum() / red_cell, rel=0.1
    )
    assert row["nucleus area (reference areas)"] == pytest.approx(
        field.nuclei[0].sum() / red_cell, rel=0.1
    )
    assert row["nucleus to cell area (ratio)"] == pytest.approx((24 / 38) ** 2, rel=0.06)


def test_areas_are_in_pictures_where_there_are_no_red_cells():
    field = one_cell(red_cells=False)
    (row,) = table(field.picture())
    assert row["reference (1 red cell, 0 picture)"] == 0
    share = field.cells[0].mean()
    assert row["cell area (reference areas)"] == pytest.approx(share, rel=0.06)


@pytest.mark.parametrize("shift", [0, 6, 12])
def test_how_far_the_nucleus_is_off_the_centre(shift):
    (row,) = table(one_cell(lobes=((shift, 0, 22),)).picture())
    assert row["nucleus off centre (cell radii)"] == pytest.approx(shift / 38, abs=0.02)


def test_a_cell_at_the_border_is_marked():
    whole, cut = table(one_cell().picture(), one_cell(x=20).picture())
    name = "cut by the border (1 yes, 0 no)"
    assert (whole[name], cut[name]) == (0, 1)


# ---------------------------------------------------------------- what changes nothing

SHAPES = [name for name in NAMES if "lobes" in name or "(0 to 1)" in name or "ratio" in name]
SHAPES = [name for name in SHAPES if "homogeneity" not in name]
COLOURS = [name for name in NAMES if "(of nucleus green)" in name]


def differences(one, other, names):
    """Return how much features differ; eccentricities squared, see above."""
    power = {name: 2 if "eccentricity" in name else 1 for name in names}
    return {name: abs(one[name] ** power[name] - other[name] ** power[name]) for name in names}


@pytest.mark.parametrize("lobes", [((0, 0, 24),), TWO_LOBES, THREE_LOBES])
def test_turning_and_mirroring_change_little(lobes):
    picture = one_cell(lobes=lobes).picture()
    upright, turned = (table(each)[0] for each in (picture, np.rot90(picture).copy()))
    (mirrored,) = table(picture[:, ::-1])
    for other in (turned, mirrored):
        assert max(differences(upright, other, SHAPES).values()) < 0.05
        assert max(differences(upright, other, COLOURS).values()) < 0.02
        area = "cell area (reference areas)"
        # The radius of the red cells is known to some 4%.
        assert other[area] == pytest.approx(upright[area], rel=0.08)


@pytest.mark.parametrize("factor", [0.75, 1.5, 2])
def test_magnification_changes_little(factor):
    picture = one_cell(lobes=THREE_LOBES).picture()
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    (before,) = table(picture)
    (after,) = table(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=method))
    assert max(differences(before, after, SHAPES).values()) < 0.1
    assert max(differences(before, after, COLOURS).values()) < 0.03
    for name in ("cell area (reference areas)", "nucleus area (reference areas)"):
        assert after[name] == pytest.approx(before[name], rel=0.1)


@pytest.mark.parametrize("light", [(230, 225, 215), (200, 180, 140), (140, 160, 190)])
def test_light_changes_no_colour(light):
    (before,), (after,) = table(one_cell().picture(noise=0)), table(one_cell().picture(light, 0))
    assert max(differences(before, after, COLOURS).values()) < 0.03
    name = "nucleus green density (OD)"
    assert after[name] == pytest.approx(before[name], abs=0.02)
    assert after[name] == pytest.approx(NUCLEUS[1] / np.log(10), abs=0.04)


def test_colours_are_those_that_were_drawn():
    drawn = (0.3, 0.9, 0.6)
    (row,) = table(one_cell(cytoplasm=drawn, lobes=((0, 0, 20),)).picture())
    for channel, density, own in zip(("red", "green", "blue"), drawn, NUCLEUS, strict=True):
        name = f"cytoplasm {channel} density (of nucleus green)"
        assert row[name] == pytest.approx(density / NUCLEUS[1], abs=0.03)
        if channel != "green":
            name = f"nucleus {channel} density (of nucleus green)"
            assert row[name] == pytest.approx(own / NUCLEUS[1], abs=0.03)
    redness = row["cytoplasm redness (of nucleus green)"]
    assert redness == pytest.approx((0.75 - 0.3) / NUCLEUS[1], abs=0.03)


def test_a_weaker_stain_changes_no_relative_colour():
    strong, weak = one_cell(), one_cell()
    weak.density *= 0.8
    (before,), (after,) = table(strong.picture(noise=0)), table(weak.picture(noise=0))
    assert max(differences(before, after, COLOURS).values()) < 0.03
    ratio = after["nucleus green density (OD)"] / before["nucleus green density (OD)"]
    assert ratio == pytest.approx(0.8, abs=0.03)


# ---------------------------------------------------------------- texture

ALL = np.ones((40, 40), bool)


def test_haralick_of_one_level_of_stripes_and_of_noise():
    flat = measures.haralick(np.full((40, 40), 7, np.uint8), ALL)
    assert flat == {
        "contrast (levels^2)": 0,
        "correlation (-1 to 1)": 1,
        "homogeneity (0 to 1)": 1,
        "entropy (bits)": 0,
    }
    # Columns of 0 and 4 in turn: only vertical neighbours are alike, 1560 of 6162 pairs.
    stripes = measures.haralick(np.tile(np.uint8([0, 4]), (40, 20)), ALL)
    differ = 1 - 1560 / 6162
    assert stripes["contrast (levels^2)"] == pytest.approx(16 * differ)
    assert stripes["homogeneity (0 to 1)"] == pytest.approx(1 - differ + differ / 17)
    assert stripes["correlation (-1 to 1)"] == pytest.approx(1 - 2 * differ, abs=0.01)
    noise = np.random.default_rng(0).integers(0, 8, (300, 300)).astype(np.uint8)
    random = measures.haralick(noise, np.ones((300, 300), bool))
    assert random["contrast (levels^2)"] == pytest.approx(2 * 63 / 12, rel=0.02)
    assert random["correlation (-1 to 1)"] == pytest.approx(0, abs=0.01)
    assert random["entropy (bits)"] == pytest.approx(6, abs=0.01)


def test_what_is_outside_of_a_region_has_no_say_in_its_texture():
    values = np.full((40, 40), 100, np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    values[~mask] = np.random.default_rng(0).integers(0, 255, (~mask).sum())
    assert measures.haralick(values // 5, mask)["contrast (levels^2)"] == 0
    assert measures.granularity(values, mask) == {
        "fine grains (share)": 0,
        "coarse grains (share)": 0,
    }


def disc(width):
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))


@pytest.mark.parametrize(
    ("grain", "size"),
    [
        (np.ones((1, 1)), "fine"),
        (np.ones((2, 2)), "fine"),
        (disc(3), "coarse"),
        (disc(7), None),
    ],
    ids=["1", "2", "3", "7"],
)
def test_grains_are_told_apart_by_their_width(grain, size):
    values = np.full((40, 40), 50, np.uint8)
    for y, x in ((3, 8), (10, 20), (30, 5)):
        values[y : y + len(grain), x : x + len(grain)] += (100 * grain).astype(np.uint8)
    share = 3 * 100 * grain.sum() / values.sum()
    found = measures.granularity(values, ALL)
    for name in ("fine", "coarse"):
        expected = share if name == size else 0
        assert found[f"{name} grains (share)"] == pytest.approx(expected), name


def test_granules_show():
    field = one_cell(lobes=((0, 0, 20),))
    smooth = field.picture()
    ring = np.argwhere(field.cells[0] & ~field.nuclei[0])
    for y, x in ring[np.random.default_rng(0).permutation(len(ring))[:60]]:
        field.density[field.disc(x, y, 2) & field.cells[0]] = NUCLEUS
    (before,), (after,) = table(smooth), table(field.picture())
    for name in ("cytoplasm fine grains (share)", "cytoplasm contrast (levels^2)"):
        assert after[name] > 2 * before[name]


# ---------------------------------------------------------------- no cell, no cytoplasm


@pytest.mark.parametrize("n_channels", [1, 3])
def test_an_image_without_a_cell_gives_nan_and_is_flagged(n_channels):
    features = CellFeatures()
    empty = np.full((60, 80, 3), LIGHT, np.uint8)[None, ..., :n_channels]
    with pytest.warns(UserWarning, match=r"in 1 of 1 images \(first in image 0\); they give a row"):
        out = features.fit_transform(empty)
    assert out.shape == (1, len(NAMES))
    assert np.isnan(out).all()
    assert features.found_.tolist() == [False]


def test_without_cytoplasm_its_features_are_nan():
    field = one_cell(lobes=((0, 0, 38),))
    picture = field.picture()
    (cell,) = find_cells(picture)
    bare = replace(cell, cell=cell.nucleus)
    found = measures.measure(Picture(picture), bare, [bare])
    assert set(NAMES) - set(found) == {name for name in NAMES if name.startswith("cytoplasm")}
    assert found["nucleus to cell area (ratio)"] == 1


# ---------------------------------------------------------------- an ordinary transformer


def test_which_cell_is_measured():
    small, large = (180, 160, 30), (330, 90, 44)
    field = Field()
    for x, y, radius in (small, large):
        field.white_cell(x, y, radius=radius, lobes=((0, 0, radius * 0.65),))
    picture = field.red_cells(keep_off=[small, large]).picture()
    areas = [table(picture, which=which)[0][NAMES[0]] for which in ("centre", "largest")]
    assert areas[1] / areas[0] == pytest.approx((44 / 30) ** 2, rel=0.1)


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.float32, 1 / 255), (np.float64, 1), (np.int64, 1)]
)
def test_other_dtypes_and_rows_give_the_same(dtype, scale):
    picture = one_cell().picture()[None]
    expected = CellFeatures().fit_transform(picture)
    ours = CellFeatures().fit_transform((picture * scale).astype(dtype))
    np.testing.assert_allclose(ours, expected)
    rows = CellFeatures(image_shape=picture.shape[1:]).fit_transform(picture.reshape(1, -1))
    np.testing.assert_array_equal(rows, expected)


def test_threads_and_pickles_change_nothing():
    pictures = np.stack([one_cell().picture(), one_cell(lobes=TWO_LOBES).picture()] * 2)
    features = CellFeatures(n_jobs=1).fit(pictures)
    expected = features.transform(pictures)
    for other in (clone(features).set_params(n_jobs=2), pickle.loads(pickle.dumps(features))):
        np.testing.assert_array_equal(other.fit_transform(pictures), expected)


def test_a_data_frame_names_features_and_units():
    features = CellFeatures().set_output(transform="pandas")
    frame = features.fit_transform(one_cell(lobes=TWO_LOBES).picture()[None])
    assert list(frame.columns) == list(NAMES)
    assert frame["nucleus lobes (number)"].tolist() == [2]


def test_a_classifier_that_takes_nan_can_follow():
    pictures = np.stack([one_cell().picture(), one_cell(lobes=THREE_LOBES).picture()] * 10)
    pictures[-1] = LIGHT  # shows no cell
    pipe = make_pipeline(CellFeatures(), HistGradientBoostingClassifier(min_samples_leaf=2))
    with pytest.warns(UserWarning, match="No white cell was found in 1 of 20"):
        pipe.fit(pictures, ["one", "three"] * 10)
    assert pipe.predict(pictures[:2]).tolist() == ["one", "three"]


def test_haematology_holds_on_real_cells(wbcclf_data):
    paths = sorted((wbcclf_data / "bcisc" / "images").glob("*.jpg"))
    kinds = np.array([path.name.split("_")[0] for path in paths])
    some = np.concatenate([np.flatnonzero(kinds == kind)[:20] for kind in np.unique(kinds)])
    images = ImageLoader(256).transform([str(paths[row]) for row in some])
    frame = CellFeatures().set_output(transform="pandas").fit_transform(images)
    median = frame.groupby(kinds[some]).median()
    lobes = frame["nucleus lobes (number)"].groupby(kinds[some]).mean()
    assert lobes.idxmax() == "neut"
    assert lobes.idxmin() == "lymp"
    assert median["nucleus to cell area (ratio)"].drop("baso").idxmax() == "lymp"
    assert median["cytoplasm redness (of nucleus green)"].idxmax() == "eosi"
    assert median["cytoplasm fine grains (share)"].idxmax() == "baso"
    assert median["cell area (reference areas)"].idxmax() == "mono"
    assert median["cell area (reference areas)"].idxmin() == "lymp"


@pytest.mark.parametrize(
    ("params", "message"),
    [({"which": "all"}, "'which' parameter"), ({"n_jobs": 0}, "n_jobs must be None or an int")],
)
def test_a_wrong_parameter_is_named(params, message):
    with pytest.raises(ValueError, match=message):
        CellFeatures(**params).fit(one_cell().picture()[None])


# The checks' numbers show no cells, which it says; tests above assert when it does.
@pytest.mark.filterwarnings("ignore:No white cell was found")
@parametrize_with_checks([CellFeatures()])
def test_scikit_learn_agrees(estimator, check):
    check(estimator)


def test_the_number_of_checks_does_not_shrink():
    assert len(list(estimator_checks_generator(CellFeatures()))) >= 46  # of scikit-learn 1.9.1

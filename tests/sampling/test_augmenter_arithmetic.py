"""Augmenter: exact where pixels only move, bilinear elsewhere, and the same on every device."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wbcclf import Augmenter
from wbcclf.sampling import _changes
from wbcclf.sampling._stains import stain_matrices

QUICK = settings(max_examples=150, deadline=None)
STILL = {
    **dict.fromkeys(
        ["rotation", "shear", "shift", "zoom", "brightness", "contrast", "saturation", "hue"], 0
    ),
    "horizontal_flip": False,
    "vertical_flip": False,
}
FILLS = ["reflect", "nearest", "constant"]
HIGHEST = {"uint8": 255, "float32": 1, "float64": 255}


def noise(n, shape, dtype="uint8", seed=0):
    values = np.random.RandomState(seed).uniform(0, HIGHEST[dtype], (n, *shape))
    return (np.rint(values) if dtype == "uint8" else values).astype(dtype)


def batches(shapes):
    return st.builds(
        noise, st.integers(1, 5), shapes, st.sampled_from(sorted(HIGHEST)), st.integers(0, 99)
    )


sides = st.integers(1, 40)
shapes = st.tuples(sides, sides, st.sampled_from([1, 3]))
squares = st.builds(lambda side, c: (side, side, c), sides, st.sampled_from([1, 3]))
seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0, 1)
geometry = {
    "rotation": st.floats(0, 360) | st.just("quarter"),
    "shear": st.floats(0, 60),
    "shift": fractions,
    "zoom": st.floats(0, 0.8),
    "horizontal_flip": st.booleans(),
    "vertical_flip": st.booleans(),
    "fill": st.sampled_from(FILLS),
}
everything = geometry | {
    "brightness": fractions,
    "contrast": fractions,
    "saturation": fractions,
    "hue": st.floats(0, 0.5),
    "stain": fractions,
    "laboratory": fractions,
}


# ------------------------------------------------------------------ exact


def moved(image):
    """Return the eight versions of an image that flips and quarter turns make."""
    turned = [np.rot90(image, quarters) for quarters in range(4)]
    return turned + [np.flip(version, 1) for version in turned]


@QUICK
@given(batches(squares), seeds, st.booleans(), st.booleans(), st.sampled_from(FILLS))
def test_quarter_turns_and_flips_only_move_pixels(images, seed, across, upside, fill):
    params = {"rotation": "quarter", "horizontal_flip": across, "vertical_flip": upside}
    out = Augmenter(**{**STILL, **params, "fill": fill}).augment(images, seed)
    allowed = 8 if across or upside else 4
    for image, changed in zip(images, out, strict=True):
        assert any(np.array_equal(changed, version) for version in moved(image)[:allowed])
    tensor = Augmenter(**{**STILL, **params, "fill": fill}).augment(torch.from_numpy(images), seed)
    np.testing.assert_array_equal(tensor.numpy(), out)


@QUICK
@given(batches(shapes), seeds)
def test_flips_only_move_pixels_of_any_shape(images, seed):
    params = {"horizontal_flip": True, "vertical_flip": True}
    out = Augmenter(**{**STILL, **params}).augment(images, seed)
    for image, changed in zip(images, out, strict=True):
        versions = [image, np.flip(image, 0), np.flip(image, 1), np.flip(image, (0, 1))]
        assert any(np.array_equal(changed, version) for version in versions)
    tensor = Augmenter(**{**STILL, **params}).augment(torch.from_numpy(images), seed)
    np.testing.assert_array_equal(tensor.numpy(), out)


def test_every_quarter_turn_comes_equally_often():
    image = noise(1, (5, 5, 3))
    out = Augmenter(**{**STILL, "rotation": "quarter"}).augment(np.repeat(image, 400, 0), 0)
    counts = [(out == version).all(axis=(1, 2, 3)).sum() for version in moved(image[0])[:4]]
    # Binomial(400, 1/4): outside 57-143 with probability < 1e-5.
    assert sum(counts) == 400
    assert min(counts) > 57


def test_maps_of_quarter_turns_hold_whole_numbers():
    changes = Augmenter(rotation="quarter", shift=0, zoom=0)._draw(
        50, (9, 9, 3), np.random.RandomState(0)
    )
    assert np.isin(changes.warps[:, :, :2], [-1, 0, 1]).all()
    np.testing.assert_array_equal(changes.warps, np.rint(changes.warps))


def test_a_quarter_turn_of_an_oblong_image_is_about_its_centre_and_fills():
    images = noise(40, (4, 8, 3))
    out = Augmenter(**{**STILL, "rotation": "quarter", "fill": "constant"}).augment(images, 0)
    turned = 0
    for image, changed in zip(images, out, strict=True):
        for quarters in (1, 3):
            wanted = np.zeros_like(image)
            wanted[:, 2:6] = np.rot90(image, quarters)[2:6]
            turned += np.array_equal(changed, wanted)
    assert 8 <= turned <= 32  # Binomial(40, 1/2): outside with probability < 1e-4


# ------------------------------------------------------------------ bilinear


def index(position, size, fill):
    if fill == "nearest" or size == 1:
        return np.clip(position, 0, size - 1)
    return np.abs((position + size - 1) % (2 * size - 2) - (size - 1))


def bilinear(image, warp, fill):
    """Resample in float64, by the textbook."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    columns, rows = np.tensordot(warp, [x, y, np.ones_like(x)], 1)
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    total = np.zeros(image.shape)
    for row, row_weight in ((top, top + 1 - rows), (top + 1, rows - top)):
        for column, weight in ((left, left + 1 - columns), (left + 1, columns - left)):
            if fill == "constant":
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                pixels = image[row.clip(0, height - 1), column.clip(0, width - 1)]
                pixels = np.where(inside[..., None], pixels, 0)
            else:
                pixels = image[index(row, height, fill), index(column, width, fill)]
            total += (row_weight * weight)[..., None] * pixels
    return total


@QUICK
@given(batches(shapes), st.fixed_dictionaries(geometry), seeds)
def test_resampling_is_bilinear_within_one_grey_level(images, params, seed):
    params = STILL | params
    out = Augmenter(**params).augment(images, seed)
    changes = Augmenter(**params)._draw(len(images), images.shape[1:], np.random.RandomState(seed))
    warps = np.tile(np.eye(2, 3), (len(images), 1, 1)) if changes.warps is None else changes.warps
    exact = [
        bilinear(image.astype(float), warp, params["fill"])
        for image, warp in zip(images, warps, strict=True)
    ]
    level = HIGHEST[str(images.dtype)] / 255
    if images.dtype == np.uint8:
        assert np.abs(out - np.rint(exact)).max() <= 1
    np.testing.assert_allclose(out, exact, atol=level)


# ------------------------------------------------------------------ tensors


@settings(max_examples=300, deadline=None)
@given(batches(shapes), st.fixed_dictionaries(everything), seeds)
@example(noise(4, (128, 128, 3)), {}, 0)
@example(noise(4, (257, 131, 3)), {"stain": 0.3, "rotation": 20, "shear": 30}, 0)
def test_a_tensor_becomes_what_an_array_becomes(images, params, seed):
    out = Augmenter(**params).augment(images, seed)
    given_tensor = torch.from_numpy(images.copy())
    tensor = Augmenter(**params).augment(given_tensor, seed)
    assert (tensor.dtype, tensor.shape) == (given_tensor.dtype, given_tensor.shape)
    np.testing.assert_array_equal(given_tensor.numpy(), images)
    level = HIGHEST[str(images.dtype)] / 255
    assert np.abs(tensor.numpy().astype(float) - out).max() <= level


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_bytes_are_exact_on_every_device(channels):
    images = noise(100, (6, 5, channels))
    params = STILL | dict.fromkeys(["brightness", "contrast", "saturation", "hue"], 0.4)
    out = Augmenter(**params).augment(images, 0)
    tensor = Augmenter(**params).augment(torch.from_numpy(images), 0)
    np.testing.assert_array_equal(tensor.numpy(), out)
    # Three coefficients and an offset, rounded to 1/1024, and the result, to whole levels.
    exact = Augmenter(**params).augment(images.astype(float), 0)
    assert np.abs(out - exact).max() <= 0.5 + (channels * 255 + 1) / 2048


@pytest.mark.parametrize("dtype", sorted(HIGHEST))
def test_a_tensor_draws_as_many_numbers_as_an_array(dtype):
    images = noise(3, (6, 5, 3), dtype)
    states = np.random.RandomState(0), np.random.RandomState(0)
    Augmenter(stain=0.1).augment(images, states[0])
    Augmenter(stain=0.1).augment(torch.from_numpy(images), states[1])
    assert states[0].uniform() == states[1].uniform()


def test_a_tensor_without_changes_is_a_copy():
    images = torch.from_numpy(noise(3, (6, 5, 3), "float32"))
    out = Augmenter(**STILL).augment(images, 0)
    assert torch.equal(out, images)
    assert out.data_ptr() != images.data_ptr()
    assert Augmenter().augment(images[:0]).shape == (0, 6, 5, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 6, 5), r"permute\(0, 2, 3, 1\)"),
        (torch.zeros(6, 5, 3), "shape"),
        (torch.zeros(2, 0, 5, 3), "shape"),
        (torch.zeros(2, 6, 5, 3, dtype=torch.int64), "int64"),
        (torch.full((2, 6, 5, 3), torch.nan), "NaN"),
        (torch.full((2, 6, 5, 3), torch.inf), "infinity"),
        (torch.full((2, 6, 5, 3), -torch.inf), "infinity"),
    ],
    ids=["channels first", "axes", "pixels", "dtype", "NaN", "infinity", "minus infinity"],
)
def test_a_wrong_tensor_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        Augmenter().augment(images, 0)


@pytest.mark.parametrize("dtype", sorted(HIGHEST))
def test_a_stain_jitter_of_nothing_changes_nothing(dtype):
    same = stain_matrices(np.ones((1, 3)), np.zeros((1, 3)))
    np.testing.assert_allclose(same[0], np.eye(3, 4), atol=1e-12)
    images = noise(1, (32, 32, 3), dtype)
    out = np.empty_like(images)
    changes = _changes.Changes(same, None, None, "reflect")
    _changes.apply(changes, images, np.arange(1), (0.0, float(HIGHEST[dtype])), out)
    # Worked on in float32, whose logarithm and exponential lose a few of 2**24 parts.
    tolerance = 0 if dtype == "uint8" else HIGHEST[dtype] * 2e-6
    np.testing.assert_allclose(out, images, atol=tolerance)

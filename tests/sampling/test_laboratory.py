"""Augmenter(laboratory=...): the same cell as other laboratories show it."""

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wbcclf import Augmenter, make_blood_cells
from wbcclf.sampling import _laboratory, _laboratory_torch
from wbcclf.sampling._jpeg_torch import jpeg

QUICK = settings(max_examples=100, deadline=None)
STILL = {
    **dict.fromkeys(
        ["rotation", "shear", "shift", "zoom", "brightness", "contrast", "saturation", "hue"], 0
    ),
    "horizontal_flip": False,
    "vertical_flip": False,
}
HIGHEST = {"uint8": 255, "float32": 1, "float64": 255}


class Part(np.random.RandomState):
    """Draws a known part of every range; from 1/3 on, no blur, JPEG or grey."""

    def __init__(self, part):
        super().__init__(0)
        self.part = part

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.broadcast_to(low + self.part * np.subtract(high, low), size)


def show(images, random_state=0, laboratory=1.0, **params):
    return Augmenter(**{**STILL, **params, "laboratory": laboratory}).augment(images, random_state)


def noise(n, shape, dtype="uint8", seed=0):
    values = np.random.RandomState(seed).uniform(0, HIGHEST[dtype], (n, *shape))
    return (np.rint(values) if dtype == "uint8" else values).astype(dtype)


def flat(n, pixel, side=16):
    return np.tile(np.uint8(pixel), (n, side, side, 1))


def spotted(n, background, spot):
    """Return pictures of a spot that is too small to pass for background."""
    images = flat(n, background)
    images[:, 8, 8] = spot
    return images


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(12, classes=3, image_size=64, random_state=0).images


# ------------------------------------------------------------------ strength


def test_off_draws_and_changes_nothing_new(cells):
    states = np.random.RandomState(0), np.random.RandomState(0)
    changes = Augmenter()._draw(12, (64, 64, 3), states[0])
    assert changes.laboratories is None
    # Angle, shear, scale, two shifts, two flips and four numbers of colour for each image.
    states[1].uniform(size=11 * 12)
    assert states[0].uniform() == states[1].uniform()


def test_the_other_changes_are_drawn_as_without_it():
    one = Augmenter(stain=0.1)._draw(9, (8, 8, 3), np.random.RandomState(0))
    two = Augmenter(stain=0.1, laboratory=0.5)._draw(9, (8, 8, 3), np.random.RandomState(0))
    np.testing.assert_array_equal(one.warps, two.warps)
    np.testing.assert_array_equal(one.stains, two.stains)
    np.testing.assert_array_equal(one.colours[0], two.colours[0])


def test_hardly_any_strength_changes_no_byte():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    np.testing.assert_array_equal(show(images, laboratory=1e-3), images)


def test_more_strength_changes_more(cells):
    images = np.repeat(cells, 10, axis=0).astype(int)
    difference = [
        np.abs(show(images.astype(np.uint8), 0, strength) - images).mean()
        for strength in (0.1, 0.25, 0.5, 0.75, 1)
    ]
    assert (np.diff(difference) > 0).all()
    assert difference[0] < 6


def test_every_image_is_another_laboratorys(cells):
    out = show(np.repeat(cells[:1], 50, axis=0))
    assert len(np.unique(out.reshape(50, -1), axis=0)) == 50


# ------------------------------------------------------------------ colours


@pytest.mark.parametrize("background", [(250, 220, 190), (160, 170, 200)])
@pytest.mark.parametrize("strength", [0.5, 1])
def test_light_is_replaced_and_density_stays_where_factors_are_one(background, strength):
    cell = np.array([90, 60, 140])
    out = show(spotted(1, background, cell), Part(0.5), strength).astype(float)[0]
    # The middle of every range: a grey background of 197.5, factors and mixing of one and none.
    light = (np.array(background) + 1) ** (1 - strength) * 198.5**strength
    np.testing.assert_allclose(out[0, 0], light - 1, atol=1)
    np.testing.assert_allclose(
        out[8, 8], (cell + 1) * light / (np.array(background) + 1) - 1, atol=1
    )


@pytest.mark.parametrize(("part", "sign", "light"), [(1, 1, 246 * 1.15), (0.35, -0.3, 184.25)])
def test_factors_multiply_grey_density(part, sign, light):
    images = spotted(1, [200] * 3, [100] * 3)
    out = show(images, Part(part)).astype(float)[0]
    # Mixed channels of the same density give that density: only the factors count.
    density = np.log(201 / 101) * (1.8 * 1.4) ** sign
    light *= 1.15 ** min(sign, 0)
    np.testing.assert_allclose(out[0, 0], np.minimum(light - 1, 255), atol=1)
    # Factors are multiples of 1/256, which is half of that off, or 0.0014 of density.
    np.testing.assert_allclose(out[8, 8], light * np.exp(-density) - 1, atol=1.2)


def test_backgrounds_are_within_the_documented_range():
    out = show(flat(400, (230, 210, 240))).astype(float)
    light = np.median(out, axis=(1, 2))
    # 150 to 245, each channel times 1/1.15 to 1.15; JPEG and rounding may move it by 2.
    assert light.min() > 151 / 1.15 - 3
    assert light.min() < 145
    assert light.max() == 255
    ratio = np.log(light.max(axis=1) / light.min(axis=1))
    assert ratio.max() < 2 * np.log(1.15) + 0.02
    assert ratio.max() > np.log(1.15)
    # A plain background stays plain.
    assert (np.ptp(out, axis=(1, 2)) <= 1).all()


def test_granules_of_eosinophils_stay_the_redder_ones():
    # Colours of PBC: granules of an eosinophil, cytoplasm of a neutrophil, nucleus.
    pixels = [(190, 110, 120), (200, 160, 195), (85, 50, 130)]
    red_to_blue = []
    for pixel in pixels:
        spot = show(spotted(400, (240, 225, 215), pixel), laboratory=1)
        seen = spot[:, 8, 8].astype(float) + 1
        red_to_blue.append(np.log(seen[:, 0] / seen[:, 2]))
    changes = Augmenter(**STILL, laboratory=1)._draw(400, (16, 16, 3), np.random.RandomState(0))
    mixing, quality = changes.laboratories.mixing, changes.laboratories.quality
    is_grey = (mixing[:, 0] == mixing[:, 1]).all(axis=1)
    assert abs(is_grey.mean() - 1 / 5) < 0.06  # three standard deviations of 400
    # JPEG has half the resolution for colours, and mixes that of a lonely pixel with others.
    orange, lilac, blue = np.array(red_to_blue)[:, (quality == 0) & ~is_grey]
    assert (orange > lilac).all()
    assert (lilac > blue).mean() > 0.95  # where much red is mixed into blue, they are alike
    assert (np.array(red_to_blue)[:, (quality == 0) & is_grey] == 0).all()


def test_the_background_is_found_behind_a_cell(cells):
    out = show(cells, Part(0.5)).astype(float)
    # It is looked for in some pixels only, so that of all pixels is a little off the new light.
    light = np.quantile(out, _laboratory.BRIGHT, axis=(1, 2))
    assert np.abs(light - 197.5).max() < 6


# ------------------------------------------------------------------ blur and JPEG


def test_blur_and_jpeg_come_to_the_documented_share_of_images():
    laboratories = _laboratory.draw(1.0, 4000, (128, 96, 3), np.random.RandomState(0))
    kernels = laboratories.kernels
    radius = kernels.shape[1] // 2
    np.testing.assert_array_equal(kernels.sum(axis=1), 256)
    np.testing.assert_array_equal(kernels % 2, 0)
    variance = (kernels * np.arange(-radius, radius + 1) ** 2).sum(axis=1) / 256
    # A pixel's own width adds 1/12 to the variance.
    assert np.sqrt(variance.max()) <= 96 * np.hypot(0.0075, 0.01) + 0.05
    assert np.sqrt(variance.max()) > 96 * 0.0095
    # Binomial(4000, 1/3), and 5/9 for one or both; sharp kernels are those under 0.3 pixels.
    assert abs((laboratories.quality > 0).mean() - 1 / 3) < 0.03
    assert 1 / 3 < (variance > 0).mean() < 5 / 9 + 0.03
    quality = laboratories.quality[laboratories.quality > 0]
    assert (quality.min(), quality.max()) == (30, 95)
    weak = _laboratory.draw(0.2, 4000, (128, 96, 3), np.random.RandomState(0))
    assert abs((weak.quality > 0).mean() - 1 / 15) < 0.015
    assert weak.quality[weak.quality > 0].min() == 82


@QUICK
@given(
    st.builds(
        noise,
        st.just(3),
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
    ),
    st.lists(st.integers(1, 100), min_size=3, max_size=3),
    st.floats(0, 4),
)
@example(noise(3, (128, 128, 3)), [30, 60, 90], 2.0)
def test_jpeg_of_tensors_is_libjpegs(images, quality, sigma):
    if sigma > 0.3:  # smooth pictures, too
        images = np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images]).reshape(
            images.shape
        )
    kind = "GRAY" if images.shape[3] == 1 else "RGB"
    expected = []
    for image, q in zip(images, quality, strict=True):
        _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, q])
        expected.append(simplejpeg.decode_jpeg(code, kind))
    out = jpeg(torch.from_numpy(images), np.array(quality))
    np.testing.assert_array_equal(out.numpy(), expected)


# ------------------------------------------------------------------ arrays, tensors, types


@QUICK
@given(
    st.builds(
        noise,
        st.integers(1, 6),
        st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3])),
        st.sampled_from(sorted(HIGHEST)),
        st.integers(0, 99),
    ),
    st.floats(0.01, 1),
    st.integers(0, 2**32 - 1),
)
@example(noise(40, (128, 128, 3)), 1.0, 0)
@example(noise(40, (97, 131, 3), "float32"), 1.0, 1)
def test_a_tensor_becomes_exactly_what_an_array_becomes(images, strength, seed):
    out = show(images, seed, strength)
    tensor = show(torch.from_numpy(images.copy()), seed, strength)
    np.testing.assert_array_equal(tensor.numpy(), out)


def test_so_does_a_large_picture():
    # Of 3,000 pixels, whose blurs are so wide that kernels in 1/128 have gaps.
    images = noise(8, (30, 30, 3))
    laboratories = _laboratory.draw(1.0, 8, (3000, 3000, 3), np.random.RandomState(2))
    assert (laboratories.kernels[:, laboratories.kernels.shape[1] // 2] < 16).any()
    np.testing.assert_array_equal(laboratories.kernels.sum(axis=1), 256)
    out = [_laboratory.apply(laboratories, i, image) for i, image in enumerate(images)]
    tensor = _laboratory_torch.apply(laboratories, torch.from_numpy(images))
    np.testing.assert_array_equal(tensor.numpy(), out)


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int32"])
def test_other_types_are_shown_in_256_levels(cells, dtype):
    bytes_out = show(cells)
    scale = 1 / 255 if dtype == "float32" else 1
    images = (cells * scale).astype(dtype)
    out = show(images)
    assert out.dtype == images.dtype
    np.testing.assert_allclose(out / scale, bytes_out, atol=1e-4)


def test_a_range_of_its_own_is_kept():
    images = np.random.RandomState(0).uniform(-2, 3, (5, 9, 9, 3))
    out = show(images)
    assert out.min() >= images.min()
    assert out.max() <= images.max()
    assert np.ptp(out) > 1
    np.testing.assert_array_equal(show(np.full((2, 4, 4, 3), -7.5)), -7.5)


def test_grey_pictures_have_light_and_concentration_only():
    draw = [
        _laboratory.draw(1.0, 3, (8, 8, channels), np.random.RandomState(0)) for channels in (1, 3)
    ]
    assert draw[0].mixing.shape == (3, 1, 1)
    np.testing.assert_array_equal(draw[0].quality, draw[1].quality)
    images = spotted(50, [200], [100])
    out = show(images)
    assert out.shape == images.shape
    assert (out[:, 8, 8] < out[:, 0, 0]).all()
    assert len(np.unique(out[:, 0, 0])) > 20

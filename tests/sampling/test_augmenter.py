"""Augmenter: what copies look like, how many there are, and what they came from."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wbcclf import Augmenter, make_blood_cells
from wbcclf.sampling import _changes

QUICK = settings(max_examples=40, deadline=None)
STILL = {
    **dict.fromkeys(
        ["rotation", "shear", "shift", "zoom", "brightness", "contrast", "saturation", "hue"], 0
    ),
    "horizontal_flip": False,
    "vertical_flip": False,
}
DTYPES = {
    "uint8": (np.uint8, 255),
    "float32 0-1": (np.float32, 1),
    "float32 0-255": (np.float32, 255),
    "float64 0-1": (np.float64, 1),
    "float64 0-255": (np.float64, 255),
}


class Extreme(np.random.RandomState):
    """Draws the end of every range (part 1, or 0 for its start), so that a change is known."""

    def __init__(self, part):
        super().__init__(0)
        self.part = part

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.full(size, low + self.part * (high - low))


def change(images, part=1, **params):
    """Apply exactly the change at the end (or start) of the given ranges and nothing else."""
    return Augmenter(**{**STILL, **params}).augment(images, Extreme(part))


def noise(n, shape=(6, 5, 3), kind="uint8", seed=0):
    dtype, high = DTYPES[kind]
    values = np.random.RandomState(seed).uniform(0, high, (n, *shape))
    return (np.rint(values) if kind == "uint8" else values).astype(dtype)


def labels(n):
    return np.arange(n) % 2


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(12, classes=3, image_size=(32, 40), random_state=0)


# ------------------------------------------------------------------ any parameters

fractions = st.floats(0, 1)
parameters = st.fixed_dictionaries(
    {
        "rotation": st.floats(0, 360),
        "shear": st.floats(0, 80),
        "shift": fractions,
        "zoom": st.floats(0, 0.9),
        "horizontal_flip": st.booleans(),
        "vertical_flip": st.booleans(),
        "brightness": fractions,
        "contrast": fractions,
        "saturation": fractions,
        "hue": st.floats(0, 0.5),
        "stain": fractions,
        "laboratory": fractions,
        "fill": st.sampled_from(["reflect", "nearest", "constant"]),
        "n_copies": st.integers(0, 3),
        "random_state": st.integers(0, 99),
    }
)
batches = st.builds(
    noise,
    st.integers(2, 9),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3])),
    st.sampled_from(sorted(DTYPES)),
    st.integers(0, 99),
)


@QUICK
@given(batches, parameters)
def test_copies_come_after_the_untouched_originals(images, params):
    before, target, n = images.copy(), labels(len(images)), len(images)
    aug = Augmenter(**params)
    out, out_target = aug.fit_resample(images, target)
    assert out.shape == (n * (1 + params["n_copies"]), *images.shape[1:])
    assert out.dtype == images.dtype
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(np.asarray(out[:n]), images)
    np.testing.assert_array_equal(out_target, target[aug.sample_indices_])
    np.testing.assert_array_equal(aug.sample_indices_[:n], np.arange(n))
    assert (np.bincount(aug.sample_indices_) == 1 + params["n_copies"]).all()
    # In range: the next step would take 1.0000001 for another scale. Bytes cannot leave theirs.
    high = 1 if images.max() <= 1 else 255
    assert np.asarray(out).min() >= 0
    assert np.asarray(out).max() <= high


@QUICK
@given(batches, parameters)
def test_rows_and_repetition_give_the_same_values_as_images(images, params):
    target = labels(len(images))
    first = np.asarray(Augmenter(**params).fit_resample(images, target)[0])
    again = Augmenter(**params).fit_resample(images, target)[0]
    np.testing.assert_array_equal(first, np.asarray(again))
    rows = images.reshape(len(images), -1)
    by_rows = Augmenter(**params, image_shape=images.shape[1:]).fit_resample(rows, target)[0]
    np.testing.assert_array_equal(np.asarray(by_rows), first.reshape(len(first), -1))


@QUICK
@given(batches, parameters)
def test_augment_gives_one_changed_version_of_every_image(images, params):
    before = images.copy()
    out = Augmenter(**params).augment(images, 0)
    assert type(out) is np.ndarray
    assert (out.shape, out.dtype) == (images.shape, images.dtype)
    np.testing.assert_array_equal(images, before)
    one = Augmenter(**params).augment(images[:1], 0)
    assert one.shape == images[:1].shape


@pytest.mark.parametrize(("n_threads", "block"), [(2, 32), (5, 7), (64, 1)])
def test_neither_threads_nor_blocks_change_anything(n_threads, block, monkeypatch):
    images, target = noise(40), labels(40)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 1)
    one = Augmenter(stain=0.1, laboratory=1, n_copies=3, random_state=0).fit_resample(
        images, target
    )[0]
    monkeypatch.setattr(joblib, "cpu_count", lambda: n_threads)
    monkeypatch.setattr(_changes, "_BLOCK", block)
    many = Augmenter(stain=0.1, laboratory=1, n_copies=3, random_state=0).fit_resample(
        images, target
    )[0]
    np.testing.assert_array_equal(np.asarray(one), np.asarray(many))


@pytest.mark.parametrize(
    "params",
    [
        *({name: 0.1} for name in ("shift", "zoom", "brightness", "saturation", "hue", "stain")),
        {"contrast": 0.2},
        {"rotation": 20},
        {"shear": 20},
    ],
    ids=repr,
)
def test_every_image_draws_its_own_parameters(params, cells):
    images = np.repeat(cells.images[:1], 8, axis=0)
    out = Augmenter(**{**STILL, **params}).augment(images, 0)
    # Eight draws from more than 20 visibly different versions are hardly all of one kind.
    assert len(np.unique(out.reshape(8, -1), axis=0)) >= 6
    assert (out != images).any(axis=(1, 2, 3)).sum() >= 6


def test_another_seed_gives_other_copies(cells):
    one, two = (Augmenter().augment(cells.images, seed) for seed in (0, 1))
    assert (one != two).any(axis=(1, 2, 3)).all()


# ------------------------------------------------------------------ geometry

SHAPES = [(5, 7, 3), (8, 8, 1), (1, 9, 3), (33, 18, 3)]


@pytest.mark.parametrize("kind", sorted(DTYPES))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_without_any_range_the_very_same_pixels_come_back(kind, shape):
    images = noise(4, shape, kind)
    np.testing.assert_array_equal(Augmenter(**STILL).augment(images, 0), images)


@pytest.mark.parametrize("kind", sorted(DTYPES))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mirroring_moves_pixels_and_changes_none(kind, shape):
    images = noise(64, shape, kind)
    out = Augmenter(**{**STILL, "horizontal_flip": True}).augment(images, 0)
    mirrored = (out == images[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (out == images).all(axis=(1, 2, 3))
    assert (mirrored | kept).all()
    # Binomial(64, 1/2): outside 12-52 with probability < 1e-6.
    assert 12 <= mirrored.sum() <= 52
    upside = Augmenter(**{**STILL, "vertical_flip": True}).augment(images, 0)
    kept = (upside == images).all(axis=(1, 2, 3))
    assert ((upside == images[:, ::-1]).all(axis=(1, 2, 3)) | kept).all()


@pytest.mark.parametrize(("part", "quarters"), [(1, -1), (0, 1)])
@pytest.mark.parametrize("kind", ["uint8", "float64 0-255"])
def test_a_quarter_turn_is_numpys(part, quarters, kind):
    images = noise(3, (9, 9, 3), kind)
    out = change(images, part, rotation=90)
    # cos(90 degrees) is 6e-17, not 0: positions are float32, and a neighbour may be mixed in.
    wanted = np.rot90(images, quarters, axes=(1, 2)).astype(float)
    np.testing.assert_allclose(out, wanted, atol=255 / 1024)


def test_rotation_keeps_the_centre_of_a_disc():
    disc = np.zeros((1, 41, 61, 1))
    cv2.circle(disc[0], (30, 20), 12, 255.0, -1)
    turn = Augmenter(**{**STILL, "rotation": 180, "fill": "constant"})
    out = turn.augment(np.repeat(disc, 40, axis=0), 0)[..., 0]
    weights = out / out.sum(axis=(1, 2), keepdims=True)
    # Bilinear resampling keeps centroids; OpenCV may round positions to 1/32 pixel.
    np.testing.assert_allclose((weights * np.arange(61)).sum(axis=(1, 2)), 30, atol=1 / 16)
    np.testing.assert_allclose((weights * np.arange(41)[:, None]).sum(axis=(1, 2)), 20, atol=1 / 16)
    np.testing.assert_allclose(out.sum(axis=(1, 2)), disc.sum(), rtol=0.01)


@pytest.fixture(scope="module")
def square():
    images = np.zeros((400, 61, 81, 1))
    images[:, 20:41, 30:51] = 255
    return images


def boxes(images):
    """Return centre (x, y) and sides (x, y) of what is white, from half-bright edge to edge."""
    rows, columns = images[..., 0].max(axis=2), images[..., 0].max(axis=1)
    sides = np.stack([columns.sum(axis=1), rows.sum(axis=1)], axis=1) / 255
    centres = [(part * np.arange(part.shape[1])).sum(axis=1) for part in (columns, rows)]
    return np.stack(centres, axis=1) / 255 / sides, sides


def test_shift_goes_up_to_the_fraction_of_width_and_height(square):
    out = Augmenter(**{**STILL, "shift": 0.2, "fill": "constant"}).augment(square, 0)
    centres, sides = boxes(out)
    moved = (centres - (40, 30)) / (81, 61)
    # A sixteenth of a pixel for rounded positions. The largest of 400 uniform draws, either way,
    # is within 5% of the end but for a probability of (1 - 0.025)**400 < 1e-4 (and the seed is 0).
    assert np.abs(moved).max() <= 0.2 + 1 / 16 / 61
    assert (moved.max(axis=0) > 0.19).all()
    assert (moved.min(axis=0) < -0.19).all()
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2  # the axes are independent: 4 sigma
    np.testing.assert_allclose(sides, 21, atol=0.1)


def test_zoom_scales_by_up_to_the_fraction_about_the_centre(square):
    out = Augmenter(**{**STILL, "zoom": 0.3}).augment(square, 0)
    centres, sides = boxes(out)
    scale = sides / 21
    np.testing.assert_allclose(centres, np.tile((40, 30), (400, 1)), atol=0.1)
    # A blurred edge of one pixel on either side hides at most half a pixel of 21.
    assert np.abs(scale - 1).max() <= 0.3 + 0.5 / 21
    assert scale.max() > 1.27
    assert scale.min() < 0.73
    assert np.abs(scale[:, 0] - scale[:, 1]).max() <= 1 / 21  # one scale for both axes


def test_shear_leans_upright_lines_by_the_angle():
    line = np.zeros((1, 41, 81, 1))
    line[:, :, 40] = 255
    out = change(line, shear=30, fill="constant")[0, ..., 0]
    x = (out * np.arange(81)).sum(axis=1) / out.sum(axis=1)
    # The far ends of the line may be cut; positions may be rounded to 1/32 pixel.
    np.testing.assert_allclose(np.diff(x[5:36]).mean(), np.tan(np.deg2rad(30)), atol=0.01)
    np.testing.assert_allclose(x[20], 40, atol=1 / 16)


PADDING = {"reflect": "reflect", "nearest": "edge", "constant": "constant"}


@pytest.mark.parametrize("fill", PADDING)
@pytest.mark.parametrize("kind", ["uint8", "float32 0-1", "float64 0-255"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("part", [0, 1])
def test_fill_says_what_comes_in_from_outside(fill, kind, channels, part):
    images = noise(3, (4, 8, channels), kind)
    out = change(images, part, shift=0.25, fill=fill)  # by whole pixels: 1 down and 2 right
    padded = np.pad(images, ((0, 0), (1, 1), (2, 2), (0, 0)), mode=PADDING[fill])
    wanted = padded[:, :4, :8] if part else padded[:, 2:, 4:]
    np.testing.assert_array_equal(out, wanted)


def test_fill_matters_at_the_border_only():
    images = noise(3, (20, 20, 3))
    inside = (slice(None), slice(5, -5), slice(5, -5))
    outs = [change(images, shift=0.15, fill=fill) for fill in PADDING]
    for one, other in [(0, 1), (1, 2), (0, 2)]:
        assert (outs[one] != outs[other]).any()
        np.testing.assert_array_equal(outs[one][inside], outs[other][inside])


# ------------------------------------------------------------------ colour

LUMA = np.array([0.299, 0.587, 0.114])


def moderate(n=6, channels=3):
    """Colours that no change below drives out of range."""
    return np.random.RandomState(0).uniform(90, 150, (n, 6, 5, channels))


def test_brightness_multiplies():
    images = moderate()
    np.testing.assert_allclose(change(images, 1, brightness=0.2), images * 1.2)
    np.testing.assert_allclose(change(images, 0, brightness=0.2), images * 0.8)


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_stretches_about_the_images_own_mean_grey(channels):
    images = moderate(channels=channels)
    weights = LUMA if channels == 3 else np.ones(1)
    grey = (images @ weights).mean(axis=(1, 2))[:, None, None, None]
    np.testing.assert_allclose(change(images, 1, contrast=0.2), grey + 1.2 * (images - grey))
    both = change(images, 1, contrast=0.2, brightness=0.1)
    np.testing.assert_allclose(both, 1.1 * (grey + 1.2 * (images - grey)))


def test_saturation_stretches_about_each_pixels_own_grey():
    images = moderate()
    grey = (images @ LUMA)[..., None]
    # YIQ's published coefficients have four digits: 60 grey levels of chroma times 1e-4.
    out = change(images, 1, saturation=0.3)
    np.testing.assert_allclose(out, grey + 1.3 * (images - grey), atol=0.01)


def test_hue_turned_by_a_third_three_times_is_where_it_was():
    images = moderate()
    out = images
    for _ in range(3):
        out = change(out, 1, hue=1 / 3)
    np.testing.assert_allclose(out, images, rtol=1e-9)
    assert np.abs(change(images, 1, hue=1 / 3) - images).max() > 20


@pytest.mark.parametrize("params", [{"hue": 0.5}, {"saturation": 0.5}], ids=repr)
def test_hue_and_saturation_keep_luma_and_greys(params):
    images = moderate()
    images[:, 0] = images[:, 0, :, :1]  # a grey line
    out = Augmenter(**{**STILL, **params}).augment(images, 0)
    np.testing.assert_allclose(out @ LUMA, images @ LUMA, rtol=1e-9)
    np.testing.assert_allclose(out[:, 0], images[:, 0], rtol=1e-9)
    rounded = Augmenter(**{**STILL, **params}).augment(images.astype(np.uint8), 0)
    # Every channel is rounded by half a level, and so are its three coefficients, to 1/1024.
    slack = 0.5 + 3 * 255 / 2048
    assert np.abs(rounded @ LUMA - images.astype(np.uint8) @ LUMA).max() <= slack


def test_grey_images_have_no_hue_saturation_or_stain():
    images = noise(6, (6, 5, 1))
    params = {**STILL, "hue": 0.5, "saturation": 1, "stain": 0.5}
    np.testing.assert_array_equal(Augmenter(**params).augment(images, 0), images)


# As published: optical densities of methylene blue and eosin; at right angles, what is neither.
DYES = np.array([[0.834750233, 0.513556283, 0.196330403], [0.092789, 0.954111, 0.283111]])
DYES = np.array([dye / np.linalg.norm(dye) for dye in [*DYES, np.cross(*DYES)]])


def concentrations(images):
    return -np.log((images + 1) / 256) @ np.linalg.inv(DYES)  # black lets one level through


@pytest.mark.parametrize(("part", "sign"), [(1, 1), (0, -1)])
def test_stain_scales_and_shifts_concentrations(part, sign):
    images = moderate()
    density = (concentrations(images) * (1 + 0.2 * sign) + 0.2 * sign) @ DYES
    wanted = (256 * np.exp(-density) - 1).clip(0, 255)
    np.testing.assert_allclose(change(images, part, stain=0.2), wanted, atol=1e-3)
    small = images / 255  # of another range
    np.testing.assert_allclose(change(small, part, stain=0.2), wanted / 255, atol=1e-5)


def test_every_dye_has_a_scale_and_a_shift_of_its_own():
    images = np.tile(np.array([[[130.0, 100, 120], [60, 90, 40]]]), (400, 1, 1, 1))
    out = Augmenter(**{**STILL, "stain": 0.2}).augment(images, 0)
    (one, two), (new_one, new_two) = (
        np.moveaxis(concentrations(x)[:, 0], 1, 0) for x in (images, out)
    )
    scale = (new_one - new_two) / (one - two)
    drawn = np.hstack([scale - 1, new_one - scale * one])
    assert np.abs(drawn).max() <= 0.2 + 1e-3
    assert (np.ptp(drawn, axis=0) > 0.38).all()  # see test_shift_goes_up_to_the_fraction
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.2  # 4 sigma


def test_stain_jitter_keeps_white_nearly_white_and_changes_cells(cells):
    white = np.full((50, 4, 4, 3), 255, np.uint8)
    out = Augmenter(**{**STILL, "stain": 0.05}).augment(white, 0)
    # White holds no dye: only the offsets count. Up to 0.05 of each of three unit vectors adds at
    # most 0.05 * sqrt(3) of optical density to a channel, if all three point at it.
    assert out.min() >= 256 * np.exp(-0.05 * np.sqrt(3)) - 1.5
    assert out.min() < 250
    jittered = Augmenter(**{**STILL, "stain": 0.05}).augment(cells.images, 0).astype(int)
    difference = np.abs(jittered - cells.images).mean(axis=(1, 2, 3))
    assert (difference > 0.5).all()
    assert (difference < 25).all()


def test_opencvs_threads_are_as_they_were():
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        images = noise(70, (9, 9, 3)).astype(np.uint8)
        expected = Augmenter().augment(images, 0)
        with ThreadPoolExecutor(4) as pool:  # several at once
            outputs = list(pool.map(lambda _: Augmenter().augment(images, 0), range(12)))
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)
    for out in outputs:
        np.testing.assert_array_equal(out, expected)

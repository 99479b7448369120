"""Histories and pictures, as a notebook draws them."""

import io
import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from wbcclf import Augmenter, CellCropper, EarlyStopping, SimpleCNNClassifier, load_image_folder
from wbcclf._history import best_epoch
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection import plot_augmented, plot_cells, plot_history


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def stopped(cells):
    return SimpleCNNClassifier(
        max_epochs=6, early_stopping=True, lr=0.01, device="cpu", random_state=0
    ).fit(cells.images, cells.target)


def lines_of(ax):
    """Return the lines of a history by label, from both axes."""
    return {line.get_label(): line for each in ax.figure.axes for line in each.lines}


def test_a_history_has_all_curves_and_the_epoch_that_was_kept(stopped):
    kept = dict(stopped.net_.callbacks_)["early_stopping"].best_epoch_
    ax = plot_history(stopped)
    lines = lines_of(ax)
    mark = lines.pop(f"kept: epoch {kept}")
    assert list(mark.get_xdata()) == [kept, kept]
    for label, name in (
        ("training loss", "train_loss"),
        ("validation loss", "valid_loss"),
        ("validation accuracy", "valid_acc"),
        ("gain", "gain"),
    ):
        line = lines.pop(label)
        assert list(line.get_xdata()) == list(range(1, stopped.n_iter_ + 1))
        assert list(line.get_ydata()) == [epoch[name] for epoch in stopped.history_]
    assert lines == {}
    assert plt.fignum_exists(ax.figure.number)


def test_curves_are_told_apart_without_colour(stopped):
    lines = lines_of(plot_history(stopped)).values()
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 5


@pytest.mark.parametrize("monitor", ["valid_loss", "valid_acc"])
@pytest.mark.parametrize("min_delta", [0, 0.05])
def test_the_epoch_is_the_one_that_early_stopping_keeps(monitor, min_delta, cells):
    stopping = EarlyStopping(patience=2, monitor=monitor, min_delta=min_delta)
    clf = SimpleCNNClassifier(
        max_epochs=12, early_stopping=stopping, lr=0.02, device="cpu", random_state=1
    ).fit(cells.images, cells.target)
    kept = dict(clf.net_.callbacks_)["early_stopping"].best_epoch_
    assert best_epoch(clf.history_, monitor, min_delta) == kept


def test_equal_values_are_no_improvement():
    history = [{"epoch": n, "valid_acc": acc} for n, acc in enumerate([0.5, 0.7, 0.7, 0.6], 1)]
    assert best_epoch(history, "valid_acc", 0) == 2
    assert best_epoch(history, "valid_acc", 0.3) == 1
    assert best_epoch(history, "valid_loss", 0) is None


def test_no_epoch_is_marked_where_none_was_chosen(cells, clf, stopped):
    ax = plot_history(clf.set_params(max_epochs=2).fit(cells.images, cells.target))
    assert {*lines_of(ax)} == {"training loss", "gain"}
    warm = SimpleCNNClassifier(
        max_epochs=1, early_stopping=True, warm_start=True, device="cpu", random_state=0
    )
    for _ in range(2):
        warm.fit(cells.images, cells.target)
    assert not any("kept" in label for label in lines_of(plot_history(warm)))


@pytest.mark.parametrize(
    "wrap", [make_pipeline, lambda clf: GridSearchCV(make_pipeline(clf), {}, cv=2)]
)
def test_a_pipeline_or_a_search_ends_in_one(wrap, cells):
    clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    ax = Figure().add_subplot()
    assert plot_history(wrap(clf).fit(cells.images, cells.target), ax=ax) is ax
    assert "training loss" in lines_of(ax)
    assert not plt.get_fignums()


def test_what_has_no_history_is_refused(stopped):
    with pytest.raises(NotFittedError):
        plot_history(SimpleCNNClassifier())
    with pytest.raises(TypeError, match=r"ends in LogisticRegression\."):
        plot_history(LogisticRegression().fit([[0], [1]], [0, 1]))
    with pytest.raises(TypeError, match="ax must be matplotlib axes"):
        plot_history(stopped, ax="a.png")
    stopped = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(np.zeros((4, 48)), [0, 0, 1, 1])
    stopped.history_ = []
    with pytest.raises(ValueError, match="model has no history"):
        plot_history(stopped)


def titles(axes):
    return [ax.get_title() for ax in axes.flat]


def has_frame(ax):
    return all(side.get_visible() and side.get_linewidth() > 2 for side in ax.spines.values())


def test_cells_have_their_labels_and_wrong_ones_a_frame_and_both_in_bold(cells):
    images, target = cells.images[:5], cells.target[:5]
    predicted = target.copy()
    predicted[3] = "$x_1^"  # no formula
    axes = plot_cells(images, target, predicted, n_columns=3)
    assert axes.shape == (2, 3)
    assert titles(axes) == [*target[:3], f"predicted: $x_1^\ntrue: {target[3]}", target[4], ""]
    assert [has_frame(ax) for ax in axes.flat] == [False, False, False, True, False, False]
    weights = [ax.title.get_fontweight() for ax in axes.flat]
    assert [weight == "bold" for weight in weights] == [has_frame(ax) for ax in axes.flat]
    for ax, image in zip(axes.flat, images, strict=False):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert not axes[1, 2].images
    axes[0, 0].figure.savefig(io.BytesIO())  # the formula is not read when drawn


def luminance(colour):
    red, green, blue = to_rgb(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_frame_is_seen_in_grey(cells):
    axes = plot_cells(cells.images[:1], ["a"], ["b"])
    colour = axes[0, 0].spines["left"].get_edgecolor()
    assert luminance(colour) < 0.5 * luminance("white")


def test_one_kind_of_labels_or_none(cells):
    assert titles(plot_cells(cells.images[:2], target=[3, 4], n_columns=2)) == ["3", "4"]
    axes = plot_cells(cells.images[:2], predicted=["a", "b"], n_columns=2)
    assert titles(axes) == ["a", "b"] and not any(map(has_frame, axes.flat))
    assert titles(plot_cells(cells.images[:2], n_columns=2)) == ["", ""]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("dtype", "scale", "top"),
    [(np.uint8, 1, 255), (np.int64, 1, 1), (np.float32, 1, 1), (np.float64, 1 / 255, 1)],
)
def test_pixels_look_the_same_on_every_scale(channels, dtype, scale, top, cells):
    images = cells.images[:2, ..., :channels]
    axes = plot_cells((images * scale).astype(dtype), n_columns=2)
    for ax, image in zip(axes.flat, images, strict=True):
        [drawn] = ax.images
        expected = image[..., 0] if channels == 1 else image
        np.testing.assert_allclose(drawn.get_array() / top * 255, expected, atol=1e-4)
        if channels == 1:
            assert drawn.get_clim() == (0, top) and drawn.get_cmap().name == "gray"


def test_floats_on_a_scale_of_their_own_are_stretched(cells):
    images = cells.images[:2] / 50.0 - 1
    axes = plot_cells(images, n_columns=2)
    drawn = np.stack([ax.images[0].get_array() for ax in axes.flat])
    assert (drawn.min(), drawn.max()) == (0, 1)
    plot_cells(np.full((1, 4, 4, 3), 300.0))


def test_images_of_many_sizes_and_files(cells, tmp_path):
    images = [cells.images[0], cells.images[1][:9], cells.images[2][:, :5]]
    axes = plot_cells(images, n_columns=3)
    assert [ax.images[0].get_array().shape for ax in axes.flat] == [image.shape for image in images]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    axes = plot_cells(paths, n_columns=3)
    for ax, image in zip(axes.flat, images, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    paths[1].write_bytes(b"no picture")
    with pytest.raises(ImageReadError, match=re.escape(f"{paths[1]} cannot be read")):
        plot_cells(paths)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"images": np.empty((0, 4, 4, 3), np.uint8)}, ValueError, "images is empty"),
        ({"images": []}, ValueError, "images is empty"),
        ({"images": np.zeros((401, 2, 2, 3))}, ValueError, r"at most 400 .* images\[:400\]"),
        ({"images": ["a.png"] * 401}, ValueError, "at most 400"),
        ({"images": np.zeros((2, 4, 4, 2))}, ValueError, "images"),
        ({"images": 3}, TypeError, "images must be"),
        ({"n_columns": 0}, ValueError, "n_columns must be a whole number from 1 to 400, got 0"),
        ({"n_columns": 2.0}, ValueError, r"got 2\.0"),
        ({"target": ["a"]}, ValueError, "target holds 1 labels, images 2 images"),
        ({"predicted": ["a"] * 3}, ValueError, "predicted holds 3 labels"),
        ({"target": ["a", None]}, ValueError, r"target\[1\] is None"),
        ({"target": ["a", "b"], "predicted": [1, 2]}, ValueError, "text and numbers"),
        ({"target": ["a", "b"], "predicted": ["A", "b"]}, ValueError, "Spell each class"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_figure_is_made(change, error, match, cells):
    with pytest.raises(error, match=match):
        plot_cells(**({"images": cells.images[:2]} | change))
    assert not plt.get_fignums()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_copies_are_those_of_the_augmenter(channels, dtype, cells):
    image = cells.images[0, ..., :channels].astype(dtype)
    augmenter = Augmenter(rotation="quarter", random_state=5)
    axes = plot_augmented(augmenter, image, n_copies=7, random_state=3)
    assert axes.shape == (2, 6)
    assert titles(axes) == ["original", *(f"copy {n}" for n in range(1, 8)), *[""] * 4]
    copies = augmenter.augment(np.stack([image] * 7), random_state=3)
    top = 255 if dtype is np.uint8 else 1
    for ax, expected in zip(axes.flat, [image, *copies], strict=False):
        drawn = ax.images[0].get_array() / top * 255
        np.testing.assert_allclose(drawn, np.squeeze(expected), atol=1e-3)
    again = plot_augmented(augmenter, image, n_copies=7, random_state=3)
    for one, other in zip(axes.flat[:8], again.flat, strict=False):
        assert (one.images[0].get_array() == other.images[0].get_array()).all()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (
            {"augmenter": make_pipeline(CellCropper())},
            TypeError,
            r"got Pipeline.*pipeline\['aug'\]",
        ),
        ({"augmenter": Augmenter(zoom=3)}, ValueError, "zoom"),
        ({"image": np.zeros((2, 4, 4, 3))}, ValueError, r"one image .*\(2, 4, 4, 3\)"),
        ({"image": np.zeros((4, 4, 2))}, ValueError, "image"),
        ({"n_copies": 0}, ValueError, "n_copies must be a whole number from 1 to 399"),
        ({"n_copies": 400}, ValueError, "got 400"),
    ],
)
def test_what_is_no_image_or_augmenter_is_refused(change, error, match, cells):
    with pytest.raises(error, match=match):
        plot_augmented(**({"augmenter": Augmenter(), "image": cells.images[0]} | change))
    assert not plt.get_fignums()


def test_real_cells(wbcclf_data):
    listing = load_image_folder(wbcclf_data / "raabin", image_size=64)
    rows = np.arange(0, len(listing.target), len(listing.target) // 10)[:10]
    axes = plot_cells(listing.images[rows], listing.target[rows], listing.target[rows[::-1]])
    n_wrong = np.count_nonzero(listing.target[rows] != listing.target[rows[::-1]])
    assert sum(map(has_frame, axes.flat)) == n_wrong > 0
    plot_augmented(Augmenter(laboratory=1), listing.images[0])


@pytest.mark.parametrize("draw", [plot_cells, plot_history, plot_augmented])
def test_without_matplotlib_the_error_says_how_to_install_it(draw, stopped, cells, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    given = {
        plot_cells: (cells.images[:1],),
        plot_history: (stopped,),
        plot_augmented: (Augmenter(), cells.images[0]),
    }
    with pytest.raises(ImportError, match=r"pip install 'wbcclf\[plot\]'"):
        draw(*given[draw])

"""Pictures side by side."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from wbcclf._images import check_images, value_range
from wbcclf._labels import check_labels, check_same_classes
from wbcclf.datasets._decode import read_image
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._drawing import check_axes
from wbcclf.sampling import Augmenter

MOST = 400  # pictures: more of them take matplotlib minutes, and nobody sees any
WRONG = {"color": "#d55e00", "linewidth": 4}  # the frame; Okabe and Ito's vermilion


def plot_cells(
    images: Any, target: Any = None, predicted: Any = None, *, n_columns: int = 6
) -> np.ndarray:
    """Draw pictures in a grid, with their labels.

    Parameters
    ----------
    images : image batch, list of images, or array-like of paths, of length n_samples
        At most 400. An image batch (n_samples, height, width, 1 or 3) may be of any dtype. Images
        of a list may differ in size and are uint8. Paths are those of image files.
    target : array-like of shape (n_samples,) or None, default=None
        True labels: text, or whole numbers.
    predicted : array-like of shape (n_samples,) or None, default=None
        Predicted labels. Where one is not the true label, the picture has a thick frame, and both
        labels are above it, in bold.
    n_columns : int, default=6
        Pictures in a row, >= 1.

    Returns
    -------
    ndarray of matplotlib Axes, shape (n_rows, n_columns)
        Of a new pyplot figure, row by row; those after the last picture are empty.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    ImageReadError
        If a file cannot be read; the message names it.
    TypeError
        If `images` holds neither images nor paths, or if labels are not array-like.
    ValueError
        If there are no images or more than 400, if `n_columns` is out of range, or if `target` or
        `predicted` has another length or holds anything but labels of one kind.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf import make_blood_cells
    >>> from wbcclf.inspection import plot_cells
    >>> cells = make_blood_cells(3, classes=2, image_size=32, random_state=0)
    >>> cells.target.tolist()
    ['lymphocyte', 'neutrophil', 'neutrophil']
    >>> axes = plot_cells(cells.images, cells.target, ["neutrophil"] * 3, n_columns=3)
    >>> axes.shape
    (1, 3)
    >>> print(axes[0, 0].get_title())
    predicted: neutrophil
    true: lymphocyte
    >>> plt.close(axes[0, 0].figure)
    """
    check_axes(None)
    pictures = _read(images)
    true, called = (
        None if given is None else _labels(given, name, len(pictures))
        for given, name in ((target, "target"), (predicted, "predicted"))
    )
    known = true if true is not None else called
    titles = [""] * len(pictures) if known is None else [str(label) for label in known]
    wrong = np.array([], dtype=np.intp)
    if true is not None and called is not None:
        check_same_classes(true, called, ("target", "predicted"))
        wrong = np.flatnonzero(true != called)
        for row in wrong:
            titles[row] = f"predicted: {called[row]}\ntrue: {true[row]}"
    axes = _grid(pictures, titles, n_columns)
    for ax in axes.flat[wrong]:
        ax.title.set_fontweight("bold")
        for side in ax.spines.values():
            side.set(visible=True, **WRONG)
    return axes


def plot_augmented(
    augmenter: Augmenter, image: Any, *, n_copies: int = 11, random_state: Any = 0
) -> np.ndarray:
    """Draw an image, and copies of it that an augmenter has changed.

    Parameters
    ----------
    augmenter : Augmenter
        Need not be fitted. Its own `random_state` has no effect.
    image : array-like of shape (height, width, 1 or 3)
    n_copies : int, default=11
        1 to 399.
    random_state : int, RandomState or None, default=0
        Source of the random changes.

    Returns
    -------
    ndarray of matplotlib Axes, shape (n_rows, n_columns)
        Of a new pyplot figure, row by row: the image, its copies, and empty ones.

    Raises
    ------
    ImportError
        If matplotlib is not installed; the message says how to install it.
    TypeError
        If `augmenter` is not an :class:`Augmenter`.
    ValueError
        If `image` is not one image, if `n_copies` is out of range, or a parameter of `augmenter`
        is.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from wbcclf import Augmenter, make_blood_cells
    >>> from wbcclf.inspection import plot_augmented
    >>> image = make_blood_cells(5, image_size=32, random_state=0).images[0]
    >>> axes = plot_augmented(Augmenter(rotation="quarter"), image, n_copies=5)
    >>> [ax.get_title() for ax in axes.flat]
    ['original', 'copy 1', 'copy 2', 'copy 3', 'copy 4', 'copy 5']
    >>> plt.close(axes[0, 0].figure)
    """
    check_axes(None)
    if not isinstance(augmenter, Augmenter):
        raise TypeError(
            f"augmenter must be an Augmenter, got {type(augmenter).__name__}. From a pipeline, "
            "give the step, such as pipeline['aug']."
        )
    _check_number(n_copies, "n_copies", MOST - 1)
    if np.ndim(image) != 3:
        raise ValueError(
            "image must be one image (height, width, 1 or 3), got an array of shape "
            f"{np.shape(image)}."
        )
    original = check_images(np.asarray(image)[None], "image")
    copies = augmenter.augment(np.repeat(original, n_copies, axis=0), random_state)
    titles = ["original", *(f"copy {number + 1}" for number in range(n_copies))]
    return _grid(_scaled(np.concatenate([original, copies])), titles, 6)


def _read(images: Any) -> list[np.ndarray]:
    """Return the pictures as matplotlib draws them: of uint8, or from 0 to 1."""
    if hasattr(images, "dtype") and images.ndim == 4 and images.dtype != np.uint8:
        _check_length(len(images))
        return _scaled(check_images(images, "images"))
    paths, arrays = check_paths_or_images(images, "images")
    _check_length(len(paths or arrays or []))
    if arrays is not None:
        return arrays
    pictures = []
    for path in paths or []:
        try:
            pictures.append(read_image(path)[0])
        except ImageReadError as error:
            raise ImageReadError(f"{path} cannot be read ({error}).") from error
    return pictures


def _scaled(images: np.ndarray) -> list[np.ndarray]:
    if images.dtype == np.uint8:
        return list(images)
    low, high = value_range(images)
    return list((images - low) / ((high - low) or 1))


def _check_length(n_images: int) -> None:
    if not n_images:
        raise ValueError("images is empty: there is nothing to draw.")
    if n_images > MOST:
        raise ValueError(
            f"images holds {n_images} images, but at most {MOST} can be drawn: give some of them, "
            f"such as images[:{MOST}]."
        )


def _check_number(value: Any, name: str, most: int) -> None:
    if not (isinstance(value, Integral) and 1 <= int(value) <= most):
        raise ValueError(f"{name} must be a whole number from 1 to {most}, got {value!r}.")


def _labels(given: Any, name: str, n_images: int) -> np.ndarray:
    labels = check_labels(given, name)
    if len(labels) != n_images:
        raise ValueError(
            f"{name} holds {len(labels)} labels, images {n_images} images: give one for each."
        )
    return labels


def _grid(pictures: list[np.ndarray], titles: list[str], n_columns: int) -> np.ndarray:
    """Draw pictures row by row, on a pyplot figure with room for their titles."""
    _check_number(n_columns, "n_columns", MOST)
    import matplotlib.pyplot as plt

    lines = [line for title in titles for line in title.split("\n")]
    width = max(1.3, 0.085 * max(map(len, lines)))  # inches, of a letter in bold
    height = width + 0.2 * max(title.count("\n") + 1 for title in titles)
    n_rows = -(-len(pictures) // n_columns)
    _, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(n_columns * width, n_rows * height),
        layout="constrained",
        squeeze=False,
    )
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for ax, picture, title in zip(axes.flat, pictures, titles, strict=False):
        is_grey = picture.shape[2] == 1
        top = 255 if picture.dtype == np.uint8 else 1
        ax.imshow(picture[..., 0] if is_grey else picture, cmap="gray", vmin=0, vmax=top)
        ax.set_title(title, fontsize=8, parse_math=False)
    return axes

"""Predictions for files: chunk by chunk, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets import ImageLoader
from wbcclf.exceptions import ImageReadError


def predict_files(model: Any, paths: Sequence[str], *, chunk_size: int = 256) -> Iterator[Bunch]:
    """Predict the classes of image files, in the order of the files.

    Parameters
    ----------
    model : CNNClassifier or Pipeline
        Fitted. Without an :class:`ImageLoader` of its own it gets one that stretches the images to
        the size it was trained on.
    paths : sequence of str
    chunk_size : int, default=256
        Files in memory at a time.

    Yields
    ------
    Bunch
        For every chunk, with the attributes

        paths : list of str
            The files that could be read.
        labels : ndarray of shape (n_read,)
        probabilities : ndarray of shape (n_read, n_classes), float32
        skipped : list of (path, reason)
            The files that could not.

    Examples
    --------
    >>> import tempfile, os
    >>> from PIL import Image
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import predict_files
    >>> cells = make_blood_cells(40, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu").fit(cells.images, cells.target)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "cell.png")
    ...     Image.fromarray(cells.images[0]).save(path)
    ...     chunks = list(predict_files(clf, [path]))
    >>> chunks[0].probabilities.shape
    (1, 2)
    """
    steps = model.steps if isinstance(model, Pipeline) else [("classifier", model)]
    classifier: CNNClassifier = steps[-1][1]
    if classifier.image_shape_[2] != 3:
        raise ValueError(
            "The model was trained on grey images, but files are read as RGB. Train it on RGB "
            "images (np.repeat(images, 3, axis=-1)), or predict arrays with model.predict."
        )
    loader, rest = steps[0][1], model
    if isinstance(loader, ImageLoader):
        rest = model[1:]
    else:
        loader = ImageLoader(image_size=classifier.image_shape_[:2])
    for start in range(0, len(paths), chunk_size):
        chunk = [str(path) for path in paths[start : start + chunk_size]]
        images, read, skipped = _read(loader, chunk)
        probabilities = np.empty((0, len(model.classes_)), dtype=np.float32)
        if read:
            probabilities = rest.predict_proba(images)
        yield Bunch(
            paths=read,
            labels=model.classes_[probabilities.argmax(axis=1)],
            probabilities=probabilities,
            skipped=skipped,
        )


def _read(
    loader: ImageLoader, paths: list[str]
) -> tuple[np.ndarray | None, list[str], list[tuple[str, str]]]:
    """Return the images of the readable files, those files, and the others with the reason."""
    try:
        return loader.transform(paths), paths, []
    except ImageReadError:
        images, read, skipped = [], [], []
        for path in paths:
            try:
                images.append(loader.transform([path]))
                read.append(path)
            except ImageReadError as error:
                skipped.append((path, str(error).rsplit(": ", 1)[-1]))
        return (np.concatenate(images) if images else None), read, skipped

"""Predictions for files: chunk by chunk, so that memory does not grow with their number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from wbcclf._images import check_image_size
from wbcclf._uncertainty import unfamiliar
from wbcclf._warnings import warn
from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets import ImageLoader, list_image_folder
from wbcclf.datasets._reading import read_images
from wbcclf.exceptions import ImageReadError, UnfamiliarImagesWarning
from wbcclf.inspection._checks import check_classifier

CHUNK = 256  # files in memory at a time


def predict_files(
    model: Any, paths: str | os.PathLike | Iterable[str | os.PathLike], *, chunk_size: int = CHUNK
) -> Iterator[Bunch]:
    """Predict the classes of image files, in the order of the files.

    The call checks the arguments; files are read when their chunk is requested.

    Parameters
    ----------
    model : classifier, pipeline or search
        Fitted: a :class:`CNNClassifier`, or any classifier with `predict_proba` that follows
        :class:`DeepFeatures` or an :class:`ImageLoader` in a pipeline. A search
        predicts with its ``best_estimator_``. A model without an `ImageLoader` gets one that
        stretches images to the size that the model was trained on.
    paths : str, path or iterable of them
        A folder, for all images in it and below, as
        ``list_image_folder(folder, labelled=False)`` lists them; one file; or several files.
    chunk_size : int, default=256
        Files in memory at a time.

    Returns
    -------
    iterator of Bunch
        For every chunk, with the attributes

        paths : list of str
            The files that could be read.
        labels : ndarray of shape (n_read,)
            As `predict` gives them: some may be uncertain for a model with `rejection`.
        probabilities : ndarray of shape (n_read, n_classes), float
        familiarity : ndarray of shape (n_read,), float, or None
            As :meth:`CNNClassifier.familiarity` gives it; None for other classifiers, and for those
            without a description. Nothing warns here: look at the mean over all chunks.
        trained_on : ndarray of shape (n_read,), bool, or None
            As :meth:`CNNClassifier.was_trained_on` gives it; None for other classifiers, and for
            models that do not know.
        found : ndarray of shape (n_read,), bool, or None
            Where the loader's `crop` found a white cell; None without `crop`.
        digests : list of bytes
            One for each file that could be read: files with the same bytes have the same.
        skipped : list of (path, reason)
            The files that could not. The first chunk also lists what was left out of a folder.

    Raises
    ------
    TypeError
        If `model` is not a classifier with `predict_proba`, if the size of its images is unknown,
        or if `paths` holds anything but paths.
    ValueError
        If there is no file, the model was trained on grey images, or `chunk_size` is out of range.
    FileNotFoundError
        If `paths` is a single path of neither a folder nor a file.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.

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
    if not isinstance(chunk_size, Integral) or chunk_size < 1:
        raise ValueError(f"chunk_size={chunk_size!r} must be a whole number of 1 or more.")
    loader, transformers, classifier = model_parts(getattr(model, "best_estimator_", model))
    files, left_out = list_files(paths)
    return _predict(loader, transformers, classifier, files, left_out, chunk_size)


def model_parts(model: Any) -> tuple[ImageLoader, list, Any]:
    """Return what a model does with a path: the loader, the steps after it, the classifier."""
    check_classifier(model, "model")
    *before, classifier = (
        [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    )
    if not hasattr(classifier, "predict_proba"):
        raise TypeError(
            f"model must give probabilities, but {type(classifier).__name__} has no predict_proba. "
            "sklearn.calibration.CalibratedClassifierCV adds them to any classifier."
        )
    # The others, samplers and "passthrough", do nothing in a prediction.
    transformers = [step for step in before if hasattr(step, "transform")]
    for step in transformers:
        check_is_fitted(step)
    if transformers and isinstance(transformers[0], ImageLoader):
        return transformers[0], transformers[1:], classifier
    steps = [*transformers, classifier]
    shape = next((step.image_shape_ for step in steps if hasattr(step, "image_shape_")), None)
    if shape is None:
        raise TypeError(
            f"model is {type(model).__name__}, which does not store the size of its images. Put "
            "a loader in front: make_pipeline(ImageLoader(image_size=...), model)."
        )
    if shape[2] != 3:
        raise ValueError(
            "model was trained on grey images, but files are read as RGB. Train it on RGB "
            "images (np.repeat(images, 3, axis=-1)), or predict arrays with model.predict."
        )
    return ImageLoader(image_size=shape[:2]), transformers, classifier


def predict_all(model: Any, X: Any) -> Bunch:
    """Return labels, probabilities, familiarity and trained_on of images, or of image files.

    Where a network's `rejection` leaves an image uncertain, the label is the most probable one.
    Probabilities are None for a model that gives none.

    Raises
    ------
    ImageReadError
        If a file cannot be read.

    Warns
    -----
    UnfamiliarImagesWarning
        If the images do not look like those that the model was trained on.
    """
    model = getattr(model, "best_estimator_", model)
    classifier = last_step(model)
    if isinstance(next(iter(X), None), (str, os.PathLike)) and hasattr(classifier, "predict_proba"):
        found = _predict_whole(model, X)
    elif isinstance(classifier, CNNClassifier):
        steps = [step for _, step in model.steps[:-1]] if isinstance(model, Pipeline) else []
        transformers = [step for step in steps if hasattr(step, "transform")]
        found = predict_images(transformers, classifier, X, rejects=False)
    else:
        probabilities = model.predict_proba(X) if hasattr(model, "predict_proba") else None
        found = Bunch(
            labels=model.predict(X), probabilities=probabilities, familiarity=None, trained_on=None
        )
    if found.familiarity is not None:
        message = unfamiliar(found.familiarity)
        if message:
            warn(message, UnfamiliarImagesWarning)
    return found


def _predict_whole(model: Any, paths: Any) -> Bunch:
    chunks = []
    files, _ = list_files(paths, "X")
    for chunk in _predict(*model_parts(model), files, [], CHUNK, rejects=False):
        if chunk.skipped:
            path, reason = chunk.skipped[0]
            raise ImageReadError(f"{path} cannot be read ({reason}). Leave it and its label out.")
        chunks.append(chunk)

    def joined(name: str) -> np.ndarray | None:
        return None if chunks[0][name] is None else np.concatenate([each[name] for each in chunks])

    names = ("labels", "probabilities", "familiarity", "trained_on")
    digests = [digest for chunk in chunks for digest in chunk.digests]
    return Bunch(**{name: joined(name) for name in names}, digests=digests)


def facts_of_files(digests: Sequence[bytes]) -> Bunch:
    """Return one SHA-256 of files, whatever their order, and how many are the same as another."""
    return Bunch(
        images_sha256=sha256(b"".join(sorted(digests))).hexdigest(),
        n_repeated=len(digests) - len(set(digests)),
    )


def last_step(model: Any) -> Any:
    """Return the classifier of a pipeline, or the classifier itself."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def list_files(
    paths: Any, name: str = "paths", in_memory: str = "are predicted by model.predict(images)"
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files, and what is left out of a folder with the reasons.

    `name` is that of the parameter; `in_memory` says what to do with images that are no files.
    """
    if isinstance(paths, (str, os.PathLike)):
        if os.path.isdir(paths):
            listing = list_image_folder(paths, labelled=False)
            return listing.paths.tolist(), listing.skipped
        if not os.path.exists(paths):
            raise FileNotFoundError(f"{name}={os.fspath(paths)!r} is neither a folder nor a file.")
        return [os.fspath(paths)], []
    if (
        isinstance(paths, (bytes, Mapping))
        or not np.iterable(paths)
        or getattr(paths, "ndim", 1) > 1
    ):
        shape = f" of shape {np.shape(paths)}" if hasattr(paths, "shape") else ""
        raise TypeError(
            f"{name} must be a folder, a file or several files, got {type(paths).__name__}{shape}. "
            f"Images in memory {in_memory}; of a listing, give paths."
        )
    files = list(paths)
    for number, path in enumerate(files):
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                f"{name} must hold paths of image files, but number {number} is of type "
                f"{type(path).__name__}. Images in memory {in_memory}."
            )
    if not files:
        raise ValueError(f"{name} is empty: there is no file to predict.")
    return [os.fspath(path) for path in files], []


def _predict(
    loader: ImageLoader,
    transformers: list,
    classifier: Any,
    files: list[str],
    left_out: list[tuple[str, str]],
    chunk_size: int,
    rejects: bool = True,
) -> Iterator[Bunch]:
    loader.fit(files)  # which checks its parameters, and no more
    for start in range(0, len(files), chunk_size):
        chunk = files[start : start + chunk_size]
        # Like loader.transform, which must not leave out rows.
        read = read_images(
            chunk,
            check_image_size(loader.image_size),
            n_jobs=loader.n_jobs,
            max_pixels=loader.max_pixels,
            memory=loader.memory,
            spill_dir=loader.spill_dir,
            verbose=loader.verbose,
            crop=loader.crop,
            on_error=None,
        )
        yield Bunch(
            paths=[chunk[k] for k in read.kept],
            **predict_images(transformers, classifier, read.images, rejects),
            found=read.found,
            digests=read.digests,
            skipped=left_out + read.failures,
        )
        left_out = []


def predict_images(
    transformers: list, classifier: Any, X: np.ndarray, rejects: bool = True
) -> Bunch:
    """Return labels, probabilities, familiarity and trained_on, as `predict_files` gives them.

    Unless it `rejects`, a network's rejection leaves no label uncertain.
    """
    classes = classifier.classes_
    # The label of a network comes from its probabilities: it need not run twice. That of others may
    # differ from the most probable (a threshold, an SVM).
    is_network = isinstance(classifier, CNNClassifier)
    if not len(X):
        is_described = is_network and classifier._description is not None
        remembers = is_network and classifier._trained_on is not None
        return Bunch(
            labels=classes[:0],
            probabilities=np.empty((0, len(classes)), dtype=np.float32),
            familiarity=np.empty(0) if is_described else None,
            trained_on=np.empty(0, dtype=bool) if remembers else None,
        )
    for step in transformers:
        X = step.transform(X)
    if not is_network:
        return Bunch(
            labels=classifier.predict(X),
            probabilities=classifier.predict_proba(X),
            familiarity=None,
            trained_on=None,
        )
    prediction = classifier._predict(X, classifier.rejection if rejects else None)
    return Bunch(
        labels=prediction.labels(classes),
        probabilities=prediction.probabilities,
        familiarity=prediction.familiarity,
        trained_on=None if classifier._trained_on is None else classifier.was_trained_on(X),
    )

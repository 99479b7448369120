"""export_onnx: a fitted model becomes a file that predicts without PyTorch."""

from __future__ import annotations

import copy
import hashlib
import os
from contextlib import suppress
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import plain, replacing
from wbcclf._images import Interval, check_image_size
from wbcclf._uncertainty import STRANGE, uncertain_label
from wbcclf._version import __version__
from wbcclf.backbones import get_backbone
from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.familiarity._description import NO_DESCRIPTION, Description
from wbcclf.datasets import ImageLoader
from wbcclf.datasets._cropping import check_crop
from wbcclf.inspection._files import model_parts
from wbcclf.onnx._format import CERTAINTY, FAMILIARITY, FORMAT, PROBABILITIES, SHARES

_CROP = ("scale", "factor", "which", "background", "stain")  # what tells how squares are cut


def export_onnx(
    model: Any,
    path: str | os.PathLike,
    *,
    images: Any = None,
    y: Any = None,
    groups: Any = None,
    int8: bool = False,
    allow_loss: float = 2.0,
    limits: str = "",
) -> Bunch:
    """Write a fitted classifier to an ONNX file, which predicts without PyTorch.

    The file takes pictures of any size and number, uint8 RGB. All else is inside: stretching to
    the image size that was trained on, normalisation, the network, `test_time_augmentation`,
    calibration, and how familiar the pictures are. If the model's loader cuts around the white
    cell, :func:`wbcclf.onnx.load` does so; other programs have to give squares that are cut.

    Before it is written, the file is run by onnxruntime beside the model: on random pictures of
    several sizes, in batches of 1, 3 and 17; on 24 cells of :func:`make_blood_cells`; and on
    `images`. A model keeps no training pictures, so give some as `images`. They are first cut and
    stretched as the model's loader does.

    Parameters
    ----------
    model : CNNClassifier or Pipeline
        Fitted on uint8 RGB images. A pipeline may hold an :class:`ImageLoader`, samplers and the
        classifier.
    path : str or path
        File to write; ``.onnx`` is the usual suffix. About 4 bytes for each weight.
    images : array-like or None, default=None
        Pictures to compare on, as :class:`ImageLoader` takes them: paths, or uint8 RGB arrays
        (height, width, 3). `int8` needs them.
    y : array-like of shape (n_images,) or None, default=None
        Labels of `images`, for `int8`: those of the model.
    groups : array-like of shape (n_images,) or None, default=None
        Which cell (slide, patient) each of `images` shows, for `int8`. None: all show another one.
    int8 : bool, default=False
        Write the network in 8 bits: about a quarter of the size. Half of the groups of every class
        in `images` calibrate it, with 200 images at most. On the other half the recall of every
        class is compared, and thresholds of `rejection` are found anew, on those of them that the
        model was not trained on.
    allow_loss : float, default=2.0
        Points (hundredths) of recall that no class may lose more than by `int8`, >= 0.
    limits : str, default=""
        What users of the file should know: on what the model was measured, and how good it is.

    Returns
    -------
    Bunch
        With the attributes

        n_bytes : int
            Size of the file.
        n_images : int
            Pictures that were compared.
        largest_difference : float
            Of a probability of a class, between the float32 graph and the model.
        int8 : Bunch or None
            With `int8`: `n_bytes_float32`; `n_calibrated` images; `n_trained_on`, how many of
            the images that were scored the model was trained on, None if it does not know; the
            `largest_difference` of a probability; `familiarity_difference` and
            `certainty_difference`, means of absolute values, None without a description; and
            `classes`, a list of Bunch with `label`, `n_images`, `n_groups`, the recalls `float32`
            and `int8`, their `difference`, and its 95% `difference_interval` by group.

    Raises
    ------
    ImportError
        If onnx, onnxscript or onnxruntime is missing.
    TypeError
        If the model holds a step that a file cannot hold: a :class:`CellCropper` that is not the
        loader's, a :class:`BackgroundRemover`, another classifier.
    ValueError
        If the model was not trained on uint8 RGB images; or the file and the model disagree: a
        label differs, a probability differs by more than 0.0001, or familiarity or certainty
        differs by more than 0.001. With `int8`, if `images` or `y` is missing, a class has images
        of one group only, a class loses more than `allow_loss`, or the model's `rejection` cannot
        be kept. Then nothing is written.
    OSError
        If the file cannot be written.

    See Also
    --------
    wbcclf.onnx.load : Predicts with such a file.
    save_model : Writes a model to go on with in Python.

    Notes
    -----
    Labels may differ where two probabilities differ by less than 1e-6. The model is compared on
    the CPU in float32, whatever its `device` and `precision`. How certain and familiar pictures are
    is computed in float32 instead of float64; that changes the sixth decimal. Graphs of PyTorch's
    exporter have been wrong (https://github.com/pytorch/pytorch/issues/169178,
    https://github.com/pytorch/pytorch/issues/166797), hence the comparison.

    Weights in 8 bits have a scale for each channel and use 7 bits, so that CPUs without VNNI do not
    overflow. The first convolution, the last layer and biases stay in float32. Biases make up for
    what rounding takes from the mean of a channel on the calibration images (Nagel et al. 2019,
    https://arxiv.org/abs/1906.04721).

    Examples
    --------
    >>> import os, tempfile
    >>> from wbcclf import SimpleCNNClassifier, export_onnx, make_blood_cells
    >>> cells = make_blood_cells(20, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    >>> clf = clf.fit(cells.images, cells.target)
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     result = export_onnx(clf, os.path.join(folder, "model.onnx"), images=cells.images)
    >>> result.n_images, result.largest_difference < 1e-4  # doctest: +SKIP
    (65, True)
    """
    if int8 and (images is None or y is None):
        raise ValueError(
            "int8=True needs images and y: labelled pictures to calibrate on and to compare on."
        )
    loader, _ = parts(model)
    squares = None if images is None else loader.fit_transform(images)
    return export_squares(model, path, squares, y, groups, int8, allow_loss, limits)


def _check_allow_loss(allow_loss: Any) -> None:
    if not Interval(Real, 0, None, closed="left").is_satisfied_by(allow_loss):
        raise ValueError(f"allow_loss must be a number of points, 0 or more, got {allow_loss!r}.")


def parts(model: Any) -> tuple[ImageLoader, CNNClassifier]:
    """Return the loader of a model, and its classifier.

    Raises
    ------
    ImportError
        If a package is missing.
    TypeError, ValueError
        If the model cannot be exported.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'export_onnx needs {error.name}: pip install "wbcclf[onnx]".') from error
    loader, transformers, classifier = model_parts(model)
    if not isinstance(classifier, CNNClassifier):
        raise TypeError(
            f"export_onnx writes CNNClassifier and its named classes, not "
            f"{type(classifier).__name__}."
        )
    if transformers:
        names = ", ".join(type(step).__name__ for step in transformers)
        raise TypeError(
            f"export_onnx cannot write {names} as a step of a pipeline. A CellCropper can be the "
            "loader's: ImageLoader(image_size=96, crop=CellCropper()). Train such a pipeline."
        )
    if classifier.value_range_ != (0, 255):
        low, high = classifier.value_range_
        raise ValueError(
            f"The model was trained on images with values of {low:g} to {high:g}, but an ONNX file "
            "takes uint8. Fit it on uint8 images, 0 to 255."
        )
    return loader, classifier


def export_squares(
    model: Any,
    path: str | os.PathLike,
    squares: np.ndarray | None,
    y: Any,
    groups: Any,
    int8: bool,
    allow_loss: float,
    limits: str,
) -> Bunch:
    """Write a model as :func:`export_onnx` does, whose `images` were cut and stretched before."""
    _check_allow_loss(allow_loss)
    loader, classifier = parts(model)
    # onnx, onnxruntime and torch are imported when they are needed.
    from wbcclf.exporting._graph import network_graph, whole_file
    from wbcclf.exporting._int8 import halves
    from wbcclf.exporting._parity import check_parity, given_pictures, own_pictures

    # To move it to the CPU must not change the user's.
    classifier = copy.deepcopy(classifier).set_params(device="cpu", precision="float32")
    classifier.net_.move_to("cpu", "float32")
    size = classifier.image_shape_[:2]
    about = _about(loader, classifier, limits)
    if int8 and squares is not None:
        split = halves(y, groups, len(squares), classifier.classes_)  # fails before the work
    network, outside = network_graph(classifier)
    data = whole_file(network, size, about)
    result = check_parity(classifier, data, own_pictures(size), given_pictures(squares))
    outputs = result.pop("outputs")
    about["checked"]["images"] = result.n_images
    about["checked"]["largest_difference"] = result.largest_difference
    result.int8 = None
    if int8 and squares is not None:
        network, result.int8 = _to_int8(
            classifier, network, outside, squares, split, outputs, about, allow_loss
        )
        result.int8.n_bytes_float32 = len(data)
    data = whole_file(network, size, about)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    result.n_bytes = len(data)
    return result


def _to_int8(
    classifier: CNNClassifier,
    network: Any,
    outside: list[str],
    squares: np.ndarray,
    split: tuple[np.ndarray, ...],
    in_float: dict[str, np.ndarray],
    about: dict[str, Any],
    allow_loss: float,
) -> tuple[Any, Bunch]:
    """Return the graph in int8 and what it costs, and note it in `about`."""
    from wbcclf.exporting._graph import whole_file
    from wbcclf.exporting._int8 import check_loss, in_int8, recalls, thresholds_of
    from wbcclf.exporting._parity import open_session, run_all

    y, groups, calibrating, compared = split
    network = in_int8(network, outside, squares[calibrating])
    session = open_session(whole_file(network, classifier.image_shape_[:2], about))
    after = run_all(session, squares[compared])
    before = {name: values[compared] for name, values in in_float.items()}
    classes, y = classifier.classes_, y[compared]
    labels = [classes[each[PROBABILITIES].argmax(1)] for each in (before, after)]
    rows = recalls(y, groups[compared], *labels)
    check_loss(rows, allow_loss)
    seen = None
    if classifier._trained_on is not None:
        seen = classifier.was_trained_on(squares[compared])
    apart = {name: np.abs(after[name] - before[name]) for name in after}
    about["int8"] = True
    about["checked"] = {
        "images": len(compared),
        "largest_difference": float(apart[PROBABILITIES].max()),
    }
    if classifier._description is not None:
        new = np.ones(len(y), bool) if seen is None else ~seen
        described = thresholds_of(
            classifier._description,
            {name: values[new] for name, values in after.items()},
            (labels[1] == y)[new],
        )
        about["thresholds"] = _thresholds(described, classifier.rejection)
    return network, Bunch(
        n_calibrated=len(calibrating),
        n_trained_on=None if seen is None else int(seen.sum()),
        largest_difference=about["checked"]["largest_difference"],
        familiarity_difference=_mean(apart.get(FAMILIARITY)),
        certainty_difference=_mean(apart.get(CERTAINTY)),
        classes=rows,
    )


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None else float(values.mean())


def _about(loader: ImageLoader, classifier: CNNClassifier, limits: str) -> dict[str, Any]:
    """Return what the file says of itself; `checked` is still to be filled."""
    crop, _ = check_crop(loader.crop, check_image_size(loader.image_size))
    description = classifier._description
    rejection = None if classifier.rejection is None else float(classifier.rejection)
    if rejection is not None:
        uncertain_label(classifier.classes_)  # raises if they leave no room for it
        if description is None:
            raise ValueError(f"rejection={rejection:g} cannot be kept. {NO_DESCRIPTION}")
    return {
        "format": FORMAT,
        "version": __version__,
        "backbone": get_backbone(classifier.backbone).name,
        "classes": classifier.classes_.tolist(),
        "image_size": list(classifier.image_shape_[:2]),
        "crop": None if crop is None else {name: plain(getattr(crop, name)) for name in _CROP},
        "rejection": rejection,
        "thresholds": {} if description is None else _thresholds(description, rejection),
        "strange": STRANGE,
        "limits": _limits(classifier, limits),
        "int8": False,
        "model_sha256": _digest(classifier),
        "checked": {"images": 0, "largest_difference": 0.0},
    }


def _thresholds(description: Description, rejection: float | None) -> dict[str, float]:
    """Return the least certainty of a call for shares of wrong calls that the model can keep.

    Raises
    ------
    ValueError
        If `rejection` is none of them.
    """
    # All digits of a share: `load` looks for the one that it reads in "rejection".
    found = {} if rejection is None else {str(float(rejection)): description.threshold(rejection)}
    for share in SHARES:
        with suppress(ValueError):  # too few validation images, or too many of them wrong
            found[str(share)] = description.threshold(share)
    return found


def _limits(classifier: CNNClassifier, limits: str) -> str:
    trained_on = classifier._trained_on
    facts = "" if trained_on is None else f"Trained on {len(trained_on):,} different pictures. "
    classes = ", ".join(map(str, classifier.classes_))
    given = f"{limits.strip()} " if limits.strip() else ""
    return f"{facts}It knows {classes}, and nothing else. {given}Not a medical device."


def _digest(classifier: CNNClassifier) -> str:
    """Return the SHA-256 of the network's weights, and of their names."""
    digest = hashlib.sha256()
    for name, tensor in classifier.net_.module_.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()

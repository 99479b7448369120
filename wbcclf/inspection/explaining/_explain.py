"""`explain`: maps of a model, and the scores that say what they are worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from wbcclf._images import _holds_paths
from wbcclf._warnings import warn
from wbcclf.cells._picture import as_bytes
from wbcclf.classifiers import CNNClassifier
from wbcclf.inspection._checks import check_classifier
from wbcclf.inspection._files import last_step, list_files, model_parts
from wbcclf.inspection.explaining._explanation import Explanation
from wbcclf.inspection.explaining._scores import cell_masks, shares_inside

METHODS = ("gradcam", "gradcam++", "occlusion")


def explain(
    model: Any,
    X: Any,
    *,
    target: Any = None,
    method: str = "gradcam",
    block: str | None = None,
    verbose: int = 0,
) -> Explanation:
    """Show which parts of pictures a network goes by, and how far the maps can be believed.

    Parameters
    ----------
    model : CNNClassifier, pipeline or search
        Fitted; a pipeline must end in a :class:`CNNClassifier`. A search is explained by its
        ``best_estimator_``.
    X : array-like of shape (n_samples, height, width, channels), or paths
        Images as `model` takes them; or a folder, a file or several files, as
        :func:`predict_files` takes them.
    target : label, array of labels of shape (n_samples,), or None, default=None
        The class to explain, of all pictures or of each. None is the predicted one.
    method : {"gradcam", "gradcam++", "occlusion"}, default="gradcam"
        ``"gradcam"`` weights the channels of a block by the mean gradient of the class [1]_,
        ``"gradcam++"`` by that of the pixels that speak for it [2]_. ``"occlusion"`` covers the
        picture patch by patch, and shows where the class becomes less probable [3]_: slower, but it
        measures the output itself.
    block : str or None, default=None
        Name of the block of the chain whose output the gradients are taken at. None is the last one
        that gives maps, or tokens of patches, of 4 x 4 or more; if none does, the last one with
        more than one. If the head reads only the class token, the last block is left out.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    Explanation
        Maps, and for each of them its randomisation score, its share inside the white cell, and its
        agreement with occlusion.

    Raises
    ------
    TypeError
        If `model` does not end in a `CNNClassifier`, or `X` holds anything but images or paths.
    ValueError
        If there are no pictures, `target` or `method` is unknown, or `block` has no maps; the
        message lists what there is. Also if a parameter that the network is built from was changed
        after `fit`.
    sklearn.exceptions.NotFittedError
        If `model` is not fitted.
    ImageReadError
        If a file cannot be read.

    Warns
    -----
    UserWarning
        If the network may look at the background, or the maps lie there though the network goes by
        the cell: see `warning` of :class:`Explanation`. Also if maps are empty.

    Notes
    -----
    The score is the logit of the class. Grad-CAM maps are the mean over the picture and its mirror
    images, turned back, since strides shift those of one view by up to half a cell of their grid.
    With `test_time_augmentation` the label and its probability are those of the model; occlusion is
    that of the first view. Weights, modes, gradients and random states stay as they were.

    References
    ----------
    .. [1] R. R. Selvaraju et al., "Grad-CAM", ICCV 2017. https://arxiv.org/abs/1610.02391
    .. [2] A. Chattopadhay et al., "Grad-CAM++", WACV 2018. https://arxiv.org/abs/1710.11063
    .. [3] M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", ECCV
       2014. https://arxiv.org/abs/1311.2901
    .. [4] J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018.
       https://arxiv.org/abs/1810.03292

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> from wbcclf.inspection import explain
    >>> cells = make_blood_cells(40, classes=2, image_size=64, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=1, device="cpu", random_state=0)
    >>> explanation = explain(clf.fit(cells.images, cells.target), cells.images[:3])
    >>> explanation.maps.shape, explanation.overlay(0).shape
    ((3, 64, 64), (64, 64, 3))
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if method == "occlusion" and block is not None:
        raise ValueError(f"block={block!r}: occlusion reads no block. Leave block out.")
    classifier, X, paths = _seen(getattr(model, "best_estimator_", model), X)
    # torch is imported when it is needed, so that `import wbcclf` stays light.
    from wbcclf.inspection.explaining._looking import look

    domain = classifier._domain()
    images = classifier._check_images(X, domain)
    chosen = _class_numbers(target, domain.classes, len(images))
    looked = look(classifier, images, chosen, method, block, verbose)
    seen = np.broadcast_to(as_bytes(images, domain.value_range), (*images.shape[:3], 3))
    masks = cell_masks(seen)
    cell_share = masks.mean(axis=(1, 2))
    occlusion_maps = looked.pop("occlusion_maps")
    explanation = Explanation(
        **looked
        | {name: domain.classes[looked[name]] for name in ("target", "predicted")}
        | {
            "images": seen,
            "method": method,
            "inside": shares_inside(looked.maps, masks),
            "occlusion_inside": shares_inside(occlusion_maps, masks),
            "cell_share": np.where(cell_share > 0, cell_share, np.nan),
            "paths": paths,
        }
    )
    n_empty = int((~looked.maps.any(axis=(1, 2))).sum())
    if n_empty:
        warn(f"{n_empty} of {len(seen)} maps are empty: nothing speaks for the class there.")
    if explanation.warning:
        warn(explanation.warning)
    return explanation


def _seen(model: Any, X: Any) -> tuple[CNNClassifier, Any, list[str] | None]:
    """Return the classifier, what it is given, and the files of that if there are any."""
    check_classifier(model, "model")
    classifier = last_step(model)
    if not isinstance(classifier, CNNClassifier):
        raise TypeError(
            f"model must be a CNNClassifier, or end in one, got {type(classifier).__name__}: maps "
            "are of a network."
        )
    if _holds_paths(X):
        paths, _ = list_files(X, "X", "are given as an image batch")
        loader, transformers, _ = model_parts(model)
        X = loader.transform(paths)
    else:
        paths = None
        steps = [step for _, step in model.steps[:-1]] if isinstance(model, Pipeline) else []
        transformers = [step for step in steps if hasattr(step, "transform")]
    for step in transformers:
        X = step.transform(X)
    return classifier, X, paths


def _class_numbers(target: Any, classes: np.ndarray, n_images: int) -> np.ndarray | None:
    """Return the number of the class to explain of each picture, or None for the predicted ones."""
    if target is None:
        return None
    labels = np.asarray(target)
    if labels.shape not in ((), (n_images,)):
        raise ValueError(
            f"target must be one label or one for each of {n_images} pictures, got an array of "
            f"shape {labels.shape}."
        )
    numbers = {label: number for number, label in enumerate(classes.tolist())}
    unknown = sorted({str(label) for label in labels.ravel().tolist() if label not in numbers})
    if unknown:
        known = ", ".join(map(str, numbers))
        raise ValueError(f"target: the model has no class {', '.join(unknown)}, but {known}.")
    given = np.array([numbers[label] for label in labels.ravel().tolist()])
    return np.broadcast_to(given, n_images).copy()

"""export_onnx: a fitted model becomes a file that predicts without PyTorch."""

from __future__ import annotations

import copy
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf._files import replacing
from wbcclf._images import check_image_size
from wbcclf._version import __version__
from wbcclf.backbones import get_backbone
from wbcclf.classifiers import CNNClassifier
from wbcclf.classifiers.familiarity._description import STRANGE
from wbcclf.datasets import ImageLoader
from wbcclf.datasets._cropping import check_crop
from wbcclf.inspection._files import model_parts
from wbcclf.onnx._format import FORMAT, SHARES

if TYPE_CHECKING:
    pass

_CROP = ("scale", "factor", "which", "background", "stain")  # what tells how squares are cut


def export_onnx(model: Any, path: str | os.PathLike, *, images: Any = None) -> Bunch:
    """Write a fitted classifier to an ONNX file."""
    loader, classifier = _parts(model)
    _require_packages()
    from wbcclf.exporting._graph import network_graph, whole_file
    from wbcclf.exporting._parity import check_parity, open_session, own_pictures

    size = classifier.image_shape_[:2]
    network = network_graph(classifier)
    about = _about(loader, classifier)
    session = open_session(whole_file(network, size, about))
    checked = check_parity(classifier, session, own_pictures(size))
    about["checked"] = checked
    data = whole_file(network, size, about)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Bunch(n_bytes=len(data), **checked)


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "export_onnx needs onnx, onnxscript and onnxruntime: pip install 'wbcclf[onnx]'."
        ) from error


def _parts(model: Any) -> tuple[ImageLoader, CNNClassifier]:
    """Return the loader of a model, and its classifier on the CPU in float32.

    Raises
    ------
    TypeError, ValueError
        If the model cannot be exported.
    """
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
            "loader's: ImageLoader(image_size=96, crop=CellCropper())."
        )
    if classifier.value_range_ != (0, 255):
        low, high = classifier.value_range_
        raise ValueError(
            f"The model was trained on images whose values are on the scale {low:g} to {high:g}; "
            "an ONNX file takes uint8. Fit it on uint8 images, 0 to 255."
        )
    classifier = copy.deepcopy(classifier).set_params(device="cpu", precision="float32")
    classifier.net_.move_to("cpu", "float32")
    return loader, classifier


def _about(loader: ImageLoader, classifier: CNNClassifier) -> dict[str, Any]:
    """Return what the file says of itself, without what was checked."""
    crop, _ = check_crop(loader.crop, check_image_size(loader.image_size))
    description = classifier._description
    thresholds = {}
    if description is not None:
        for share in {*SHARES, classifier.rejection} - {None}:
            try:
                thresholds[f"{share:g}"] = description.threshold(share)
            except ValueError:  # too few validation images, or too many of them wrong
                continue
    return {
        "format": FORMAT,
        "version": __version__,
        "backbone": get_backbone(classifier.backbone).name,
        "classes": classifier.classes_.tolist(),
        "image_size": list(classifier.image_shape_[:2]),
        "crop": None if crop is None else {name: getattr(crop, name) for name in _CROP},
        "rejection": classifier.rejection,
        "thresholds": thresholds,
        "strange": STRANGE,
        "limits": "",
        "int8": False,
        "model_sha256": _digest(classifier),
    }


def _digest(classifier: CNNClassifier) -> str:
    """Return the SHA-256 of the network's weights."""
    digest = hashlib.sha256()
    for name, tensor in classifier.net_.module_.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()

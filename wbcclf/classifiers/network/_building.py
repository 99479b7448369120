"""A classifier's network: built from its parameters, and frozen as they say."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from wbcclf._images import check_image_size
from wbcclf.backbones import BackboneSpec, WeightsReport, get_backbone
from wbcclf.backbones._chain import build_chain, count_frozen
from wbcclf.classifiers.network._device import seeded
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.network._preprocessing import Preprocessing
from wbcclf.classifiers.options._values import digest
from wbcclf.exceptions import PartialWeightsWarning, WeightsMismatchError


def build_network(
    classifier: Any, weights: str | None, seed: int
) -> tuple[CellNetwork, WeightsReport | None]:
    """Return the network of a CNNClassifier that has learnt its classes and image shape.

    And what was loaded of `weights`. Kernels lie in the layout of the images, channels last: a few
    per cent faster on CPUs, and what the tensor cores of GPUs take.
    """
    spec = get_backbone(classifier.backbone)
    head = classifier.default_head if classifier.head is None else classifier.head
    size = input_size_of(spec, classifier.input_size, classifier.image_shape_)
    with seeded(seed):
        chain, report = build_chain(spec, weights)
        network = CellNetwork(
            chain,
            Preprocessing(spec, classifier.value_range_, size),
            head.validate(),
            classifier.dropout,
            len(classifier.classes_),
        )
    network.built_from = _building(classifier)
    return in_layout_of_training(classifier, network), report


def in_layout_of_training(classifier: Any, network: CellNetwork) -> CellNetwork:
    """Return the network with its kernels in the layout that the optimizer can train."""
    if isinstance(classifier.optimizer, str):  # some of torch's others cannot flatten such kernels
        network = network.to(memory_format=torch.channels_last)
    return network


def input_size_of(
    spec: BackboneSpec, input_size: Any, image_shape: tuple[int, int, int]
) -> tuple[int, int]:
    """Return the (height, width) that a backbone sees, from the `input_size` parameter."""
    size = check_image_size(input_size, "input_size")
    if size is None:
        return tuple(max(side, spec.smallest_size) for side in image_shape[:2])
    if min(size) < spec.smallest_size:
        raise ValueError(
            f"input_size={input_size!r} is too small for {spec.name}, which needs at least "
            f"{spec.smallest_size} pixels."
        )
    return size


def check_built(classifier: Any) -> None:
    """Fail if parameters that a network is built from were changed after it was.

    Raises
    ------
    ValueError
        The message names them.
    """
    built = classifier.net_.module_.built_from
    changed = [name for name, value in _building(classifier).items() if value != built[name]]
    if changed:
        raise ValueError(
            f"{', '.join(changed)} changed after the network was built. Set back what changed, or "
            "fit anew with warm_start=False."
        )


def _building(classifier: Any) -> dict[str, str]:
    names = ("backbone", "head", "dropout", "input_size")
    return {name: digest(getattr(classifier, name)) for name in names}


def freeze_blocks(
    classifier: Any, network: CellNetwork, report: WeightsReport | None, *, go_on: bool
) -> None:
    """Set the cut that a CNNClassifier asks for; warn of frozen blocks at random weights.

    Raises
    ------
    WeightsMismatchError
        If the weights file lacks tensors of a frozen block.
    """
    chain = network.backbone
    n_frozen = count_frozen(chain, classifier.unfrozen_layers)
    network.set_cut(n_frozen)
    if go_on:  # all of this was said when the network was new
        return
    if report is None:
        if n_frozen and classifier.weights is None:
            warnings.warn(
                f"{n_frozen} of {len(chain)} blocks of {_name(classifier)} are frozen at random "
                f"weights (weights=None, unfrozen_layers={classifier.unfrozen_layers!r}). Give "
                "weights, or unfrozen_layers='all'.",
                UserWarning,
                stacklevel=6,
            )
        return
    if not report.missing:
        return
    frozen = tuple(f"{name}." for name, _ in list(chain.named_children())[:n_frozen])
    missing = [key for key in report.missing if key.startswith(frozen)] if frozen else []
    lacks = f"{report.source} lacks {len(report.missing)} tensors of {_name(classifier)}"
    if missing:
        raise WeightsMismatchError(
            f"{lacks}, {len(missing)} of them in frozen blocks ({', '.join(missing[:3])}...), "
            "which would stay random. Give a file that holds them, or unfreeze those blocks."
        )
    warnings.warn(
        f"{lacks} ({', '.join(report.missing[:3])}...); they start at random and are trained. "
        f"{len(report.loaded)} tensors were loaded. weights_report_ lists all.",
        PartialWeightsWarning,
        stacklevel=6,
    )


def _name(classifier: Any) -> str:
    return get_backbone(classifier.backbone).name

"""A classifier's network: built from its settings, and frozen as they say."""

from __future__ import annotations

from typing import Any

import torch

from wbcclf._images import check_image_size
from wbcclf._warnings import warn
from wbcclf.backbones import BackboneSpec, WeightsReport
from wbcclf.backbones._chain import build_chain, count_frozen
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._device import seeded
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.network._preprocessing import Preprocessing
from wbcclf.classifiers.options._settings import Settings
from wbcclf.exceptions import PartialWeightsWarning, WeightsMismatchError


def build_network(
    settings: Settings, domain: Domain, weights: Any, seed: int
) -> tuple[CellNetwork, WeightsReport | None]:
    """Return a new network, and what was loaded of `weights`.

    Kernels lie in the layout of the images, channels last: a few per cent faster on CPUs, and what
    the tensor cores of GPUs take.
    """
    spec = settings.backbone
    size = input_size_of(spec, settings.input_size, domain.image_shape)
    with seeded(seed):
        chain, report = build_chain(spec, weights)
        network = CellNetwork(
            chain,
            Preprocessing(spec, domain.value_range, size),
            settings.head,
            len(domain.classes),
        )
    network.built_from = settings.built_from
    network.spec_name, network.spec_version = spec.name, spec.version
    return in_layout_of_training(settings, network), report


def in_layout_of_training(settings: Settings, network: CellNetwork) -> CellNetwork:
    """Return the network with its kernels in the layout that the optimizer can train."""
    if isinstance(settings.optimizer.method, str):  # some of torch's others cannot flatten kernels
        network = network.to(memory_format=torch.channels_last)
    return network


def input_size_of(
    spec: BackboneSpec, input_size: Any, image_shape: tuple[int, int, int]
) -> tuple[int, int]:
    """Return the (height, width) that a backbone sees, from the `input_size` parameter."""
    size = check_image_size(input_size, "input_size")
    if size is None:
        height, width, _ = image_shape
        return max(height, spec.smallest_size), max(width, spec.smallest_size)
    if min(size) < spec.smallest_size:
        raise ValueError(
            f"input_size={input_size!r} is too small for {spec.name}, which needs at least "
            f"{spec.smallest_size} pixels."
        )
    return size


def check_built(settings: Settings, network: CellNetwork) -> None:
    """Fail if parameters that a network is built from were changed after it was.

    Raises
    ------
    ValueError
        The message names them.
    """
    now = settings.built_from
    changed = [name for name in now if now[name] != network.built_from[name]]
    if changed:
        raise ValueError(
            f"{', '.join(changed)} changed after the network was built. Restore the old values, or "
            "fit again with warm_start=False."
        )


def freeze_blocks(settings: Settings, network: CellNetwork) -> None:
    """Set the cut that `unfrozen_layers` asks for."""
    network.set_cut(count_frozen(network.backbone, settings.unfrozen_layers))


def check_frozen_weights(
    settings: Settings, network: CellNetwork, report: WeightsReport | None
) -> None:
    """Warn of frozen blocks at random weights, and of weights that were not in the file.

    Raises
    ------
    WeightsMismatchError
        If the weights file lacks tensors of a frozen block.
    """
    names = list(network.frozen_blocks())
    spec = settings.backbone
    if report is None:
        if names:
            warn(
                f"{len(names)} of {len(network.backbone)} blocks of {spec.name} are frozen at "
                f"random weights (weights=None, unfrozen_layers={settings.unfrozen_layers!r}). "
                "Give weights, or unfrozen_layers='all'."
            )
        return
    if not report.missing:
        return
    missing = [key for key in report.missing if key.partition(".")[0] in names]
    lacks = f"{report.source} lacks {len(report.missing)} tensors of {spec.name}"
    if missing:
        raise WeightsMismatchError(
            f"{lacks}, {len(missing)} of them in frozen blocks ({', '.join(missing[:3])}...), "
            "which would stay random. Give a file that holds them, or unfreeze those blocks."
        )
    warn(
        f"{lacks} ({', '.join(report.missing[:3])}...); they start at random and are trained. "
        f"{len(report.loaded)} tensors were loaded. weights_report_ lists all.",
        PartialWeightsWarning,
    )

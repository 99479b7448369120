"""Predicting with a trained net, through the store where there is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from wbcclf.classifiers.caching._activations import N_TOGETHER, StoredPart, frozen_part
from wbcclf.classifiers.data._batches import BLOCK_BYTES
from wbcclf.classifiers.network._device import arithmetic, resolve_device, resolve_precision
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._running import run_in_batches
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._net import CellNet


def predict_logits(net: CellNet, settings: Settings, views: Iterable[np.ndarray]) -> np.ndarray:
    """Return logits (n_views, n, n_classes) of image batches of one length.

    The net is moved to the device that the settings ask for, or to one that there is.
    """
    device = resolve_device(settings.device, fitted=True)
    precision = resolve_precision(settings.precision, device, settings.backbone.name)
    if (device, precision) != (net.device, net.precision):
        net.move_to(device, precision)
    frozen: StoredPart | None = None
    logits = []
    for number, images in enumerate(views):
        if number == 0:
            frozen = frozen_part(net, settings, len(images))
        logits.append(_predict_view(net, images, settings.batch_size, frozen))
    return np.stack(logits)


def _predict_view(
    net: CellNet, images: np.ndarray, batch_size: int, frozen: StoredPart | None
) -> np.ndarray:
    """Return logits (n, n_classes); `frozen` takes or leaves activations in its store.

    Fewer images than it computes together are predicted without it unless it has them all:
    filling up their batch would make a single image as slow as many.
    """
    if frozen is None or (len(images) < N_TOGETHER and not frozen.holds(images)):
        return _run(net, "images", images, batch_size)
    parts = []
    step = batch_size * max(1, int(BLOCK_BYTES / frozen.row_bytes() / batch_size))
    for start in range(0, len(images), step):
        rows = np.arange(start, min(start + step, len(images)))
        kept = np.empty((len(rows), frozen.row_bytes()), np.uint8)
        frozen.fill(kept, images, rows)
        parts.append(_run(net, "activations", frozen.as_tensor(kept), batch_size))
    return np.concatenate(parts)


def _run(net: CellNet, kind: str, X: Any, batch_size: int) -> np.ndarray:
    network = net.module_.eval()

    def run(batch: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), arithmetic(net.device, net.precision):
            return network(**{kind: batch.to(net.device)})

    with keeping_freed_memory():
        return run_in_batches(run, X, batch_size, net.device)

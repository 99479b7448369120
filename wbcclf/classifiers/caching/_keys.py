"""Keys of what is kept on disk: the bytes of images and weights, and declared versions.

Nothing here looks at code. Code is identified by the version that its package, or the spec of a
backbone, declares.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from wbcclf._parameters import Machine, belongs_to
from wbcclf._version import __version__
from wbcclf.backbones import get_backbone
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.network._device import channels_last
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._values import exact_digest

# Raise it when activations or trainings of the same version of this package become others: when
# the arithmetic of preprocessing, blocks, heads or training changes between two releases. Entries
# under an older number are then not found, and go when the folder is full.
KEYS_FORMAT = 2


def image_key(image: np.ndarray) -> str:
    """Return the key of an image: its dtype, shape and bytes."""
    digest = hashlib.sha256()
    add_array(digest, image)
    return digest.hexdigest()[:40]


def stage_keys(network: CellNetwork, device: str, precision: str) -> list[str]:
    """Return the keys of 0, 1, ... stages up to the cut: what their output depends on.

    That is all but the image. Each key covers the stages below, too.
    """
    digest = hashlib.sha256(conditions(network, device, precision).encode())
    pooling = network.head[0]  # has no weights: its text gives its kind
    parts = [
        (f"preprocessing to {network.preprocessing.input_size}", network.preprocessing),
        *network.backbone.named_children(),
        (repr(pooling), pooling),
    ]
    keys = []
    for name, part in parts[: network.cut + 1]:
        digest.update(f"{len(name)} {name}".encode())
        add_weights(digest, part)
        keys.append(digest.hexdigest()[:32])
    return keys


def frozen_digest(network: CellNetwork) -> str:
    """Return a digest of all weights that activations of the frozen blocks depend on."""
    digest = hashlib.sha256()
    for part in (network.preprocessing, *network.frozen_blocks().values()):
        add_weights(digest, part)
    return digest.hexdigest()


def conditions(network: CellNetwork, device: str, precision: str) -> str:
    """Return what results depend on apart from data, weights and parameters.

    That is whose code computes them, on which kind of device, and in which arithmetic.
    """
    return repr(
        (
            *(KEYS_FORMAT, network.spec_name, network.spec_version, torch.__version__, __version__),
            *(torch.device(device).type, precision),
            *(torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32),
        )
    )


def add_weights(digest: Any, module: nn.Module) -> None:
    """Add a module's state dict to a digest of :mod:`hashlib`."""
    state = module.state_dict()
    digest.update(f"{len(state)} tensors".encode())
    for name, tensor in state.items():
        if not torch.is_tensor(tensor):  # a module's extra state may be anything
            digest.update(f"{name} {exact_digest(tensor)}".encode())
            continue
        x = tensor.to_dense()  # of a sparse one
        # Kernels in another layout are summed in another order, which rounds in another way. Not
        # the strides themselves, which mean nothing on axes of length one.
        is_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        kind = f"{tensor.dtype} {tensor.layout} {x.is_contiguous()} {is_last}"
        digest.update(f"{name} {tuple(x.shape)} {kind}".encode())
        x = channels_last(x) if is_last else x
        x = x.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(x.numpy().data)


def add_array(digest: Any, array: np.ndarray) -> None:
    """Add an array's dtype, shape and bytes to a digest of :mod:`hashlib`."""
    digest.update(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def fit_digest(
    classifier: BaseEstimator,
    network: CellNetwork,
    train_data: ImageData,
    valid_data: ImageData | None,
) -> str:
    """Return a digest of what a fit depends on: parameters, initial weights and data.

    Raises
    ------
    TypeError
        If a parameter cannot be pickled, and so has no digest.
    """
    cls = type(classifier)
    digest = hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode())
    for name, value in sorted(classifier.get_params(deep=False).items()):
        # Of a callback nobody can compare what it remembers.
        if name == "callbacks" or belongs_to(cls, name, Machine):
            continue
        try:
            digest.update(f"{name} {exact_digest(value)}".encode())
        except TypeError as error:
            raise TypeError(f"the parameter {name} cannot be pickled ({error})") from error
    spec = get_backbone(classifier.backbone)  # what a head or lr of None stands for
    digest.update(f"{spec.lr} {exact_digest(spec.head)}".encode())
    add_weights(digest, network)
    for data in (train_data, valid_data):
        if data is not None:
            for array in (data.y, data.sample_weight, data.rows):
                add_array(digest, array)
            for row in data.rows:
                add_array(digest, data.X[row])
    return digest.hexdigest()[:40]

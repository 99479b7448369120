"""A network with weights from a file: laid out, compared with the file, and only then built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from wbcclf.backbones import BackboneSpec
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape
from wbcclf.backbones._registry import draft_backbones
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._building import build_network, in_layout_of_training
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._settings import Settings

# Shape and dtype of every tensor in a file.
Headers = Mapping[str, tuple[tuple[int, ...], np.dtype]]

_DRAWS = {
    *(getattr(nn.init, f"{name}_") for name in "kaiming_uniform normal uniform".split()),
    *(
        getattr(torch.Tensor, f"{name}_")
        for name in "bernoulli cauchy exponential geometric log_normal "
        "normal random uniform".split()
    ),
}
# These give a tensor of the shape that they take.
_KEEP_SHAPE = {
    nn.init.constant_,
    *(getattr(torch.Tensor, f"{name}_") for name in "add clamp div erfinv fill mul zero".split()),
    *(
        getattr(nn.functional, name)
        for name in "batch_norm dropout gelu group_norm hardswish layer_norm "
        "relu relu6 silu".split()
    ),
}


class _Undrawn(TorchFunctionMode):
    """Zeros wherever a network would draw random weights in place; shapes alone on meta.

    The file's weights replace them. On the meta device, drawing would first import modules for a
    second, and Python code that stands in for simple functions takes longer than these on images.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _DRAWS or func in _KEEP_SHAPE:
            tensor = args[0] if args else next(iter(kwargs.values()))
            if tensor.is_meta:
                return tensor
            if func in _DRAWS:
                tensor.detach().zero_()
                return tensor
        return func(*args, **kwargs)


def restore_network(
    settings: Settings, domain: Domain, headers: Headers, read: Callable[[str], np.ndarray]
) -> CellNetwork:
    """Return the network that settings describe, with the weights of a file.

    On torch's meta device tensors have a shape and no memory. Whatever the parameters ask for is
    laid out there, and is built only if the file holds these very tensors: what it costs is bounded
    by the size of the file. The one exception is the network of an installed plugin whose code does
    not run on that device: it is built, and compared then.

    Parameters
    ----------
    settings : Settings
    domain : Domain
    headers : mapping of str to (shape, dtype)
        Of the tensors in the file.
    read : callable
        Gives the tensor of a name; called after the comparison.

    Raises
    ------
    ValueError
        If the file's tensors are not those of the network.
    """
    spec = settings.backbone
    try:
        with torch.device("meta"), _Undrawn():
            network, _ = build_network(settings, domain, None, seed=0)
    except Exception:
        if not isinstance(settings.given["backbone"], str) or _runs_on_meta(spec):
            raise
        with _Undrawn():
            network, _ = build_network(settings, domain, None, seed=0)
    count_frozen(network.backbone, settings.unfrozen_layers)  # fails for what is no block
    difference = _difference(network, headers)
    if difference:
        raise ValueError(difference)
    if network.preprocessing.scale.is_meta:
        # The chain is built anew: it may have tensors that no state dict holds. The head has none.
        with _Undrawn():
            network.backbone, _ = build_chain(spec, None)
        if any(map(is_lazy, network.backbone.parameters())):
            feature_shape(network.backbone, *network.preprocessing.input_size)
        for part in (network.preprocessing, network.head):
            part.to_empty(device="cpu")
        network = in_layout_of_training(settings, network)
    network.load_state_dict({name: torch.from_numpy(read(name)) for name in headers})
    return network


def check_draft(backbone: Any, headers: Headers) -> None:
    """Compare a file with what a backbone's name may stand for, where to find out costs much.

    Raises
    ------
    ValueError
        If the file's tensors are of no such network.
    """
    drafts = draft_backbones(backbone) if isinstance(backbone, str) else ()
    differences = [_difference(_chain_on_meta(spec), headers, "backbone.") for spec in drafts]
    if differences and all(differences):
        raise ValueError(differences[0])


def _chain_on_meta(spec: BackboneSpec) -> nn.Sequential:
    with torch.device("meta"), _Undrawn():
        chain, _ = build_chain(spec, None)
    return chain


def _runs_on_meta(spec: BackboneSpec) -> bool:
    try:
        with torch.device("meta"):
            feature_shape(_chain_on_meta(spec), spec.input_size, spec.input_size)
    except Exception:  # code that looks at values says so in many ways
        return False
    return True


def _difference(module: nn.Module, headers: Headers, prefix: str = "") -> str | None:
    """Return how the tensors of a file differ from a module's; those with the prefix alone.

    A file may hold them in half the precision, as the one of this package does.
    """
    ours = {
        f"{prefix}{name}": (tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in module.state_dict().items()
    }
    theirs = {
        name: (shape, dtype.name.replace("float16", "float32"))
        for name, (shape, dtype) in headers.items()
        if name.startswith(prefix)
    }
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            given, needed = theirs.get(name, "missing"), ours.get(name, "none")
            return f"tensor {name!r:.80} is {given}, the network of its parameters has {needed}"
    return None

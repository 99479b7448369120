"""From a spec to the chain itself: build, load weights, find the cut."""

from __future__ import annotations

from collections import OrderedDict
from numbers import Integral
from typing import Any

import torch
from torch import nn

from wbcclf.backbones._base import BackboneSpec
from wbcclf.backbones._weights import read_weights
from wbcclf.exceptions import WeightsMismatchError


def build_chain(spec: BackboneSpec, weights: str | None) -> nn.Sequential:
    """Return the chain of named blocks, with pretrained weights or freshly initialised.

    Parameters
    ----------
    spec : BackboneSpec
    weights : str, path or None
        A tag of ``spec.weights``, a file, or None for a random initialisation from torch's global
        random state.

    Raises
    ------
    WeightsNotFoundError, WeightsMismatchError
    """
    network = spec.build()
    chain = nn.Sequential(OrderedDict(spec.blocks(network)))
    if weights is not None:
        _load(network, chain, read_weights(spec, weights), f"{spec.name}, weights={weights!r}")
    return chain


def _load(
    network: nn.Module, chain: nn.Sequential, state: dict[str, torch.Tensor], what: str
) -> None:
    """Load `state` under the original network's keys; everything in the chain must be in it.

    What the file holds beyond the chain (the original's head) is left out; a tensor of the chain
    that is missing or of another shape is an error, never a random leftover.
    """
    in_chain = {id(tensor) for tensor in chain.state_dict(keep_vars=True).values()}
    wanted = {
        key: tensor
        for key, tensor in network.state_dict(keep_vars=True).items()
        if id(tensor) in in_chain and not key.endswith("num_batches_tracked")
    }
    missing = [key for key in wanted if key not in state]
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if missing or misshapen:
        raise WeightsMismatchError(
            f"The weights do not fit the network ({what}): "
            f"{len(missing)} of {len(wanted)} tensors are missing ({', '.join(missing[:3])}...), "
            f"{len(misshapen)} have another shape ({', '.join(misshapen[:3])}...). "
            f"The file must hold a state dict with the original network's keys, "
            f"like {next(iter(wanted))!r}."
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(state[key])


def count_frozen(chain: nn.Sequential, unfrozen_layers: int | str) -> int:
    """Return how many blocks at the start of the chain are frozen.

    Parameters
    ----------
    chain : torch.nn.Sequential
    unfrozen_layers : int, str or "all"
        Number of blocks to train, counted from the top (the end) down; the name of the lowest
        block to train; or ``"all"``.

    Raises
    ------
    ValueError
        If the chain has fewer blocks, or none of that name; the message lists the names.
    """
    names = [name for name, _ in chain.named_children()]
    if isinstance(unfrozen_layers, str):
        if unfrozen_layers == "all":
            return 0
        if unfrozen_layers in names:
            return names.index(unfrozen_layers)
        raise ValueError(
            f"unfrozen_layers={unfrozen_layers!r} is not a block of this backbone; from the bottom "
            f"up they are {', '.join(names)}. Or give a number, 0 to {len(names)}, or 'all'."
        )
    if not isinstance(unfrozen_layers, Integral) or not 0 <= unfrozen_layers <= len(names):
        raise ValueError(
            f"unfrozen_layers={unfrozen_layers!r}: this backbone has {len(names)} blocks; give "
            f"0 to {len(names)}, a block's name ({names[-1]!r} is the top one) or 'all'."
        )
    return len(names) - int(unfrozen_layers)


def feature_shape(chain: nn.Sequential, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of the chain's output for one RGB image, without the batch axis."""
    was_training = chain.training
    chain.eval()
    with torch.no_grad():
        shape: Any = chain(torch.zeros(1, 3, height, width)).shape[1:]
    chain.train(was_training)
    return tuple(shape)

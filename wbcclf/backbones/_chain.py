"""From a spec to the chain itself: build, load weights, find the cut."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from wbcclf._model_file import is_model_file
from wbcclf.backbones._base import BackboneSpec, WeightsReport
from wbcclf.backbones._weights import find_weights, read_model_weights, read_weights
from wbcclf.exceptions import WeightsMismatchError


def build_chain(
    spec: BackboneSpec, weights: str | os.PathLike | None
) -> tuple[nn.Sequential, WeightsReport | None]:
    """Return the chain of named blocks, with pretrained weights or freshly initialised.

    Parameters
    ----------
    spec : BackboneSpec
    weights : str, path or None
        A tag of ``spec.weights``, a file, or None for a random initialisation from torch's global
        random state.

    Returns
    -------
    chain : torch.nn.Sequential
    report : WeightsReport or None
        What was loaded, and which tensors of the chain the file lacks: those stay freshly
        initialised. None without weights.

    Raises
    ------
    WeightsNotFoundError
        If the file is not there and cannot be downloaded.
    WeightsMismatchError
        If it cannot be read, a tensor has another shape than the chain's, or none fits at all.
    """
    network = spec.build()
    chain = nn.Sequential(OrderedDict(spec.blocks(network)))
    if weights is None:
        return chain, None
    path = find_weights(spec, weights)
    own_keys = {id(tensor): key for key, tensor in network.state_dict(keep_vars=True).items()}
    if is_model_file(path):
        own_keys = {}  # such a file uses the chain's names
        state = _without_prefix(read_model_weights(path, spec.name), ())
    else:
        state = _without_prefix(read_weights(path), own_keys.values())
        state = _converted(spec, state, network, path)
    # For every tensor of the chain, by its name there: the name that the file uses.
    wanted = {
        name: (own_keys.get(id(tensor), name), tensor)
        for name, tensor in chain.state_dict(keep_vars=True).items()
    }
    return chain, _load(wanted, state, str(path), f"{spec.name}, weights={str(weights)!r}")


def _converted(
    spec: BackboneSpec, state: dict[str, torch.Tensor], network: nn.Module, path: Path
) -> dict[str, torch.Tensor]:
    if spec.convert is None:
        return state
    try:
        return spec.convert(state, network)
    except Exception as error:  # made for a certain layout, it fails on others in many ways
        raise WeightsMismatchError(
            f"{path} holds weights that do not fit {spec.name} ({type(error).__name__}: "
            f"{error!s:.300}). Do they belong to another network?"
        ) from error


def _without_prefix(
    state: dict[str, torch.Tensor], own_keys: Iterable[str]
) -> dict[str, torch.Tensor]:
    """Drop what wrappers put before the names, unless the network's own begin like that."""
    prefixes = [
        prefix
        for prefix in ("module.", "_orig_mod.", "model.", "backbone.")
        if not any(key.startswith(prefix) for key in own_keys)
    ]
    # Once over each name, however often such words are repeated in it.
    wrapped = re.compile(f"^(?:{'|'.join(map(re.escape, prefixes))})*")
    return {wrapped.sub("", key): tensor for key, tensor in state.items()}


def _load(
    wanted: dict[str, tuple[str, torch.Tensor]],
    state: dict[str, torch.Tensor],
    source: str,
    what: str,
) -> WeightsReport:
    """Copy the tensors of `state` into those of the chain."""
    found = {name: (state[key], tensor) for name, (key, tensor) in wanted.items() if key in state}
    if not found:
        raise WeightsMismatchError(
            f"The weights do not fit the network ({what}): none of its {len(wanted)} tensors is in "
            f"the file. It must hold a state dict with the original network's keys, like "
            f"{next(iter(wanted.values()))[0]!r}; its own are like {next(iter(state), 'none')!r}."
        )
    misshapen = [
        f"{wanted[name][0]} {tuple(given.shape)} instead of {tuple(tensor.shape)}"
        for name, (given, tensor) in found.items()
        if not is_lazy(tensor) and given.shape != tensor.shape
    ]
    if misshapen:
        raise WeightsMismatchError(
            f"The weights do not fit the network ({what}): {len(misshapen)} of {len(wanted)} "
            f"tensors have another shape ({', '.join(misshapen[:3])}, ...). Do they belong to "
            "another network, or to another size of it?"
        )
    with torch.no_grad():
        for given, tensor in found.values():
            if is_lazy(tensor):  # a linear layer whose input size only an image or a file tells
                tensor.materialize(given.shape)
            tensor.copy_(given)
    used = {key for key, _ in wanted.values()}
    return WeightsReport(
        source=source,
        loaded=tuple(found),
        # A counter that older files lack and nothing reads.
        missing=tuple(
            name for name in wanted if name not in found and not name.endswith("batches_tracked")
        ),
        unused=tuple(key for key in state if key not in used),
    )


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
    is_number = isinstance(unfrozen_layers, Integral) and not isinstance(unfrozen_layers, bool)
    if not is_number or not 0 <= unfrozen_layers <= len(names):
        raise ValueError(
            f"unfrozen_layers={unfrozen_layers!r}: this backbone has {len(names)} blocks; give "
            f"0 to {len(names)}, a block's name ({names[-1]!r} is the top one) or 'all'."
        )
    return len(names) - int(unfrozen_layers)


def feature_shape(chain: nn.Sequential, height: int, width: int) -> tuple[int, ...]:
    """Return the shape of the chain's output for one RGB image, without the batch axis.

    It has three numbers for maps (channels, height, width), two for tokens (tokens, channels) and
    one for vectors.

    Raises
    ------
    ValueError
        If the chain cannot take images of that size.
    """
    was_training = chain.training
    chain.eval()
    try:
        with torch.no_grad():
            shape: Any = chain(torch.zeros(1, 3, height, width)).shape[1:]
    except (AssertionError, RuntimeError) as error:  # torch: shapes do not go together
        raise ValueError(
            f"The backbone cannot take images of {height}x{width} pixels ({error}). If its weights "
            "come from a file, give the input_size that they were trained at."
        ) from error
    chain.train(was_training)
    return tuple(shape)

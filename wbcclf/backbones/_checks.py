"""check_backbone: the requirements of every backbone, as a test for plugin authors."""

from __future__ import annotations

import pickle
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wbcclf.backbones._base import BackboneSpec, PackagedWeights, WeightsSource

if TYPE_CHECKING:
    from torch import Tensor, nn


def check_backbone(spec: BackboneSpec) -> None:
    """Check that a backbone is a chain that wbcclf can freeze, load, save and train.

    For the tests of packages that offer a backbone. It builds the network a few times and runs it
    on images of `smallest_size` and a little more. It needs no internet connection and no weights,
    and leaves torch's random state as it was.

    Parameters
    ----------
    spec : BackboneSpec

    Raises
    ------
    AssertionError
        For the first requirement that is not met; the message names the field or block, and what
        it must be.

    Examples
    --------
    >>> from wbcclf.backbones import check_backbone, get_backbone
    >>> check_backbone(get_backbone("simple_cnn"))
    """
    import torch

    _check_fields(spec)
    with torch.random.fork_rng():
        _check_blocks(spec)
        smallest = torch.rand(2, 3, spec.smallest_size, spec.smallest_size) * 2 - 1
        larger = torch.rand(2, 3, spec.smallest_size + 13, spec.smallest_size + 29) * 2 - 1
        _check_building(spec, smallest)
        _check_features(spec, smallest)
        _check_features(spec, larger)
        _check_files(spec, larger)
        _check_training(spec, larger)


def _require(condition: bool, message: str) -> None:
    if not condition:  # not `assert`, which python -O leaves out
        raise AssertionError(message)


def _check_fields(spec: BackboneSpec) -> None:
    _require(isinstance(spec, BackboneSpec), f"{spec!r} must be a BackboneSpec.")
    fields: list[tuple[str, Callable[[Any], object], str]] = [
        ("name", lambda v: isinstance(v, str) and v.split() == [v], "a string without spaces"),
        ("build", callable, "callable: () -> torch.nn.Module"),
        ("blocks", callable, "callable: (network) -> dict of block names and blocks"),
        ("convert", lambda v: v is None or callable(v), "None or callable"),
        ("paper", lambda v: isinstance(v, str) and v, "a string: where the network was published"),
        (
            "version",
            lambda v: v is None or (isinstance(v, str) and v),
            "None or a string, like '1'",
        ),
        ("input_size", _is_size, "a positive int (pixels)"),
        ("smallest_size", _is_size, "a positive int (pixels)"),
        ("mean", _is_triple, "a tuple of 3 numbers from 0 to 1, the scale of the pixels"),
        ("std", lambda v: _is_triple(v) and min(v) > 0, "a tuple of 3 numbers above 0, up to 1"),
        ("weights", _is_sources, "a dict of tags (strings) to WeightsSource or PackagedWeights"),
    ]
    for name, is_valid, allowed in fields:
        value = getattr(spec, name)
        _require(
            bool(is_valid(value)), f"{spec.name}: {name} must be {allowed}, but it is {value!r}."
        )
    _require(
        spec.smallest_size <= spec.input_size,
        f"{spec.name}: smallest_size ({spec.smallest_size}) is above input_size "
        f"({spec.input_size}).",
    )


def _call(spec: BackboneSpec, what: str, function: Callable, *args: object) -> Any:
    try:
        return function(*args)
    except Exception as error:
        raise AssertionError(
            f"{spec.name}: {what} fails with {type(error).__name__}: {error}."
        ) from error


def _is_size(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_triple(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(isinstance(number, Real) for number in value)
        and all(0 <= number <= 1 for number in value)
    )


def _is_sources(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(tag, str) and isinstance(source, WeightsSource | PackagedWeights)
        for tag, source in value.items()
    )


def _check_blocks(spec: BackboneSpec) -> None:
    from torch import nn

    network = _call(spec, "build()", spec.build)
    _require(
        isinstance(network, nn.Module),
        f"{spec.name}: build() must return a torch.nn.Module, but it returns {type(network)}.",
    )
    blocks = _call(spec, "blocks(network)", spec.blocks, network)
    _require(
        isinstance(blocks, dict) and len(blocks) > 0,
        f"{spec.name}: blocks(network) must return a dict with at least one block.",
    )
    own = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    owners: dict[int, str] = {}
    for name, block in blocks.items():
        usable = isinstance(name, str) and name not in ("", "all", "head") and "." not in name
        _require(
            usable and not name.isdecimal() and not hasattr(nn.Sequential, name),
            f"{spec.name}: {name!r} cannot be the name of a block: it must be a string without a "
            "dot, not a number, not 'all', not 'head', not an attribute of torch.nn.Sequential.",
        )
        _require(
            isinstance(block, nn.Module) and len(list(block.parameters())) > 0,
            f"{spec.name}: block {name!r} must be a torch.nn.Module with weights; layers without "
            "any belong to the block before them.",
        )
        tensors = block.state_dict(keep_vars=True)
        for key, tensor in tensors.items():
            _require(
                id(tensor) not in owners,
                f"{spec.name}: blocks {owners.get(id(tensor))!r} and {name!r} share a weight "
                f"({key}): one could not be frozen without the other.",
            )
            _require(
                id(tensor) in own,
                f"{spec.name}: {key} of block {name!r} is not in the network's state_dict, so "
                "weights files cannot hold it. Make it in build, not in blocks.",
            )
        owners.update((id(tensor), name) for tensor in tensors.values())


def _make(spec: BackboneSpec, images: Tensor, seed: int = 0) -> tuple[nn.Module, nn.Sequential]:
    """Return a network and its chain in eval mode.

    The chain has seen images: there are layers that learn from the first ones how large they are.
    """
    import torch
    from torch import nn

    torch.manual_seed(seed)
    network = spec.build()
    chain = nn.Sequential(OrderedDict(spec.blocks(network))).eval()
    _run(spec, chain, images)
    return network, chain


def _run(spec: BackboneSpec, chain: nn.Sequential, images: Tensor) -> Tensor:
    """Return the features, checking what goes from block to block."""
    import torch

    x = images
    for name, block in chain.named_children():
        shape = tuple(x.shape)
        before = x.detach().clone()
        try:
            with torch.set_grad_enabled(chain.training and next(block.parameters()).requires_grad):
                y = block(x)
        except Exception as error:
            raise AssertionError(
                f"{spec.name}: block {name!r} fails on a tensor of shape {shape}, for images of "
                f"{images.shape[2]}x{images.shape[3]} pixels ({type(error).__name__}: {error}). "
                f"The chain must take all sizes from smallest_size={spec.smallest_size} on."
            ) from error
        _require(
            torch.is_tensor(y) and y.is_floating_point() and len(y) == len(x),
            f"{spec.name}: block {name!r} must return one tensor of floats with the images on the "
            f"first axis, but for {len(x)} images it returns {_kind(y)}.",
        )
        _require(
            torch.equal(before, x.detach()),
            f"{spec.name}: block {name!r} changes the tensor that it is given. Its first layer "
            "must not work in place.",
        )
        x = y
    return x


def _kind(value: object) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return str(type(value)) if shape is None else f"a tensor of {dtype}, shape {tuple(shape)}"


def _check_building(spec: BackboneSpec, images: Tensor) -> None:
    (first, _), (second, _) = _make(spec, images), _make(spec, images)
    ours, theirs = first.state_dict(keep_vars=True), second.state_dict(keep_vars=True)
    shared = {id(tensor) for tensor in ours.values()} & {id(tensor) for tensor in theirs.values()}
    _require(
        first is not second and not shared,
        f"{spec.name}: build() must make a fresh network every time, but two of them share "
        "weights.",
    )
    _require(
        _same(ours, theirs),
        f"{spec.name}: two networks built after the same torch.manual_seed must have equal "
        "weights: draw them from torch's global random state alone.",
    )


def _check_features(spec: BackboneSpec, images: Tensor) -> None:
    _, chain = _make(spec, images)
    features, again, alone = (_run(spec, chain, x) for x in (images, images, images[:1]))
    _require(
        features.ndim in (2, 3, 4) and features.numel() > 0,
        f"{spec.name}: the features must be maps (n, channels, height, width), tokens (n, tokens, "
        f"channels) or vectors (n, channels), but their shape is {tuple(features.shape)}.",
    )
    _require(
        str(features.dtype) == "torch.float32",
        f"{spec.name}: the features of float32 images must be float32, but are {features.dtype}.",
    )
    _require(bool(features.isfinite().all()), f"{spec.name}: the features of noise are not finite.")
    _require(
        _close(features, again),
        f"{spec.name}: in eval mode the same images must have the same features every time.",
    )
    _require(
        _close(features[:1], alone),
        f"{spec.name}: in eval mode an image's features must not depend on the other images of "
        "the batch.",
    )


def _check_files(spec: BackboneSpec, images: Tensor) -> None:
    """Check that weights come back from a file, and that the chain can be pickled."""
    import torch
    from safetensors.torch import save_file

    from wbcclf.backbones._chain import build_chain

    network, chain = _make(spec, images)
    _run(spec, chain.train(), images)  # what is learnt without a gradient is to be in the file, too
    chain.eval()
    try:
        pickle.dumps(chain)
    except Exception as error:
        raise AssertionError(
            f"{spec.name}: the blocks must be picklable, or classifiers can be neither copied to "
            f"other processes nor dumped ({type(error).__name__}: {error}). Define their classes "
            "and functions at the top level of a module."
        ) from error
    keys = {id(tensor): key for key, tensor in network.state_dict(keep_vars=True).items()}
    tensors = chain.state_dict(keep_vars=True).values()
    state = {keys[id(tensor)]: tensor.detach().contiguous() for tensor in tensors}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.safetensors")
        try:
            save_file(state, path)
            torch.manual_seed(1)
            loaded, report = build_chain(spec, path)
        except Exception as error:
            raise AssertionError(
                f"{spec.name}: the network's own weights cannot be saved and loaded again "
                f"({type(error).__name__}: {error})."
            ) from error
    assert report is not None  # weights were given
    _require(
        not report.missing,
        f"{spec.name}: of the network's own weights, {report.missing[:3]} were not loaded again. "
        "`convert` must leave the network's own keys as they are.",
    )
    _require(
        _close(_run(spec, chain, images), _run(spec, loaded.eval(), images)),
        f"{spec.name}: a network with the same weights gives other features. What the features "
        "depend on must be in parameters or buffers of the state_dict.",
    )


def _check_training(spec: BackboneSpec, images: Tensor) -> None:
    """Check one training step of the last block above a frozen rest."""
    import torch

    _, chain = _make(spec, images)
    names = [name for name, _ in chain.named_children()]
    frozen, last = chain[:-1], chain[-1]
    chain.train()
    frozen.requires_grad_(False).eval()
    before = {key: tensor.clone() for key, tensor in frozen.state_dict().items()}
    features = _run(spec, chain, images)
    _require(
        features.requires_grad,
        f"{spec.name}: no gradient reaches block {names[-1]!r}, so it cannot be trained.",
    )
    (features * torch.randn_like(features)).sum().backward()
    for key, parameter in last.named_parameters():
        _require(
            parameter.grad is not None,
            f"{spec.name}: no gradient reaches {key} of block {names[-1]!r}, so it cannot be "
            "trained.",
        )
    torch.optim.SGD(last.parameters(), lr=0.1).step()
    _require(
        _same(before, frozen.state_dict()),
        f"{spec.name}: a training step of block {names[-1]!r} changed the frozen blocks below it. "
        "In eval mode, running must not change a block.",
    )


def _same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    import torch

    return ours.keys() == theirs.keys() and all(
        torch.equal(tensor, theirs[key]) for key, tensor in ours.items()
    )


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """Return whether features agree but for rounding, which differs with the batch size."""
    return ours.shape == theirs.shape and bool(
        (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()
    )

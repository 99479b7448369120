"""Backbones built from timm's networks, laid out as chains.

Only the entry points ``xception`` and ``timm`` of this package load this file: timm is an optional
dependency, and is loaded like any plugin. The blocks *are* timm's own
modules, so weights made for timm load under their own keys.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, partial

import torch
from torch import Tensor, nn

from wbcclf.backbones._base import LR_PRETRAINED, BackboneSpec, WeightsSource

try:
    import timm
    from timm.layers import resample_abs_pos_embed
    from timm.models import PretrainedCfg
except ModuleNotFoundError as error:
    raise ImportError(
        "The backbones 'xception' and 'timm:...' come from timm, which is not installed: "
        'pip install "wbcclf[timm]"'
    ) from error

# Where the features of timm's networks end and their heads begin.
_HEAD = {"global_pool", "pre_logits", "fc_norm", "head_drop", "head"}
# Smallest sizes that are tried, in pixels.
_SIZES = (32, 64, 96, 128, 192, 224, 256)


def timm_backbone(name: str) -> BackboneSpec:
    """Return one of timm's networks as a chain; the entry point ``timm`` loads to this function.

    The layout is found by rules and then proven: with random weights, on images of two sizes, the
    chain must give what the network's own ``forward_features`` gives.

    Parameters
    ----------
    name : str
        A name of ``timm.list_models()``, like ``"vit_small_patch14_dinov2"``; or with the tag of
        the weights whose preprocessing is wanted, like ``"vit_base_patch16_224.dino"``.

    Raises
    ------
    ValueError
        If timm has no such network, or it cannot be laid out as a chain.
    """
    for spec in _drafts(name):
        try:
            return replace(spec, smallest_size=_smallest_size(spec))
        except ValueError as error:
            fault = error
    raise ValueError(
        f"timm's {name} cannot be laid out as a chain of blocks that takes images of any size: "
        f"{str(fault).rstrip('.')}. Use a network of another family, like 'timm:convnext_atto' or "
        "'timm:vit_small_patch14_dinov2'."
    )


@cache
def _drafts(name: str) -> tuple[BackboneSpec, ...]:
    """Return both ways in which a network may be laid out; nothing is built."""
    known = {*timm.list_models(), *timm.list_models(include_tags=True)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean 'timm:{near[0]}'?" if near else ""
        raise ValueError(
            f"Unknown backbone 'timm:{name}': timm {timm.__version__} has no such network. "
            f"timm.list_models() lists them.{hint}"
        )
    return tuple(_spec(f"timm:{name}", name, through_stages) for through_stages in (True, False))


# For wbcclf.backbones._registry.draft_backbones; mypy knows no attributes of functions.
timm_backbone.drafts = _drafts  # type: ignore[attr-defined]


def _spec(name: str, timm_name: str, through_stages: bool) -> BackboneSpec:
    facts = _facts(timm_name)
    file = timm.models.model_entrypoint(timm_name).__module__.rpartition(".")[2]
    places = (facts.paper_ids, facts.origin_url, f"timm's {file}.py")
    return BackboneSpec(
        name=name,
        build=partial(_build, timm_name),
        blocks=partial(_blocks, through_stages=through_stages),
        input_size=facts.input_size[-1],
        smallest_size=_SIZES[0],
        mean=_triple(facts.mean),
        std=_triple(facts.std),
        paper=", ".join(str(place) for place in places if place),
        weights=_weights(timm_name),
        convert=_convert,
        lr=LR_PRETRAINED,
        version=f"timm {timm.__version__}",
    )


def _facts(timm_name: str) -> PretrainedCfg:
    facts = timm.get_pretrained_cfg(timm_name)
    assert facts is not None  # the name is one of timm's
    return facts


def _triple(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _build(timm_name: str) -> nn.Module:
    try:  # only vision transformers know these arguments, and need them to take other sizes
        return timm.create_model(
            timm_name, num_classes=0, dynamic_img_size=True, dynamic_img_pad=True
        )
    except TypeError:
        return timm.create_model(timm_name, num_classes=0)


# ---------------------------------------------------------------- the layout


class _Embedding(nn.Module):
    """A vision transformer without its blocks: images in, tokens with their positions out."""

    def __init__(self, network: nn.Module, without: list[str]) -> None:
        super().__init__()
        self.network = copy.copy(network)
        kept = {name: part for name, part in network.named_children() if name not in without}
        # An empty Sequential gives back what it is given, and has nothing to iterate over.
        self.network._modules = {**kept, **{name: nn.Sequential() for name in without}}

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (n, tokens, channels) of images (n, 3, height, width)."""
        return self.network.forward_features(images)  # type: ignore[operator]  # timm's method


def _blocks(network: nn.Module, through_stages: bool) -> dict[str, nn.Module]:
    """Make a block of each layer that has kernels; normalisation, activation, pooling stay with it.

    Names are timm's own, with underscores for dots; a vision transformer's are ``embedding`` and
    ``block1`` to the last.
    """
    grouped: dict[str, list[nn.Module]] = {}
    for name, module in _layers(network, through_stages):
        if grouped and all(parameter.ndim < 2 for parameter in module.parameters()):
            grouped[next(reversed(grouped))].append(module)
        else:
            grouped[name] = [module]
    return {
        name: modules[0] if len(modules) == 1 else nn.Sequential(*modules)
        for name, modules in grouped.items()
    }


def _layers(network: nn.Module, through_stages: bool) -> Iterator[tuple[str, nn.Module]]:
    children = list(network.named_children())
    names = [name for name, _ in children]
    end = next((place for place, name in enumerate(names) if name in _HEAD), len(names))
    start = 0
    # Tokens and positions are parameters of the network itself, outside all of its parts.
    if list(network.parameters(recurse=False)) and "blocks" in names:
        start = names.index("blocks") + 1
        yield "embedding", _Embedding(network, without=names[start - 1 :])
        for number, block in enumerate(network.get_submodule("blocks").children(), start=1):
            yield f"block{number}", block
    for name, module in children[start:end]:
        yield from _unpacked(name, module, through_stages)


def _unpacked(
    name: str, module: nn.Module, through_stages: bool
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a container of blocks, or the module itself if it is none.

    Containers are Sequentials and lists, and if `through_stages` is set what looks like one stage
    of a network: a module with a container called `blocks`. A Sequential of plain layers (a stem of
    convolution and normalisation) is one block.
    """
    plain = isinstance(module, nn.ModuleList) or type(module).forward is nn.Sequential.forward
    stage = through_stages and isinstance(
        getattr(module, "blocks", None), (nn.Sequential, nn.ModuleList)
    )
    children = list(module.named_children())
    if (plain or stage) and any(list(child.children()) for _, child in children):
        for part, child in children:
            yield from _unpacked(f"{name}_{part}", child, through_stages)
    else:
        yield name, module


def _smallest_size(spec: BackboneSpec) -> int:
    """Return the smallest size at which, and above which, the chain gives the network's features.

    Raises
    ------
    ValueError
        If there is none; the message gives the reason.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), torch.no_grad():
        torch.manual_seed(0)
        network = spec.build().eval()
        for tensor in network.state_dict().values():
            # Zeros and ones that networks start from (tokens, scales, BatchNorm's statistics) would
            # hide that a chain leaves them out. Kernels add up: they take less.
            if tensor.is_floating_point():
                tensor.add_((0.1 if tensor.ndim < 2 else 0.02) * torch.randn_like(tensor))
        chain = nn.Sequential(OrderedDict(spec.blocks(network))).eval()
        for size in _SIZES:
            try:
                for height, width in ((size, size), (size + 37, size + 13)):
                    _compare(network, chain, torch.randn(2, 3, height, width))
            except Exception as error:  # networks have many ways to say that a size is too small
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                fault = f"with images of {size} pixels, {reason}"
            else:
                return size
    raise ValueError(fault)


def _compare(network: nn.Module, chain: nn.Module, images: Tensor) -> None:
    expected = network.forward_features(images.clone())  # type: ignore[operator]  # timm's method
    given = chain(images)
    shape = tuple(expected.shape)
    if not (
        (len(shape) == 4 and shape[1] == network.num_features)
        or (len(shape) == 3 and shape[2] == network.num_features)
    ):
        raise ValueError(
            f"its features have the shape {shape}; they must be maps (n, channels, height, width) "
            f"or tokens (n, tokens, channels) with {network.num_features} channels"
        )
    if given.shape != shape or not (given - expected).abs().max() < 1e-5 * expected.std():
        raise ValueError("its layers, one after the other, do not give its features")


# ---------------------------------------------------------------- weights


def _weights(timm_name: str) -> dict[str, WeightsSource]:
    """Return the sources of all weights with this network's preprocessing, by timm's tags."""
    facts = _facts(timm_name)
    sources = {}
    for tagged in timm.list_pretrained(f"{facts.architecture}.*"):
        other = _facts(tagged)
        if (other.mean, other.std) == (facts.mean, facts.std):
            sources[str(other.tag)] = _source(other)
    # The tag of ImageNet weights names its size: 1 thousand classes, or all 12, 21 or 22 thousand.
    tag = str(facts.tag)
    if tag in sources and re.search(r"in(1|12|21|22)k", tag):
        sources["imagenet"] = sources[tag]
    return sources


def _source(facts: PretrainedCfg) -> WeightsSource:
    url = str(facts.url)
    if facts.hf_hub_id:  # timm's own order: the hub comes first
        file = facts.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{facts.hf_hub_id}/resolve/main/{file}"
    # torch's custom: the file name ends in the first digits of the SHA-256.
    digits = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    return WeightsSource(url, digits[1] if digits else "", facts.license or "not stated")


def _convert(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Bring a state dict to timm's keys and to the network's grid of positions."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    converted = convert(dict(state), network)
    given, enlarged = state.get("pos_embed"), converted.get("pos_embed")
    if given is not None and enlarged is not None and enlarged.shape[1] > given.shape[1]:
        converted["pos_embed"] = _faithful_positions(given, enlarged)
    return converted


def _faithful_positions(given: Tensor, enlarged: Tensor) -> Tensor:
    """Correct enlarged positions (1, n, channels) until shrinking them again gives the given ones.

    A network made for 518 pixels shrinks its 37x37 positions for 224 pixels. Weights with 16x16
    positions of their own, trained at 224 pixels, would be blurred by the way there and back. So
    what is lost is added again and again, until nothing is (Irani and Peleg 1991, iterative
    back-projection, https://doi.org/10.1016/1049-9652(91)90045-L).
    """
    old, new = math.isqrt(given.shape[1]), math.isqrt(enlarged.shape[1])
    wanted = given[:, given.shape[1] - old**2 :]  # tokens for class and registers come first
    others, positions = enlarged.split((enlarged.shape[1] - new**2, new**2), dim=1)
    resize = partial(resample_abs_pos_embed, num_prefix_tokens=0)
    for _ in range(60):
        lost = wanted - resize(positions, new_size=(old, old))
        positions = positions + resize(lost, new_size=(new, new))
    return torch.cat([others, positions], dim=1)


# Written down rather than proven on loading; the tests do that.
XCEPTION = replace(
    _spec("xception", "legacy_xception", through_stages=True),
    paper="Chollet 2016, https://arxiv.org/abs/1610.02357",
)

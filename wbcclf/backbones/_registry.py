"""The backbones there are, by name."""

from __future__ import annotations

from difflib import get_close_matches

from wbcclf.backbones._base import BackboneSpec
from wbcclf.backbones._scratch import SCRATCH
from wbcclf.backbones._torchvision import TORCHVISION

_BACKBONES: dict[str, BackboneSpec] = {}


def register_backbone(spec: BackboneSpec) -> None:
    """Make a backbone known under its name.

    Raises
    ------
    ValueError
        If a backbone of that name is registered already.
    """
    if spec.name in _BACKBONES:
        raise ValueError(f"A backbone named {spec.name!r} is registered already.")
    _BACKBONES[spec.name] = spec


def list_backbones() -> list[str]:
    """Return the names of all backbones, sorted.

    Examples
    --------
    >>> from wbcclf.backbones import list_backbones
    >>> list_backbones()
    ['resnet18', 'simple_cnn', 'squeezenet1_1', 'vgg16']
    """
    return sorted(_BACKBONES)


def get_backbone(name: str) -> BackboneSpec:
    """Return the backbone registered under `name`.

    Raises
    ------
    ValueError
        If there is none; the message lists the names and suggests the nearest.
    """
    try:
        return _BACKBONES[name]
    except KeyError:
        near = get_close_matches(str(name), _BACKBONES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Unknown backbone {name!r}; there are {', '.join(list_backbones())}.{hint}"
        ) from None


for _spec in (*SCRATCH, *TORCHVISION):
    register_backbone(_spec)

"""All backbones by name: built in, registered, and offered by installed packages."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from importlib import metadata
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from wbcclf._warnings import warn
from wbcclf.backbones._base import BackboneSpec
from wbcclf.backbones._compact import COMPACT
from wbcclf.backbones._scratch import SCRATCH
from wbcclf.backbones._torchvision import TORCHVISION
from wbcclf.exceptions import BrokenPluginWarning

if TYPE_CHECKING:
    from wbcclf.backbones._scratch import ConvNet

A_BACKBONE = (
    "a name of wbcclf.backbones.list_backbones() or an object with a method spec(), like ConvNet. "
    "To use your own torch module, call register_backbone(BackboneSpec(name=..., build=..., "
    "blocks=..., ...)), which says how to build it and what its blocks are: see docs/plugins.md"
)
_GROUP = "wbcclf.backbones"
_BACKBONES: dict[str, BackboneSpec] = {}
_OUR_ENTRY_POINTS = ("timm", "xception")
_LOADED: dict[str, BackboneSpec] = {}  # from entry points, which are asked once for each name


def register_backbone(spec: BackboneSpec) -> None:
    """Make a backbone available under its name in this process.

    A package makes its backbones available to every process with an entry point of the group
    ``wbcclf.backbones`` instead; see the page on plugins.

    Raises
    ------
    TypeError
        If it is no BackboneSpec.
    ValueError
        If that name is taken, or is not allowed.
    """
    if not isinstance(spec, BackboneSpec):
        raise TypeError(f"{spec!r} must be a BackboneSpec.")
    if ":" in spec.name:
        raise ValueError(
            f"{spec.name!r}: give a name without a colon, which marks a plugin's family."
        )
    if spec.name in {*_BACKBONES, *_OUR_ENTRY_POINTS}:
        raise ValueError(f"A backbone named {spec.name!r} is registered already.")
    _BACKBONES[spec.name] = spec


def list_backbones() -> list[str]:
    """Return the names of all backbones, sorted.

    Backbones of installed packages are listed by the name of their entry point, without importing
    the package. The entry point of a family of networks stands for all of them:
    ``"timm"`` for ``"timm:resnet10t"`` and the like.

    Warns
    -----
    BrokenPluginWarning
        If packages offer a name that is taken, by a built-in backbone or by each other.

    Examples
    --------
    >>> from wbcclf.backbones import list_backbones
    >>> "vgg16" in list_backbones()
    True
    """
    offers: dict[str, list[EntryPoint]] = {}
    for point in metadata.entry_points(group=_GROUP):
        offers.setdefault(point.name, []).append(point)
    for name, points in offers.items():
        theirs = [point for point in points if not _is_ours(point)]
        if theirs and (name in _BACKBONES or len(theirs) < len(points)):
            fault = "that name is taken by wbcclf and cannot be replaced"
        elif len(theirs) > 1:
            fault = "the name is ambiguous; uninstall all but one of these packages"
        else:
            continue
        warn(
            f"The backbone {name!r} of {' and '.join(map(_origin, theirs))} cannot be used: "
            f"{fault}.",
            BrokenPluginWarning,
        )
    return sorted({*_BACKBONES, *offers})


def get_backbone(backbone: str | ConvNet) -> BackboneSpec:
    """Return the backbone of that name, or of a network object.

    A name that is not registered is looked up among the entry points of installed packages; of a
    name ``"family:rest"``, the entry point ``family`` is asked for ``rest``.

    Parameters
    ----------
    backbone : str or ConvNet
        A name of :func:`list_backbones`, ``"timm:NAME"`` for a network of timm, or an object with a
        method ``spec()`` that returns a :class:`BackboneSpec`.

    Raises
    ------
    TypeError
        If it is neither, like a torch module; the message says how to make one a backbone.
    ValueError
        If there is no backbone of that name (the message lists the names and suggests the
        nearest), or several packages offer it.
    ImportError
        If it needs timm, which is not installed.

    Warns
    -----
    BrokenPluginWarning
        If a package offers it, but fails to import or returns something else.

    Examples
    --------
    >>> from wbcclf.backbones import get_backbone
    >>> get_backbone("vgg16").smallest_size
    32
    """
    if hasattr(backbone, "spec"):
        return backbone.spec()
    if not isinstance(backbone, str):
        raise TypeError(f"A backbone must be {A_BACKBONE}. Got a {type(backbone).__name__}.")
    backbone = str(backbone)  # a NumPy string, too
    for known in (_BACKBONES, _LOADED):
        if backbone in known:
            return known[backbone]
    spec = _load(backbone)
    if spec is None:
        offered = metadata.entry_points(group=_GROUP).names
        names = sorted({*_BACKBONES, *offered} - {backbone})  # it may be a broken plugin's
        near = get_close_matches(backbone, names, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown backbone {backbone!r}; there are {', '.join(names)}.{hint}")
    _LOADED[spec.name] = spec
    return spec


def draft_backbones(name: str) -> tuple[BackboneSpec, ...]:
    """Return the specs that a name may stand for, if finding out is expensive.

    :func:`get_backbone` builds and runs a network of timm to see how it is laid out. A file that
    names one is compared with these drafts first.
    """
    family, _, rest = name.partition(":")
    if not rest or name in _LOADED:
        return ()
    ours = filter(_is_ours, metadata.entry_points(group=_GROUP, name=family))
    return next((point.load().drafts(rest) for point in ours), ())


def backbone_package(name: str) -> str | None:
    """Return the package whose entry point offers a backbone; None if wbcclf or a script does."""
    points = metadata.entry_points(group=_GROUP, name=name.partition(":")[0])
    if name in _BACKBONES or not points or any(map(_is_ours, points)):
        return None
    return next((point.dist.name for point in points if point.dist is not None), None)


def _load(name: str) -> BackboneSpec | None:
    """Return what an entry point gives for `name`; None without one, or with a warning."""
    family, colon, rest = name.partition(":")
    points = list(metadata.entry_points(group=_GROUP, name=family))
    points = [point for point in points if _is_ours(point)] or points
    if not points:
        return None
    if len(points) > 1:
        raise ValueError(
            f"The backbone {name!r} is offered by {' and '.join(map(_origin, points))}. Uninstall "
            "all but one of these packages."
        )
    point = points[0]
    try:
        offer = point.load()
    except (Exception, SystemExit) as error:
        if _is_ours(point):  # timm is missing, and the error says what to install
            raise
        _broken(point, name, f"{type(error).__name__}: {error}")
        return None
    is_family = callable(offer)
    if is_family and not rest:
        raise ValueError(
            f"{family!r} is a family of networks: give {family!r}, a colon and the network's name."
        )
    if colon and not is_family:
        raise ValueError(f"Unknown backbone {name!r}: {family!r} is one network, not a family.")
    try:
        spec = offer(rest) if is_family else offer
    except (Exception, SystemExit) as error:
        if _is_ours(point):
            raise
        if isinstance(error, ValueError):  # the family's own word on a name that it does not know
            raise ValueError(f"The backbone {name!r} of {_origin(point)}: {error}") from error
        _broken(point, name, f"{type(error).__name__}: {error}")
        return None
    if not isinstance(spec, BackboneSpec):
        _broken(point, name, f"it returns {spec!r} instead of a BackboneSpec")
        return None
    if spec.name != name:
        _broken(point, name, f"its BackboneSpec has the name {spec.name!r}")
        return None
    if spec.version is None and point.dist is not None:
        spec = replace(spec, version=f"{point.dist.name} {point.dist.version}")
    return spec


def _broken(point: EntryPoint, name: str, fault: str) -> None:
    warn(
        f"The backbone {name!r} of {_origin(point)} cannot be used: {fault}. Update or uninstall "
        "that package.",
        BrokenPluginWarning,
    )


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == "wbcclf"


def _origin(point: EntryPoint) -> str:
    package = "an unknown package" if point.dist is None else point.dist.name
    return f"{package} (entry point {point.name} = {point.value})"


for _spec in (*SCRATCH, COMPACT, *TORCHVISION):
    register_backbone(_spec)

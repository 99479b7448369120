"""What a backbone is: how to build a chain of named blocks, and the facts about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from wbcclf.backbones._head import Head

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# All blocks are trained by default: on white blood cells that was far better than training the last
# one, on every data set measured (docs/training.md). Pretrained features are easily unlearnt.
LR_PRETRAINED = 3e-4


@dataclass(frozen=True)
class WeightsSource:
    """Where pretrained weights come from.

    Attributes
    ----------
    url : str
        Address of a ``torch.save``-d state dict with the original network's keys.
    sha256 : str
        The first hexadecimal digits of the SHA-256 of the file; a file that differs is refused.
    licence : str
        The terms the weights are published under.
    """

    url: str
    sha256: str
    licence: str

    @property
    def file_name(self) -> str:
        """Name of the file in the cache folder."""
        path = self.url.partition("?")[0]
        if "/resolve/" in path:  # a model hub: every repository's file has the same name
            repository, _, file = path.partition("/resolve/")
            return "_".join([*repository.split("/")[-2:], file.rsplit("/", 1)[-1]])
        return path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class PackagedWeights:
    """Pretrained weights that come with a package.

    Attributes
    ----------
    path : pathlib.Path
        A file as ``CNNClassifier(weights=path)`` takes it.
    licence : str
        The terms the weights are published under, and whose pictures they were trained on.
    """

    path: Path
    licence: str


@dataclass(frozen=True)
class WeightsReport:
    """What a network took from a weights file.

    Attributes
    ----------
    source : str
        The file.
    loaded, missing : tuple of str
        Tensors of the chain (``"block.rest"``) that came from the file, and those that it lacks;
        these are freshly initialised.
    unused : tuple of str
        Tensors of the file, by their names in it, that the chain does not use, such as the head.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]


@dataclass(frozen=True)
class BackboneSpec:
    """A network without its head, as a chain of blocks in execution order.

    Attributes
    ----------
    name : str
        The name that ``CNNClassifier(backbone=name)`` takes.
    build : callable
        ``() -> torch.nn.Module``: the original network, freshly initialised from torch's global
        random state. Its ``state_dict`` keys are the ones that weight files use.
    blocks : callable
        ``(network) -> dict[str, torch.nn.Module]``: block names and blocks, first to last. Each
        block takes one tensor and returns one. The last one returns the network's features: maps
        (n, channels, height, width), tokens (n, tokens, channels) or vectors (n, channels).
    input_size : int
        Height and width in pixels that the network was designed for.
    smallest_size : int
        Smallest height and width in pixels that the chain can take.
    mean, std : tuple of 3 floats
        Mean and standard deviation of the RGB channels, by which they are normalised after scaling
        to 0-1.
    paper : str
        Where the network was published.
    weights : dict
        Tag (``"imagenet"``) to :class:`WeightsSource`, or to :class:`PackagedWeights`.
    convert : callable or None
        ``(state, network) -> state``: converts weights that were published in another layout to the
        network's own keys and shapes (a vision transformer's positions for another image size).
    head : Head
        The default head on top of the chain.
    lr : float
        The default learning rate, > 0.
    version : str or None
        Version of the network's code. Results on disk (``memory=``) are found by name and version:
        raise it when the network's code changes. Without one, nothing of the network is kept on
        disk. The entry point of a package may leave it out: then the version of the package is
        used. ``dataclasses.replace`` copies it, so give the changed network another one.

    See Also
    --------
    register_backbone : Makes the network available by its name; with an example.
    check_backbone : Tests it.
    """

    name: str
    build: Callable[[], nn.Module]
    blocks: Callable[[nn.Module], dict[str, nn.Module]]
    input_size: int
    smallest_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    paper: str
    weights: Mapping[str, WeightsSource | PackagedWeights] = field(default_factory=dict)
    convert: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None
    head: Head = field(default_factory=Head)
    lr: float = 1e-3
    version: str | None = None

    @property
    def default_weights(self) -> str | None:
        """The weights to start from: ImageNet's, or the first there are, or None: random ones."""
        return "imagenet" if "imagenet" in self.weights else next(iter(self.weights), None)

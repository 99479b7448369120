"""A backbone's blocks as a table: names, sizes, and what training the top ones means."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING

from wbcclf._images import check_image_size
from wbcclf.backbones._base import BackboneSpec
from wbcclf.backbones._registry import get_backbone

if TYPE_CHECKING:
    from wbcclf.backbones._scratch import ConvNet


@dataclass(frozen=True)
class BlockDescription:
    """One block of a chain.

    Attributes
    ----------
    name : str
    n_parameters : int
    output_shape : tuple of int
        For one image: (channels, height, width), (tokens, channels) or (channels,).
    unfrozen_layers : int
        The number that trains this block and all above it.
    n_trained : int
        Parameters that are trained then, without the head's.
    """

    name: str
    n_parameters: int
    output_shape: tuple[int, ...]
    unfrozen_layers: int
    n_trained: int


@dataclass(frozen=True)
class BackboneDescription:
    """What :func:`describe` returns; as a text (``print``), and in a notebook, it is a table.

    Attributes
    ----------
    spec : BackboneSpec
    input_size : tuple (height, width)
        The image size in pixels that the output shapes are for.
    blocks : tuple of BlockDescription
        First to last.
    """

    spec: BackboneSpec
    input_size: tuple[int, int]
    blocks: tuple[BlockDescription, ...]

    def __str__(self) -> str:
        spec = self.spec
        weights = ", ".join(f"{tag!r} ({source.licence})" for tag, source in spec.weights.items())
        header = (
            ("paper", spec.paper),
            ("made for", f"{spec.input_size}x{spec.input_size} pixels"),
            ("takes", f"{spec.smallest_size}x{spec.smallest_size} pixels and more"),
            ("mean, std", f"{_rounded(spec.mean)}, {_rounded(spec.std)}"),
            ("weights", weights or "none"),
        )
        rows = [
            (
                block.name,
                f"{block.n_parameters:,}",
                "x".join(map(str, block.output_shape)),
                str(block.unfrozen_layers),
                f"{block.n_trained:,}",
            )
            for block in self.blocks
        ]
        at = "output at {}x{}".format(*self.input_size)
        titles = ("block", "parameters", at, "unfrozen_layers", "trained")
        widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
        lines = [spec.name, *(f"  {name:<10} {value}" for name, value in header)]
        for row in (titles, *rows):
            first, *others = (f"{cell:>{n}}" for cell, n in zip(row, widths, strict=True))
            lines.append("  ".join([f"{first.strip():<{widths[0]}}", *others]))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def describe(
    backbone: str | ConvNet, input_size: int | tuple[int, int] | None = None
) -> BackboneDescription:
    """Return a backbone's blocks, and what `unfrozen_layers` would train.

    Parameters
    ----------
    backbone : str or ConvNet
        As :class:`~wbcclf.CNNClassifier` takes it.
    input_size : int, (height, width) or None, default=None
        The image size in pixels that output shapes are given for; None is the size that the network
        was made for.

    Returns
    -------
    BackboneDescription

    Raises
    ------
    ValueError
        If there is no such backbone, or it does not take images of that size.

    Examples
    --------
    >>> from wbcclf.backbones import describe
    >>> description = describe("simple_cnn", input_size=64)
    >>> print(description)
    simple_cnn
      paper      this package; ...
      made for   128x128 pixels
      takes      1x1 pixels and more
      mean, std  (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
      weights    none
    block  parameters  output at 64x64  unfrozen_layers  trained
    conv1         464         16x32x32                5  393,104
    conv2       4,672         32x16x16                4  392,640
    conv3      18,560           64x8x8                3  387,968
    conv4      73,984          128x4x4                2  369,408
    conv5     295,424          256x2x2                1  295,424
    >>> description.blocks[-1].output_shape
    (256, 2, 2)
    """
    spec = get_backbone(backbone)
    height, width = check_image_size(input_size, "input_size") or (spec.input_size,) * 2
    if min(height, width) < spec.smallest_size:
        raise ValueError(
            f"input_size={input_size!r} is too small for {spec.name}, which needs at least "
            f"{spec.smallest_size} pixels."
        )
    try:  # no weight is made and nothing is calculated: as fast for a large network
        sizes = _sizes(spec, height, width, device="meta")
    except Exception:  # a network that looks at values, which say so in many ways
        sizes = _sizes(spec, height, width, device="cpu")
    names, counts, shapes = zip(*sizes, strict=True)
    trained = reversed(list(accumulate(reversed(counts))))
    numbers = range(len(names), 0, -1)
    blocks = map(BlockDescription, names, counts, shapes, numbers, trained)
    return BackboneDescription(spec, (height, width), tuple(blocks))


def _sizes(
    spec: BackboneSpec, height: int, width: int, device: str
) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return name, number of weights and output shape of every block."""
    import torch

    sizes = []
    with torch.random.fork_rng(devices=[]), torch.device(device), torch.no_grad():
        network = spec.build().eval()
        x = torch.zeros(1, 3, height, width)
        for name, block in spec.blocks(network).items():
            x = block(x)
            count = sum(parameter.numel() for parameter in block.parameters())
            sizes.append((name, count, tuple(x.shape[1:])))
    return sizes


def _rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 3) for value in values)

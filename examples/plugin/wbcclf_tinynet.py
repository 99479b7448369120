"""A network of two convolutions as a backbone for wbcclf."""

from torch import nn

from wbcclf.backbones import BackboneSpec


def build() -> nn.Module:
    """Return the network; what it is named here is what its weights are named in files."""
    return nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
    )


def blocks(network: nn.Module) -> dict[str, nn.Module]:
    """Name the units that are frozen or trained, first to last; activations stay with theirs."""
    return {"bottom": network[:2], "top": network[2:]}


TINYNET = BackboneSpec(
    name="tinynet",
    build=build,
    blocks=blocks,
    input_size=64,
    smallest_size=1,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    paper="an example",
)

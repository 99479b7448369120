"""check_backbone lets every kind of good backbone pass and names what is wrong with others."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from wbcclf.backbones import BackboneSpec, check_backbone, get_backbone

CHEAP = [
    *("simple_cnn", "mlp", "cnn_3block", "wide_deep", "sepconv", "field_cnn", "nine_class_cnn"),
    "compact_cnn",
    *("squeezenet1_1", "mobilenet_v3_small", "timm:test_convnext", "timm:test_vit"),
]


class TinyNet(nn.Module):
    """Two convolutions; subclasses break it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())


GOOD = BackboneSpec(
    name="tiny",
    build=TinyNet,
    blocks=lambda network: dict(network.named_children()),
    input_size=32,
    smallest_size=4,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    paper="none",
)


@pytest.mark.parametrize("name", CHEAP)
def test_good_backbones_pass_and_the_random_state_is_left_alone(name):
    spec = get_backbone(name)
    before = torch.get_rng_state()
    check_backbone(spec)
    assert torch.equal(torch.get_rng_state(), before)


class Vectors(nn.Module):
    """Features are vectors, and the last layer learns its input size from the first images."""

    def __init__(self):
        super().__init__()
        self.only = nn.Sequential(nn.Flatten(), nn.LazyLinear(5))


def test_vectors_of_a_layer_that_learns_its_size_pass():
    check_backbone(replace(GOOD, build=Vectors))


# ---------------------------------------------------------------- fields


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "two words"}, "name must be a string without spaces"),
        ({"blocks": {}}, "blocks must be callable"),
        ({"convert": "rename"}, "convert must be None or callable"),
        ({"paper": ""}, "paper must be a string"),
        ({"version": 1}, "version must be None or a string"),
        ({"version": ""}, "version must be None or a string"),
        ({"smallest_size": 0}, "smallest_size must be a positive int"),
        ({"smallest_size": 33}, r"smallest_size \(33\) is above input_size \(32\)"),
        ({"mean": (0.5, 0.5)}, "mean must be a tuple of 3"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be a tuple of 3 numbers above 0"),
        ({"weights": {"imagenet": "file.pth"}}, "weights must be a dict"),
    ],
)
def test_a_wrong_field_is_named(changes, fault):
    with pytest.raises(AssertionError, match=fault):
        check_backbone(replace(GOOD, **changes))


# ---------------------------------------------------------------- blocks


def blocks_named(*names):
    return replace(GOOD, blocks=lambda network: dict(zip(names, network.children(), strict=True)))


@pytest.mark.parametrize("name", ["all", "head", "a.b", "", "2", "append"])
def test_names_that_mean_something_else_are_refused(name):
    with pytest.raises(AssertionError, match=rf"{name!r} cannot be the name of a block"):
        check_backbone(blocks_named("first", name))


class Tied(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.third = nn.Conv2d(4, 4, 3, padding=1)
        self.third.weight = self.second[0].weight


class Activated(TinyNet):
    def __init__(self):
        super().__init__()
        self.third = nn.ReLU()


class InPlace(TinyNet):
    def __init__(self):
        super().__init__()
        self.second.insert(0, nn.ReLU(inplace=True))


class Pair(nn.Conv2d):
    def forward(self, x):
        return super().forward(x), x


class Pairs(TinyNet):
    def __init__(self):
        super().__init__()
        self.first = Pair(3, 4, 3)


class Strided(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 4, kernel_size=5)


class FixedSize(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = nn.Sequential(nn.Flatten(), nn.Linear(4 * 4 * 4, 8))


class AlwaysDropout(nn.Conv2d):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), training=True)


class Noisy(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = AlwaysDropout(4, 4, 3, padding=1)


class BatchMean(nn.Conv2d):
    def forward(self, x):
        return super().forward(x - x.mean(dim=0))


class Mixing(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = BatchMean(4, 4, 3, padding=1)


class Sequence(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)[..., None]


class FiveAxes(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = Sequence(4, 4, 3, padding=1)


class Infinite(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) / 0


class Dividing(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = Infinite(4, 4, 3, padding=1)


class Shifted(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.shift = torch.rand(1).item()

    def forward(self, x):
        return super().forward(x) + self.shift


class Hidden(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = Shifted(4, 4, 3, padding=1)


class Counting(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return super().forward(x)


class Drifting(TinyNet):
    def __init__(self):
        super().__init__()
        self.first = Counting(3, 4, 3, padding=1)


class Detached(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).detach() + self.bias.sum()


class Untrainable(TinyNet):
    def __init__(self):
        super().__init__()
        self.second = Detached(4, 4, 3, padding=1)


class Unpicklable(TinyNet):
    def __init__(self):
        super().__init__()
        self.second[0].scale = lambda x: x


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        (Tied, "blocks 'second' and 'third' share a weight"),
        (Activated, "block 'third' must be a torch.nn.Module with weights"),
        (InPlace, "block 'second' changes the tensor that it is given"),
        (Pairs, "block 'first' must return one tensor of floats"),
        (Strided, r"block 'second' fails on a tensor of shape \(2, 4, 4, 4\), .*smallest_size=4"),
        (FixedSize, "block 'second' fails .* for images of 17x33 pixels"),
        (Noisy, "the same images must have the same features"),
        (Mixing, "must not depend on the other images"),
        (FiveAxes, r"their shape is \(2, 4, 4, 4, 1\)"),
        (Dividing, "features of noise are not finite"),
        (Hidden, "with the same weights gives other features"),
        (Drifting, "changed the frozen blocks"),
        (Untrainable, "no gradient reaches weight of block 'second'"),
        (Unpicklable, "blocks must be picklable"),
    ],
)
def test_a_wrong_block_is_named(network, fault):
    with pytest.raises(AssertionError, match=fault):
        check_backbone(replace(GOOD, build=network))


# ---------------------------------------------------------------- building and files


def test_a_network_that_is_no_module_is_named():
    with pytest.raises(AssertionError, match=r"build\(\) must return a torch.nn.Module"):
        check_backbone(replace(GOOD, build=dict))


def test_no_blocks_at_all_is_named():
    with pytest.raises(AssertionError, match="a dict with at least one block"):
        check_backbone(replace(GOOD, blocks=lambda network: {}))


def test_the_same_network_twice_is_named():
    network = TinyNet()
    with pytest.raises(AssertionError, match="must make a fresh network every time"):
        check_backbone(replace(GOOD, build=lambda: network))


def test_weights_from_another_random_state_are_named():
    generator = torch.Generator().manual_seed(0)

    def build():
        network = TinyNet()
        with torch.no_grad():
            network.first.bias.normal_(generator=generator)
        return network

    with pytest.raises(AssertionError, match=r"after the same torch.manual_seed"):
        check_backbone(replace(GOOD, build=build))


def test_weights_made_outside_the_network_are_named():
    def blocks(network):
        return {**dict(network.named_children()), "third": nn.Conv2d(4, 4, 1)}

    with pytest.raises(AssertionError, match="'third' is not in the network's state_dict"):
        check_backbone(replace(GOOD, blocks=blocks))


@pytest.mark.parametrize(
    ("convert", "fault"),
    [
        (lambda state, network: {"first.weight": state["first.weight"]}, "were not loaded again"),
        (lambda state, network: state["other"], "cannot be saved and loaded again .*KeyError"),
    ],
)
def test_a_convert_that_loses_the_networks_own_weights_is_named(convert, fault):
    with pytest.raises(AssertionError, match=fault):
        check_backbone(replace(GOOD, convert=convert))

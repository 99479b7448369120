"""Chains compute what the original networks compute, and can be cut at every block."""

import pickle
from collections import OrderedDict
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

import wbcclf
from wbcclf.backbones import BackboneSpec, get_backbone, list_backbones
from wbcclf.backbones import register_backbone as register
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape
from wbcclf.backbones._scratch import SCRATCH
from wbcclf.backbones._torchvision import TORCHVISION

# Blocks of each network, counted in its paper's figures; and the parts of torchvision's network
# that come after its features.
NETWORKS = {
    "vgg16": (13, "avgpool", "classifier"),
    "vgg19": (16, "avgpool", "classifier"),
    "resnet18": (1 + 2 + 2 + 2 + 2, "avgpool", "fc"),
    "resnet34": (1 + 3 + 4 + 6 + 3, "avgpool", "fc"),
    "resnet50": (1 + 3 + 4 + 6 + 3, "avgpool", "fc"),
    "resnet101": (1 + 3 + 4 + 23 + 3, "avgpool", "fc"),
    "resnet152": (1 + 3 + 8 + 36 + 3, "avgpool", "fc"),
    "densenet121": (1 + 4 + 3, "classifier"),
    "densenet169": (1 + 4 + 3, "classifier"),
    "densenet201": (1 + 4 + 3, "classifier"),
    "inception_v3": (5 + 11, "avgpool", "dropout", "fc"),
    "mobilenet_v3_small": (1 + 11 + 1, "avgpool", "classifier"),
    "mobilenet_v3_large": (1 + 15 + 1, "avgpool", "classifier"),
    "efficientnet_b0": (1 + 1 + 2 + 2 + 3 + 3 + 4 + 1 + 1, "avgpool", "classifier"),
    "convnext_tiny": (1 + 3 + 3 + 9 + 3, "avgpool", "classifier"),
    "squeezenet1_1": (1 + 8, "classifier"),
}
every_network = pytest.mark.parametrize("name", NETWORKS)
# The longest of their families, of the same blocks: `make families` compares their features.
LONG = {"resnet101", "resnet152", "densenet169", "densenet201"}
small_ones = pytest.mark.parametrize("name", ["simple_cnn", "resnet18", "squeezenet1_1"])


def chain_of(name):
    torch.manual_seed(0)
    chain, _ = build_chain(get_backbone(name), None)
    return chain


def original(name):
    """Return torchvision's whole network, quickly: every weight drawn from one distribution.

    Weights in place of zeros, and BatchNorm statistics in place of 0 and 1, would show a layer
    that was left out or taken twice.
    """
    extra = {"aux_logits": True, "transform_input": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        network = getattr(models, name)(
            weights=None, **extra, **({"init_weights": False} if extra else {})
        )
    if name.startswith("vgg"):  # 124 million weights of the head that nothing here uses
        network.classifier = nn.Linear(2, 2, device="meta")
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.is_floating_point():
            fan_in = tensor[0].numel() if tensor.ndim > 1 else 100
            tensor.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            if tensor.ndim == 1 and key.endswith("weight"):
                tensor.add_(1)
        else:
            tensor.zero_()
    return network.eval()


def test_every_network_of_torchvision_is_compared():
    assert sorted(NETWORKS) == sorted(spec.name for spec in TORCHVISION)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.families if name in LONG else ()) for name in NETWORKS],
)
def test_chain_gives_the_originals_features_with_the_originals_state_dict(name, tmp_path):
    spec = get_backbone(name)
    n_blocks, *head = NETWORKS[name]
    network = original(name)
    # The whole state dict, its head and auxiliary outputs included.
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    chain, report = build_chain(spec, path)
    chain.eval()
    assert len(chain) == n_blocks
    assert report.missing == ()
    assert len(report.unused) > 0  # the head
    assert len(report.loaded) + len(report.unused) == len(network.state_dict())
    for part in head:
        setattr(network, part, nn.Identity())
    for height, width in ((0, 0), (29, 14)):
        torch.manual_seed(1)
        images = torch.rand(2, 3, spec.smallest_size + height, spec.smallest_size + width) * 2 - 1
        with torch.no_grad():
            expected, given = network(images), chain(images)
        if name.startswith("densenet"):  # whose forward pools in a function
            given = given.mean(dim=(2, 3))
        given = given.flatten(1)
        scale = expected.abs().max()
        assert scale > 1e-6  # not all dead
        # The same modules in the same order; the tolerance is the one that the issue asks for,
        # relative to the features' scale, which these weights do not fix.
        torch.testing.assert_close(given / scale, expected.flatten(1) / scale, rtol=0, atol=1e-5)


@every_network
def test_addresses_are_torchvisions_own(name):
    enum = models.get_model_weights(name)
    urls = {weights.name: weights.url for weights in enum}
    expected = {"imagenet": urls["IMAGENET1K_V1"]}
    if "IMAGENET1K_V2" in urls:
        expected["imagenet-v2"] = urls["IMAGENET1K_V2"]
    sources = get_backbone(name).weights
    assert {tag: source.url for tag, source in sources.items()} == expected
    for source in sources.values():
        assert source.url.endswith(f"-{source.sha256}.pth") and len(source.sha256) == 8
        assert source.licence


@every_network
def test_normalisation_and_size_are_those_of_the_weights(name):
    enum, spec = models.get_model_weights(name), get_backbone(name)
    first = enum.IMAGENET1K_V1.transforms()
    assert [spec.input_size] == first.crop_size
    if name != "inception_v3":  # see the next test
        presets = [weights.transforms() for weights in enum if "_V" in weights.name]
        assert len(presets) == len(spec.weights)
        for preset in presets:
            assert (list(spec.mean), list(spec.std)) == (preset.mean, preset.std)


def test_inception_on_our_normalisation_is_torchvisions_on_imagenets():
    spec, preset = get_backbone("inception_v3"), models.Inception_V3_Weights.DEFAULT.transforms()
    network = original("inception_v3").double()
    network.AuxLogits = None
    chain = nn.Sequential(OrderedDict(spec.blocks(network))).eval()
    network.transform_input = True  # as torchvision sets it for its pretrained weights
    network.avgpool = network.dropout = network.fc = nn.Identity()
    pixels = torch.rand(2, 3, 75, 75, dtype=torch.float64)

    def normalise(mean, std):
        return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    with torch.no_grad():
        expected = network(normalise(preset.mean, preset.std))
        given = chain(normalise(spec.mean, spec.std)).flatten(1)
        # Without torchvision's change of its input, the two differ: the test can fail.
        network.transform_input = False
        other = network(normalise(preset.mean, preset.std))
    scale = expected.abs().max()
    torch.testing.assert_close(given / scale, expected / scale, rtol=0, atol=1e-5)
    assert (other - given).abs().max() > 0.01 * scale


# A network of each family; the others differ in depth and width only.
FAMILIES = [
    "vgg16",
    "resnet18",
    "densenet121",
    "inception_v3",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "squeezenet1_1",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_from_the_smallest_up_work(name):
    spec = get_backbone(name)
    with torch.device("meta"):  # shapes alone
        chain = nn.Sequential(OrderedDict(spec.blocks(spec.build()))).eval()
        # The strides come to 32 at most. Nine heights from the smallest up and nine widths up to 32
        # more: not every remainder between them, which would take four times as long.
        for more in range(9):
            images = torch.empty(1, 3, spec.smallest_size + more, spec.smallest_size + 32 - more)
            with torch.no_grad():
                assert min(chain(images).shape[2:]) >= 1
        if name in ("vgg16", "inception_v3", "convnext_tiny"):  # others would run on less
            below = torch.empty(1, 3, spec.smallest_size - 1, spec.smallest_size)
            with pytest.raises(RuntimeError):
                chain(below)


@pytest.mark.parametrize("spec", [*TORCHVISION, *SCRATCH], ids=lambda spec: spec.name)
def test_specs_can_be_pickled(spec):
    copy = pickle.loads(pickle.dumps(spec))
    assert copy.blocks is spec.blocks
    assert (copy.name, copy.weights) == (spec.name, spec.weights)


@pytest.mark.parametrize("name", [*NETWORKS, "simple_cnn", "sepconv", "wide_deep", "field_cnn"])
def test_blocks_have_unique_names_and_share_no_weights(name):
    spec = get_backbone(name)
    with torch.device("meta"):
        blocks = spec.blocks(spec.build())
    assert len({block.lower() for block in blocks}) == len(blocks)
    if name in NETWORKS:
        assert len(blocks) == NETWORKS[name][0]
    assert "all" not in blocks
    tensors = [id(tensor) for block in blocks.values() for tensor in block.parameters()]
    assert len(set(tensors)) == len(tensors)
    assert all(list(block.parameters()) for block in blocks.values())


@small_ones
def test_blocks_are_in_execution_order_and_each_takes_the_one_before(name):
    spec = get_backbone(name)
    chain, ran = chain_of(name).eval(), []
    for block_name, block in chain.named_children():
        block.register_forward_hook(lambda *args, block_name=block_name: ran.append(block_name))
    shape = feature_shape(chain, spec.smallest_size, spec.smallest_size)
    assert ran == list(spec.blocks(spec.build()))
    assert len(shape) == 3 and min(shape) >= 1


def test_vgg16_blocks_are_its_13_convolutions():
    names = [name for name, _ in chain_of("vgg16").named_children()]
    depths = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}
    assert names == [f"block{b}_conv{c + 1}" for b, depth in depths.items() for c in range(depth)]


def test_resnet18_blocks_are_the_stem_and_its_8_residual_blocks():
    names = [name for name, _ in chain_of("resnet18").named_children()]
    residual = [f"layer{stage}_block{number}" for stage in range(1, 5) for number in (1, 2)]
    assert names == ["stem", *residual]


@small_ones
def test_random_weights_follow_torchs_seed(name):
    first, again = chain_of(name), chain_of(name)
    torch.manual_seed(1)
    other, _ = build_chain(get_backbone(name), None)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


# ---------------------------------------------------------------- the cut


@small_ones
def test_unfrozen_layers_counts_blocks_from_the_top(name):
    chain = chain_of(name)
    names = [name for name, _ in chain.named_children()]
    assert count_frozen(chain, "all") == 0
    for number in (0, 1, np.int64(2), len(names)):
        assert count_frozen(chain, number) == len(names) - number
    for position, block_name in enumerate(names):
        assert count_frozen(chain, block_name) == position


@pytest.mark.parametrize("unfrozen_layers", [14, -1, 1.5])
def test_impossible_number_of_blocks_is_refused_with_the_possible_ones(unfrozen_layers):
    with pytest.raises(ValueError, match=r"unfrozen_layers=.*13 blocks; give 0 to 13"):
        count_frozen(chain_of("vgg16"), unfrozen_layers)


def test_unknown_block_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unfrozen_layers='block6'.*block1_conv1.*block5_conv3"):
        count_frozen(chain_of("vgg16"), "block6")


@pytest.mark.parametrize("training", [True, False])
def test_feature_shape_leaves_the_chain_as_it_was(training):
    chain = chain_of("resnet18").train(training)
    before = {key: tensor.clone() for key, tensor in chain.state_dict().items()}
    assert feature_shape(chain, 64, 96) == (512, 2, 3)
    assert chain.training is training
    assert all(torch.equal(before[key], tensor) for key, tensor in chain.state_dict().items())


# ---------------------------------------------------------------- the registry


def test_registering_a_name_twice_is_refused(registry):
    spec = replace(get_backbone("simple_cnn"), name="mine")
    register(spec)
    assert get_backbone("mine") is spec
    assert "mine" in list_backbones()
    with pytest.raises(ValueError, match="'mine' is registered already"):
        register(spec)


def test_unknown_backbone_names_all_and_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"resnet81.*cnn8, .*Did you mean 'resnet18'\?"):
        get_backbone("resnet81")
    with pytest.raises(ValueError, match=r"there are cnn8, .*vgg16, vgg19, .*xception\.$"):
        get_backbone("qqqqqqq")


def test_specs_are_frozen():
    spec = get_backbone("vgg16")
    assert isinstance(spec, BackboneSpec)
    with pytest.raises(AttributeError, match="name"):
        spec.name = "other"


def test_networks_of_others_have_the_version_of_their_package():
    assert get_backbone("vgg16").version == f"torchvision {metadata.version('torchvision')}"
    assert get_backbone("mlp").version == f"wbcclf {wbcclf.__version__}"

"""Chains compute what the original networks compute, and can be cut at every block."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from wbcclf.backbones import BackboneSpec, _registry, get_backbone, list_backbones
from wbcclf.backbones import register_backbone as register
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape

N_BLOCKS = {"resnet18": 9, "simple_cnn": 5, "squeezenet1_1": 9, "vgg16": 13}


def torchvision_features(name, *head):
    """Return torchvision's network whose own forward ends before its head: flattened features."""
    with torch.device("meta"):  # VGG16's head has 124 million weights: never make them
        network = getattr(models, name)(weights=None)
    for part in head:
        setattr(network, part, nn.Identity())
    return network.to_empty(device="cpu")


class SimpleReference(nn.Module):
    """SimpleCNN written out in functions, independently of its blocks."""

    def __init__(self):
        super().__init__()
        self.state = {}

    def load_state_dict(self, state, strict=True):
        self.state = dict(state)
        return self

    def forward(self, x):
        for number in range(1, 6):
            x = functional.conv2d(x, self.state[f"conv{number}.0.weight"], padding=1)
            x = functional.max_pool2d(x, 2, ceil_mode=True)
            weight, bias = self.state[f"conv{number}.2.weight"], self.state[f"conv{number}.2.bias"]
            x = functional.relu(functional.group_norm(x, 8, weight, bias))
        return x.flatten(1)


ORIGINALS = {
    "resnet18": lambda: torchvision_features("resnet18", "avgpool", "fc"),
    "simple_cnn": SimpleReference,
    "squeezenet1_1": lambda: torchvision_features("squeezenet1_1", "classifier"),
    "vgg16": lambda: torchvision_features("vgg16", "avgpool", "classifier"),
}

every_backbone = pytest.mark.parametrize("name", list_backbones())


def chain_of(name, weights=None):
    torch.manual_seed(0)
    return build_chain(get_backbone(name), weights)


def test_every_backbone_has_an_original_to_be_compared_with():
    assert sorted(ORIGINALS) == sorted(N_BLOCKS) == list_backbones()


@every_backbone
@pytest.mark.parametrize("beyond", [(0, 0), (29, 14)], ids=["smallest", "rectangular"])
def test_chain_gives_the_originals_features(name, beyond, tmp_path):
    torch.manual_seed(0)
    spec = get_backbone(name)
    network = spec.build()
    for module in network.modules():  # fresh BatchNorm statistics (0, 1) would hide an error
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    features = {k: v for k, v in network.state_dict().items() if not k.startswith(("fc", "class"))}
    torch.save(features, tmp_path / "weights.pt")
    chain = build_chain(spec, tmp_path / "weights.pt").eval()
    original = ORIGINALS[name]()
    original.load_state_dict(features)
    original.eval()

    height, width = (spec.smallest_size + extra for extra in beyond)
    images = torch.rand(2, 3, height, width) * 2 - 1
    with torch.no_grad():
        expected, given = original(images), chain(images).flatten(1)
    assert expected.abs().max() > 0.01  # not all dead
    # The same modules in the same order: no more than rounding between different kernels.
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


@every_backbone
def test_blocks_have_unique_names_and_share_no_weights(name):
    network = get_backbone(name).build()
    blocks = get_backbone(name).blocks(network)
    assert len({block.lower() for block in blocks}) == len(blocks) == N_BLOCKS[name]
    assert "all" not in blocks
    tensors = [id(tensor) for block in blocks.values() for tensor in block.parameters()]
    assert len(set(tensors)) == len(tensors)
    assert all(list(block.parameters()) for block in blocks.values())


@every_backbone
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


@every_backbone
def test_random_weights_follow_torchs_seed(name):
    first, again = chain_of(name), chain_of(name)
    torch.manual_seed(1)
    other = build_chain(get_backbone(name), None)
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)
    )
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


# ---------------------------------------------------------------- the cut


@every_backbone
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


def test_registering_a_name_twice_is_refused(monkeypatch):
    monkeypatch.setattr(_registry, "_BACKBONES", dict(_registry._BACKBONES))
    spec = replace(get_backbone("simple_cnn"), name="mine")
    register(spec)
    assert get_backbone("mine") is spec
    assert "mine" in list_backbones()
    with pytest.raises(ValueError, match="'mine' is registered already"):
        register(spec)


def test_unknown_backbone_names_all_and_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"vgg61.*resnet18.*Did you mean 'vgg16'\?"):
        get_backbone("vgg61")
    with pytest.raises(ValueError, match=r"there are resnet18, .*vgg16\.$"):
        get_backbone("qqqqqqq")


def test_specs_are_frozen():
    spec = get_backbone("vgg16")
    assert isinstance(spec, BackboneSpec)
    with pytest.raises(AttributeError, match="name"):
        spec.name = "other"

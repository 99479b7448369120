"""The table of a backbone says what its chain does."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

from wbcclf.backbones import describe, get_backbone, register_backbone
from wbcclf.backbones._chain import build_chain, count_frozen, feature_shape


@pytest.mark.parametrize("name", ["simple_cnn", "squeezenet1_1", "timm:test_vit"])
def test_names_shapes_and_counts_are_those_of_the_chain(name):
    description = describe(name, input_size=(64, 96))
    chain, _ = build_chain(get_backbone(name), None)
    assert [block.name for block in description.blocks] == list(dict(chain.named_children()))
    for place, block in enumerate(description.blocks):
        assert block.output_shape == feature_shape(chain[: place + 1], 64, 96)
        assert count_frozen(chain, block.unfrozen_layers) == place
        trained = [parameter.numel() for parameter in chain[place:].parameters()]
        assert block.n_trained == sum(trained)
    counts = [sum(p.numel() for p in block.parameters()) for block in chain]
    assert [block.n_parameters for block in description.blocks] == counts


def test_vgg16_is_described_at_the_size_it_was_made_for():
    description = describe("vgg16")
    assert description.input_size == (224, 224)
    assert description.blocks[-1].output_shape == (512, 7, 7)
    assert description.blocks[-1].n_trained == 512 * 512 * 9 + 512
    assert description.blocks[0].n_trained == 14_714_688  # the published 138 million less the head
    text = str(description)
    assert "'imagenet' (" in text
    assert "(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)" in text
    assert "14,714,688" in text
    assert len({len(line) for line in text.splitlines()[6:]}) == 1  # columns are aligned


def test_nothing_is_drawn_and_nothing_can_be_changed():
    before = torch.get_rng_state()
    description = describe("simple_cnn", input_size=8)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(FrozenInstanceError):
        description.blocks = ()


def test_a_size_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match=r"input_size=16 is too small for vgg16.* at least 32"):
        describe("vgg16", input_size=16)


class Looking(nn.Conv2d):
    def forward(self, x):
        return super().forward(x if x.max().item() > 0 else x + 1)


def test_a_network_that_looks_at_values_is_really_run(registry):
    spec = get_backbone("simple_cnn")
    spec = replace(
        spec, name="looking", build=lambda: Looking(3, 4, 3), blocks=lambda net: {"only": net}
    )
    register_backbone(spec)
    (block,) = describe("looking", input_size=10).blocks
    assert (block.output_shape, block.n_trained) == ((4, 8, 8), 3 * 4 * 9 + 4)

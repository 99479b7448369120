"""Every family of networks becomes a graph that says what the network says."""

from dataclasses import replace

import pytest
import torch
from torchvision import models

from wbcclf import CNNClassifier, make_blood_cells
from wbcclf.backbones import get_backbone, list_backbones, register_backbone

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'wbcclf[onnx]'")

from wbcclf.exporting._graph import network_graph, whole_file  # noqa: E402
from wbcclf.exporting._parity import check_parity, own_pictures  # noqa: E402


@pytest.fixture(scope="module")
def cells():
    return make_blood_cells(4, classes=2, image_size=32, random_state=0)


def check(backbone, cells):
    clf = CNNClassifier(
        backbone, weights=None, max_steps=1, batch_size=4, device="cpu", random_state=0
    )
    clf.fit(cells.images, cells.target)
    # Statistics of BatchNorm and scales that are all 0 or 1 would hide that they are left out.
    random = torch.Generator().manual_seed(0)
    for tensor in clf.net_.module_.backbone.state_dict().values():
        if tensor.ndim == 1 and tensor.is_floating_point():
            tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=random))
    graph, outside = network_graph(clf)
    left = {node.name for node in graph.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
    assert left - {*outside}, "nothing of the network would be in int8"
    found = check_parity(clf, whole_file(graph, (32, 32), {}), own_pictures((32, 32)), iter(()))
    assert found.n_images == 45 and found.largest_difference < 1e-5


def _densenet():
    return models.DenseNet(growth_rate=8, block_config=(1, 1, 1, 1), num_init_features=16)


def _first_of_stages(network, stages):
    for stage in stages:
        del stage[1:]
    return network


def _resnet():
    network = models.resnet18(weights=None)
    return _first_of_stages(network, [getattr(network, f"layer{k}") for k in range(1, 5)])


def _efficientnet():
    # Blocks with and without expansion and residual connection, with kernels of 3 and 5.
    settings = [(1, 3, 1, 8, 8, 1), (6, 3, 2, 8, 16, 1), (6, 5, 1, 16, 16, 1)]
    stages = [models.efficientnet.MBConvConfig(*each) for each in settings]
    return models.EfficientNet(stages, dropout=0.2, last_channel=32)


def _convnext():
    stages = [(8, 16, 1), (16, None, 1)]
    return models.ConvNeXt([models.convnext.CNBlockConfig(*each) for each in stages])


def _vgg():
    network = torch.nn.Module()
    network.features = models.vgg.make_layers([8, 8, "M", 8, "M", 8, "M", 8, "M", 8, "M"])
    return network


# Members of families with fewer layers, of the same blocks.
TINY = {
    "vgg16": _vgg,
    "resnet18": _resnet,
    "densenet121": _densenet,
    "efficientnet_b0": _efficientnet,
    "convnext_tiny": _convnext,
}
SMALL = ["squeezenet1_1", "sepconv", "wide_deep"]


@pytest.mark.parametrize("name", TINY)
def test_a_small_member_of_a_family(name, cells, registry):
    spec = get_backbone(name)
    register_backbone(replace(spec, name=f"tiny_{name}", build=TINY[name], version=None))
    check(f"tiny_{name}", cells)


@pytest.mark.parametrize("name", SMALL)
def test_a_family(name, cells):
    check(name, cells)


LARGE = [*sorted({*list_backbones()} - {*SMALL, "timm"}), "timm:vit_tiny_patch16_224"]


@pytest.mark.families
@pytest.mark.parametrize("name", LARGE)
def test_every_other_network(name, cells):
    check(name, cells)

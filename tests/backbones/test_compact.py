"""compact_cnn is EfficientNet-Lite0 without its last layers, with weights of our own."""

import pickle
from dataclasses import replace

import pytest
import torch

from wbcclf.backbones import PackagedWeights, get_backbone
from wbcclf.backbones._chain import build_chain
from wbcclf.backbones._checks import check_backbone
from wbcclf.exceptions import WeightsNotFoundError

SPEC = get_backbone("compact_cnn")


def test_it_is_as_large_as_documented():
    chain, _ = build_chain(SPEC, None)
    assert sum(tensor.numel() for tensor in chain.parameters()) == 2_958_848
    assert list(chain.eval()(torch.zeros(1, 3, 96, 96)).shape) == [1, 320, 3, 3]
    assert pickle.loads(pickle.dumps(SPEC)).weights == SPEC.weights


def test_weights_of_efficientnet_lite0_give_its_features(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    # As the published weights want it, but with the same zeros on both sides.
    theirs = timm.create_model("efficientnet_lite0", num_classes=0, bn_eps=1e-3).eval()
    for tensor in theirs.state_dict().values():  # means and variances that are not those of a start
        if tensor.is_floating_point():
            tensor.add_(0.02 * torch.rand_like(tensor))
    path = tmp_path / "weights.pth"
    torch.save(theirs.state_dict(), path)
    chain, report = build_chain(SPEC, path)
    assert report.missing == ()
    assert {name.split(".")[0] for name in report.unused} == {"conv_head", "bn2"}
    images = torch.randn(2, 3, 80, 96)
    expected = torch.nn.Sequential(theirs.conv_stem, theirs.bn1, *theirs.blocks)(images)
    torch.testing.assert_close(chain.eval()(images), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_a_package_brings_need_no_network(tmp_path):
    file = tmp_path / "mine.pth"
    torch.manual_seed(1)
    state = SPEC.build().state_dict()
    torch.save(state, file)
    weights = {"mine": PackagedWeights(file, "none")}
    spec = replace(SPEC, name="compact_cnn_too", weights=weights)
    check_backbone(spec)
    chain, report = build_chain(spec, "mine")
    assert report.missing == report.unused == ()
    torch.testing.assert_close(chain.state_dict()["stem.0.weight"], state["stem.0.weight"])
    with pytest.raises(WeightsNotFoundError, match="compact_cnn_too has 'mine'"):
        build_chain(spec, "yours")

"""timm's networks as chains: the same features, the same files, their own preprocessing."""

import pickle

import pytest
import timm
import torch
from torch import nn

from wbcclf import CNNClassifier, Head, load_model, make_blood_cells, save_model
from wbcclf.backbones import check_backbone, get_backbone
from wbcclf.backbones._chain import build_chain
from wbcclf.backbones._timm import _weights

NETWORKS = {  # name: timm's name, number of blocks
    "xception": ("legacy_xception", 16),
    "timm:resnet10t": ("resnet10t", 5),
    "timm:convnext_atto": ("convnext_atto", 16),
    "timm:efficientnet_lite0": ("efficientnet_lite0", 18),
    "timm:test_vit": ("test_vit", 7),
}

every_network = pytest.mark.parametrize("name", NETWORKS)


def shaken(network):
    """Move everything away from the zeros and ones it starts from."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return network.eval()


def saved(state, folder):
    torch.save(state, folder / "weights.pt")
    return folder / "weights.pt"


def assert_same(given, expected, tolerance=1e-5):
    assert expected.std() > 0.01  # not all dead
    largest = expected.abs().max().item()
    torch.testing.assert_close(given, expected, rtol=0, atol=tolerance * largest)


@every_network
def test_chain_gives_timms_features_with_weights_under_timms_keys(name, tmp_path):
    timm_name, n_blocks = NETWORKS[name]
    torch.manual_seed(0)
    original = shaken(timm.create_model(timm_name, num_classes=3))
    spec = get_backbone(name)
    chain, report = build_chain(spec, saved(original.state_dict(), tmp_path))
    assert len(chain) == n_blocks
    assert not report.missing
    assert all("fc" in key or "classifier" in key or "head" in key for key in report.unused)
    # timm's own vision transformer takes images of one size only.
    sizes = [(160, 160)] if "vit" in name else [(32, 32), (61, 46)]
    for height, width in sizes:
        images = torch.rand(2, 3, height, width) * 2 - 1
        with torch.no_grad():
            assert_same(chain.eval()(images), original.forward_features(images))


@every_network
def test_every_layout_passes_the_public_check(name):
    check_backbone(get_backbone(name))


def test_xceptions_blocks_are_its_modules():
    network = get_backbone("xception").build()
    blocks = get_backbone("xception").blocks(network)
    modules = [f"block{number}" for number in range(1, 13)]
    assert list(blocks) == ["conv1", "conv2", *modules, "conv3", "conv4"]
    assert list(blocks["conv1"]) == [network.conv1, network.bn1, network.act1]


def test_a_vision_transformers_blocks_are_embedding_and_blocks_and_the_norm_is_the_lasts():
    network = get_backbone("timm:test_vit").build()
    blocks = get_backbone("timm:test_vit").blocks(network)
    assert list(blocks) == ["embedding", *(f"block{number}" for number in range(1, 7))]
    assert blocks["block6"][-1] is network.norm
    embedding = {id(parameter) for parameter in blocks["embedding"].parameters()}
    assert {id(network.cls_token), id(network.pos_embed)} <= embedding


def test_a_vision_transformer_takes_images_of_any_size():
    chain, _ = build_chain(get_backbone("timm:test_vit"), None)
    with torch.no_grad():  # patches of 16 pixels, and the class token
        assert chain.eval()(torch.zeros(1, 3, 33, 70)).shape == (1, 1 + 3 * 5, 64)


def test_proving_a_layout_leaves_the_random_state_alone(registry):
    before = torch.get_rng_state()
    get_backbone("timm:test_vit")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_mambaout", r"features have the shape \(2, .*must be maps"),  # channels come last
        ("test_vit_relpos", "Input height .* doesn't match"),  # one size only
        ("test_vit3", "do not give its features"),
    ],
)
def test_what_is_no_chain_is_refused_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=rf"timm's {name} cannot be laid out .*{reason}.* Use"):
        get_backbone(f"timm:{name}")


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'timm:resnet10': timm .* no such.*'timm:resnet10t'\?"):
        get_backbone("timm:resnet10")


# ---------------------------------------------------------------- weights


def test_imagenet_is_another_name_for_timms_tag():
    spec = get_backbone("xception")
    assert (spec.input_size, spec.mean, spec.std) == (299, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert spec.weights["imagenet"] is spec.weights["tf_in1k"]
    assert spec.weights["imagenet"].file_name.endswith(spec.weights["imagenet"].sha256 + ".pth")


def test_weights_with_another_preprocessing_are_another_networks():
    assert {"augreg2_in21k_ft_in1k", "imagenet"} <= _weights("vit_base_patch16_224").keys()
    assert "dino" not in _weights("vit_base_patch16_224")
    assert "dino" in _weights("vit_base_patch16_224.dino")
    assert "imagenet" not in _weights("vit_small_patch14_dinov2")


def test_files_of_different_weights_have_different_names():
    sources = _weights("resnet50")
    assert len(sources) > 10
    assert len({source.file_name for source in sources.values()}) == len(sources) - 1  # imagenet
    assert all(source.licence for source in sources.values())


def test_a_haematology_foundation_model_loads_exactly(tmp_path):
    """A file like DinoBloom's: DINOv2's small network for 224 pixels, and the head of its training.

    timm's network of that kind is made for 518 pixels; its positions have another grid.
    """
    torch.manual_seed(0)
    original = shaken(timm.create_model("vit_small_patch14_dinov2", img_size=224))
    with torch.no_grad():
        original.pos_embed.normal_(std=0.2)  # so rough that any blur shows
    state = {f"backbone.{key}": tensor for key, tensor in original.state_dict().items()}
    assert state["backbone.pos_embed"].shape == (1, 1 + 16 * 16, 384)
    state["backbone.mask_token"] = torch.zeros(1, 384)
    state["dino_head.mlp.0.weight"] = torch.zeros(4, 384)
    path = saved({"teacher": state}, tmp_path)

    chain, report = build_chain(get_backbone("timm:vit_small_patch14_dinov2"), path)
    assert not report.missing
    assert report.unused == ("dino_head.mlp.0.weight",)
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert_same(chain.eval()(images), original.forward_features(images), 5e-5)


# ---------------------------------------------------------------- in a classifier


def test_a_classifier_on_tokens_trains_is_saved_and_pickled(tmp_path):
    cells = make_blood_cells(20, classes=2, image_size=32, random_state=0)
    grey = cells.images.mean(axis=3, keepdims=True).astype("uint8")
    clf = CNNClassifier(
        "timm:test_vit",
        weights=None,
        head=Head(pooling="token"),
        unfrozen_layers="block5",
        max_epochs=2,
        device="cpu",
        random_state=0,
    )
    with pytest.warns(UserWarning, match="5 of 7 blocks .* frozen at random weights"):
        clf.fit(grey, cells.target)
    expected = clf.predict_proba(grey)
    save_model(clf, tmp_path / "model.wbcclf")
    assert (load_model(tmp_path / "model.wbcclf").predict_proba(grey) == expected).all()
    assert (pickle.loads(pickle.dumps(clf)).predict_proba(grey) == expected).all()
    assert isinstance(clf.net_.module_.backbone, nn.Sequential)

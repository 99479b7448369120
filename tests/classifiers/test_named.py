"""The named classifiers: one signature, one backbone and one head each."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils import estimator_checks

import wbcclf
from wbcclf import CNNClassifier, Head
from wbcclf.backbones import list_backbones
from wbcclf.classifiers.data._domain import Domain
from wbcclf.classifiers.network._building import build_network
from wbcclf.classifiers.options._settings import Settings

NAMED = [
    getattr(wbcclf, name)
    for name in wbcclf.__all__
    if name.endswith("Classifier") and name not in ("CNNClassifier", "ConformalClassifier")
]
# Networks for which nobody has published ImageNet weights.
FROM_SCRATCH = {
    *("CNN3Block", "CNN8", "FieldCNNBaseline", "FieldCNN", "ImageMLP"),
    *("NineClassCNN", "SepConv", "SimpleCNN", "WideDeep"),
}
# Heads of the published systems: pooling, hidden layers, dropout.
HEADS = {
    "CNN3Block": ("flatten", (), 0.0),
    "CNN8": ("flatten", (), 0.0),
    "FieldCNN": ("flatten", (256, 128, 64, 32), 0.0),
    "FieldCNNBaseline": ("flatten", (64,), 0.0),
    "ImageMLP": ("avg", (), 0.0),
    "NineClassCNN": ("flatten", (64,), (0.0, 0.4)),
    "SepConv": ("flatten", (512, 128, 64), (0.0, 0.7, 0.5, 0.3)),
    "WideDeep": ("flatten", (), 0.0),
}
CHECKS = [
    "check_estimator_cloneable",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


def test_every_backbone_of_the_package_has_a_classifier():
    # "timm" stands for hundreds of networks; "xception" is listed where the package is installed.
    backbones = {*list_backbones(), "xception"} - {"timm"}
    assert sorted(cls.backbone for cls in NAMED) == sorted(backbones)
    assert len(NAMED) == 27


@pytest.mark.parametrize("cls", NAMED)
def test_signature_is_that_of_cnn_classifier_without_backbone(cls):
    own = inspect.signature(cls).parameters
    assert list(own) == [
        name for name in inspect.signature(CNNClassifier).parameters if name != "backbone"
    ]
    assert {parameter.kind for parameter in own.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert "backbone" not in cls().get_params()
    with pytest.raises(TypeError, match="backbone"):
        cls(backbone="vgg16")


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("cls", NAMED)
def test_scikit_learn_can_read_it(cls, check):
    getattr(estimator_checks, check)(cls.__name__, cls(device="cpu"))


@pytest.mark.parametrize("cls", NAMED)
def test_clone_and_pickle_keep_class_and_parameters(cls):
    clf = cls(lr=0.5, head=Head(dropout=0.1))
    for copy in (clone(clf), pickle.loads(pickle.dumps(clf))):
        assert type(copy) is cls
        assert repr(copy.get_params()) == repr(clf.get_params())
        assert copy.backbone == cls.backbone


def built(clf):
    """Return the network of a classifier, with shapes and without numbers."""
    settings = Settings.of(clf)
    size = max(32, settings.backbone.smallest_size)
    domain = Domain(np.arange(3), (size, size, 3), (0, 255))
    with torch.device("meta"):
        network, _ = build_network(settings, domain, None, seed=0)
    return network


@pytest.mark.parametrize("cls", NAMED)
def test_a_name_means_one_network_in_either_classifier(cls):
    general, named = CNNClassifier(cls.backbone), cls()
    params = general.get_params()
    assert params.pop("backbone") == cls.backbone
    assert params == named.get_params()

    one, other = Settings.of(general), Settings.of(named)
    assert (one.weights, one.lr) == (other.weights, other.lr)
    assert one.head.get_params() == other.head.get_params()
    assert one.backbone is other.backbone
    if cls.__name__.removesuffix("Classifier") not in FROM_SCRATCH:
        return  # these are large, and differ from the others in that description alone
    one, other = built(general), built(named)
    shapes, others = (
        {key: tensor.shape for key, tensor in network.state_dict().items()}
        for network in (one, other)
    )
    assert shapes == others
    assert repr(one.head) == repr(other.head)  # its layers, and shares of dropout


@pytest.mark.parametrize("cls", NAMED)
def test_a_network_brings_its_own_head(cls):
    """What the published systems had; others have one linear layer on the mean of each map."""
    head = Settings.of(cls()).head
    expected = HEADS.get(cls.__name__.removesuffix("Classifier"), ("avg", (), 0.2))
    assert (head.pooling, head.hidden, head.dropout) == expected
    assert head.batch_norm is False


@pytest.mark.parametrize("cls", NAMED)
def test_pretrained_networks_start_at_their_weights_and_train_slowly(cls):
    clf = cls()
    from_scratch = cls.__name__.removesuffix("Classifier") in FROM_SCRATCH
    settings = Settings.of(clf)
    weights = "blood-cells" if cls.backbone == "compact_cnn" else "imagenet"
    assert (settings.weights, settings.lr) == ((None, 1e-3) if from_scratch else (weights, 3e-4))
    assert (clf.unfrozen_layers, clf.lr_schedule) == ("all", "onecycle")

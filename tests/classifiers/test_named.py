"""The named classifiers: one signature, one backbone and one head each."""

import inspect
import pickle

import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks

import wbcclf
from wbcclf import CNNClassifier
from wbcclf.backbones import list_backbones

NAMED = [
    getattr(wbcclf, name)
    for name in wbcclf.__all__
    if name.endswith("Classifier") and name != "CNNClassifier"
]
# Networks for which nobody has published ImageNet weights.
FROM_SCRATCH = {
    *("CNN3Block", "CNN8", "FieldCNNBaseline", "FieldCNN", "ImageMLP"),
    *("NineClassCNN", "SepConv", "SimpleCNN", "WideDeep"),
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
    assert len(NAMED) == 26


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
    clf = cls(lr=0.5, dropout=0.1)
    for copy in (clone(clf), pickle.loads(pickle.dumps(clf))):
        assert type(copy) is cls
        assert copy.get_params() == clf.get_params()
        assert copy.backbone == cls.backbone


@pytest.mark.parametrize("cls", NAMED)
def test_default_dropout_has_a_value_for_every_linear_layer_of_the_default_head(cls):
    dropout = cls().dropout
    assert isinstance(dropout, float) or len(dropout) == len(cls.default_head.hidden) + 1


@pytest.mark.parametrize("cls", NAMED)
def test_pretrained_networks_start_at_imagenet_and_train_slowly(cls):
    clf = cls()
    from_scratch = cls.__name__.removesuffix("Classifier") in FROM_SCRATCH
    assert (clf.weights, clf.lr) == ((None, 1e-3) if from_scratch else ("imagenet", 3e-4))
    assert (clf.unfrozen_layers, clf.lr_schedule) == ("all", "onecycle")

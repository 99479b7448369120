"""One class for each network: CNNClassifier without the parameter `backbone`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from wbcclf.classifiers._classifier import CNNClassifier


def _with(backbone: str) -> Callable[[type[CNNClassifier]], type[CNNClassifier]]:
    """Give a subclass of CNNClassifier its backbone, and a signature without that parameter.

    scikit-learn reads an estimator's parameters off the signature of ``__init__``; deriving it
    from CNNClassifier's keeps the parameter list in one place. What the network brings (head,
    weights, learning rate) stands in its :class:`~wbcclf.backbones.BackboneSpec`.
    """

    def decorate(cls: type[CNNClassifier]) -> type[CNNClassifier]:
        full = inspect.signature(CNNClassifier.__init__)
        signature = full.replace(
            parameters=[own for name, own in full.parameters.items() if name != "backbone"]
        )

        def __init__(self: CNNClassifier, **params: Any) -> None:
            bound = signature.bind(self, **params)
            bound.apply_defaults()
            for name in list(signature.parameters)[1:]:
                setattr(self, name, bound.arguments[name])

        vars(__init__)["__signature__"] = signature
        cls.__init__ = __init__  # type: ignore[assignment] # what scikit-learn reads
        cls.backbone = backbone
        cls._parameter_constraints = {
            name: constraint
            for name, constraint in CNNClassifier._parameter_constraints.items()
            if name != "backbone"
        }
        return cls

    return decorate


@_with("simple_cnn")
class SimpleCNNClassifier(CNNClassifier):
    """A small convolutional network, trained from scratch.

    Five blocks (16 to 256 filters) of 3x3 convolution, 2x2 max-pooling, group normalisation and
    ReLU, then average pooling and a linear layer; 0.4 million weights. Takes images of any size.
    Parameters, attributes and methods are those of :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    >>> clf.fit(cells.images, cells.target).classes_.tolist()
    ['lymphocyte', 'neutrophil']
    """


@_with("compact_cnn")
class CompactCNNClassifier(CNNClassifier):
    """A compact network with weights that come with the package.

    The stages of EfficientNet-Lite0 (Tan and Le 2019, https://arxiv.org/abs/1905.11946), then
    average pooling and a linear layer; 3.0 million weights. It starts from weights that were
    trained on cells of three laboratories, which need no download: give them pictures that
    ``CellCropper("nucleus", background="normalise")`` has cut. Parameters, attributes and methods
    are those of :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import CompactCNNClassifier, make_blood_cells
    >>> cells = make_blood_cells(40, classes=2, image_size=48, random_state=0)
    >>> clf = CompactCNNClassifier(max_epochs=2, device="cpu", random_state=0)
    >>> clf.fit(cells.images, cells.target).weights_report_.missing
    ()
    """


# ---------------------------------------------------------------- pretrained on ImageNet


@_with("vgg16")
class VGG16Classifier(CNNClassifier):
    """VGG16 (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556).

    Its 13 convolutions are the blocks ``block1_conv1`` to ``block5_conv3``; smaller images than 32
    pixels are enlarged. Pretrained on ImageNet; by default all is trained, at lr=3e-4;
    ``unfrozen_layers=1`` trains the last convolution and the head. Parameters, attributes and
    methods are those of :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import VGG16Classifier
    >>> VGG16Classifier(unfrozen_layers="block5_conv1", max_epochs=5)
    VGG16Classifier(max_epochs=5, unfrozen_layers='block5_conv1')
    """


@_with("vgg19")
class VGG19Classifier(CNNClassifier):
    """VGG19: :class:`VGG16Classifier` with 16 convolutions, ``block1_conv1`` to ``block5_conv4``.

    Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556.
    """


@_with("resnet18")
class ResNet18Classifier(CNNClassifier):
    """ResNet18 (He et al. 2015, https://arxiv.org/abs/1512.03385).

    Its blocks are ``stem`` and ``layer1_block1`` to ``layer4_block2``; smaller images than 32
    pixels are enlarged. Pretrained on ImageNet; by default all is trained, at lr=3e-4;
    ``unfrozen_layers=1`` trains the last residual block and the head. Parameters, attributes and
    methods are those of :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import ResNet18Classifier
    >>> ResNet18Classifier(weights=None, unfrozen_layers=3)
    ResNet18Classifier(unfrozen_layers=3, weights=None)
    """


@_with("resnet34")
class ResNet34Classifier(CNNClassifier):
    """ResNet34: :class:`ResNet18Classifier` with 16 residual blocks of two convolutions."""


@_with("resnet50")
class ResNet50Classifier(CNNClassifier):
    """ResNet50: :class:`ResNet18Classifier` with 16 residual blocks of three convolutions."""


@_with("resnet101")
class ResNet101Classifier(CNNClassifier):
    """ResNet101: :class:`ResNet18Classifier` with 33 residual blocks of three convolutions."""


@_with("resnet152")
class ResNet152Classifier(CNNClassifier):
    """ResNet152: :class:`ResNet18Classifier` with 50 residual blocks of three convolutions."""


@_with("densenet121")
class DenseNet121Classifier(CNNClassifier):
    """DenseNet121 (Huang et al. 2016, https://arxiv.org/abs/1608.06993).

    Its blocks are the stem, the four dense blocks and the transitions between them. Pretrained on
    ImageNet; by default all is trained, at lr=3e-4. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("densenet169")
class DenseNet169Classifier(CNNClassifier):
    """DenseNet169: :class:`DenseNet121Classifier` with 82 dense layers in place of 58."""


@_with("densenet201")
class DenseNet201Classifier(CNNClassifier):
    """DenseNet201: :class:`DenseNet121Classifier` with 98 dense layers in place of 58."""


@_with("inception_v3")
class InceptionV3Classifier(CNNClassifier):
    """Inception v3 (Szegedy et al. 2015, https://arxiv.org/abs/1512.00567).

    Its blocks are those of the stem and the modules, without the auxiliary classifier; made for 299
    pixels, and smaller images than 75 pixels are enlarged. Pretrained on ImageNet; by default all
    is trained, at lr=3e-4. Parameters, attributes and methods are those of :class:`CNNClassifier`,
    without `backbone`.
    """


@_with("xception")
class XceptionClassifier(CNNClassifier):
    """Xception (Chollet 2016, https://arxiv.org/abs/1610.02357).

    Needs timm: ``pip install "wbcclf[timm]"``. Made for 299 pixels. Pretrained on ImageNet; by
    default all is trained, at lr=3e-4. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("mobilenet_v3_small")
class MobileNetV3SmallClassifier(CNNClassifier):
    """MobileNetV3 small (Howard et al. 2019, https://arxiv.org/abs/1905.02244), made for phones.

    Pretrained on ImageNet; by default all is trained, at lr=3e-4. Parameters, attributes and
    methods are those of :class:`CNNClassifier`, without `backbone`.
    """


@_with("mobilenet_v3_large")
class MobileNetV3LargeClassifier(CNNClassifier):
    """MobileNetV3 large: the bigger brother of :class:`MobileNetV3SmallClassifier`."""


@_with("efficientnet_b0")
class EfficientNetB0Classifier(CNNClassifier):
    """EfficientNet-B0 (Tan and Le 2019, https://arxiv.org/abs/1905.11946).

    Pretrained on ImageNet; by default all is trained, at lr=3e-4. Parameters, attributes and
    methods are those of :class:`CNNClassifier`, without `backbone`.
    """


@_with("convnext_tiny")
class ConvNeXtTinyClassifier(CNNClassifier):
    """ConvNeXt tiny (Liu et al. 2022, https://arxiv.org/abs/2201.03545).

    Pretrained on ImageNet; by default all is trained, at lr=3e-4. Parameters, attributes and
    methods are those of :class:`CNNClassifier`, without `backbone`.
    """


@_with("squeezenet1_1")
class SqueezeNetClassifier(CNNClassifier):
    """SqueezeNet 1.1 (Iandola et al. 2016, https://arxiv.org/abs/1602.07360); 0.7 million weights.

    Its blocks are ``stem`` and the modules ``fire2`` to ``fire9``. Pretrained on ImageNet; by
    default all is trained, at lr=3e-4. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


# ---------------------------------------------------------------- networks of published systems
# Trained from scratch; the recipes of wbcclf.recipes train them as they were published.


@_with("nine_class_cnn")
class NineClassCNNClassifier(CNNClassifier):
    """Three 3x3 convolutions (32, 32, 64 filters) and a dense layer of 64, with much dropout.

    From the recipe ``nine-class-cnn``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("mlp")
class ImageMLPClassifier(CNNClassifier):
    """Five dense layers of 128 on the pixels, without convolutions: a baseline.

    From the recipe ``pbc-mlp``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("cnn8")
class CNN8Classifier(CNNClassifier):
    """One 3x3 convolution with 8 filters, max-pooling and a linear layer.

    From the recipe ``pbc-cnn8``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("cnn_3block")
class CNN3BlockClassifier(CNNClassifier):
    """Convolutions with 8 (5x5), 16 and 32 filters (3x3), each max-pooled, and a linear layer.

    From the recipe ``pbc-cnn-3block``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("wide_deep")
class WideDeepClassifier(CNNClassifier):
    """:class:`CNN3BlockClassifier` beside a branch of 8 filters of 20x20 pixels.

    From the recipe ``pbc-wide-deep``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("sepconv")
class SepConvClassifier(CNNClassifier):
    """Two convolutions, four pairs of separable ones (32 to 256 filters), three dense layers.

    From the recipe ``four-class-sepconv``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("field_cnn_baseline")
class FieldCNNBaselineClassifier(CNNClassifier):
    """One 3x3 convolution with 32 filters, max-pooling and a dense layer of 64.

    From the recipe ``field-cnn-baseline``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """


@_with("field_cnn")
class FieldCNNClassifier(CNNClassifier):
    """Three 2x2 convolutions (16, 32, 64 filters) and four dense layers (256, 128, 64, 32).

    From the recipe ``field-cnn``. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.
    """

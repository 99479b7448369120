"""One class per network: the parameters are CNNClassifier's, the defaults its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from wbcclf.classifiers._classifier import CNNClassifier


def _fixed(backbone: str, **defaults: Any) -> Callable[[type], type]:
    """Give a subclass of CNNClassifier its backbone, and a signature without that parameter.

    scikit-learn reads an estimator's parameters off the signature of ``__init__``; deriving it
    from CNNClassifier's keeps the parameter list in one place.
    """

    def decorate(cls: type) -> type:
        full = inspect.signature(CNNClassifier.__init__)
        signature = full.replace(
            parameters=[
                parameter.replace(default=defaults.get(name, parameter.default))
                for name, parameter in full.parameters.items()
                if name != "backbone"
            ]
        )

        def __init__(self, **params):
            bound = signature.bind(self, **params)
            bound.apply_defaults()
            for name in list(signature.parameters)[1:]:
                setattr(self, name, bound.arguments[name])

        __init__.__signature__ = signature
        cls.__init__ = __init__
        cls.backbone = backbone
        cls._parameter_constraints = {
            name: constraint
            for name, constraint in CNNClassifier._parameter_constraints.items()
            if name != "backbone"
        }
        return cls

    return decorate


@_fixed("simple_cnn")
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


@_fixed("vgg16", weights="imagenet", unfrozen_layers=1, lr=1e-4)
class VGG16Classifier(CNNClassifier):
    """VGG16 (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556).

    Its 13 convolutions are the blocks ``block1_conv1`` to ``block5_conv3``; smaller images than
    32 pixels are enlarged. Pretrained on ImageNet; by default only the last convolution and the
    head are trained, at lr=1e-4. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import VGG16Classifier
    >>> VGG16Classifier(unfrozen_layers="block5_conv1", max_epochs=5)
    VGG16Classifier(max_epochs=5, unfrozen_layers='block5_conv1')
    """


@_fixed("resnet18", weights="imagenet", unfrozen_layers=1, lr=1e-4)
class ResNet18Classifier(CNNClassifier):
    """ResNet18 (He et al. 2015, https://arxiv.org/abs/1512.03385).

    Its blocks are ``stem`` and ``layer1_block1`` to ``layer4_block2``; smaller images than 32
    pixels are enlarged. Pretrained on ImageNet; by default only the last residual block and the
    head are trained, at lr=1e-4. Parameters, attributes and methods are those of
    :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import ResNet18Classifier
    >>> ResNet18Classifier(weights=None, unfrozen_layers="all")
    ResNet18Classifier(unfrozen_layers='all', weights=None)
    """

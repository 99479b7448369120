"""One class per network: the parameters are CNNClassifier's, the defaults its own."""

from wbcclf.classifiers._classifier import CNNClassifier


class SimpleCNNClassifier(CNNClassifier, backbone="simple_cnn"):
    """A small convolutional network, trained from scratch.

    Five blocks of 3x3 convolution, group normalisation, ReLU and 2x2 max-pooling, then average
    pooling and a linear layer. Takes images of any size. Parameters, attributes and methods
    are those of :class:`CNNClassifier`, without `backbone`.

    Examples
    --------
    >>> from wbcclf import SimpleCNNClassifier, make_blood_cells
    >>> cells = make_blood_cells(60, classes=2, image_size=32, random_state=0)
    >>> clf = SimpleCNNClassifier(max_epochs=3, device="cpu", random_state=0)
    >>> clf.fit(cells.images, cells.target).classes_.tolist()
    ['lymphocyte', 'neutrophil']
    """


class VGG16Classifier(
    CNNClassifier, backbone="vgg16", weights="imagenet", unfrozen_layers=1, lr=1e-4
):
    """VGG16 (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556).

    Its 13 convolutions are the blocks ``block1_conv1`` to ``block5_conv3``; the smallest image is
    32 pixels wide. Pretrained on ImageNet; by default only the last convolution and the head
    are trained. Parameters, attributes and methods are those of :class:`CNNClassifier`, without
    `backbone`.

    Examples
    --------
    >>> from wbcclf import VGG16Classifier
    >>> VGG16Classifier(unfrozen_layers="block5_conv1", max_epochs=5)
    VGG16Classifier(max_epochs=5, unfrozen_layers='block5_conv1')
    """


class ResNet18Classifier(
    CNNClassifier, backbone="resnet18", weights="imagenet", unfrozen_layers=1, lr=1e-4
):
    """ResNet18 (He et al. 2015, https://arxiv.org/abs/1512.03385).

    Its blocks are ``stem`` and ``layer1_block1`` to ``layer4_block2``; the smallest image is 32
    pixels wide. Pretrained on ImageNet; by default only the last residual block and the
    head are trained. Parameters, attributes and methods are those of :class:`CNNClassifier`,
    without `backbone`.

    Examples
    --------
    >>> from wbcclf import ResNet18Classifier
    >>> ResNet18Classifier(weights=None, unfrozen_layers="all")
    ResNet18Classifier(unfrozen_layers='all', weights=None)
    """

"""White blood cell images in, a trustworthy scikit-learn classifier out."""

from wbcclf.classifiers import (
    CNNClassifier,
    Head,
    ResNet18Classifier,
    SimpleCNNClassifier,
    VGG16Classifier,
)

__version__ = "0.1.0"

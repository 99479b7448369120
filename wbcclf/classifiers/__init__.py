"""Convolutional networks as scikit-learn classifiers."""

from wbcclf.classifiers._classifier import CNNClassifier
from wbcclf.classifiers._head import Head
from wbcclf.classifiers._named import ResNet18Classifier, SimpleCNNClassifier, VGG16Classifier

__all__ = [
    "CNNClassifier",
    "Head",
    "ResNet18Classifier",
    "SimpleCNNClassifier",
    "VGG16Classifier",
]

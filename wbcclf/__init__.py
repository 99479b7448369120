"""White blood cell images in, a trustworthy scikit-learn classifier out."""

from wbcclf.classifiers import (
    CNNClassifier,
    Head,
    ResNet18Classifier,
    SimpleCNNClassifier,
    VGG16Classifier,
)
from wbcclf.datasets import (
    ImageLoader,
    list_image_folder,
    load_image_csv,
    load_image_folder,
    make_blood_cells,
)
from wbcclf.persistence import load_model, save_model
from wbcclf.sampling import SMOTE, Augmenter, ImageSampler

__version__ = "0.1.0"

__all__ = [
    "SMOTE",
    "Augmenter",
    "CNNClassifier",
    "Head",
    "ImageLoader",
    "ImageSampler",
    "ResNet18Classifier",
    "SimpleCNNClassifier",
    "VGG16Classifier",
    "list_image_folder",
    "load_image_csv",
    "load_image_folder",
    "load_model",
    "make_blood_cells",
    "save_model",
]

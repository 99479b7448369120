"""Imbalanced-learn samplers on image batches."""

from wbcclf.sampling._adapter import ImageSampler
from wbcclf.sampling._augmenter import Augmenter
from wbcclf.sampling._smote import SMOTE

__all__ = ["SMOTE", "Augmenter", "ImageSampler"]

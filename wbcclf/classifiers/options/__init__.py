"""Small objects that parameters of CNNClassifier hold; nothing here needs torch."""

from wbcclf.classifiers.options._averaging import Averaging
from wbcclf.classifiers.options._early_stopping import EarlyStopping
from wbcclf.classifiers.options._losses import CrossEntropy, FocalLoss
from wbcclf.classifiers.options._mixing import Mixing
from wbcclf.classifiers.options._optimizer import Optimizer
from wbcclf.classifiers.options._schedules import (
    Constant,
    Cosine,
    InverseTimeDecay,
    OneCycle,
    Plateau,
    StepDecay,
)
from wbcclf.classifiers.options._unfreezing import GradualUnfreezing

__all__ = [
    "Averaging",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "EarlyStopping",
    "FocalLoss",
    "GradualUnfreezing",
    "InverseTimeDecay",
    "Mixing",
    "OneCycle",
    "Optimizer",
    "Plateau",
    "StepDecay",
]

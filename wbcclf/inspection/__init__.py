"""Looking at what a classifier does."""

from wbcclf.inspection._evaluation import evaluate_predictions, save_confusion_matrix
from wbcclf.inspection._files import predict_files
from wbcclf.inspection._learning_rate import find_learning_rate, save_learning_rate_curve

__all__ = [
    "evaluate_predictions",
    "find_learning_rate",
    "predict_files",
    "save_confusion_matrix",
    "save_learning_rate_curve",
]

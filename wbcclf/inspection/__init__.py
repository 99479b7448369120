"""Looking at what a classifier does."""

from wbcclf.inspection._evaluation import evaluate_predictions, save_confusion_matrix

__all__ = ["evaluate_predictions", "save_confusion_matrix"]

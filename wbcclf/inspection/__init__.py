"""Looking at what a classifier does."""

from wbcclf.inspection._evaluation import evaluate_predictions, save_confusion_matrix
from wbcclf.inspection._files import predict_files

__all__ = ["evaluate_predictions", "predict_files", "save_confusion_matrix"]

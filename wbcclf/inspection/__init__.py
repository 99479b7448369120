"""Looking at what a classifier does."""

from wbcclf.inspection._data_page import write_data_page
from wbcclf.inspection._evaluation import EvaluationDisplay, evaluate_predictions
from wbcclf.inspection._files import predict_files
from wbcclf.inspection._learning_rate import LearningRateDisplay, find_learning_rate

__all__ = [
    "EvaluationDisplay",
    "LearningRateDisplay",
    "evaluate_predictions",
    "find_learning_rate",
    "predict_files",
    "write_data_page",
]

"""Looking at pictures and at what a classifier does with them."""

from wbcclf.inspection._files import predict_files
from wbcclf.inspection._learning_rate import LearningRateDisplay, find_learning_rate
from wbcclf.inspection.evaluation._evaluation import (
    evaluate,
    evaluate_predictions,
    plot_confusion,
)
from wbcclf.inspection.evaluation._result import Evaluation
from wbcclf.inspection.exploring._explore import explore_images
from wbcclf.inspection.pages._audit import write_audit_page
from wbcclf.inspection.pages._exploration import write_exploration_page

__all__ = [
    "Evaluation",
    "LearningRateDisplay",
    "evaluate",
    "evaluate_predictions",
    "explore_images",
    "find_learning_rate",
    "plot_confusion",
    "predict_files",
    "write_audit_page",
    "write_exploration_page",
]

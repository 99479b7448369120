"""Looking at pictures and at what a classifier does with them."""

from wbcclf.inspection._evaluation import EvaluationDisplay, evaluate_predictions
from wbcclf.inspection._files import predict_files
from wbcclf.inspection._learning_rate import LearningRateDisplay, find_learning_rate
from wbcclf.inspection.explaining._explain import explain
from wbcclf.inspection.explaining._explanation import Explanation
from wbcclf.inspection.exploring._explore import explore_images
from wbcclf.inspection.pages._audit import write_audit_page
from wbcclf.inspection.pages._explanation import write_explanation_page
from wbcclf.inspection.pages._exploration import write_exploration_page

__all__ = [
    "EvaluationDisplay",
    "Explanation",
    "LearningRateDisplay",
    "evaluate_predictions",
    "explain",
    "explore_images",
    "find_learning_rate",
    "predict_files",
    "write_audit_page",
    "write_explanation_page",
    "write_exploration_page",
]

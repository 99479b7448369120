"""Looking at pictures and at what a classifier does with them."""

from wbcclf.inspection._files import predict_files
from wbcclf.inspection._history import plot_history
from wbcclf.inspection._learning_rate import LearningRateDisplay, find_learning_rate
from wbcclf.inspection._pictures import plot_augmented, plot_cells
from wbcclf.inspection.evaluation._compare import Comparison, compare
from wbcclf.inspection.evaluation._cross import CrossEvaluation, cross_evaluate
from wbcclf.inspection.evaluation._evaluation import (
    evaluate,
    evaluate_predictions,
    plot_confusion,
)
from wbcclf.inspection.evaluation._learning_curve import LearningCurve, learning_curve
from wbcclf.inspection.evaluation._result import Evaluation
from wbcclf.inspection.explaining._explain import explain
from wbcclf.inspection.explaining._explanation import Explanation
from wbcclf.inspection.exploring._explore import explore_images
from wbcclf.inspection.pages._audit import write_audit_page
from wbcclf.inspection.pages._explanation import write_explanation_page
from wbcclf.inspection.pages._exploration import write_exploration_page

__all__ = [
    "Comparison",
    "CrossEvaluation",
    "Evaluation",
    "Explanation",
    "LearningCurve",
    "LearningRateDisplay",
    "compare",
    "cross_evaluate",
    "evaluate",
    "evaluate_predictions",
    "explain",
    "explore_images",
    "find_learning_rate",
    "learning_curve",
    "plot_augmented",
    "plot_cells",
    "plot_confusion",
    "plot_history",
    "predict_files",
    "write_audit_page",
    "write_explanation_page",
    "write_exploration_page",
]

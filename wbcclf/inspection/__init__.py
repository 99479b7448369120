"""Looking at pictures and at what a classifier does with them."""

from wbcclf.inspection._evaluation import EvaluationDisplay, evaluate_predictions
from wbcclf.inspection._files import predict_files
from wbcclf.inspection._history import plot_history
from wbcclf.inspection._learning_rate import LearningRateDisplay, find_learning_rate
from wbcclf.inspection._pictures import plot_augmented, plot_cells
from wbcclf.inspection.exploring._explore import explore_images
from wbcclf.inspection.pages._audit import write_audit_page
from wbcclf.inspection.pages._exploration import write_exploration_page

__all__ = [
    "EvaluationDisplay",
    "LearningRateDisplay",
    "evaluate_predictions",
    "explore_images",
    "find_learning_rate",
    "plot_augmented",
    "plot_cells",
    "plot_history",
    "predict_files",
    "write_audit_page",
    "write_exploration_page",
]

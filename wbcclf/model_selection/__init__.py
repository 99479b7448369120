"""What a data set is worth: an audit, the same cell recognised, splits by cell, intervals."""

from wbcclf.model_selection._split import train_test_split_cells
from wbcclf.model_selection.audit._check_data import check_data
from wbcclf.model_selection.audit._wrong_labels import find_wrong_labels
from wbcclf.model_selection.groups._image_groups import find_image_groups
from wbcclf.model_selection.intervals._intervals import group_bootstrap

__all__ = [
    "check_data",
    "find_image_groups",
    "find_wrong_labels",
    "group_bootstrap",
    "train_test_split_cells",
]

"""What a data set is worth: an audit, the same cell recognised, splits by cell, intervals."""

from wbcclf.model_selection._audit import check_data
from wbcclf.model_selection._image_groups import find_image_groups
from wbcclf.model_selection._intervals import group_bootstrap
from wbcclf.model_selection._split import train_test_split_cells
from wbcclf.model_selection._wrong_labels import find_wrong_labels

__all__ = [
    "check_data",
    "find_image_groups",
    "find_wrong_labels",
    "group_bootstrap",
    "train_test_split_cells",
]

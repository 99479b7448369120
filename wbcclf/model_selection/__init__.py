"""What a data set is worth: the same cell recognised, an audit, and how sure a figure is."""

from wbcclf.model_selection._audit import check_data
from wbcclf.model_selection._image_groups import find_image_groups
from wbcclf.model_selection._intervals import group_bootstrap
from wbcclf.model_selection._wrong_labels import find_wrong_labels

__all__ = ["check_data", "find_image_groups", "find_wrong_labels", "group_bootstrap"]

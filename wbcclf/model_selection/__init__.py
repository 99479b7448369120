"""Which pictures show the same cell, splits that keep it on one side, and how sure a score is."""

from wbcclf.model_selection._image_groups import find_image_groups
from wbcclf.model_selection._intervals import group_bootstrap
from wbcclf.model_selection._split import train_test_split_cells

__all__ = ["find_image_groups", "group_bootstrap", "train_test_split_cells"]

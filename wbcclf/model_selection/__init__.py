"""Which pictures show the same cell, and how sure a figure is then."""

from wbcclf.model_selection._image_groups import find_image_groups
from wbcclf.model_selection._intervals import group_bootstrap

__all__ = ["find_image_groups", "group_bootstrap"]

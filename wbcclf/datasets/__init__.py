"""Images into memory."""

from wbcclf.datasets._csv import load_image_csv
from wbcclf.datasets._folders import list_image_folder, load_image_folder
from wbcclf.datasets._image_loader import ImageLoader
from wbcclf.datasets._synthetic import make_blood_cells

__all__ = [
    "ImageLoader",
    "list_image_folder",
    "load_image_csv",
    "load_image_folder",
    "make_blood_cells",
]

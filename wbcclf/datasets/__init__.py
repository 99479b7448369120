"""Images into memory."""

from wbcclf.datasets._image_loader import ImageLoader
from wbcclf.datasets._loaders import list_image_folder, load_image_csv, load_image_folder

__all__ = ["ImageLoader", "list_image_folder", "load_image_csv", "load_image_folder"]

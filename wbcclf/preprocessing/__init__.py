"""White cells: found and cut out."""

from wbcclf.cells._cell import Cell
from wbcclf.cells._cells import find_cells
from wbcclf.preprocessing._background import BackgroundRemover
from wbcclf.preprocessing._cropper import CellCropper
from wbcclf.preprocessing._detector import MultiCellDetector
from wbcclf.preprocessing._features import CellFeatures

__all__ = [
    "BackgroundRemover",
    "Cell",
    "CellCropper",
    "CellFeatures",
    "MultiCellDetector",
    "find_cells",
]

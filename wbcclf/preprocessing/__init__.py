"""White cells: found and cut out."""

from wbcclf.preprocessing._cell import Cell
from wbcclf.preprocessing._cells import find_cells

__all__ = ["Cell", "find_cells"]

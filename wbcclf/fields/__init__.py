"""Whole fields of a smear to a differential count."""

from wbcclf.fields._count import count_cells

__all__ = ["count_cells"]

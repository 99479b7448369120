"""Models for machines without PyTorch."""

from wbcclf.exporting._page import export_page

__all__ = ["export_page"]

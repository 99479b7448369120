"""How sure a figure is where several images show one cell."""

from wbcclf.model_selection._intervals import group_bootstrap

__all__ = ["group_bootstrap"]

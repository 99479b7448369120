"""Pictures cut around their white cell at their own size, before they are stretched."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone

from wbcclf._images import HasMethods
from wbcclf._parameters import Machine, Training, belongs_to

__all__ = ["CROP_CONSTRAINT", "check_crop", "crop_key"]


class _Cropper(HasMethods):
    """A CellCropper. Its class is of a sibling folder, which this one does not import."""

    def __init__(self) -> None:
        super().__init__(["crop_pictures", "set_params"])

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether it cuts pictures: an instance, not the class itself."""
        return super().is_satisfied_by(val) and not isinstance(val, type)

    def __str__(self) -> str:
        return "a CellCropper"


_CROPPER = _Cropper()
CROP_CONSTRAINT = [_CROPPER, None]


def check_crop(crop: Any, image_size: tuple[int, int] | None) -> tuple[Any, tuple[int, int] | None]:
    """Return the cropper that cuts to `image_size`, and that size; None takes the cropper's own.

    Raises
    ------
    ValueError
        If `crop` is no CellCropper, one of its parameters is out of range, or `image_size` is no
        square.
    """
    if crop is None:
        return None, image_size
    if not _CROPPER.is_satisfied_by(crop):
        raise ValueError(f"crop must be a CellCropper or None, got {crop!r}.")
    crop = clone(crop)
    if image_size is not None:
        height, width = image_size
        if height != width:
            raise ValueError(
                f"image_size={image_size} is not square, but crop cuts squares: give one number."
            )
        crop.set_params(image_size=height)
    crop._validate_params()
    return crop, (crop.image_size, crop.image_size)


def crop_key(crop: Any) -> list | None:
    """Return what tells the squares of a cropper from those of others, on disk.

    None if its class declares no version of its own: its squares are not kept.
    """
    cls = type(crop)
    if "_version" not in vars(cls):
        return None
    params = [
        (name, repr(value))
        for name, value in sorted(crop.get_params().items())
        if not belongs_to(cls, name, Machine) and not belongs_to(cls, name, Training)
    ]
    return [cls.__module__, cls.__qualname__, cls._version, params]

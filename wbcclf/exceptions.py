"""Errors and warnings of wbcclf that a caller may want to catch by name."""


class ImageReadError(ValueError):
    """A file could not be read as an image; the message names the file and the reason."""


class WeightsNotFoundError(FileNotFoundError):
    """Pretrained weights are neither in the cache nor downloadable."""


class WeightsMismatchError(ValueError):
    """A weights file does not fit the network it was given to."""


class ModelFormatError(ValueError):
    """A file is not a model saved by ``wbcclf.save_model``, or a newer format than this version."""


class OutOfMemoryError(MemoryError):
    """The device has too little memory for the batch; the message says what to lower."""


class SmallClassWarning(UserWarning):
    """A class is too small for what was asked; the message names class and count."""


class SkippedFileWarning(UserWarning):
    """Files were left out while loading; the message names them."""


class DuplicateImageWarning(UserWarning):
    """A file stands byte for byte in several classes, groups or splits; the message names it."""


class TrainingInterruptedWarning(UserWarning):
    """Training ended before its last epoch, by Ctrl-C or a callback; the model is kept."""


class PartialWeightsWarning(UserWarning):
    """A weights file lacks tensors of the network; those start at random and are trained."""


class UnfamiliarImagesWarning(UserWarning):
    """Images do not look like those that the model was trained on; the message has the figure."""


class BrokenPluginWarning(UserWarning):
    """A backbone that another package offers cannot be used; names entry point and package."""

"""White blood cell images in, a trustworthy scikit-learn classifier out."""

# Names and folders are imported on first use (PEP 562), unlike in the other `__init__` files: else
# `import wbcclf.onnx` would need scikit-learn, which a machine that only predicts lacks.

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from wbcclf._version import __version__ as __version__

if TYPE_CHECKING:
    from wbcclf._public import *  # noqa: F403
else:

    def __getattr__(name):
        if name.startswith("_") and name != "__all__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if find_spec(f"{__name__}.{name}"):
            return import_module(f"{__name__}.{name}")
        try:
            value = getattr(import_module(f"{__name__}._public"), name)
        except AttributeError:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        globals()[name] = value
        return value

    def __dir__():
        try:
            return sorted({*globals(), *import_module(f"{__name__}._public").__all__})
        except ImportError:  # where only wbcclf.onnx can be used
            return sorted(globals())

"""The curve of a training that still runs, in a notebook."""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from skorch.callbacks import Callback

from wbcclf._history import best_epoch, draw_history
from wbcclf._warnings import warn
from wbcclf.classifiers.options._early_stopping import EarlyStopping

LEAST_PAUSE = 1.0  # seconds between two drawings
LARGEST_SHARE = 0.02  # of the time that drawing may take


def can_draw_live() -> bool:
    """Return whether this is the kernel of a notebook, and matplotlib is installed."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return (
        shell is not None and "IPKernelApp" in shell.config and find_spec("matplotlib") is not None
    )


class LiveCurve(Callback):
    """One picture of the losses below the progress bar, drawn anew as epochs end.

    Parameters
    ----------
    early_stopping : EarlyStopping or None
        Marks the best epoch so far.
    """

    def __init__(self, early_stopping: EarlyStopping | None):
        self.early_stopping = early_stopping

    def initialize(self):
        """Begin without a picture."""
        self.shown_: Any = None  # IPython's handle of the picture
        self.undrawn_: list[dict] = []  # the history, if it is newer than the picture
        self.has_failed_ = False
        self.next_ = 0.0
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Begin a picture: another training may run in another cell of the notebook."""
        self.shown_ = None

    def on_epoch_end(self, net, **kwargs):
        """Draw, unless the last drawing is too recent."""
        self.undrawn_ = list(net.history)
        if time.monotonic() >= self.next_:
            self._draw()

    def close(self):
        """Draw what has not been drawn."""
        self._draw()

    def _draw(self) -> None:
        if not self.undrawn_ or self.has_failed_:
            return
        started = time.monotonic()
        try:
            self._show(self.undrawn_)
        except Exception as error:  # whatever it is: hours of training are worth more
            self.has_failed_ = True
            warn(
                "The curve of the training cannot be drawn; the training goes on without it "
                f"({type(error).__name__}: {error})."
            )
        self.undrawn_ = []
        ended = time.monotonic()
        self.next_ = ended + max(LEAST_PAUSE, (ended - started) / LARGEST_SHARE)

    def _show(self, history: list[dict]) -> None:
        from IPython.display import Image, display
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.5), layout="constrained")  # not pyplot's: nobody closes it
        stopping = self.early_stopping
        kept = None
        if stopping is not None:
            kept = best_epoch(history, stopping.monitor, stopping.min_delta)
        draw_history(figure.add_subplot(), history, kept)
        png = BytesIO()
        figure.savefig(png, format="png")
        picture = Image(png.getvalue())
        if self.shown_ is None:
            self.shown_ = display(picture, display_id=True)
        else:
            self.shown_.update(picture)

"""skorch callbacks: schedules, early stopping, progress, divergence."""

from __future__ import annotations

import math
from typing import Any

from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau


def make_callbacks(classifier: Any, n_steps: int, *, validates: bool, schedules: bool) -> list:
    """Return the callbacks that the parameters of a CNNClassifier ask for.

    Parameters
    ----------
    classifier : CNNClassifier
    n_steps : int
        Training batches over all epochs.
    validates : bool
        Whether there are validation images.
    schedules : bool
        Whether the learning rate follows ``lr_schedule``.
    """
    callbacks: list = [("diverged", StopIfDiverged()), *(classifier.callbacks or ())]
    if validates and classifier.early_stopping:
        stop = EarlyStopping(
            monitor="valid_loss",
            patience=classifier.patience,
            threshold=0.0,
            load_best=True,
            sink=_silent,
        )
        callbacks.append(("early_stopping", stop))
    if schedules and classifier.lr_schedule != "constant":
        monitor = "valid_loss" if validates else "train_loss"
        schedule = {
            "cosine": lambda: LRScheduler(CosineAnnealingLR, T_max=n_steps, step_every="batch"),
            "onecycle": lambda: LRScheduler(
                OneCycleLR, max_lr=classifier.lr, total_steps=n_steps, step_every="batch"
            ),
            "plateau": lambda: LRScheduler(
                ReduceLROnPlateau, monitor=monitor, factor=0.3, patience=2
            ),
        }[classifier.lr_schedule]
        callbacks.append(("lr_schedule", schedule()))
    if classifier.verbose:
        callbacks.append(("progress", ProgressBar(n_steps)))
    return callbacks


def _silent(text: Any) -> None:
    """Swallow skorch's messages: the progress bar shows where training stands."""


class StopIfDiverged(Callback):
    """End training with an error as soon as the loss is no number."""

    def on_epoch_end(self, net, **kwargs):
        """Look at the epoch's mean loss."""
        loss = net.history[-1, "train_loss"]
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The training loss is {loss} in epoch {net.history[-1, 'epoch']}: training "
                f"diverged. Lower lr (it is {net.lr})."
            )


class ProgressBar(Callback):
    """One bar over all epochs, with the time left and the latest losses."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Show the bar on stderr."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar_ = Progress(
            TextColumn("training"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self.task_ = self.bar_.add_task("", total=self.n_steps)
        self.bar_.start()

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Advance by a training batch."""
        if training:
            self.bar_.advance(self.task_)

    def on_epoch_end(self, net, **kwargs):
        """Show the epoch's figures."""
        last = net.history[-1]
        figures = [
            f"{name} {last[name]:.3f}"
            for name in ("train_loss", "valid_loss", "valid_acc")
            if name in last
        ]
        self.bar_.update(self.task_, description=f"epoch {last['epoch']}: {', '.join(figures)}")

    def close(self):
        """Leave the bar where it is."""
        if hasattr(self, "bar_"):
            self.bar_.stop()

"""skorch callbacks: early stopping, averaging, unfreezing, progress, divergence, gain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping

from wbcclf._progress import progress_bar
from wbcclf._warnings import warn
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._schedules import Budget, make_schedule


def make_callbacks(
    settings: Settings, budget: Budget, network: CellNetwork, *, validates: bool
) -> list:
    """Return the callbacks of a training that has an end.

    Parameters
    ----------
    settings : Settings
    budget : Budget
    network : CellNetwork
        Frozen as far as it ever will be.
    validates : bool
        Whether there are validation images.
    """
    # The order matters at an epoch's end: the average is shown before the best weights are kept.
    callbacks = make_step_callbacks(settings)
    if settings.epochs_per_layer is not None:
        reached = (budget.epochs - 1) // settings.epochs_per_layer
        n_unfrozen = len(network.backbone) - network.n_frozen_blocks
        if reached < n_unfrozen:
            warn(
                f"GradualUnfreezing(epochs_per_layer={settings.epochs_per_layer}) reaches "
                f"{reached} of the {n_unfrozen} blocks to train in {budget.epochs} epochs; the "
                "others stay frozen."
            )
        unfreezing = UnfreezeGradually(settings.epochs_per_layer, network.n_frozen_blocks)
        callbacks.append(("unfreezing", unfreezing))
    stopping = settings.early_stopping
    if validates and stopping is not None:
        stop = KeepBest(
            monitor=stopping.monitor,
            lower_is_better=stopping.monitor == "valid_loss",
            patience=stopping.patience,
            threshold=stopping.min_delta,
            threshold_mode="abs",
            load_best=True,
            sink=_silent,
        )
        callbacks.append(("early_stopping", stop))
    callbacks.append(("gain", Gain()))
    monitor = stopping.monitor if stopping is not None else "valid_loss"
    schedule = make_schedule(settings, budget, monitor if validates else "train_loss")
    if schedule is not None:
        callbacks.append(("lr_schedule", schedule))
    return callbacks


def make_step_callbacks(settings: Settings) -> list:
    """Return the callbacks that look at single steps, which `partial_fit` has, too.

    It has no end to plan for: the learning rate stays, all unfrozen blocks are trained, and nothing
    stops early.
    """
    callbacks: list = [("diverged", StopIfDiverged()), *settings.callbacks]
    if settings.optimizer.max_grad_norm is not None:
        callbacks.append(("clipping", GradientNormClipping(settings.optimizer.max_grad_norm)))
    if settings.averaging is not None:
        callbacks.append(("average", AverageWeights(settings.averaging.decay)))
    return callbacks


class KeepBest(EarlyStopping):
    """skorch's early stopping, able to be resumed."""

    _STATE = ("misses_", "dynamic_threshold_", "best_epoch_", "best_model_weights_")

    def on_train_end(self, net, **kwargs):
        """Take the best weights, if there was an epoch."""
        if net.history:
            super().on_train_end(net, **kwargs)

    def training_state(self) -> dict:
        """Return what a resumed training needs."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_training_state(self, state: dict) -> None:
        """Resume where `state` was taken."""
        for name in self._STATE:
            setattr(self, name, state[name])


def _silent(text: Any) -> None:
    """Swallow skorch's messages: the progress bar shows where training stands."""


class AverageWeights(Callback):
    """Exponential moving average of what is trained; validation and the end result use it.

    torch's own ``swa_utils.AveragedModel`` would hold a second copy of the frozen blocks, too, and
    an average of a short training would be mostly the weights of its first step.

    BatchNorm's running statistics are averaged with the weights they belong to.

    Parameters
    ----------
    decay : float
    """

    def __init__(self, decay):
        self.decay = decay

    def initialize(self):
        """Begin without an average."""
        self.step_ = 0
        self.average_ = None
        self.raw_ = None  # the trained weights while the network holds the average
        return self

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Find the tensors that training changes."""
        parts = net.module_.trained_parts().values()
        tensors = [tensor for part in parts for tensor in part.state_dict(keep_vars=True).values()]
        self.tensors_ = [tensor.detach() for tensor in tensors if tensor.is_floating_point()]

    def on_epoch_begin(self, net, **kwargs):
        """Train on from the trained weights, not from their average."""
        if self.raw_ is not None:
            torch._foreach_copy_(self.tensors_, self.raw_)
            self.raw_ = None

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Show the average to the validation."""
        if not training:
            self._show()

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Take a step's weights in."""
        if not training:
            return
        self.step_ += 1
        if self.average_ is None:
            self.average_ = [tensor.clone() for tensor in self.tensors_]
            return
        # An average that starts from nothing, divided by the weight that it has collected (as
        # Adam does), moves towards the newest weights by this share.
        share = (1 - self.decay) / (1 - self.decay**self.step_)
        torch._foreach_lerp_(self.average_, self.tensors_, share)

    def on_epoch_end(self, net, **kwargs):
        """Leave the average in the network: for the best weights, and if this was the last."""
        self._show()

    def on_train_end(self, net, X=None, y=None, **kwargs):
        """Leave the average in the network after an interruption, too."""
        self._show()

    def _show(self):
        if self.raw_ is None and self.average_ is not None:
            self.raw_ = [tensor.clone() for tensor in self.tensors_]
            torch._foreach_copy_(self.tensors_, self.average_)

    def training_state(self) -> dict:
        """Return what a resumed training needs."""
        return {"step": self.step_, "average": self.average_, "raw": self.raw_}

    def load_training_state(self, state: dict) -> None:
        """Resume where `state` was taken."""
        self.step_, self.average_, self.raw_ = state["step"], state["average"], state["raw"]


class UnfreezeGradually(Callback):
    """Begin with the head alone and unfreeze one block more every few epochs.

    Howard and Ruder 2018, https://arxiv.org/abs/1801.06146.

    Parameters
    ----------
    epochs_per_block : int
    n_frozen_blocks : int
        Blocks at the start of the chain that stay frozen.
    """

    def __init__(self, epochs_per_block, n_frozen_blocks):
        self.epochs_per_block = epochs_per_block
        self.n_frozen_blocks = n_frozen_blocks

    def on_epoch_begin(self, net, **kwargs):
        """Set the cut of this epoch."""
        done = sum("train_loss" in epoch for epoch in net.history)
        n_blocks = len(net.module_.backbone)
        net.module_.freeze(max(self.n_frozen_blocks, n_blocks - done // self.epochs_per_block))


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


class Gain(Callback):
    """Record how far an epoch's loss is below that of always predicting the classes' shares.

    As a share of the latter: 0 where nothing was learnt, 1 at a loss of 0; McFadden's pseudo-R2
    (McFadden 1974, Conditional logit analysis of qualitative choice behavior). Classes count as
    they were drawn, weighted, balanced or mixed; penalties on weights do not. Nothing is recorded
    where the shares alone give a loss of 0.01 or less, which one image in a thousand of another
    class does: a share of so little is noise.
    """

    def on_epoch_begin(self, net, **kwargs):
        """Begin to add up."""
        self.loss_ = 0.0
        self.weights_: np.ndarray | float = 0.0  # of each class

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Add the loss of a training batch and the weights of its labels."""
        if not training:
            return
        X, y = batch
        weight = np.asarray(X["sample_weight"], dtype=np.float64)
        self.loss_ += float(net.loss_without_penalty) * weight.sum()
        if y.ndim == 1:
            self.weights_ += np.bincount(y, weight, minlength=y_pred.shape[1])
        else:
            self.weights_ += weight @ y

    def on_epoch_end(self, net, **kwargs):
        """Compare."""
        weights = torch.as_tensor(self.weights_, dtype=torch.float32, device=net.device)
        total, n_classes = weights.sum(), len(weights)
        # Smoothed as the labels are, which gives the least cross-entropy.
        smoothing = net.criterion_.label_smoothing
        shares = (1 - smoothing) * weights / total + smoothing / n_classes
        # Focal loss is least at more even shares, so their powers down to equality are tried.
        powers = torch.linspace(0, 1, 11, device=total.device)[:, None]
        constants = powers * shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
        # Every loss is linear in the label, so one prediction for each class is enough.
        labels = torch.arange(n_classes, device=total.device)
        losses = net.criterion_(
            constants.repeat_interleave(n_classes, dim=0), labels.repeat(len(powers))
        )
        of_shares = float((losses.view(len(powers), n_classes) @ weights).min())
        if of_shares > 0.01 * float(total):
            net.history.record("gain", 1 - self.loss_ / of_shares)


class ProgressBar(Callback):
    """One bar over all epochs, with the time left and the latest losses."""

    def __init__(self, n_steps: int):
        self.n_steps = n_steps

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Make the bar, on stderr."""
        self.bar_ = progress_bar()
        self.task_ = self.bar_.add_task("training", total=self.n_steps)

    def on_epoch_begin(self, net, **kwargs):
        """Show the bar, below that of the frozen blocks."""
        self.bar_.start()  # does nothing from the second epoch on

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
        text = f"training, epoch {last['epoch']}: {', '.join(figures)}"
        self.bar_.update(self.task_, description=text)

    def close(self):
        """Leave the bar where it is."""
        if hasattr(self, "bar_"):
            self.bar_.stop()

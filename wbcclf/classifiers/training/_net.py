"""The skorch net: whole batches instead of single images, weights in the loss, safe pickling."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from skorch.helper import predefined_split

from wbcclf._warnings import warn
from wbcclf.classifiers.caching._keys import frozen_digest
from wbcclf.classifiers.data._batches import Batches, ImageData
from wbcclf.classifiers.network._device import (
    arithmetic,
    resolve_device,
    resolve_precision,
    seeded,
)
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.options._optimizer import Optimizer
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._callbacks import ProgressBar
from wbcclf.classifiers.training._live import LiveCurve, can_draw_live
from wbcclf.classifiers.training._losses import Penalty, make_criterion
from wbcclf.classifiers.training._mixing import Mixer
from wbcclf.classifiers.training._schedules import Budget
from wbcclf.exceptions import OutOfMemoryError, TrainingInterruptedWarning

# "fused" is one pass over the weights in place of one for each operation: a third less time.
_METHODS = {
    "adam": (torch.optim.Adam, {"fused": True}),
    "adamw": (torch.optim.AdamW, {"fused": True}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}

# What skorch records of an epoch, our name for it, and its type.
FIGURES = {
    "epoch": ("epoch", int),
    "train_batch_count": ("steps", int),
    "train_loss": ("train_loss", float),
    "gain": ("gain", float),
    "valid_loss": ("valid_loss", float),
    "valid_acc": ("valid_acc", float),
    "dur": ("dur", float),
}


class CellNet(NeuralNetClassifier):
    """skorch's training loop over :class:`ImageData`, for :class:`CNNClassifier` to compose.

    Parameters beyond skorch's
    --------------------------
    precision : {"float32", "bfloat16"}
    random_state : numpy.random.RandomState
        Shuffles, augments and mixes.
    training_batches : callable
        ``ImageData -> Batches`` for training.
    layer_lr_decay : float
        What the learning rate is multiplied with from block to block, going down from the head.
    penalty : Penalty or None
        Added to the training loss.
    n_steps : int or None
        Training ends after so many steps, though it is in the middle of an epoch. None is for a
        net of `partial_fit`, which is trained epoch by epoch.
    trained_as : str
        Digest of the classifier's parameters when the net was made.
    """

    interrupted = False  # True after Ctrl-C
    loss_without_penalty: torch.Tensor | None = None  # of the last batch
    # Of the frozen blocks when their activations were computed, where callbacks may change them.
    frozen_digest: str | None = None
    given: Mapping | None = None  # the parameters: digests hold ids of some, which have to live

    def __init__(
        self,
        *args,
        precision="float32",
        random_state=None,
        training_batches=None,
        layer_lr_decay=1.0,
        penalty=None,
        n_steps=None,
        trained_as="",
        **kwargs,
    ):
        self.precision = precision
        self.random_state = random_state
        self.training_batches = training_batches
        self.layer_lr_decay = layer_lr_decay
        self.penalty = penalty
        self.n_steps = n_steps
        self.trained_as = trained_as
        super().__init__(*args, dataset=ImageData, **kwargs)

    def check_data(self, X, y=None):
        """Accept everything: the classifier has checked it."""

    def torch_compile(self, module, name):
        """Compile the network in place: skorch's wrapper would rename its weights."""
        if self.compile and name == "module":
            module.compile()
        return module

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train, and tell if it was interrupted: skorch ends quietly on Ctrl-C."""
        self._check_frozen()
        if self.n_steps is not None:
            epochs = self.max_epochs - len(self.history)  # a checkpoint's epochs are done
        try:
            return super().fit_loop(X, y, epochs, **fit_params)
        except KeyboardInterrupt:
            stopped_early = any(
                isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience
                for _, callback in self.callbacks_
            )
            if not stopped_early:
                self.interrupted = True
                warn(
                    f"Training was interrupted in epoch {len(self.history)}; what was learnt until "
                    "then is kept.",
                    TrainingInterruptedWarning,
                )
            raise

    def run_single_epoch(self, iterator, training, **kwargs):
        """Run an epoch; the last one of a training ends with its steps."""
        if training and self.n_steps is not None:
            done = sum(epoch["train_batch_count"] for epoch in self.history[:-1])
            iterator = islice(iterator, self.n_steps - done)
        super().run_single_epoch(iterator, training, **kwargs)

    def _check_frozen(self) -> None:
        """Fail if a callback has replaced weights that activations were computed with."""
        if self.frozen_digest not in (None, frozen_digest(self.module_)):
            raise ValueError(
                "A callback has changed the weights of frozen blocks since their activations were "
                "computed. Give the classifier these weights as "
                "weights=..., or set cache_gb=0."
            )

    def get_iterator(self, dataset, training=False):
        """Return the batches of a data set."""
        return self.training_batches(dataset) if training else Batches(dataset, self.batch_size)

    def get_all_learnable_params(self):
        """Yield only what is trained: frozen blocks cost the optimiser nothing."""
        for name, parameter in super().get_all_learnable_params():
            if parameter.requires_grad:
                yield name, parameter

    def get_params_for_optimizer(self, prefix, named_parameters):
        """Return one group of parameters for each learning rate."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if self.layer_lr_decay == 1:
            return args, kwargs
        groups = [
            {"params": params, "lr": self.lr * self.layer_lr_decay**depth}
            for depth, part in enumerate(reversed(self.module_.trained_parts().values()))
            if (params := list(part.parameters()))
        ]
        return (groups,), kwargs

    def infer(self, x, **fit_params):
        """Run the network on one batch in the chosen precision."""
        with arithmetic(self.device, self.precision):
            return super().infer(x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted mean of the samples' losses, and in training the penalty."""
        weight = torch.as_tensor(X["sample_weight"], device=y_pred.device)
        losses = self.criterion_(y_pred, torch.as_tensor(y_true, device=y_pred.device))
        loss = (losses * weight).sum() / weight.sum()
        self.loss_without_penalty = loss.detach()
        return loss + self.penalty() if training and self.penalty is not None else loss

    def move_to(self, device: str, precision: str) -> None:
        """Move the network to `device`, and compute there in `precision` from now on.

        The optimiser's state stays behind and is dropped.
        """
        self.device = device
        self.precision = precision
        self.__dict__.pop("optimizer_", None)
        for name in (*self._modules, *self._criteria):
            getattr(self, name + "_").to(device)

    def __getstate__(self):
        """Pickle the network on the CPU and nothing that only training needs.

        Optimiser state, callbacks and shuffling state are left out: they may hold data, open files
        or another device's tensors, and predicting needs none of them.
        """
        state = self.__dict__.copy()
        for key in ("optimizer_", "_default_callbacks"):
            state.pop(key, None)
        state.update(
            callbacks=None,
            callbacks_=[],
            training_batches=None,
            given=None,
            frozen_digest=None,
            loss_without_penalty=None,
            penalty=None,
            random_state=None,
            device="cpu",
        )
        if torch.device(self.device).type != "cpu":
            state["module_"] = copy.deepcopy(self.module_).cpu()
        state["module"] = state["module_"]
        state["_optimizers"] = []
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)


def make_net(
    settings: Settings,
    network: CellNetwork,
    n_classes: int,
    random_state: np.random.RandomState,
    callbacks: list,
    budget: Budget,
    *,
    incremental: bool = False,
) -> CellNet:
    """Return a net that is ready to train a network.

    Parameters
    ----------
    settings : Settings
    network : CellNetwork
    n_classes : int
    random_state : RandomState
        Shuffles, augments and mixes.
    callbacks : list
    budget : Budget
    incremental : bool
        Whether it is trained epoch by epoch, in many calls.

    Raises
    ------
    ValueError
        If the optimizer does not take its parameters, or a penalty names no trained block.
    """
    method, options = _optimizer(settings.optimizer)
    penalty = None
    if settings.loss.l1 or settings.loss.l2:
        penalty = Penalty(network.trained_parts(), settings.loss.l1, settings.loss.l2)
    if settings.verbose:
        callbacks = [*callbacks, ("progress", ProgressBar(budget.n_steps))]
        if can_draw_live():
            callbacks.append(("curve", LiveCurve(settings.early_stopping)))
    device = resolve_device(settings.device, fitted=False)
    net = CellNet(
        module=network,
        criterion=make_criterion(settings.loss),
        optimizer=method,
        **{f"optimizer__{name}": value for name, value in options.items()},
        lr=settings.lr,
        max_epochs=budget.epochs,
        n_steps=None if incremental else budget.n_steps,
        batch_size=settings.batch_size,
        train_split=None,
        callbacks=callbacks,
        device=device,
        verbose=0,
        classes=np.arange(n_classes),
        precision=resolve_precision(settings.precision, device, settings.backbone.name),
        compile=settings.compile,
        random_state=random_state,
        training_batches=partial(
            Batches,
            batch_size=settings.batch_size,
            random_state=random_state,
            augment=settings.augment,
            balanced=settings.balanced_batches,
            mixing=settings.mixing and Mixer(settings.mixing, n_classes),
        ),
        layer_lr_decay=settings.optimizer.layer_lr_decay,
        penalty=penalty,
        trained_as=settings.digest,
    )
    net.given = settings.given
    try:
        return net.initialize()
    except TypeError as error:
        raise ValueError(
            f"{method.__name__} does not take {settings.optimizer!r} with its lr ({error})."
        ) from error


def _optimizer(optimizer: Optimizer) -> tuple[type[torch.optim.Optimizer], dict]:
    """Return torch's class and its parameters, without the learning rate."""
    method, options = _METHODS.get(optimizer.method, (optimizer.method, {}))
    # torch's AdamW would decay weights by default; LBFGS knows no such thing.
    if optimizer.weight_decay or "weight_decay" in inspect.signature(method).parameters:
        options = options | {"weight_decay": optimizer.weight_decay}
    options = options | (optimizer.params or {})
    if "lr" in options:
        raise ValueError(
            "Optimizer(params=...) holds 'lr': set the parameter lr of the classifier."
        )
    return method, options


def untrained_net(settings: Settings, network: CellNetwork, n_classes: int) -> CellNet:
    """Return a net on the CPU that predicts, for a network with weights from a file."""
    on_cpu = replace(settings, device="cpu", verbose=0, callbacks=())
    return make_net(on_cpu, network, n_classes, np.random.RandomState(0), [], Budget(0, 1))


def train(net: CellNet, train_data: ImageData, valid_data: ImageData | None) -> list[dict]:
    """Train for the net's epochs and return their figures, as plain Python numbers."""
    done = len(net.history)
    net.train_split = None if valid_data is None else predefined_split(valid_data)
    try:
        with seeded(net.random_state.randint(np.iinfo(np.int32).max)), keeping_freed_memory():
            net.partial_fit(train_data)
        net._check_frozen()  # again: callbacks act after every step
        _check_weights(net)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "BatchNorm of an unfrozen block cannot train on a single image: give more images, a "
            f"batch_size above 1 (it is {net.batch_size}), a larger input_size, or freeze more "
            "blocks."
        ) from error
    except torch.OutOfMemoryError as error:
        size = net.module_.preprocessing.input_size
        raise OutOfMemoryError(
            f"The device {net.device} has too little memory for a training batch: lower batch_size "
            f"(it is {net.batch_size}) or input_size (it is {size}), or freeze more blocks."
        ) from error
    finally:
        net.train_split = None
        net.frozen_digest = None
        for _, callback in net.callbacks_:
            if isinstance(callback, (ProgressBar, LiveCurve)):
                callback.close()  # skorch calls on_train_end only where nothing went wrong
    return [
        {ours: kind(epoch[name]) for name, (ours, kind) in FIGURES.items() if name in epoch}
        for epoch in net.history.to_list()[done:]
        if "train_loss" in epoch  # not the half epoch of an interrupted training
    ]


def _check_weights(net: CellNet) -> None:
    """Fail if the last step, which no loss was computed after, has spoilt the weights."""
    parts = net.module_.trained_parts().values()
    tensors = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise FloatingPointError(
            f"Weights are infinite or NaN after the last step: training diverged. Lower lr (it is "
            f"{net.lr})."
        )

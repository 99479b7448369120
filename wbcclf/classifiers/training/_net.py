"""The skorch net: whole batches instead of single images, weights in the loss, safe pickling."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping

from wbcclf.backbones import get_backbone
from wbcclf.classifiers.caching._activations import N_TOGETHER, FrozenPart
from wbcclf.classifiers.data._batches import BLOCK_BYTES, Batches, ImageData
from wbcclf.classifiers.network._device import arithmetic, resolve_precision, seeded
from wbcclf.classifiers.network._heap import keeping_freed_memory
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.classifiers.network._running import run_in_batches
from wbcclf.classifiers.training._callbacks import ProgressBar
from wbcclf.classifiers.training._losses import Penalty, make_loss
from wbcclf.classifiers.training._mixing import Mixing
from wbcclf.classifiers.training._schedules import Budget
from wbcclf.exceptions import OutOfMemoryError, TrainingInterruptedWarning

# "fused" is one pass over the weights in place of one for each operation: a third less time.
OPTIMIZERS = {
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
    n_steps : int
        Training ends after so many steps, though it is in the middle of an epoch; not if
        `incremental`.
    """

    incremental = False  # True for a net of partial_fit
    trained_as: dict | None = None  # the classifier's parameters when the net was made
    interrupted = False  # True after Ctrl-C
    loss_without_penalty: torch.Tensor | None = None  # of the last batch
    prepare: Callable | None = None  # what makes of the data what the epochs run on

    def __init__(
        self,
        *args,
        precision="float32",
        random_state=None,
        training_batches=None,
        layer_lr_decay=1.0,
        penalty=None,
        n_steps=None,
        **kwargs,
    ):
        self.precision = precision
        self.random_state = random_state
        self.training_batches = training_batches
        self.layer_lr_decay = layer_lr_decay
        self.penalty = penalty
        self.n_steps = n_steps
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
        if not self.incremental:
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
                warnings.warn(
                    f"Training was interrupted in epoch {len(self.history)}; what was learnt until "
                    "then is kept.",
                    TrainingInterruptedWarning,
                    stacklevel=2,
                )
            raise

    def run_single_epoch(self, iterator, training, **kwargs):
        """Run an epoch; the last one of a training ends with its steps."""
        if training and not self.incremental:
            done = sum(epoch["train_batch_count"] for epoch in self.history[:-1])
            iterator = islice(iterator, self.n_steps - done)
        super().run_single_epoch(iterator, training, **kwargs)

    def get_split_datasets(self, X, y=None, **fit_params):
        """Take the pair (training data, validation data or None) that the classifier split.

        And prepare it: not before, since a callback may load weights when the training begins.
        """
        return self.prepare(*X)

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

    def predict_logits(
        self, images: np.ndarray, batch_size: int, frozen: FrozenPart | None
    ) -> np.ndarray:
        """Return logits (n, n_classes); `frozen` takes or leaves activations in its store.

        Fewer images than it computes together are predicted without it unless it has them all:
        filling up their batch would make a single image as slow as many.
        """
        if frozen is None or (len(images) < N_TOGETHER and not frozen.holds(images)):
            return self._run_in_batches("images", images, batch_size)
        parts = []
        step = batch_size * max(1, int(BLOCK_BYTES / frozen.row_bytes() / batch_size))
        for start in range(0, len(images), step):
            rows = np.arange(start, min(start + step, len(images)))
            kept = np.empty((len(rows), frozen.row_bytes()), np.uint8)
            frozen.fill(kept, images, rows)
            parts.append(self._run_in_batches("activations", frozen.as_tensor(kept), batch_size))
        return np.concatenate(parts)

    def _run_in_batches(self, kind: str, X: Any, batch_size: int) -> np.ndarray:
        network = self.module_.eval()

        def run(batch: torch.Tensor) -> torch.Tensor:
            with torch.inference_mode(), arithmetic(self.device, self.precision):
                return network(**{kind: batch.to(self.device)})

        with keeping_freed_memory():
            return run_in_batches(run, X, batch_size, self.device)

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
            prepare=None,
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
    classifier: Any,
    network: CellNetwork,
    callbacks: list | None,
    budget: Budget,
    random_state: np.random.RandomState,
    device: str,
) -> CellNet:
    """Return an initialised net with the parameters of a CNNClassifier.

    Raises
    ------
    ValueError
        If the optimizer does not take `optimizer_params`, or a penalty names no trained block.
    """
    n_classes = len(classifier.classes_)
    optimizer, options = OPTIMIZERS.get(classifier.optimizer, (classifier.optimizer, {}))
    # torch's AdamW would decay weights by default; LBFGS knows no such thing.
    if classifier.weight_decay or "weight_decay" in inspect.signature(optimizer).parameters:
        options = options | {"weight_decay": classifier.weight_decay}
    options = options | (classifier.optimizer_params or {})
    if "lr" in options:
        raise ValueError("optimizer_params holds 'lr': set the parameter lr itself.")
    mixing = None
    if classifier.mixup or classifier.cutmix:
        mixing = Mixing(classifier.mixup, classifier.cutmix, n_classes)
    penalty = None
    if classifier.l1 or classifier.l2:
        penalty = Penalty(network.trained_parts(), classifier.l1, classifier.l2)
    net = CellNet(
        module=network,
        criterion=make_loss(classifier),
        optimizer=optimizer,
        **{f"optimizer__{name}": value for name, value in options.items()},
        lr=classifier.lr,
        max_epochs=budget.epochs,
        n_steps=budget.n_steps,
        batch_size=classifier.batch_size,
        callbacks=callbacks,
        device=device,
        verbose=0,
        classes=np.arange(n_classes),
        precision=resolve_precision(
            classifier.precision, device, get_backbone(classifier.backbone).name
        ),
        compile=classifier.compile,
        random_state=random_state,
        training_batches=partial(
            Batches,
            batch_size=classifier.batch_size,
            random_state=random_state,
            augment=classifier.augment,
            balanced=classifier.balanced_batches,
            mixing=mixing,
        ),
        layer_lr_decay=classifier.layer_lr_decay,
        penalty=penalty,
    )
    try:
        return net.initialize()
    except TypeError as error:
        raise ValueError(
            f"{optimizer.__name__} does not take optimizer_params={classifier.optimizer_params!r} "
            f"with lr and weight_decay ({error})."
        ) from error


def train(
    net: CellNet, train_data: ImageData, valid_data: ImageData | None, prepare: Callable
) -> list[dict]:
    """Train for the net's epochs and return their figures, as plain Python numbers.

    `prepare` takes both data sets when the training has begun, and returns those that it runs on.
    """
    done = len(net.history)
    net.prepare = prepare
    try:
        with seeded(net.random_state.randint(np.iinfo(np.int32).max)), keeping_freed_memory():
            net.partial_fit((train_data, valid_data))
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
        net.prepare = None
        for _, callback in net.callbacks_:
            if isinstance(callback, ProgressBar):
                callback.close()  # skorch calls on_train_end only where nothing went wrong
    return [
        {ours: kind(epoch[name]) for name, (ours, kind) in FIGURES.items() if name in epoch}
        for epoch in net.history.to_list()[done:]
        if "train_loss" in epoch  # not the half epoch of an interrupted training
    ]


def _check_weights(net: CellNet) -> None:
    """Fail if the last step, which no loss was computed after, has spoilt the weights."""
    parts = net.module_.trained_parts().values()
    if not all(tensor.isfinite().all() for part in parts for tensor in part.state_dict().values()):
        raise FloatingPointError(
            f"Weights are infinite or NaN after the last step: training diverged. Lower lr (it is "
            f"{net.lr})."
        )

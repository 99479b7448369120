"""The skorch net: whole batches instead of single images, weights in the loss, safe pickling."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch.utils.data import Dataset

from wbcclf.classifiers._callbacks import ProgressBar
from wbcclf.classifiers._network import seeded
from wbcclf.exceptions import OutOfMemoryError, TrainingInterruptedWarning

OPTIMIZERS = {
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "rmsprop": (torch.optim.RMSprop, {}),
}

FIGURES = {"epoch": int, "train_loss": float, "valid_loss": float, "valid_acc": float, "dur": float}


class ImageData(Dataset):
    """Images, class numbers and weights of one fit; indexed by batches of row numbers.

    Parameters
    ----------
    X : ndarray of shape (n_samples, height, width, channels)
        Never copied: a batch's rows are gathered when it is their turn.
    y : ndarray of shape (n_samples,), int, or None
        Class numbers.
    sample_weight : ndarray of shape (n_samples,) or None
        None is a weight of one each.
    rows : ndarray of shape (n_used,), int, or None
        The rows of `X` that belong to this data set; None means all.
    """

    def __init__(self, X, y=None, sample_weight=None, rows=None):
        self.X = X
        self.rows = np.arange(len(X)) if rows is None else rows
        self.y = np.zeros(len(X), dtype=np.int64) if y is None else y
        self.sample_weight = np.ones(len(X)) if sample_weight is None else sample_weight

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, positions: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return (images and weights, class numbers) of the rows at `positions`."""
        rows = self.rows[positions]
        images = self.X[rows]
        if images.dtype not in (np.uint8, np.float32):  # torch has no unsigned or half-wide rest
            images = images.astype(np.float32)
        weight = self.sample_weight[rows].astype(np.float32)
        return {"images": images, "sample_weight": weight}, self.y[rows]


class Batches:
    """Iterate over an :class:`ImageData` in batches, shuffled and augmented when training.

    A last batch of a single image joins the one before it, because BatchNorm cannot train on one.
    """

    def __init__(self, dataset, batch_size, random_state=None, augment=None):
        self.dataset = dataset
        self.batch_size = batch_size
        self.random_state = random_state
        self.augment = augment

    def __len__(self):
        n_batches = math.ceil(len(self.dataset) / self.batch_size)
        lonely = n_batches > 1 and self.batch_size > 1 and len(self.dataset) % self.batch_size == 1
        return n_batches - int(lonely)

    def __iter__(self) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        order = np.arange(len(self.dataset))
        if self.random_state is not None:
            order = self.random_state.permutation(order)
        for number in range(len(self)):
            start = number * self.batch_size
            stop = None if number == len(self) - 1 else start + self.batch_size
            inputs, target = self.dataset[order[start:stop]]
            if self.augment is not None:
                inputs["images"] = self.augment.augment(inputs["images"], self.random_state)
            yield inputs, target


class CellNet(NeuralNetClassifier):
    """skorch's training loop over :class:`ImageData`, for :class:`CNNClassifier` to compose.

    Parameters beyond skorch's
    --------------------------
    precision : {"float32", "bfloat16"}
    augment : Augmenter or None
        Applied to every training batch.
    random_state : numpy.random.RandomState
        Shuffles and augments.
    """

    incremental = False  # True for a net of partial_fit

    def __init__(self, *args, precision="float32", augment=None, random_state=None, **kwargs):
        self.precision = precision
        self.augment = augment
        self.random_state = random_state
        super().__init__(*args, dataset=ImageData, **kwargs)

    def check_data(self, X, y=None):
        """Accept everything: the classifier has checked it."""

    def fit_loop(self, X, y=None, epochs=None, **fit_params):
        """Train, and tell if it was interrupted: skorch ends quietly on Ctrl-C."""
        try:
            return super().fit_loop(X, y, epochs, **fit_params)
        except KeyboardInterrupt:
            stopped_early = any(
                isinstance(callback, EarlyStopping) and callback.misses_ >= callback.patience
                for _, callback in self.callbacks_
            )
            if not stopped_early:
                warnings.warn(
                    f"Training was interrupted in epoch {len(self.history)}; what was learnt until "
                    "then is kept.",
                    TrainingInterruptedWarning,
                    stacklevel=2,
                )
            raise

    def get_split_datasets(self, X, y=None, **fit_params):
        """Take the pair (training data, validation data or None) that the classifier split."""
        return X

    def get_iterator(self, dataset, training=False):
        """Return the batches of a data set."""
        if training:
            return Batches(dataset, self.batch_size, self.random_state, self.augment)
        return Batches(dataset, self.batch_size)

    def get_all_learnable_params(self):
        """Yield only what is trained: frozen blocks cost the optimiser nothing."""
        for name, parameter in super().get_all_learnable_params():
            if parameter.requires_grad:
                yield name, parameter

    def infer(self, x, **fit_params):
        """Run the network on one batch in the chosen precision."""
        with torch.autocast(
            torch.device(self.device).type,
            dtype=getattr(torch, self.precision),
            enabled=self.precision != "float32",
        ):
            return super().infer(x, **fit_params)

    def get_loss(self, y_pred, y_true, X=None, training=False):
        """Return the weighted mean of the samples' losses."""
        weight = torch.as_tensor(X["sample_weight"], device=y_pred.device)
        losses = self.criterion_(y_pred, torch.as_tensor(y_true, device=y_pred.device))
        return (losses * weight).sum() / weight.sum()

    def predict_logits(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """Return logits (n, n_classes), halving the batch while the device lacks memory for it."""
        data, start, parts = ImageData(images), 0, []
        while start < len(data):
            try:
                inputs, _ = data[np.arange(start, min(start + batch_size, len(data)))]
                parts.append(self.evaluation_step((inputs, None)).cpu().numpy())
            except torch.OutOfMemoryError as error:
                if batch_size == 1:
                    raise OutOfMemoryError(
                        f"The device {self.device} has too little memory to predict a single image "
                        f"of {images.shape[1:]}. Use a smaller input_size or device='cpu'."
                    ) from error
                batch_size //= 2
                continue
            start += batch_size
        return np.concatenate(parts)

    def move_to(self, device: str) -> None:
        """Move the network to `device`; the optimiser's state stays behind and is dropped."""
        self.device = device
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
        state.update(callbacks=None, callbacks_=[], augment=None, random_state=None, device="cpu")
        if torch.device(self.device).type != "cpu":
            state["module_"] = copy.deepcopy(self.module_).cpu()
        state["module"] = state["module_"]
        state["_optimizers"] = []
        return state

    def __setstate__(self, state):
        self.__dict__.update(state)


def make_net(
    classifier: Any,
    network: torch.nn.Module,
    callbacks: list | None,
    epochs: int,
    random_state: np.random.RandomState,
    device: str,
) -> CellNet:
    """Return an initialised net with the parameters of a CNNClassifier."""
    optimizer, options = OPTIMIZERS.get(classifier.optimizer, (classifier.optimizer, {}))
    return CellNet(
        module=network,
        criterion=torch.nn.CrossEntropyLoss(reduction="none"),
        optimizer=optimizer,
        **{f"optimizer__{name}": value for name, value in options.items()},
        optimizer__weight_decay=classifier.weight_decay,
        lr=classifier.lr,
        max_epochs=epochs,
        batch_size=classifier.batch_size,
        callbacks=callbacks,
        device=device,
        verbose=0,
        classes=np.arange(len(classifier.classes_)),
        precision=classifier.precision,
        augment=classifier.augment,
        random_state=random_state,
    ).initialize()


def train(net: CellNet, train_data: ImageData, valid_data: ImageData | None) -> list[dict]:
    """Train for the net's epochs and return their figures, as plain Python numbers."""
    done = len(net.history)
    try:
        with seeded(net.random_state.randint(np.iinfo(np.int32).max)):
            net.partial_fit((train_data, valid_data))
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            "BatchNorm of an unfrozen block cannot train on a single image: give more images, a "
            f"batch_size above 1 (it is {net.batch_size}), a larger input_size, or freeze more "
            "blocks."
        ) from error
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"The device {net.device} has too little memory for a training batch: lower batch_size "
            f"(it is {net.batch_size}) or input_size (it is {net.module_.input_size}), or freeze "
            "more blocks."
        ) from error
    finally:
        for _, callback in net.callbacks_:
            if isinstance(callback, ProgressBar):
                callback.close()  # skorch calls on_train_end only where nothing went wrong
    return [
        {name: kind(epoch[name]) for name, kind in FIGURES.items() if name in epoch}
        for epoch in net.history.to_list()[done:]
        if "train_loss" in epoch  # not the half epoch of an interrupted training
    ]


def resolve_device(device: str, *, fitted: bool) -> str:
    """Return the torch device that a `device` parameter stands for.

    A fitted model that asks for a device this machine lacks predicts on what there is, with a
    warning, so that a model trained on a GPU can be used on a laptop; training is an error.
    """
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    if automatic == "cpu" and torch.backends.mps.is_available():
        automatic = "mps"
    if device == "auto":
        return automatic
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        message = f"device={device!r} is not to be had on this machine ({error})"
        if not fitted:
            raise ValueError(f"{message}. Use device='auto' or 'cpu'.") from error
        warnings.warn(f"{message}; using {automatic!r}.", UserWarning, stacklevel=4)
        return automatic
    return device

"""From arrays to training batches: gathered, balanced, augmented, mixed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

BLOCK_BYTES = 256e6  # what is brought to a GPU, or held of activations in a prediction, at a time


class ImageData(Dataset):
    """Images, class numbers and weights of one fit; indexed by batches of row numbers.

    Parameters
    ----------
    X : ndarray of shape (n_samples, height, width, channels), or tensor of shape (n_samples, ...)
        Never copied: a batch's rows are gathered when it is their turn, on the tensor's device.
    y : ndarray of shape (n_samples,), int
        Class numbers.
    sample_weight : ndarray of shape (n_samples,) or None
        None is a weight of one each.
    rows : ndarray of shape (n_used,), int, or None
        The rows of `X` that belong to this data set; None means all.
    kind : {"images", "activations"}
        What `X` holds; the network takes it by that name.
    """

    def __init__(self, X, y, sample_weight=None, rows=None, kind="images"):
        self.X = X
        self.rows = np.arange(len(X)) if rows is None else rows
        self.y = y
        self.sample_weight = np.ones(len(X)) if sample_weight is None else sample_weight
        self.kind = kind

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, positions: Any) -> tuple[dict[str, Any], np.ndarray]:
        """Return (images or activations and weights, class numbers) of the rows at `positions`."""
        rows = self.rows[positions]
        weight = self.sample_weight[rows].astype(np.float32)
        return {self.kind: gather(self.X, rows), "sample_weight": weight}, self.y[rows]

    def on_device(self, device: str) -> ImageData:
        """Return the same data on a GPU, from where a batch costs no transfer, if there is room.

        That is, half of what is free, since training needs the rest.
        """
        if torch.device(device).type != "cuda":
            return self
        n_bytes = len(self) * math.prod(self.X.shape[1:]) * self.X.dtype.itemsize
        return self if n_bytes > torch.cuda.mem_get_info(device)[0] / 2 else self.moved(device)

    def moved(self, device: str) -> ImageData:
        """Return the same data with its rows of `X` as a tensor on `device`."""
        n_each = max(1, int(BLOCK_BYTES / self.X[:1].nbytes))
        blocks = [self.rows[start : start + n_each] for start in range(0, len(self), n_each)]
        X = torch.cat([torch.as_tensor(gather(self.X, rows)).to(device) for rows in blocks])
        return ImageData(X, self.y[self.rows], self.sample_weight[self.rows], kind=self.kind)


def gather(X: Any, rows: np.ndarray) -> Any:
    """Return rows of an array or tensor, of an array as uint8 or float32, as torch takes them."""
    if isinstance(X, torch.Tensor):
        return X[torch.as_tensor(rows, device=X.device)]
    images = X[rows]
    return images if images.dtype in (np.uint8, np.float32) else images.astype(np.float32)


class Batches:
    """Iterate over an :class:`ImageData` in batches.

    A last batch of a single image joins the one before it, because BatchNorm cannot train on one.

    Parameters
    ----------
    dataset : ImageData
    batch_size : int
    random_state : numpy.random.RandomState or None
        Shuffles, augments and mixes; None gives the images in their order.
    augment : Augmenter or None
    balanced : bool
        Whether every class comes equally often.
    mixing : callable or None
        ``(inputs, target, random_state) -> (inputs, target)``.
    """

    def __init__(
        self, dataset, batch_size, random_state=None, augment=None, balanced=False, mixing=None
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.random_state = random_state
        self.augment = augment
        self.balanced = balanced
        self.mixing = mixing

    def __len__(self):
        n_batches = math.ceil(len(self.dataset) / self.batch_size)
        lonely = n_batches > 1 and self.batch_size > 1 and len(self.dataset) % self.batch_size == 1
        return n_batches - int(lonely)

    def __iter__(self) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        order = self._order()
        for number in range(len(self)):
            start = number * self.batch_size
            stop = None if number == len(self) - 1 else start + self.batch_size
            inputs, target = self.dataset[order[start:stop]]
            if self.augment is not None:
                inputs["images"] = self.augment.augment(inputs["images"], self.random_state)
            if self.mixing is not None:
                inputs, target = self.mixing(inputs, target, self.random_state)
            yield inputs, target

    def _order(self) -> np.ndarray:
        """Return positions in the data set, as many as it has."""
        n_samples = len(self.dataset)
        if self.random_state is None:
            return np.arange(n_samples)
        if not self.balanced:
            return self.random_state.permutation(n_samples)
        target = self.dataset.y[self.dataset.rows]
        members = [np.flatnonzero(target == number) for number in np.unique(target)]
        n_each = math.ceil(n_samples / len(members))
        # Each class goes through its images in shuffled rounds, none a second time before all were
        # shown; then one image of each class in turn, in a new order every turn.
        queues = np.stack([self._rounds(rows, n_each) for rows in members], axis=1)
        turns = [self.random_state.permutation(turn) for turn in queues]
        return np.concatenate(turns)[:n_samples]

    def _rounds(self, rows: np.ndarray, n_each: int) -> np.ndarray:
        n_rounds = math.ceil(n_each / len(rows))
        shuffled = [self.random_state.permutation(rows) for _ in range(n_rounds)]
        return np.concatenate(shuffled)[:n_each]

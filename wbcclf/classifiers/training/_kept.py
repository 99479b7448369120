"""A fit that was finished is not repeated."""

from __future__ import annotations

import hashlib
import io
import pickle
from numbers import Integral
from typing import Any, NamedTuple

import cv2
import numpy as np
import skorch
import torch
from sklearn.base import BaseEstimator
from skorch.history import History

from wbcclf._store import Store
from wbcclf._warnings import warn
from wbcclf.classifiers.caching._keys import conditions, fit_digest
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.familiarity._description import Description
from wbcclf.classifiers.options._settings import Settings
from wbcclf.classifiers.training._net import CellNet


class Outcome(NamedTuple):
    """What a training gives besides weights."""

    epochs: list[dict]  # their figures
    temperature: float | None  # that the logits were divided by
    description: Description | None


class KeptFit:
    """The place in a store of the fit that a net is ready for.

    Parameters
    ----------
    net : CellNet
    store : Store
    digest : str
        Of what the fit depends on but what computes it.
    """

    def __init__(self, net: CellNet, store: Store, digest: str) -> None:
        self.net = net
        self.store = store
        versions = (skorch.__version__, np.__version__, cv2.__version__)
        text = f"{digest} {versions} {conditions(net.module_, net.device, net.precision)}"
        self.key = f"fits/{hashlib.sha256(text.encode()).hexdigest()[:40]}"

    def read(self) -> Outcome | None:
        """Give the net the weights that the fit ended with; return what else it gave.

        None without an entry.
        """
        entry = self.store.read(self.key)
        if entry is None:
            return None
        file = io.BytesIO(entry)
        try:
            state = torch.load(file, map_location=self.net.device, weights_only=True)
        except pickle.UnpicklingError as error:  # a module's extra state may be anything
            warn(f"A kept training cannot be read ({error}); it is repeated.")
            return None
        self.net.module_.load_state_dict(state["network"], strict=False)  # the frozen part is there
        self.net.history_ = History(state["history"])
        arrays = {name: tensor.cpu().numpy() for name, tensor in state["description"].items()}
        description = Description(**arrays) if arrays else None
        return Outcome(state["history"], state["temperature"], description)

    def write(self, outcome: Outcome) -> None:
        """Keep the trained weights, and what else the fit gave."""
        file = io.BytesIO()
        arrays = {} if outcome.description is None else outcome.description.arrays()
        state = {
            "network": self.net.module_.trained_state(),
            "history": outcome.epochs,
            "temperature": outcome.temperature,
            "description": {name: torch.from_numpy(array) for name, array in arrays.items()},
        }
        torch.save(state, file)
        try:
            self.store.write(self.key, file.getbuffer())
        except OSError as error:
            warn(
                f"The training is not kept in {self.store.folder} ({error}). Free some space "
                "there, or lower max_gb in memory=Cache(folder, max_gb=...)."
            )


def find_kept_fit(
    classifier: BaseEstimator,
    settings: Settings,
    net: CellNet,
    train_data: ImageData,
    valid_data: ImageData | None,
    store: Store | None,
) -> KeptFit | None:
    """Return where the fit is or will be kept; None without a store, or if it cannot be repeated.

    It can if it has a seed, and all its code a version. The network's code has the version of its
    backbone, without which there is no store. A callback, and a classifier, augmenter or other
    object from elsewhere have none; they may read files, too.
    """
    method = settings.optimizer.method
    parts = [
        part
        for name, part in settings.given.items()
        if name != "backbone" and (name == "augment" or isinstance(part, BaseEstimator))
    ]
    is_repeatable = (
        isinstance(classifier.random_state, Integral)
        and not settings.callbacks
        and (isinstance(method, str) or _is_of(method, "torch"))
        and all(part is None or _is_of(type(part), "wbcclf") for part in [classifier, *parts])
    )
    if store is None or not is_repeatable:
        return None
    try:
        digest = fit_digest(classifier, net.module_, train_data, valid_data)
    except TypeError as error:
        warn(f"The training is not kept: {error}.")
        return None
    return KeptFit(net, store, digest)


def _is_of(cls: Any, package: str) -> bool:
    # Not a function: functools.wraps gives it another's name.
    return isinstance(cls, type) and cls.__module__.startswith(f"{package}.")

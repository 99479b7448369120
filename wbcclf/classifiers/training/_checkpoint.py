"""A killed fit resumes at its last epoch; a finished fit is not repeated."""

from __future__ import annotations

import io
import pickle
import warnings
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skorch
import torch
from skorch.callbacks import Callback
from skorch.history import History

from wbcclf._files import replacing
from wbcclf._store import Store
from wbcclf.classifiers.caching._fingerprint import Fingerprint, arithmetic_used
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.exceptions import ModelFormatError

# What the result of a fit does not depend on, and callbacks, whose state nobody can compare.
_LEFT_OUT = {
    *("verbose", "checkpoint_dir", "device", "callbacks"),
    *("cache_gb", "memory", "memory_gb"),
}


def fit_fingerprint(
    classifier: Any, network: CellNetwork, train_data: ImageData, valid_data: ImageData | None
) -> Fingerprint:
    """Return what tells a fit from others: parameters, network before it, images, labels, weights.

    Raises
    ------
    TypeError
        If a parameter cannot be told from others, as something that holds a lock.
    """
    params = classifier.get_params(deep=False).items()
    fingerprint = Fingerprint(
        type(classifier),
        {name: value for name, value in sorted(params) if name not in _LEFT_OUT},
        network,
    )
    fingerprint.add(train_data.X, train_data.y, train_data.sample_weight, train_data.rows)
    if valid_data is not None:
        fingerprint.add(valid_data.X, valid_data.y, valid_data.rows)
    return fingerprint


def is_repeatable(classifier: Any) -> bool:
    """Return whether a fit is worth keeping: it has a seed, and only the network's code is new.

    A callback, an optimizer or an augmenter of the user's own may read files, or write some.
    """
    optimizer = classifier.optimizer
    return (
        isinstance(classifier.random_state, Integral)
        and not classifier.callbacks
        and (isinstance(optimizer, str) or _is_of(optimizer, "torch"))
        and (classifier.augment is None or _is_of(type(classifier.augment), "wbcclf"))
    )


def _is_of(cls: Any, package: str) -> bool:
    # Not a function: functools.wraps gives it another's name.
    return isinstance(cls, type) and cls.__module__.startswith(f"{package}.")


def fit_key(net: Any, fingerprint: Fingerprint) -> str:
    """Return the key of a fit in a store, from its fingerprint and what it is computed with."""
    versions = (skorch.__version__, np.__version__, cv2.__version__)
    fingerprint.add(*versions, *arithmetic_used(net.device, net.precision))
    return f"fits/{fingerprint.hexdigest()}"


def write_fit(net: Any, store: Store, key: str, history: list[dict]) -> None:
    """Keep the trained weights and the figures of the epochs."""
    file = io.BytesIO()
    frozen = _frozen_names(net.module_)
    state = net.module_.state_dict().items()
    weights = {name: tensor for name, tensor in state if not name.startswith(frozen)}
    torch.save({"network": weights, "history": history}, file)
    try:
        store.write(key, file.getbuffer())
    except OSError as error:
        warnings.warn(
            f"The training is not kept in {store.folder} ({error}). Free some room there, or lower "
            "memory_gb.",
            UserWarning,
            stacklevel=6,
        )


def read_fit(net: Any, store: Store, key: str) -> list[dict] | None:
    """Give the net the weights that a fit ended with, and return its figures; None without one."""
    entry = store.read(key)
    if entry is None:
        return None
    try:
        state = torch.load(io.BytesIO(entry), map_location=net.device, weights_only=True)
    except pickle.UnpicklingError as error:  # a module's extra state may be anything
        warnings.warn(
            f"A kept training cannot be read ({error}); it is done anew.", UserWarning, stacklevel=5
        )
        return None
    net.module_.load_state_dict(state["network"], strict=False)  # what is frozen is there
    net.history_ = History(state["history"])
    return state["history"]


def _frozen_names(network: CellNetwork) -> tuple[str, ...]:
    names = [name for name, _ in network.backbone.named_children()]
    return tuple(f"backbone.{name}." for name in names[: network.n_frozen])


class Checkpoint(Callback):
    """Write the state of a training after every epoch; go on from it if there is one.

    The last callback, so that every other has dealt with the epoch before it is written.

    Parameters
    ----------
    path : Path
        The file; it is removed when the training ends by itself.
    """

    def __init__(self, path: Path):
        self.path = path

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        """Take the state of the last epoch from the file."""
        if not self.path.is_file():
            return
        try:
            state = torch.load(self.path, map_location=net.device, weights_only=True)
            net.module_.load_state_dict(state["network"])
            net.optimizer_.load_state_dict(state["optimizer"])
            for name, callback in _stateful(net):
                callback.load_training_state(state["callbacks"][name])
            net.history_ = History(state["history"])
            kind, keys, *rest = state["numpy"]
            net.random_state.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
            torch.set_rng_state(state["torch"].cpu())
            if state["cuda"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])
        except Exception as error:  # a damaged file raises a dozen kinds
            raise ModelFormatError(
                f"The checkpoint {self.path} cannot be resumed ({type(error).__name__}: "
                f"{error}). Delete it to train from the start."
            ) from error

    def on_epoch_end(self, net, **kwargs):
        """Write the state, whole or not at all."""
        kind, keys, *rest = net.random_state.get_state()
        state = {
            "network": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "callbacks": {name: callback.training_state() for name, callback in _stateful(net)},
            "history": [epoch | {"batches": []} for epoch in net.history],
            "numpy": [kind, keys.tolist(), *rest],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
        }
        try:
            with replacing(self.path) as temporary:
                torch.save(_plain(state), temporary)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter on a full disk
            raise OSError(f"The checkpoint {self.path} cannot be written ({error}).") from error


def _stateful(net: Any) -> list[tuple[str, Any]]:
    return [
        (name, callback) for name, callback in net.callbacks_ if hasattr(callback, "training_state")
    ]


def _plain(value: Any) -> Any:
    """Return a state with Python's numbers for NumPy's, which would need unpickling code."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value

"""A fit that was killed resumes at its last epoch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from skorch.history import History

from wbcclf._files import replacing
from wbcclf.classifiers.caching._keys import fit_digest
from wbcclf.classifiers.data._batches import ImageData
from wbcclf.classifiers.network._network import CellNetwork
from wbcclf.exceptions import ModelFormatError


def checkpoint_file(
    classifier: BaseEstimator,
    network: CellNetwork,
    train_data: ImageData,
    valid_data: ImageData | None,
) -> Path:
    """Return the file of a fit's checkpoint, in the classifier's `checkpoint_dir`.

    Raises
    ------
    ValueError
        If the folder cannot be written to, or the fit could not be recognised.
    """
    if classifier.random_state is None:
        raise ValueError(
            "checkpoint_dir needs a random_state, like 0: without one, two fits with the same "
            "parameters cannot be told apart."
        )
    folder = Path(classifier.checkpoint_dir).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} cannot be written to ({error})."
        ) from error
    try:
        digest = fit_digest(classifier, network, train_data, valid_data)
    except TypeError as error:
        raise ValueError(
            f"checkpoint_dir={str(folder)!r} cannot be used: {error}, so the fit to resume would "
            "not be recognised. Give something that pickle takes, like a function of a module."
        ) from error
    return folder / f"fit-{digest}.pt"


class Checkpoint(Callback):
    """Write the state of a training after every epoch; resume from it if there is one.

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
            net.module_.load_state_dict(state["network"], strict=False)
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
            "network": net.module_.trained_state(),
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

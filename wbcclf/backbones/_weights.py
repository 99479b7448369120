"""Weights files: found, downloaded, checked and read without ever unpickling code."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from safetensors.torch import load_file

from wbcclf._model_file import (
    TRAINED_ON,
    check_digests,
    is_model_file,
    open_archive,
    open_model_file,
)
from wbcclf.backbones._base import BackboneSpec, PackagedWeights, WeightsSource
from wbcclf.exceptions import WeightsMismatchError, WeightsNotFoundError


def cache_folder() -> Path:
    """Return the folder that downloaded weights are kept in: torch's own, so files are shared."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(spec: BackboneSpec, weights: str | os.PathLike) -> Path:
    """Return the file behind a tag of `spec`, downloaded if it is not there yet, or behind a path.

    Raises
    ------
    WeightsNotFoundError
        If the file is not there and cannot be downloaded.
    WeightsMismatchError
        If a downloaded file's SHA-256 is not the published one.
    """
    source = spec.weights.get(str(weights))
    if isinstance(source, PackagedWeights):
        return source.path
    if source is not None:
        return _fetch(spec, str(weights), source)
    path = Path(weights).expanduser()
    if not path.is_file():
        tags = " or ".join(repr(tag) for tag in spec.weights) or "no named ones"
        raise WeightsNotFoundError(
            f"weights={str(weights)!r}: there is no such file; {spec.name} has {tags}. Give the "
            "path of a .pth, .pt, .safetensors, .npz or .wbcclf file, or weights=None for a random "
            "start."
        )
    return path


def _fetch(spec: BackboneSpec, tag: str, source: WeightsSource) -> Path:
    path = cache_folder() / source.file_name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writes to a temporary name, checks the hash, then renames.
            torch.hub.download_url_to_file(source.url, str(path), source.sha256, progress=False)
        except RuntimeError as error:  # torch's word for a wrong hash
            raise WeightsMismatchError(
                f"weights={tag!r}: the download of {source.file_name} is damaged or not the "
                f"published file ({error}). Try again, or give weights='path/to/{source.file_name}'"
            ) from error
        except (URLError, OSError) as error:
            raise WeightsNotFoundError(
                f"weights={tag!r} for {spec.name} needs the file {source.file_name}, which is not "
                f"in the cache folder {path.parent} and could not be downloaded ({error}). Put the "
                f"file into that folder, or give weights='path/to/{source.file_name}', or "
                "weights=None to start from random weights."
            ) from error
    # Also for a file that somebody put there by hand.
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(source.sha256):
        raise WeightsMismatchError(
            f"{path} is not the published file: its SHA-256 starts with {digest[:8]}, not "
            f"{source.sha256[:8]}. Delete it to download it again, or give it as weights='path'."
        )
    return path


# An .npz may be deflated, but weights are noise: no real file shrinks to a twentieth.
_MOST_INFLATED = 20
_WRAPPERS = ("state_dict", "model_state_dict", "model", "teacher")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a weights file.

    The file is a state dict of ``torch.save`` (``.pth``, ``.pt``; read with ``weights_only``), a
    ``.safetensors`` or an ``.npz`` of arrays (read without pickle). A checkpoint that holds the
    state dict under ``"state_dict"``, ``"model_state_dict"``, ``"model"`` or ``"teacher"`` (the
    network that DINO keeps), or some of these in each other, is unwrapped.

    Raises
    ------
    WeightsMismatchError
        If it is no weights file.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            return load_file(path)
        if path.suffix.lower() == ".npz":
            with open_archive(path, _MOST_INFLATED), np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        if zipfile.is_zipfile(path):
            with open_archive(path):  # torch would inflate without an end what it never deflates
                pass
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle, numpy, safetensors and torch raise a dozen kinds
        raise WeightsMismatchError(
            f"{path} could not be read as weights ({type(error).__name__}: {error}). It must be a "
            "torch.save-d state dict (.pth, .pt), a .safetensors, an .npz of arrays, without "
            "pickled objects, or a model file of wbcclf.save_model."
        ) from error
    while isinstance(state, dict):
        inner = [state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)]
        if not inner:
            break
        state = inner[0]
    if not (isinstance(state, dict) and state and all(map(_is_weight, state.items()))):
        raise WeightsMismatchError(
            f"{path} holds no state dict (names to dense tensors of real numbers). Save "
            "model.state_dict()."
        )
    return state


def read_trained_on(path: Path) -> np.ndarray:
    """Return the digests of the images that a model in a file was trained on; none if unknown.

    Raises
    ------
    WeightsMismatchError
        If the file is damaged.
    """
    nothing = np.empty(0, dtype=np.uint64)
    if not is_model_file(path):
        return nothing
    try:
        with open_model_file(path) as (_, arrays):
            return check_digests(arrays[TRAINED_ON]) if TRAINED_ON in arrays else nothing
    except Exception as error:  # as many kinds as above
        raise WeightsMismatchError(
            f"{path} could not be read as a model file ({type(error).__name__}: {error})."
        ) from error


def _is_weight(item: tuple) -> bool:
    name, tensor = item
    return (
        isinstance(name, str)
        and torch.is_tensor(tensor)
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())
        # One number that claims to be a large tensor would be one when it is copied.
        and tensor.untyped_storage().nbytes() >= tensor.nbytes
    )


def read_model_weights(path: Path, backbone: str) -> dict[str, torch.Tensor]:
    """Return the network's state dict in a model file of :func:`wbcclf.save_model`.

    The chain's tensors are named ``"backbone.block.rest"``.

    Raises
    ------
    WeightsMismatchError
        If the file is damaged, or holds a model with another backbone.
    """
    try:
        with open_model_file(path) as (document, arrays):
            state = {
                # The model of this package is in half precision.
                name.removeprefix("network/"): torch.from_numpy(arrays[name]).float()
                for name in arrays
                if name.startswith("network/")
            }
    except Exception as error:  # as many kinds as above
        raise WeightsMismatchError(
            f"{path} could not be read as a model file ({type(error).__name__}: {error})."
        ) from error
    # Files of format 1 do not name the backbone: names and shapes of the tensors have to decide.
    theirs = document.get("backbone", backbone)
    if theirs != backbone:
        raise WeightsMismatchError(
            f"{path} holds a model with the backbone {theirs!r}; its weights do not fit "
            f"{backbone!r}."
        )
    return state

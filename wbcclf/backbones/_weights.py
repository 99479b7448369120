"""Weights files: found, downloaded, checked and read without ever unpickling code."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch

from wbcclf.backbones._base import BackboneSpec, WeightsSource
from wbcclf.exceptions import WeightsMismatchError, WeightsNotFoundError


def cache_folder() -> Path:
    """Return the folder that downloaded weights are kept in: torch's own, so files are shared."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def read_weights(spec: BackboneSpec, weights: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Return the state dict behind a tag of `spec` or in a file.

    A file is a ``torch.save``-d state dict (``.pth``, ``.pt``; read with ``weights_only``) or an
    ``.npz`` of arrays (read without pickle).

    Raises
    ------
    WeightsNotFoundError
        If the file is not there and cannot be downloaded.
    WeightsMismatchError
        If the file's SHA-256 is not the published one, or it is no weights file.
    """
    source = spec.weights.get(str(weights))
    if source is not None:
        return _read_file(_fetch(spec, str(weights), source))
    path = Path(weights).expanduser()
    if not path.is_file():
        tags = " or ".join(repr(tag) for tag in spec.weights) or "no named ones"
        raise WeightsNotFoundError(
            f"weights={str(weights)!r}: there is no such file; {spec.name} has {tags}. Give the "
            "path of a .pth, .pt or .npz file, or weights=None for a random start."
        )
    return _read_file(path)


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
            f"{source.sha256[:8]}. Delete it to download it anew, or give it as weights='path'."
        )
    return path


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle, numpy and torch raise a dozen kinds here
        raise WeightsMismatchError(
            f"{path} could not be read as weights ({type(error).__name__}: {error}). It must be a "
            "torch.save-d state dict (.pth, .pt) or an .npz of arrays, without pickled objects."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WeightsMismatchError(
            f"{path} holds no state dict (names to tensors). Save model.state_dict()."
        )
    return state

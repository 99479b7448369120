"""Fields one after the other: read, their cells found, cut out and classified."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wbcclf._files import shown
from wbcclf._images import check_image_size
from wbcclf._parts import part_key
from wbcclf._store import Store
from wbcclf._threads import run_in_threads
from wbcclf._warnings import warn
from wbcclf.datasets import ImageLoader
from wbcclf.datasets._cropping import check_crop
from wbcclf.datasets._decode import read_image, resize
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._files import list_files, predict_images
from wbcclf.preprocessing import Cell, CellCropper, find_cells

FORMAT = 2  # raised whenever what is kept of a field changes its meaning
MARGIN = 2.5  # cell diameters: how wide pictures of one cell are (median of four laboratories)


class Found(NamedTuple):
    """What was found in some fields.

    Attributes
    ----------
    reasons : ndarray of shape (n_fields,), str
        Why a field cannot be read, else empty.
    field : ndarray of shape (n_cells,), int
        The field of each cell, in their order.
    boxes : ndarray of shape (n_cells, 4), int
        (min_row, min_col, max_row, max_col).
    at_border : ndarray of shape (n_cells,), bool
        True where the lower or right border cuts the cell.
    labels : ndarray of shape (n_cells,), int
        Place of the predicted class in the model's `classes_`.
    probabilities : ndarray of shape (n_cells, n_classes), float
    familiarity : ndarray of shape (n_cells,), float
        NaN of a model that cannot tell.
    """

    reasons: np.ndarray
    field: np.ndarray
    boxes: np.ndarray
    at_border: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    familiarity: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """Of the predicted class of each cell."""
        return self.probabilities[np.arange(len(self.labels)), self.labels]

    def status(self, min_probability: float) -> np.ndarray:
        """Return what becomes of each cell: "called", "uncertain" or "border"."""
        sure = np.where(self.probability >= min_probability, "called", "uncertain")
        return np.where(self.at_border, "border", sure)

    def cells_of(self, number: int) -> Found:
        """Return the cells of one field alone."""
        return Found(self.reasons, *(values[self.field == number] for values in self[1:]))


class FieldReader:
    """What a model finds in fields.

    Parameters
    ----------
    loader, transformers, classifier
        Of the model, as ``model_parts`` gives them.
    max_pixels : int
        Largest number of pixels of a field.
    store : Store or None
        Keeps what is found in files; then there are no pictures.
    identity : str
        A digest of the model.
    """

    def __init__(
        self,
        loader: ImageLoader,
        transformers: list,
        classifier: Any,
        max_pixels: int,
        store: Store | None = None,
        identity: str = "",
    ) -> None:
        self.max_pixels = max_pixels
        self.cut_out, self.transformers = _cutter(loader, transformers, classifier)
        self.classifier = classifier
        self.store = store
        self.identity = identity

    def read(self, sources: list[Any], n_jobs: int | None) -> Found:
        """Return what is found in files or pictures; with a store, files that it holds as kept."""
        if self.store is None:
            return self._read(sources, n_jobs)
        key = part_key(f"fields {FORMAT} {self.identity}", sources)
        entry = self.store.read(key)
        if entry is not None:
            with np.load(io.BytesIO(entry)) as arrays:
                return Found(**arrays)
        found = self._read(sources, n_jobs)
        if (found.reasons != "").any():  # that may pass: a disk that was away, rights
            return found
        file = io.BytesIO()
        np.savez(file, **found._asdict())
        self.store.write(key, file.getvalue())
        return found

    def _read(self, sources: list[Any], n_jobs: int | None) -> Found:
        results: list[Any] = [None] * len(sources)
        reasons = [""] * len(sources)

        def look(index: int) -> None:
            try:
                picture = read_field(sources[index], self.max_pixels)
            except ImageReadError as error:
                reasons[index] = str(error)
                return
            cells = find_cells(picture)
            if cells:
                boxes = np.array([cell.bbox for cell in cells])
                at_border = (boxes[:, 2:] >= picture.shape[:2]).any(axis=1)
                results[index] = boxes, at_border, self.cut_out(picture, cells)

        run_in_threads(look, len(sources), n_jobs)
        field = [k for k, result in enumerate(results) if result for _ in result[0]]
        boxes, at_border, crops = np.empty((0, 4), int), np.empty(0, bool), np.empty(0)
        if field:
            boxes, at_border, crops = map(np.concatenate, zip(*filter(None, results), strict=True))
        # What is uncertain in a count, `min_probability` says, not the model's rejection.
        found = predict_images(self.transformers, self.classifier, crops, rejects=False)
        place = {label: k for k, label in enumerate(self.classifier.classes_.tolist())}
        return Found(
            reasons=np.array(reasons),
            field=np.array(field, int),
            boxes=boxes,
            at_border=at_border,
            labels=np.array([place[label] for label in found.labels.tolist()], int),
            probabilities=found.probabilities,
            familiarity=np.full(len(field), np.nan)
            if found.familiarity is None
            else found.familiarity,
        )


def _cutter(
    loader: ImageLoader, transformers: list, classifier: Any
) -> tuple[Callable[[np.ndarray, list[Cell]], np.ndarray], list]:
    """Return what cuts the cells out of a picture as a model wants them, and its later steps."""
    if loader.crop is not None:
        cropper, _ = check_crop(loader.crop, check_image_size(loader.image_size))
        return cropper.crop_cells, transformers
    if transformers and isinstance(transformers[0], CellCropper):
        return transformers[0].crop_cells, transformers[1:]
    warn(
        "model was trained on whole pictures. Here it is given cells as it has never seen them: "
        f"cut out of the fields, in squares of {MARGIN:g} diameters of the cell. Train it with "
        "ImageLoader(crop=CellCropper()), or wbcclf train --crop cell."
    )
    size = check_image_size(loader.image_size) or classifier.image_shape_[:2]
    plain = CellCropper("cell", factor=MARGIN, image_size=max(size))

    def cut_out(picture: np.ndarray, cells: list[Cell]) -> np.ndarray:
        squares = plain.crop_cells(picture, cells)
        stretched = [resize(square, size) for square in squares]
        return np.array(stretched, np.uint8).reshape(-1, *size, 3)

    return cut_out, transformers


def read_field(source: Any, max_pixels: int) -> np.ndarray:
    """Return a field (height, width, 3), uint8.

    Raises
    ------
    ImageReadError
        If its file cannot be read; with the reason only.
    """
    return source if isinstance(source, np.ndarray) else read_image(source, None, max_pixels)[0]


def list_fields(fields: Any) -> tuple[list[Any], list[str], list[tuple[str, str]]]:
    """Return paths or pictures, a name for each, and what is left out of a folder.

    Raises
    ------
    TypeError
        If there is anything else among them.
    ValueError
        If there is none, or one is given twice.
    FileNotFoundError
        If a single path leads nowhere.
    """
    if isinstance(fields, np.ndarray) and fields.ndim in (2, 3):
        fields = [fields]
    if not isinstance(fields, (str, bytes, os.PathLike)) and np.iterable(fields):
        fields = list(fields)
        if any(isinstance(field, np.ndarray) for field in fields):
            for number, field in enumerate(fields):
                _check_picture(field, number)
            return fields, [str(number) for number in range(len(fields))], []
    paths, left_out = list_files(fields, "fields", "are RGB arrays (height, width, 3) of uint8")
    name, times = Counter(map(os.path.abspath, paths)).most_common(1)[0]
    if times > 1:
        raise ValueError(f"fields names {name} {times} times; give each field once.")
    return paths, paths, left_out


def _check_picture(field: Any, number: int) -> None:
    is_array = isinstance(field, np.ndarray)
    if not is_array or field.ndim != 3 or field.shape[2] != 3 or 0 in field.shape:
        got = f"shape {field.shape}" if is_array else type(field).__name__
        raise TypeError(
            f"fields[{number}] must be an RGB picture of shape (height, width, 3), got {got}."
        )
    if field.dtype != np.uint8:
        raise TypeError(
            f"fields[{number}] must be uint8 (0-255), like the pictures of files, got "
            f"{field.dtype}."
        )


def overlay_paths(overlay_dir: Any, fields: Any, names: list[str]) -> list[Path] | None:
    """Return the file for each field's overlay, or None if none is wanted.

    Raises
    ------
    ValueError
        If there can be no such folder, or overlays would lie among the fields.
    """
    if overlay_dir is None:
        return None
    folder = Path(overlay_dir)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(
            f"overlay_dir={str(folder)!r} cannot be a folder, since {shown(str(there))} is a file. "
            "Name another folder."
        )
    is_folder = isinstance(fields, (str, os.PathLike)) and os.path.isdir(fields)
    paths = [Path(name).absolute() for name in names]
    root = Path(fields) if is_folder else Path(os.path.commonpath([p.parent for p in paths]))
    inside = folder.resolve().is_relative_to(root.resolve())
    if inside if is_folder else folder.resolve() == root.resolve():
        raise ValueError(
            f"overlay_dir={str(folder)!r} is where the fields are. Overlays would be counted as "
            "fields, or overwrite them. Name another folder."
        )
    # No picture of the user's has such a name, so none is overwritten.
    return [folder / f"{path.relative_to(root.absolute())}.overlay.jpg" for path in paths]

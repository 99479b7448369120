"""What a model says of pictures that are sent: calls, counts and maps, ready for JSON."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from sklearn.pipeline import make_pipeline

from wbcclf._files import plain
from wbcclf._images import check_image_size
from wbcclf._threads import run_in_threads
from wbcclf._uncertainty import UNCERTAIN as UNCERTAIN_LABEL
from wbcclf.cells._limit import at_most
from wbcclf.classifiers import CNNClassifier
from wbcclf.conformal import ConformalClassifier
from wbcclf.datasets._cropping import check_crop
from wbcclf.datasets._decode import TooManyPixels, decode_image
from wbcclf.exceptions import ImageReadError
from wbcclf.fields import count_cells
from wbcclf.fields._count import SIDES
from wbcclf.fields._fields import MARGIN
from wbcclf.fields._overlay import BORDER, COLOURS, UNCERTAIN, draw_field
from wbcclf.inspection import explain
from wbcclf.inspection._files import model_parts, predict_images
from wbcclf.inspection.pages._html import picture_source
from wbcclf.serving._limits import Limits, Refused

OVERLAY_SIDE, OVERLAY_QUALITY = 1600, 85


class ServedModel:
    """A model, and how it is asked.

    Parameters
    ----------
    model : CNNClassifier or pipeline
        Fitted.
    pixels : int
        Of the largest picture.
    cells : int
        White cells of a picture, at most.
    not_white : list of str
        As `count_cells` takes it.
    """

    def __init__(
        self,
        model: Any,
        pixels: int,
        cells: int = Limits.cells,
        not_white: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.pixels = pixels
        self.cells = cells
        self.not_white = not_white
        self.sets: ConformalClassifier | None = None
        self.loader, self.transformers, self.classifier = model_parts(model)
        self.explains = isinstance(self.classifier, CNNClassifier)
        size = check_image_size(self.loader.image_size)
        self.crop, size = check_crop(self.loader.crop, size)
        self.size = size or self.classifier.image_shape_[:2]

    @property
    def classes(self) -> list:
        """The labels that the model knows."""
        return self.classifier.classes_.tolist()

    def fit_sets(self, images: np.ndarray, target: np.ndarray, groups: Any) -> None:
        """Learn prediction sets from labelled pictures, as the loader gives them."""
        seen = make_pipeline(*self.transformers, self.classifier)
        self.sets = ConformalClassifier(seen, random_state=0).fit(images, target, groups)

    def pick(self, data: bytes, box: Sequence[int] | None = None) -> bytes:
        """Return the file that shows one cell: a picture as it is, or the cell of a field.

        Parameters
        ----------
        data : bytes
            A file.
        box : (min_row, min_col, max_row, max_col) or None
            In pixels, half-open. Then the file is a field, and the cell in this box is cut out.

        Returns
        -------
        bytes
            `data` itself, or the cell as PNG.

        Raises
        ------
        ImageReadError
            If the file is no picture.
        Refused
            If the box is not inside the field.
        """
        picture = self._decode(data)
        if box is None:
            return data
        height, width = picture.shape[:2]
        if box[2] > height or box[3] > width:
            raise Refused(
                400,
                f"box must be inside the field, which has {height} rows and {width} columns, got "
                f"{','.join(map(str, box))}.",
            )
        cell = cv2.cvtColor(_cut_out(picture, box), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".png", cell)[1].tobytes()

    def predict(self, files: Sequence[bytes]) -> list[dict | ImageReadError]:
        """Return what is predicted of each file, or why it is no picture."""
        squares: list[Any] = [None] * len(files)
        found: list[Any] = [None] * len(files)
        answers: list[Any] = [None] * len(files)

        def read(number: int) -> None:
            try:
                squares[number], found[number] = self._open(files[number])
            except ImageReadError as error:
                answers[number] = error

        run_in_threads(read, len(files), n_jobs=None)
        rows = [number for number, square in enumerate(squares) if square is not None]
        if rows:
            batch = np.stack([squares[number] for number in rows])
            predicted = predict_images(self.transformers, self.classifier, batch)
            for row, number in enumerate(rows):
                answers[number] = self._answer(predicted, row) | {"cell_found": found[number]}
        return answers

    def count(self, data: bytes) -> dict[str, Any]:
        """Return the white cells of a field, their count, and a picture with their numbers."""
        picture = self._decode(data)
        with _heard() as messages, at_most(self.cells):
            # In this thread, where the limit holds. With one field, others would have no work.
            found = count_cells(self.model, [picture], not_white=self.not_white, n_jobs=1)
        cells = {name: column for name, column in found.cells.items() if name != "field"}
        boxes = np.stack([cells[side] for side in SIDES], axis=1)
        rows = zip(*(column.tolist() for column in cells.values()), strict=True)
        extras = zip(found.probabilities, boxes.tolist(), strict=True)
        names = list(found.table)
        table = zip(*(column.tolist() for column in found.table.values()), strict=True)
        return plain(
            {
                "table": [dict(zip(names, row, strict=True)) for row in table],
                "cells": [
                    {"number": number}
                    | dict(zip(cells, row, strict=True))
                    | {
                        "probabilities": dict(zip(self.classes, probabilities, strict=True)),
                        "set": self._set(probabilities),
                        "picture": picture_source(_cut_out(picture, box)),
                    }
                    for number, (row, (probabilities, box)) in enumerate(
                        zip(rows, extras, strict=True), 1
                    )
                ],
                "overlay": self._overlay(picture, cells, boxes),
                "warnings": messages,
            }
        )

    def explain(self, data: bytes, box: Sequence[int] | None = None) -> dict[str, Any]:
        """Return where a picture speaks for the label that is predicted, by covering its parts.

        `data` and `box` are as `pick` takes them.
        """
        square, _ = self._open(data if box is None else self.pick(data, box))
        with _heard() as messages:
            found = explain(
                make_pipeline(*self.transformers, self.classifier),
                square[None],
                method="occlusion",
            )
        return plain(
            {
                "label": str(found.target[0]),
                "probability": found.probability[0],
                "drop": found.drop[0],
                "inside": found.inside[0],
                "cell_share": found.cell_share[0],
                "randomisation": found.randomisation[0],
                "picture": picture_source(found.images[0]),
                "map": picture_source(found.overlay(0)),
                "warnings": messages,
            }
        )

    def _answer(self, predicted: Any, row: int) -> dict[str, Any]:
        label, probabilities = predicted.labels[row], predicted.probabilities[row]

        def known(values: np.ndarray | None) -> Any:
            return None if values is None else values[row]

        return plain(
            {
                "label": str(label) if label in self.classes else UNCERTAIN_LABEL,
                "probabilities": dict(zip(self.classes, probabilities, strict=True)),
                "set": self._set(probabilities),
                "familiarity": known(predicted.familiarity),
                "trained_on": known(predicted.trained_on),
            }
        )

    def _set(self, probabilities: np.ndarray) -> list[str] | None:
        if self.sets is None:
            return None
        is_in = probabilities >= self.sets.thresholds_
        return [str(label) for label in self.classifier.classes_[is_in]]

    def _decode(self, data: bytes, size: tuple[int, int] | None = None) -> np.ndarray:
        try:
            return decode_image(data, size, self.pixels)
        except TooManyPixels:
            raise TooManyPixels(
                f"the picture has more than {self.pixels:,} pixels; make it smaller"
            ) from None

    def _open(self, data: bytes) -> tuple[np.ndarray, bool | None]:
        """Return a picture as the loader gives it, and whether a cell was found to cut out."""
        if self.crop is None:
            return self._decode(data, self.size), None
        try:
            with at_most(self.cells):
                [square], [found] = self.crop.crop_pictures([self._decode(data)])
        except ImageReadError:
            raise
        except ValueError as error:  # it is too small for the square
            raise ImageReadError(str(error)) from error
        return square, bool(found)

    def _overlay(self, picture: np.ndarray, cells: dict[str, np.ndarray], boxes: np.ndarray) -> str:
        """Return a field with numbers at its cells, not too large for a page, as a data URL."""
        scale = min(1, OVERLAY_SIDE / max(picture.shape[:2]))
        small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        boxes = np.rint(scale * boxes).astype(int)
        place = {str(label): number for number, label in enumerate(self.classes)}
        colours = [
            {"called": COLOURS[place[label] % len(COLOURS)], "uncertain": UNCERTAIN}.get(
                status, BORDER
            )
            for label, status in zip(cells["label"].tolist(), cells["status"].tolist(), strict=True)
        ]
        numbers = [str(number) for number in range(1, len(boxes) + 1)]
        file = io.BytesIO()
        draw_field(small, boxes, numbers, colours).save(file, "JPEG", quality=OVERLAY_QUALITY)
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _cut_out(picture: np.ndarray, box: Sequence[int]) -> np.ndarray:
    """Return the part of a field that shows the cell in a box, as it is.

    It is as wide as pictures of one cell are: a narrower part hides what light and stain are read
    from, and in a wider one other cells may be nearer the centre. It ends where the field ends.
    """
    top, left, bottom, right = box
    reach = MARGIN * max(bottom - top, right - left) / 2
    row, column = (top + bottom) / 2, (left + right) / 2
    rows = slice(max(0, round(row - reach)), round(row + reach))
    columns = slice(max(0, round(column - reach)), round(column + reach))
    return picture[rows, columns]


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Give the list of what is warned of inside the block, which the client is told."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield messages
    messages += [str(each.message) for each in caught]

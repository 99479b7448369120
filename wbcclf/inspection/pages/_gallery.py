"""Pictures of an evaluation: the most confident errors, the most uncertain images, with maps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets._decode import read_image
from wbcclf.decoding._paths_or_images import check_paths_or_images
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._files import last_step
from wbcclf.inspection.evaluation._result import Evaluation
from wbcclf.inspection.explaining._explain import explain
from wbcclf.inspection.pages._html import picture_source, short_name

N_ERRORS, N_UNCERTAIN = 140, 60  # that a page shows at most
# Of these, the first have maps: one takes as long as 200 predictions.
N_MAPPED = {"errors": 30, "uncertain": 15}
MAP_SCORES = ("inside", "cell_share", "randomisation", "randomisation_by_chance")


class Pictures:
    """The images of a result, from files or from memory."""

    def __init__(self, images: Any, n_images: int) -> None:
        self.paths: list[str] | None = None
        self.arrays: list[np.ndarray] | None = None
        try:
            self.paths, self.arrays = check_paths_or_images(images, "images")
        except (TypeError, ValueError):  # rows, or images of floats, which cannot be shown
            return
        if len(self.paths or self.arrays or []) != n_images:
            raise ValueError(
                f"The images of this result were changed after it was made of {n_images}."
            )

    def kept(self, rows: list[int]) -> list[int]:
        """Return the rows that can be shown."""
        return rows if self.paths is not None or self.arrays is not None else []

    def card(self, row: int, true: str, called: str, **more: Any) -> Bunch:
        """Return what a page shows of one image."""
        empty = dict.fromkeys(("confidence", "second", "familiarity", "map", "inside"))
        card = Bunch(name=f"images[{row}]", source="", true=true, called=called, **empty | more)
        if self.arrays is not None:
            image = self.arrays[row]
            card.source = picture_source(np.broadcast_to(image, (*image.shape[:2], 3)))
        elif self.paths is not None:
            card.name = short_name(self.paths[row])
            try:
                card.source = picture_source(read_image(self.paths[row])[0])
            except ImageReadError:
                card.name += " (cannot be read any more)"
        return card


def find_cards(result: Evaluation, room: int) -> tuple[list[Bunch], list[Bunch], Any]:
    """Return the errors and the uncertain images that a page shows, and the maps of both.

    The maps are None if the result has no fitted network. `room` is in bytes.
    """
    if result.get("images") is None:
        return [], [], None
    pictures = Pictures(result.images, result.n_images)
    errors = pictures.kept([each.row for each in result.errors][:N_ERRORS])
    uncertain = []
    if "confidence" in result.of_images:
        order = np.argsort(result.of_images.confidence, kind="stable")
        is_right = result.of_images.y_true == result.of_images.y_pred
        uncertain = pictures.kept(order[is_right[order]][:N_UNCERTAIN].tolist())
    mapped = errors[: N_MAPPED["errors"]] + uncertain[: N_MAPPED["uncertain"]]
    maps = _explain(result.get("estimator"), pictures, mapped)
    places = {} if maps is None else {row: place for place, row in enumerate(mapped)}
    cards = cards_that_fit(
        [_card(result, pictures, row, maps, places.get(row)) for row in errors + uncertain], room
    )
    return cards[: len(errors)], cards[len(errors) :], maps


def cards_that_fit(cards: list[Bunch], room: int) -> list[Bunch]:
    """Return the first cards, as many as a page has room for, in bytes."""
    names = (
        "source",
        "map",
        "name",
        *(("true", "called") * 3),
    )  # the classes are there three times
    sizes = [600 + sum(len(card[name] or "") for name in names) for card in cards]
    return cards[: int(np.searchsorted(np.cumsum(sizes), room, side="right"))]


def _explain(model: Any, pictures: Pictures, rows: list[int]) -> Any:
    classifier = None if model is None else last_step(getattr(model, "best_estimator_", model))
    if not rows or not isinstance(classifier, CNNClassifier) or not hasattr(classifier, "net_"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the page says what is wrong with the maps
        # Not Grad-CAM: it is cheaper, but says little of small networks (docs/explaining.md).
        images = pictures.paths or pictures.arrays or []
        return explain(model, [images[row] for row in rows], method="occlusion")


def _card(result: Evaluation, pictures: Pictures, row: int, maps: Any, place: int | None) -> Bunch:
    given = result.of_images
    card = pictures.card(row, str(given.y_true[row]), str(given.y_pred[row]))
    if "confidence" in given:
        shares = given.probabilities[row]
        card.confidence = float(given.confidence[row])
        if len(shares) > 1:
            second = np.argsort(-shares)[1]
            card.second = (str(given.known_classes[second]), float(shares[second]))
    if given.get("familiarity") is not None:
        card.familiarity = float(given.familiarity[row])
    if place is not None:
        card.map = picture_source(maps.overlay(place))
        names = (
            "inside",
            "occlusion_inside",
            "cell_share",
            "randomisation",
            "randomisation_by_chance",
        )
        card |= {name: float(getattr(maps, name)[place]) for name in names}
    return card

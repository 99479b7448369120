"""Pictures of an evaluation: the most confident errors, the most uncertain images, with maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch

from wbcclf.classifiers import CNNClassifier
from wbcclf.datasets._decode import read_image
from wbcclf.datasets._paths_or_images import check_paths_or_images
from wbcclf.exceptions import ImageReadError
from wbcclf.inspection._files import last_step
from wbcclf.inspection.evaluation._result import Evaluation
from wbcclf.inspection.explaining._explain import explain
from wbcclf.inspection.pages._html import MOST_BYTES, picture_source, short_name

N_ERRORS, N_UNCERTAIN = 140, 60  # that a page shows at most


def find_cards(result: Evaluation) -> tuple[list[Bunch], list[Bunch], Any]:
    """Return the errors and the uncertain images that a page shows, and the maps of both.

    The maps are None if the result has no fitted network.
    """
    errors = [each.row for each in result.errors][:N_ERRORS]
    uncertain = []
    if "confidence" in result.of_images:
        order = np.argsort(result.of_images.confidence, kind="stable").tolist()
        uncertain = [row for row in order[: N_ERRORS + N_UNCERTAIN] if row not in set(errors)]
    rows = errors + uncertain[:N_UNCERTAIN]
    if result.get("images") is None:
        return [], [], None
    pictures = Pictures(result.images, result.n_samples)
    shown = pictures.kept(rows)
    maps = explained(result.model, result.images, shown)
    cards = {row: make_card(result, pictures, row, place, maps) for place, row in enumerate(shown)}
    room = MOST_BYTES
    for row, card in list(cards.items()):
        room -= len(card.source) + len(card.map or "") + len(card.name)
        if room < 0:
            del cards[row]
    n_errors = sum(row in cards for row in errors)
    return (
        [cards[row] for row in errors[:n_errors] if row in cards],
        [cards[row] for row in uncertain if row in cards],
        maps,
    )


class Pictures:
    """The images of a result, from files or from memory."""

    def __init__(self, images: Any, n_images: int) -> None:
        self.paths, self.arrays = None, None
        try:
            self.paths, self.arrays = check_paths_or_images(images, "images")
        except (TypeError, ValueError):  # rows, or floats, which are no pictures yet
            return
        if len(self.paths or self.arrays or []) != n_images:
            raise ValueError("images of the result were changed: there are other numbers of them.")

    def kept(self, rows: list[int]) -> list[int]:
        """Return the rows that can be shown."""
        return rows if self.paths is not None or self.arrays is not None else []

    def name(self, row: int) -> str:
        """Return what an image is called."""
        return short_name(self.paths[row]) if self.paths is not None else f"images[{row}]"

    def source(self, row: int) -> str:
        """Return an image as a data URL, empty if its file cannot be read any more."""
        if self.paths is not None:
            try:
                image, _ = read_image(self.paths[row])
            except ImageReadError:
                return ""
            return picture_source(image)
        assert self.arrays is not None
        image = self.arrays[row]
        return picture_source(np.broadcast_to(image, (*image.shape[:2], 3)))


def explained(model: Any, images: Any, rows: list[int]) -> Any:
    """Return the maps of some images, or None if there is no fitted network."""
    classifier = None if model is None else last_step(getattr(model, "best_estimator_", model))
    if not rows or not isinstance(classifier, CNNClassifier) or not hasattr(classifier, "net_"):
        return None
    return explain(model, [images[row] for row in rows])


def make_card(result: Evaluation, pictures: Pictures, row: int, place: int, maps: Any) -> Bunch:
    """Return what a page shows of one image."""
    given = result.of_images
    card = Bunch(
        row=row,
        name=pictures.name(row),
        source=pictures.source(row),
        true=str(given.y_true[row]),
        called=str(given.y_pred[row]),
        confidence=None,
        second=None,
        familiarity=None,
        map=None,
        inside=None,
    )
    if "confidence" in given:
        shares = given.probabilities[row]
        second = np.argsort(-shares)[1] if len(shares) > 1 else 0
        card.confidence = float(given.confidence[row])
        card.second = (str(given.known_classes[second]), float(shares[second]))
    if given.get("familiarity") is not None:
        card.familiarity = float(given.familiarity[row])
    if maps is not None:
        card.map = picture_source(maps.overlay(place))
        card.inside, card.cell_share, card.randomisation, card.randomisation_by_chance = (
            float(scores[place])
            for scores in (
                maps.inside,
                maps.cell_share,
                maps.randomisation,
                maps.randomisation_by_chance,
            )
        )
    return card

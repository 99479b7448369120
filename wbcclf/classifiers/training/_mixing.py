"""MixUp and CutMix."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wbcclf.classifiers.data._batches import gather
from wbcclf.classifiers.options import Mixing


class Mixer:
    """MixUp and CutMix on a batch: images and labels blended with a shuffled copy of the batch.

    Parameters
    ----------
    mixing : Mixing
        Not both off.
    n_classes : int
    """

    def __init__(self, mixing: Mixing, n_classes: int) -> None:
        self.mixup = mixing.mixup
        self.cutmix = mixing.cutmix
        self.n_classes = n_classes

    def __call__(
        self, inputs: dict[str, Any], target: np.ndarray, random_state: Any
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Return blended images and weights, and the labels as (n, n_classes) shares, float32.

        CutMix writes into the images of `inputs`.
        """
        images, weight = inputs["images"], inputs["sample_weight"]
        other = random_state.permutation(len(images))
        pastes = self.cutmix > 0 and (self.mixup == 0 or random_state.randint(2) == 1)
        alpha = self.cutmix if pastes else self.mixup
        share = random_state.beta(alpha, alpha)
        if pastes:
            mixed, share = _paste(images, gather(images, other), share, random_state)
        else:
            mixed = images * np.float32(share) + gather(images, other) * np.float32(1 - share)
        # The loss of a mixed image is meant to be share * w1 * loss(y1) + (1 - share) * w2 *
        # loss(y2). It is linear in the label, so one label and one weight give just that.
        one_hot = np.eye(self.n_classes, dtype=np.float32)[target]
        parts = np.stack([share * weight, (1 - share) * weight[other]]).astype(np.float32)
        total = parts.sum(axis=0)
        label = parts[0, :, None] * one_hot + parts[1, :, None] * one_hot[other]
        return {"images": mixed, "sample_weight": total}, label / total[:, None]


def _paste(images: Any, others: Any, share: float, random_state: Any) -> tuple[Any, float]:
    """Paste a rectangle of `others` into `images`; return them, and the share that is left."""
    height, width = images.shape[1:3]
    side = math.sqrt(1 - share)
    # The rectangle's centre lies anywhere in the image; what reaches beyond the edge is cut off.
    rows = random_state.randint(height) + np.array([-0.5, 0.5]) * height * side
    columns = random_state.randint(width) + np.array([-0.5, 0.5]) * width * side
    top, bottom = rows.round().astype(int).clip(0, height)
    left, right = columns.round().astype(int).clip(0, width)
    images[:, top:bottom, left:right] = others[:, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)
